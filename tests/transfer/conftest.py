"""A server and a client over every kind of transport, and both directions of a transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mux.kit import KINDS

from .kit import Move, Side, facing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of transport."""
    return str(request.param)


@pytest.fixture
async def side(served: Path, there: Path) -> AsyncIterator[Side]:
    """A client of a server, over a Unix socket."""
    async with facing("unix", served, there) as found:
        yield found


@pytest.fixture
def move(side: Side, direction: str) -> Move:
    """Either direction, over a Unix socket."""
    return Move(side, direction)
