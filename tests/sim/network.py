"""A network in memory that delays, splits, stalls, flips and cuts, as a seed says.

Theory: a *link* is one connection: two *wires*, each a queue of bytes with little room, so that a receiver that does
not read holds its sender up.  Every send is cut into pieces that arrive each in their own time, and every receive gets
what is there or less.  A cut ends both directions at once; what was on its way is lost.  All times are virtual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

ROOM: Final = 96 * 1024
"""Bytes that a wire holds: more than one chunk of a test, so that frames of several streams are on it together."""

PIECES: Final = (2_000, 9_000, 50_000, 200_000)
"""Bytes of one piece of what is sent, at most."""

CRUMBS: Final = 150
"""Bytes at the beginning of each wire that come in pieces of one to nine: the greeting, in hundreds of ways."""

ACROSS: Final = (0.0001, 0.001, 0.02, 0.15)
"""Seconds that a piece takes, at most, by the kind of link."""

NEVER: Final = 1 << 60


@dataclass(slots=True)
class Weather:
    """What happens to one link, in bytes that passed a wire: never, or where.  ``bit`` is which bit is flipped."""

    cut: int = NEVER
    flip: int = NEVER
    bit: int = 0
    stall: int = NEVER
    stall_seconds: float = 0.0
    back: bool = False
    """Whether it happens to what the far end sends; a cut happens to both."""


class Link:
    """One connection; ``near`` and ``far`` are its ends."""

    def __init__(self, rng: random.Random, weather: Weather, note: Callable[[str], None]) -> None:
        self.note = note
        self.broken = False
        self.across = rng.choice(ACROSS)
        size = rng.choice(PIECES)
        calm = Weather(cut=weather.cut)
        forth, back = Wire(self, rng, calm, size), Wire(self, rng, calm, size)
        (back if weather.back else forth).weather = weather
        self.near = End(forth, back)
        self.far = End(back, forth)

    def cut(self) -> None:
        if not self.broken:
            self.broken = True
            self.note("cut")
            for end in (self.near, self.far):
                end.outgoing.wake()


class Wire:
    """One direction of a link."""

    def __init__(self, link: Link, rng: random.Random, weather: Weather, size: int) -> None:
        self.link = link
        self.weather = weather
        self.ended = False
        self.said = bytearray()
        """Everything that was ever sent."""
        self._rng = rng
        self._size = size
        self._there = bytearray()
        self._changed = trio.Event()

    def wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            size = self._rng.randint(1, self._size if len(self.said) > CRUMBS else 9)
            piece, view = bytearray(view[:size]), view[size:]
            while len(self._there) >= ROOM and not self.link.broken and not self.ended:
                await self._changed.wait()
            await trio.sleep(self._rng.random() * self.link.across)
            await self._suffer(piece)
            if self.link.broken or self.ended:
                raise trio.BrokenResourceError("the link is cut")
            self._there += piece
            self.said += piece
            self.wake()

    async def _suffer(self, piece: bytearray) -> None:
        weather, start, end = self.weather, len(self.said), len(self.said) + len(piece)
        if start <= weather.flip < end:
            self.link.note("flip")
            piece[weather.flip - start] ^= 1 << weather.bit
        if start <= weather.stall < end:
            self.link.note("stall")
            await trio.sleep(weather.stall_seconds)
        if start <= weather.cut < end:
            self.link.cut()

    async def receive(self, limit: int) -> bytes:
        while not self._there and not self.ended and not self.link.broken:
            await self._changed.wait()
        if self.link.broken:
            raise trio.BrokenResourceError("the link is cut")
        size = min(limit, self._rng.randint(1, max(1, 2 * len(self._there))))
        data = bytes(self._there[:size])
        del self._there[:size]
        self.wake()
        return data


class End(trio.abc.Stream):
    """A Trio stream."""

    def __init__(self, outgoing: Wire, incoming: Wire) -> None:
        self.outgoing = outgoing
        self.incoming = incoming
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        await self.outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self._check()
        return await self.incoming.receive(max_bytes or ROOM)

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("closed here")

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            for wire in (self.outgoing, self.incoming):
                wire.ended = True
                wire.wake()
        await trio.lowlevel.checkpoint()
