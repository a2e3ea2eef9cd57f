from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import IntegrityError, InternalError
from fsmux.files.manifest import Manifest
from fsmux.records import Extent, Identity

SIZE = 1000


@given(st.integers(0, 300), st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.integers(0, 299)), max_size=80))
def test_held_and_missing_partition_the_file(size: int, chunk_size: int, steps: list[tuple[bool, int]]) -> None:
    manifest = Manifest(Identity(size, 1, b"tag"), chunk_size)
    model: dict[int, int] = {}
    for add, index in steps:
        if index >= manifest.map.count:
            with pytest.raises(IndexError):
                manifest.add(index, 1)
        elif add:
            assert manifest.add(index, index) == (index not in model)
            model[index] = index
        else:
            assert manifest.drop(index) == (index in model)
            model.pop(index, None)
    held, missing = manifest.held(), manifest.missing()
    assert list(manifest.indices()) == sorted(model)
    assert sum(extent.length for extent in held) == manifest.bytes_held
    assert manifest.bytes_held == sum(manifest.map.length(index) for index in model)
    assert manifest.complete == (len(model) == manifest.map.count)
    both = sorted(held + missing)
    assert all(first.end == second.offset for first, second in pairwise(both))
    assert sum(extent.length for extent in both) == size
    for runs in (held, missing):  # merged: no two ranges touch
        assert all(first.end < second.offset for first, second in pairwise(runs))


def test_the_checksum_of_the_whole() -> None:
    data = bytes(range(256)) * 4
    manifest = Manifest(Identity(len(data), 1, b""), 300)
    for index in (3, 0, 2, 1):
        with pytest.raises(InternalError):
            manifest.crc32()
        extent = manifest.map.extent(index)
        manifest.add(index, zlib.crc32(data[extent.offset : extent.end]))
    assert manifest.crc32() == zlib.crc32(data)
    assert manifest.missing() == []
    assert manifest.held() == [Extent(0, len(data))]


def test_a_chunk_has_one_content() -> None:
    manifest = Manifest(Identity(SIZE, 1, b""), 100)
    manifest.add(3, 7)
    with pytest.raises(IntegrityError, match="chunk 3"):
        manifest.add(3, 8)
    assert manifest.crc_of(3) == 7
    assert manifest.crc_of(4) is None


def test_an_empty_file_is_complete() -> None:
    manifest = Manifest(Identity(0, 1, b""), 100)
    assert manifest.complete
    assert manifest.crc32() == 0
