"""The half of a transfer that has the file.

Theory: offer it, send what is wanted as it is wanted, and stay until the receiver has it.  Payload bytes never pass
through Python: a span of the file is queued and the writer has the kernel send it.  The checksum of a chunk is made by
the writer as it sends the chunk, and follows it in a frame of its own; a source that was served before and has not
changed is not read for it at all.  A file that changes meanwhile is noticed before ``Finish``, and without
``Finish`` nothing is committed.

A file may be sent on several streams, of several connections.  Each is a conversation of its own about the same source
(:class:`Sending`); the receiver decides which of them it asks for what.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from fsmux.errors import FsmuxError, IntegrityError, ProtocolError
from fsmux.events import ChunkHealed, FileStarted
from fsmux.files.chunks import ChunkMap, effective_chunk_size, sparse_chunk_size
from fsmux.files.holes import zeros_crc
from fsmux.files.source import MOST_RUNS
from fsmux.limits import INITIAL_WINDOW, KIB, MAX_ATTEMPTS, MAX_CHUNKS
from fsmux.records import Extent
from fsmux.transfer.digests import DigestMeter
from fsmux.transfer.disk import poll
from fsmux.transfer.ranges import subtract
from fsmux.transfer.session import Outcome, Report
from fsmux.transfer.sparse import Parcel
from fsmux.wire.frames import HOLES_FEATURE, FileSpan, Meter
from fsmux.wire.messages import Again, Chunk, Committed, Finish, Have, Haves, Keep, Offer, Span, Want, pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from fsmux.files.passing import ChunkDigests
    from fsmux.files.ranges import Poll
    from fsmux.files.source import Source
    from fsmux.mux.stream import Stream
    from fsmux.transfer.digests import DigestCache
    from fsmux.transfer.disk import Disk


LEAST_RANGE: Final = 4 * KIB
"""Bytes of the shortest ranges that a receiver tells apart, so that a file has no more of them than it is long."""

MORE_RANGES: Final = 1024
"""Ranges that may be wanted beside these: what a small file is asked for again."""

KNOWN_TOGETHER: Final = 4
"""Chunks whose checksums are known that are queued as one payload, so that the sending task is not woken for each."""

KNOWN_BYTES: Final = INITIAL_WINDOW
"""Bytes of them at most: what the receiver says is heard in between."""


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
    """Send ``source`` on ``stream`` and return once the receiver has committed it; see :meth:`Sending.send_on`."""
    return await Sending(source, disk, digests, report, chunk_size).send_on(stream, eager=eager)


class Sending:
    """One source that is sent, on one stream or several; what their senders share."""

    def __init__(
        self, source: Source, disk: Disk, digests: DigestCache, report: Report, chunk_size: int,
        passing: ChunkDigests | None = None,
    ) -> None:  # fmt: skip
        self.source = source
        self.disk = disk
        self.report = report
        choose = sparse_chunk_size if source.holes else effective_chunk_size
        self.map = ChunkMap(source.identity.size, choose(source.identity.size, chunk_size))
        self.sent = 0
        self._digests = digests
        self._crcs = dict(digests.of(source.identity, self.map.chunk_size)) if passing is None else {}
        self._known_before = len(self._crcs)
        self._started = False
        self._passing = passing
        if passing is not None:
            passing.begin(source.identity, self.map)

    async def send_on(self, stream: Stream, *, eager: bool = False) -> Outcome:
        """Take part with ``stream``, and return once the receiver has committed the file.

        With ``eager`` everything is sent without waiting to hear what is missing; only for a file on one stream.
        Does not close the source or ``stream``.  Cancellation leaves the stream to its scope, which resets it; the
        receiver keeps what it got.

        Raises:
            SourceChanged: the file changed under way.
            IntegrityError: a chunk arrived damaged three times.
            FsmuxError: whatever the receiver or the connection failed with.
        """
        sender = _Sender(stream, self)
        stream.watch = sender.count
        try:
            done = await sender.run(eager)
        finally:
            stream.watch = None
            sender.count()
        return Outcome(self.map.size, self.sent, done.bytes_resumed, done.crc32, done.durable, done.refused)

    def started(self, resumed: int) -> None:
        """The first stream that knows how much is there already says so."""
        if not self._started:
            self._started = True
            self.report.observer(FileStarted(self.report.name, self.map.size, resumed))

    def passed(self, count: int) -> None:
        self.sent += count
        self.report.progress(count)

    def skipped(self, count: int) -> None:
        self.report.skipped(count)

    async def check_unchanged(self) -> None:
        """Raise :class:`SourceChanged`, or remember the checksums of what was read until now."""
        await self.disk.meta(self.source.check_unchanged)
        if len(self._crcs) > self._known_before:
            self._known_before = len(self._crcs)
            self._digests.remember(self.source.identity, self.map.chunk_size, self._crcs)

    # ---- checksums -------------------------------------------------------------------------------------------------

    def knows(self, index: int) -> bool:
        return index in self._crcs

    def meter(self) -> Meter:
        return Meter() if self._passing is None else DigestMeter()

    def measured(self, index: int, meter: Meter) -> Chunk:
        self._crcs[index] = meter.crc32
        if self._passing is not None and isinstance(meter, DigestMeter):
            self._passing.measured(index, meter.crc32, meter.digest())
        return Chunk(index, meter.crc32)

    def known(self, index: int, crc: int) -> Chunk:
        self._crcs[index] = crc
        return Chunk(index, crc)

    def forget(self, index: int) -> None:
        self._crcs.pop(index, None)

    async def crc(self, index: int) -> int:
        crc = self._crcs.get(index)
        if crc is None:
            crc = await self.disk.read(self.source.chunk_crc, index, self.map.chunk_size, poll)
            self._crcs[index] = crc
        return crc

    def whole_crc(self) -> int | None:
        if len(self._crcs) < self.map.count:
            return None
        return self.map.crc32([self._crcs[index] for index in range(self.map.count)])


class _Sender:
    """What is sent on one stream."""

    def __init__(self, stream: Stream, sending: Sending) -> None:
        self._stream = stream
        self._sending = sending
        self._map = sending.map
        self._report = sending.report
        self._wanted: deque[Extent] = deque()
        self._more = True  # to be wanted
        self._kept: list[Extent] = []  # of what was named until now
        self._comparing = False  # ranges of an earlier version are to be named before anything is sent
        self._to_finish = 0
        self._held = 0
        self._attempts: dict[int, int] = {}
        self._again: deque[int] = deque()
        self._committed: Committed | None = None
        self._counted = 0
        self._holes = sending.source.holes if HOLES_FEATURE in stream.peer_features else 0

    async def run(self, eager: bool) -> Committed:
        source = self._sending.source
        await self._stream.send(Offer(source.identity, source.mode, self._map.chunk_size, eager, self._holes))
        if eager:
            self._take_want(Want(whole=True))
        while self._committed is None:
            if self._again and not self._comparing:
                index = self._again.popleft()
                self._sending.forget(index)  # read it anew: the damage may have been in what was read
                await self._send_all(deque([self._map.extent(index)]))
            elif self._wanted and not self._comparing:
                self._sending.started(self._held)
                await self._send_some(self._wanted)
            elif self._to_finish and not self._more and not self._comparing:
                self._sending.started(self._held)
                await self._finish()
            else:
                await self._take(await self._stream.receive())
                continue
            await self._poll()
        return self._committed

    def count(self) -> None:
        """Tell of the bytes that have gone out since it was told last."""
        sent = self._stream.sent_bytes
        if sent != self._counted:
            self._sending.passed(sent - self._counted)
            self._counted = sent

    async def _finish(self) -> None:
        answered = self._to_finish
        await self._drain()  # what is checked now is what was sent
        await self._sending.check_unchanged()
        for _ in range(answered):
            await self._stream.send(Finish(self._map.count, self._sending.whole_crc()))
        self._to_finish -= answered

    async def _drain(self) -> None:
        """Return once all was sent; or raise what the receiver says meanwhile, who may want and grant no more."""
        failed: list[FsmuxError] = []

        async def until(task: Callable[[], Awaitable[None]]) -> None:
            try:
                await task()
            except FsmuxError as exc:
                failed.append(exc)
            nursery.cancel_scope.cancel()

        async def listen() -> None:
            while True:
                await self._take(await self._stream.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(until, self._stream.drained)
            nursery.start_soon(until, listen)
        if failed:
            raise failed[0]

    # ---- what the receiver says ------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            try:
                item = self._stream.receive_nowait()
            except trio.WouldBlock:
                return
            await self._take(item)

    async def _take(self, item: object) -> None:
        match item:
            case Want():
                self._take_want(item)
            case Haves():
                if not self._comparing:
                    raise ProtocolError("the receiver named ranges that it had not announced")
                await self._keep(item)
            case Again(index=index):
                if index >= self._map.count:
                    raise ProtocolError(f"the peer asks for chunk {index} of {self._map.count}")
                self._attempts[index] = self._attempts.get(index, 0) + 1
                if self._attempts[index] > MAX_ATTEMPTS:
                    raise IntegrityError(f"{self._report.name}: chunk {index} arrived damaged too often")
                self._report.observer(ChunkHealed(self._report.name, index, self._attempts[index]))
                self._again.append(index)
            case Committed():
                self._committed = item
            case None:
                raise ProtocolError("the receiver ended the transfer without committing the file")
            case _:
                raise ProtocolError(f"the receiver sent an unexpected {type(item).__name__}")

    def _take_want(self, want: Want) -> None:
        missing = (Extent(0, self._map.size),) if want.whole and self._map.size else want.missing
        if missing and missing[-1].end > self._map.size:
            raise ProtocolError("the peer wants more than the file has")
        self._wanted.extend(missing)
        if len(self._wanted) > min(MAX_CHUNKS, self._map.count + self._map.size // LEAST_RANGE + MORE_RANGES):
            raise ProtocolError("the peer wants more ranges than a file has chunks")
        self._comparing = self._comparing or want.have
        self._held = max(self._held, want.held)
        self._more = want.more
        if not want.more:
            self._to_finish += 1

    async def _keep(self, page: Haves) -> None:
        """Compare ranges of an earlier version that the receiver has, and tell it which to keep."""
        kept = await self._sending.disk.read(self._matching, page.ranges, poll)
        if kept and self._kept and kept[0].offset < self._kept[-1].end:
            raise ProtocolError("the receiver names ranges twice")
        self._kept += kept
        if len(self._kept) > 2 * MAX_CHUNKS:  # chunks, and pieces of some
            raise ProtocolError("the receiver names more ranges than it can have")
        self._held += sum(extent.length for extent in kept)
        for message in pages(Keep(tuple(kept))):
            await self._stream.send(message)
        self._comparing = page.more
        if not page.more:  # once, because there may be a million of either
            kept, self._kept = self._kept, []
            self._wanted = deque(await self._sending.disk.read(subtract, self._wanted, kept))

    def _matching(self, ranges: Iterable[Have], poll: Poll) -> list[Extent]:
        source = self._sending.source
        return [
            Extent(have.offset, have.length)
            for have in ranges
            if have.offset + have.length <= self._map.size
            and source.range_digest(have.offset, have.length, poll) == have.digest
        ]

    # ---- sending ---------------------------------------------------------------------------------------------------

    async def _send_all(self, extents: deque[Extent]) -> None:
        while extents:
            await self._send_some(extents)

    async def _send_some(self, extents: deque[Extent]) -> None:
        """Send the first of ``extents``, or what fits one message of a file with holes, and take it from them."""
        if not self._holes:
            await self._send_extent(extents.popleft())
            return
        sending = self._sending
        parcel = Parcel(self._map, sending.source.lease, sending.meter)
        runs = await sending.disk.read(sending.source.runs, list(islice(extents, MOST_RUNS)))
        span = parcel.fill(runs)
        await self._stream.send(span)
        for run in runs:
            taken = extents.popleft()
            if run.extent.end < taken.end:
                extents.appendleft(Extent(run.extent.end, taken.end - run.extent.end))
        sending.skipped(sum(hole.length for hole in span.holes))
        for index in parcel.empty:
            sending.known(index, zeros_crc(self._map.length(index)))
        for chunk in span.chunks:
            sending.known(chunk.index, chunk.crc32)
        for payload in parcel.payloads:
            await self._stream.send_data(payload.data)
            for index in payload.ends:
                await self._describe(index, parcel, extents)
            await self._poll()
        for index in parcel.unsaid:
            await self._describe(index, parcel, extents)

    async def _describe(self, index: int, parcel: Parcel, extents: deque[Extent]) -> None:
        """Say what a chunk comes to, unless more of it follows."""
        sending, chunk = self._sending, self._map.extent(index)
        if (crc := parcel.crc(index)) is not None:
            meter = parcel.meter(index)
            if meter is not None:
                self._stream.send_later(Chunk.CMD, partial(sending.measured, index, meter))
            else:
                self._stream.send_later(Chunk.CMD, lambda: sending.known(index, crc()))
        elif not (extents and chunk.offset <= extents[0].offset < chunk.end):
            await self._stream.send(Chunk(index, await sending.crc(index)))

    async def _send_extent(self, extent: Extent) -> None:
        sending = self._sending
        self._stream.send_nowait(Span(extent.offset, extent.length))
        indexes = deque(self._map.chunks_of(extent))
        while indexes:
            if await self._send_known(extent, indexes):
                continue
            chunk = self._map.extent(index := indexes.popleft())
            start, end = max(chunk.offset, extent.offset), min(chunk.end, extent.end)
            measured = not sending.knows(index) and (start, end) == (chunk.offset, chunk.end)
            meter = sending.meter() if measured else None
            await self._stream.send_data(FileSpan(sending.source.lease, start, end - start, meter))
            if meter is not None:
                self._stream.send_later(Chunk.CMD, partial(sending.measured, index, meter))
            elif not (self._wanted and chunk.offset <= self._wanted[0].offset < chunk.end):  # no more of it follows
                await self._stream.send(Chunk(index, await sending.crc(index)))
            await self._poll()

    async def _send_known(self, extent: Extent, indexes: deque[int]) -> bool:
        """Send some of these chunks as one payload, if they are whole and known, and take them from ``indexes``."""
        sending = self._sending
        known: list[Extent] = []
        for index in islice(indexes, min(KNOWN_TOGETHER, KNOWN_BYTES // self._map.chunk_size)):
            chunk = self._map.extent(index)
            if not sending.knows(index) or chunk.offset < extent.offset or chunk.end > extent.end:
                break
            known.append(chunk)
        if len(known) < 2:
            return False
        for _ in known:
            self._stream.send_nowait(Chunk(indexes[0], await sending.crc(indexes[0])))
            indexes.popleft()
        start, end = known[0].offset, known[-1].end
        await self._stream.send_data(FileSpan(sending.source.lease, start, end - start))
        await self._poll()
        return True
