"""A file whose length nobody knows: nothing before its end, all of it afterwards, whatever fails."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from fsmux.errors import FsmuxError, IsADirectory, ProtocolError
from fsmux.files.chunks import crc32_of
from fsmux.files.growing import Growing
from fsmux.files.root import Root
from fsmux.records import Durability
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from pathlib import Path

PIECES = (b"first", b"second" * 1000, b"x")
WHOLE = b"".join(PIECES)


def grow(growing: Growing) -> None:
    for piece in PIECES:
        growing.append([memoryview(piece)], growing.size, crc32_of([piece]))


@pytest.mark.parametrize("durability", [Durability.NONE, Durability.BATCH])
def test_it_stands_when_it_is_committed(tmp_path: Path, durability: Durability) -> None:
    with Root.open(tmp_path) as root:
        growing = Growing(root, (b"new", b"name"), 0o640, durability)
        grow(growing)
        assert not (tmp_path / "new").exists()
        assert growing.commit() == (durability is Durability.BATCH)
        assert (growing.size, growing.crc32) == (len(WHOLE), crc32_of([WHOLE]))
        growing.discard()
    assert (tmp_path / "new" / "name").read_bytes() == WHOLE
    assert (tmp_path / "new" / "name").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / ".fsmux").exists()


def test_without_a_commit_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"before")
    with Root.open(tmp_path) as root:
        growing = Growing(root, (b"name",), 0o644, Durability.BATCH)
        grow(growing)
        growing.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert (tmp_path / "name").read_bytes() == b"before"


def test_only_its_end_can_be_written_to_and_only_with_what_is_right(tmp_path: Path) -> None:
    with Root.open(tmp_path) as root:
        growing = Growing(root, (b"name",), 0o644, Durability.NONE)
        grow(growing)
        for offset in (0, len(WHOLE) - 1, len(WHOLE) + 1):
            with pytest.raises(ProtocolError):
                growing.append([memoryview(b"y")], offset, crc32_of([b"y"]))
        assert growing.append([memoryview(b"y")], len(WHOLE), 1) == crc32_of([b"y"])
        growing.commit()
    assert (tmp_path / "name").read_bytes() == WHOLE


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with Root.open(tmp_path) as root:
        for parts in ((), (b"directory",)):
            with pytest.raises(IsADirectory):
                Growing(root, parts, 0o644, Durability.NONE)
    assert not (tmp_path / ".fsmux").exists()


def test_a_pipe_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "name")
    with Root.open(tmp_path) as root:
        growing = Growing(root, (b"name",), 0o644, Durability.NONE)
        grow(growing)
        growing.commit()
        growing.discard()
    assert (tmp_path / "name").is_file()


def test_every_call_fails_once(tmp_path: Path) -> None:
    """Whichever it is: the name has what it had, or all that was to come, and nothing else is left."""
    number = outcomes = 0
    while True:
        number += 1
        (tmp_path / "name").write_bytes(b"before")
        sys = Faulty(fail_at=number, number=errno.EIO)
        committed = False
        try:
            with Root.open(tmp_path, sys=sys) as root:
                growing = Growing(root, (b"name",), 0o644, Durability.BATCH)
                try:
                    grow(growing)
                    committed = growing.commit()
                finally:
                    growing.discard()
        except FsmuxError:
            outcomes += 1
        found = (tmp_path / "name").read_bytes()
        assert found in (b"before", WHOLE)
        assert found == WHOLE or not committed
        left = [path.name for path in tmp_path.glob(".fsmux/*")]
        assert not left or "unlink" in sys.failed, left
        for path in tmp_path.glob(".fsmux/*"):
            path.unlink()
        if not sys.failed:
            break
    assert outcomes > 5
