"""Mirrors by the command: ``--delete``, ``-u``, ``-c``, ``--files-from`` and ``-n``, both ways."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks.processes import FSMUX, environment

from .kit import DEADLINE, Outcome, Url, good, inventory, make_tree, run, visible

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.relay import Direction


@pytest.fixture
def ends(direction: Direction, url: Url, there: Path) -> tuple[str, str]:
    """Source and destination of a tree that is called so on either side."""
    return (f"{there}/src/", url("dst")) if direction == "up" else (url("src/"), f"{there}/dst")


@pytest.fixture
def far(direction: Direction, served: Path, there: Path) -> Path:
    return (served if direction == "up" else there) / "dst"


@pytest.fixture
def tree(near: Path) -> Path:
    return make_tree(near / "src")


def clutter(root: Path) -> None:
    (root / "extra/deep").mkdir(parents=True)
    (root / "extra/deep/file").write_text("x")
    (root / "extra.o").write_text("x")


def said(dry: Outcome, real: Outcome) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What would be done, and what was."""
    would = [(one["action"], one["path"]) for one in dry.events if one["event"] == "would_do"]
    done = [(one["action"], one["path"]) for one in real.events if one["event"] == "changed"]
    done += [("send", one["path"]) for one in real.events if one["event"] == "file_done"]
    return sorted(would), sorted(done)


def test_a_destination_that_is_made_is_told_beforehand_as_it_is_done(ends: tuple[str, str], tree: Path) -> None:
    would, done = said(good("transfer", "--json", "-n", *ends), good("transfer", "--json", *ends))
    assert would == done
    assert [path for action, path in done if action == "make directory"].count(".") == 1


def test_a_mirror_is_told_beforehand_as_it_is_done(ends: tuple[str, str], tree: Path, far: Path) -> None:
    good("transfer", *ends)
    clutter(far)
    (tree / "fresh").write_text("fresh")
    (tree / "made").mkdir()
    (tree / "made/link").symlink_to("../fresh")
    options = ("transfer", "--delete", "--exclude", "*.o")
    told = good(*options, "-n", *ends)
    dry = good(*options, "-n", "--json", *ends)
    real = good(*options, "--json", *ends)
    would, done = said(dry, real)
    assert would == done
    assert ("remove", "extra") in would
    assert {f"would {action} {path}" for action, path in would} <= set(told.out.splitlines())
    assert "1 removed (dry run" in told.err
    assert dry.summary["deleted"] == real.summary["deleted"] == 1
    (far / "extra.o").unlink()  # it was protected
    assert inventory(far) == inventory(tree)


def test_verbose_lines_say_the_same_in_the_past_tense(ends: tuple[str, str], tree: Path, far: Path) -> None:
    good("transfer", *ends)
    clutter(far)
    outcome = good("transfer", "--delete", "-v", *ends)
    assert {"removed extra", "removed extra.o"} <= set(outcome.err.splitlines())
    assert "deleted 2" in outcome.err


def test_nothing_is_removed_beside_a_failure(ends: tuple[str, str], tree: Path, far: Path) -> None:
    good("transfer", *ends)
    clutter(far)
    (tree / "conflict").mkdir()
    (tree / "conflict/f").touch()
    (far / "conflict").mkdir()
    (far / "conflict/f").mkdir()
    (far / "conflict/f/keep.o").touch()
    outcome = run("transfer", "--delete", "--exclude", "*.o", *ends)
    assert outcome.status not in (0, 1)
    assert "nothing was removed at the destination, because 1 of the above failed" in outcome.err
    assert (far / "extra/deep/file").exists()


