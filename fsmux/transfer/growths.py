"""Files of unknown length between two connections of their client.

Theory: what comes from a pipe cannot be had again, so a client that has lost its connection must find what the server
had answered for.  The request that was serving it stays for a while after the loss, with the file in its hands; the
next attempt of the same run ends it (see :mod:`.attempts`), and takes over what it hands over.  If the loss came after
the file had got its name, the next attempt is told so.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Hashable

    from fsmux.files.growing import Growing
    from fsmux.wire.messages import Committed

    Key: TypeAlias = Hashable

LINGER_SECONDS: Final = 180.0
"""Seconds that a file is kept for a client that may come back: it tries for two or three minutes."""

MAX_LINGERING: Final = 64
"""Files that are kept so at once, each with a connection that has ended; of further ones nothing is kept."""

MAX_REMEMBERED: Final = 1024
"""Files of which it is remembered that they were committed: what comes late, comes within a minute or so."""


class Growths:
    """The files that are changing hands, and those that were committed, by user, path and run."""

    def __init__(self) -> None:
        self._asking: Counter[Key] = Counter()
        self._handed: dict[Key, Growing] = {}
        self._done: OrderedDict[Key, Committed] = OrderedDict()
        self._lingering = 0

    def arrive(self, key: Key) -> None:
        """Somebody asks for this file, who will :meth:`leave`."""
        self._asking[key] += 1

    def leave(self, key: Key) -> Growing | None:
        """Somebody asks no more; what was handed over, and nobody is there any more to take."""
        self._asking[key] -= 1
        if self._asking[key]:
            return None
        del self._asking[key]
        return self.take(key)

    async def linger(self) -> None:
        """Keep a file for who may come for it, if not too many are kept already."""
        if self._lingering >= MAX_LINGERING:
            return
        self._lingering += 1
        try:
            await trio.sleep(LINGER_SECONDS)
        finally:
            self._lingering -= 1

    def wanted(self, key: Key) -> bool:
        """Whether anybody else asks for it than who asks this."""
        return self._asking[key] > 1

    def take(self, key: Key) -> Growing | None:
        """What an earlier attempt has handed over; whoever takes it must commit or discard it, or hand it over."""
        return self._handed.pop(key, None)

    def hand_over(self, key: Key, growing: Growing) -> None:
        self._handed[key] = growing

    def committed(self, key: Key) -> Committed | None:
        """What an earlier attempt came to, if it came to an end."""
        return self._done.get(key)

    def remember(self, key: Key, done: Committed) -> None:
        self._done[key] = done
        while len(self._done) > MAX_REMEMBERED:
            self._done.popitem(last=False)
