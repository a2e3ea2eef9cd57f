"""``fsmux verify``: which manifest is meant, what is said, and what the shell is told."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fsmux.cli.manifests import SUFFIX
from fsmux.cli.verify import sum_line
from fsmux.errors import ExitCode
from tests.cli.test_app import call

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with its manifest beside it; the working directory is above it."""
    top = tmp_path / "tree"
    (top / "d").mkdir(parents=True)
    (top / "a").write_bytes(b"a" * 1000)
    (top / "d/b").write_bytes(b"b" * 10)
    (top / "d/empty").touch()
    monkeypatch.chdir(tmp_path)
    assert call("verify", "-q", "--create", f"tree{SUFFIX}", "tree") == 0
    return top


def objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def spoil(path: Path) -> None:
    facts = path.stat()
    path.write_bytes(b"Z" + path.read_bytes()[1:])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_all_is_well(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", "tree") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("3 files checked, 0.99 KiB: all as recorded, ")


def test_damage_is_named_and_wins_over_what_is_missing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(tree / "a")
    (tree / "d/b").unlink()
    (tree / "new").write_text("new")
    assert call("verify", "--extra", "tree") == ExitCode.INTEGRITY
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "fsmux: a: DAMAGED: its bytes differ, it was not modified since, by its time (at 0+1000)"
    assert err[1:3] == ["fsmux: d/b: MISSING", "fsmux: new: not in the manifest"]
    assert "1 DAMAGED, 1 MISSING, 1 extra" in err[3]


def test_exit_codes_of_what_is_missing_and_what_is_extra(tree: Path) -> None:
    (tree / "new").write_text("new")
    assert call("verify", "-q", "tree") == 0
    assert call("verify", "-q", "--extra", "tree") == ExitCode.SOME_FAILED
    (tree / "a").unlink()
    assert call("verify", "-q", "--extra", "tree") == ExitCode.SOURCE


def test_json_says_the_same(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(tree / "a")
    (tree / "d/b").unlink()
    (tree / "new").write_text("new")
    assert call("verify", "--json", "--extra", "-q", "tree") == ExitCode.INTEGRITY
    plan, damaged, missing, extra, summary = objects(capsys.readouterr().out)
    assert (plan["event"], plan["files"], plan["bytes"]) == ("plan", 3, 1010)
    assert (damaged["event"], damaged["path"], damaged["chunks"]) == ("damaged", "a", [{"offset": 0, "length": 1000}])
    assert (missing["event"], missing["path"], missing["bytes"]) == ("missing", "d/b", 10)
    assert (extra["event"], extra["path"], extra["bytes"]) == ("extra", "new", 3)
    counts = {name: summary[name] for name in ("files", "bytes", "damaged", "missing", "unreadable", "extra")}
    assert counts == {"files": 3, "bytes": 1010, "damaged": 1, "missing": 1, "unreadable": 0, "extra": 1}


def test_the_manifest_of_a_directory_serves_for_what_is_in_it(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(tree / "a")
    assert call("verify", "tree/d") == 0
    assert "2 files checked" in capsys.readouterr().err
    assert call("verify", "-q", "tree/a") == ExitCode.INTEGRITY
    monkeypatch.chdir(tree / "d")
    assert call("verify", "-q", ".") == 0
    assert call("verify", "-q", "b") == 0
    (tree / "d/b").unlink()
    assert call("verify", "-q", "b") == ExitCode.SOURCE
    assert call("verify", "-q", "..") == ExitCode.INTEGRITY


def test_a_single_file_may_have_its_own(tree: Path) -> None:
    assert call("verify", "-q", "--create", "a.m", "tree/a") == 0
    assert call("verify", "-q", "--manifest", "a.m", "tree/a") == 0
    (tree / "a").rename(tree / "other")
    assert call("verify", "-q", "--manifest", "a.m", "tree/other") == ExitCode.SOURCE


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["/"], ExitCode.SOURCE, "has no manifest beside it"),
        (["nothing"], ExitCode.SOURCE, "nothing: no such file or directory"),
        (["."], ExitCode.SOURCE, "has no manifest beside it"),
        (["--manifest", "nothing", "tree"], ExitCode.SOURCE, "nothing: no such file"),
        (["--manifest", "tree/a", "tree"], ExitCode.USAGE, "tree/a, line 1: this is not a manifest"),
        (["--manifest", "tree", "tree"], ExitCode.SOME_FAILED, "tree: is a directory"),
        (["--manifest", f"tree{SUFFIX}", "nothing"], ExitCode.SOURCE, "nothing: no such file"),
        (["--create", "no/where", "tree"], ExitCode.SOURCE, "no/where: no such file"),
        (["--create", "m", "nothing"], ExitCode.SOURCE, "nothing: no such file"),
        (["--create", "m", "--sha256", "tree"], ExitCode.USAGE, "choose one of"),
        (["--create", "m", "--extra", "tree"], ExitCode.USAGE, "choose one of"),
        (["--sha256", "--json", "tree"], ExitCode.USAGE, "choose one of"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    tree: Path, args: list[str], code: ExitCode, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("verify", *args) == code
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert words in err[0]


def test_a_new_manifest_replaces_the_old_one_and_leaves_nothing_beside_it(tree: Path, tmp_path: Path) -> None:
    (tree / "c").write_text("c")
    assert call("verify", "-q", "--extra", "tree") == ExitCode.SOME_FAILED
    assert call("verify", "-q", "--create", f"tree{SUFFIX}", "tree") == 0
    assert call("verify", "-q", "--extra", "tree") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree", f"tree{SUFFIX}"]


def test_a_manifest_inside_of_its_tree_has_no_record_of_itself(tree: Path) -> None:
    for _ in range(2):
        assert call("verify", "-q", "--create", "tree/m", "tree") == 0
        assert call("verify", "-q", "--extra", "--manifest", "tree/m", "tree") == 0


@pytest.mark.parametrize("path", ["tree", "tree/", "tree/a", "./tree/d"])
def test_sums_are_taken_by_sha256sum(tree: Path, path: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tree / "d/new\nline\\ \r\udcff").write_text("odd")
    assert call("verify", "-q", "--sha256", path) == 0
    done = subprocess.run(["sha256sum", "-c", "--strict"], input=capfdbinary.readouterr().out, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"OK") == {"tree": 4, "tree/": 4, "tree/a": 1, "./tree/d": 3}[path]


def test_an_odd_name_is_escaped_as_sha256sum_does() -> None:
    assert sum_line("00", b"a b") == b"00  a b"
    assert sum_line("00", b"a\\\n\r") == b"\\00  a\\\\\\n\\r"


def test_help_says_where_manifests_lie(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", "--help") == 0
    assert "PATH.fsmux-manifest" in capsys.readouterr().out