def test_a_manifest_forgets_what_was_removed(ends: tuple[str, str], tree: Path, far: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest"
    good("transfer", "--manifest", manifest, *ends)
    gone = next(path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink())
    name = str(gone.relative_to(tree))
    assert f" {name}\n" in manifest.read_text()
    gone.unlink()
    good("transfer", "--delete", "--manifest", manifest, *ends)
    assert f" {name}\n" not in manifest.read_text()
    good("verify", "--manifest", manifest, far)


def test_checksum_and_update(ends: tuple[str, str], tree: Path, far: Path) -> None:
    good("transfer", *ends)
    for path in far.rglob("*"):
        if path.is_file() and not path.is_symlink():
            facts = path.stat()
            os.utime(path, ns=(1, facts.st_mtime_ns + 10**9))
    newer = good("transfer", "-u", "--json", *ends)
    assert newer.summary["files"] == 0
    assert {one["reason"] for one in newer.events if one["event"] == "file_skipped"} >= {"newer at the destination"}
    same = good("transfer", "-c", "--json", *ends).summary
    assert (same["files"], same["bytes_sent"]) == (0, 0)
    assert inventory(far) == inventory(tree)


def test_names_from_a_file_and_from_stdin(ends: tuple[str, str], near: Path, far: Path, tmp_path: Path) -> None:
    source = near / "src"
    (source / "d/e").mkdir(parents=True)
    for name in ("a", "d/b", "d/c", "d/e/f", "#odd"):
        (source / name).write_text(name)
    names = tmp_path / "names"
    names.write_text("# comment\na\n\nd/e\nmissing\n")
    outcome = run("transfer", "--files-from", names, *ends)
    assert outcome.status == 4, outcome.err
    assert visible(far) == {"a", "d", "d/e", "d/e/f"}
    piped = subprocess.run(
        [*FSMUX, "transfer", "--files-from", "-", "-0", *ends],
        input=b"#odd\0d/b\0", env={**os.environ, **environment()}, capture_output=True, timeout=DEADLINE,
    )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    assert visible(far) == {"a", "d", "d/b", "d/e", "d/e/f", "#odd"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--files-from", "no such file"), "--files-from no such file: no such file or directory"),
        (("--from0",), "--from0 says how the names of --files-from end, and there is none"),
        (("--files-from", "{names}", "--delete"), "--files-from does not go with --delete"),
        (("--files-from", "{outside}"), "--files-from, name 1: ../x leads out of the source"),
    ],
)
def test_what_makes_no_sense_is_said(
    url: Url, there: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    (there / "src").mkdir()
    (tmp_path / "names").write_text("a\n")
    (tmp_path / "outside").write_text("../x\n")
    filled = [word.format(names=tmp_path / "names", outside=tmp_path / "outside") for word in words]
    outcome = run("transfer", *filled, there / "src", url("dst"))
    assert outcome.status == 2
    assert outcome.sentence.startswith(sentence)


def test_a_source_that_is_not_there_is_named_as_it_was_typed(url: Url, there: Path, served: Path) -> None:
    (there / "d").mkdir()
    (there / "d/file").write_text("x")
    outcome = run("transfer", there / "d/file", there / "d/nope", url(""))
    assert outcome.status == 4
    assert outcome.sentence == f"{there}/d/nope: no such file or directory"
    assert visible(served) == {"file"}
    assert run("transfer", url("nope"), url("file"), f"{there}/new").status == 4
    assert visible(there / "new") == {"file"}  # a directory, as several sources need one
    outcome = run("transfer", url("d/nope"), there)
    assert (outcome.status, outcome.sentence) == (4, f"{url('d/nope')}: no such file or directory")


def told(outcome: Outcome) -> set[tuple[str, str]]:
    """What was told of names: by which event or action, and how they are called."""
    return {(one.get("action", one["event"]), one["path"]) for one in outcome.events if one.get("path")}


@pytest.mark.parametrize("down", [False, True])
def test_what_is_in_several_sources_is_told_with_their_names(url: Url, there: Path, served: Path, down: bool) -> None:
    tops, goal = (served, there / "new") if down else (there, served / "new")
    for name in "pqr":
        (tops / name / "d").mkdir(parents=True)
        (tops / name / "d/small").write_text(name)
        os.link(tops / name / "d/small", tops / name / "twin")
        (tops / name / "large").write_bytes(name.encode() * 5_000_000)
        (tops / name / "link").symlink_to("large")
    os.mkfifo(tops / "q/pipe")
    (goal / "q/large").mkdir(parents=True)  # in the way
    for path in (*tops.glob("[pqr]"), goal / "q", goal):
        os.utime(path, (5, 5))  # or it would depend on the second in which they were made what is to be set
    sources = [url("p"), url("q"), url("r/")] if down else [there / "p", there / "q", f"{there}/r/"]
    words = ("transfer", "--json", *sources, goal if down else url("new"))
    made = {("make directory", "d"), ("make link", "link")}
    plans = {(action, f"{name}{path}") for action, path in made for name in ("p/", "q/", "")}
    plans |= {("error", "q/large"), ("file_skipped", "q/pipe"), ("warning", "q/pipe"), ("make directory", "p")}
    would = run(*words, "-n")
    assert would.status == 3
    sent = {"p/twin", "q/twin", "twin", "p/large", "large"}
    linked = {"p/d/small", "q/d/small", "d/small"}
    assert told(would) == plans | {("send", path) for path in sent} | {("make hard link", path) for path in linked}
    (failed,) = (one["message"] for one in would.events if one["event"] == "error")
    assert failed == "a directory stands under this name; move it away first"
    done = run(*words)
    assert {one for one in told(done) if one[0] != "file_start"} == (
        plans | {("file_done", path) for path in sent} | {("file_linked", path) for path in linked}
    )
    current = {path for event, path in told(run(*words)) if event == "file_skipped"}
    assert current == sent | linked | {"q/pipe", "p/link", "q/link", "link"}


def test_delete_clears_the_way_for_nothing_while_a_source_is_missing(url: Url, there: Path, served: Path) -> None:
    """What is in the way may be that source's."""
    (there / "p").mkdir()
    (there / "p/q").write_text("a file")
    (served / "q").mkdir()
    (served / "q/precious").write_text("of the source that is missing")
    outcome = run("transfer", "--delete", f"{there}/p/", there / "q", url(""))
    assert outcome.status == 3
    assert visible(served) == {"q", "q/precious"}
    assert "warning: nothing was removed at the destination, because 2 of the above failed" in outcome.err


def test_delete_needs_a_directory(url: Url, there: Path, served: Path) -> None:
    (there / "file").write_text("x")
    (served / "other").write_text("x")
    outcome = run("transfer", "--delete", there / "file", url(""))
    assert outcome.status == 2
    assert outcome.sentence.startswith("--delete needs a directory among the sources")
    assert visible(served) == {"other"}
