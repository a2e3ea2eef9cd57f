"""Client, server, disks and network together: whatever a seed has in store, all ends well, twice in the same way."""

from __future__ import annotations

from collections import Counter

from tests.sim.world import episodes

SEEDS = 2_000
"""Episodes in each run of the suite, each told twice; ``make torture`` has 25 times as many."""

OFTEN = SEEDS // 50
"""How often each kind of trouble must have come up at least, so that the episodes are about something."""


def test_two_thousand_episodes() -> None:
    reports = list(episodes(0, SEEDS))
    assert len({report.trace for report in reports}) == len(reports) == SEEDS
    kinds = ("died", "healed", "failures", "packed")
    seen = Counter({name: sum(getattr(report, name) for report in reports) for name in kinds})
    assert all(count >= OFTEN for count in seen.values()), seen
    assert sum(report.tries > 1 for report in reports) >= SEEDS // 5
