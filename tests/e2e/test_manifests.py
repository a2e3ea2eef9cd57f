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
    resumed = outcome.summary["bytes_resumed"]
    assert 0 < resumed <= said["bytes_read"] < resumed + 3 * MIB, "what it held, by whole chunks"
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


def test_a_run_that_is_stopped_keeps_what_it_has_brought(relay: Relay, served: Path, there: Path) -> None:
    (there / "tree").mkdir()
    (there / "tree/a").write_text("small")
    (there / "tree/b").write_bytes(os.urandom(9 * MIB))
    words = ("transfer", "--json", "--streams", "1", "--manifest", there / "m", there / "tree", Url(relay.address)(""))
    process = start_until(relay, "up", 6 * MIB, *words, into=served)
    while '"file_done"' not in process.output_until_now():  # the small one; the other one is held back
        assert not process.ended(0.01), finish(process)
    end(process, relay, signal.SIGTERM)
    assert set(records(there / "m")) == {b"tree/a"}
    good(*words)
    good("verify", "--extra", "--manifest", there / "m", served)


def test_an_edited_file_gets_the_record_of_what_it_is_now(url: Url, served: Path, there: Path) -> None:
    words = ("transfer", "--json", "--chunk-size", "1MiB", "--manifest", there / "m", there / "a", url("a"))
    (there / "a").write_bytes(os.urandom(5 * MIB))
    good(*words)
    with (there / "a").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"edited")
    outcome = good(*words)
    assert (outcome.summary["bytes_sent"], kept(outcome)["bytes_read"]) == (CHUNK, 4 * MIB)
    good("verify", "--manifest", there / "m", served / "a")


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_what_is_no_file_any_more_has_no_record(
    url: Url, served: Path, there: Path, direction: str, slash: str
) -> None:
    """By itself and in a tree; whether this run replaces it or finds it replaced."""
    near, far = (there, served) if direction == "up" else (served, there)
    for top in (near / "s", far / "d"):
        (top / "k").mkdir(parents=True)
        (top / "k" / "file").write_text("1")
        (top / "was").write_text("1")
        (top / "will").write_text("1")
        os.utime(top / "was", ns=(5, 5))
        os.utime(top / "will", ns=(5, 5))
    names = ["s/"] if slash else ["s/was", "s/will", "s/k"]
    sources = [f"{there}/{name}" if direction == "up" else url(name) for name in names]
    words = ("transfer", "--manifest", there / "m", *sources, url("d/") if direction == "up" else f"{there}/d/")
    good(*words)
    assert set(records(there / "m")) == {b"k/file", b"was", b"will"}
    for top in (near / "s", far / "d"):
        (top / "was").unlink()
        (top / "was").symlink_to("k")
    (near / "s/will").unlink()
    (near / "s/will").symlink_to("k")
    good(*words)
    assert (far / "d/will").is_symlink()
    assert set(records(there / "m")) == {b"k/file"}
    good("verify", "--manifest", there / "m", far / "d")


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


# ---- repairing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(url: Url, served: Path, there: Path) -> Path:
    """A copy of what is served, and its manifest ``there / "m"``."""
    make_tree(served)
    (served / "big").write_bytes(os.urandom(8 * MIB + 5))
    good("transfer", "--chunk-size", "1MiB", "--manifest", there / "m", url("/"), there / "copy")
    return there / "copy"


def said(outcome: Outcome, event: str) -> list[dict[str, Any]]:
    return [found for found in outcome.events if found["event"] == event]


def test_a_repair_fetches_what_is_wrong_and_nothing_else(url: Url, served: Path, there: Path, copied: Path) -> None:
    spoil(copied / "big", 3 * CHUNK, 8 * MIB)
    with (copied / "deep/chunks.bin").open("r+b") as file:
        file.truncate(7 * MIB + 1)
    (copied / "plain.txt").unlink()
    (copied / "deep/er/still/one.bin").unlink()
    (copied / "deep/er/still").rmdir()
    times = {path: path.stat().st_mtime_ns for path in (copied, *copied.rglob("*")) if path.is_dir()}
    words = ("transfer", "--json", "--repair", "--manifest", there / "m", url("/"), copied)
    outcome = good(*words)
    assert {found["path"] for found in said(outcome, "damaged")} == {"big", "deep/chunks.bin"}
    assert {found["path"] for found in said(outcome, "missing")} == {"plain.txt", "deep/er/still/one.bin"}
    sent = {found["path"]: found["bytes_sent"] for found in said(outcome, "repaired")}
    assert sent == {"big": CHUNK + 5, "deep/chunks.bin": 2 * MIB + 16, "plain.txt": 5, "deep/er/still/one.bin": 70_000}
    assert outcome.summary["bytes_sent"] == sum(sent.values())
    good("verify", "--extra", "--manifest", there / "m", copied)
    for name in sent:
        assert (copied / name).read_bytes() == (served / name).read_bytes()
        assert (copied / name).stat().st_mtime_ns == (served / name).stat().st_mtime_ns
    assert not (copied / ".fsmux").exists()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    again = good(*words)
    assert not said(again, "repaired")
    assert not said(again, "file_start"), "nobody is even asked"


def test_one_file_is_repaired_under_the_name_it_has_here(url: Url, served: Path, there: Path) -> None:
    (served / "a").write_bytes(os.urandom(3 * MIB))
    good("transfer", "--chunk-size", "1MiB", "--manifest", there / "m", url("a"), there / "b")
    spoil(there / "b", 2 * MIB)
    outcome = good("transfer", "--json", "--repair", "--manifest", there / "m", url("a"), there / "b")
    assert outcome.summary["bytes_sent"] == CHUNK
    assert (there / "b").read_bytes() == (served / "a").read_bytes()


