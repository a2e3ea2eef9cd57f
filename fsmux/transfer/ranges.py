"""Arithmetic of ranges: what is left of some when others are taken away, and which to ask for next.  Pure.

Theory: whoever asks for ranges on several streams should ask for little at a time, so that a slow connection takes
less, and for less and less towards the end, so that all end together.  :class:`Pool` holds what nobody was asked for
yet.  Its pieces are powers of two and lie at multiples of their size, so that most of them are whole chunks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fsmux.limits import KIB, MIB
from fsmux.records import Extent

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PIECE = 16 * MIB
"""Bytes asked for at once. Two of them fill the largest window."""

MIN_PIECE = 256 * KIB
"""Bytes. What a slow connection may have two of when all others have ended: with 1 MiB the last of 150 MB over eight
lossy connections came 1.7 s after the others (measured). Smaller ones would starve 20 Mbit/s at 100 ms."""

HEAD_START = 4 * MIB
"""Bytes that every stream counts as having brought, so that who is first by a moment is not taken for the fastest."""

PART = 4
"""One part in so many of a stream's share of the rest is asked for at once."""


class Pool:
    """Ranges of one file that nobody was asked for yet."""

    def __init__(self) -> None:
        self._extents: deque[Extent] = deque()
        self.bytes = 0

    def put(self, extents: Iterable[Extent]) -> None:
        for extent in extents:
            self._extents.append(extent)
            self.bytes += extent.length

    def take(self, size: int) -> Extent:
        """A piece of at most ``size`` bytes, up to the next multiple of it; the pool must not be empty."""
        first = self._extents[0]
        size = 1 << (size.bit_length() - 1)
        end = min(first.end, (first.offset // size + 1) * size)
        if end == first.end:
            self._extents.popleft()
        else:
            self._extents[0] = Extent(end, first.end - end)
        self.bytes -= end - first.offset
        return Extent(first.offset, end - first.offset)

    def extents(self) -> list[Extent]:
        return list(self._extents)


def piece_size(rest: int, received: int, of: int, streams: int, most: int = MAX_PIECE) -> int:
    """Bytes to ask a stream for that brought ``received`` of ``of`` bytes until now, when ``rest`` are in the pool.

    At most ``most``, which is more than ``MAX_PIECE`` only if much of it is holes, of which nothing will come.
    Before anything came, all of ``streams`` count as equally fast.
    """
    if streams <= 1:
        return most
    share = rest * (received + HEAD_START) // (of + streams * HEAD_START)
    return max(MIN_PIECE, min(share // PART, most))


def subtract(extents: Iterable[Extent], kept: Iterable[Extent]) -> list[Extent]:
    """What of ``extents`` is not in ``kept``; both sorted and disjoint, as is the result."""
    result: list[Extent] = []
    taken = list(kept)
    position = 0
    for extent in extents:
        start = extent.offset
        while position < len(taken) and taken[position].end <= start:
            position += 1
        look = position
        while look < len(taken) and taken[look].offset < extent.end:
            if taken[look].offset > start:
                result.append(Extent(start, taken[look].offset - start))
            start = max(start, taken[look].end)
            look += 1
        if start < extent.end:
            result.append(Extent(start, extent.end - start))
    return result


def merged(extents: Iterable[Extent]) -> list[Extent]:
    """The same ranges sorted, and joined where they touch or overlap."""
    result: list[Extent] = []
    for extent in sorted(extents):
        if result and extent.offset <= result[-1].end:
            last = result[-1]
            result[-1] = Extent(last.offset, max(last.end, extent.end) - last.offset)
        elif extent.length:
            result.append(extent)
    return result


def within(extent: Extent, bounds: Iterable[Extent]) -> list[Extent]:
    """The parts of ``bounds`` that lie in ``extent``."""
    result: list[Extent] = []
    for other in bounds:
        start, end = max(extent.offset, other.offset), min(extent.end, other.end)
        if start < end:
            result.append(Extent(start, end - start))
    return result
