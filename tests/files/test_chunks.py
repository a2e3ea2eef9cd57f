from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import RefusedError
from fsmux.files import chunks
from fsmux.files.chunks import ChunkMap
from fsmux.limits import CHUNK_SIZE, MAX_CHUNK_SIZE, MAX_CHUNKS, MIN_CHUNK_SIZE
from fsmux.records import Extent


@given(st.integers(0, 10_000), st.integers(1, 1000))
def test_chunks_tile_the_file(size: int, chunk_size: int) -> None:
    cut = ChunkMap(size, chunk_size)
    offset = 0
    for index in range(cut.count):
        extent = cut.extent(index)
        assert extent.offset == offset
        assert 0 < extent.length <= chunk_size
        offset = extent.end
    assert offset == size
    for index in (-1, cut.count):
        with pytest.raises(IndexError):
            cut.extent(index)


@given(st.integers(1, 5000), st.integers(1, 700), st.data())
def test_chunks_of_a_range_are_those_it_touches(size: int, chunk_size: int, data: st.DataObject) -> None:
    cut = ChunkMap(size, chunk_size)
    offset = data.draw(st.integers(0, size))
    extent = Extent(offset, data.draw(st.integers(0, size - offset)))
    touched = [
        index
        for index in range(cut.count)
        if cut.extent(index).offset < extent.end and extent.offset < cut.extent(index).end and extent.length
    ]
    assert list(cut.chunks_of(extent)) == touched


@given(st.binary(max_size=500), st.integers(1, 100))
def test_checksums_of_chunks_make_the_checksum_of_the_file(data: bytes, chunk_size: int) -> None:
    cut = ChunkMap(len(data), chunk_size)
    crcs = [zlib.crc32(data[cut.extent(i).offset : cut.extent(i).end]) for i in range(cut.count)]
    assert cut.crc32(crcs) == zlib.crc32(data)
    split = len(data) // 3
    assert chunks.combine(zlib.crc32(data[:split]), zlib.crc32(data[split:]), len(data) - split) == zlib.crc32(data)
    assert chunks.crc32_of([data[:split], memoryview(data)[split:]]) == zlib.crc32(data)


@given(st.integers(0, MAX_CHUNKS * MAX_CHUNK_SIZE), st.integers(0, 2**40))
def test_the_chunk_size_is_in_range_and_makes_few_chunks(size: int, wanted: int) -> None:
    chosen = chunks.effective_chunk_size(size, wanted)
    assert MIN_CHUNK_SIZE <= chosen <= MAX_CHUNK_SIZE
    assert chosen & (chosen - 1) == 0
    assert ChunkMap(size, chosen).count <= MAX_CHUNKS


def test_the_chunk_size_that_is_wanted_is_taken_if_it_can_be() -> None:
    assert chunks.effective_chunk_size(10**9, CHUNK_SIZE) == CHUNK_SIZE
    assert chunks.effective_chunk_size(10**9, CHUNK_SIZE + 1) == CHUNK_SIZE
    with pytest.raises(RefusedError):
        chunks.effective_chunk_size(MAX_CHUNKS * MAX_CHUNK_SIZE + 1, CHUNK_SIZE)
