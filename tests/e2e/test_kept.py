"""What a transfer keeps of files beside their bytes, both ways, by the command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .kit import MIB, Url, finish, good, inventory, run
from .test_resume import start_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.relay import Relay

DIRECTIONS = ["up", "down"]


@pytest.fixture(params=DIRECTIONS)
def direction(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Way:
    """One direction: where to make the source, where it arrives, and the words of the command between."""

    def __init__(self, direction: str, served: Path, there: Path) -> None:
        self.up = direction == "up"
        self.source, self.target = (there / "tree", served / "tree") if self.up else (served / "tree", there / "tree")

    def words(self, url: Callable[[str], str]) -> list[str]:
        if self.up:
            return [f"{self.source}/", url("tree")]
        return [url("tree/"), os.fspath(self.target)]


@pytest.fixture
def way(direction: str, served: Path, there: Path) -> Way:
    return Way(direction, served, there)


def linked_tree(root: Path) -> Path:
    """Files with several names: small and large ones, empty ones, in and across directories."""
    (root / "a/deep").mkdir(parents=True)
    (root / "z").mkdir()
    (root / "a/small").write_bytes(os.urandom(5000))
    (root / "a/empty").write_bytes(b"")
    (root / "a/large").write_bytes(os.urandom(9 * MIB))
    (root / "a/alone").write_bytes(b"one name")
    for name in ("small", "empty", "large"):
        for place in ("a/also ", "a/deep/", "z/", ""):
            os.link(root / "a" / name, root / f"{place}{name}")
        (root / f"{name}.link").symlink_to(f"a/{name}")
    os.utime(root / "z", ns=(1, 1_000_000_000_000_000_001))
    return root


def names_of(root: Path) -> set[frozenset[str]]:
    """The groups of names that belong to one file each."""
    found: dict[int, set[str]] = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found.setdefault(path.stat().st_ino, set()).add(str(path.relative_to(root)))
    return {frozenset(names) for names in found.values()}


# ---- hard links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--durability", "file"], ["-j", "4", "--durability", "none"]])
def test_files_with_several_names_arrive_as_that_and_once(url: Url, way: Way, options: list[str]) -> None:
    linked_tree(way.source)
    summary = good("transfer", "--json", *options, *way.words(url)).summary
    assert inventory(way.target) == inventory(way.source)
    assert names_of(way.target) == names_of(way.source)
    assert summary["bytes_sent"] == 5000 + 9 * MIB + 8
    assert (summary["files"], summary["failed"]) == (16, 0)
    again = good("transfer", "--json", *options, *way.words(url)).summary
    assert (again["files"], again["bytes_sent"]) == (0, 0)
    assert names_of(way.target) == names_of(way.source)


def test_equal_files_that_were_apart_are_joined(url: Url, way: Way) -> None:
    linked_tree(way.source)
    good("transfer", *way.words(url))
    for name in ("a/deep/small", "z/large"):
        content = (way.target / name).read_bytes()
        facts = (way.target / name).stat()
        (way.target / name).unlink()
        (way.target / name).write_bytes(content)
        (way.target / name).chmod(facts.st_mode & 0o777)
        os.utime(way.target / name, ns=(1, facts.st_mtime_ns))
    outcome = good("transfer", "--json", *way.words(url))
    assert outcome.summary["bytes_sent"] == 0
    assert {event["path"] for event in outcome.events if event["event"] == "file_linked"} == {"a/deep/small", "z/large"}
    assert names_of(way.target) == names_of(way.source)
    assert inventory(way.target)["z/large"] == inventory(way.source)["z/large"]


def test_nothing_is_written_through_a_link_at_the_destination(url: Url, way: Way) -> None:
    linked_tree(way.source)
    good("transfer", *way.words(url))
    kept = way.target.parent / "kept"
    os.link(way.target / "a/small", kept)
    before = kept.read_bytes()
    (way.source / "a/small").write_bytes(b"edited in place")
    good("transfer", *way.words(url))
    assert kept.read_bytes() == before
    assert inventory(way.target) == inventory(way.source)
    assert names_of(way.target) == names_of(way.source)


def test_a_dry_run_says_what_would_be_linked(url: Url, way: Way) -> None:
    linked_tree(way.source)
    dry = good("transfer", "-n", "--json", *way.words(url))
    would = [event["path"] for event in dry.events if event.get("action") == "make hard link"]
    assert len(would) == 12
    assert dry.summary["files"] == 16
    assert not way.target.exists()


def test_links_go_into_the_manifest(url: Url, way: Way, there: Path) -> None:
    linked_tree(way.source)
    manifest = there / "m"
    good("transfer", "--manifest", manifest, *way.words(url))
    assert good("verify", "--manifest", manifest, way.target).status == 0
    (way.target / "z/small").unlink()
    assert run("verify", "--manifest", manifest, way.target).status


def test_links_are_made_after_the_connection_was_lost(relay: Relay, way: Way) -> None:
    linked_tree(way.source)
    client = start_until(
        relay, "up" if way.up else "down", 4 * MIB, "transfer", "--json", *way.words(Url(relay.address))
    )
    relay.leave_behind()
    relay.cut(0)
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert inventory(way.target) == inventory(way.source)
    assert names_of(way.target) == names_of(way.source)
    assert (outcome.summary["files"], outcome.summary["failed"]) == (16, 0)
