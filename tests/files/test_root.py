from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from fsmux.errors import (
    AccessError,
    BadName,
    Busy,
    Exists,
    FsmuxError,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotRegular,
    UsageError,
)
from fsmux.files.root import PAGE, Root
from fsmux.files.syscalls import Syscalls
from fsmux.records import Attrs, Kind
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(top: Path, tmp_path: Path) -> Path:
    """A root with links of every kind, and something outside of it worth stealing."""
    (tmp_path / "secret").write_bytes(b"secret")
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_bytes(b"content")
    (top / ".fsmux").mkdir(mode=0o700)
    (top / ".fsmux" / "part").write_bytes(b"part")
    for name, target in {
        "a/near": "b/file",
        "a/dir": "b",
        "a/back": "../a/./b//file",
        "out": "../secret",
        "far": "a/../../top-of-the-root/a/b/file",
        "absolute": str(tmp_path / "secret"),
        "absolute-inside": str(top / "a"),
        "up": "..",
        "loop": "loop",
        "state": ".fsmux",
        "state-file": "a/../.FSMUX/part",
        "dangling": "nothing",
        "here": ".",
        "outer-dir": "../",
    }.items():
        (top / name).symlink_to(target)
    os.mkfifo(top / "fifo")
    return top


def _parts(path: str) -> tuple[bytes, ...]:
    return tuple(path.encode().split(b"/")) if path else ()


def _read(root: Root, path: str) -> bytes:
    lease = root.open_file(_parts(path))
    try:
        with lease.hold() as fd:
            return os.pread(fd, 100, 0)
    finally:
        lease.close()


@pytest.mark.parametrize(
    "path", ["a/b/file", "a/near", "a/dir/file", "a/back", "here/a/b/file", "here/here/a/dir/file"]
)
def test_reading_passes_links_that_stay_inside(either_root: Root, tree: Path, path: str) -> None:
    assert _read(either_root, path) == b"content"
    assert either_root.stat(_parts(path), follow=True).size == 7


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("out", BadName), ("far", BadName), ("absolute", BadName), ("absolute-inside/b/file", BadName),
        ("up/secret", BadName), ("loop", BadName), ("state", BadName), ("state/part", BadName),
        ("state-file", BadName), (".fsmux/part", BadName), (".FSMUX/part", BadName), ("dangling", NotFound),
        ("nothing", NotFound), ("a/b/file/x", NotADirectory), ("a", IsADirectory), ("", IsADirectory),
        ("a/dir", IsADirectory), ("fifo", NotRegular), ("here/..", BadName), ("outer-dir/secret", BadName),
    ],
)  # fmt: skip
def test_what_reading_refuses(either_root: Root, tree: Path, path: str, error: type[FsmuxError]) -> None:
    with pytest.raises(error) as caught:
        _read(either_root, path)
    assert "top-of-the-root" not in str(caught.value)
    assert "/tmp" not in str(caught.value)


@pytest.mark.parametrize("path", ["a/dir", "absolute-inside", "up", "here", "loop", "state", "here/a"])
def test_writing_passes_no_link(either_root: Root, tree: Path, path: str) -> None:
    beneath = (*_parts(path), b"new")
    for change in (
        lambda: either_root.mkdir(beneath),
        lambda: either_root.mkdir(beneath, parents=True),
        lambda: either_root.symlink(beneath, b"x"),
        lambda: either_root.open_file(beneath, write=True, create=True),
        lambda: either_root.directory(_parts(path)),
        lambda: either_root.directory(beneath, create=True),
        lambda: either_root.rename(_parts("a/b/file"), beneath),
        lambda: either_root.remove((*_parts(path), b"file")),
        lambda: either_root.set_attrs((*_parts(path), b"b"), Attrs(Kind.FILE, mode=0o777)),
    ):
        with pytest.raises((BadName, NotADirectory)):
            change()
    assert (tree / "a" / "b" / "file").read_bytes() == b"content"


