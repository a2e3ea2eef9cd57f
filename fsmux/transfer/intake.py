"""What comes in on one stream, and where it belongs.

Theory: a pipeline.  While a worker thread checks and writes what has arrived, the connection's reader fills further
buffers, and everything that came meanwhile is written in the next hop.  What a stream was asked for and has not
delivered is what the others take over if it is lost; so each keeps a list of it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import trio

from fsmux.errors import ProtocolError
from fsmux.files.holes import zeros_crc
from fsmux.limits import INITIAL_CREDIT
from fsmux.mux.buffers import Data
from fsmux.records import Extent
from fsmux.transfer.disk import poll
from fsmux.wire.messages import Again, Chunk, Finish, Have, Haves, Keep, Message, Span, Want, pages
from fsmux.wire.messages.checks import MAX_HAVES

if TYPE_CHECKING:
    from fsmux.mux.pour import Piece, Pour
    from fsmux.mux.stream import Stream
    from fsmux.transfer.assembly import Verdict
    from fsmux.transfer.receiver import Receiving
    from fsmux.wire.messages import Offer

DETOUR = 64
"""Payloads of a file that go through buffers once its disk has made the connection's reader wait: up to 256 MiB."""

HOLES_AT_ONCE = 1000
"""Chunks of holes that are recorded before other tasks run: some milliseconds."""


class _Outlet:
    """Takes large payloads of one stream straight to the disk; see :mod:`fsmux.mux.pour`."""

    boundary = 0

    def __init__(self, receiving: Receiving) -> None:
        self.detour = 0
        self._receiving = receiving

    def takes(self, offset: int, length: int) -> bool:
        if self.detour:
            self.detour -= 1
            return False
        chunks = self._receiving.map
        extent = Extent(offset, length)
        return extent.end <= chunks.size and not any(map(self._receiving.holds, chunks.chunks_of(extent)))

    def write(self, view: memoryview, offset: int) -> int:
        return self._receiving.sink.write((view,), offset)


