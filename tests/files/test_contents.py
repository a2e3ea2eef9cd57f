"""Contents of packs in buffers that end anywhere."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fsmux.files.contents import Contents

SOME = bytes(range(200))
cuts = st.lists(st.integers(0, len(SOME)), max_size=8).map(lambda at: [0, *sorted(at), len(SOME)])


@given(cuts, st.lists(st.tuples(st.integers(0, 220), st.integers(0, 220)), max_size=20))
def test_whatever_is_taken_is_what_the_joined_buffers_have(at: list[int], asked: list[tuple[int, int]]) -> None:
    contents = Contents([memoryview(SOME)[start:end] for start, end in pairwise(at)])
    for offset, size in asked:
        assert bytes(contents.take(offset, size)) == SOME[offset : offset + size]


def test_what_lies_in_one_buffer_is_a_view_of_it() -> None:
    first, second = memoryview(bytearray(b"one")), memoryview(bytearray(b"another"))
    contents = Contents([first, second])
    found = [contents.take(offset, 2) for offset in (0, 3, 8)]
    first[0], second[0], second[5] = b"ONE"
    assert list(map(bytes, found)) == [b"On", b"Nn", b"Er"]