def test_stat(either_root: Root, tree: Path) -> None:
    assert either_root.stat(()).kind == Kind.DIRECTORY
    assert either_root.stat(_parts("a/b")).kind == Kind.DIRECTORY
    file = either_root.stat(_parts("a/b/file"))
    assert (file.kind, file.size, file.mtime_ns) == (
        Kind.FILE, 7, (tree / "a" / "b" / "file").stat().st_mtime_ns,
    )  # fmt: skip
    assert either_root.stat(_parts("a/near")).link_target == b"b/file"
    assert either_root.stat(_parts("out")).kind == Kind.SYMLINK
    assert either_root.stat(_parts("fifo"), follow=True).kind == Kind.SPECIAL
    assert either_root.stat(_parts("here"), follow=True).kind == Kind.DIRECTORY
    with pytest.raises(BadName):
        either_root.stat(_parts("out"), follow=True)
    with pytest.raises(BadName):
        either_root.stat(_parts("state"), follow=True)


def test_listing_hides_what_is_reserved_and_comes_in_pages(either_root: Root, top: Path) -> None:
    (top / ".fsmux").mkdir()
    (top / ".FSMUX").mkdir()
    (top / "big").mkdir()
    for index in range(PAGE + 5):
        (top / "big" / str(index)).touch()
    (top / "link").symlink_to("big")
    pages = list(either_root.scan((b"link",)))
    assert [len(page) for page in pages] == [PAGE, 5]
    assert {name for page in pages for name, _ in page} == {str(index).encode() for index in range(PAGE + 5)}
    assert {name for page in either_root.scan(()) for name, _ in page} == {b"big", b"link"}
    unfinished = either_root.scan((b"big",))
    next(unfinished)
    unfinished.close()  # type: ignore[attr-defined]


def test_names_that_are_not_text(either_root: Root, top: Path) -> None:
    odd = b"\xff\xfe \n\x1b[31m"
    either_root.mkdir((odd,))
    assert os.listdir(os.fsencode(top)) == [odd]
    assert [name for page in either_root.scan(()) for name, _ in page] == [odd]
    with pytest.raises(IsADirectory) as caught:
        either_root.open_file((odd,))
    assert str(caught.value).isprintable()


def test_mkdir(either_root: Root, top: Path) -> None:
    with pytest.raises(NotFound):
        either_root.mkdir((b"x", b"y"))
    either_root.mkdir((b"x", b"y"), parents=True)
    either_root.mkdir((b"x", b"y"), parents=True)
    with pytest.raises(Exists):
        either_root.mkdir((b"x", b"y"))
    either_root.mkdir((b"z",), mode=0o7700)
    assert stat.S_IMODE((top / "z").stat().st_mode) == 0o700
    (top / "file").touch()
    for parts in ((b"file",), (b"file", b"x")):
        with pytest.raises(NotADirectory):
            either_root.mkdir(parts, parents=True)
    either_root.mkdir((), parents=True)
    with pytest.raises(Exists):
        either_root.mkdir(())


def test_renaming_to_another_name_of_the_same_file_leaves_one(either_root: Root, top: Path) -> None:
    (top / "one").write_text("1")
    (top / "two").hardlink_to(top / "one")
    (top / "three").hardlink_to(top / "one")
    either_root.rename((b"one",), (b"one",), replace=True)
    either_root.rename((b"one",), (b"two",), replace=True)
    assert sorted(os.listdir(top)) == ["three", "two"]
    assert (top / "two").samefile(top / "three")
    either_root.rename((b"three",), (b"four",))
    assert sorted(os.listdir(top)) == ["four", "two"]


