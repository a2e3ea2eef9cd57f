"""Which attempt of a run is the latest: what is under way for earlier ones ends, and nothing of them begins any more.

Theory: a client that has lost its connection comes back at once, while its server may not notice the loss for most of
a minute.  Until then the files that the old connection was sending are locked by streams that nobody serves, and what
of them is still in some buffer could land after what the new connection brings.  So all requests of one run of a
client carry an id that it made up and the number of their attempt.  The first request of a later attempt cancels the
work of earlier ones and waits for its end; from then on what comes late for those is turned away.

The id is random and counts for one user only, so nobody can end what is not theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

import trio
from msgspec import Struct, field

from fsmux.errors import StreamReset

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    Key: TypeAlias = Hashable

MAX_REMEMBERED = 1024
"""Runs without work of which the latest attempt is remembered: what comes late comes within a minute or so."""


class _Run(Struct):
    latest: int = 0
    work: dict[trio.CancelScope, int] = field(default_factory=dict)
    """What is under way, with the number of its attempt."""
    ended: trio.Event = field(default_factory=trio.Event)
    """Set when some of that has ended; a new one stands here then."""


class Attempts:
    """The runs of all clients of a server."""

    def __init__(self) -> None:
        self._runs: dict[Key, _Run] = {}
        self._idle: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    async def take_part(self, key: Key, attempt: int, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work`` for an attempt of the run ``key``, once nothing is under way for earlier ones.

        Raises:
            StreamReset: a later attempt has begun, before or meanwhile.
        """
        run = self._runs.setdefault(key, _Run())
        self._idle.pop(key, None)
        try:
            with trio.CancelScope() as scope:
                self._begin(run, attempt, scope)
                try:
                    while any(number < attempt for number in run.work.values()):
                        await run.ended.wait()
                    await work()
                finally:
                    del run.work[scope]
                    run.ended.set()
                    run.ended = trio.Event()
        finally:
            if not run.work:
                self._forget_some(key)
        if scope.cancelled_caught:
            raise StreamReset("a later attempt of the same run has taken its place")

    def latest(self, key: Key) -> int:
        """The number of the latest attempt of a run; 0 if nothing is known of it."""
        run = self._runs.get(key)
        return 0 if run is None else run.latest

    @staticmethod
    def _begin(run: _Run, attempt: int, scope: trio.CancelScope) -> None:
        if attempt < run.latest:
            raise StreamReset("a later attempt of the same run is here already")
        run.latest = attempt
        for other, number in run.work.items():
            if number < attempt:
                other.cancel()
        run.work[scope] = attempt

    def _forget_some(self, key: Key) -> None:
        self._idle[key] = None
        while len(self._idle) > MAX_REMEMBERED:
            oldest, _ = self._idle.popitem(last=False)
            del self._runs[oldest]
