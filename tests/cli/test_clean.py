"""``fsmux clean``: what is shown, what is removed, and what is not."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from fsmux.cli.clean import parse_age
from fsmux.errors import ExitCode, UsageError
from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls
from tests.cli.test_app import call
from tests.files.test_leftovers import leave_unfinished, loose_file
from tests.files.test_sink import begin, fill, state_of

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A directory with an unfinished file and temporary ones."""
    with Root.open(tmp_path) as root:
        leave_unfinished(root)
    for name in ("0123.guard", "0123-1.tmp", "0123-2.tmp"):
        loose_file(tmp_path, name)
    return tmp_path


def test_nothing_that_is_of_use_is_removed_before_its_time(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("clean", str(left)) == 0
    assert len(state_of(left)) == 2
    out, err = capsys.readouterr()
    assert [line.rpartition(": ")[2] for line in out.splitlines()] == ["kept", "removed"]
    assert out.startswith("new/file: 129 KiB of 321 KiB, ")
    assert "\n(unknown): temporary, 2 files, " in out
    assert err.startswith("fsmux: 1 file removed, ")
    assert call("clean", str(left)) == 0
    assert capsys.readouterr().err == "fsmux: 0 files removed, 0 B\n"


@pytest.mark.parametrize("how", [["--all"], ["--older-than", "0s"]])
def test_a_rehearsal_removes_nothing(left: Path, capsys: pytest.CaptureFixture[str], how: list[str]) -> None:
    before = (state_of(left), left.stat().st_mtime_ns)
    assert call("clean", "-n", *how, str(left)) == 0
    assert (state_of(left), left.stat().st_mtime_ns) == before
    out, err = capsys.readouterr()
    assert out.count("would be removed") == 2
    assert "2 files would be removed" in err
    assert call("clean", *how, str(left)) == 0
    assert os.listdir(left) == []


def test_what_was_abandoned_is_removed(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Syscalls, "now_ns", lambda self: time.time_ns() + round(14 * DAY * 1e9))
    assert call("clean", "-q", "--older-than", "15d", str(left)) == 0
    assert len(state_of(left)) == 5
    assert call("clean", "-q", str(left)) == 0
    assert os.listdir(left) == []


def test_objects_for_programs(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("clean", "--json", "-q", "--older-than", "1d", str(left)) == 0
    big, small = map(json.loads, capsys.readouterr().out.splitlines())
    assert (big["event"], big["v"], big["path"], big["state"]) == ("leftover", 1, "new/file", "kept")
    assert (big["bytes"], big["bytes_held"]) == (5 * 65536 + 777, 2 * 65536 + 777)
    assert (small["path"], small["bytes_held"]) == ("", 0)
    assert small["bytes_on_disk"] > 0
    assert 0 <= big["age_seconds"] < 60


def test_what_is_in_use_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Root.open(tmp_path) as root, begin(root) as sink:
        fill(sink, chunks=[0])
        assert call("clean", "--all", str(tmp_path)) == 0
        assert capsys.readouterr().out.endswith(": in use\n")
        fill(sink)
        sink.commit()
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_with_nothing_in_it_and_none_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("clean", str(tmp_path)) == 0
    assert capsys.readouterr().out == ""
    assert os.listdir(tmp_path) == []
    assert call("clean", str(tmp_path / "none")) == ExitCode.SOURCE
    assert call("clean", "--all", "--older-than", "1d", str(tmp_path)) == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), (" 5m ", 300), ("12h", 43_200), ("3d", 3 * DAY), ("2w", 14 * DAY)]
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "3", "3 days", "-1d", "1.5d", "9999999999d", "٣d"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(UsageError, match="is not an age"):
        parse_age(text)
