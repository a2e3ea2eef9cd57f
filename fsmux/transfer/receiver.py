"""The half of a transfer that lacks the file.

Theory: hear the offer, say what is missing, and put what comes where it belongs.  It is a pipeline: while a worker
thread checks and writes what has arrived, the connection's reader fills further buffers, and everything that came
meanwhile is written in the next hop.  Bytes go to the partial file before they are known to be right; the manifest
records a chunk only when it is whole and its CRC-32 is the sender's, and the final name appears only when all are.

Whatever ends a session early, the partial file and its journal stay, so that the next attempt goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from fsmux.errors import IntegrityError, ProtocolError
from fsmux.events import ChunkHealed, FileStarted
from fsmux.limits import INITIAL_CREDIT
from fsmux.mux.buffers import Data
from fsmux.records import Extent
from fsmux.transfer.assembly import MAX_ATTEMPTS, Assembly
from fsmux.transfer.session import Outcome, Report
from fsmux.wire.messages import Again, Chunk, Committed, Finish, Have, Haves, Keep, Message, Offer, Span, Want, pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.files.sink import Sink
    from fsmux.mux.stream import Stream
    from fsmux.transfer.assembly import Verdict
    from fsmux.transfer.disk import Disk

HAVES_PAGE = 1000
"""Ranges in one Haves message: about 34 KiB."""


async def receive_file(stream: Stream, open_sink: Callable[[Offer], Sink], *, disk: Disk, report: Report) -> Outcome:
    """Receive the file that the peer offers next on ``stream`` and commit it.

    ``open_sink`` (blocking, run in a thread) makes the sink for the offer.  The caller sends nothing on the stream
    afterwards but may end it.  Cancellation, like any error, suspends the sink: what was verified is kept.

    Raises:
        IntegrityError: a chunk arrived damaged three times, or the whole file is not what the sender said.
        FsmuxError: whatever the sender, the disk or the connection failed with.
    """
    offer = await stream.expect_message(Offer)
    sink = await disk.meta(open_sink, offer)
    try:
        return await _Receiver(stream, offer, sink, disk, report).run()
    finally:
        with trio.CancelScope(shield=True):  # bounded by one checkpoint of the journal
            await disk.meta(sink.suspend)


class _Receiver:
    def __init__(self, stream: Stream, offer: Offer, sink: Sink, disk: Disk, report: Report) -> None:
        self._stream = stream
        self._offer = offer
        self._sink = sink
        self._disk = disk
        self._report = report
        self._assembly = Assembly(sink.manifest.map)
        self._resumed = sink.manifest.bytes_held
        self._received = 0
        self._promised = 0  # bytes that are still to come under credit
        # What the initial credit covers needs no grant, unless it comes in pieces (so that early bytes must not hold up
        # other streams) or twice.
        self._needs_credit = not (offer.eager and offer.identity.size <= INITIAL_CREDIT)
        self._position = Extent(0, 0)  # what the current span has left
        self._named: set[Extent] = set()  # ranges of an earlier version that were offered to the sender
        self._finish: Finish | None = None

    async def run(self) -> Outcome:
        size = self._offer.identity.size
        missing = self._sink.manifest.missing()
        self._report.observer(FileStarted(self._report.name, size, self._resumed))
        if self._offer.eager:
            self._promise(size)
        else:
            await self._want(missing)
        while not (self._sink.manifest.complete and self._finish is not None):
            await self._take(await self._stream.receive())
        manifest = self._sink.manifest
        crc = await self._disk.read(manifest.crc32)
        if self._finish.crc32 is not None and self._finish.crc32 != crc:
            raise IntegrityError(
                f"{self._report.name}: the whole file came to {crc:08x}, its sender says {self._finish.crc32:08x}; "
                "run it again with --no-resume"
            )
        durable = await self._disk.meta(self._sink.commit, self._offer.mode, self._offer.identity.mtime_ns)
        await self._stream.send(Committed(crc, durable, self._resumed))
        return Outcome(size, self._received, self._resumed, crc, durable)

    # ---- asking ----------------------------------------------------------------------------------------------------

    async def _want(self, missing: list[Extent]) -> None:
        have = self._sink.basis is not None and bool(missing)
        for message in pages(Want(tuple(missing), have=have)):
            await self._stream.send(message)
        self._promise(sum(extent.length for extent in missing))
        if have:
            await self._offer_basis()

    async def _offer_basis(self) -> None:
        """Name the ranges of an earlier version that are here; the sender says which still hold."""
        basis = iter(self._sink.basis_digests())
        page: list[Have] = []
        while True:
            found = await self._disk.read(next, basis, None)
            if found is not None:
                page.append(Have(found.offset, found.length, found.digest))
                self._named.add(Extent(found.offset, found.length))
            if found is None or len(page) == HAVES_PAGE:
                await self._stream.send(Haves(tuple(page), more=found is not None))
                await self._take_keeps()
                page = []
            if found is None:
                return

    async def _take_keeps(self) -> None:
        more = True
        while more:
            keep = await self._stream.expect_message(Keep)
            more = keep.more
            for extent in keep.ranges:
                if extent not in self._named:
                    raise ProtocolError("the sender keeps a range that was never named")
                await self._keep(extent)

    async def _keep(self, extent: Extent) -> None:
        crc = await self._disk.read(self._sink.copy_from_basis, extent)
        self._resumed += extent.length
        self._promise(-extent.length)
        self._report.progress(extent.length)
        index = extent.offset // self._assembly.map.chunk_size
        self._assembly.add(extent.offset, extent.length, crc)
        verdict = self._assembly.trust(index)
        if verdict is not None:
            self._sink.received(verdict.index, verdict.found)

    # ---- taking ----------------------------------------------------------------------------------------------------

    async def _take(self, item: Message | Data | None) -> None:
        match item:
            case Data():
                await self._write(item)
            case Span(offset=offset, length=length):
                if self._position.length:
                    raise ProtocolError("a span began before the last one was full")
                if offset + length > self._assembly.map.size:
                    raise ProtocolError("a span reaches beyond the file")
                self._position = Extent(offset, length)
            case Chunk(index=index, crc32=crc):
                if index >= self._assembly.map.count:
                    raise ProtocolError(f"chunk {index} of {self._assembly.map.count}")
                if not self._sink.manifest.holds(index):
                    self._settle(self._assembly.expect(index, crc))
            case Finish():
                self._finish = item
            case None:
                raise ProtocolError("the sender ended the transfer before the file was complete")
            case _:
                raise ProtocolError(f"the sender sent an unexpected {type(item).__name__}")

    async def _write(self, first: Data) -> None:
        """Write this payload and all that arrived behind it, in one hop."""
        batch = [first]
        after: Message | Data | None = first
        try:
            while isinstance(after, Data):
                try:
                    after = self._stream.receive_nowait()
                except trio.WouldBlock:
                    break
                if isinstance(after, Data):
                    batch.append(after)
            await self._write_batch(batch)
        finally:
            for data in batch:
                self._stream.consumed(data)
        if self._sink.checkpoint_due():
            await self._disk.meta(self._sink.checkpoint)
        if not isinstance(after, Data):
            await self._take(after)

    async def _write_batch(self, batch: list[Data]) -> None:
        pieces: list[tuple[int, list[memoryview], int]] = []
        count = 0
        for data in batch:
            count += data.length
            self._lay(data, pieces)
        crcs = await self._disk.write(self._sink, pieces)
        if count < self._promised:
            self._needs_credit = True
        self._received += count
        self._report.progress(count)
        for (offset, _, length), crc in zip(pieces, crcs, strict=True):
            self._settle(self._assembly.add(offset, length, crc))
        self._promise(-count)

    def _lay(self, data: Data, pieces: list[tuple[int, list[memoryview], int]]) -> None:
        """Find where a payload belongs; adjacent ranges of one chunk become one piece."""
        if data.length > self._position.length:
            raise ProtocolError("more data than its span has room for")
        extent = Extent(self._position.offset, data.length)
        self._position = Extent(extent.end, self._position.length - data.length)
        views = list(data.views)
        for offset, length in self._assembly.split(extent):
            if self._sink.manifest.holds(offset // self._assembly.map.chunk_size):
                raise ProtocolError("data for a chunk that is here already")
            mine = _take_views(views, length)
            if pieces:
                last_offset, last_views, last_length = pieces[-1]
                if last_offset + last_length == offset and offset % self._assembly.map.chunk_size:
                    last_views.extend(mine)
                    pieces[-1] = (last_offset, last_views, last_length + length)
                    continue
            pieces.append((offset, mine, length))

    def _settle(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if verdict.right:
            self._sink.received(verdict.index, verdict.found)
            return
        attempt = self._assembly.failed(verdict)
        if attempt >= MAX_ATTEMPTS:
            raise IntegrityError(
                f"{self._report.name}: chunk {verdict.index} arrived damaged {attempt} times "
                f"(CRC-32 {verdict.found:08x}, expected {verdict.expected:08x}); check the network and the disks"
            )
        self._report.observer(ChunkHealed(self._report.name, verdict.index, attempt))
        self._needs_credit = True
        self._promise(self._assembly.map.length(verdict.index))
        self._stream.send_nowait(Again(verdict.index, verdict.found))

    def _promise(self, count: int) -> None:
        """So many more bytes are to come; credit follows."""
        self._promised += count
        if self._needs_credit:
            self._stream.expect(max(self._promised, 0))


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
