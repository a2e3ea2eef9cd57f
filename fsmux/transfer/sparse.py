"""What of a file with holes goes into one SPAN, and what follows it.

Theory: one message names some runs of data and some holes; then comes the data, one run behind the other.  Short runs
are sent together, because a frame costs more than they do, and their chunks are described in the same message, because
a CHUNK for each would be as many frames again.  A chunk that is nothing but holes needs no description.  So however a
file is strewn with holes, most frames are full.

The CRC-32 of a chunk covers its holes.  It is put together from those of its runs: known for holes, made of the bytes
at hand for short runs, and by the writer as it sends for long ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from zlib_ng import zlib_ng

from fsmux.files.chunks import combine_all
from fsmux.files.holes import zeros_crc
from fsmux.records import Extent
from fsmux.wire.frames import FileSpan, Meter
from fsmux.wire.messages import Chunk, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsmux.files.chunks import ChunkMap
    from fsmux.files.holes import Run
    from fsmux.files.lease import Lease

    Part = tuple[int, int | Meter]
    """Of a chunk: its length, and what it comes to."""


class Payload(Struct):
    """DATA, and the chunks of which nothing follows it."""

    data: FileSpan | bytes
    ends: list[int]


class Parcel:
    """One SPAN and its payloads, made of runs in order."""

    def __init__(self, chunks: ChunkMap, lease: Lease, new_meter: Callable[[], Meter]) -> None:
        self.payloads: list[Payload] = []
        self.empty: list[int] = []
        """Chunks that are one hole."""
        self._map = chunks
        self._lease = lease
        self._new_meter = new_meter
        self._parts: dict[int, list[Part]] = {}
        self._last: dict[int, Payload | None] = {}  # by chunk what goes last of it
        self._gathered: list[bytes] = []
        self._gathering: Payload | None = None

    def fill(self, runs: Sequence[Run]) -> Span:
        """Lay out ``runs``; the message that goes first."""
        for extent, hole, data in runs:
            if hole:
                self._add_hole(extent)
            elif data is not None:
                self._add_short(extent, data)
            else:
                self._add_long(extent)
        self._close_gathered()
        said = tuple(Chunk(index, crc) for index in self._parts if (crc := self._known_crc(index)) is not None)
        for chunk in said:
            del self._last[chunk.index]
        for index, payload in self._last.items():
            if payload is not None:
                payload.ends.append(index)
        ranges = tuple([run.extent for run in runs if not run.hole])
        return Span(ranges=ranges, holes=tuple([run.extent for run in runs if run.hole]), chunks=said)

    @property
    def unsaid(self) -> list[int]:
        """Chunks of which only a hole is said here, and not all."""
        return [index for index, payload in self._last.items() if payload is None]

    def crc(self, index: int) -> Callable[[], int] | None:
        """What makes the CRC-32 of a chunk once its payloads were sent; None if not all of it is here."""
        parts = self._parts[index]
        if sum(length for length, _ in parts) < self._map.length(index):
            return None
        return lambda: combine_all((what.crc32 if isinstance(what, Meter) else what, length) for length, what in parts)

    def meter(self, index: int) -> Meter | None:
        """What measures a chunk that is sent in one payload."""
        what = self._parts[index][0][1]
        return what if isinstance(what, Meter) and len(self._parts[index]) == 1 else None

    def _known_crc(self, index: int) -> int | None:
        crc = self.crc(index)
        return None if crc is None or any(isinstance(what, Meter) for _, what in self._parts[index]) else crc()

    # ---- laying out ------------------------------------------------------------------------------------------------

    def _add_hole(self, extent: Extent) -> None:
        for index, piece in self._split(extent):
            if piece.length == self._map.length(index):
                self.empty.append(index)
            else:
                self._note(index, (piece.length, zeros_crc(piece.length)), None)

    def _add_short(self, extent: Extent, data: bytes) -> None:
        if self._gathering is None:
            self._gathering = Payload(b"", [])
            self.payloads.append(self._gathering)
        self._gathered.append(data)
        view = memoryview(data)
        for index, (offset, length) in self._split(extent):
            crc = zlib_ng.crc32(view[offset - extent.offset :][:length])
            self._note(index, (length, crc), self._gathering)

    def _add_long(self, extent: Extent) -> None:
        self._close_gathered()
        for index, (offset, length) in self._split(extent):
            meter = self._new_meter() if length == self._map.length(index) else Meter()
            payload = Payload(FileSpan(self._lease, offset, length, meter), [])
            self.payloads.append(payload)
            self._note(index, (length, meter), payload)

    def _close_gathered(self) -> None:
        if self._gathering is not None:
            self._gathering.data = b"".join(self._gathered)
        self._gathering = None
        self._gathered = []

    def _note(self, index: int, part: Part, payload: Payload | None) -> None:
        self._parts.setdefault(index, []).append(part)
        self._last[index] = payload or self._last.get(index)

    def _split(self, extent: Extent) -> list[tuple[int, Extent]]:
        size = self._map.chunk_size
        return [
            (index, Extent(start, min(extent.end, (index + 1) * size) - start))
            for index in self._map.chunks_of(extent)
            for start in [max(extent.offset, index * size)]
        ]
