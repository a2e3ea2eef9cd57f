"""When a chunk is whole, and whether it is right: pure bookkeeping between the bytes and the manifest.

Theory: bytes of a chunk arrive as ranges in any order, each with its own CRC-32; the sender's CRC-32 of the whole
chunk arrives in a frame of its own, before or after them.  A chunk is settled when both are there.  It may turn out
wrong ``MAX_ATTEMPTS`` times; each time all of it is asked for again, because nobody knows which range was damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from fsmux.errors import ProtocolError, SourceChanged
from fsmux.files.chunks import combine_all
from fsmux.records import Extent
from fsmux.transfer.ranges import merged, subtract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsmux.files.chunks import ChunkMap

MAX_RANGES = 2**20
"""Ranges of chunks that are not settled: about 130 MB of memory. A chunk of 64 MiB that is data and holes by turns of
512 bytes has 131,072 of them; a correct sender begins few chunks before it completes others."""


class Verdict(Struct, frozen=True):
    """What a whole chunk came to: ``expected`` is what its sender said, ``found`` what was received."""

    index: int
    found: int
    expected: int

    @property
    def right(self) -> bool:
        return self.found == self.expected


class _Partial(Struct):
    """A chunk under way: its ranges as (offset, length, crc), how many bytes they come to, what they should."""

    ranges: list[tuple[int, int, int]] = []
    covered: int = 0
    expected: int | None = None


class Assembly:
    """The chunks of one file that are under way; those that are held already must not be added again."""

    def __init__(self, chunks: ChunkMap) -> None:
        self.map = chunks
        self._partial: dict[int, _Partial] = {}
        self._attempts: dict[int, int] = {}
        self._ranges = 0

    def add(self, offset: int, length: int, crc: int) -> Verdict | None:
        """A range within one chunk was written. Returns the verdict if that settles the chunk.

        Raises :class:`ProtocolError` if the range overlaps one that is there already.
        """
        index = offset // self.map.chunk_size
        partial = self._partial.setdefault(index, _Partial())
        partial.ranges.append((offset, length, crc))
        partial.covered += length
        self._ranges += 1
        if self._ranges > MAX_RANGES:
            raise ProtocolError("more pieces of chunks have come than any file is cut into")
        return self._verdict(index, partial)

    def expect(self, index: int, crc: int) -> Verdict | None:
        """The sender says what a chunk must come to. Returns the verdict if that settles the chunk.

        Where several streams carry parts of a chunk, each says it; they must agree.
        """
        partial = self._partial.setdefault(index, _Partial())
        if partial.expected is not None and partial.expected != crc:
            raise SourceChanged(f"chunk {index} was described twice and differently; the file changes while it is sent")
        partial.expected = crc
        return self._verdict(index, partial)

    def trust(self, index: int) -> Verdict | None:
        """Take a chunk that consists of ranges known by a stronger digest as what it came to."""
        partial = self._partial.get(index)
        if partial is None or partial.covered != self.map.length(index):
            return None
        partial.expected = self._found(index, partial)
        return self._verdict(index, partial)

    def failed(self, index: int) -> int:
        """Start a chunk anew; returns how many times it has been wrong by now."""
        attempts = self._attempts.get(index, 0) + 1
        self._attempts[index] = attempts
        return attempts

    def gaps(self, extent: Extent) -> list[Extent]:
        """What of ``extent``, within one chunk, has not been added."""
        partial = self._partial.get(extent.offset // self.map.chunk_size)
        if partial is None:
            return [extent]
        return subtract([extent], (Extent(offset, length) for offset, length, _ in sorted(partial.ranges)))

    def begun(self) -> list[Extent]:
        """All that was added of chunks that are not settled, in order."""
        return merged(Extent(offset, length) for one in self._partial.values() for offset, length, _ in one.ranges)

    def orphaned(self, index: int) -> bool:
        """Whether all of a chunk was added and nobody has said what it must come to."""
        partial = self._partial.get(index)
        return partial is not None and partial.covered == self.map.length(index) and partial.expected is None

    def drop(self, index: int) -> None:
        """Start a chunk anew."""
        if (partial := self._partial.pop(index, None)) is not None:
            self._ranges -= len(partial.ranges)

    @property
    def pending(self) -> int:
        """Chunks that have begun and are not settled."""
        return len(self._partial)

    def split(self, extent: Extent) -> Iterator[tuple[int, int]]:
        """``extent`` as (offset, length) pieces that lie within one chunk each."""
        size = self.map.chunk_size
        offset = extent.offset
        while offset < extent.end:
            end = min(extent.end, (offset // size + 1) * size)
            yield offset, end - offset
            offset = end

    def _verdict(self, index: int, partial: _Partial) -> Verdict | None:
        length = self.map.length(index)
        if partial.covered > length:
            raise ProtocolError(f"chunk {index} was sent more than once")
        if partial.covered < length or partial.expected is None:
            return None
        self.drop(index)
        return Verdict(index, self._found(index, partial), partial.expected)

    def _found(self, index: int, partial: _Partial) -> int:
        ranges = sorted(partial.ranges)
        position = self.map.extent(index).offset
        for offset, length, _ in ranges:
            if offset != position:
                raise ProtocolError(f"ranges of chunk {index} overlap")
            position += length
        return combine_all((crc, length) for _, length, crc in ranges)
