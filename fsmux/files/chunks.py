"""The arithmetic of chunks: where they lie, and how checksums of ranges become checksums of files.

Theory: a file is cut into chunks of one size (the last may be shorter); a chunk is what is checked, recorded and asked
for again.  Everything here is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct
from zlib_ng import zlib_ng

from fsmux.errors import RefusedError
from fsmux.limits import MAX_CHUNK_SIZE, MAX_CHUNKS, MIN_CHUNK_SIZE
from fsmux.records import Extent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


SPARSE_CHUNKS: Final = 2**14
"""Chunks of a file with holes beyond which they grow: 64 GiB in those of 4 MiB, 1 TiB in those of 64 MiB."""


def crc32_of(views: Iterable[bytes | bytearray | memoryview], crc: int = 0) -> int:
    """CRC-32 of the concatenation of ``views``, going on from ``crc``."""
    for view in views:
        crc = zlib_ng.crc32(view, crc)
    return crc


def combine(first: int, second: int, second_length: int) -> int:
    """CRC-32 of two adjacent ranges, from the CRC-32 of each and the length of the second."""
    return zlib_ng.crc32_combine(first, second, second_length)


def combine_all(pieces: Iterable[tuple[int, int]]) -> int:
    """CRC-32 of adjacent ranges in order, each given as (crc32, length)."""
    whole = 0
    for crc, length in pieces:
        whole = zlib_ng.crc32_combine(whole, crc, length)
    return whole


def effective_chunk_size(size: int, wanted: int) -> int:
    """The chunk size for a file of ``size`` bytes: ``wanted``, doubled until the chunks are few enough.

    ``wanted`` is brought into range and down to a power of two first.
    """
    chunk_size = 1 << (max(MIN_CHUNK_SIZE, min(wanted, MAX_CHUNK_SIZE)).bit_length() - 1)
    while chunk_size * MAX_CHUNKS < size:
        chunk_size *= 2
    if chunk_size > MAX_CHUNK_SIZE:
        raise RefusedError(f"a file of {size} bytes is beyond what can be transferred")
    return chunk_size


def sparse_chunk_size(size: int, wanted: int) -> int:
    """The same for a file with holes: doubled further, because what its chunks cost is not paid for by their bytes."""
    chunk_size = effective_chunk_size(size, wanted)
    while chunk_size * SPARSE_CHUNKS < size and chunk_size < MAX_CHUNK_SIZE:
        chunk_size *= 2
    return chunk_size


class ChunkMap(Struct, frozen=True):
    """How a file of ``size`` bytes is cut into chunks.  A file without bytes has no chunks."""

    size: int
    chunk_size: int

    def __post_init__(self) -> None:
        if self.size < 0 or self.chunk_size <= 0:
            raise ValueError(f"no chunks of {self.chunk_size} in a file of {self.size} bytes")

    @property
    def count(self) -> int:
        return -(-self.size // self.chunk_size)

    def extent(self, index: int) -> Extent:
        length = self.length(index)
        return Extent(index * self.chunk_size, length)

    def length(self, index: int) -> int:
        rest = self.size - index * self.chunk_size
        if index < 0 or rest <= 0:
            raise IndexError(f"chunk {index} of {self.count}")
        return min(self.chunk_size, rest)

    def run(self, first: int, stop: int) -> Extent:
        """The range from chunk ``first`` up to, not including, chunk ``stop``."""
        offset = first * self.chunk_size
        return Extent(offset, min(stop * self.chunk_size, self.size) - offset)

    def chunks_of(self, extent: Extent) -> range:
        """The chunks that ``extent`` touches."""
        if extent.offset < 0 or extent.length < 0 or extent.end > self.size:
            raise IndexError(f"{extent} of a file of {self.size} bytes")
        if not extent.length:
            return range(0)
        return range(extent.offset // self.chunk_size, (extent.end - 1) // self.chunk_size + 1)

    def crc32(self, crcs: Sequence[int]) -> int:
        """CRC-32 of the whole file from those of its chunks.

        Combining two CRCs costs by the second's length only through its logarithm, so equal lengths first, tail last.
        """
        return combine_all((crc, self.length(index)) for index, crc in enumerate(crcs))
