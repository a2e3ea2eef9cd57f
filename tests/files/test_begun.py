"""What a session had written of chunks that were not whole when it ended."""

from __future__ import annotations

import os
import random
import zlib
from typing import TYPE_CHECKING

import pytest
import xxhash

from fsmux.files.basis import BEGUN_LEAST, BEGUN_MOST, BEGUN_PIECE, BEGUN_PIECES, SHORTEST_PIECE, pieces_of_begun
from fsmux.files.manifest import Manifest
from fsmux.files.opening import open_sink
from fsmux.files.root import Root
from fsmux.limits import INITIAL_CREDIT, MIB
from fsmux.records import Extent, Identity
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.files.sink import Sink

CHUNK = 1 * MIB
DATA = random.Random(5).randbytes(9 * MIB + 777)
"""Of a size for which room is set aside."""
PIECE = CHUNK // BEGUN_PIECES


def begin(root: Root, data: bytes = DATA, **options: bool) -> Sink:
    identity = Identity(len(data), 1, zlib.crc32(data).to_bytes(16, "big"))
    return open_sink(root, (b"file",), identity, 0o640, CHUNK, owner=b"me", **options)


def write(sink: Sink, start: int, stop: int, data: bytes = DATA) -> None:
    sink.write((memoryview(data)[start:stop],), start)


def equal(sink: Sink, data: bytes = DATA) -> list[Extent]:
    """What of the earlier session would be kept, in adjacent ranges."""
    found: list[Extent] = []
    for offset, length, digest in sink.basis_digests():
        assert offset // CHUNK == (offset + length - 1) // CHUNK
        if xxhash.xxh3_128_digest(data[offset : offset + length]) == digest:
            assert sink.copy_from_basis(Extent(offset, length)) == zlib.crc32(data[offset : offset + length])
            if found and found[-1].end == offset:
                offset, length = found[-1].offset, found.pop().length + length
            found.append(Extent(offset, length))
    return found


@pytest.mark.parametrize("ending", ["suspend", "close", "kill"])
def test_all_but_the_end_is_still_there(root: Root, top: Path, ending: str) -> None:
    sink = begin(root)
    write(sink, 0, CHUNK)
    sink.received(0, zlib.crc32(DATA[:CHUNK]))
    write(sink, CHUNK, CHUNK + 8 * PIECE + 5000)
    write(sink, 4 * CHUNK + 4 * PIECE, 5 * CHUNK)
    write(sink, 9 * MIB, len(DATA))
    if ending == "kill":
        sink.flush_records()
        sink.place.part.close()
        assert sink.place.journal is not None
        sink.place.journal.close()
        sink.pin.release()
    else:
        getattr(sink, ending)()
    sink = begin(root)
    assert list(sink.manifest.indices()) == [0]
    assert equal(sink) == [
        Extent(CHUNK, 8 * PIECE),
        Extent(4 * CHUNK + 4 * PIECE, 12 * PIECE),
        Extent(9 * MIB, 777),
    ]
    for index in range(1, sink.manifest.map.count):
        extent = sink.manifest.map.extent(index)
        write(sink, extent.offset, extent.end)
        sink.received(index, zlib.crc32(DATA[extent.offset : extent.end]))
    sink.commit()
    assert (top / "file").read_bytes() == DATA
    assert os.listdir(top) == ["file"]


def test_a_session_that_had_no_whole_chunk_leaves_what_is_worth_it(root: Root, top: Path) -> None:
    sink = begin(root)
    write(sink, 1, BEGUN_LEAST)
    sink.suspend()
    assert os.listdir(top) == []
    sink = begin(root)
    write(sink, 0, BEGUN_LEAST)
    sink.suspend()
    begin(root).suspend()  # one in which nothing comes takes nothing away
    sink = begin(root)
    assert equal(sink) == [Extent(0, BEGUN_LEAST)]
    sink.suspend()
    sink = begin(root, resume=False)
    assert sink.basis is None
    sink.discard()
    assert os.listdir(top) == []


