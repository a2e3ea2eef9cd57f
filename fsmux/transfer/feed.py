"""The half of a transfer that has the bytes, when they come from a pipe and nobody knows how many.

Theory: pieces are read while those before are on their way, each into a buffer of its own that is free again when the
server has answered for it.  So the number of buffers bounds memory and is the window, whatever the link; what is not
answered for is still here, to be sent once more when the connection was lost; the server says how much it has.  When a
piece has arrived damaged, it and all behind it are sent again, because the server writes them in order.  The server
writes nothing whose checksum is wrong, gives the file its name when it is told that this was all, and says what
the whole came to.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from fsmux.errors import ConnectionLost, IntegrityError, ProtocolError
from fsmux.events import ChunkHealed
from fsmux.files.chunks import combine
from fsmux.limits import MAX_DATA_PAYLOAD, MAX_WINDOW
from fsmux.mux.service import all_of
from fsmux.records import Attrs
from fsmux.transfer.disk import poll
from fsmux.transfer.session import Outcome, Report
from fsmux.wire.messages import Again, Close, Committed, Ok, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.files.ranges import Poll
    from fsmux.mux.stream import Stream

    Read = Callable[[memoryview, Poll], tuple[int, int]]

BUFFERS: Final = MAX_WINDOW // MAX_DATA_PAYLOAD
"""Pieces that are read ahead of the server's answers: as much as a link can hold, 2.5 Gbit/s at 100 ms."""


class _Piece(NamedTuple):
    offset: int
    length: int
    crc32: int
    buffer: memoryview

    @property
    def end(self) -> int:
        return self.offset + self.length


class Feed:
    """What comes from a pipe, on its way into one file."""

    def __init__(self, read: Read, report: Report, grew: Callable[[int], None]) -> None:
        """``read`` (blocking, in a thread) fills a view and returns how far, and the CRC-32 of that; 0 is the end.

        ``grew`` is told how many more bytes have come.
        """
        self.stored = 0
        """Bytes that the server has answered for."""
        self.lost = False
        """Whether the server has less than that, so that no further attempt makes sense."""
        self._read = read
        self._report = report
        self._grew = grew
        self._size = 0
        self._crc32 = 0
        self._ended = False
        self._under_way: deque[_Piece] = deque()
        self._sent = 0  # of these, on this stream, and not to be sent again
        self._closed = False
        self._damaged = 0  # times that the first of them has arrived and was not right
        self._sending = trio.Lock()
        self._free: list[memoryview] = []
        self._buffers = 0
        self._freed = trio.Event()
        self._limiter = trio.CapacityLimiter(1)  # its own: a pipe may have nothing to read for ever

    async def send_on(self, stream: Stream) -> Outcome:
        """Send all that comes on ``stream``, which a CREATE has opened, and return when the file stands.

        Cancellation leaves the stream to its scope, which resets it; the server then removes what it has.

        Raises:
            IntegrityError: a piece arrived damaged three times.
            FsmuxError: what reading, the server or the connection failed with.
        """
        answer = await stream.expect_message(Attrs, Committed)
        if isinstance(answer, Committed):  # and an earlier stream was lost before it could say so
            self._stands()
            done = answer
        else:
            self._go_on_from(answer.size)
            committed: list[Committed] = []
            await all_of(partial(self._send, stream), partial(self._hear, stream, committed))
            done = committed[0]
        if done.crc32 != self._crc32:
            raise IntegrityError(
                f"{self._report.name}: came to {done.crc32:08x} on the server and should be {self._crc32:08x}"
            )
        return Outcome(self._size, self._size, 0, done.crc32, done.durable)

    def _go_on_from(self, size: int) -> None:
        """The server has so much of it from an earlier stream."""
        if size < self.stored:
            self.lost = True
            raise ConnectionLost(f"{self._report.name}: the server no longer has what it had of it")
        while self._under_way and self._under_way[0].end <= size:
            self._answered()
        if size != self.stored:
            raise ProtocolError("the server has more of it than it was sent")
        self._sent, self._closed = 0, False

    def _stands(self) -> None:
        while self._under_way:
            self._answered()
        if not self._ended:
            raise ProtocolError("the server has given a name to what has not ended")

    async def _send(self, stream: Stream) -> None:
        await self._send_waiting(stream)
        while await self._read_next():
            await self._send_waiting(stream)
        await self._send_waiting(stream)

    async def _send_waiting(self, stream: Stream) -> None:
        """Send what is under way and was not sent, or is to be sent again; and the end, if it has come."""
        async with self._sending:
            while self._sent < len(self._under_way):
                piece = self._under_way[self._sent]
                self._sent += 1
                await stream.send(Write(piece.offset, piece.length, piece.crc32))
                await stream.send_data(piece.buffer[: piece.length])
            if self._ended and not self._closed:
                self._closed = True
                await stream.send(Close())

    async def _read_next(self) -> bool:
        """Read the next piece, which counts as under way; False at the end."""
        if self._ended:
            return False
        buffer = await self._buffer()
        length = 0
        try:
            length, crc = await trio.to_thread.run_sync(self._read, buffer, poll, limiter=self._limiter)
        finally:
            if not length:
                self._free.append(buffer)
        if not length:
            self._ended = True
            return False
        piece = _Piece(self._size, length, crc, buffer)
        self._under_way.append(piece)
        self._size += length
        self._crc32 = combine(self._crc32, crc, length)
        self._grew(length)
        return True

    async def _buffer(self) -> memoryview:
        while not self._free and self._buffers == BUFFERS:
            self._freed = trio.Event()
            await self._freed.wait()
        if self._free:
            return self._free.pop()
        self._buffers += 1
        return memoryview(bytearray(MAX_DATA_PAYLOAD))

    async def _hear(self, stream: Stream, committed: list[Committed]) -> None:
        while not committed:
            answer = await stream.expect_message(Ok, Again, Committed)
            if isinstance(answer, Committed) and self._ended and not self._under_way:
                committed.append(answer)
            elif isinstance(answer, Ok) and self._sent:
                self._answered()
            elif isinstance(answer, Again) and self._sent:
                self._sent, self._closed = 0, False
                self._damaged += 1
                number = self._under_way[0].offset // MAX_DATA_PAYLOAD
                self._report.observer(ChunkHealed(self._report.name, number, self._damaged))
                await self._send_waiting(stream)
            else:
                raise ProtocolError("the server answered for what it was not sent")

    def _answered(self) -> None:
        """The server has the oldest of the pieces under way."""
        piece = self._under_way.popleft()
        self._sent = max(0, self._sent - 1)
        self._damaged = 0
        self._free.append(piece.buffer)
        self._freed.set()
        self.stored += piece.length
        self._report.progress(piece.length)
