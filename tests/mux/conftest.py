"""Every test of a connection runs over TCP, a Unix socket and memory, and under a deadline."""

from __future__ import annotations

import pytest

from .kit import KINDS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of transport."""
    return str(request.param)