def test_what_was_damaged_since_is_not_kept(root: Root, top: Path) -> None:
    sink = begin(root)
    write(sink, 0, CHUNK - 1)
    sink.suspend()
    with next(top.glob(".fsmux/*.part")).open("r+b") as part:
        part.seek(4 * PIECE)
        part.write(bytes([DATA[4 * PIECE] ^ 1]))
    with begin(root) as sink:
        assert equal(sink) == [Extent(0, 4 * PIECE), Extent(5 * PIECE, 10 * PIECE)]


def test_what_was_begun_of_another_version(root: Root, top: Path) -> None:
    """Of a source that has grown, and of one that has become shorter."""
    sink = begin(root)
    write(sink, 2 * CHUNK, 3 * CHUNK - 1000)
    sink.suspend()
    grown = DATA + b"more"
    sink = begin(root, grown)
    assert equal(sink, grown) == [Extent(2 * CHUNK, 15 * PIECE)]
    sink.suspend()
    shorter = DATA[: 2 * CHUNK + 2000]
    sink = begin(root, shorter)
    assert equal(sink, shorter) == [Extent(2 * CHUNK, 2000)]
    for index in range(2):
        write(sink, index * CHUNK, (index + 1) * CHUNK)
        sink.received(index, zlib.crc32(DATA[index * CHUNK : (index + 1) * CHUNK]))
    sink.received(2, zlib.crc32(shorter[2 * CHUNK :]))
    sink.commit()
    assert (top / "file").read_bytes() == shorter


def test_where_nothing_tells_what_was_written_some_of_it_is_compared(top: Path) -> None:
    class Untold(Faulty):
        def seek_data(self, fd: int, offset: int) -> int:
            return offset

        def seek_hole(self, fd: int, offset: int) -> int:
            return self.fstat(fd).st_size

    with Root.open(top, sys=Untold()) as root:
        sink = begin(root)
        write(sink, 0, CHUNK - 5)
        sink.suspend()
        sink = begin(root)
        assert equal(sink) == [Extent(0, CHUNK - BEGUN_PIECE)]
        sink.discard()
    with (top / "big").open("w+b") as file:
        size = 2 * BEGUN_MOST * BEGUN_PIECE
        file.truncate(size)
        manifest = Manifest(Identity(size, 0, b""), CHUNK)
        pieces = pieces_of_begun(Untold(), file.fileno(), manifest, manifest, None)
        assert sum(piece.extent.length for piece in pieces) == BEGUN_MOST * BEGUN_PIECE
        assert pieces_of_begun(Faulty(), file.fileno(), manifest, manifest, None) == []


SMALL = DATA[: CHUNK - 99]


def test_what_came_of_a_file_of_one_chunk(root: Root, top: Path) -> None:
    """However little that is, most of it is kept; and nobody else has it."""
    sink = begin(root, SMALL)
    write(sink, 0, BEGUN_LEAST + 100)
    sink.suspend()
    assert sorted(os.path.splitext(name)[1] for name in os.listdir(top / ".fsmux")) == [".journal", ".part"]
    other = open_sink(root, (b"file",), sink.identity, 0o640, CHUNK, owner=b"somebody else")
    assert other.basis is None
    other.discard()
    sink = begin(root, SMALL)
    assert equal(sink, SMALL) == [Extent(0, BEGUN_LEAST + 100)]
    with begin(root, SMALL) as beside:  # who has what is left of it does not keep others off, who have nothing
        assert beside.basis is None
        write(beside, 0, 2 * BEGUN_LEAST)
    write(sink, BEGUN_LEAST + 100, len(SMALL))
    sink.suspend()
    sink = begin(root, SMALL)
    assert sum(extent.length for extent in equal(sink, SMALL)) == len(SMALL)
    sink.received(0, zlib.crc32(SMALL))
    sink.commit()
    assert (top / "file").read_bytes() == SMALL
    assert os.listdir(top) == ["file"]


def test_nothing_is_lost_between_the_last_byte_and_the_commit(root: Root, top: Path) -> None:
    sink = begin(root, SMALL)
    write(sink, 0, len(SMALL))
    sink.received(0, zlib.crc32(SMALL))
    sink.suspend()
    sink = begin(root, SMALL)
    assert equal(sink, SMALL) == [Extent(0, len(SMALL))]
    sink.discard()


