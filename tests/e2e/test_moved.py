"""Files that have moved: what the destination has under another name is copied there, by its manifest, and not sent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from .kit import MIB, Outcome, Url, good, inventory

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.relay import Direction, Relay

SIZES = {"chunks": 9 * MIB + 17, "one chunk": 3 * MIB, "spread": 40 * MIB}
"""Of large files: some chunks, less than one, and so many that several connections share it."""

METADATA = 200_000
"""Bytes that pass the network when no content does: names, digests, and what a connection costs."""


class Pair:
    """A tree and its copy beyond a relay, in one direction."""

    def __init__(self, direction: Direction, relay: Relay, near: Path, far: Path, manifest: Path) -> None:
        self.direction = direction
        self.relay = relay
        self.near = near / "tree"
        self.far = far / "tree"
        self.manifest = manifest
        (self.near / "old").mkdir(parents=True)
        for name, size in SIZES.items():
            (self.near / "old" / name).write_bytes(os.urandom(size))
        (self.near / "old" / "small").write_bytes(b"small")

    def transfer(self, *options: str) -> tuple[Outcome, int]:
        """Transfer the tree, and how many bytes that took on the network."""
        url = Url(self.relay.address)
        before = self.relay.passed[self.direction]
        words = (f"{self.near}/", url("tree")) if self.direction == "up" else (url("tree/"), str(self.far))
        outcome = good("transfer", "--json", "--manifest", self.manifest, *options, *words)
        assert inventory(self.near).items() <= inventory(self.far).items()
        return outcome, self.relay.passed[self.direction] - before


def copied(outcome: Outcome) -> dict[str, str]:
    return {event["path"]: event["from"] for event in outcome.events if event["event"] == "file_copied"}


@pytest.fixture(params=("up", "down"))
def pair(request: pytest.FixtureRequest, relay: Relay, served: Path, there: Path) -> Pair:
    near, far = (there, served) if request.param == "up" else (served, there)
    return Pair(request.param, relay, near, far, there / "manifest")


def counts(outcome: Outcome) -> dict[str, Any]:
    return {name: outcome.summary[name] for name in ("bytes_sent", "copied", "failed")}


@pytest.mark.parametrize("connections", ["1", "3"])
def test_a_directory_that_was_renamed_does_not_travel(pair: Pair, connections: str) -> None:
    first, _ = pair.transfer()
    assert counts(first) == {"bytes_sent": sum(SIZES.values()) + 5, "copied": 0, "failed": 0}
    (pair.near / "old").rename(pair.near / "new")
    second, passed = pair.transfer("-j", connections)
    assert copied(second) == {f"new/{name}": f"old/{name}" for name in SIZES}
    assert counts(second) == {"bytes_sent": 5, "copied": 3, "failed": 0}
    assert passed < METADATA
    good("verify", "--manifest", pair.manifest, pair.far)
    assert not list(pair.far.parent.glob(".fsmux")), "nothing is left beside what was copied"


def test_a_single_file_that_was_renamed_does_not_travel(pair: Pair) -> None:
    pair.transfer()
    (pair.near / "old/chunks").rename(pair.near / "elsewhere")
    url = Url(pair.relay.address)
    up = pair.direction == "up"
    words = (pair.near / "elsewhere", url("tree/")) if up else (url("tree/elsewhere"), pair.far)
    before = pair.relay.passed[pair.direction]
    outcome = good("transfer", "--json", "--manifest", pair.manifest, *words)
    assert copied(outcome) == {"elsewhere": "old/chunks"}
    assert (pair.far / "elsewhere").read_bytes() == (pair.near / "elsewhere").read_bytes()
    assert pair.relay.passed[pair.direction] - before < METADATA


def test_a_record_that_is_wrong_makes_no_wrong_file(pair: Pair) -> None:
    """The manifest says that the destination has it; it has something else, with the same size and time, or nothing."""
    pair.transfer()
    facts = (pair.far / "old/chunks").stat()
    (pair.far / "old/chunks").write_bytes(os.urandom(SIZES["chunks"]))
    os.utime(pair.far / "old/chunks", ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    (pair.far / "old/one chunk").unlink()
    (pair.near / "old").rename(pair.near / "new")
    second, _ = pair.transfer()
    assert copied(second) == {"new/spread": "old/spread"}
    assert counts(second)["bytes_sent"] == SIZES["chunks"] + SIZES["one chunk"] + 5


def test_of_a_file_that_rotted_the_rest_is_copied(pair: Pair) -> None:
    pair.transfer()
    facts = (pair.far / "old/chunks").stat()
    with (pair.far / "old/chunks").open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"rotted")
    os.utime(pair.far / "old/chunks", ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    (pair.near / "old").rename(pair.near / "new")
    second, _ = pair.transfer()
    assert "new/chunks" not in copied(second)
    assert counts(second)["bytes_sent"] == 4 * MIB + 5


def test_an_upload_recognises_content_alone(relay: Relay, served: Path, there: Path) -> None:
    pair = Pair("up", relay, there, served, there / "manifest")
    pair.transfer()
    (pair.near / "old").rename(pair.near / "new")
    os.utime(pair.near / "new/chunks", ns=(1, 1))
    (pair.near / "new/one chunk").write_bytes(os.urandom(SIZES["one chunk"]))  # and not size alone
    second, _ = pair.transfer()
    assert copied(second) == {"new/chunks": "old/chunks", "new/spread": "old/spread"}
    assert counts(second)["bytes_sent"] == SIZES["one chunk"] + 5


def test_the_same_content_twice_travels_once(pair: Pair) -> None:
    (pair.near / "old/again").write_bytes((pair.near / "old/chunks").read_bytes())
    os.utime(pair.near / "old/again", ns=(1, (pair.near / "old/chunks").stat().st_mtime_ns))
    outcome, _ = pair.transfer("--streams", "1")
    assert outcome.summary["copied"] == 1
    assert counts(outcome)["bytes_sent"] == sum(SIZES.values()) + 5


def test_no_resume_sends_everything(pair: Pair) -> None:
    pair.transfer()
    (pair.near / "old").rename(pair.near / "new")
    second, _ = pair.transfer("--no-resume")
    assert counts(second) == {"bytes_sent": sum(SIZES.values()) + 5, "copied": 0, "failed": 0}
