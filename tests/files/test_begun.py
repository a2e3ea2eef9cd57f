"""What a session had written of chunks that were not whole when it ended."""

from __future__ import annotations

import os
import random
import zlib
from typing import TYPE_CHECKING

import pytest
import xxhash

from fsmux.files.basis import BEGUN_BYTES, BEGUN_PIECE, pieces_of_begun
from fsmux.files.manifest import Manifest
from fsmux.files.opening import open_sink
from fsmux.files.root import Root
from fsmux.limits import MIB
from fsmux.records import Extent, Identity
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.files.sink import Sink

CHUNK = 1 * MIB
DATA = random.Random(5).randbytes(9 * MIB + 777)
"""Of a size for which room is set aside."""


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
    write(sink, CHUNK, CHUNK + 2 * BEGUN_PIECE + 5000)
    write(sink, 4 * CHUNK + BEGUN_PIECE, 5 * CHUNK)
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
        Extent(CHUNK, 2 * BEGUN_PIECE),
        Extent(4 * CHUNK + BEGUN_PIECE, CHUNK - BEGUN_PIECE),
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
    write(sink, 1, BEGUN_PIECE)
    sink.suspend()
    assert os.listdir(top) == []
    sink = begin(root)
    write(sink, 0, BEGUN_PIECE)
    sink.suspend()
    begin(root).suspend()  # one in which nothing comes takes nothing away
    sink = begin(root)
    assert equal(sink) == [Extent(0, BEGUN_PIECE)]
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
        part.seek(BEGUN_PIECE)
        part.write(bytes([DATA[BEGUN_PIECE] ^ 1]))
    with begin(root) as sink:
        assert equal(sink) == [Extent(0, BEGUN_PIECE), Extent(2 * BEGUN_PIECE, BEGUN_PIECE)]


def test_what_was_begun_of_another_version(root: Root, top: Path) -> None:
    """Of a source that has grown, and of one that has become shorter."""
    sink = begin(root)
    write(sink, 2 * CHUNK, 3 * CHUNK - 1000)
    sink.suspend()
    grown = DATA + b"more"
    sink = begin(root, grown)
    assert equal(sink, grown) == [Extent(2 * CHUNK, 3 * BEGUN_PIECE)]
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
        write(sink, 0, BEGUN_PIECE)
        sink.suspend()
        sink = begin(root)
        assert equal(sink) == [Extent(0, BEGUN_PIECE)]
        sink.discard()
    big = top / "big"
    with big.open("w+b") as file:
        size = 2 * BEGUN_BYTES
        file.truncate(size)
        manifest = Manifest(Identity(size, 0, b""), CHUNK)
        pieces = pieces_of_begun(Untold(), file.fileno(), manifest, manifest, None)
        assert sum(piece.extent.length for piece in pieces) == BEGUN_BYTES
        assert pieces_of_begun(Faulty(), file.fileno(), manifest, manifest, None) == []