def test_nothing_is_kept_of_what_nobody_would_ask_for(root: Root, top: Path) -> None:
    short = DATA[:INITIAL_CREDIT]
    sink = begin(root, short)
    write(sink, 0, len(short))
    sink.suspend()
    assert os.listdir(top) == []


def left_by(root: Root, kind: str) -> None:
    """What another session has left meanwhile of the file of one chunk."""
    if kind == "more":
        sink = begin(root, SMALL)
        write(sink, 0, 5 * BEGUN_LEAST)
    elif kind == "another version":
        sink = begin(root, SMALL[:-1])
        write(sink, 0, BEGUN_LEAST)
    else:
        sink = begin(root, DATA)
        write(sink, 0, CHUNK)
        sink.received(0, zlib.crc32(DATA[:CHUNK]))
    sink.suspend()


@pytest.mark.parametrize("kind", ["more", "another version", "chunks"])
def test_a_session_that_is_found_dead_late_takes_nothing_from_later_ones(root: Root, top: Path, kind: str) -> None:
    dead = begin(root, SMALL)
    write(dead, 0, 3 * BEGUN_LEAST)
    left_by(root, kind)
    before = {
        path.name: path.read_bytes() for path in (top / ".fsmux").iterdir() if path.suffix in (".journal", ".part")
    }
    assert len(before) == 2
    dead.suspend()
    assert {path.name: path.read_bytes() for path in (top / ".fsmux").iterdir()} == before


def test_a_session_that_is_found_dead_late_leaves_nothing_beside_the_file(root: Root, top: Path) -> None:
    dead = begin(root, SMALL)
    write(dead, 0, 3 * BEGUN_LEAST)
    sink = begin(root, SMALL)
    write(sink, 0, len(SMALL))
    sink.received(0, zlib.crc32(SMALL))
    sink.commit()
    dead.suspend()
    assert os.listdir(top) == ["file"]


@pytest.mark.parametrize("size", [0, 1, SHORTEST_PIECE + 1, CHUNK])
def test_the_source_is_a_short_file_now(root: Root, top: Path, size: int) -> None:
    sink = begin(root)
    write(sink, 0, CHUNK)
    sink.received(0, zlib.crc32(DATA[:CHUNK]))
    sink.suspend()
    data = DATA[:size]
    sink = begin(root, data)
    assert sum(extent.length for extent in equal(sink, data)) == size
    if size:
        sink.received(0, zlib.crc32(data))
    sink.commit()
    assert (top / "file").read_bytes() == data
    assert os.listdir(top) == ["file"]


def test_two_sessions_of_a_file_of_one_chunk_end_early(root: Root, top: Path) -> None:
    """The later one has the place; while that is in use, what an earlier one has is not kept."""
    sinks = [begin(root, SMALL) for _ in range(3)]
    for count, sink in enumerate(sinks, 2):
        write(sink, 0, count * BEGUN_LEAST)
    sinks[0].suspend()
    sinks[1].suspend()
    sink = begin(root, SMALL)
    assert equal(sink, SMALL) == [Extent(0, 3 * BEGUN_LEAST)]
    sinks[2].suspend()
    assert len(list(top.glob(".fsmux/*.part"))) == 1
    sink.discard()
    assert os.listdir(top) == []


def test_what_cannot_be_kept_is_removed(top: Path) -> None:
    """Whichever call fails at the end of a session: nothing is left, or all that a later one needs."""
    names = {"openat", "lock", "stat", "fstat", "ftruncate", "fdatasync", "preadv", "pwritev", "rename"}
    for number in range(1, 40):
        sys = Faulty(only=names)
        with Root.open(top, sys=sys) as root:
            sink = begin(root, SMALL)
            write(sink, 0, 3 * BEGUN_LEAST)
            sys.fail_at = len(sys.calls) + number
            sink.suspend()
            failed, sys.fail_at = sys.failed, 0
            sink = begin(root, SMALL)
            found = equal(sink, SMALL)
            assert found in ([], [Extent(0, 3 * BEGUN_LEAST)]), failed
            sink.discard()
        assert os.listdir(top) == [], failed
        if not failed:
            break
    else:
        raise AssertionError("the calls of the end were not all tried")
