"""Fixtures that run the installed command: a server on a port of its choice, clients as whole processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The benchmarks start, watch and end the same processes; a plain ``pytest`` does not look for them at the top.
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.processes import fsmux_server
from benchmarks.relay import Relay

from .kit import Url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.processes import Server
    from benchmarks.relay import Direction


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that the user of this machine has set takes part."""
    for name in [name for name in os.environ if name.startswith("FSMUX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-configuration"))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The directory that the server serves."""
    path = tmp_path / "served"
    path.mkdir()
    return path


@pytest.fixture
def server(served: Path) -> Iterator[Server]:
    """A server that lets itself be written to."""
    with fsmux_server(served) as running:
        yield running


@pytest.fixture
def url(server: Server) -> Url:
    """``url("a/b")`` is the address of a file on the server."""
    return Url(server.address)


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    """A relay in front of the server that stops or damages where it is told."""
    with Relay(server.address) as running:
        yield running


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory on the client's side."""
    path = tmp_path / "there"
    path.mkdir()
    return path


@pytest.fixture(params=("up", "down"))
def direction(request: pytest.FixtureRequest) -> Direction:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def near(direction: Direction, served: Path, there: Path) -> Path:
    """Where the file is; ``far`` is where it goes."""
    return there if direction == "up" else served


@pytest.fixture
def far(direction: Direction, served: Path, there: Path) -> Path:
    return served if direction == "up" else there
