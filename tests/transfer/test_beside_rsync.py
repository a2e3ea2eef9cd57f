"""Random trees, options and filters: a dry run tells what a real one does, and what stands in the end is what rsync
makes of the same, wherever rsync is installed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fsmux.events import FileDone, FileFailed, FilesDone, FileSkipped, FilesSkipped, WouldDo
from fsmux.limits import MEDIUM_FILE
from fsmux.plan.filters import Filters, Rule

from .test_delete import Mirror
from .test_trees import inventory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .kit import Move

RSYNC = shutil.which("rsync")
SEEDS = 40
NAMES = ("a", "b", "c.o", "d", "e.o", "keep")
RULES = ("- *.o", "- keep", "+ a", "- /b/", "- b/***", "+ */", "- d/*", "+ /a/**", "- a/?", "- keep/")


@pytest.fixture
def mirror(move: Move) -> Mirror:
    return Mirror(move.side, move.direction)


def grow(chance: random.Random, root: Path, depth: int = 0) -> None:
    """A tree of few names, so that two of them meet everywhere; times are whole seconds, and few as well."""
    root.mkdir(exist_ok=True)
    for name in chance.sample(NAMES, chance.randint(0, len(NAMES))):
        path, kind = root / name, chance.random()
        if kind < 0.35 and depth < 3:
            grow(chance, path, depth + 1)
        elif kind < 0.45:
            path.symlink_to(chance.choice(NAMES))
        else:
            size = MEDIUM_FILE + 1 if kind > 0.97 else chance.randint(0, 2)
            path.write_bytes(bytes([chance.randint(0, 1)]) * size)
            path.chmod(chance.choice((0o644, 0o600)))
            os.utime(path, ns=(1, 10**9 * chance.randint(10**9, 10**9 + 2)))
    root.chmod(chance.choice((0o755, 0o700)))
    os.utime(root, ns=(1, 10**9 * chance.randint(10**9, 10**9 + 2)))


def settled(root: Path) -> dict[str, tuple[object, ...]]:
    """What stands there, but for the time of the test in directories that stay for what is protected in them."""
    found = inventory(root)
    for name, kept in found.items():
        if len(kept) == 3 and kept[2] is None and int(str(kept[1])) > 10**9 * (10**9 + 2):
            found[name] = (kept[0], None, None)
    return found


def told(mirror: Mirror) -> list[tuple[str, str]]:
    """What was done, in the words of a dry run, and what was not done and why."""
    side = mirror.side
    found = mirror.would + mirror.changed + [("send", event.path) for event in side.of(FileDone)]
    for event in side.of(FilesDone):
        found += [("send", one.path) for one in event.each()]
    for event in side.of(FilesSkipped):
        found += [(one.reason, one.path) for one in event.each()]
    found += [(event.reason, event.path) for event in side.of(FileSkipped)]
    return sorted(found + [(event.code, event.path) for event in side.of(FileFailed)])


def rsync(rules: Sequence[str], options: dict[str, Any], where: Path, sources: Sequence[str], target: Path) -> int:
    words = [f"--filter={rule}" for rule in rules]
    words += [f"--{name}" for name, wanted in options.items() if wanted]
    assert RSYNC is not None
    return subprocess.run([RSYNC, "-rlpt", *words, *sources, f"{target}/"], cwd=where, capture_output=True).returncode


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_dry_run_a_real_one_and_rsync_agree(mirror: Mirror, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    grow(chance, mirror.source / "one")
    grow(chance, mirror.target)
    shutil.copytree(mirror.target, tmp_path / "beside", symlinks=True)
    rules = chance.sample(RULES, chance.choice((0, 0, 1, 2, 3)))
    names = [chance.choice(("one/", "one"))]
    options = {name: chance.random() < 0.5 for name in ("delete", "update", "checksum")}
    before = inventory(mirror.target)
    filters = Filters([Rule(rule[0] == "+", rule[2:]) for rule in rules])
    dry = await mirror(*names, dry_run=True, filters=filters, **options)
    would = told(mirror)
    assert inventory(mirror.target) == before
    real = await mirror(*names, filters=filters, **options)
    assert told(mirror) == would
    assert not mirror.side.of(WouldDo)
    counts = [(one.files, one.bytes, one.skipped, one.failed, one.deleted) for one in (dry, real)]
    assert counts[0] == counts[1]
    again = await mirror(*names, filters=filters, **options)
    if not real.failed:
        assert (again.files, again.deleted, mirror.changed) == (0, 0, [])
    if RSYNC is None:
        pytest.skip("rsync is not installed here, so there is nothing to compare with")
    if rsync(rules, options, mirror.source, names, tmp_path / "beside") == 0 and not real.failed:
        assert settled(mirror.target) == settled(tmp_path / "beside")


@pytest.mark.parametrize("seed", range(12))
async def test_several_sources_agree_with_their_dry_run(mirror: Mirror, seed: int) -> None:
    chance = random.Random(seed)
    for name in ("one", "two", "three"):
        grow(chance, mirror.source / name)
    (mirror.source / "single").write_bytes(b"1")
    grow(chance, mirror.target)
    if chance.random() < 0.5:
        grow(chance, mirror.target / "three")
    names = ["one/", *chance.sample(["two/", "three", "single"], chance.randint(0, 3))]
    options = {name: chance.random() < 0.7 for name in ("delete", "update", "checksum")}
    dry = await mirror(*names, dry_run=True, **options)
    would = told(mirror)
    real = await mirror(*names, **options)
    assert told(mirror) == would
    assert (dry.files, dry.skipped, dry.failed, dry.deleted) == (real.files, real.skipped, real.failed, real.deleted)