def test_each_file_comes_from_the_source_that_has_it(url: Url, served: Path, there: Path) -> None:
    for name in ("one", "two"):
        (served / name).mkdir()
        (served / name / name).write_text(name)
    words = ("--manifest", there / "m", url("one"), url("two"), there / "into/")
    good("transfer", *words)
    for name in ("one", "two"):
        (there / "into" / name / name).write_text("changed")
    good("transfer", "--repair", *words)
    assert (there / "into/two/two").read_text() == "two"
    (there / "into/two/two").unlink()
    outcome = run("transfer", "--repair", "--manifest", there / "m", url("one"), there / "into/")
    assert outcome.status == ExitCode.SOURCE
    assert "none of the sources" in outcome.err


@pytest.mark.parametrize("where", [3 * CHUNK, 5 * CHUNK])
def test_a_source_that_is_damaged_too_replaces_nothing(
    url: Url, served: Path, there: Path, copied: Path, where: int
) -> None:
    """In another place than the copy, and in the same."""
    spoil(copied / "big", 3 * CHUNK)
    spoil(served / "big", 3 * CHUNK)
    spoil(served / "big", where + 1)
    before = (copied / "big").read_bytes()
    outcome = run("transfer", "--repair", "--manifest", there / "m", url("/"), copied)
    assert outcome.status == ExitCode.INTEGRITY
    assert "big: the source has other bytes than the manifest says" in outcome.err
    assert (copied / "big").read_bytes() == before


def test_a_source_with_the_very_same_damage_is_no_help(url: Url, served: Path, there: Path, copied: Path) -> None:
    for side in (copied, served):
        spoil(side / "big", 3 * CHUNK)
    outcome = run("transfer", "--repair", "--manifest", there / "m", url("/"), copied)
    assert outcome.status == ExitCode.INTEGRITY
    assert "the same damage" in outcome.err


def test_a_source_that_has_changed_is_not_taken_for_a_repair(url: Url, served: Path, there: Path, copied: Path) -> None:
    spoil(copied / "big", 0)
    (served / "big").write_text("another version")
    before = (copied / "big").read_bytes()
    outcome = run("transfer", "--repair", "--manifest", there / "m", url("/"), copied)
    assert outcome.status == ExitCode.SOURCE
    assert "another version" in outcome.err
    assert (copied / "big").read_bytes() == before


def test_a_repair_that_is_killed_leaves_the_old_file_and_goes_on(
    relay: Relay, served: Path, there: Path, copied: Path
) -> None:
    spoil(copied / "big", *range(0, 8 * MIB, CHUNK))
    before = (copied / "big").read_bytes()
    words = ("transfer", "--json", "--repair", "--manifest", there / "m", Url(relay.address)("/"), copied)
    end(start_until(relay, "down", 5 * MIB, *words, into=copied), relay, signal.SIGKILL)
    assert (copied / "big").read_bytes() == before
    outcome = good(*words)
    assert (copied / "big").read_bytes() == (served / "big").read_bytes()
    assert outcome.summary["bytes_sent"] <= 6 * MIB


def test_a_repair_outlives_its_connection(relay: Relay, served: Path, there: Path, copied: Path) -> None:
    spoil(copied / "big", *range(0, 8 * MIB, CHUNK))
    (copied / "plain.txt").unlink()
    words = ("transfer", "--json", "--repair", "--manifest", there / "m", Url(relay.address)("/"), copied)
    process = start_until(relay, "down", 5 * MIB, *words)
    relay.cut(0)
    relay.go_on()
    outcome = finish(process)
    assert outcome.status == 0, outcome.err
    assert sorted(found["path"] for found in said(outcome, "repaired")) == ["big", "plain.txt"]
    assert len(said(outcome, "plan")) == 2, "one of the check, one of the repair"
    good("verify", "--manifest", there / "m", copied)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--repair", "REMOTE", "HERE"], "--repair needs --manifest FILE"),
        (["--repair", "--manifest", "M", "HERE", "REMOTE"], "must be on this machine"),
        (["--repair", "--manifest", "M", "-n", "REMOTE", "HERE"], "does not go with"),
        (["--repair", "--manifest", "M", "--exclude", "x", "REMOTE", "HERE"], "does not go with"),
        (["--repair", "--manifest", "M", "--files-from", "m", "REMOTE", "HERE"], "does not go with"),
        (["--repair", "--manifest", "nothing", "REMOTE", "HERE"], "nothing: no such file"),
        (["--repair", "--manifest", "M", "REMOTE", "nowhere"], "nowhere: no such file"),
    ],
)
def test_a_repair_that_cannot_be_says_why(
    url: Url, there: Path, copied: Path, words: Sequence[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    places = {"REMOTE": url("/"), "HERE": "copy", "M": "m"}
    outcome = run("transfer", *(places.get(word, word) for word in words))
    assert outcome.status in (ExitCode.USAGE, ExitCode.SOURCE)
    assert sentence in outcome.sentence


def test_what_is_no_manifest_is_not_replaced_by_one(tmp_path: Path, there: Path) -> None:
    (there / "file").write_text("content")
    (tmp_path / "precious").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("precious", "pipe"):
        outcome = run("verify", "--create", tmp_path / name, there)
        assert outcome.status == 2, outcome
        assert "manifest" in outcome.sentence
    assert (tmp_path / "precious").read_text() == "mine"
    for _ in range(2):
        good("verify", "--create", tmp_path / "sums", there)
    good("verify", there, "--manifest", tmp_path / "sums")
