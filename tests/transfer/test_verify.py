"""``--verify disk``: what the device does not give back is sent again, and nothing stands under its name before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from fsmux.errors import ErrorCode
from fsmux.events import ChunkHealed, Retrying
from fsmux.files.syscalls import Syscalls
from fsmux.records import Durability
from tests.transfer.kit import CHUNK, Move, content, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = ("a", "b", "locked")


class Rot:
    """A device that forgets some bytes of a file when its cache is dropped, so many times."""

    def __init__(self) -> None:
        self.left = 0
        self.dropped = 0

    def drop_cache(self, sys: Syscalls, fd: int) -> None:
        self.dropped += 1
        if self.left:
            self.left -= 1
            file = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
            os.pwrite(file, b"rotten", max(os.fstat(file).st_size - 7, 0))
            os.close(file)


@pytest.fixture
def rot() -> Iterator[Rot]:
    found = Rot()
    with patch.object(Syscalls, "drop_cache", lambda sys, fd: found.drop_cache(sys, fd)):
        yield found


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("size", [100, 5 * CHUNK + 30])
async def test_a_file_of_which_the_disk_lost_some(move: Move, rot: Rot, size: int, durability: Durability) -> None:
    data = content(size)
    (move.source / "file").write_bytes(data)
    rot.left = 2
    summary = await move(verify=True, durability=durability)
    assert (move.target / "file").read_bytes() == data
    assert (summary.files, rot.left) == (1, 0)
    chunk = size // CHUNK
    assert [(event.index, event.attempt) for event in move.side.of(ChunkHealed)] == [(chunk, 1), (chunk, 2)]
    assert rot.dropped == 3
    assert not state_of(move.target)


async def test_a_big_file_that_comes_over_several_connections(
    move: Move, rot: Rot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmux.sites.SPREAD_BYTES", CHUNK)
    data = content(20 * CHUNK + 3)
    (move.source / "file").write_bytes(data)
    rot.left = 1
    await move(verify=True, connections=3)
    assert (move.target / "file").read_bytes() == data
    assert rot.dropped == 2


@pytest.mark.parametrize("size", [100, 5 * CHUNK + 30])
async def test_a_disk_that_keeps_nothing(move: Move, rot: Rot, size: int) -> None:
    (move.source / "file").write_bytes(content(size))
    rot.left = 1000
    summary = await move(verify=True)
    assert (summary.files, summary.failed) == (0, 1)
    assert move.side.failure.code == ErrorCode.INTEGRITY.name
    assert "disk gave back other bytes" in move.side.failure.message
    assert rot.dropped == 3
    assert not (move.target / "file").exists()


@pytest.mark.parametrize("durability", Durability)
async def test_a_tree_of_which_the_disk_lost_some(move: Move, rot: Rot, durability: Durability) -> None:
    files = {name: content(100 + number, number) for number, name in enumerate(SMALL)}
    (move.source / "file").mkdir()
    for name, data in files.items():
        (move.source / "file" / name).write_bytes(data)
    (move.source / "file/locked").chmod(0o200)
    rot.left = 2
    summary = await move(verify=True, durability=durability)
    assert (summary.files, summary.failed, rot.left) == (3, 0, 0)
    assert {name: (move.target / "file/file" / name).read_bytes() for name in SMALL} == files
    assert (move.target / "file/file/locked").stat().st_mode & 0o777 == 0o200
    assert len(move.side.of(Retrying)) == 2
    assert not state_of(move.target)


async def test_a_tree_on_a_disk_that_keeps_nothing(move: Move, rot: Rot) -> None:
    (move.source / "file").mkdir()
    (move.source / "file/a").write_bytes(b"a" * 100)
    rot.left = 1000
    summary = await move(verify=True)
    assert summary.failed == 1
    assert move.side.failure.code == ErrorCode.INTEGRITY.name
    assert os.listdir(move.target / "file/file") == []


async def test_nothing_is_read_back_unasked(move: Move, rot: Rot) -> None:
    (move.source / "file").write_bytes(content(3 * CHUNK))
    await move()
    assert not rot.dropped