class Intake:
    """One stream's part in receiving a file."""

    def __init__(self, stream: Stream, offer: Offer, receiving: Receiving) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self.received = 0
        self.vouches = False
        """Whether nothing is committed before it has said that the source is still the same: something of the file came
        on it, be it holes, or on one that was lost and in whose place it was asked."""
        self.promised = 0
        """Bytes that were asked for and are still to come."""
        self.owed: deque[Extent] = deque()
        """What was asked for, the oldest first, without what is known to be right. Kept in joint sessions only."""
        self.open_ended = False
        """Whether the sender expects to be asked for more."""
        self._receiving = receiving
        self._offer = offer
        # What the initial credit covers needs no grant, unless it comes in pieces (so that early bytes must not hold up
        # other streams) or twice.
        self._needs_credit = not (offer.eager and offer.identity.size <= INITIAL_CREDIT)
        self._outlet = _Outlet(receiving)
        self._unfinished = 0  # times that the sender was told that this is all, and has not answered with FINISH

    async def run(self) -> None:
        """Take what comes until the file is complete, or for ever: whoever completes it cancels ``scope``."""
        self._outlet.boundary = self._receiving.map.chunk_size
        self.stream.outlet = self._outlet
        try:
            while not await self._receiving.committed(self):
                await self._take(await self.stream.receive())
        finally:
            self.stream.outlet = None

    @property
    def finished(self) -> bool:
        """Whether the sender has found the source unchanged after all it was asked for."""
        return not self._unfinished and not self.open_ended

    # ---- asking ----------------------------------------------------------------------------------------------------

    async def ask_all(self, missing: list[Extent], *, have: bool) -> None:
        """Ask for everything at once."""
        self._unfinished += 1
        if self._offer.eager:
            self._promise(self._offer.identity.size)
            return
        for message in pages(Want(tuple(missing), have=have, held=self._receiving.resumed)):
            await self.stream.send(message)
        self._promise(sum(extent.length for extent in missing))

    def ask(self, *pieces: Extent, more: bool, have: bool = False) -> None:
        """Ask for some pieces; ``more``: others may follow. Not a checkpoint; raises if the stream is over."""
        self.stream.send_nowait(Want(pieces, have=have, more=more, held=self._receiving.resumed))
        self.open_ended = more
        if not more:
            self._unfinished += 1
        self.owed.extend(pieces)
        self._promise(sum(piece.length for piece in pieces))

    def ask_again(self, index: int, found: int) -> None:
        """Ask for a chunk that is not right; it came to ``found``. Not a checkpoint; raises if the stream is over."""
        self._needs_credit = True
        if self._receiving.joint:
            self.owed.append(self._receiving.map.extent(index))
        self._promise(self._receiving.map.length(index))
        self.stream.send_nowait(Again(index, found))
        if not self.open_ended:  # what was said of the source is about what was read before
            self.stream.send_nowait(Want((), more=False))
            self._unfinished += 1

    async def compare(self) -> None:
        """Name the ranges of an earlier version that are here; the sender says which still hold."""
        receiving = self._receiving
        basis = iter(receiving.sink.basis_digests(poll))
        more = True
        while more:
            page = await receiving.disk.read(lambda: [Have(*known) for known in islice(basis, MAX_HAVES)])
            more = len(page) == MAX_HAVES
            await self.stream.send(Haves(tuple(page), more=more))
            await self._take_keeps({Extent(have.offset, have.length) for have in page})

    async def _take_keeps(self, named: set[Extent]) -> None:
        more = True
        while more:
            keep = await self.stream.expect_message(Keep)
            more = keep.more
            for extent in keep.ranges:
                if extent not in named:
                    raise ProtocolError("the sender keeps a range that was never named")
                await self._receiving.keep(extent)
                if not self._receiving.joint:
                    self._promise(-extent.length)

    # ---- taking ----------------------------------------------------------------------------------------------------

    async def _take(self, item: Message | Data | None) -> None:
        receiving = self._receiving
        match item:
            case Data():
                await self._write(item)
            case Chunk():
                self._expect(item)
            case Span():
                for chunk in item.chunks:
                    self._expect(chunk)
                await self._clear(item.holes)
            case Finish():
                if not self._unfinished:
                    raise ProtocolError("the sender has finished before it was told that this is all")
                if item.chunks != receiving.map.count:
                    raise ProtocolError(f"the sender has finished {item.chunks} chunks of {receiving.map.count}")
                self._unfinished -= 1
                receiving.stated(item)
            case None:
                raise ProtocolError("the sender ended the transfer before the file was complete")
            case _:
                raise ProtocolError(f"the sender sent an unexpected {type(item).__name__}")

    def _expect(self, chunk: Chunk) -> None:
        receiving = self._receiving
        if chunk.index >= receiving.map.count:
            raise ProtocolError(f"chunk {chunk.index} of {receiving.map.count}")
        if not receiving.holds(chunk.index):
            self._settle(receiving.assembly.expect(chunk.index, chunk.crc32))

    async def _clear(self, holes: tuple[Extent, ...]) -> None:
        """Make holes where the sender has them. What they come to is known, and so is a chunk that is one hole."""
        receiving = self._receiving
        if not holes:
            return
        if holes[-1].end > receiving.map.size:
            raise ProtocolError("a hole reaches beyond the file")
        for looked, index in enumerate((index for hole in holes for index in receiving.map.chunks_of(hole)), 1):
            if receiving.holds(index):
                raise ProtocolError("a hole in a chunk that is here already")
            if looked % HOLES_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        await receiving.disk.meta(receiving.sink.clear, holes)
        count = sum(hole.length for hole in holes)
        self.vouches = True
        receiving.skipped(count)
        self._promise(-count)
        since_checkpoint = 0
        for hole in holes:
            for offset, length in receiving.assembly.split(hole):
                self._settle(receiving.assembly.add(offset, length, zeros_crc(length)))
                if length == receiving.map.length(index := offset // receiving.map.chunk_size):
                    self._settle(receiving.assembly.trust(index))
                since_checkpoint += 1
                if since_checkpoint % HOLES_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
        receiving.deal()
        await receiving.checkpoint()

    async def _write(self, first: Data) -> None:
        """Write this payload and all that arrived behind it, in one hop."""
        batch = [first]
        after: Message | Data | None = first
        try:
            while isinstance(after, Data):
                try:
                    after = self.stream.receive_nowait()
                except trio.WouldBlock:
                    break
                if isinstance(after, Data):
                    batch.append(after)
            await self._write_batch(batch)
        finally:
            for data in batch:
                self.stream.consumed(data)
        self._receiving.deal()
        await self._receiving.checkpoint()
        if not isinstance(after, Data):
            await self._take(after)

    async def _write_batch(self, batch: list[Data]) -> None:
        receiving = self._receiving
        pieces: list[tuple[int, list[memoryview], int]] = []
        written: list[Piece] = []
        count = 0
        for data in batch:
            count += data.length
            if data.pour is None:
                self._lay(data, pieces)
            else:
                written += self._poured(data.pour)
        if pieces:
            crcs = await receiving.disk.write(receiving.sink, pieces)
            written += [(offset, length, crc) for (offset, _, length), crc in zip(pieces, crcs, strict=True)]
        if count < self.promised:
            self._needs_credit = True
        self.received += count
        self.vouches = True
        receiving.passed(count)
        for offset, length, crc in written:
            self._settle(receiving.assembly.add(offset, length, crc))
        self._promise(-count)

    def _poured(self, pour: Pour) -> list[Piece]:
        if pour.error is not None:
            raise pour.error
        if pour.slow:
            self._outlet.detour = DETOUR
        return pour.pieces

    def _lay(self, data: Data, pieces: list[tuple[int, list[memoryview], int]]) -> None:
        """Find where a payload belongs; adjacent ranges of one chunk become one piece."""
        if not data.places:
            raise ProtocolError("data without a span")
        if data.places[-1].end > self._receiving.map.size:
            raise ProtocolError("a span reaches beyond the file")
        views = list(data.views)
        chunk_size = self._receiving.map.chunk_size
        split = self._receiving.assembly.split
        for offset, length in (part for place in data.places for part in split(place)):
            if self._receiving.holds(offset // chunk_size):
                raise ProtocolError("data for a chunk that is here already")
            mine = _take_views(views, length)
            if pieces:
                last_offset, last_views, last_length = pieces[-1]
                if last_offset + last_length == offset and offset % chunk_size:
                    last_views.extend(mine)
                    pieces[-1] = (last_offset, last_views, last_length + length)
                    continue
            pieces.append((offset, mine, length))

    def _settle(self, verdict: Verdict | None) -> None:
        """Record a chunk that is whole and right, or ask for it again."""
        if verdict is not None and not self._receiving.settled(verdict):
            self.ask_again(verdict.index, verdict.found)

    def _promise(self, count: int) -> None:
        """So many more bytes are to come; credit follows."""
        self.promised += count
        if self._needs_credit:
            self.stream.expect(max(self.promised, 0))


def _take_views(views: list[memoryview], length: int) -> list[memoryview]:
    """Split ``length`` bytes off the front of ``views``, in place."""
    taken: list[memoryview] = []
    while length:
        view = views[0]
        if len(view) <= length:
            taken.append(views.pop(0))
            length -= len(view)
        else:
            taken.append(view[:length])
            views[0] = view[length:]
            length = 0
    return taken
