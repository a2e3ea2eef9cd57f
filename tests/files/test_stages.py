"""What may go wrong while directories are put together elsewhere, or are finished by what fills them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fsmux.columns import DIRECTORY, REGULAR, Act, Group, itself
from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls
from fsmux.files.unpacking import Unpacker
from fsmux.files.whole import POSSIBLE
from fsmux.limits import MAX_PATH_BYTES
from fsmux.records import Durability, Kept, Namespaces
from tests.files.groups import CONTENTS, NAMES, files, made, stands, write
from tests.sim import guards

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="only where it was measured")

FINISHED = (5, DIRECTORY | 0o755)


class Meddling(Syscalls):
    """Has something else done before the first call of that name."""

    def __init__(self, call: str, act: Callable[[], object]) -> None:
        self._call, self._act = call, act
        self.armed = False

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        if name.startswith("_") or name == "armed" or name != self._call or not self.armed:
            return found
        self.armed = False

        def call(*words: object) -> object:
            self._act()
            return found(*words)

        return call


def finish(group: Group) -> Group:
    group.finish = FINISHED
    return group


@pytest.mark.parametrize("durability", [Durability.NONE, Durability.FILE])
@pytest.mark.parametrize("by_group", [True, False])
def test_a_directory_that_lost_its_place_is_not_finished(top: Path, durability: Durability, by_group: bool) -> None:
    """Another one has taken it while files were written; what stands there is finished."""
    with Root.open(top) as theirs, closing(Unpacker(theirs, (), Durability.NONE)) as other:
        calls = Meddling("pwrite", other.commit)
        with Root.open(top, sys=calls) as root, closing(Unpacker(root, (), durability)) as unpacker:
            write(other, 1, made(b"d"))
            assert other.commit() == []
            write(other, 2, files())
            mine = files()
            mine.names = [b"mine" + name for name in mine.names]
            calls.armed = True
            if by_group:
                write(unpacker, 1, made(b"d"), finish(mine))
            else:
                write(unpacker, 1, made(b"d"), mine, itself((b"d",), *FINISHED, Act.ADJUST))
            assert unpacker.commit() == []
            assert not calls.armed
    assert stands(top / "d")
    assert len(os.listdir(top / "d")) == 2 * len(NAMES)
    assert (top / "d").stat().st_mtime_ns == 5


@pytest.mark.parametrize("later", ["link", "removal", "files"])
@pytest.mark.parametrize("by_group", [True, False])
def test_packs_that_are_committed_together_finish_a_directory_when_all_of_them_stand(
    top: Path, root: Root, later: str, by_group: bool
) -> None:
    more = files()
    more.names = [b"more" + name for name in more.names]
    second = {
        "link": Group((b"d",), [b"same"], [0], [0], [REGULAR | 0o640], [b"d/00"], Act.LINK),
        "removal": Group((b"d",), [b"00"], [0], [0], [REGULAR | 0o640], [], Act.REMOVE),
        "files": more,
    }[later]
    filling = [finish(files())] if by_group else [files(), itself((b"d",), *FINISHED, Act.ADJUST)]
    with closing(Unpacker(root, (), Durability.BATCH)) as unpacker:
        write(unpacker, 1, made(b"d"), *filling)
        write(unpacker, 2, second)
        assert unpacker.commit() == []
    assert (top / "d").stat().st_mtime_ns == 5
    assert len(os.listdir(top / "d")) == len(NAMES) + {"link": 1, "removal": -1, "files": len(NAMES)}[later]


def test_whatever_finishes_a_directory_is_done(top: Path, root: Root) -> None:
    """Two packs of one commit do; and both fail if there is none."""
    with closing(Unpacker(root, (), Durability.BATCH)) as unpacker:
        write(unpacker, 1, made(b"d"), itself((b"d",), 3, DIRECTORY | 0o700, Act.ADJUST, owner=1000 << 32 | 1000))
        write(unpacker, 2, finish(files()))
        write(unpacker, 3, itself((b"none",), *FINISHED, Act.ADJUST))
        write(unpacker, 4, itself((b"none",), *FINISHED, Act.ADJUST))
        assert sorted(failure[:3] for failure in unpacker.commit()) == [(3, 0, 0), (4, 0, 0)]
    facts = (top / "d").stat()
    assert (facts.st_mtime_ns, stat.S_IMODE(facts.st_mode)) == (5, 0o755)
    assert facts.st_uid == (1000 if os.geteuid() == 0 else os.geteuid())


def test_a_directory_may_be_named_twice(top: Path, root: Root) -> None:
    below = made(b"e")
    below.directory = (b"d",)
    deep = files()
    deep.directory = (b"d", b"e")
    with closing(Unpacker(root, (), Durability.NONE)) as unpacker:
        write(unpacker, 1, made(b"d"), below, files(), below, deep, contents=CONTENTS * 2)
        assert unpacker.commit() == []
    assert stands(top / "d")
    assert stands(top / "d/e")


def test_paths_may_be_as_long_as_anywhere(top: Path, root: Root) -> None:
    parts = [b"d"]
    while sum(map(len, parts)) + len(parts) < MAX_PATH_BYTES - 210:
        parts.append(b"x" * 200)
    parts.append(b"y" * (MAX_PATH_BYTES - sum(map(len, parts)) - len(parts) - 3))
    groups = [made(b"d")]
    for depth in range(1, len(parts)):
        groups.append(made(parts[depth]))
        groups[-1].directory = tuple(parts[:depth])
    groups.append(files())
    groups[-1].directory = tuple(parts)
    with closing(Unpacker(root, (), Durability.NONE)) as unpacker:
        write(unpacker, 1, *groups)
        assert unpacker.commit() == []
    fd = os.open(top / "d", os.O_RDONLY)
    for name in parts[1:]:
        fd, above = os.open(name, os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    assert sorted(map(os.fsencode, os.listdir(fd))) == NAMES
    os.close(fd)


class Failing(Syscalls):
    """The first file of 200 bytes loses most of them, and that is told when it is closed, or while it is written."""

    def __init__(self, call: str, stays: bool) -> None:
        self._call = call
        self._stays = stays
        self.armed = False

    def _lose(self, fd: int) -> bool:
        if not self.armed or not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        os.ftruncate(fd, 50)
        self.armed = False
        return True

    def close(self, fd: int) -> None:
        lost = self._call == "close" and self._lose(fd)
        super().close(fd)
        if lost:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        written = super().pwrite(fd, data, offset)
        if self._call == "pwrite" and self._lose(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return written

    def unlink(self, directory: int, name: bytes) -> None:
        if self._stays and name == b"00":
            self._stays = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().unlink(directory, name)


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("call", ["close", "pwrite"])
@pytest.mark.parametrize("fresh", [False, True])
def test_what_could_not_be_written_does_not_appear(top: Path, call: str, stays: bool, fresh: bool) -> None:
    if not fresh:
        (top / "d").mkdir()
    calls = Failing(call, stays)
    with Root.open(top, sys=calls) as root, closing(Unpacker(root, (), Durability.NONE)) as unpacker:
        write(unpacker, 1, made(b"d"))
        assert unpacker.commit() == []
        calls.armed = True
        write(unpacker, 2, files())
        assert [failure[:3] for failure in unpacker.commit()] == [(2, 0, 0)]
    assert sorted(map(os.fsencode, os.listdir(top / "d"))) == NAMES[1:]
    assert os.listdir(top) == ["d"]


def test_what_a_directory_is_refused_is_said_of_the_directory(top: Path) -> None:
    class Refusing(Syscalls):
        def removexattr(self, of: int | bytes, name: bytes) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (top / "d").mkdir()
    try:
        os.setxattr(top / "d", "user.x", b"1")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    kept = Kept(xattrs=Namespaces.USER)
    with Root.open(top, sys=Refusing()) as root, closing(Unpacker(root, (), Durability.NONE, kept)) as unpacker:
        write(unpacker, 1, finish(files()))
        assert [(*failure[:3], failure.stands) for failure in unpacker.commit()] == [(1, 0, len(NAMES), True)]


def test_what_failed_to_be_finished_is_not_finished_behind_its_report(top: Path) -> None:
    class Once(Syscalls):
        armed = True

        def futime(self, fd: int, mtime_ns: int) -> None:
            facts = os.fstat(fd)
            if self.armed and stat.S_ISDIR(facts.st_mode) and facts.st_ino != top.stat().st_ino:
                self.armed = False
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().futime(fd, mtime_ns)

    with Root.open(top, sys=Once()) as root, closing(Unpacker(root, (), Durability.NONE)) as unpacker:
        write(unpacker, 1, made(b"d"))
        unpacker.commit()
        write(unpacker, 2, finish(files()))
        (top / "d/theirs").touch()
        failed = [failure[:3] for failure in unpacker.commit()]
    assert failed == [(2, 0, len(NAMES))]
    assert (top / "d").stat().st_mtime_ns != 5


def test_directories_are_made_in_what_has_taken_the_place(top: Path) -> None:
    with Root.open(top) as theirs, closing(Unpacker(theirs, (), Durability.NONE)) as other:
        calls = Meddling("mkdir", other.commit)
        with Root.open(top, sys=calls) as root, closing(Unpacker(root, (), Durability.NONE)) as unpacker:
            write(other, 1, made(b"d"))
            assert other.commit() == []
            write(other, 2, files())
            below, deep = made(b"e"), files()
            below.directory, deep.directory = (b"d",), (b"d", b"e")
            calls.armed = True
            write(unpacker, 1, below, deep)
            assert unpacker.commit() == []
    assert stands(top / "d")
    assert stands(top / "d/e")


def test_a_file_of_its_own_stands_in_what_has_taken_the_place(top: Path) -> None:
    with Root.open(top) as theirs, closing(Unpacker(theirs, (), Durability.NONE)) as other:
        calls = Meddling("mkdir", other.commit)
        with Root.open(top, sys=calls) as root:
            write(other, 1, made(b"d"))
            assert other.commit() == []
            write(other, 2, files())
            with guards.start(root, (b"d", b"e", b"file"), guards.SMALL, Durability.NONE) as sink:
                guards.fill(sink, guards.SMALL)
                calls.armed = True
                assert sink.commit() is False
    assert (top / "d/e/file").read_bytes() == guards.SMALL
    assert stands(top / "d")


def test_flags_that_a_directory_inherits_are_not_lost(top: Path, root: Root) -> None:
    no_access_times = 0x80
    fd = os.open(top, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, 0x80086601, bytes(8))[:4])
        fcntl.ioctl(fd, 0x40086602, struct.pack("l", flags | no_access_times))
    except OSError:
        pytest.skip("the file system has no such flags")
    finally:
        os.close(fd)
    with closing(Unpacker(root, (), Durability.NONE)) as unpacker:
        write(unpacker, 1, made(b"other"))  # and with it the reserved directory, which gets the flag, too
        assert unpacker.commit() == []
        fd = os.open(top, os.O_RDONLY)
        fcntl.ioctl(fd, 0x40086602, struct.pack("l", flags))
        os.close(fd)
        write(unpacker, 2, made(b"d"))
        assert unpacker.commit() == []
        write(unpacker, 3, files())
        assert unpacker.commit() == []
    assert stands(top / "d")
    fd = os.open(top / "d", os.O_RDONLY)
    try:
        (found,) = struct.unpack("i", fcntl.ioctl(fd, 0x80086601, bytes(8))[:4])
    finally:
        os.close(fd)
    assert not found & no_access_times
