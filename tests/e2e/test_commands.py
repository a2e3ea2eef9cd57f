"""The commands beside transfer."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.processes import FSMUX, environment
from fsmux._version import __version__
from fsmux.errors import ExitCode

from .kit import Url, good, make_tree, run

if TYPE_CHECKING:
    import os
    from pathlib import Path


def test_version() -> None:
    assert good("--version").out == f"fsmux {__version__}\n"


def test_ls_lists_names_and_recursive_ls_paths(url: Url, served: Path) -> None:
    make_tree(served / "tree")
    names = good("ls", url("tree")).out.splitlines()
    assert {"plain.txt", ".hidden", "empty", "grün-文字"} <= {name.rstrip("/@") for name in names}
    assert "deep/er/still/one.bin" in good("ls", "-R", url("tree")).out.splitlines()
    assert re.search(r"rw-------.* 5 .*plain\.txt", good("ls", "-l", url("tree")).out)


def test_ls_of_an_empty_directory_is_empty(url: Url) -> None:
    assert good("ls", url()).out == ""


def test_ls_as_json_is_an_object_a_line(url: Url, served: Path) -> None:
    (served / "a").write_text("12345")
    (entry,) = map(json.loads, good("ls", "--json", url()).out.splitlines())
    assert (entry["path"], entry["bytes"]) == ("a", 5)


def test_stat_says_what_stands_there(url: Url, served: Path) -> None:
    (served / "a").write_text("12345")
    (served / "a").chmod(0o640)
    out = good("stat", url("a")).out
    assert "5" in out
    assert "640" in out or "rw-r-----" in out
    found = json.loads(good("stat", "--json", url("a")).out)
    assert (found["bytes"], found["mtime_ns"]) == (5, (served / "a").stat().st_mtime_ns)


def test_names_are_made_moved_and_removed(url: Url, served: Path) -> None:
    good("mkdir", "-p", url("one/two"))
    assert (served / "one/two").is_dir()
    (served / "one/two/file").write_text("x")
    good("mv", url("one"), url("other"))
    assert (served / "other/two/file").read_text() == "x"
    refused = run("rm", url("other"))
    assert refused.status == 3
    assert "other" in refused.sentence
    good("rm", "-r", url("other"))
    assert not (served / "other").exists()


def test_tokens_are_long_and_never_the_same() -> None:
    one, other = good("token", "new").out.strip(), good("token", "new").out.strip()
    assert one != other
    assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", one)


@pytest.mark.parametrize("words", [("serve",), ("transfer",), ("transfer", "--nonsense"), ("ls",), ("nonsense",)])
def test_a_wrong_command_line_ends_with_2(words: tuple[str, ...]) -> None:
    outcome = run(*words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_help_names_the_commands() -> None:
    out = good("--help").out
    for command in ("serve", "transfer", "ls", "stat", "token"):
        assert command in out


def test_version_imports_nothing_heavy() -> None:
    # The bar is 150 ms (benchmarks/smoke.py measures it); a machine that runs tests beside it gets ten times that.
    started = time.perf_counter()
    good("--version")
    assert time.perf_counter() - started < 1.5


def without(streams: str, *words: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """A command whose caller has closed some of its standard streams."""
    script = f'exec "$@" {streams}'
    return subprocess.run(
        ["bash", "-c", script, "-", *FSMUX, *words], capture_output=True, text=True, env=environment(), timeout=60
    )


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(url: Url, served: Path, tmp_path: Path, streams: str) -> None:
    (tmp_path / "file").write_bytes(b"bytes and nothing else")
    for name, words in (("json", ["--json"]), ("plain", [])):
        done = without(streams, "transfer", *words, tmp_path / "file", url(name))
        assert (done.returncode, "unexpected" in done.stdout + done.stderr) == (0, False), done
        assert (served / name).read_bytes() == b"bytes and nothing else"
    error = without(streams, "stat", url("missing"))
    assert error.returncode == run("stat", url("missing")).status
    assert ("missing" in error.stderr, error.stdout) == ("2>" not in streams, "")


def test_names_cannot_come_from_a_closed_stdin(url: Url, tmp_path: Path) -> None:
    done = without("<&-", "transfer", "--files-from", "-", tmp_path, url())
    assert done.returncode == ExitCode.USAGE
    assert "stdin is closed" in done.stderr
