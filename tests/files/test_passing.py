"""Digests of what passes are those of what stands, in whatever order it came, or there are none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from fsmux.columns import REGULAR, Group
from fsmux.errors import IntegrityError, NotFound, SourceChanged
from fsmux.files import passing
from fsmux.files.chunks import ChunkMap
from fsmux.files.contents import Contents
from fsmux.files.digestfile import Record, chunks_of
from fsmux.files.packing import read_pack
from fsmux.files.passing import ChunkDigests, NotingUnpacker, PackDigests
from fsmux.files.reading import Wanted, read_record
from fsmux.files.root import Root
from fsmux.limits import MIN_CHUNK_SIZE
from fsmux.mux.buffers import anonymous
from fsmux.records import Durability, Identity
from tests.files.test_sink import begin

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = MIN_CHUNK_SIZE


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    start, stop = sorted((draw(st.integers(0, 8)), draw(st.integers(0, 8))))
    return start, stop


@given(st.lists(ranges().filter(lambda part: part[0] < part[1]), max_size=14))
def test_a_digest_is_that_of_what_was_written_last(parts: list[tuple[int, int]]) -> None:
    """One chunk in eighths, written in any order and any number of times, each time with other bytes."""
    eighth = CHUNK // 8
    digests = ChunkDigests(CHUNK)
    digests.begin(Identity(CHUNK, 1, b""), ChunkMap(CHUNK, CHUNK))
    stands = bytearray(CHUNK)
    covered = [False] * 8
    for number, (start, stop) in enumerate(parts):
        data = bytes([number + 1]) * ((stop - start) * eighth)
        stands[start * eighth : stop * eighth] = data
        covered[start:stop] = [True] * (stop - start)
        cut = len(data) // 3
        digests.wrote([memoryview(data)[:cut], memoryview(data)[cut:]], start * eighth)
    assert digests._ahead <= passing.AHEAD_BYTES
    passed = digests._passed.get(0)
    assert passed is None or passed == xxhash.xxh3_128_digest(stands)
    once = sum(stop - start for start, stop in parts) == 8
    if all(covered) and once:
        assert passed is not None, "what came once came right, in whatever order"


def written(top: Path, name: str, size: int) -> tuple[bytes, Identity]:
    data = os.urandom(size)
    (top / name).write_bytes(data)
    os.utime(top / name, ns=(5, 5))
    return data, Identity(size, 5, b"tag")


def test_what_did_not_pass_is_read_and_counted(root: Root, top: Path) -> None:
    data, identity = written(top, "a", 5 * CHUNK + 7)
    digests = ChunkDigests(CHUNK)
    digests.begin(identity, ChunkMap(len(data), CHUNK))
    for index in (4, 0):
        chunk = data[index * CHUNK : (index + 1) * CHUNK]
        digests.wrote([memoryview(chunk)], index * CHUNK)
        digests.settled(index, zlib_ng.crc32(chunk))
    record = digests.record(root, (b"a",), zlib_ng.crc32(data))
    assert record == read_record(root, Wanted((b"a",), chunks_of(len(data), CHUNK)))
    assert digests.read == 3 * CHUNK + 7


def test_a_transfer_with_other_chunks_than_the_manifest_is_read_whole(root: Root, top: Path) -> None:
    data, identity = written(top, "a", 2 * CHUNK)
    digests = ChunkDigests(CHUNK)
    digests.begin(identity, ChunkMap(len(data), 2 * CHUNK))
    digests.wrote([memoryview(data)], 0)
    digests.settled(0, zlib_ng.crc32(data))
    assert len(digests.record(root, (b"a",), zlib_ng.crc32(data)).chunks) == 32
    assert digests.read == 2 * CHUNK


def test_a_file_that_was_changed_behind_the_transfer_gets_no_record(root: Root, top: Path) -> None:
    data, identity = written(top, "a", CHUNK)
    digests = ChunkDigests(CHUNK)
    with pytest.raises(SourceChanged):
        digests.record(root, (b"a",), 0)
    digests.begin(identity, ChunkMap(CHUNK, CHUNK))
    with pytest.raises(IntegrityError):
        digests.record(root, (b"a",), zlib_ng.crc32(data) ^ 1)
    os.utime(top / "a", ns=(6, 6))
    with pytest.raises(SourceChanged):
        digests.record(root, (b"a",), zlib_ng.crc32(data))
    (top / "a").unlink()
    with pytest.raises(NotFound):
        digests.record(root, (b"a",), zlib_ng.crc32(data))


def test_a_new_session_keeps_what_the_sink_still_holds(root: Root) -> None:
    digests = ChunkDigests(CHUNK)
    data = os.urandom(3 * CHUNK)
    views = [memoryview(data)[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    crcs = list(map(zlib_ng.crc32, views))
    with begin(root, data, (b"a",)) as sink:
        digests.attach(sink)
        for index in (0, 2):
            sink.write([views[index]], index * CHUNK)
            sink.received(index, crcs[index])
        sink.suspend()
    with begin(root, data, (b"a",)) as sink:
        digests.attach(sink)
        sink.write([views[1]], CHUNK)
        sink.received(1, crcs[1])
        sink.commit()
    record = digests.record(root, (b"a",), zlib_ng.crc32(data))
    assert digests.read == 0
    assert record.chunks == b"".join(map(xxhash.xxh3_128_digest, views))


def test_another_version_begins_with_nothing() -> None:
    digests = ChunkDigests(CHUNK)
    digests.begin(Identity(CHUNK, 1, b"one"), ChunkMap(CHUNK, CHUNK))
    digests.measured(0, 1, bytes(16))
    digests.begin(Identity(CHUNK, 1, b"one"), ChunkMap(CHUNK, CHUNK))
    assert digests._known
    digests.begin(Identity(CHUNK, 1, b"two"), ChunkMap(CHUNK, CHUNK))
    assert not digests._known


def test_a_chunk_that_is_not_what_is_expected_is_not_recorded(root: Root) -> None:
    data, other = os.urandom(2 * CHUNK), os.urandom(CHUNK)
    good, bad = xxhash.xxh3_128_digest(data[:CHUNK]), xxhash.xxh3_128_digest(other)
    expected = Record((b"a",), len(data), 0, 0, bytes(16), good + bad)
    with begin(root, data, (b"a",)) as sink:
        ChunkDigests(CHUNK, expected).attach(sink)
        for index in range(2):
            sink.write([memoryview(data)[index * CHUNK : (index + 1) * CHUNK]], index * CHUNK)
        sink.received(0, zlib_ng.crc32(data[:CHUNK]))
        with pytest.raises(IntegrityError, match="chunk 1"):
            sink.received(1, zlib_ng.crc32(data[CHUNK:]))
        assert sink.manifest.chunks_held == 1
        sink.discard()


def test_small_files_are_noted_as_they_are_read_and_written(root: Root, top: Path, tmp_path: Path) -> None:
    contents = {b"a": b"", b"b": b"bb", b"gone": b"x", b"z": os.urandom(MIN_CHUNK_SIZE + 1000)}
    names = sorted(contents)
    for name in names:
        (top / os.fsdecode(name)).write_bytes(contents[name])
    facts = [os.stat(top / os.fsdecode(name)) for name in names]
    (top / "gone").unlink()
    group = Group((), names, [one.st_size for one in facts], [one.st_mtime_ns for one in facts], [REGULAR | 0o644] * 4)
    read, wrote = PackDigests(MIN_CHUNK_SIZE), PackDigests(MIN_CHUNK_SIZE)
    data = read.read_pack(7, root, (), [group], anonymous)
    assert [index for index, _ in group.lost] == [2]
    pieces = {0: [b""], 1: [b"bb"], 3: [contents[b"z"][:MIN_CHUNK_SIZE], contents[b"z"][MIN_CHUNK_SIZE:]]}
    expected = {index: [xxhash.xxh3_128_digest(piece) for piece in found] for index, found in pieces.items()}
    (tmp_path / "new").mkdir()
    with Root.open(tmp_path / "new") as target:
        unpacker = NotingUnpacker(target, (), Durability.NONE, wrote)
        unpacker.write(7, [group], Contents([data]))
        assert unpacker.commit() == []
        unpacker.close()
        assert read_pack(target, (), [group.pick([0, 1, 3])], anonymous) == data
    assert read.take(7, 0) == wrote.take(7, 0) == expected
    assert read.take(7, 0) == {}, "nothing is kept of what was taken"
