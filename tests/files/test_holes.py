"""Holes: what they come to, where they are, and making them where the file system helps and where it does not."""

from __future__ import annotations

import errno
import os
import zlib
from typing import TYPE_CHECKING

import pytest
import xxhash

from fsmux.files import ranges
from fsmux.files.holes import Layout, Run, clear, is_hole, zeros_crc, zeros_digest
from fsmux.files.syscalls import Syscalls
from fsmux.limits import MIB
from fsmux.records import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIB = 1024


class Plain(Syscalls):
    """A file system that knows no holes."""

    def punch(self, fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    def seek_data(self, fd: int, offset: int) -> int:
        raise OSError(errno.EINVAL, "no")

    seek_hole = seek_data


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """1 MiB of data, 3 MiB of nothing, 4 KiB of data, and nothing up to 5 MiB."""
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 5 * MIB)
    os.pwrite(fd, os.urandom(MIB), 0)
    os.pwrite(fd, os.urandom(4 * KIB), 4 * MIB)
    os.fsync(fd)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("length", [1, 2, 511, 4096, 64 * KIB, MIB + 1, 3 * MIB])
def test_zeros_come_to_what_they_would_if_they_were_read(length: int) -> None:
    assert zeros_crc(length) == zlib.crc32(bytes(length))
    assert zeros_digest(length) == xxhash.xxh3_128_digest(bytes(length))


def test_runs_are_data_and_holes_in_order(fd: int) -> None:
    layout = Layout(Syscalls(), os.fstat(fd))
    assert list(layout.runs(fd, Extent(0, 5 * MIB))) == [
        Run(Extent(0, MIB), False),
        Run(Extent(MIB, 3 * MIB), True),
        Run(Extent(4 * MIB, 4 * KIB), False),
        Run(Extent(4 * MIB + 4 * KIB, MIB - 4 * KIB), True),
    ]
    assert list(layout.runs(fd, Extent(10, 100))) == [Run(Extent(10, 100), False)]
    assert list(layout.runs(fd, Extent(2 * MIB, MIB))) == [Run(Extent(2 * MIB, MIB), True)]
    assert list(layout.runs(fd, Extent(MIB - 5, 10))) == [
        Run(Extent(MIB - 5, 5), False), Run(Extent(MIB, 5), False),
    ], "a few bytes of a hole are not worth a word"  # fmt: skip


def test_where_nobody_knows_holes_all_is_data(fd: int) -> None:
    layout = Layout(Plain(), os.fstat(fd))
    assert list(layout.runs(fd, Extent(0, 5 * MIB))) == [Run(Extent(0, 5 * MIB), False)]
    assert not is_hole(Plain(), fd, 2 * MIB, MIB)
    assert ranges.crc32(Plain(), fd, 0, 5 * MIB) == ranges.crc32(Syscalls(), fd, 0, 5 * MIB)


def test_data_of_which_nobody_knows_the_end_is_no_hole(fd: int) -> None:
    """Whatever a file system answers: nothing that it has called data is taken for zeros."""

    class Endless(Syscalls):
        def seek_hole(self, fd: int, offset: int) -> int:
            raise OSError(errno.ENXIO, "no")

    layout = Layout(Endless(), os.fstat(fd))
    assert list(layout.runs(fd, Extent(2 * MIB, 3 * MIB))) == [
        Run(Extent(2 * MIB, 2 * MIB), True), Run(Extent(4 * MIB, MIB), False),
    ]  # fmt: skip


def test_what_lies_beyond_the_end_is_no_hole(fd: int) -> None:
    sys = Syscalls()
    assert is_hole(sys, fd, 4 * MIB + 4 * KIB, MIB - 4 * KIB)
    assert not is_hole(sys, fd, 4 * MIB + 4 * KIB, MIB)
    assert not is_hole(sys, fd, 6 * MIB, MIB)
    with pytest.raises(ranges.ShortFile):
        ranges.crc32(sys, fd, 4 * MIB + 4 * KIB, MIB)


@pytest.mark.parametrize("sys", [Syscalls(), Plain()], ids=["punched", "written"])
def test_clearing_leaves_zeros_and_nothing_else_changed(sys: Syscalls, fd: int) -> None:
    before = os.pread(fd, 5 * MIB, 0)
    clear(sys, fd, Extent(8 * KIB, MIB // 2), 6 * MIB)
    wanted = before[: 8 * KIB] + bytes(MIB // 2) + before[8 * KIB + MIB // 2 :] + bytes(MIB)
    assert os.pread(fd, 7 * MIB, 0) == wanted
    assert is_hole(Syscalls(), fd, 8 * KIB, MIB // 2) is (type(sys) is Syscalls)


def test_a_failing_disk_is_not_taken_for_one_without_holes(fd: int) -> None:
    class Failing(Syscalls):
        def punch(self, fd: int, offset: int, length: int) -> None:
            raise OSError(errno.EIO, "no")

    with pytest.raises(OSError, match="no"):
        clear(Failing(), fd, Extent(0, MIB), 5 * MIB)
