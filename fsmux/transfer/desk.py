"""Where streams that bring parts of the same file find each other.

Theory: the streams of one file come over connections of their own, in any order; the first to arrive opens the sink,
the others join it by what they have in common: who sends, where to, and an id that the sender made up.  A stream that
comes when the file stands already is told so.  One that comes while the last of the others is leaving waits for that,
and begins anew where they stopped.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from fsmux.wire.messages import Committed, Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from fsmux.mux.stream import Stream
    from fsmux.transfer.receiver import Receiving
    from fsmux.transfer.session import Outcome

    Key: TypeAlias = Hashable

MAX_REMEMBERED = 1024
"""Files of which it is remembered that they were committed. A late stream is late by a round trip or two."""


class Desk:
    """The files that a server is receiving on several streams."""

    def __init__(self) -> None:
        self._open: dict[Key, Receiving] = {}
        self._done: OrderedDict[Key, Outcome] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    async def receive_on(self, stream: Stream, key: Key, make: Callable[[], Receiving]) -> Outcome:
        """Take part with ``stream`` in receiving the file ``key``, which ``make`` begins if nobody has."""
        while (receiving := self._open.get(key)) is not None and receiving.ended:
            await receiving.closed.wait()
        if (done := self._done.get(key)) is not None:
            await stream.expect_message(Offer)
            await stream.send(Committed(done.crc32, done.durable, done.bytes_resumed))
            return done
        if receiving is None:
            receiving = self._open[key] = make()
        try:
            return await receiving.receive_on(stream)
        finally:
            if receiving.closed.is_set() and self._open.get(key) is receiving:
                del self._open[key]
                if receiving.outcome is not None:
                    self._remember(key, receiving.outcome)

    def _remember(self, key: Key, outcome: Outcome) -> None:
        self._done[key] = outcome
        while len(self._done) > MAX_REMEMBERED:
            self._done.popitem(last=False)
