"""Whichever bit the network turns over, the command brings every byte, by itself."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from benchmarks.relay import Relay

from .kit import MIB, Url, finish, good, inventory, start, wait_until_tidy
from .test_reconnecting import IMPATIENT

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.processes import Server
    from benchmarks.relay import Direction

GREETING = 400
"""Bytes in which each side says HELLO and proves who it is."""

FLIPS = 5
"""In each direction of the bytes, for each direction of the files: half of them in the greeting."""


@pytest.fixture(params=("up", "down"))
def direction(request: pytest.FixtureRequest) -> Direction:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("wire", ["up", "down"])
def test_a_bit_that_flips_anywhere(
    wire: Direction, direction: Direction, server: Server, there: Path, served: Path
) -> None:
    near, far = (there, served) if direction == "up" else (served, there)
    rng = random.Random(f"{wire} {direction}")
    (near / "name").mkdir()
    for number in range(40):
        (near / f"name/{number}").write_bytes(rng.randbytes(9_000))
    (near / "name/large").write_bytes(rng.randbytes(2 * MIB + 5))
    with Relay(server.address) as relay:
        own, remote = f"{there}/name", Url(relay.address)("name")
        ends = (f"{own}/", remote) if direction == "up" else (f"{remote}/", own)
        words = ("transfer", "--json", "--chunk-size", "256KiB", *ends)
        good(*words)
        said = relay.passed[wire]
        for number in range(FLIPS):
            moved = far / "name"
            moved.rename(far / f"before {number}")
            at = rng.randrange(min(GREETING, said) if number % 2 else said)
            relay.damage(wire, at, rng.randrange(8))
            outcome = finish(start(*words, "--timeout", IMPATIENT))
            assert outcome.status == 0, (at, outcome.err)
            assert inventory(moved) == inventory(near / "name"), at
    wait_until_tidy(far)
