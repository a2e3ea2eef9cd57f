"""The half of a transfer that has the file.

Theory: offer it, learn what is missing, send that, and stay until the receiver has it.  Payload bytes never pass
through Python: a span of the file is queued and the writer has the kernel send it.  The checksum of a chunk is made by
the writer as it sends the chunk, and follows it in a frame of its own; a source that was served before and has not
changed is not read for it at all.  A file that changes meanwhile is noticed before ``Finish``, and without
``Finish`` nothing is committed.
"""

from __future__ import annotations

from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

import trio

from fsmux.errors import IntegrityError, ProtocolError
from fsmux.events import ChunkHealed, FileStarted
from fsmux.files.chunks import ChunkMap, effective_chunk_size
from fsmux.limits import MAX_CHUNKS
from fsmux.records import Extent
from fsmux.transfer.assembly import MAX_ATTEMPTS
from fsmux.transfer.session import Outcome, Report
from fsmux.wire.frames import FileSpan, Meter
from fsmux.wire.messages import Again, Chunk, Committed, Finish, Have, Haves, Keep, Offer, Span, Want, pages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsmux.files.source import Source
    from fsmux.mux.stream import Stream
    from fsmux.transfer.digests import DigestCache
    from fsmux.transfer.disk import Disk


async def send_file(
    stream: Stream,
    source: Source,
    *,
    disk: Disk,
    digests: DigestCache,
    report: Report,
    chunk_size: int,
    eager: bool,
) -> Outcome:
    """Send ``source`` on ``stream`` and return once the receiver has committed it.

    With ``eager`` everything is sent without waiting to hear what is missing.  Does not close ``source`` or ``stream``.
    Cancellation leaves the stream to its scope, which resets it; the receiver keeps what it got.

    Raises:
        SourceChanged: the file changed under way.
        IntegrityError: a chunk arrived damaged three times.
        FsmuxError: whatever the receiver or the connection failed with.
    """
    sender = _Sender(stream, source, disk, digests, report, effective_chunk_size(source.identity.size, chunk_size))
    return await sender.run(eager)


