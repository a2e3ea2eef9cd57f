"""The simulated disk keeps what it must, loses what it may, and is otherwise a disk like any other."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

import pytest

from fsmux.files.syscalls import OPEN_CREATE, OPEN_DIRECTORY, OPEN_EXCLUSIVE, OPEN_READ, real
from tests.sim.choices import Chooser, Scripted, choosers
from tests.sim.device import BLOCK, Device
from tests.sim.syscalls import SHORT, SimSyscalls

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.files.syscalls import Syscalls

NOTHING = Chooser(random.Random(0), 0.0, 0.0)
EVERYTHING = Chooser(random.Random(0), 1.0, 1.0)


class Sight:
    """A device, a process, and the top directory open in it."""

    def __init__(self) -> None:
        self.device = Device()
        self.sys = SimSyscalls(self.device)
        self.top = self.sys.open_root("")

    def made(self, name: bytes = b"name", data: bytes = b"data") -> int:
        fd = self.sys.openat(self.top, name, OPEN_CREATE)
        self.sys.pwrite(fd, data, 0)
        return fd

    def outcomes(self) -> set[tuple[tuple[bytes, bytes], ...]]:
        """Everything that a power cut may leave: names and contents."""
        found = set()
        for chooser in choosers(2, 10**6, random.Random(0)):
            left = self.device.crash(chooser)
            found.add(tuple(sorted((name, bytes(inode.stable)) for name, inode in left.root.entries.items())))
        return found


def test_unsynced_bytes_sizes_and_names_are_there_or_not() -> None:
    sight = Sight()
    fd = sight.made()
    assert sight.outcomes() == {(), ((b"name", b""),), ((b"name", b"\0\0\0\0"),), ((b"name", b"data"),)}
    sight.sys.fsync(sight.top)
    assert sight.outcomes() == {((b"name", b""),), ((b"name", b"\0\0\0\0"),), ((b"name", b"data"),)}
    sight.sys.fdatasync(fd)
    assert sight.outcomes() == {((b"name", b"data"),)}


def test_each_piece_of_a_write_is_lost_by_itself() -> None:
    sight = Sight()
    fd = sight.made(data=bytes(2 * BLOCK))
    sight.sys.fsync(fd)
    sight.sys.fsync(sight.top)
    sight.sys.pwrite(fd, b"a" * BLOCK + b"b" * BLOCK, 0)
    seen = {(content[0:1], content[-1:]) for ((_, content),) in sight.outcomes()}
    assert seen == {(b"\0", b"\0"), (b"a", b"\0"), (b"\0", b"b"), (b"a", b"b")}


def test_a_rename_never_loses_the_file() -> None:
    sight = Sight()
    fd = sight.made(b"old")
    sight.sys.fsync(fd)
    sight.sys.fsync(sight.top)
    sight.sys.rename(sight.top, b"old", sight.top, b"new")
    file = b"data"
    assert sight.outcomes() == {
        ((b"old", file),),
        ((b"new", file), (b"old", file)),
        ((b"new", file),),
    }
    sight.sys.fsync(sight.top)
    assert sight.outcomes() == {((b"new", file),)}


def test_a_directory_never_has_two_names() -> None:
    sight = Sight()
    sight.sys.mkdir(sight.top, b"old", 0o700)
    sight.sys.fsync(sight.top)
    sight.sys.rename(sight.top, b"old", sight.top, b"new")
    assert {tuple(name for name, _ in names) for names in sight.outcomes()} == {(b"old",), (b"new",)}


def test_a_number_is_used_again_only_when_its_name_is_gone() -> None:
    sight = Sight()
    fd = sight.made(b"old", b"old")
    number = sight.sys.fstat(fd).st_ino
    for each in (fd, sight.top):
        sight.sys.fsync(each)
    sight.sys.close(fd)
    sight.sys.unlink(sight.top, b"old")
    fd = sight.made(b"new", b"new")
    assert sight.sys.fstat(fd).st_ino == number
    assert not any(len(names) > 1 for names in sight.outcomes())


def test_a_failed_sync_drops_the_pages_and_calls_them_clean() -> None:
    sight = Sight()
    fd = sight.made(data=b"good")
    sight.sys.fsync(fd)
    sight.sys.pwrite(fd, b"lost", 0)
    sight.sys.fault = lambda name: errno.EIO if name == "fsync" else 0
    with pytest.raises(OSError, match="error"):
        sight.sys.fsync(fd)
    sight.sys.fault = lambda name: 0
    sight.sys.fsync(fd)
    assert sight.sys.pread(fd, 4, 0) == b"lost"
    sight.sys.drop_cache(fd)
    assert sight.sys.pread(fd, 4, 0) == b"good"


def test_a_lost_write_is_told_once_to_each_file_that_is_open_and_once_to_the_next() -> None:
    sight = Sight()
    first, second = sight.made(), sight.sys.openat(sight.top, b"name", OPEN_READ)
    sight.device.fail_writeback(sight.device.root.entries[b"name"])
    late = sight.sys.openat(sight.top, b"name", OPEN_READ)
    for fd in (first, second, late):
        with pytest.raises(OSError, match="error"):
            sight.sys.fsync(fd)
        sight.sys.fsync(fd)
    sight.sys.fsync(sight.sys.openat(sight.top, b"name", OPEN_READ))


def test_a_killed_process_loses_nothing_but_its_locks() -> None:
    sight = Sight()
    fd = sight.made()
    sight.sys.lock(fd)
    with pytest.raises(BlockingIOError):
        sight.sys.lock(sight.sys.openat(sight.top, b"name", OPEN_READ))
    after = SimSyscalls(sight.device.fork())
    fd = after.openat(after.open_root(""), b"name", OPEN_READ)
    after.lock(fd)
    assert after.pread(fd, 9, 0) == b"data"
    sight.sys.pwrite(sight.made(b"other"), b"late", 0)
    assert set(after.device.root.entries) == {b"name"}
    assert set(after.device.crash(NOTHING).root.entries) == set()
    assert set(after.device.crash(EVERYTHING).root.entries) == {b"name"}


def test_a_descriptor_is_the_lowest_free_number() -> None:
    sight = Sight()
    fd = sight.made(b"one")
    sight.sys.close(fd)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        sight.sys.fstat(fd)
    assert sight.made(b"two") == fd


def test_half_of_it_is_written_or_read_when_that_is_the_fault() -> None:
    sight = Sight()
    fd = sight.made(data=bytes(10))
    sight.sys.fault = lambda name: SHORT
    assert sight.sys.pwrite(fd, bytes(10), 0) == 5
    assert sight.sys.preadv(fd, [memoryview(bytearray(8))], 0) == 4


def test_scripts_go_through_all_answers() -> None:
    found = []
    script: list[int] | None = []
    while script is not None:
        chooser = Scripted(script)
        found.append((chooser.keep(), chooser.upto(2)))
        script = chooser.following()
    assert found == [(kept, count) for kept in (False, True) for count in range(3)]


def _errors(sys: Syscalls, top: int) -> list[object]:
    """What a row of calls comes to, in a form that can be compared."""

    def tried(method: str, *args: object) -> object:
        try:
            result = getattr(sys, method)(*args)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return result if isinstance(result, int) and result < 1000 and method != "openat" else "ok"

    fd = sys.openat(top, b"file", OPEN_EXCLUSIVE)
    sys.mkdir(top, b"dir", 0o755)
    below = sys.openat(top, b"dir", OPEN_DIRECTORY)
    found = [
        tried("openat", top, b"file", OPEN_EXCLUSIVE),
        tried("openat", top, b"none", OPEN_READ),
        tried("openat", top, b"file", OPEN_DIRECTORY),
        tried("mkdir", top, b"dir", 0o755),
        tried("rmdir", top, b"file"),
        tried("unlink", top, b"none"),
        tried("pwritev", fd, (memoryview(b"12"), memoryview(b"345")), 3),
        sys.fstat(fd).st_size,
        tried("preadv", fd, (memoryview(bytearray(100)),), 2),
        tried("preadv", fd, (memoryview(bytearray(100)),), 99),
        tried("ftruncate", fd, 4),
        sys.pread(fd, 100, 0),
        tried("rename", top, b"file", below, b"moved"),
        tried("rmdir", top, b"dir"),
        tried("rename_new", below, b"moved", below, b"moved"),
        tried("unlink", below, b"moved"),
        sys.fstat(fd).st_nlink,
        tried("rmdir", top, b"dir"),
        tried("openat", below, b"late", OPEN_EXCLUSIVE),
        tried("mkdir", below, b"late", 0o755),
        tried("symlink", b"nowhere", top, b"link"),
        tried("openat", top, b"link", OPEN_READ),
        sys.readlink(top, b"link"),
        tried("lock", fd),
    ]
    for each in (below, fd, top):
        sys.close(each)
    found.append(tried("close", fd))
    return found


def test_it_answers_as_the_kernel_does(tmp_path: Path) -> None:
    simulated = SimSyscalls(Device())
    assert _errors(simulated, simulated.open_root("")) == _errors(real, real.open_root(tmp_path))
