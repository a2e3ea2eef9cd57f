"""One file whose other end is a pipe: stdin into a file on the server, a file on the server to stdout.

Theory: there is nothing to plan, to compare or to resume by, so what a transfer of files does in its attempts is done
here by one conversation.  What has passed the pipe is the only state, and it outlives connections: a file that goes to
stdout goes on behind the last byte that was written.  What came from stdin and was sent cannot be had again, but the
server keeps what it has for a while, and what it has not answered for is still here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fsmux.errors import FsmuxError, IsADirectory, NotFound, UsageError
from fsmux.events import FileStarted
from fsmux.files.pipes import PipeReader, PipeWriter
from fsmux.files.syscalls import real
from fsmux.moving.attempt import raise_if_lost
from fsmux.records import Kind, printable
from fsmux.transfer.drain import Drain
from fsmux.transfer.feed import Feed
from fsmux.transfer.session import Report as Told
from fsmux.transfer.session import Run
from fsmux.urls import Local, Remote, Stdio
from fsmux.wire.messages import Create, Get

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.client import Client
    from fsmux.job import Options
    from fsmux.moving.account import Account
    from fsmux.moving.report import Report
    from fsmux.transfer.session import Outcome

NEW_MODE = 0o666
"""Permission bits of a file that is made of nothing but bytes, before the user's umask."""


class Pipe(Protocol):
    """A transfer through a pipe, in as many attempts as it takes."""

    async def run(self, client: Client) -> None:
        """Make an attempt. Raises what ends it, and UsageError; what fails the file alone is reported."""

    @property
    def loss(self) -> str:
        """What it means that no further attempt is made, as the end of a sentence."""

    @property
    def may_go_on(self) -> bool:
        """Whether a further attempt makes sense after a lost connection."""

    def close(self) -> None: ...


def pipe_of(
    sources: Sequence[Local | Remote | Stdio], destination: Local | Remote | Stdio, options: Options, report: Report
) -> Pipe | None:
    """The pipe that a transfer goes through, if its source or its destination is ``-``."""
    if isinstance(destination, Stdio):
        if len(sources) != 1 or not isinstance(sources[0], Remote):
            raise UsageError("only one file, from a server, can go to - (stdout)")
        return ToPipe(sources[0], options, report)
    if any(isinstance(source, Stdio) for source in sources):
        if len(sources) != 1 or not isinstance(destination, Remote):
            raise UsageError("- (stdin) is the only source there can be, and goes to a file on a server")
        return FromPipe(destination, options, report)
    return None


class FromPipe:
    """stdin to a file."""

    def __init__(self, place: Remote, options: Options, report: Report) -> None:
        if place.trailing_slash or not place.path_parts:
            raise _nameless(place)
        self._place = place
        self._options = options
        self._report = report
        self._name = printable(place.path_parts[-1])
        self._account = report.account(0, self._name)
        self._mode = NEW_MODE & ~real.umask()
        self._size = 0
        self._run = Run()
        self._feed = Feed(PipeReader().read_into, Told(self._name, self._account.journey(())), self._grew)

    @property
    def may_go_on(self) -> bool:
        return not self._feed.lost

    @property
    def loss(self) -> str:
        return f"what came from stdin cannot be read again, and {printable(str(self._place))} is as it was before"

    def close(self) -> None:
        pass

    def _grew(self, count: int) -> None:
        if not self._size:
            self._report.found(1, 0)
        self._size += count
        self._report.found(0, count)
        self._report.scanning()

    async def run(self, client: Client) -> None:
        place, options, report = self._place, self._options, self._report
        report.mapped([f"- -> {place}"])
        if options.dry_run:
            try:
                if (await client.stat(place.path_parts)).kind is Kind.DIRECTORY:
                    raise _nameless(place)
            except NotFound:
                pass
            await client.check_write()
            report.found(1, 0)
            report.would_send(self._name, 0)
            report.planned()
            return
        request = Create(
            place.path_parts,
            self._mode,
            options.durability,
            options.verify,
            self._run.id,
            self._run.attempt,
            again=True,
        )
        self._run = self._run.next()
        before = self._feed.stored
        try:
            with client.limited(options.bwlimit):
                async with client.connection.open_stream(request) as stream:
                    if not before:
                        self._account.journey(())(FileStarted(self._name, 0, 0))
                    outcome = await self._feed.send_on(stream)
        except IsADirectory as exc:
            raise _nameless(place) from exc
        except FsmuxError as exc:
            report.progress += self._feed.stored > before
            _fail(client, self._account, exc)
        else:
            if not self._size:
                report.found(1, 0)
            report.planned()
            self._account.done((), outcome)


class ToPipe:
    """A file to stdout."""

    def __init__(self, place: Remote, options: Options, report: Report) -> None:
        if place.is_contents:
            raise _no_file(place)
        self._place = place
        self._options = options
        self._report = report
        self._name = printable(place.path_parts[-1])
        self._account = report.account(0, self._name)
        self._writer = PipeWriter()
        self._drain = Drain(self._writer.write, Told(self._name, self._account.journey(())), self._found)

    @property
    def may_go_on(self) -> bool:
        return True

    @property
    def loss(self) -> str:
        return "what was written to stdout is not the whole file"

    def close(self) -> None:
        self._writer.close()

    def _found(self, size: int) -> None:
        self._report.found(1, size)
        self._report.planned()

    async def run(self, client: Client) -> None:
        place, options, report = self._place, self._options, self._report
        report.mapped([f"{place} -> -"])
        if options.dry_run:
            attrs = await client.stat(place.path_parts)
            if attrs.kind is Kind.DIRECTORY:
                raise _no_file(place)
            self._found(attrs.size)
            report.would_send(self._name, attrs.size)
            return
        before = self._drain.written
        try:
            outcome = await self._receive(client)
        except IsADirectory as exc:
            raise _no_file(place) from exc
        except FsmuxError as exc:
            report.progress += self._drain.written > before
            _fail(client, self._account, exc)
        else:
            self._account.done((), outcome)

    async def _receive(self, client: Client) -> Outcome:
        request = Get(self._place.path_parts, chunk_size=self._options.chunk_size)
        with client.limited(self._options.bwlimit):
            async with client.connection.open_stream(request) as stream:
                return await self._drain.receive_on(stream)


def _fail(client: Client, account: Account, error: FsmuxError) -> None:
    """Report what failed the file, or raise what ended the connection."""
    raise_if_lost(client, error)
    account.fail((), error)


def _nameless(place: Remote) -> UsageError:
    return UsageError(
        f"{printable(str(place))} is a directory, and what comes from stdin has no name: "
        "add the name that the file is to have"
    )


def _no_file(place: Remote) -> UsageError:
    return UsageError(f"{printable(str(place))} is a directory, and only a file can go to - (stdout)")
