"""What of a file has arrived, chunk by chunk.

Theory: a manifest is the identity of the source plus one bit and one CRC-32 per chunk: five bytes, so that the
greatest file that may be sent keeps 5 MiB of it in memory.  It only knows what it is told; whether a claim survives a
crash is the journal's business, whether it is true is checked by whoever adds it.  Pure, and not thread-safe.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from fsmux.errors import IntegrityError, InternalError
from fsmux.files.chunks import ChunkMap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsmux.records import Extent, Identity


class Manifest:
    """The chunks of one version of a file that are held, with their CRC-32."""

    __slots__ = ("_crcs", "_held", "bytes_held", "chunks_held", "holes", "identity", "map")

    def __init__(self, identity: Identity, chunk_size: int, holes: int = 0) -> None:
        self.identity = identity
        self.holes = holes
        """Bytes of the file that take no room at its sender, more or less."""
        self.map = ChunkMap(identity.size, chunk_size)
        count = self.map.count
        self._held = bytearray(count)
        self._crcs = array("I", bytes(4 * count))
        self.bytes_held = 0
        self.chunks_held = 0

    @property
    def complete(self) -> bool:
        return self.chunks_held == len(self._held)

    def holds(self, index: int) -> bool:
        return index >= 0 and self._held[index] != 0

    def crc_of(self, index: int) -> int | None:
        return self._crcs[index] if self.holds(index) else None

    def add(self, index: int, crc: int) -> bool:
        """Note that a chunk is held.  False if it was already; another content for a held chunk is an error."""
        length = self.map.length(index)
        if self._held[index]:
            if self._crcs[index] != crc:
                raise IntegrityError(
                    f"chunk {index} came twice with different content ({self._crcs[index]:08x}, {crc:08x})"
                )
            return False
        self._held[index] = 1
        self._crcs[index] = crc
        self.bytes_held += length
        self.chunks_held += 1
        return True

    def drop(self, index: int) -> bool:
        """Forget a chunk.  False if it was not held."""
        length = self.map.length(index)
        if not self._held[index]:
            return False
        self._held[index] = 0
        self._crcs[index] = 0
        self.bytes_held -= length
        self.chunks_held -= 1
        return True

    def indices(self) -> Iterator[int]:
        """The chunks that are held, in order."""
        index = self._held.find(1)
        while index >= 0:
            yield index
            index = self._held.find(1, index + 1)

    def missing(self) -> list[Extent]:
        """What is not held, as the fewest ranges, in order."""
        return self._runs(0)

    def held(self) -> list[Extent]:
        """What is held, as the fewest ranges, in order."""
        return self._runs(1)

    def _runs(self, wanted: int) -> list[Extent]:
        runs: list[Extent] = []
        first = self._held.find(wanted)
        while first >= 0:
            stop = self._held.find(1 - wanted, first)
            if stop < 0:
                stop = len(self._held)
            runs.append(self.map.run(first, stop))
            first = self._held.find(wanted, stop)
        return runs

    def crc32(self) -> int:
        """CRC-32 of the whole file; only a complete manifest knows it."""
        if not self.complete:
            raise InternalError("the checksum of a file is asked for before all of it is there")
        return self.map.crc32(self._crcs)
