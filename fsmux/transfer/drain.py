"""The half of a transfer that lacks the file and has nowhere to keep it: its bytes go into a pipe, in order, once.

Theory: the conversation is that of any download, but the file is asked for chunk by chunk, as many ahead as credit
covers, and a chunk stays in the buffers it arrived in until its checksum is known to be right and it has been written.
So memory is bounded by credit, a reader that stops stops the sender, and a chunk that arrived damaged is sent again
before anything behind it is written.

What was written is known to the byte.  After a lost connection the rest of the file is asked for, if it is still the
version that was begun.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from fsmux.errors import IntegrityError, ProtocolError, SourceChanged
from fsmux.events import ChunkHealed, FileStarted
from fsmux.files.chunks import ChunkMap, combine, crc32_of
from fsmux.files.holes import zero_views, zeros_crc
from fsmux.limits import INITIAL_WINDOW, MAX_ATTEMPTS
from fsmux.mux.buffers import Data
from fsmux.mux.service import all_of
from fsmux.transfer.disk import poll
from fsmux.transfer.session import Outcome, Report
from fsmux.wire.messages import Again, Chunk, Committed, Finish, Offer, Span, Want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fsmux.files.ranges import Poll
    from fsmux.mux.stream import Stream
    from fsmux.records import Extent
    from fsmux.wire.messages import Message

    Write = Callable[[Sequence[memoryview], Callable[[int], None], Poll], None]

HELD: Final = INITIAL_WINDOW // 2
"""Bytes of a chunk up to which it waits for its checksum in the buffers of the connection, on credit; a larger one
(``--chunk-size``, or a file of more than 8 TiB) is copied out of them, so that credit goes on."""


class _Arriving(Struct):
    """A chunk that is on its way."""

    pieces: list[tuple[int, list[memoryview]]] = []
    """What has come of it and where it begins, in whatever order."""
    held: list[Data] = []
    length: int = 0
    holes: int = 0
    """Bytes of it that are holes."""
    expected: int | None = None
    """What it must come to, once all of it has come."""

    @property
    def views(self) -> list[memoryview]:
        """All that has come, in order."""
        self.pieces.sort(key=itemgetter(0))
        return [view for _, views in self.pieces for view in views]


class Drain:
    """One file on its way into a pipe, in as many attempts as it takes."""

    map: ChunkMap

    def __init__(self, write: Write, report: Report, found: Callable[[int], None]) -> None:
        """``write`` (blocking, in a thread) writes views and tells of each step; ``found`` is told the file's size."""
        self.written = 0
        """Bytes that are in the pipe."""
        self._write = write
        self._report = report
        self._found = found
        self._offer: Offer | None = None
        self._index = 0  # of the chunk that is to be written next
        self._crc32 = 0  # of all before it
        self._holes = 0  # bytes of it
        self._attempts: dict[int, int] = {}
        self._limiter = trio.CapacityLimiter(1)  # its own: a pipe may take nothing for ever

    async def receive_on(self, stream: Stream) -> Outcome:
        """Write what comes on ``stream``, which a GET has opened, from where the last attempt stopped to the end.

        Raises:
            SourceChanged: the file changed under way; part of it has been written.
            IntegrityError: a chunk arrived damaged three times, or the whole is not what the sender says.
            BrokenPipeError: nobody reads any more.
            FsmuxError: whatever the sender, the pipe or the connection failed with.
        """
        offer: Offer = await stream.expect_message(Offer)
        if offer.eager:
            raise ProtocolError("the sender offers eagerly what was to be asked for")
        if self._offer is None:
            self._offer = offer
            self.map = ChunkMap(offer.identity.size, offer.chunk_size)
            self._found(offer.identity.size)
            self._report.observer(FileStarted(self._report.name, offer.identity.size, 0))
        elif (offer.identity, offer.chunk_size) != (self._offer.identity, self._offer.chunk_size):
            raise SourceChanged(f"{self._report.name}: it changed while it was being read")
        await _Attempt(self, stream).run()
        await stream.send(Committed(self._crc32, durable=False))
        return Outcome(self.map.size, self.written - self._holes, 0, self._crc32, durable=False)

    async def write_chunk(self, chunk: _Arriving) -> int | None:
        """Write the next chunk, if it is right, or what of it was not written before; else what it came to."""
        extent = self.map.extent(self._index)
        found = await trio.to_thread.run_sync(
            self._check_and_write, chunk, self.written - extent.offset, poll,
            limiter=self._limiter,
        )  # fmt: skip
        if found != chunk.expected:
            self._damaged(found)
            return found
        self._index += 1
        self._holes += chunk.holes
        self._crc32 = combine(self._crc32, found, extent.length)
        return None

    def _check_and_write(self, chunk: _Arriving, skip: int, poll: Poll) -> int:
        views = chunk.views
        found = crc32_of(views)
        if found == chunk.expected:
            self._write(_after(views, skip), self._passed, poll)
        return found

    def _passed(self, count: int) -> None:
        self.written += count

    def _damaged(self, found: int) -> None:
        index = self._index
        attempt = self._attempts[index] = self._attempts.get(index, 0) + 1
        if attempt >= MAX_ATTEMPTS:
            raise IntegrityError(
                f"{self._report.name}: chunk {index} arrived damaged {attempt} times (CRC-32 {found:08x}); "
                "check the network and the disks"
            )
        self._report.observer(ChunkHealed(self._report.name, index, attempt))

    @property
    def index(self) -> int:
        return self._index

    def passed(self, count: int) -> None:
        self._report.progress(count)

    def skipped(self, count: int) -> None:
        self._report.skipped(count)

    def check_whole(self, finish: Finish) -> None:
        if finish.chunks != self.map.count:
            raise ProtocolError(f"the sender has finished {finish.chunks} chunks of {self.map.count}")
        if finish.crc32 is not None and finish.crc32 != self._crc32:
            raise IntegrityError(
                f"{self._report.name}: the whole came to {self._crc32:08x}, its sender says {finish.crc32:08x}"
            )


