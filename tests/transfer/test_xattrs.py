"""Extended attributes that the other side knows nothing of, or that are refused, fail nothing."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from fsmux.errors import UsageError
from fsmux.events import NamesChanged, Warned
from fsmux.files.syscalls import Syscalls
from fsmux.greeting import hello
from fsmux.records import Kept, Namespaces
from fsmux.wire.frames import CHOWN_FEATURE, XATTRS_FEATURE

from .test_trees import Tree, inventory, make

if TYPE_CHECKING:
    from pathlib import Path

    from .kit import Move

XATTRS = Kept(xattrs=Namespaces.USER)
RSYNC = shutil.which("rsync")
MARKED = ("d/07", "d/deep/er/large", "d/deep")


@pytest.fixture
def move(move: Move) -> Tree:
    return Tree(move.side, move.direction)


@pytest.fixture
def source(move: Tree) -> Path:
    """A small file, a large one and a directory have an attribute."""
    root = make(move.source / "file")
    try:
        for name in MARKED:
            os.setxattr(root / name, "user.a", b"1")
    except (AttributeError, OSError) as error:
        pytest.skip(f"no extended attributes of users here: {error}")
    return root


def names(root: Path, attribute: str = "user.a") -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if attribute in os.listxattr(path)}


def say(move: Tree, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """Have the server say that it can do all but this."""
    connection = move.side.client.connection
    features = tuple(one for one in connection.peer_hello.features if one != lacking)
    monkeypatch.setattr(connection, "peer_hello", msgspec.structs.replace(connection.peer_hello, features=features))


async def test_a_server_without_them_is_one_warning_and_nothing_else(
    move: Tree, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(move, monkeypatch, XATTRS_FEATURE)
    summary = await move(kept=XATTRS)
    (warned,) = move.side.of(Warned)
    assert "the server knows no extended attributes" in warned.message
    assert (summary.files, summary.failed) == (42, 0)
    assert inventory(move.target / "file") == inventory(source)
    assert not names(move.target / "file")


async def test_another_system_than_linux_is_a_clear_error(
    move: Tree, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {name: value for name, value in vars(os).items() if name != "setxattr"}
    monkeypatch.setattr("fsmux.moving.placing.os", SimpleNamespace(**without))
    with pytest.raises(UsageError, match="Linux only"):
        await move(kept=XATTRS)
    monkeypatch.setattr("fsmux.greeting.os", SimpleNamespace(**without))
    assert XATTRS_FEATURE not in hello().features


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSPC, errno.EPERM])
async def test_what_is_refused_is_one_warning_for_each_name(
    move: Tree, source: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Syscalls, of: int | bytes, name: bytes, value: bytes) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Syscalls, "setxattr", refuse)
        summary = await move(kept=XATTRS)
        warned = {event.path: event.message for event in move.side.of(Warned)}
        assert set(warned) == set(MARKED)
        assert len(move.side.of(Warned)) == len(MARKED)
        assert set(warned.values()) == {f"its extended attribute user.a: {os.strerror(number).lower()}"}
        assert (summary.files, summary.failed) == (42, 0)
        assert inventory(move.target / "file") == inventory(source)
        summary = await move(kept=XATTRS)  # it is tried again, as long as it is asked for
        assert {event.path for event in move.side.of(Warned)} == set(MARKED)
        assert (summary.files, summary.failed) == (0, 0)
    assert not names(move.target / "file")
    summary = await move(kept=XATTRS)
    assert summary.bytes_sent == 0
    assert not move.side.of(Warned)
    assert names(move.target / "file") == set(MARKED)
    assert inventory(move.target / "file") == inventory(source)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set what others may not")
async def test_a_receiver_that_is_not_root_keeps_those_of_users_alone(
    move: Tree, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MARKED:
        os.setxattr(source / name, "trusted.a", b"2")
    with monkeypatch.context() as patch:
        if move.direction == "up":
            say(move, patch, CHOWN_FEATURE)
        else:
            patch.setattr("fsmux.moving.placing.os", SimpleNamespace(**{**vars(os), "geteuid": lambda: 1000}))
        await move(kept=XATTRS)
        target = move.target / "file"
        assert names(target) == set(MARKED)
        assert not names(target, "trusted.a")
        assert (await move(kept=XATTRS)).files == 0
        assert not move.side.of(NamesChanged)
    await move(kept=XATTRS)
    assert names(target, "trusted.a") == set(MARKED)


async def test_nothing_is_read_or_set_that_nobody_asked_for(
    move: Tree, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But whether a fresh directory has inherited any, before another one takes its place."""
    called: list[str] = []
    for call in ("listxattr", "getxattr", "setxattr", "removexattr"):

        def noted(self: Syscalls, of: int | bytes, *words: object, call: str = call) -> list[str]:
            if call != "listxattr" or not isinstance(of, int) or not stat.S_ISDIR(os.fstat(of).st_mode):
                called.append(call)
            return []

        monkeypatch.setattr(Syscalls, call, noted)
    await move()
    await move()
    assert not called
    assert inventory(move.target / "file") == inventory(source)


@pytest.mark.skipif(RSYNC is None, reason="rsync is not installed")
async def test_what_stands_in_the_end_is_what_rsync_makes_of_the_same(move: Tree, source: Path) -> None:
    chance = random.Random(5)
    target, beside = move.target / "file", move.target.parent / "beside"
    values = (None, b"", b"1", bytes(200))
    for _ in range(4):
        for path in (source, *sorted(source.rglob("*"))):
            below = path.relative_to(source)
            for name in ("user.a", "user.b"):
                change(path, name, chance.choice(values))
                there = chance.choice(values)
                change(target / below, name, there)
                change(beside / below, name, there)
        await move(kept=XATTRS)
        rsync(source, beside)
        assert every(target) == every(beside) == every(source)
        assert inventory(target) == inventory(source)


def rsync(source: Path, target: Path) -> None:
    subprocess.run([str(RSYNC), "-aX", f"{source}/", f"{target}/"], check=True)


def change(path: Path, name: str, value: bytes | None) -> None:
    """Give a file or a directory an attribute, or take it."""
    if path.is_symlink() or not path.exists():
        return
    if value is not None:
        os.setxattr(path, name, value)
    elif name in os.listxattr(path):
        os.removexattr(path, name)


def every(root: Path) -> dict[str, dict[str, bytes]]:
    """The attributes of users of all that is there."""
    paths = [path for path in (root, *root.rglob("*")) if not path.is_symlink() and ".fsmux" not in path.parts]
    return {
        str(path.relative_to(root)): {
            name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")
        }
        for path in paths
    }
