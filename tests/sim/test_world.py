"""Client, server, disks and network together: whatever a seed has in store, all ends well, and so again."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.world import episodes

SEEDS = 2_000
"""Episodes in each run of the suite; ``make torture`` has 25 times as many."""

RETOLD = 8
"""Of so many one is told twice: what makes a seed come to something else shows in many, and ``make torture`` tells
all of them twice."""

PARTS = 4
"""Tests among which they are dealt, so that they need not all wait for one processor."""

OFTEN = SEEDS // PARTS // 100
"""How often each kind of trouble must have come up at least in a part, so that the episodes are about something."""


@pytest.mark.parametrize("part", range(PARTS))
def test_two_thousand_episodes(part: int) -> None:
    count = SEEDS // PARTS
    reports = list(episodes(part * count, count, RETOLD))
    assert len({report.trace for report in reports}) == len(reports) == count
    kinds = ("died", "healed", "failures", "packed", "linked", "removed", "holes")
    seen = Counter({name: sum(getattr(report, name) for report in reports) for name in kinds})
    assert all(seen[name] >= OFTEN for name in kinds), seen
    assert sum(report.tries > 1 for report in reports) >= count // 6
