"""Files and directories, both ways, by the command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks.processes import fsmux_server
from fsmux.errors import ExitCode

from .kit import MIB, Url, finish, good, inventory, make_tree, run, start, visible, wait_until_tidy

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.relay import Relay


@pytest.mark.parametrize("size", [0, 1, 4 * MIB, 4 * MIB + 1, 21 * MIB])
def test_one_file_goes_up_and_comes_back(url: Url, served: Path, there: Path, size: int) -> None:
    content = os.urandom(size)
    (there / "a").write_bytes(content)
    summary = good("transfer", "--json", there / "a", url("b")).summary
    assert (served / "b").read_bytes() == content
    assert (summary["files"], summary["bytes"], summary["bytes_sent"], summary["bytes_resumed"]) == (1, size, size, 0)
    good("transfer", url("b"), there / "c")
    assert (there / "c").read_bytes() == content
    assert visible(served) == {"b"}
    wait_until_tidy(served)
    assert not (there / ".fsmux").exists()


def test_a_tree_goes_up_and_comes_back_with_everything_that_is_kept(url: Url, served: Path, there: Path) -> None:
    tree = make_tree(there / "tree")
    good("transfer", f"{tree}/", url("copy"))
    assert inventory(served / "copy") == inventory(tree)
    good("transfer", url("copy/"), there / "back")
    assert inventory(there / "back") == inventory(tree)


def test_what_comes_to_the_depth_of_a_tree_leaves_the_time_of_its_top(url: Url, served: Path, there: Path) -> None:
    """What is unfinished lives in the top of a destination meanwhile, which changes it."""
    (served / "tree/deep").mkdir(parents=True)
    (served / "tree/deep/first").write_bytes(b"1")
    os.utime(served / "tree", ns=(1, 1_000_000_007))
    good("transfer", url("tree/"), there / "tree")
    for name, size in (("small", 5), ("large", 300_000)):
        (served / "tree/deep" / name).write_bytes(bytes(size))
        good("transfer", url("tree/"), there / "tree")
        assert inventory(there) == inventory(served), name


def test_a_tree_moves_over_one_connection(relay: Relay, there: Path, served: Path) -> None:
    tree = make_tree(there / "tree")
    good("transfer", "--streams", "64", f"{tree}/", Url(relay.address)("copy"))
    assert len(relay.by_connection) == 1
    assert inventory(served / "copy") == inventory(tree)


def test_without_a_slash_a_directory_is_copied_by_name(url: Url, served: Path, there: Path) -> None:
    (there / "tree").mkdir()
    (there / "tree/a").write_text("a")
    (there / "single").write_text("s")
    good("transfer", there / "tree", there / "single", url("into/"))
    assert visible(served) == {"into", "into/tree", "into/tree/a", "into/single"}
    (there / "back").mkdir()
    good("transfer", url("into/tree"), url("into/single"), there / "back")
    assert visible(there / "back") == {"tree", "tree/a", "single"}


def test_what_is_there_already_is_not_sent_again(url: Url, there: Path) -> None:
    tree = make_tree(there / "tree")
    first = good("transfer", "--json", f"{tree}/", url("copy")).summary
    second = good("transfer", "--json", f"{tree}/", url("copy")).summary
    assert (second["files"], second["bytes_sent"]) == (0, 0)
    assert second["skipped"] >= first["files"]


def test_a_thousand_small_files_arrive(url: Url, served: Path, there: Path) -> None:
    tree = there / "tree"
    tree.mkdir()
    for number in range(1000):
        (tree / f"{number}").write_bytes(f"{number}\n".encode() * (number % 50))
    summary = good("transfer", "--json", "--streams", "1000", f"{tree}/", url("copy")).summary
    assert summary["files"] == 1000
    assert inventory(served / "copy") == inventory(tree)


def test_a_dry_run_shows_the_mapping_and_does_nothing(url: Url, served: Path, there: Path) -> None:
    (there / "a").write_text("a")
    outcome = good("transfer", "-n", there / "a", url("new/"))
    assert "new/a" in outcome.out
    assert visible(served) == set()


@pytest.mark.parametrize("place", ["", "real", "new"])
def test_a_dry_run_is_refused_where_nothing_may_be_written(served: Path, there: Path, place: str) -> None:
    tree = make_tree(there / "tree")
    (served / "real").mkdir()
    with fsmux_server(served, write=False) as server:
        for source in (f"{tree}/", tree):
            done, dry = [run("transfer", *words, source, Url(server.address)(place)) for words in ((), ("-n",))]
            assert dry.status == done.status == ExitCode.ACCESS
            assert dry.sentence in done.err  # of large files it may be said one by one, too
    assert visible(served) == {"real"}


def test_a_dry_run_is_refused_what_writing_does_not_pass(url: Url, served: Path, there: Path) -> None:
    """Reading does: there is a directory behind the link."""
    tree = make_tree(there / "tree")
    (served / "real").mkdir()
    (served / "link").symlink_to("real")
    for source in (f"{tree}/", tree, tree / "plain.txt"):
        done, dry = [run("transfer", *words, source, url("link")) for words in ((), ("-n",))]
        assert dry.status == done.status != 0, (done.err, dry.err)
        assert dry.sentence.startswith(("link: a symbolic link", "tree: something else stands"))
    assert visible(served) == {"real", "link"}
    for place in ("link/new", "link/new/", "link/new/deeper"):
        for source in (f"{tree}/", tree / "plain.txt"):
            done, dry = [run("transfer", *words, source, url(place)) for words in ((), ("-n",))]
            assert dry.status == done.status != 0, (place, done.err, dry.err)
    assert visible(served) == {"real", "link"}


@pytest.mark.parametrize("place", ["dangling", "dangling/new", "file/new"])
def test_a_destination_that_cannot_be_made_is_told_by_its_name(url: Url, served: Path, there: Path, place: str) -> None:
    (served / "a").write_text("a")
    (there / "dangling").symlink_to("nowhere")
    (there / "file").write_text("precious")
    outcome = run("transfer", url(""), there / place)
    assert outcome.status in (ExitCode.SOME_FAILED, ExitCode.ACCESS, ExitCode.USAGE), outcome
    assert str(there / place.split("/")[0]) in outcome.sentence
    assert visible(there) == {"dangling", "file"}


def test_json_speaks_of_every_file(url: Url, there: Path) -> None:
    (there / "tree").mkdir()
    for name in "abc":
        (there / "tree" / name).write_text(name)
    events = good("transfer", "--json", f"{there}/tree/", url("t")).events
    assert {event["v"] for event in events} == {1}
    plan = next(event for event in events if event["event"] == "plan")
    assert (plan["files"], plan["bytes"]) == (3, 3)
    done = {event["path"]: event for event in events if event["event"] == "file_done"}
    assert set(done) == {"a", "b", "c"}
    assert done["a"]["digest"] == "e8b7be43"
    assert [event["path"] for event in events if event["event"] == "file_start"]


def test_excluded_names_stay_at_home(url: Url, served: Path, there: Path) -> None:
    tree = make_tree(there / "tree")
    good("transfer", "--exclude", "deep", "--exclude", "*.txt", f"{tree}/", url("copy"))
    names = visible(served / "copy")
    assert "plain.txt" not in names
    assert "deep" not in names
    assert "empty" in names


def test_bars_are_drawn_when_asked_for(relay: Relay, there: Path) -> None:
    (there / "a").write_bytes(bytes(16 * MIB))
    relay.stop_after("up", 8 * MIB)
    client = start("transfer", "--progress", "always", there / "a", Url(relay.address)("a"))
    while "total" not in client.errors_until_now():
        assert not client.ended(0.01), finish(client)
    relay.go_on()
    outcome = finish(client)
    assert outcome.status == 0
    assert "1 file, 16.0 MiB: sent 16.0 MiB" in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("size", [3, 300_000, 5_000_000])
def test_a_pipe_at_the_destination_is_replaced_whatever_the_size(
    url: Url, served: Path, there: Path, size: int
) -> None:
    (there / "tree").mkdir()
    (there / "tree/file").write_bytes(os.urandom(size))
    (served / "tree").mkdir()
    os.mkfifo(served / "tree/file")
    dry = good("transfer", "-n", "--json", f"{there}/tree/", url("tree"))
    assert ("send", "file") in [(one["action"], one["path"]) for one in dry.events if one["event"] == "would_do"]
    assert good("transfer", "--json", f"{there}/tree/", url("tree")).summary["files"] == 1
    assert (served / "tree/file").read_bytes() == (there / "tree/file").read_bytes()


@pytest.mark.parametrize("words", [(), ("-j", "3"), ("--manifest", "sums")])
def test_a_dry_run_says_of_times_what_the_run_does(
    url: Url, served: Path, there: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    words = tuple(str(tmp_path / word) if word == "sums" else word for word in words)
    for place in (there / "tree", served / "tree"):
        place.mkdir()
        (place / "file").write_bytes(b"same" * 125_000)
    os.utime(there / "tree/file", ns=(1, 10**18))
    dry = good("transfer", "-n", "--json", *words, f"{there}/tree/", url("tree"))
    done = good("transfer", "--json", *words, f"{there}/tree/", url("tree"))
    assert dry.summary["files"] == done.summary["files"]
    assert not (tmp_path / "sums").exists() or words[:1] == ("--manifest",)
