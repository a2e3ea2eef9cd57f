"""Blocking work in worker threads, each kind under a limiter of its own, and writes gathered into few hops.

Theory: a hop to a thread costs 70 to 100 µs, so a thousand streams that each hop for 64 KiB would spend their time
hopping.  :class:`DiskWriter` therefore takes whatever all streams have ready and writes it in one hop; while that hop
runs, the socket is read and more gathers.  Under load the hops grow, without load nobody waits: no timer, no tuning.

Limiters are apart because a role must never wait for a token held by a role that waits for the network: with one
shared pool, two peers that send to each other can hold all tokens and wait for ever.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio
from msgspec import Struct

from fsmux.errors import Busy, FsmuxError, InternalError
from fsmux.limits import HOP_BYTES
from fsmux.mux.service import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from fsmux.files.sink import Sink

P = ParamSpec("P")
T = TypeVar("T")

WRITERS = 2
"""Threads that write at once per process side: one keeps the disk busy while the other one returns."""

READERS = 4
"""Threads that read sources for their checksums at once."""

PACKERS = 1
"""Threads that list directories and read packs. They make a system call every microsecond or two and need
the interpreter in between: two of them wait for its lock after each."""

META = 8
"""Threads for open, stat, rename, sync: they wait for the disk, not for the processor."""

BUSY_SECONDS = 3.0
"""Seconds that a file may be another session's before it is given up.

A command that was killed and is run again at once meets the session of the one before, which ends when the call that
it is in returns: writing a checkpoint out takes a busy disk a second or two."""

BUSY_POLL_SECONDS = 0.05
"""Seconds between two looks: the lock is the file system's, which tells nobody that it is free."""


class _Job(Struct, eq=False):
    sink: Sink
    offset: int
    views: Sequence[memoryview]
    length: int
    done: trio.Event
    started: bool = False
    crc: int = 0
    error: BaseException | None = None


def poll() -> None:
    """For long work in one of the threads: raises ``trio.Cancelled`` if whoever waits for it was cancelled."""
    trio.from_thread.check_cancelled()


class Disk:
    """The worker threads of one client or server. Made by :func:`open_disk`."""

    def __init__(self) -> None:
        self.write_limiter = trio.CapacityLimiter(WRITERS)
        self.read_limiter = trio.CapacityLimiter(READERS)
        self.pack_limiter = trio.CapacityLimiter(PACKERS)
        self.meta_limiter = trio.CapacityLimiter(META)
        self._jobs: deque[_Job] = deque()
        self._ready = trio.Event()

    async def read(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn``, which reads file contents, in a thread. Not abandoned on cancellation."""
        return await trio.to_thread.run_sync(lambda: fn(*args, **kwargs), limiter=self.read_limiter)

    async def meta(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn``, which opens, renames, syncs and the like, in a thread. Not abandoned on cancellation."""
        return await trio.to_thread.run_sync(lambda: fn(*args, **kwargs), limiter=self.meta_limiter)

    async def when_free(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """:meth:`meta`, again and again for a while if what ``fn`` opens is :class:`Busy`. Cancelled between calls."""
        deadline = trio.current_time() + BUSY_SECONDS
        while True:
            try:
                return await self.meta(fn, *args, **kwargs)
            except Busy:
                if trio.current_time() >= deadline:
                    raise
            await trio.sleep(BUSY_POLL_SECONDS)

    async def pack(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn``, which goes through many small files, in a thread. Not abandoned on cancellation."""
        return await trio.to_thread.run_sync(lambda: fn(*args, **kwargs), limiter=self.pack_limiter)

    async def store(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn``, which writes many small files, in a thread. Not abandoned on cancellation."""
        return await trio.to_thread.run_sync(lambda: fn(*args, **kwargs), limiter=self.write_limiter)

    async def write(self, sink: Sink, pieces: Sequence[tuple[int, Sequence[memoryview], int]]) -> list[int]:
        """Write ``pieces`` of (offset, views, length) and return the CRC-32 of each.

        Returns only when no thread looks at the views any more, cancelled or not; so callers may reuse them.
        Raises what writing raised.
        """
        jobs = [_Job(sink, offset, views, length, trio.Event()) for offset, views, length in pieces]
        self._jobs.extend(jobs)
        self._ready.set()
        try:
            for job in jobs:
                await job.done.wait()
        except trio.Cancelled:
            self._withdraw(jobs)
            with trio.CancelScope(shield=True):  # bounded by the one hop that is under way
                for job in jobs:
                    if job.started:
                        await job.done.wait()
            raise
        for job in jobs:
            if job.error is not None:
                raise job.error
        return [job.crc for job in jobs]

    def _withdraw(self, jobs: list[_Job]) -> None:
        mine = set(map(id, jobs))
        self._jobs = deque(job for job in self._jobs if id(job) not in mine)

    async def _writer(self) -> None:
        while True:
            while not self._jobs:
                if self._ready.is_set():
                    self._ready = trio.Event()  # one for all writers that wait
                await self._ready.wait()
            batch: list[_Job] = []
            size = 0
            while self._jobs and size < HOP_BYTES:
                job = self._jobs.popleft()
                job.started = True
                size += job.length
                batch.append(job)
            try:
                await trio.to_thread.run_sync(_write_all, batch, limiter=self.write_limiter)
            finally:
                for job in batch:
                    job.done.set()


def _write_all(batch: list[_Job]) -> None:
    for job in batch:
        try:
            job.crc = job.sink.write(job.views, job.offset)
        except FsmuxError as exc:
            job.error = exc
        except Exception as exc:  # a bug must fail its own file and not the files beside it
            job.error = InternalError(f"writing failed unexpectedly: {exc!r}")
            job.error.__cause__ = exc


@asynccontextmanager
async def open_disk() -> AsyncIterator[Disk]:
    """The worker threads for as long as the block runs. Leaving it waits for the hop under way."""
    disk = Disk()
    async with serving(trio.CancelScope(), *[disk._writer] * WRITERS):
        yield disk
