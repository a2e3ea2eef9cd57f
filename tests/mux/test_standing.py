"""The standing queue of a long link, against a model of one: it gets short, and the link stays busy."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.mux.standing import ASKED_SECONDS, FLOOR, MEMORY_SECONDS, StandingQueue

RATE = 12_500_000.0
RTT = 0.050
STEP = 0.005


def settled(*, rate: float = RATE) -> StandingQueue:
    """One that has seen a full link for a while, and a request just now."""
    guard = StandingQueue()
    guard.pace(0.0, 0, RTT, RTT, rate)
    guard.pace(1.0, 1, RTT, RTT, rate)
    return guard


def test_a_queue_is_drained_while_somebody_asks_and_no_longer() -> None:
    guard = settled()
    pace = guard.pace(1.1, 1, 2 * RTT, RTT, RATE)
    assert pace is not None
    assert pace < RATE
    assert guard.pace(1.2, 1, 1.1 * RTT, RTT, RATE) is None
    assert guard.pace(1.1 + ASKED_SECONDS, 1, 2 * RTT, RTT, RATE) is None


def test_a_link_that_is_not_full_yet_and_one_that_is_near_are_left_alone() -> None:
    guard = settled()
    assert guard.pace(1.1, 2, 2 * RTT, RTT, 2 * RATE) is None  # the rate has doubled
    assert settled().pace(1.1, 2, 0.004, 0.001, RATE) is None


@given(st.floats(RTT, 10), st.floats(0, 1e9))
def test_whoever_makes_the_queue_a_share_is_always_sent(rtt: float, rate: float) -> None:
    guard = settled()
    pace = guard.pace(1.5, 2, rtt, RTT, rate)
    assert pace is None or pace >= int(FLOOR * RATE)


def test_the_floor_is_that_of_late() -> None:
    guard = settled(rate=10 * RATE)
    now = 1.0 + MEMORY_SECONDS
    pace = guard.pace(now, 2, 10 * RTT, RTT, RATE)
    assert pace is not None
    assert pace < RATE


@pytest.mark.parametrize("rtt", [0.02, 0.05, 0.1, 0.3])
def test_the_queue_of_a_greedy_sender_gets_short_and_the_link_stays_busy(rtt: float) -> None:
    """A sender that would keep a whole round trip's worth waiting; what it sees is one round trip old."""
    guard = StandingQueue()
    waiting = RATE * rtt  # bytes before the narrow link
    seen: deque[float] = deque([waiting] * round(rtt / STEP))
    carried = 0.0
    queues: list[float] = []
    steps = round(10 / STEP)
    for step in range(steps):
        now = step * STEP
        pace = guard.pace(now, step, rtt + seen.popleft() / RATE, rtt, RATE)
        greedy = max(0.0, 1.25 * RATE if waiting < RATE * rtt else RATE) * STEP
        waiting += greedy if pace is None else min(greedy, pace * STEP)
        sent = min(waiting, RATE * STEP)
        waiting -= sent
        carried += sent
        queues.append(waiting / RATE)
        seen.append(waiting)
    later = sorted(queues[steps // 4 :])
    assert later[len(later) * 99 // 100] <= 0.6 * rtt
    assert carried >= 0.97 * RATE * steps * STEP
