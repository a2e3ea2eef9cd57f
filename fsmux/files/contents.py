"""The contents of a pack where they have arrived: files one after the other, in buffers that end anywhere.

Theory: what the kernel has laid into a buffer is written to the disk from there.  Most files lie in one buffer, and a
view of that is all they need; a file over the edge of one is joined, which only one in hundreds is.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Contents:
    """Bytes in ``pieces``, which must stay as they are for as long as any are taken."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))
        self._here = (0, 0, memoryview(b""))  # where the piece that was last looked at begins and ends, and itself

    def take(self, offset: int, size: int) -> memoryview:
        """``size`` bytes from ``offset`` on, as far as there are so many."""
        start, end, piece = self._here
        if offset < start or offset + size > end:
            return self._find(offset, size)
        return piece[offset - start : offset - start + size]

    def _find(self, offset: int, size: int) -> memoryview:
        place = bisect_right(self._ends, offset)
        found: list[memoryview] = []
        while size and place < len(self._pieces):
            piece, end = self._pieces[place], self._ends[place]
            start = end - len(piece)
            self._here = (start, end, piece)
            found.append(piece[offset - start : offset - start + size])
            offset += len(found[-1])
            size -= len(found[-1])
            place += 1
        return found[0] if len(found) == 1 else memoryview(b"".join(found))
