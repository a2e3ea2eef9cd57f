"""``-j``: one transfer over several connections, killed, cut, and counted by connection."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from benchmarks.journals import recorded_bytes

from .kit import MIB, Url, finish, good, run, start, visible, wait_until_tidy
from .test_resume import end, start_until

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.relay import Direction, Relay

LANES = 4
SIZE = 64 * MIB + 12_345
WORDS = ("transfer", "--json", "--chunk-size", "1MiB")


@pytest.fixture
def words(direction: Direction, relay: Relay, near: Path, far: Path) -> tuple[str | os.PathLike[str], ...]:
    url = Url(relay.address)
    (near / "file").write_bytes(os.urandom(SIZE))
    return (*WORDS, near / "file", url("file")) if direction == "up" else (*WORDS, url("file"), far / "file")


def test_each_connection_carries_its_part_of_a_big_file(
    direction: Direction, relay: Relay, near: Path, far: Path, words: tuple[str, ...]
) -> None:
    summary = good(*words, "-j", str(LANES)).summary
    assert (far / "file").read_bytes() == (near / "file").read_bytes()
    assert summary["bytes_sent"] == SIZE
    carried = [counts[direction] for counts in relay.by_connection]
    assert len(carried) == LANES
    assert min(carried) >= SIZE / LANES / 3, carried
    assert sum(carried) < 1.01 * SIZE
    wait_until_tidy(far)


def test_the_environment_says_how_many(direction: Direction, relay: Relay, words: tuple[str, ...]) -> None:
    process = start(*words, env={"FSMUX_CONNECTIONS": "2"})
    assert finish(process).status == 0
    assert len(relay.by_connection) == 2


def test_many_files_are_spread(direction: Direction, relay: Relay, near: Path, far: Path) -> None:
    (near / "many").mkdir()
    for number in range(64):
        (near / "many" / str(number)).write_bytes(os.urandom(MIB // 2))
    url = Url(relay.address)
    pair = (f"{near}/many/", url("many")) if direction == "up" else (url("many/"), far / "many")
    good("transfer", "-j", str(LANES), *pair)
    for number in range(64):
        assert (far / "many" / str(number)).read_bytes() == (near / "many" / str(number)).read_bytes()
    carried = [counts[direction] for counts in relay.by_connection]
    assert len(carried) == LANES
    assert min(carried) >= 64 * MIB / 2 / LANES / 3, carried


@pytest.mark.parametrize("connections", [1, LANES])
def test_a_killed_transfer_goes_on(
    direction: Direction, relay: Relay, near: Path, far: Path, words: tuple[str, ...], connections: int
) -> None:
    """With as many connections as before, or with one."""
    at = SIZE // 2
    end(start_until(relay, direction, at, *words, "-j", str(LANES)), relay, signal.SIGKILL)
    assert visible(far) == set()
    recorded = recorded_bytes(far)
    outcome = run(*words, "-j", str(connections))
    while outcome.status and "BUSY" in outcome.out:  # the server has yet to find that the killed client is gone
        outcome = run(*words, "-j", str(connections))
    assert outcome.status == 0, outcome.err
    summary = outcome.summary
    assert (far / "file").read_bytes() == (near / "file").read_bytes()
    assert summary["bytes_sent"] + summary["bytes_resumed"] == SIZE
    assert summary["bytes_resumed"] >= recorded
    wait_until_tidy(far)


@pytest.mark.parametrize("number", [0, 2])
def test_a_cut_connection_does_not_lose_a_big_file(
    direction: Direction, relay: Relay, near: Path, far: Path, words: tuple[str, ...], number: int
) -> None:
    process = start_until(relay, direction, SIZE // 2, *words, "-j", str(LANES))
    relay.cut(number)
    relay.go_on()
    outcome = finish(process)
    assert outcome.status == 0, outcome.err
    assert (far / "file").read_bytes() == (near / "file").read_bytes()
    assert outcome.summary["bytes_sent"] >= SIZE
    if direction == "down":  # counted as they arrive; of an upload what was on its way counts, too
        assert outcome.summary["bytes_sent"] <= SIZE + LANES * MIB
    wait_until_tidy(far)
