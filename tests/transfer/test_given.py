"""What a file that comes by a session is to have beside its bytes: it has all of it before it has its name."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from fsmux.events import FileDone, Warned
from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls
from fsmux.limits import MEDIUM_FILE
from fsmux.records import Durability, Kept, Namespaces
from fsmux.wire.frames import GIVEN_FEATURE

from .kit import Move, content, forget_feature
from .test_trees import Tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may set owners")

ALL = Kept(owner=True, xattrs=Namespaces.ALL)
LARGE = MEDIUM_FILE + 5
OWNER = (1234, 2345)


@pytest.fixture(params=["single", "tree"])
def moved(request: pytest.FixtureRequest, move: Move) -> tuple[Move, Path, Path]:
    """Who moves a file, by itself or in a directory, and where it is and will be."""
    if request.param == "single":
        source = move.source / "file"
        source.write_bytes(content(LARGE))
        made: tuple[Move, Path, Path] = move, source, move.target / "file"
    else:
        (move.source / "file").mkdir()
        source = move.source / "file/large"
        source.write_bytes(content(LARGE))
        made = Tree(move.side, move.direction), source, move.target / "file/large"
    try:
        os.setxattr(source, "user.a", b"1")
    except OSError as error:
        pytest.skip(f"no extended attributes of users here: {error}")
    os.chown(source, *OWNER)
    source.chmod(0o440)
    return made


def seen(of: int | Path) -> tuple[Any, ...]:
    facts = os.stat(of)
    return (facts.st_uid, facts.st_gid), facts.st_mode & 0o777, os.listxattr(of), facts.st_mtime_ns


@pytest.mark.parametrize("durability", [Durability.BATCH, Durability.FILE, Durability.NONE])
async def test_it_has_all_of_it_before_it_is_synced_and_renamed(
    moved: tuple[Move, Path, Path], monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    move, source, target = moved
    synced: dict[int, tuple[Any, ...]] = {}
    named: dict[bytes, tuple[int, tuple[Any, ...]]] = {}
    fsync, rename = Syscalls.fsync, Syscalls.rename

    def note_sync(self: Syscalls, fd: int) -> None:
        synced[os.fstat(fd).st_ino] = seen(fd)
        fsync(self, fd)

    def note_name(self: Syscalls, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        rename(self, directory, name, to_directory, to_name)
        fd = os.open(to_name, os.O_RDONLY, dir_fd=to_directory)
        named[to_name] = os.fstat(fd).st_ino, seen(fd)
        os.close(fd)

    monkeypatch.setattr(Syscalls, "fsync", note_sync)
    monkeypatch.setattr(Syscalls, "rename", note_name)
    assert (await move(kept=ALL, durability=durability)).failed == 0
    inode, had = named[os.fsencode(target.name)]
    assert had == seen(target) == seen(source)
    assert had[0] == OWNER
    if durability is not Durability.NONE:
        assert synced[inode] == had
    assert target.read_bytes() == source.read_bytes()


async def test_what_is_refused_is_told_and_the_file_stands(
    moved: tuple[Move, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    move, source, target = moved

    def refuse(self: Syscalls, of: int | bytes, name: bytes, value: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Syscalls, "setxattr", refuse)
    assert (await move(kept=ALL)).failed == 0
    (warned,) = move.side.of(Warned)
    assert warned.message == "its extended attribute user.a: no space left on device"
    assert warned.path == move.side.of(FileDone)[0].path
    assert (target.read_bytes(), target.stat().st_uid, os.listxattr(target)) == (source.read_bytes(), 1234, [])


async def test_an_owner_that_cannot_be_set_leaves_no_file(
    moved: tuple[Move, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    move, _, target = moved

    chown = Syscalls.fchown

    def refuse(self: Syscalls, fd: int, user: int, group: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        chown(self, fd, user, group)

    monkeypatch.setattr(Syscalls, "fchown", refuse)
    assert (await move(kept=ALL)).failed == 1
    assert not target.exists()


async def test_what_an_attempt_before_has_set_goes_if_the_source_has_it_no_more(
    moved: tuple[Move, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    move, source, target = moved
    with monkeypatch.context() as patch:

        def refuse(self: Syscalls, *words: Any) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(Syscalls, "rename", refuse)
        await move(kept=ALL)
    assert not target.exists()
    facts = source.stat()
    os.removexattr(source, "user.a")
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    await move(kept=ALL)
    assert seen(target) == seen(source)
    assert not os.listxattr(target)


async def test_it_is_set_when_the_file_stands_by_a_server_that_cannot_do_it_before(
    moved: tuple[Move, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    move, source, target = moved
    forget_feature(move.side, GIVEN_FEATURE)
    asked: list[bool] = []
    set_attrs = Root.set_attrs
    monkeypatch.setattr(Root, "set_attrs", lambda self, *words: asked.append(True) or set_attrs(self, *words))
    assert (await move(kept=ALL)).failed == 0
    assert bool(asked) == (move.direction == "up")
    assert seen(target) == seen(source)
