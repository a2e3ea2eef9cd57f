"""Directories that several sources share: the first one that has it decides, and -n says what a real run then does."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from fsmux.records import Durability

from .test_delete import Mirror
from .test_trees import inventory

if TYPE_CHECKING:
    from pathlib import Path

    from .kit import Move

DIRECTORIES = ("", "a", "a/b", "c")


@pytest.fixture
def mirror(move: Move) -> Mirror:
    return Mirror(move.side, move.direction)


def directory(path: Path, mode: int, time: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    os.utime(path, ns=(time, time))


def attributes(root: Path) -> dict[str, tuple[int, int]]:
    found = {name: (root / name).stat() for name in DIRECTORIES if (root / name).is_dir()}
    return {name: (one.st_mode & 0o777, one.st_mtime_ns) for name, one in found.items()}


async def both(mirror: Mirror, *names: str, delete: bool = False) -> list[tuple[str, str]]:
    """What -n says would be done beside sending, which is what is done."""
    await mirror(*names, delete=delete, dry_run=True)
    would = [one for one in mirror.would if one[0] != "send"]
    await mirror(*names, delete=delete, durability=Durability.NONE)
    assert mirror.changed == would
    return would


def unlike(mirror: Mirror, there: int) -> None:
    """Two sources have a directory with different permissions, and at the destination it has those of one."""
    for number, name in enumerate("xy"):
        (mirror.source / name / "a").mkdir(parents=True)
        directory(mirror.source / name / "a", 0o750 + number, 5)
        directory(mirror.source / name, 0o755, 5)
    directory(mirror.target / "a", there, 5)
    directory(mirror.target, 0o755, 5)


async def test_what_the_first_source_changes_is_told(mirror: Mirror) -> None:
    unlike(mirror, there=0o751)
    assert await both(mirror, "x/", "y/") == [("set attributes of", "a")]
    assert (mirror.target / "a").stat().st_mode & 0o777 == 0o750
    assert await both(mirror, "x/", "y/") == []


async def test_what_a_later_source_has_otherwise_changes_nothing(mirror: Mirror) -> None:
    unlike(mirror, there=0o750)
    assert await both(mirror, "x/", "y/") == []
    assert (mirror.target / "a").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("seed", range(8))
async def test_any_sources_say_before_what_they_do_and_come_to_an_end(mirror: Mirror, seed: int, delete: bool) -> None:
    chance = random.Random(seed)
    roots = [mirror.source / name for name in ("x", "y", "z")]
    for root in (*roots, mirror.target):
        for name in DIRECTORIES:
            if not name or (chance.random() < 0.7 and (root / name).parent.is_dir()):
                (root / name).mkdir(exist_ok=True)
                if chance.random() < 0.4 and root is not mirror.target:
                    (root / name / f"of {root.name}").write_bytes(b"1")
        for name in reversed(DIRECTORIES):
            if (root / name).is_dir():
                directory(root / name, chance.choice((0o755, 0o700)), chance.choice((5, 7)))
    names = ("x/", "y/", "z/")
    await both(mirror, *names, delete=delete)
    expected = {name: one for root in reversed(roots) for name, one in attributes(root).items()}
    found = attributes(mirror.target)
    assert {name: found[name] for name in expected} == expected
    before = inventory(mirror.target)
    assert await both(mirror, *names, delete=delete) == []
    assert inventory(mirror.target) == before