class _Attempt:
    """What comes on one stream."""

    def __init__(self, drain: Drain, stream: Stream) -> None:
        self._drain = drain
        self._stream = stream
        self._map = drain.map
        self._asked = drain.index
        self._arriving: dict[int, _Arriving] = {}
        self._finish: Finish | None = None
        self._changed = trio.Event()
        self._listening = trio.CancelScope()

    async def run(self) -> None:
        self._stream.expect(None)
        if self._asked == self._map.count:
            self._stream.send_nowait(Want())
        try:
            await all_of(self._listen, self._put)
        finally:
            for chunk in self._arriving.values():
                self._release(chunk)
        assert self._finish is not None
        self._drain.check_whole(self._finish)

    def _ask(self) -> None:
        """Ask for as many chunks as credit covers, beginning with the one that is written next."""
        size, count = self._map.chunk_size, self._map.count
        ahead = max(self._stream.receive_credit.window // size, 1)
        while self._asked < min(self._drain.index + ahead, count):
            extent = self._map.extent(self._asked)
            self._arriving[self._asked] = _Arriving()
            self._asked += 1
            self._stream.send_nowait(Want((extent,), more=self._asked < count))

    async def _listen(self) -> None:
        with self._listening:
            while True:
                self._take(await self._stream.receive())
                self._changed.set()

    def _take(self, item: Message | Data | None) -> None:
        match item:
            case Data():
                self._drain.passed(item.length)
                try:
                    self._lay(item)
                except ProtocolError:
                    self._stream.consumed(item)
                    raise
            case Chunk():
                self._expect(item)
            case Span():
                for one in item.chunks:
                    self._expect(one)
                for hole in item.holes:
                    self._lay_hole(hole)
            case Finish() if self._asked == self._map.count:
                self._finish = item
            case None:
                raise ProtocolError("the sender ended the transfer before the file was complete")
            case _:
                raise ProtocolError(f"the sender sent an unexpected {type(item).__name__}")

    def _expect(self, described: Chunk) -> None:
        chunk = self._arriving.get(described.index)
        if chunk is None:
            raise ProtocolError(f"the sender describes chunk {described.index}, which was not asked for")
        chunk.expected = described.crc32

    def _lay_hole(self, hole: Extent) -> None:
        for chunk, offset, length in self._places(hole):
            chunk.pieces.append((offset, zero_views(length)))
            chunk.holes += length
            if length == self._map.length(index := offset // self._map.chunk_size):
                chunk.expected = zeros_crc(self._map.length(index))
        self._drain.skipped(hole.length)

    def _places(self, extent: Extent) -> Iterator[tuple[_Arriving, int, int]]:
        """The chunks in which a range that has come belongs: its part of each, as offset and length."""
        if extent.end > self._map.size:
            raise ProtocolError("the sender sent bytes that belong nowhere")
        for index in self._map.chunks_of(extent):
            whole, chunk = self._map.extent(index), self._arriving.get(index)
            start, stop = max(whole.offset, extent.offset), min(whole.end, extent.end)
            if chunk is None or chunk.length + stop - start > whole.length:
                raise ProtocolError("the sender sent bytes that were not asked for")
            chunk.length += stop - start
            yield chunk, start, stop - start

    def _lay(self, data: Data) -> None:
        """Keep a payload with its chunk, or with its chunks: it is done with when the last of them is."""
        views = list(data.views)
        if self._map.chunk_size > HELD:
            views = [memoryview(bytes(data))]
            self._stream.consumed(data)
        if not data.places:
            raise ProtocolError("the sender sent bytes that belong nowhere")
        last, done = None, 0
        for place in data.places:
            for last, offset, length in self._places(place):
                last.pieces.append((offset, _between(views, done, done + length)))
                done += length
        if last is not None and not data.released:
            last.held.append(data)

    async def _put(self) -> None:
        """Write chunks in their order, as they have come; return when the sender has vouched for the whole, too."""
        drain = self._drain
        self._ask()
        while drain.index < self._map.count or self._finish is None:
            index = drain.index
            chunk = self._arriving.get(index)
            if chunk is None or chunk.expected is None or chunk.length < self._map.length(index):
                self._changed = trio.Event()
                await self._changed.wait()
                continue
            found = await drain.write_chunk(chunk)
            del self._arriving[index]
            self._release(chunk)
            if found is not None:
                self._arriving[index] = _Arriving()
                await self._stream.send(Again(index, found))
            self._ask()
        self._listening.cancel()

    def _release(self, chunk: _Arriving) -> None:
        chunk.pieces = []
        for data in chunk.held:
            self._stream.consumed(data)


def _between(views: Sequence[memoryview], start: int, stop: int) -> list[memoryview]:
    """Bytes ``start`` to before ``stop`` of ``views``, one behind the other."""
    found: list[memoryview] = []
    for view in views:
        part = view[max(start, 0) : max(stop, 0)]
        if part:
            found.append(part)
        start, stop = start - len(view), stop - len(view)
    return found


def _after(views: Sequence[memoryview], start: int) -> list[memoryview]:
    return _between(views, start, sum(map(len, views)))
