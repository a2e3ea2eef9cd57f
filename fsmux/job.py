"""A whole transfer as a caller says it: several sources to one destination, and how.

Theory: a job outlives its connections.  Each attempt has new ones and does the whole of :mod:`fsmux.moving` again; what
stands at the destination is found up to date, what is there in part goes on from its journal, and what was told is not
told twice, because the report is the same.  Only what the network does is met by another attempt: whatever else fails
would fail again.  Somebody has to answer the first call, unless it was said how often to try: a mistyped name is more
often the reason than a server that is just being restarted.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct, field

from fsmux.backoff import RETRIES, Backoff
from fsmux.errors import ConnectFailed, Damaged, FsmuxError, NetworkError, UsageError
from fsmux.events import Retrying
from fsmux.limits import CHUNK_SIZE, MAX_CHUNK_SIZE, MAX_FILE_SIZE, MAX_FILES_AT_ONCE, MAX_LANES, MIN_CHUNK_SIZE
from fsmux.moving.report import Report
from fsmux.moving.transfer import Transfer
from fsmux.plan.filters import Filters
from fsmux.records import EVERYTHING, Durability, Kept, printable
from fsmux.transfer.session import Run
from fsmux.urls import NAMELESS, Local, Remote, Stdio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fsmux.client import Client
    from fsmux.events import Observer, Summary
    from fsmux.moving.ledger import Ledger
    from fsmux.moving.piping import Pipe
    from fsmux.moving.repair import Repairs
    from fsmux.plan.selection import Selection
    from fsmux.urls import Endpoint

STREAMS = 16
"""Files on their way at once. Enough to hide a round trip per file, few enough that each moves at a useful rate."""

KEPT = "what has arrived is kept, and the same command goes on from there"


class Options(Struct, frozen=True):
    """How to transfer. ``chunk_size`` in bytes; ``filters`` decide which names take part.

    ``streams`` files are on their way at once, over so many ``connections`` to the server; a big file goes over all of
    them, and what goes through a pipe over one. ``bwlimit`` is the most bytes of files per second that may travel, over
    all streams together. ``manifest`` is told of every file that stands at the destination. With ``verify`` what was
    written is read back from the device before it counts, and sent again where that did not keep it. With ``repair``
    nothing else is moved than what that names.

    ``selection`` names what takes part of the one directory that is the source.  With ``checksum`` a file is up to date
    if it has the same bytes, whatever its time; with ``update`` it is left alone if it is newer at the destination.
    ``delete``: when all else has succeeded, names are removed that stand in directories of the destination and not in
    those of the sources.

    Raises :class:`UsageError` for a value that an option cannot have.
    """

    streams: int = STREAMS
    connections: int = 1
    chunk_size: int = CHUNK_SIZE
    resume: bool = True
    durability: Durability = Durability.BATCH
    verify: bool = False
    kept: Kept = EVERYTHING
    dry_run: bool = False
    filters: Filters = field(default_factory=Filters)
    selection: Selection | None = None
    checksum: bool = False
    update: bool = False
    delete: bool = False
    bwlimit: int | None = None
    manifest: Ledger | None = None
    repair: Repairs | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name == "bwlimit" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise _unfit(name, value, f"a whole number from {low} to {high}{', or None,' * (name == 'bwlimit')}")
        if self.chunk_size & (self.chunk_size - 1):
            raise _unfit("chunk_size", self.chunk_size, f"a power of two from {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE}")
        for name, kind in _KINDS.items():
            if not isinstance(value := getattr(self, name), kind):
                raise _unfit(name, value, _WORDS.get(kind) or f"an object of {kind.__module__}.{kind.__name__}")
        for name, (module, what) in _OBJECTS.items():
            # Whoever has made one has imported its module; nobody else is to wait for that.
            if (value := getattr(self, name)) is not None and not isinstance(
                value, getattr(sys.modules.get(module), what, ())
            ):
                raise _unfit(name, value, f"an object of {module}.{what}, or None,")


_RANGES: Final = {
    "streams": (1, MAX_FILES_AT_ONCE),
    "connections": (1, MAX_LANES),
    "chunk_size": (MIN_CHUNK_SIZE, MAX_CHUNK_SIZE),
    "bwlimit": (1, MAX_FILE_SIZE),
}
_KINDS: Final[dict[str, type]] = {
    "durability": Durability,
    "kept": Kept,
    "filters": Filters,
    **dict.fromkeys(("resume", "verify", "dry_run", "checksum", "update", "delete"), bool),
}
_OBJECTS: Final = {
    "selection": ("fsmux.plan.selection", "Selection"),
    "manifest": ("fsmux.moving.ledger", "Ledger"),
    "repair": ("fsmux.moving.repair", "Repairs"),
}
_WORDS: Final = {
    bool: "True or False",
    Durability: "Durability.NONE, Durability.BATCH or Durability.FILE",
}


def _unfit(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{name}: {expected} is expected, not {printable(repr(value))[:100]}")


class Job(Struct, frozen=True):
    """A transfer as a command line says it: sources and destination, exactly one side of them remote.

    Instead of a local side there may be ``Stdio``, for one file.

    ``retries`` is how many attempts in a row may bring nothing before it is given up; None: ``RETRIES``, but none if
    the server cannot be reached at all.  ``timeout`` is that of :func:`fsmux.client.connect`.
    """

    sources: tuple[Endpoint, ...]
    destination: Endpoint
    token: str | None = None
    timeout: float | None = None
    retries: int | None = None
    options: Options = field(default_factory=Options)


async def run(job: Job, observer: Observer) -> Summary:
    """Connect, transfer, and return what it came to; events go to ``observer`` on the way.

    Raises:
        UsageError: the sides do not fit together.
        FsmuxError: the whole cannot go on (no connection, a source that is missing, a destination that cannot be).
            What single files failed with is reported by events only.
    """
    from fsmux.client import connect

    remote = _server_of(job)
    report = Report(observer)
    pipe = _pipe(job, report)
    attempt = _of_files(job, report) if pipe is None else pipe.run
    loss = KEPT if pipe is None else pipe.loss
    backoff = Backoff(RETRIES if job.retries is None else job.retries)
    may_retry = job.retries is not None
    try:
        while True:
            before = report.progress
            try:
                async with connect(remote, token=job.token, timeout=job.timeout) as client:
                    may_retry = True
                    await attempt(client)
                    return report.sum_up()
            except (NetworkError, Damaged) as exc:
                if job.options.dry_run or (isinstance(exc, ConnectFailed) and not may_retry):
                    raise
                if pipe is not None and not pipe.may_go_on:
                    raise type(exc)(f"{exc}; {loss}") from exc
                may_retry = may_retry or not isinstance(exc, ConnectFailed)  # somebody has answered
                delay = backoff.failed(progressed=report.progress != before)
                if delay is None:
                    raise _given_up(exc, backoff, loss) from exc
                report(Retrying("", backoff.failures, round(delay, 3), str(exc)))
            await trio.sleep(delay)
    finally:
        if pipe is not None:
            pipe.close()


def _pipe(job: Job, report: Report) -> Pipe | None:
    """What goes through stdin or stdout, if that is among the places."""
    if not any(isinstance(place, Stdio) for place in (*job.sources, job.destination)):
        return None
    from fsmux.moving.piping import pipe_of

    return pipe_of(job.sources, job.destination, job.options, report)


def _of_files(job: Job, report: Report) -> Callable[[Client], Awaitable[None]]:
    """An attempt at a transfer of files and trees; each that is made is a later one of the same run."""
    this: Run | None = None
    sources = tuple(place for place in job.sources if not isinstance(place, Stdio))
    destination = job.destination
    assert not isinstance(destination, Stdio)

    async def attempt(client: Client) -> None:
        nonlocal this
        this = Run() if this is None else this.next()
        await _attempt(client, job.options, report, this).run(sources, destination)

    return attempt


def _attempt(client: Client, options: Options, report: Report, this: Run) -> Transfer:
    if options.repair is None:
        return Transfer(client, options, report, this)
    from fsmux.moving.repair import Repair

    return Repair(client, options, report, this)


def _server_of(job: Job) -> Remote:
    remotes = [place for place in (*job.sources, job.destination) if isinstance(place, Remote)]
    if not remotes:
        raise UsageError("one side must be remote: write HOST:PATH or fsmux://HOST/PATH for it")
    downloading = not isinstance(job.destination, Remote)
    if len(remotes) != (len(job.sources) if downloading else 1):
        raise UsageError("sources must be all on this machine or all on one server, and the other side opposite")
    if len({remote.server for remote in remotes}) > 1:
        raise UsageError("all sources must be on the same server; transfer them one server after the other")
    return remotes[0]


def _given_up(error: FsmuxError, backoff: Backoff, loss: str) -> FsmuxError:
    count = backoff.retries
    tries = f"gave up after {count} further {'attempt' if count == 1 else 'attempts'}; " if count else ""
    return type(error)(f"{error}; {tries}{loss}")


async def download(
    client: Client, source: Remote, destination: str | os.PathLike[str], options: Options, observer: Observer
) -> Summary:
    """For :meth:`Client.download`."""
    return await _once(client, source, _local(destination), options, observer)


async def upload(
    client: Client, source: str | os.PathLike[str], destination: Remote, options: Options, observer: Observer
) -> Summary:
    """For :meth:`Client.upload`."""
    return await _once(client, _local(source), destination, options, observer)


async def _once(
    client: Client, source: Local | Remote, destination: Local | Remote, options: Options, observer: Observer
) -> Summary:
    report = Report(observer)
    await _attempt(client, options, report, Run()).run((source,), destination)
    return report.sum_up()


def _local(path: str | os.PathLike[str]) -> Local:
    text = os.fsdecode(path)
    if not text:
        raise UsageError(NAMELESS)
    return Local(text.rstrip("/") or "/", text.endswith("/"))
