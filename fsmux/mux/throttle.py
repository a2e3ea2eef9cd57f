"""A rate that is kept: how many bytes may go now, and when the next may.  Pure, time is passed in.

Theory: a token bucket.  Bytes become free at the rate and are saved up for at most :data:`BURST_SECONDS`, so that a
late wake-up costs nothing and a pause is not made up for by a burst.  They are handed out by the *portion*, what the
rate lets go in :data:`PORTION_SECONDS`, because a frame for every free byte would cost more than it carries.

Whoever is going to send takes what is there and gives back what it did not use.
"""

from __future__ import annotations

import math
from typing import Final

BURST_SECONDS: Final = 0.1
"""Seconds for which unused bytes are saved up: the longest burst."""

PORTION_SECONDS: Final = 0.025
"""Seconds that one portion lasts. At 100 kB/s its frame has 2,500 bytes beside a header of 18."""

CLOCK_SECONDS: Final = 1e-6
"""Seconds by which a clock may be early: who comes at the moment that was named is not turned away for a rounding."""


class Throttle:
    """Bytes per second for whoever takes them; without a ``rate`` nothing is limited."""

    def __init__(self, rate: int | None = None, now: float = 0.0) -> None:
        self.rate: int | None = None
        self._free = 0.0
        self._at = now
        if rate is not None:
            self.limit(rate, now)

    def limit(self, rate: int | None, now: float) -> None:
        """Keep to ``rate`` bytes per second from ``now`` on; None: to none."""
        if rate is not None and rate < 1:
            raise ValueError(f"a rate of {rate} bytes per second")
        self.rate = rate
        self._free, self._at = min(self._free, 0.0), now  # debts stay, savings were another rate's

    def take(self, now: float) -> int:
        """All bytes that may go now; 0 while there is less than a portion."""
        assert self.rate is not None
        self._accrue(now)
        taken = int(self._free + self.rate * CLOCK_SECONDS)
        if taken < self._portion:
            return 0
        self._free -= taken
        return taken

    def give_back(self, count: int) -> None:
        """``count`` of the bytes taken were not used; negative: so many more were."""
        self._free += count

    def ready_at(self, now: float) -> float:
        """When :meth:`take` will next give something."""
        assert self.rate is not None
        self._accrue(now)
        return now + max(0.0, self._portion - self._free) / self.rate

    @property
    def _portion(self) -> int:
        assert self.rate is not None
        return max(1, math.floor(self.rate * PORTION_SECONDS))

    def _accrue(self, now: float) -> None:
        assert self.rate is not None
        most = self.rate * BURST_SECONDS + 1  # the part of a byte that cannot go yet is no saving
        self._free = min(self._free + max(0.0, now - self._at) * self.rate, most)
        self._at = max(now, self._at)
