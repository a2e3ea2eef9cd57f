"""The arithmetic of ranges that streams are asked for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fsmux.limits import MIB
from fsmux.records import Extent
from fsmux.transfer.ranges import MAX_PIECE, MIN_PIECE, Pool, merged, piece_size, subtract, within

some = st.lists(st.builds(Extent, st.integers(0, 200), st.integers(1, 30)), max_size=8)


def points(extents: list[Extent]) -> set[int]:
    return {point for extent in extents for point in range(extent.offset, extent.end)}


@given(some, some)
def test_ranges_are_sets_of_bytes(one: list[Extent], other: list[Extent]) -> None:
    assert points(merged(one)) == points(one)
    assert points(subtract(merged(one), merged(other))) == points(one) - points(other)
    for extent in other:
        assert points(within(extent, one)) == points([extent]) & points(one)
    for result in (merged(one), subtract(merged(one), merged(other))):
        assert all(before.end <= after.offset for before, after in pairwise(result))


@given(some, st.lists(st.integers(1, 64), min_size=1))
def test_a_pool_gives_out_each_byte_once(extents: list[Extent], sizes: list[int]) -> None:
    pool = Pool()
    pool.put(merged(extents))
    given_out: list[Extent] = []
    while pool.bytes:
        size = sizes[len(given_out) % len(sizes)]
        piece = pool.take(size)
        assert 0 < piece.length <= size
        given_out.append(piece)
    assert pool.extents() == []
    assert points(given_out) == points(extents)
    assert sum(piece.length for piece in given_out) == len(points(extents))


def test_pieces_lie_at_multiples_of_their_size() -> None:
    pool = Pool()
    pool.put([Extent(3 * MIB, 20 * MIB)])
    pieces = [pool.take(5 * MIB) for _ in range(6)]
    assert [(piece.offset // MIB, piece.length // MIB) for piece in pieces] == [
        (3, 1), (4, 4), (8, 4), (12, 4), (16, 4), (20, 3),
    ]  # fmt: skip


def test_a_stream_that_brings_less_is_asked_for_less_and_all_of_them_for_less_in_the_end() -> None:
    alike = [piece_size(rest, MIB, 4 * MIB, 4) for rest in (2**30, 2**28, 2**26, 2**20)]
    assert alike == sorted(alike, reverse=True)
    assert (alike[0], alike[-1]) == (MAX_PIECE, MIN_PIECE)
    slow = piece_size(100 * MIB, 1 * MIB, 32 * MIB, 4)
    fast = piece_size(100 * MIB, 20 * MIB, 32 * MIB, 4)
    assert slow < fast
    assert piece_size(100 * MIB, 0, 0, 1) == MAX_PIECE, "who is alone need not leave anything to others"
