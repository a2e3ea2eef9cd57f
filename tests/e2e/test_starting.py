"""What a transfer imports: a small one is over in less time than Python needs to load what it does not use."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from .kit import Url, good

if TYPE_CHECKING:
    import os
    from pathlib import Path

MOST_OWN = 115
"""Modules of fsmux in any of these transfers; each costs about 0.2 ms. Who needs one more looks for one less."""

NEVER = {
    "asyncio", "concurrent.futures.thread", "google.protobuf.text_format", "json", "logging.config",
    "multiprocessing", "platformdirs", "rich", "tomllib", "urllib.request", "fsmux.cli.manifests", "fsmux.cli.serve",
    "fsmux.files.comparing", "fsmux.files.digestfile", "fsmux.files.reading", "fsmux.moving.ledger",
    "fsmux.moving.piping", "fsmux.moving.removing", "fsmux.moving.repair", "fsmux.moving.selecting",
    "fsmux.moving.twins", "fsmux.plan.selection", "fsmux.server", "ssl", "trio._dtls", "trio._ssl",
}  # fmt: skip
"""For options that were not given, or for the other side."""

OF_TREES = {"fsmux.moving.tree", "fsmux.files.packing", "fsmux.files.unpacking", "fsmux.transfer.packs"}
TO_SEND = {"fsmux.files.source", "fsmux.transfer.sender"}
TO_RECEIVE = {"fsmux.files.opening", "fsmux.files.sink", "fsmux.transfer.receiver"}


def imported(*words: str | os.PathLike[str]) -> set[str]:
    """The modules that a transfer which does its work imports, or tries to."""
    told = good("transfer", "-q", *words, env={"PYTHONPROFILEIMPORTTIME": "1"}).err
    return {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}


def check(found: set[str], *, absent: set[str], present: set[str]) -> None:
    assert sorted(found & (NEVER | absent)) == []
    assert sorted(present - found) == [], "what is named here has another name now, and nothing is tested"
    assert len([name for name in found if name.split(".")[0] == "fsmux"]) <= MOST_OWN


def test_what_is_not_imported_exists() -> None:
    """Or a new name has taken its place, and nobody looks for that one."""
    assert [name for name in NEVER if name.startswith(("fsmux.", "trio.")) and find_spec(name) is None] == []


def test_one_file_up(url: Url, served: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("up")
    found = imported(tmp_path / "file", url("file"))
    check(found, absent=OF_TREES | TO_RECEIVE, present=TO_SEND)
    assert (served / "file").read_text() == "up"


def test_one_file_down(url: Url, served: Path, tmp_path: Path) -> None:
    (served / "file").write_text("down")
    found = imported(url("file"), tmp_path / "file")
    check(found, absent=OF_TREES | TO_SEND, present=TO_RECEIVE)
    assert (tmp_path / "file").read_text() == "down"


def test_a_tree_up(url: Url, served: Path, tmp_path: Path) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_text("up")
    found = imported(tmp_path / "tree", url())
    unneeded = "fsmux.files.unpacking"
    check(found, absent=TO_SEND | TO_RECEIVE | {unneeded}, present=OF_TREES - {unneeded})
    assert (served / "tree" / "below" / "file").read_text() == "up"


def test_a_tree_down(url: Url, served: Path, tmp_path: Path) -> None:
    (served / "tree" / "below").mkdir(parents=True)
    (served / "tree" / "below" / "file").write_text("down")
    found = imported(url("tree"), tmp_path)
    unneeded = "fsmux.files.packing"
    check(found, absent=TO_SEND | TO_RECEIVE | {unneeded}, present=OF_TREES - {unneeded})
    assert (tmp_path / "tree" / "below" / "file").read_text() == "down"