def test_rename(either_root: Root, top: Path) -> None:
    (top / "one").write_text("1")
    (top / "two").write_text("2")
    (top / "dir").mkdir()
    with pytest.raises(Exists):
        either_root.rename((b"one",), (b"two",))
    with pytest.raises(Exists):
        either_root.rename((b"dir",), (b"two",))
    either_root.rename((b"one",), (b"two",), replace=True)
    assert (top / "two").read_text() == "1"
    either_root.rename((b"two",), (b"dir", b"three"))
    either_root.rename((b"dir",), (b"other",))
    assert (top / "other" / "three").read_text() == "1"
    with pytest.raises(NotFound, match="gone"):
        either_root.rename((b"gone",), (b"x",))
    with pytest.raises(NotFound, match="nowhere"):
        either_root.rename((b"other",), (b"nowhere", b"x"))
    with pytest.raises(BadName):
        either_root.rename((), (b"x",))
    for target in ((), (b".fsmux",), (b"other", b"in")):
        with pytest.raises(BadName):
            either_root.rename((b"other",), target)


def test_remove(either_root: Root, top: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (top / "d" / "e" / "f").mkdir(parents=True)
    (top / "d" / "link").symlink_to(tmp_path / "outside")
    (top / "d" / "e" / "file").touch()
    os.mkfifo(top / "d" / "fifo")
    with pytest.raises(NotEmpty):
        either_root.remove((b"d",))
    either_root.remove((b"d", b"e", b"f"))
    either_root.remove((b"d",), recursive=True)
    assert os.listdir(top) == []
    assert (tmp_path / "outside" / "kept").exists()
    with pytest.raises(NotFound):
        either_root.remove((b"d",), recursive=True)
    with pytest.raises(BadName):
        either_root.remove((), recursive=True)


def test_what_is_being_received_below_is_not_removed(either_root: Root, top: Path) -> None:
    (top / "mount" / ".fsmux").mkdir(parents=True)
    (top / "mount" / "file").touch()
    with pytest.raises(NotEmpty):
        either_root.remove((b"mount",), recursive=True)
    assert os.listdir(top / "mount") == [".fsmux"]


def test_a_deep_tree_is_removed(either_root: Root) -> None:
    either_root.mkdir((b"d",) * 200, parents=True)
    either_root.remove((b"d",), recursive=True)


def test_symlink_replaces_files_and_links_but_no_directory(either_root: Root, top: Path) -> None:
    either_root.symlink((b"new", b"link"), b"anywhere/../..", Attrs(Kind.SYMLINK, mtime_ns=5_000_000_000))
    link = top / "new" / "link"
    assert os.readlink(link) == "anywhere/../.."
    assert link.lstat().st_mtime_ns == 5_000_000_000
    either_root.symlink((b"new", b"link"), b"b")
    assert os.readlink(link) == "b"
    with pytest.raises(IsADirectory):
        either_root.symlink((b"new",), b"b")
    for target in (b"", b"a\0b"):
        with pytest.raises(BadName):
            either_root.symlink((b"x",), target)
    assert os.listdir(top) == ["new"]


def test_a_link_has_its_extended_attributes_before_its_name(top: Path) -> None:
    """Also if one of them is refused."""
    calls: list[tuple[bytes, ...]] = []

    class Noting(Syscalls):
        def setxattr(self, of: int | bytes, name: bytes, value: bytes) -> None:
            assert isinstance(of, bytes)
            assert os.readlink(of) == b"b"
            calls.append((name, value))
            if name == b"user.a":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def rename(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
            calls.append((to_name,))
            super().rename(directory, name, to_directory, to_name)

    with Root.open(top, sys=Noting()) as root:
        xattrs = ((b"system.x", b"0"), (b"user.a", b"1"), (b"user.b", b"2"))
        root.symlink((b"link",), b"b", Attrs(Kind.SYMLINK, xattrs=xattrs))
    assert calls == [(b"user.a", b"1"), (b"user.b", b"2"), (b"link",)]
    assert os.readlink(top / "link") == "b"


def test_set_attrs(either_root: Root, top: Path) -> None:
    (top / "dir").mkdir()
    (top / "file").touch()
    (top / "link").symlink_to("file")
    os.mkfifo(top / "fifo")
    for name in ("dir", "file"):
        either_root.set_attrs((name.encode(),), Attrs(Kind.FILE, mode=0o7750, mtime_ns=3))
        facts = (top / name).stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == (0o750, 3)
        either_root.set_attrs((name.encode(),), Attrs(Kind.FILE))
        assert (top / name).stat().st_mtime_ns == 3
    either_root.set_attrs((b"link",), Attrs(Kind.SYMLINK, mtime_ns=4, mode=0o777))
    assert (top / "link").lstat().st_mtime_ns == 4
    assert stat.S_IMODE((top / "file").stat().st_mode) == 0o750
    with pytest.raises(NotRegular):
        either_root.set_attrs((b"fifo",), Attrs(Kind.FILE, mode=0o777))


def test_opening_to_write(either_root: Root, top: Path) -> None:
    with pytest.raises(NotFound):
        either_root.open_file((b"f",), write=True)
    lease = either_root.open_file((b"f",), write=True, create=True)
    with lease.hold() as fd:
        os.pwrite(fd, b"abc", 0)
    lease.close()
    either_root.open_file((b"f",), write=True).close()
    assert (top / "f").read_bytes() == b"abc"
    either_root.open_file((b"f",), write=True, truncate=True).close()
    assert (top / "f").read_bytes() == b""
    os.mkfifo(top / "fifo")
    with pytest.raises(NotRegular):
        either_root.open_file((b"fifo",), write=True, create=True)
    (top / "link").symlink_to("f")
    for create in (False, True):
        with pytest.raises(BadName):
            either_root.open_file((b"link",), write=True, create=create)


def test_opening_the_root(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotFound):
        Root.open(tmp_path / "nothing")
    with pytest.raises(NotADirectory):
        Root.open(tmp_path / "file")
    with pytest.raises(UsageError):
        Root.open("a\0b")
    root = Root.open(tmp_path)
    root.close()
    with pytest.raises(Busy):
        root.stat(())


def test_no_error_says_where_the_root_is(root: Root, top: Path, tmp_path: Path) -> None:
    (top / "dir").mkdir()
    (top / "link").symlink_to(tmp_path)
    for parts in ((b"x",), (b"dir",), (b"link", b"y"), (b"..",), (b".fsmux",)):
        for call in (
            lambda parts=parts: root.open_file(parts),
            lambda parts=parts: root.rename(parts, (b"x", b"y")),
            lambda parts=parts: root.mkdir((*parts, b"a", b"b")),
        ):
            with pytest.raises(FsmuxError) as caught:
                call()
            assert str(tmp_path) not in str(caught.value)


def test_links_that_race_with_us_lead_nowhere(root: Root, top: Path, tmp_path: Path) -> None:
    """One thread turns a directory into a link to the outside and back while another reads and writes through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (top / "real").mkdir()
    (top / "real" / "file").write_bytes(b"public")
    (top / "link").symlink_to(outside)
    os.rename(top / "real", top / "d")
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            os.rename(top / "d", top / "real")
            os.rename(top / "link", top / "d")
            os.rename(top / "d", top / "link")
            os.rename(top / "real", top / "d")

    thread = threading.Thread(target=flip)
    thread.start()
    seen: set[bytes] = set()
    try:
        for walking in (False, True):
            sys = Faulty(lacks={"openat2"} if walking else set())
            with Root.open(top, sys=sys) as other:
                for turn in range(1500):
                    with suppress(NotFound, BadName, NotADirectory):
                        seen.add(_read(other, "d/file"))
                    with suppress(NotFound, BadName, NotADirectory, Exists):
                        other.mkdir((b"d", b"made%d" % turn))
                        other.open_file((b"d", b"new%d" % turn), write=True, create=True).close()
    finally:
        stop.set()
        thread.join(10)
    assert seen <= {b"public"}
    assert os.listdir(outside) == ["file"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_refusal_of_the_kernel_is_told_as_such(top: Path, number: int) -> None:
    (top / "f").touch()
    sys = Faulty(1, number, only={"openat"}, onwards=True, lacks={"openat2"})
    with Root.open(top, sys=sys) as root, pytest.raises(AccessError, match="f: permission denied"):
        root.open_file((b"f",))
