"""Every system call of every operation fails once, for each N and each errno; nothing is lost and nothing is left."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from fsmux.errors import FsmuxError
from fsmux.files.root import Root
from fsmux.records import Attrs, Kind
from tests.files.conftest import descriptors
from tests.files.faults import Faulty
from tests.files.test_sink import CHUNK, DATA, NAME, OTHER, begin, fill, reuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fsmux.files.syscalls import Syscalls

NUMBERS = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.EFBIG, errno.ENOENT]


def upload(sys: Syscalls, top: Path, data: bytes, parts: tuple[bytes, ...] = NAME) -> None:
    with Root.open(top, sys=sys) as root:
        sink = begin(root, data, parts)
        try:
            if sink.basis is not None:
                reuse(sink, data)
            for index in range(sink.manifest.map.count):
                fill(sink, data, [index])
                if index == 2:
                    sink.checkpoint()
            sink.commit()
        finally:
            sink.suspend()


def fresh(top: Path) -> None:
    pass


def half_done(top: Path) -> None:
    with Root.open(top) as root:
        sink = begin(root)
        fill(sink, chunks=[0, 1])
        sink.checkpoint()
        fill(sink, chunks=[2])
        sink.close()


def half_done_with_another_version(top: Path) -> None:
    with Root.open(top) as root:
        sink = begin(root, OTHER)
        fill(sink, OTHER, chunks=[0, 1, 2])
        sink.suspend()


def with_an_earlier_file(top: Path) -> None:
    (top / "file").write_bytes(OTHER[: 3 * CHUNK + 5])


SCENES = [fresh, half_done, half_done_with_another_version, with_an_earlier_file]


def sweep(tmp_path: Path, number: int, prepare: Callable[[Path], None]) -> Iterator[tuple[Faulty, Path]]:
    """A new root for each N, until an operation makes fewer calls than N."""
    count = 0
    while True:
        count += 1
        top = tmp_path / str(count)
        top.mkdir()
        prepare(top)
        sys = Faulty(count, number)
        yield sys, top
        if not sys.failed:
            return


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("prepare", SCENES)
def test_an_upload_survives_the_failure_of_every_call(
    tmp_path: Path, number: int, prepare: Callable[[Path], None]
) -> None:
    before = descriptors()
    for sys, top in sweep(tmp_path, number, prepare):
        final = top / "file"
        earlier = final.read_bytes() if final.exists() else None
        text = ""
        try:
            upload(sys, top, DATA)
        except FsmuxError as error:
            text = str(error)
            if final.exists():  # published before the call that failed, or untouched
                assert final.read_bytes() in (DATA, earlier)
        else:
            assert final.read_bytes() == DATA
        assert str(tmp_path) not in text.removeprefix(f"{top}: ")  # which its operator has named
        assert descriptors() == before, (sys.fail_at, sys.failed)
        with Root.open(top) as root:
            sink = begin(root)
            if sink.basis is not None:
                reuse(sink, DATA)
            fill(sink)
            sink.commit()
        assert final.read_bytes() == DATA, (sys.fail_at, sys.failed)
        assert os.listdir(top) == ["file"], (sys.fail_at, sys.failed, os.listdir(top / ".fsmux"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_small_upload_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    before = descriptors()
    for sys, top in sweep(tmp_path, number, fresh):
        try:
            upload(sys, top, b"small", (b"new", b"file"))
        except FsmuxError:
            if (top / "new" / "file").exists():
                assert (top / "new" / "file").read_bytes() == b"small"
        else:
            assert (top / "new" / "file").read_bytes() == b"small"
        assert descriptors() == before
        if sys.failed not in ("unlink", "rmdir"):  # what cannot be removed stays
            assert not (top / ".fsmux").exists(), (sys.fail_at, sys.failed)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_failed_opening_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    for sys, top in sweep(tmp_path, number, fresh):
        try:
            with Root.open(top, sys=sys) as root:
                begin(root).discard()
        except FsmuxError:
            pass
        if sys.failed not in ("unlink", "rmdir"):
            assert os.listdir(top) == [], (sys.fail_at, sys.failed)


@pytest.mark.parametrize("walking", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_operations_on_names_leave_no_descriptor(tmp_path: Path, number: int, walking: bool) -> None:
    def prepare(top: Path) -> None:
        (top / "a" / "b").mkdir(parents=True)
        (top / "a" / "file").write_bytes(b"x")
        (top / "a" / "link").symlink_to("b/../file")

    operations: list[Callable[[Root], object]] = [
        lambda root: root.stat((b"a", b"link"), follow=True),
        lambda root: list(root.scan((b"a",))),
        lambda root: root.open_file((b"a", b"link")).close(),
        lambda root: root.open_file((b"a", b"n"), write=True, create=True, truncate=True).close(),
        lambda root: root.directory((b"a", b"x", b"y"), create=True).close(),
        lambda root: root.mkdir((b"a", b"p", b"q"), parents=True),
        lambda root: root.rename((b"a", b"file"), (b"a", b"b", b"moved")),
        lambda root: root.symlink((b"a", b"link"), b"else", Attrs(Kind.SYMLINK, mtime_ns=5)),
        lambda root: root.set_attrs((b"a", b"b"), Attrs(Kind.DIRECTORY, mtime_ns=5, mode=0o700)),
        lambda root: root.remove((b"a",), recursive=True),
    ]
    before = descriptors()
    for place, operation in enumerate(operations):
        base = tmp_path / str(place)
        base.mkdir()
        for sys, top in sweep(base, number, prepare):
            sys.lacks = {"openat2"} if walking else set()
            try:
                with Root.open(top, sys=sys) as root:
                    operation(root)
            except FsmuxError:
                pass
            assert descriptors() == before, (place, sys.fail_at, sys.failed)
