"""No power cut and no kill, at whatever system call, breaks a promise."""

from __future__ import annotations

from tests.sim.stories import STORIES, explore

STATES = 33_000
"""Crash states to be checked in each run of the suite; ``make torture`` checks 500,000. The stories that were thought
up have some 31,000."""

SAMPLES = 4
"""Power cuts tried at one moment, where not all of them can be; ``make torture`` tries more."""


def test_states_after_a_crash() -> None:
    explored = list(explore(STATES, seed=1, samples=SAMPLES))
    assert len(explored) > len(STORIES)
    assert sum(explorer.states for _, explorer in explored) >= STATES
    assert all(explorer.crashes > explorer.kills > 10 for _, explorer in explored[: len(STORIES)])
