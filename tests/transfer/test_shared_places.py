"""Directories that several sources share: the first one that has it decides, and -n says what a real run then does."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from fsmux.events import Changed, NamesChanged, WouldDo
from fsmux.job import Options
from fsmux.moving.report import Report
from fsmux.moving.transfer import Transfer
from fsmux.records import Durability
from fsmux.transfer.session import Run
from fsmux.urls import Local, Remote

from .test_delete import Mirror
from .test_trees import inventory

if TYPE_CHECKING:
    from pathlib import Path

    from .kit import Move, Side

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


# ---- places within one another -------------------------------------------------------------------------------------


def two(mirror: Mirror, *files: str) -> None:
    """The sources P and Q, which have these files, each with its own name in it."""
    for name in files:
        path = mirror.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def clear(mirror: Mirror, *names: str) -> None:
    for name in names:
        path = mirror.target / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("names", "place", "stands"),
    [
        (("P/x", "Q/"), "x/o", "P/x/o"),
        (("Q/", "P/x"), "x/o", "Q/x/o"),
        (("P/f", "Q/"), "f", "P/f"),
        (("Q/", "P/f"), "f", "P/f"),
        (("P/", "Q/x"), "x/o", "P/x/o"),
    ],
)
async def test_what_one_source_has_put_there_is_refused_to_another(
    mirror: Mirror, names: tuple[str, ...], place: str, stands: str, again: bool
) -> None:
    two(mirror, "P/x/o", "P/f", "Q/x/o", "Q/f", "Q/x/other", "P/x/more")
    for _ in range(1 + again):
        would = await mirror(*names, dry_run=True)
        assert would.failed >= 1
        summary = await mirror(*names)
        assert summary.failed == would.failed
    found = inventory(mirror.target)
    assert (mirror.target / place).read_bytes() == stands.encode()
    assert again is False or summary.files == 0
    expected = {"x/other", "x/more"} if "x" in place else set()
    assert expected <= set(found)


async def test_a_file_where_another_source_has_a_directory(mirror: Mirror) -> None:
    two(mirror, "P/x", "Q/x/o")
    for names, kept in ((("P/", "Q/x"), "file"), (("Q/", "P/x"), "file"), (("Q/x", "P/"), "directory")):
        clear(mirror, "x")
        assert (await mirror(*names, dry_run=True)).failed == 1
        assert (await mirror(*names)).failed == 1
        assert (mirror.target / "x").is_dir() is (kept == "directory")


@pytest.mark.parametrize(
    "names", [("P/", "Q/n"), ("Q/n", "P/"), ("P/", "Q/n", "R/n2"), ("P/", "Q/file"), ("Q/link", "P/")]
)
async def test_a_directory_is_finished_when_nobody_puts_anything_into_it_any_more(
    mirror: Mirror, names: tuple[str, ...]
) -> None:
    two(mirror, "P/f", "Q/n/f", "R/n2/f", "Q/file")
    (mirror.source / "Q/link").symlink_to("file")
    for name in ("P", "Q/n", "R/n2"):
        directory(mirror.source / name, 0o755, 5)
    await both(mirror, *names)
    assert mirror.target.stat().st_mtime_ns == 5
    assert await both(mirror, *names) == []
    # And when the first source has nothing more to do.
    clear(mirror, "n", "n2", "file", "link")
    directory(mirror.target, 0o755, 5)
    await both(mirror, *names)
    assert mirror.target.stat().st_mtime_ns == 5
    assert await both(mirror, *names) == []
    for name in ("n", "n2"):
        if (mirror.target / name).exists():
            assert (mirror.target / name).stat().st_mtime_ns == 5


@pytest.mark.parametrize(
    "names", [("P/", "Q/n"), ("Q/n", "P/"), ("P/", "Q/"), ("P/", "Q/file"), ("Q/link", "P/", "Q/n")]
)
async def test_a_place_that_the_first_of_them_makes_is_told_beforehand(
    side: Side, direction: str, names: tuple[str, ...]
) -> None:
    near, far = (side.there, side.served) if direction == "up" else (side.served, side.there)
    for name in ("P/f", "P/n/p", "Q/n/q", "Q/file"):
        path = near / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    (near / "Q/link").symlink_to("file")
    for name in ("P/n", "P", "Q/n"):
        directory(near / name, 0o750, 5)
    told: list[list[tuple[str, str]]] = []
    for dry in (True, False):
        side.events.clear()
        report = Report(side.observe)
        transfer = Transfer(side.client, Options(dry_run=dry, durability=Durability.NONE), report, Run())
        up = direction == "up"
        sources: list[Local | Remote] = [
            Local(str(near / name.rstrip("/")), name[-1] == "/") if up else side.client._place(name) for name in names
        ]
        await transfer.run(sources, side.client._place("new") if up else Local(str(far / "new")))
        assert not report.failed
        found = [(one.action, one.path) for one in side.of(WouldDo) if one.action != "send"]
        for event in side.events:
            if isinstance(event, NamesChanged):
                found += [(one.action, one.path) for one in event.each()]
            elif isinstance(event, Changed):
                found.append((event.action, event.path))
        told.append(sorted(found))
    assert told[0] == told[1]
    top = (far / "new").stat()
    assert (top.st_mode & 0o777, top.st_mtime_ns) == (0o750, 5)
    assert (far / "new/f").read_bytes() == b"1"
