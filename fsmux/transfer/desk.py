"""Where streams that bring parts of the same file find each other.

Theory: the streams of one file come over connections of their own, in any order; the first to arrive opens the sink,
the others join it by what they have in common: who sends, where to, and the id of the sender's run.  A stream that
comes when that version of the file stands already is told so.  One that comes while the last of the others is leaving
waits for that, and begins anew where they stopped.  A file that comes on one stream is not shared: a second stream
means that its sender has lost the first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from fsmux.wire.messages import Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from fsmux.mux.stream import Stream
    from fsmux.records import Identity
    from fsmux.transfer.receiver import Receiving
    from fsmux.transfer.session import Outcome

    Key: TypeAlias = Hashable

MAX_REMEMBERED = 1024
"""Files of which it is remembered that they were committed: what comes late, comes within a minute or so."""


class Desk:
    """The files that a server is receiving."""

    def __init__(self) -> None:
        self._open: dict[Key, Receiving] = {}
        self._done: OrderedDict[Key, tuple[Identity, Outcome]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    async def receive_on(self, stream: Stream, key: Key, make: Callable[[], Receiving]) -> Outcome:
        """Take part with ``stream`` in receiving the file ``key``, which ``make`` begins if nobody has."""
        offer: Offer = await stream.expect_message(Offer)
        while (receiving := self._open.get(key)) is not None and (receiving.ended or not receiving.joint):
            receiving.give_up()
            await receiving.closed.wait()
        if (outcome := self._committed(key, offer)) is not None:
            await stream.send(outcome.committed())
            return outcome
        if receiving is None:
            receiving = self._open[key] = make()
        try:
            return await receiving.receive_on(stream, offer)
        finally:
            if receiving.closed.is_set() and self._open.get(key) is receiving:
                del self._open[key]
                if receiving.outcome is not None:
                    self._remember(key, offer.identity, receiving.outcome)

    def _committed(self, key: Key, offer: Offer) -> Outcome | None:
        identity, outcome = self._done.get(key, (None, None))
        return outcome if identity == offer.identity and not offer.eager else None

    def _remember(self, key: Key, identity: Identity, outcome: Outcome) -> None:
        self._done[key] = identity, outcome
        while len(self._done) > MAX_REMEMBERED:
            self._done.popitem(last=False)
