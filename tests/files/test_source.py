from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import pytest
import xxhash

from fsmux.errors import AccessError, Busy, SourceChanged
from fsmux.files.chunks import ChunkMap
from fsmux.files.handle import Handle
from fsmux.files.ranges import PIECE
from fsmux.files.root import Root
from fsmux.files.source import Source
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from pathlib import Path

DATA = os.urandom(3 * PIECE + 12345)
CHUNK = 64 * 1024


@pytest.fixture
def path(top: Path) -> Path:
    file = top / "file"
    file.write_bytes(DATA)
    file.chmod(0o640)
    return file


@pytest.mark.parametrize("short", [0, 1000])
def test_bytes_and_checksums(top: Path, path: Path, short: int) -> None:
    with Root.open(top, sys=Faulty(short=short)) as root, Source.open(root, (b"file",)) as source:
        assert source.identity.size == len(DATA)
        assert source.mode == 0o640
        buffer = memoryview(bytearray(5000))
        assert source.read_into(buffer, 777) == 5000
        assert buffer == DATA[777:5777]
        assert source.read_into(buffer, len(DATA) - 10) == 10
        assert source.read_into(buffer, len(DATA) + 10) == 0
        cut = ChunkMap(len(DATA), CHUNK)
        for index in (0, 1, cut.count - 1):
            extent = cut.extent(index)
            assert source.chunk_crc(index, CHUNK) == zlib.crc32(DATA[extent.offset : extent.end])
        assert source.range_digest(5, PIECE + 7) == xxhash.xxh3_128_digest(DATA[5 : PIECE + 12])
        assert source.range_digest(5, len(DATA)) == b""
        source.check_unchanged()


def test_a_long_read_can_be_stopped(root: Root, path: Path) -> None:
    class Stopped(Exception):
        pass

    def poll() -> None:
        raise Stopped

    with Source.open(root, (b"file",)) as source:
        with pytest.raises(Stopped):
            source.range_crc(0, len(DATA), poll)
        with pytest.raises(Stopped):
            source.range_digest(0, len(DATA), poll)
        assert source.lease.users == 0


def test_a_file_that_is_replaced_does_not_matter(root: Root, path: Path) -> None:
    with Source.open(root, (b"file",)) as source:
        os.link(path, path.with_name("kept"))
        identity = source.identity
    with Source.open(root, (b"file",)) as source:
        assert source.identity != identity  # a link more changed its ctime
        path.with_name("new").write_bytes(b"other")
        os.rename(path.with_name("new"), path)
        buffer = memoryview(bytearray(100))
        assert source.read_into(buffer, 0) == 100
        assert buffer == DATA[:100]


def test_a_file_that_is_written_to_is_noticed(root: Root, path: Path) -> None:
    with Source.open(root, (b"file",)) as source:
        facts = path.stat()
        with path.open("r+b") as file:
            file.write(b"x")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # the ctime tells
        with pytest.raises(SourceChanged, match="file: it changed"):
            source.check_unchanged()
    with Source.open(root, (b"file",)) as other:
        assert other.identity.size == source.identity.size
        assert other.identity.mtime_ns == source.identity.mtime_ns
        assert other.identity != source.identity


def test_a_file_that_shrinks_is_noticed_while_it_is_read(root: Root, path: Path) -> None:
    with Source.open(root, (b"file",)) as source:
        os.truncate(path, 100)
        buffer = memoryview(bytearray(200))
        for read in (
            lambda: source.read_into(buffer, 0),
            lambda: source.chunk_crc(0, CHUNK),
            lambda: source.range_digest(0, 200),
        ):
            with pytest.raises(SourceChanged):
                read()


def test_a_closed_source(root: Root, path: Path) -> None:
    source = Source.open(root, (b"file",))
    source.close()
    source.close()
    with pytest.raises(Busy):
        source.check_unchanged()


@pytest.mark.parametrize("short", [0, 3])
def test_random_access(top: Path, short: int) -> None:
    with Root.open(top, sys=Faulty(short=short)) as root:
        with Handle.open(root, (b"new",), create=True) as handle:
            assert handle.write((memoryview(b"abc"), memoryview(b"defgh")), 2) == 8
            handle.sync()
            assert handle.size() == 10
            buffer = memoryview(bytearray(20))
            assert handle.read_into(buffer, 0) == 10
            assert bytes(buffer[:10]) == b"\0\0abcdefgh"
            assert handle.crc32([buffer[:10]]) == zlib.crc32(b"\0\0abcdefgh")
        with Handle.open(root, (b"new",)) as handle, pytest.raises(AccessError):
            handle.write((memoryview(b"x"),), 0)
        with Handle.open(root, (b"new",), truncate=True) as handle:
            assert handle.size() == 0


def test_more_buffers_than_one_call_takes(root: Root, top: Path) -> None:
    views = [memoryview(bytes([index % 256])) for index in range(3000)]
    with Handle.open(root, (b"new",), create=True) as handle:
        assert handle.write(views, 0) == 3000
    assert (top / "new").read_bytes() == b"".join(views)
