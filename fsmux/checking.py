"""Trees on this machine against their manifests: made, compared, printed, by several threads.

Theory: the reading is cut into tasks (:mod:`fsmux.files.reading`) that threads take as they come, and what they found
is looked at in the order of the tasks; so a big file is read by all threads, its runs follow one another, and what is
said comes in the order of the manifest or of the names, however the threads were scheduled.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from msgspec import Struct

from fsmux import events
from fsmux.columns import KIND_BITS, REGULAR
from fsmux.errors import BadName, FsmuxError, IsADirectory, NotADirectory, NotFound, NotRegular
from fsmux.files import listing, reading
from fsmux.files.digestfile import Reader, Record, Writer, chunks_of
from fsmux.files.reading import Portion, Task, Wanted
from fsmux.limits import CHUNK_SIZE
from fsmux.plan.walk import PAGE, preorder
from fsmux.records import Extent, Kind, printable
from fsmux.transfer.disk import poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsmux.events import Observer
    from fsmux.files.root import Root
    from fsmux.records import Parts

    T = TypeVar("T")
    R = TypeVar("R")

THREADS: Final = 4
"""Threads that read. One digests 5 GB/s, more than most disks give; but small files cost system calls, and a file
server answers four questions as fast as one."""

AHEAD: Final = 2
"""Tasks per thread that have been begun, or have ended before an earlier one."""

GONE: Final = (NotFound, NotADirectory)
ANOTHER: Final = (NotRegular, IsADirectory, BadName)
"""What opening fails with where something else than a file has the name."""


async def in_order(items: Iterator[T], work: Callable[[T], R], take: Callable[[T, R], None]) -> None:
    """Have threads do ``work`` on each item, and ``take`` the results in the order of the items."""
    limiter, room = trio.CapacityLimiter(THREADS), trio.Semaphore(THREADS * AHEAD)
    done: dict[int, tuple[T, R]] = {}
    taken = 0

    async def run(number: int, item: T) -> None:
        nonlocal taken
        done[number] = (item, await trio.to_thread.run_sync(work, item, limiter=limiter))
        while taken in done:
            take(*done.pop(taken))
            taken += 1
            room.release()

    async with trio.open_nursery() as nursery:
        number = 0
        await room.acquire()
        while (item := await trio.to_thread.run_sync(next, items, None, limiter=limiter)) is not None:
            nursery.start_soon(run, number, item)
            number += 1
            await room.acquire()


async def read_all(
    root: Root, wanted: Iterator[Wanted], take: Callable[[Wanted, Portion | FsmuxError], None], *,
    from_device: bool, observer: Observer,
) -> None:  # fmt: skip
    """Read files, and have ``take`` told of each, in their order."""
    runs: list[Portion | FsmuxError] = []
    work = partial(reading.read, root, from_device=from_device, poll=poll)

    def took(task: Task, found: list[Portion | FsmuxError]) -> None:
        if task.stop is None:
            sizes = [one.map.size for one in task.files]
            observer(events.FilesDone((), [b"/".join(one.parts) for one in task.files], sizes, [0] * len(sizes), False))
            for one, portion in zip(task.files, found, strict=True):
                take(one, portion)
            return
        one = task.files[0]
        name = printable(one.parts)
        if not task.first:
            observer(events.FileStarted(name, one.map.size, 0))
        observer(events.FileProgress(name, task.bytes))
        runs.extend(found)
        if task.stop == one.map.count:
            observer(events.FileDone(name, one.map.size, 0, 0, "", False))
            try:
                whole: Portion | FsmuxError = reading.joined(one.parts, runs)
            except FsmuxError as error:
                whole = error
            runs.clear()
            take(one, whole)

    await in_order(reading.tasks(wanted), work, took)


# ---- against a manifest ----------------------------------------------------------------------------------------------


class Damage(Struct):
    """A file that is not as its record says: which chunks are wrong, or all of it if it is missing."""

    record: Record
    missing: bool
    chunks: list[Extent]
    reason: str


class Check(Struct):
    """What a tree came to beside its manifest."""

    chunk_size: int
    files: int = 0
    bytes: int = 0
    damaged: list[Damage] = []
    unreadable: int = 0
    extra: int = 0

    @property
    def missing(self) -> int:
        return sum(damage.missing for damage in self.damaged)


async def check_tree(
    root: Root, manifest: Reader, observer: Observer, *, beneath: Parts = (), extra: bool = False,
    aside: Parts | None = None,
) -> Check:  # fmt: skip
    """Compare a tree with its manifest, or just what is ``beneath`` a name in it; every difference is an event.

    ``extra``: files that have no record are told, too, but not ``aside``.
    """
    check = Check(manifest.chunk_size)
    records: dict[Parts, Record] = {}  # of what is being read
    if not beneath:
        observer(events.Planned(manifest.files, manifest.bytes, 0, 0))

    def wanted() -> Iterator[Wanted]:
        for record in manifest:
            if record.parts[: len(beneath)] == beneath:
                records[record.parts] = record
                yield Wanted(record.parts, chunks_of(record.size, manifest.chunk_size))

    def take(one: Wanted, found: Portion | FsmuxError) -> None:
        record = records.pop(one.parts)
        check.files += 1
        check.bytes += record.size
        damage = _compare(record, one, found)
        name = printable(one.parts)
        if damage is None:
            return
        if isinstance(damage, FsmuxError):
            check.unreadable += 1
            observer(events.FileFailed(name, damage.code.name, str(damage), damage.retryable))
            return
        check.damaged.append(damage)
        if damage.missing:
            observer(events.FileMissing(name, record.size))
        else:
            observer(events.FileDamaged(name, record.size, damage.chunks, damage.reason))

    await read_all(root, wanted(), take, from_device=True, observer=observer)
    if beneath and not check.files:
        raise NotFound(f"{printable(beneath)}: the manifest has no record of it")
    if extra:
        walk = _Walk(root, beneath, aside)
        files = iter(walk)
        while page := await trio.to_thread.run_sync(lambda: list(islice(files, PAGE))):
            for parts, size in page:
                if b"/".join(parts) not in manifest.paths:
                    check.extra += 1
                    observer(events.FileExtra(printable(parts), size))
        check.unreadable += walk.tell_failed(observer)
    return check


def _compare(record: Record, one: Wanted, found: Portion | FsmuxError) -> Damage | FsmuxError | None:
    whole = [Extent(0, record.size)] if record.size else []
    if isinstance(found, GONE):
        return Damage(record, True, whole, "missing")
    if isinstance(found, ANOTHER):
        return Damage(record, False, whole, "something else than a file has its name")
    if isinstance(found, FsmuxError):
        return found
    bad = [
        index for index, chunk in enumerate(found.chunks) if chunk is None or chunk[1] != record.chunk(index)
    ]  # fmt: skip
    size = found.version.size
    if not bad and size == record.size:
        return None
    reasons = [] if size == record.size else [f"it has {size} bytes instead of {record.size}"]
    if bad:
        reasons.append(f"{len(bad)} of {one.map.count} chunks differ" if one.map.count > 1 else "its bytes differ")
    changed = found.version.mtime_ns != record.mtime_ns
    reasons.append("it was modified since" if changed else "it was not modified since, by its time")
    return Damage(record, False, [one.map.extent(index) for index in bad], ", ".join(reasons))


# ---- of what is there ------------------------------------------------------------------------------------------------


class _Walk:
    """The regular files beneath a root, listed in whichever thread asks for the next one."""

    def __init__(self, root: Root, beneath: Parts, aside: Parts | None) -> None:
        self._root = root
        self._beneath = beneath
        self._aside = aside
        self.files = self.bytes = 0
        """What was found until now."""
        self.failed: list[tuple[str, FsmuxError]] = []
        """Directories that cannot be read."""

    def __iter__(self) -> Iterator[tuple[Parts, int]]:
        top = self._beneath
        if top and (attrs := self._root.stat(top)).kind is not Kind.DIRECTORY:
            self.files, self.bytes = 1, attrs.size
            yield top, attrs.size
            return
        for group in preorder(lambda parts: listing.groups(self._root, parts), top):
            if group.error is not None:
                self.failed.append((printable(top + group.directory), group.error))
            for name, size, mode in zip(group.names, group.sizes, group.modes, strict=True):
                if mode & KIND_BITS == REGULAR and (parts := (*top, *group.directory, name)) != self._aside:
                    self.files += 1
                    self.bytes += size
                    yield parts, size

    def tell_failed(self, observer: Observer) -> int:
        """How many directories failed."""
        for name, error in self.failed:
            observer(events.FileFailed(name, error.code.name, str(error), error.retryable))
        return len(self.failed)


async def write_tree(
    root: Root, manifest: Writer, chunk_size: int, observer: Observer, *, beneath: Parts, aside: Parts | None
) -> int:
    """Write the records of a tree, or of what is ``beneath`` a name in it, but not ``aside``; how many failed."""
    walk, failed = _Walk(root, beneath, aside), 0

    def take(one: Wanted, found: Portion | FsmuxError) -> None:
        nonlocal failed
        observer(events.Scanning(walk.files, walk.bytes))
        try:
            if isinstance(found, FsmuxError):
                raise found
            manifest.add(reading.record_of(one, found))
        except FsmuxError as error:
            failed += 1
            observer(events.FileFailed(printable(one.parts), error.code.name, str(error), error.retryable))

    wanted = (Wanted(parts, chunks_of(size, chunk_size)) for parts, size in walk)
    await read_all(root, wanted, take, from_device=False, observer=observer)
    observer(events.Planned(walk.files, walk.bytes, 0, 0))
    return failed + walk.tell_failed(observer)


async def sha256_tree(root: Root, line: Callable[[Parts, str], None], observer: Observer, *, beneath: Parts) -> int:
    """Have ``line`` told of the SHA-256 of every file of a tree, or ``beneath`` a name in it; how many failed."""
    walk, failed = _Walk(root, beneath, None), 0

    def took(task: Task, found: list[str | FsmuxError]) -> None:
        nonlocal failed
        observer(events.Scanning(walk.files, walk.bytes))
        sizes = [one.map.size for one in task.files]
        observer(events.FilesDone((), [b"/".join(one.parts) for one in task.files], sizes, [0] * len(sizes), False))
        for one, digest in zip(task.files, found, strict=True):
            if isinstance(digest, FsmuxError):
                failed += 1
                observer(events.FileFailed(printable(one.parts), digest.code.name, str(digest), digest.retryable))
            else:
                line(one.parts, digest)

    wanted = (Wanted(parts, chunks_of(size, CHUNK_SIZE)) for parts, size in walk)
    await in_order(reading.tasks(wanted, cut=False), partial(reading.sha256, root, poll=poll), took)
    observer(events.Planned(walk.files, walk.bytes, 0, 0))
    return failed + walk.tell_failed(observer)
