"""Extended attributes of one file: what is read, what is set, what stays."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from fsmux.errors import NoSpace
from fsmux.files.attributes import read_xattrs, read_xattrs_at, set_xattrs, settable
from fsmux.files.syscalls import Syscalls, real
from fsmux.limits import MAX_XATTRS, XATTR_COST
from fsmux.records import Namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL, USER = Namespaces.ALL, Namespaces.USER
FULL = MAX_XATTRS - XATTR_COST - len(b"user.a")


class Kernel(Syscalls):
    """Keeps the attributes of one file in memory, as a kernel does, and takes them from whom it lets write."""

    def __init__(self, **found: bytes) -> None:
        self.found = {name.replace("_", ".").encode(): value for name, value in found.items()}
        self.mode = 0o640
        self.refused: dict[bytes, int] = {}
        self.calls: list[str] = []

    def listxattr(self, of: int | bytes) -> list[bytes]:
        return list(self.found)

    def getxattr(self, of: int | bytes, name: bytes) -> bytes:
        if name not in self.found:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return self.found[name]

    def _check(self, call: str, name: bytes) -> None:
        self.calls.append(call)
        number = self.refused.get(name, 0 if self.mode & 0o200 else errno.EACCES)
        if number:
            raise OSError(number, os.strerror(number))

    def setxattr(self, of: int | bytes, name: bytes, value: bytes) -> None:
        self._check("set", name)
        self.found[name] = value

    def removexattr(self, of: int | bytes, name: bytes) -> None:
        self._check("remove", name)
        del self.found[name]

    def fstat(self, fd: int) -> os.stat_result:
        return os.stat_result((0o100000 | self.mode, *[0] * 9))

    def fchmod(self, fd: int, mode: int) -> None:
        self.mode = mode

    def euid(self) -> int:
        return 1000


def test_what_is_read_is_in_order_and_in_its_namespaces() -> None:
    kernel = Kernel(user_b=b"2", trusted_c=b"3", user_a=b"", security_d=b"4", system_e=b"5")
    assert read_xattrs(kernel, 0, USER) == ((b"user.a", b""), (b"user.b", b"2"))
    assert read_xattrs(kernel, 0, ALL) == ((b"trusted.c", b"3"), (b"user.a", b""), (b"user.b", b"2"))
    assert read_xattrs(kernel, 0, Namespaces.NONE) == ()


def test_what_is_too_much_is_not_known() -> None:
    assert read_xattrs(Kernel(user_a=bytes(FULL)), 0, USER) == ((b"user.a", bytes(FULL)),)
    assert read_xattrs(Kernel(user_a=bytes(FULL + 1)), 0, USER) is None
    assert read_xattrs(Kernel(user_a=bytes(FULL), trusted_b=b""), 0, USER) is not None
    assert read_xattrs(Kernel(user_a=bytes(FULL), trusted_b=b""), 0, ALL) is None


def test_one_that_is_removed_meanwhile_is_none() -> None:
    class Vanishing(Kernel):
        def listxattr(self, of: int | bytes) -> list[bytes]:
            return [*super().listxattr(of), b"user.gone"]

    assert read_xattrs(Vanishing(user_a=b"1"), 0, USER) == ((b"user.a", b"1"),)


@pytest.mark.parametrize(("number", "found"), [(errno.EOPNOTSUPP, ()), (errno.EIO, None), (errno.EACCES, None)])
def test_a_file_system_without_them_has_none_and_any_other_error_leaves_them_unknown(
    number: int, found: object
) -> None:
    class Without(Kernel):
        def listxattr(self, of: int | bytes) -> list[bytes]:
            raise OSError(number, os.strerror(number))

    assert read_xattrs(Without(), 0, USER) == found


def test_only_what_differs_is_set_and_what_is_not_spoken_of_stays() -> None:
    kernel = Kernel(user_same=b"1", user_other=b"2", user_extra=b"3", trusted_x=b"4", security_y=b"5")
    wanted = ((b"trusted.z", b"7"), (b"user.new", b"6"), (b"user.other", b"0"), (b"user.same", b"1"))
    assert set_xattrs(kernel, 0, wanted, USER) is None
    assert kernel.found == {
        b"user.same": b"1", b"user.other": b"0", b"user.new": b"6", b"trusted.x": b"4", b"security.y": b"5",
    }  # fmt: skip
    assert sorted(kernel.calls) == ["remove", "set", "set"]
    assert set_xattrs(kernel, 0, (*wanted, (b"security.q", b""), (b"system.q", b"")), ALL) is None
    assert set(kernel.found) == {name for name, _ in wanted} | {b"security.y"}


def test_what_is_refused_leaves_none_of_the_others_out() -> None:
    kernel = Kernel(user_there=b"1")
    kernel.refused = {b"user.b": errno.ENOSPC, b"user.there": errno.EPERM}
    refused = set_xattrs(kernel, 0, tuple((b"user.%c" % one, b"") for one in b"abc"), USER)
    assert isinstance(refused, NoSpace)
    assert str(refused).startswith("its extended attribute user.b: ")
    assert set(kernel.found) == {b"user.there", b"user.a", b"user.c"}


def test_the_owner_of_a_file_that_may_not_be_written_to_lets_himself() -> None:
    kernel = Kernel(user_extra=b"1")
    kernel.mode = 0o440
    assert set_xattrs(kernel, 0, ((b"user.a", b"2"),), USER) is None
    assert kernel.found == {b"user.a": b"2"}
    assert kernel.mode == 0o440
    kernel.refused = {b"user.b": errno.EACCES}
    assert set_xattrs(kernel, 0, ((b"user.b", b"2"),), USER) is not None
    assert kernel.mode == 0o440


def test_who_is_not_root_sets_those_of_users() -> None:
    assert [settable(Kernel(), one) for one in Namespaces] == [Namespaces.NONE, USER, USER]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A file with one attribute, open."""
    path = tmp_path / "file"
    path.touch()
    try:
        os.setxattr(path, b"user.a", b"1")
    except (AttributeError, OSError) as error:
        pytest.skip(f"no extended attributes of users here: {error}")
    fd = os.open(path, os.O_RDONLY)
    yield fd, path
    os.close(fd)


def test_the_kernel_itself(file: tuple[int, Path]) -> None:
    fd, path = file
    assert read_xattrs(real, fd, USER) == ((b"user.a", b"1"),)
    assert set_xattrs(real, fd, ((b"user.b\xff", b"2"),), USER) is None
    assert {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")} == {
        os.fsdecode(b"user.b\xff"): b"2"
    }


def test_those_of_names(file: tuple[int, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        found = {
            name: read_xattrs_at(real, top, name, os.lstat(tmp_path / os.fsdecode(name)).st_mode, USER)
            for name in (b"file", b"link", b"pipe")
        }
        assert found == {b"file": ((b"user.a", b"1"),), b"link": (), b"pipe": ()}
        assert read_xattrs_at(real, top, b"gone", 0o100644, USER) is None
    finally:
        with suppress(OSError):
            os.close(top)