class _Sender:
    def __init__(
        self, stream: Stream, source: Source, disk: Disk, digests: DigestCache, report: Report, chunk_size: int
    ) -> None:
        self._stream = stream
        self._source = source
        self._disk = disk
        self._digests = digests
        self._report = report
        self._map = ChunkMap(source.identity.size, chunk_size)
        self._crcs = digests.of(source.identity, chunk_size)
        self._known_before = len(self._crcs)
        self._attempts: dict[int, int] = {}
        self._again: list[int] = []
        self._sent = 0
        self._committed: Committed | None = None

    async def run(self, eager: bool) -> Outcome:
        identity = self._source.identity
        await self._stream.send(Offer(identity, self._source.mode, self._map.chunk_size, eager))
        if eager:
            missing = [Extent(0, identity.size)] if identity.size else []
        else:
            missing = await self._what_is_missing()
        resumed = identity.size - sum(extent.length for extent in missing)
        self._report.observer(FileStarted(self._report.name, identity.size, resumed))
        for extent, following in zip_longest(missing, missing[1:]):
            await self._send_extent(extent, following)
        await self._resend()
        await self._stream.drained()  # what is checked now is what was sent
        await self._disk.meta(self._source.check_unchanged)
        if len(self._crcs) > self._known_before:
            self._digests.remember(identity, self._map.chunk_size, self._crcs)
        await self._stream.send(Finish(self._map.count, self._whole_crc()))
        while self._committed is None:
            self._handle(await self._stream.receive())
            await self._resend()
        done = self._committed
        return Outcome(identity.size, self._sent, done.bytes_resumed, done.crc32, done.durable)

    # ---- what to send ----------------------------------------------------------------------------------------------

    async def _what_is_missing(self) -> list[Extent]:
        want = await self._stream.expect_message(Want)
        whole = Extent(0, self._map.size)
        missing: list[Extent] = [whole] if want.whole and self._map.size else list(want.missing)
        have = want.have
        while want.more:
            want = await self._stream.expect_message(Want)
            if missing and want.missing and want.missing[0].offset < missing[-1].end:
                raise ProtocolError("the ranges that the peer wants are not in order")
            missing.extend(want.missing)
            if len(missing) > MAX_CHUNKS:
                raise ProtocolError("the peer wants more ranges than a file has chunks")
        if missing and missing[-1].end > self._map.size:
            raise ProtocolError("the peer wants more than the file has")
        return await self._keep(missing) if have else missing

    async def _keep(self, missing: list[Extent]) -> list[Extent]:
        """Compare ranges of an earlier version that the receiver has, and tell it which to keep."""
        more = True
        while more:
            page = await self._stream.expect_message(Haves)
            more = page.more
            kept = await self._disk.read(self._matching, page.ranges)
            missing = subtract(missing, kept)
            for message in pages(Keep(tuple(kept))):
                await self._stream.send(message)
        return missing

    def _matching(self, ranges: Iterable[Have]) -> list[Extent]:
        size = self._map.size
        return [
            Extent(have.offset, have.length)
            for have in ranges
            if have.offset + have.length <= size and self._source.range_digest(have.offset, have.length) == have.digest
        ]

    # ---- sending ---------------------------------------------------------------------------------------------------

    async def _send_extent(self, extent: Extent, following: Extent | None = None) -> None:
        self._stream.send_nowait(Span(extent.offset, extent.length))
        for index in self._map.chunks_of(extent):
            chunk = self._map.extent(index)
            start, end = max(chunk.offset, extent.offset), min(chunk.end, extent.end)
            measured = index not in self._crcs and (start, end) == (chunk.offset, chunk.end)
            meter = Meter() if measured else None
            await self._stream.send_data(FileSpan(self._source.lease, start, end - start, meter))
            self._sent += end - start
            self._report.progress(end - start)
            if meter is not None:
                self._stream.send_later(Chunk.CMD, partial(self._measured, index, meter))
            elif following is None or following.offset >= chunk.end:
                await self._stream.send(Chunk(index, await self._crc(index)))
            self._poll()

    def _measured(self, index: int, meter: Meter) -> Chunk:
        self._crcs[index] = meter.crc32
        return Chunk(index, meter.crc32)

    async def _crc(self, index: int) -> int:
        crc = self._crcs.get(index)
        if crc is None:
            crc = await self._disk.read(
                self._source.chunk_crc, index, self._map.chunk_size, trio.from_thread.check_cancelled
            )
            self._crcs[index] = crc
        return crc

    def _whole_crc(self) -> int | None:
        if len(self._crcs) < self._map.count:
            return None
        return self._map.crc32([self._crcs[index] for index in range(self._map.count)])

    # ---- what the receiver says meanwhile --------------------------------------------------------------------------

    def _poll(self) -> None:
        while True:
            try:
                item = self._stream.receive_nowait()
            except trio.WouldBlock:
                return
            self._handle(item)

    def _handle(self, item: object) -> None:
        if isinstance(item, Again):
            if item.index >= self._map.count:
                raise ProtocolError(f"the peer asks for chunk {item.index} of {self._map.count}")
            self._attempts[item.index] = self._attempts.get(item.index, 0) + 1
            if self._attempts[item.index] > MAX_ATTEMPTS:
                raise IntegrityError(f"{self._report.name}: chunk {item.index} arrived damaged too often")
            self._report.observer(ChunkHealed(self._report.name, item.index, self._attempts[item.index]))
            self._again.append(item.index)
        elif isinstance(item, Committed):
            self._committed = item
        elif item is None:
            raise ProtocolError("the receiver ended the transfer without committing the file")
        else:
            raise ProtocolError(f"the receiver sent an unexpected {type(item).__name__}")

    async def _resend(self) -> None:
        while self._again:
            index = self._again.pop()
            self._crcs.pop(index, None)  # read it anew: the damage may have been in what was read
            await self._send_extent(self._map.extent(index))


def subtract(extents: list[Extent], kept: list[Extent]) -> list[Extent]:
    """What of ``extents`` is not in ``kept``; both sorted and disjoint, as is the result."""
    result: list[Extent] = []
    position = 0
    for extent in extents:
        start = extent.offset
        while position < len(kept) and kept[position].end <= start:
            position += 1
        look = position
        while look < len(kept) and kept[look].offset < extent.end:
            if kept[look].offset > start:
                result.append(Extent(start, kept[look].offset - start))
            start = max(start, kept[look].end)
            look += 1
        if start < extent.end:
            result.append(Extent(start, extent.end - start))
    return result
