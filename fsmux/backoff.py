"""How long to wait before the next attempt, and when to give up.

Theory: the delays double, so that a server that comes back at once is found at once and one that stays away is not
pestered; each is shortened by a random part, so that a thousand clients of one server do not come back together.  What
counts are failures *in a row*: an attempt that brought something makes the next one the first again.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable

RETRIES: Final = 10
"""Attempts in a row that bring nothing, before it is given up. Their delays come to two or three minutes (beside what
the attempts take themselves): a machine has restarted by then."""

FIRST_SECONDS: Final = 0.5
"""Seconds before the first of them: a server that is restarted is listening again by then."""

MOST_SECONDS: Final = 30.0
"""Seconds between two attempts at most: a person who waits for the network sees that it goes on."""


class Backoff(Struct):
    """Counts failures in a row, of which ``retries`` are met by another attempt."""

    retries: int = RETRIES
    chance: Callable[[], float] = field(default=random.random)
    """Something in [0, 1)."""
    failures: int = 0

    def failed(self, *, progressed: bool) -> float | None:
        """An attempt has failed: seconds until the next one, or None to give up."""
        self.failures = 1 if progressed else self.failures + 1
        if self.failures > self.retries:
            return None
        longest = min(FIRST_SECONDS * 2.0 ** min(self.failures - 1, 32), MOST_SECONDS)
        return float(longest * (1 - self.chance() / 2))
