"""Manifests by the command: kept while files travel, compared with what stands, repaired from the other side."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from fsmux.errors import ExitCode

from .kit import MIB, Outcome, Url, finish, good, make_tree, run, visible
from .test_resume import end, start_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.relay import Direction, Relay

CHUNK = 1 * MIB


def records(path: Path) -> dict[bytes, bytes]:
    """The lines of a manifest about each file."""
    found: dict[bytes, bytes] = {}
    name = b""
    for line in path.read_bytes().splitlines(keepends=True)[1:-1]:
        if not line.startswith(b" "):
            name = line.split(b" ", 4)[4].rstrip(b"\n")
        found[name] = found.get(name, b"") + line
    return found


def kept(outcome: Outcome) -> dict[str, Any]:
    """What is said of the manifest that was kept."""
    (event,) = [event for event in outcome.events if event["event"] == "manifest"]
    return event


def spoil(path: Path, *offsets: int) -> None:
    """Change bytes and nothing else, as a disk does."""
    facts = path.stat()
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            before = file.read(1)
            file.seek(offset)
            file.write(bytes([before[0] ^ 0x80]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.fixture
def tree(there: Path) -> Path:
    path = make_tree(there / "tree")
    (path / "deep/medium").write_bytes(os.urandom(700_000))
    return path


@pytest.mark.parametrize("connections", ["1", "3"])
def test_a_manifest_is_kept_at_no_second_read_both_ways(
    url: Url, served: Path, there: Path, tree: Path, connections: str
) -> None:
    words = ("transfer", "--json", "-j", connections, "--manifest")
    up = kept(good(*words, there / "up", f"{tree}/", url("copy")))
    down = kept(good(*words, there / "down", url("copy/"), there / "back"))
    good("verify", "--create", there / "made", tree)
    assert records(there / "up") == records(there / "down") == records(there / "made")
    assert up["files"] == down["files"] == len(records(there / "made")) == 11
    if connections == "1":
        assert up["bytes_read"] == down["bytes_read"] == 0
    good("verify", "--extra", "--manifest", there / "up", served / "copy")
    good("verify", "--extra", "--manifest", there / "up", there / "back")


def test_names_are_those_at_the_destination(url: Url, served: Path, there: Path) -> None:
    (there / "dir").mkdir()
    (there / "dir/a").write_text("a")
    (there / "b").write_text("b")
    good("transfer", "--manifest", there / "m", there / "dir", there / "b", url("into/"))
    assert set(records(there / "m")) == {b"dir/a", b"b"}
    good("verify", "--extra", "--manifest", there / "m", served / "into")
    good("transfer", "--manifest", there / "n", url("into/b"), there / "new")
    assert set(records(there / "n")) == {b"new"}
    good("verify", "--manifest", there / "n", there / "new")
    good("transfer", "--manifest", there / "o", there / "b", url("other"))
    assert set(records(there / "o")) == {b"other"}


def test_what_is_up_to_date_keeps_its_record_or_is_read_once(url: Url, there: Path, tree: Path) -> None:
    words = ("transfer", "--json", f"{tree}/", url("copy"), "--manifest")
    good(*words, there / "m")
    before = (there / "m").read_bytes()
    spoil(tree / "deep/chunks.bin", 5 * MIB)
    (tree / "new").write_text("new")
    again = kept(good(*words, there / "m"))
    assert again["bytes_read"] == 0
    assert {*records(there / "m")} - {*before} >= {b"new"}
    outcome = run("verify", "--manifest", there / "m", tree)
    assert outcome.status == ExitCode.INTEGRITY, "the record is that of the transfer, so what rotted since shows"
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    assert kept(good(*words, there / "fresh"))["bytes_read"] == size


def test_one_manifest_serves_several_transfers_to_a_place(url: Url, served: Path, there: Path) -> None:
    for name in ("a", "b"):
        (there / name).write_text(name)
        good("transfer", "--manifest", there / "m", there / name, url("into/"))
    good("verify", "--extra", "--manifest", there / "m", served / "into")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_resumed_file_is_read_where_it_was_held_and_that_is_said(
    relay: Relay, served: Path, there: Path, direction: Direction, number: int
) -> None:
    content = os.urandom(12 * MIB + 5)
    ((there if direction == "up" else served) / "a").write_bytes(content)
    (there / "small").mkdir()
    url = Url(relay.address)
    places = [there / "a", url("b")] if direction == "up" else [url("a"), there / "b"]
    words = ("transfer", "--json", "--chunk-size", "1MiB", "--manifest", there / "m", *places)
    receiving = served if direction == "up" else there
    end(start_until(relay, direction, 7 * MIB, *words, into=receiving), relay, number)
    assert not (there / "m").exists()
    outcome = good(*words)
    said = kept(outcome)
    assert said["bytes_read"] == outcome.summary["bytes_resumed"] > 0
    good("verify", "--manifest", there / "m", receiving / "b")


def test_a_lost_connection_costs_no_record(relay: Relay, served: Path, there: Path) -> None:
    for number in range(6):
        (there / "tree").mkdir(exist_ok=True)
        (there / f"tree/{number}").write_bytes(random.Random(number).randbytes(3 * MIB))
    words = ("transfer", "--json", "--manifest", there / "m", there / "tree", Url(relay.address)(""))
    process = start_until(relay, "up", 8 * MIB, *words)
    relay.cut(0)
    relay.go_on()
    outcome = finish(process)
    assert outcome.status == 0, outcome.err
    assert kept(outcome)["files"] == 6
    good("verify", "--extra", "--manifest", there / "m", served)


def test_a_dry_run_keeps_nothing(url: Url, there: Path) -> None:
    (there / "a").write_text("a")
    good("transfer", "-n", "--manifest", there / "m", there / "a", url("a"))
    assert not (there / "m").exists()


@pytest.mark.parametrize(
    ("more", "text", "words"),
    [
        ([], b"precious notes\n", "not a manifest"),
        (["--chunk-size", "1MiB"], b"fsmux-manifest 1 xxh3-128 4194304\n", "cut"),
    ],
)
def test_what_is_no_manifest_is_not_overwritten(
    url: Url, served: Path, there: Path, more: Sequence[str], text: bytes, words: str
) -> None:
    (there / "a").write_text("a")
    (there / "m").write_bytes(text)
    outcome = run("transfer", *more, "--manifest", there / "m", there / "a", url("a"))
    assert outcome.status == ExitCode.USAGE
    assert words in outcome.sentence
    assert (there / "m").read_bytes() == text
    assert visible(served) == set()


def test_a_manifest_with_other_chunks_is_refused_with_what_to_do(url: Url, there: Path) -> None:
    (there / "a").write_text("a")
    words = ("transfer", "--manifest", there / "m", there / "a", url("a"))
    good(*words, "--chunk-size", "1MiB")
    outcome = run(*words)
    assert outcome.status == ExitCode.USAGE
    assert "--chunk-size 1MiB" in outcome.sentence
    good(*words, "--chunk-size", "1MiB")


def test_a_place_that_cannot_be_written_is_found_out_first(url: Url, served: Path, there: Path) -> None:
    (there / "a").write_text("a")
    outcome = run("transfer", "--manifest", there / "no/where", there / "a", url("a"))
    assert outcome.status == ExitCode.SOURCE
    assert "no/where" in outcome.sentence
    assert visible(served) == set()
