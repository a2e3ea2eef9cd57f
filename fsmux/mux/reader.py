"""The reader of a connection: bytes from the transport, frames to whoever they are for.

Theory: it is the demultiplexer, and awaits neither a stream nor the writer; so no stream can stop another, and two
peers cannot deadlock.  Small frames are read in the event loop.  When a large payload begins that has an outlet (see
:mod:`.pour`), the reader moves into a thread and stays there while such payloads follow one another, whoever they are
for.  What it reads it hands to the event loop in its order, some payloads together with the frames behind them, because
each wake-up of the loop takes the interpreter from the thread; and it does not wait for it.  It comes back when there
is nothing to read, or when a payload goes elsewhere; by then everything before is dispatched.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from fsmux import limits
from fsmux.errors import ConnectionLost
from fsmux.mux.pour import POUR_MIN, POUR_ON
from fsmux.wire.decoder import NEVER, Decoder
from fsmux.wire.frames import Cmd, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsmux.mux.pour import Pour
    from fsmux.mux.table import StreamTable
    from fsmux.mux.transport import Transport
    from fsmux.wire.frames import Header

    _Handed: TypeAlias = tuple[int, Frame | None, Pour | None, bool]
    """Bytes that came, a frame and a payload that are whole, and whether that is a sign of life."""

READ_CHECKPOINT = 1 * limits.MIB
"""Bytes the reader takes in before it lets other tasks run, when there is always more."""

FRAME_COST = 4 * limits.KIB
"""Bytes that a frame counts as, beside its own, when the reader decides to let other tasks run."""

MAX_BEHIND = 1024
"""Frames that the thread may be ahead of the event loop: a few hundred KiB of objects."""


TOGETHER_BYTES: Final = limits.HOP_BYTES
"""Bytes of payloads that the event loop hears of in one word, if they came in ``FRAME_SECONDS``, each on another stream
(what came of a file is recorded before more of it). Credit for them waits: it is less than two of ``ASKED_WINDOW``."""

OF_A_FILE: Final = frozenset({Cmd.DATA, Cmd.SPAN, Cmd.CHUNK})
"""What comes with payloads, and may be heard of with them; anything else somebody may be waiting for."""

IDLE_MS: Final = 2
"""Milliseconds that the thread waits for a next frame before it leaves waiting to the event loop. A thread that comes
back costs 0.1 ms, and one that waits keeps nobody else waiting."""


class Reader:
    """``dispatch`` gets every frame; ``heard`` how many bytes came, and whether they show that the peer makes sense.

    Bytes that are no whole frame yet show nothing: a damaged length makes of all that follows a payload that never
    ends.  The length of DATA was checked with its header, so what arrives of it counts.  ``max_payload`` is the
    decoder's.
    """

    def __init__(
        self,
        transport: Transport,
        table: StreamTable,
        max_payload: Callable[[Header], int],
        dispatch: Callable[[Frame], None],
        heard: Callable[[int, bool], None],
    ) -> None:
        self._transport = transport
        self._table = table
        self._dispatch = dispatch
        self._heard = heard
        self._decoder = Decoder(max_payload, table.place, defer=POUR_MIN if transport.may_pour else NEVER)
        self._error: Exception | None = None
        self._gathered: list[_Handed] = []  # what the thread has not handed over yet
        self._together = 0  # bytes of payloads among that
        self._told_of: set[int] = set()  # streams that these are for
        self._gathering_since = 0.0
        self._handed = 0  # frames that the thread has gathered, counted by the thread
        self._taken = 0  # and those that the event loop has taken, counted there

    async def run(self) -> None:
        """Read until the connection is lost; raises :class:`ConnectionLost`, or what a frame is at fault for."""
        since_checkpoint = 0
        receive, decoder = self._transport.receive_into, self._decoder
        while True:
            count = await receive(decoder.buffers())
            if count == 0:
                text = "the peer closed the connection" + (" inside a frame" if decoder.mid_frame else "")
                raise ConnectionLost(text)
            whole = 0
            for frame in decoder.advance(count):
                self._dispatch(frame)
                whole += 1
            self._heard(count, whole > 0 or decoder.in_data)
            since_checkpoint += whole * FRAME_COST
            while decoder.undecided is not None:
                for frame in await self._decide(decoder.undecided):
                    self._dispatch(frame)
                    since_checkpoint += FRAME_COST
            since_checkpoint += count
            if since_checkpoint >= READ_CHECKPOINT:
                since_checkpoint = 0
                await trio.lowlevel.checkpoint()

    async def _decide(self, header: Header) -> Iterable[Frame]:
        """Say where a payload goes; the frames that are whole then. A checkpoint if it goes straight to the disk."""
        pour = self._table.pour(header)
        if pour is None:
            return self._decoder.put(self._table.place(header))
        self._decoder.defer = 1  # nothing is placed from within the thread
        try:
            stopped = await self._transport.in_reader_thread(partial(self._pour, pour))
        finally:
            self._decoder.defer = POUR_MIN
        if self._error is not None:
            raise self._error
        return () if stopped is None else self._decoder.put(self._table.poured(stopped))

    # ---- in the thread ---------------------------------------------------------------------------------------------

    def _pour(self, pour: Pour) -> Pour | None:
        """Pour payload after payload, for as long as one follows another. Returns one that was stopped on its way."""
        decoder, transport = self._decoder, self._transport
        following: Pour | None = pour
        try:
            while following is not None and self._error is None:
                pour, early = following, len(decoder.early)  # which was counted when it came
                whole = self._pour_one(pour)
                if whole is None:
                    return pour
                self._gather(pour.length - early, whole, pour)
                waited_for = False
                while decoder.undecided is None and self._error is None:
                    if self._handed - self._taken > MAX_BEHIND:
                        return None
                    count = transport.receive_now(decoder.buffers(), 0)
                    if not count:
                        self._hand_over()
                        count = transport.receive_now(decoder.buffers(), IDLE_MS)
                    if not count:
                        return None
                    for frame in decoder.advance(count):
                        waited_for = waited_for or frame.cmd not in OF_A_FILE
                        if frame.cmd != Cmd.SPAN or not self._table.begin_span(frame):
                            self._gather(0, frame)
                    self._gather(count, alive=False)  # its whole frames have shown that
                self._together += pour.length
                self._told_of.add(pour.stream.id)
                following = None if decoder.undecided is None else self._table.pour(decoder.undecided, POUR_ON)
                late = time.monotonic() - self._gathering_since >= limits.FRAME_SECONDS
                again = following is not None and following.stream.id in self._told_of
                if waited_for or late or again or self._together >= TOGETHER_BYTES:
                    self._hand_over()
            return None
        finally:
            self._hand_over()

    def _pour_one(self, pour: Pour) -> Frame | None:
        """Pour one payload; its frame if it is whole then."""
        frame: Frame | None = None
        while pour.going:
            before, early = pour.done, self._decoder.early
            self._transport.pour_now(pour, early)
            frame = self._decoder.took(pour.done - before)
            if frame is None and pour.going:  # it takes so long that the connection should know
                self._gather(0)
                self._hand_over()
        return frame

    def _gather(self, count: int, frame: Frame | None = None, pour: Pour | None = None, *, alive: bool = True) -> None:
        self._handed += 1
        if not self._gathered:
            self._gathering_since = time.monotonic()
        self._gathered.append((count, frame, pour, alive))

    def _hand_over(self) -> None:
        if self._gathered:
            self._table.run_soon(partial(self._take, self._gathered))
            self._gathered = []
            self._together = 0
            self._told_of.clear()

    # ---- in the event loop, for the thread -------------------------------------------------------------------------

    def _take(self, gathered: list[_Handed]) -> None:
        """Take over what the thread has received. Nothing may be raised: what is wrong stops the reader."""
        self._taken += len(gathered)
        try:
            for count, frame, pour, alive in gathered:
                if self._error is None:
                    self._heard(count, alive)
                    if pour is not None:
                        self._table.poured(pour)
                    if frame is not None:
                        self._dispatch(frame)
        except Exception as exc:
            self._error = exc
