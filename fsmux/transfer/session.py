"""What the two halves of a transfer share: what one is about, how it ended, and who is told.

A *session* is one file's transfer.  It lives on a stream, or on several of different connections, and its state on the
receiving side's disk outlives them all.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field
from msgspec.structs import replace

from fsmux.errors import FsmuxError, NetworkError, RefusedError, StreamReset
from fsmux.events import FileHoles, FileProgress, FileReused, ignore
from fsmux.wire.messages import JOIN_SIZE, Committed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fsmux.events import Observer
    from fsmux.wire.messages import Fault

STREAM_LOST = (NetworkError, StreamReset, RefusedError)
"""What ends one stream of a session and says nothing of the file: others go on with what it left."""

LINGER_SECONDS = 1.0
"""Seconds that the end of a file waits for connections that may have fallen silent."""


class Report(Struct, frozen=True):
    """Who is told of a session's progress, and by what name."""

    name: str
    observer: Observer = ignore

    def progress(self, count: int) -> None:
        if count:
            self.observer(FileProgress(self.name, count))

    def skipped(self, count: int) -> None:
        if count:
            self.observer(FileHoles(self.name, count))

    def reused(self, count: int) -> None:
        self.observer(FileReused(self.name, count))


class Run(Struct, frozen=True):
    """One run of a client, by an id that nobody can guess, and which of its attempts this is."""

    id: bytes = field(default_factory=lambda: secrets.token_bytes(JOIN_SIZE))
    attempt: int = 1

    def next(self) -> Run:
        return replace(self, attempt=self.attempt + 1)


class Outcome(Struct, frozen=True):
    """How a session ended well.  Bytes: of the file, over the wire in this run, held by the receiver before it."""

    bytes: int
    bytes_sent: int
    bytes_resumed: int
    crc32: int
    durable: bool
    refused: Fault | None = None
    """What the file stands without, of its extended attributes."""

    def committed(self) -> Committed:
        """What the receiver says of it."""
        return Committed(self.crc32, self.durable, self.bytes_resumed, self.refused)


async def together(streams: Sequence[Callable[[], Awaitable[Outcome | None]]]) -> Outcome:
    """Run one session's part on each of its streams; the first outcome.

    A part that finds nothing to do returns None.  One that loses its stream leaves the rest to the others.  When one
    part has an outcome, the file is done, and the others get ``LINGER_SECONDS`` to hear of it.

    Raises:
        FsmuxError: what failed the session, or what the first stream was lost to when all were.
    """
    if len(streams) == 1:
        only = await streams[0]()
        assert only is not None
        return only
    outcomes: list[Outcome] = []
    losses: list[FsmuxError] = []
    failures: list[FsmuxError] = []

    async def run(part: Callable[[], Awaitable[Outcome | None]]) -> None:
        try:
            outcome = await part()
        except STREAM_LOST as exc:
            losses.append(exc)
        except FsmuxError as exc:
            failures.append(exc)
            nursery.cancel_scope.cancel()
        else:
            if outcome is not None:
                outcomes.append(outcome)
                nursery.cancel_scope.deadline = trio.current_time() + LINGER_SECONDS

    async with trio.open_nursery() as nursery:
        for part in streams:
            nursery.start_soon(run, part)
    if outcomes:
        return outcomes[0]
    raise (failures or losses)[0]
