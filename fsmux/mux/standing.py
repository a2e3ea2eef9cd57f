"""How fast to send so that small requests do not wait behind a standing queue on a long link.  Pure, time is passed in.

Theory: TCP keeps up to a round trip's worth of bytes waiting before the narrowest link, BBR as a margin and CUBIC
until it loses some.  That costs a download nothing, but a reply on the same connection waits behind it: 70 ms on
100 Mbit/s and 50 ms (measured).  So while somebody asks small things, the kernel is told to pace a little below what
arrives, until the queue is short; as long as there is a queue the link is busy, and nothing is lost by that.

A queue that others make does not get shorter by holding back, and would leave us with nothing.  Hence the floor, and
hence nothing is done where nobody asks.
"""

from __future__ import annotations

from typing import Final

QUEUE_SHARE: Final = 0.2
"""Of the round trip: how long bytes may wait on the way. Enough to keep the link busy until the next look."""

LEAST_SHARE: Final = 0.5
"""Of the rate at which bytes arrive: what is sent at least. Above that, no more is held back than drains the queue in
the round trip after which the effect is seen, so that it is never overdone."""

GROWTH: Final = 1.25
"""Times the rate of before that show a link which is not full yet: what waits there is a burst and no queue. Until a
round trip has passed without such growth, TCP is left alone."""

FLOOR: Final = 0.5
"""Of the best rate of late: less is never sent, whoever made the queue."""

MEMORY_SECONDS: Final = 10.0
"""Seconds that the best rate is remembered."""

FAR_SECONDS: Final = 0.005
"""Seconds of a round trip below which a link is near; there a queue is short in time, however many bytes it has."""

ASKED_SECONDS: Final = 5.0
"""Seconds after a request or a reply in which another is expected."""


class StandingQueue:
    """Decides on the pace of one connection."""

    def __init__(self) -> None:
        self._best = 0.0
        self._best_at = 0.0
        self._reached = 0.0
        self._grown_at = 0.0
        self._messages = -1
        self._asked_at = -ASKED_SECONDS

    def pace(self, now: float, messages: int, rtt: float, least_rtt: float, rate: float) -> int | None:
        """Bytes per second to send at most; None: as TCP likes.

        ``messages`` counts the small frames that were sent, ``rtt`` and ``least_rtt`` are the round trip now and
        without a queue, ``rate`` is at how many bytes per second data arrives.
        """
        if messages != self._messages:
            self._messages, self._asked_at = messages, now
        if rate > self._best or now - self._best_at > MEMORY_SECONDS:
            self._best, self._best_at = rate, now
        if rate > GROWTH * self._reached:
            self._reached, self._grown_at = rate, now
        excess = rtt - (1 + QUEUE_SHARE) * least_rtt
        if excess <= 0 or least_rtt < FAR_SECONDS or now - self._asked_at > ASKED_SECONDS:
            return None
        if now - self._grown_at < least_rtt:
            return None
        share = max(1 - excess / least_rtt, LEAST_SHARE)
        return int(max(rate * share, self._best * FLOOR)) or None
