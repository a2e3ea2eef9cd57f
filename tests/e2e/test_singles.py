"""Many files named one by one: they travel together, and are judged and told of one by one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .kit import Outcome, Url, good, inventory, run

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 60


@pytest.fixture(params=["up", "down"])
def near(request: pytest.FixtureRequest, there: Path, served: Path) -> Path:
    """Where the files are: here, or at the server."""
    return there if request.param == "up" else served


@pytest.fixture
def names(near: Path) -> list[str]:
    names = [f"note-{number}.txt" for number in range(COUNT)]
    for number, name in enumerate(names):
        (near / name).write_bytes(os.urandom(number * 100))
        os.utime(near / name, ns=(1, 10**18 + number))
    (near / names[3]).chmod(0o600)
    return names


@pytest.fixture
def far(near: Path, served: Path, tmp_path: Path) -> Path:
    path = tmp_path / "taken" if near == served else served / "into"
    path.mkdir()
    return path


def words(url: Url, near: Path, far: Path, served: Path, names: list[str]) -> list[str]:
    if near == served:
        return ["transfer", "--json", *[url(name) for name in names], f"{far}/"]
    return ["transfer", "--json", *[str(near / name) for name in names], url(f"{far.name}/")]


def of(outcome: Outcome, event: str) -> dict[str, dict[str, object]]:
    return {one["path"]: one for one in outcome.events if one["event"] == event}


def test_all_arrive_with_what_belongs_to_them(
    url: Url, near: Path, far: Path, served: Path, names: list[str], tmp_path: Path
) -> None:
    command = words(url, near, far, served, names)
    outcome = good(*command, "--manifest", str(tmp_path / "sums"))
    assert {name: inventory(near)[name] for name in names} == inventory(far)
    done = of(outcome, "file_done")
    assert set(done) == set(names)
    assert all(done[name]["bytes_sent"] == (near / name).stat().st_size for name in names)
    assert outcome.summary["files"] == COUNT
    good("verify", str(far), "--manifest", str(tmp_path / "sums"))
    again = good(*command).summary
    assert (again["skipped"], again["files"], again["bytes_sent"]) == (COUNT, 0, 0)


def test_each_is_judged_by_itself(url: Url, near: Path, far: Path, served: Path, names: list[str]) -> None:
    command = words(url, near, far, served, names)
    (near / names[7]).write_bytes(os.urandom(300_000))  # too large for a pack
    (far / names[5]).mkdir()
    (far / names[6]).write_bytes((near / names[6]).read_bytes())
    os.utime(far / names[6], ns=(1, (near / names[6]).stat().st_mtime_ns))
    (far / names[6]).chmod((near / names[6]).stat().st_mode & 0o777)
    outcome = run(*command)
    assert outcome.status != 0
    assert set(of(outcome, "error")) == {names[5]}
    assert (outcome.summary["files"], outcome.summary["skipped"], outcome.summary["failed"]) == (COUNT - 2, 1, 1)
    assert (far / names[7]).read_bytes() == (near / names[7]).read_bytes()


def test_a_rehearsal_tells_of_each_and_moves_none(
    url: Url, near: Path, far: Path, served: Path, names: list[str]
) -> None:
    outcome = good(*words(url, near, far, served, names), "-n")
    assert inventory(far) == {}
    assert outcome.summary["files"] == COUNT


def test_into_a_directory_that_is_not_there(url: Url, near: Path, far: Path, served: Path, names: list[str]) -> None:
    far.rmdir()
    outcome = good(*words(url, near, far, served, names))
    assert {name: inventory(near)[name] for name in names} == inventory(far)
    assert outcome.summary["files"] == COUNT
