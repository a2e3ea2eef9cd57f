"""Owners are kept where the receiver is root; where it is not that is said once."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from fsmux.errors import Unsupported
from fsmux.events import Warned
from fsmux.records import Kept
from fsmux.wire.frames import CHOWN_FEATURE, OWNERS_FEATURE

from .test_sharing import make
from .test_trees import Tree, inventory

if TYPE_CHECKING:
    from .kit import Move

OWNER = Kept(owner=True)


@pytest.fixture
def move(move: Move) -> Tree:
    return Tree(move.side, move.direction)


def say(move: Tree, monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    """Have the server say that it can do just this."""
    connection = move.side.client.connection
    hello = msgspec.structs.replace(connection.peer_hello, features=features)
    monkeypatch.setattr(connection, "peer_hello", hello)


async def test_without_root_there_is_one_warning_and_nothing_else(move: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(move.source / "file", 9)
    if os.geteuid() == 0:
        os.chown(source / "d/1", 12, 34)
    features = move.side.client.connection.peer_hello.features
    if move.direction == "up":
        say(move, monkeypatch, *(one for one in features if one != CHOWN_FEATURE))
    else:
        monkeypatch.setattr("fsmux.moving.placing.os", SimpleNamespace(**{**vars(os), "geteuid": lambda: 1000}))
    summary = await move(kept=OWNER)
    (warned,) = move.side.of(Warned)
    assert "root" in warned.message
    assert (summary.files, summary.failed) == (4, 0)
    assert inventory(move.target / "file") == inventory(source)
    monkeypatch.undo()
    assert {path.stat().st_uid for path in (move.target / "file").rglob("*")} == {os.geteuid()}


async def test_a_server_that_knows_no_owners_is_a_clear_error(move: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    make(move.source / "file", 9)
    features = move.side.client.connection.peer_hello.features
    say(move, monkeypatch, *(one for one in features if one != OWNERS_FEATURE))
    with pytest.raises(Unsupported, match="owners"):
        await move(kept=OWNER)
