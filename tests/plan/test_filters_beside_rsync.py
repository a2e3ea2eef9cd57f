"""The same rules and names come to the same with rsync, wherever rsync is installed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from fsmux.plan.filters import Filters, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsmux.records import Parts

RSYNC = shutil.which("rsync")
SEEDS = 40
NAMES = ("a", "b", "ab", "a.o", "b.o", "dir", "foo", "foobar", "-", "x y", "a[b", "é")
PIECES = (
    *NAMES[:-2],
    "é",
    "a\\[b",
    "*",
    "?",
    "**",
    "a*",
    "*.o",
    "[ab]",
    "[!a]*",
    "[a-f]*",
    "*o*",
    "foo**",
    "**bar",
    "?*",
    "\\a*",
    "[[:alpha:]]",
)


def make_tree(chance: random.Random, root: Path, depth: int = 0) -> None:
    root.mkdir(exist_ok=True)
    for name in chance.sample(NAMES, 5):
        if depth < 3 and chance.random() < 0.5:
            make_tree(chance, root / name, depth + 1)
        else:
            (root / name).touch()


def pattern(chance: random.Random) -> str:
    text = "/".join(chance.choice(PIECES) for _ in range(chance.choice((1, 1, 1, 2, 2, 3))))
    if chance.random() < 0.3:
        text = "/" + text
    ending = chance.random()
    return text + ("/" if ending < 0.2 else "/***" if ending < 0.3 else "/**" if ending < 0.35 else "")


def ours(filters: Filters, root: Path, base: Parts) -> Iterator[bytes]:
    """The names that take part, as a walk asks for them."""
    for entry in os.scandir(os.path.join(os.fsencode(root), *base)):
        parts = (*base, entry.name)
        if filters.keeps(parts, entry.is_dir()):
            yield b"/".join(parts)
            if entry.is_dir():
                yield from ours(filters, root, parts)


def theirs(rules: list[Rule], source: str, where: Path) -> set[bytes]:
    words = [f"--{'include' if rule.include else 'exclude'}={rule.pattern}" for rule in rules]
    assert RSYNC is not None
    run = subprocess.run(
        [RSYNC, "-rn8", "--out-format=%n", *words, source, str(where / "nowhere") + "/"],
        capture_output=True, check=True, cwd=where,
    )  # fmt: skip
    return {line.rstrip(b"/") for line in run.stdout.splitlines() if line.rstrip(b"/") not in (b"", b".")}


@pytest.mark.skipif(RSYNC is None, reason="rsync is not installed here, so there is nothing to compare with")
@pytest.mark.parametrize("by_name", [False, True], ids=["contents", "by name"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_takes_part_is_what_rsync_takes(tmp_path: Path, seed: int, by_name: bool) -> None:
    chance = random.Random(seed)
    make_tree(chance, tmp_path / "src")
    for _ in range(6):
        rules = [Rule(chance.random() < 0.4, pattern(chance)) for _ in range(chance.randint(1, 4))]
        if by_name and chance.random() < 0.5:
            rules.insert(0, Rule(chance.random() < 0.4, "/src/" + pattern(chance).lstrip("/")))
        filters = Filters(rules)
        if by_name:
            found = set(ours(filters, tmp_path, ())) if filters.keeps((b"src",), True) else set()
            found = {name for name in found if name == b"src" or name.startswith(b"src/")}
        else:
            found = set(ours(filters, tmp_path / "src", ()))
        expected = theirs(rules, "src" if by_name else "src/", tmp_path)
        assert found == expected, (rules, sorted(found ^ expected)[:10])
