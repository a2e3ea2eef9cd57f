"""The connections of one transfer: a *lane* for each, all to the same server.

Theory: the first lane is the client's own connection; whatever is asked about names goes over it, and the transfer ends
with it.  The others carry files only.  They are opened at once and beside the scan, so that they cost no time, and a
transfer goes on without those that cannot be opened or that are lost; meanwhile another is dialled in the place of
each, with growing delays.  A lane that can carry a file and has the fewest is the next to get one; the extents of a big
file go over all of them that are there when it begins.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from fsmux.backoff import Backoff
from fsmux.errors import ConnectionLost, FsmuxError, PeerShutdown
from fsmux.events import Retrying, Warned
from fsmux.limits import MIB
from fsmux.mux.service import serving
from fsmux.transfer.session import Run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from fsmux.client import Client
    from fsmux.events import Observer
    from fsmux.mux.connection import Connection
    from fsmux.transfer.session import Outcome

SPREAD_BYTES = 32 * MIB
"""Bytes of one file above which it goes over all lanes. Below, what a further stream costs is more than it saves."""


class Lane(Struct, eq=False):
    """A connection and how many files are on it."""

    connection: Connection
    files: int = 0
    rate: int | None = None

    @property
    def alive(self) -> bool:
        return self.connection.failure is None


class Lanes:
    """The connections of one transfer. Made by :func:`open_lanes`."""

    def __init__(self, first: Connection, run: Run) -> None:
        self.run = run
        self._lanes = [Lane(first)]
        self._rate: int | None = None
        self._dialling = 0
        self._changed = trio.Event()

    @property
    def alive(self) -> list[Lane]:
        """Those that can carry files, the least busy first."""
        return sorted((lane for lane in self._lanes if lane.alive), key=lambda lane: lane.files)

    @property
    def _dead(self) -> int:
        """Lanes that were lost until now, whatever came in their place."""
        return sum(not lane.alive for lane in self._lanes)

    @contextmanager
    def least_busy(self) -> Iterator[Lane]:
        """A lane for one file, for the block. When all are lost it is the first one, which says why."""
        lane = (self.alive or self._lanes)[0]
        with self.carrying([lane]):
            yield lane

    @contextmanager
    def carrying(self, lanes: list[Lane]) -> Iterator[None]:
        """Count a file on ``lanes`` for the block."""
        for lane in lanes:
            lane.files += 1
        self._share_rate()
        try:
            yield
        finally:
            for lane in lanes:
                lane.files -= 1
            self._share_rate()

    @contextmanager
    def limited(self, rate: int | None) -> Iterator[None]:
        """Move at most ``rate`` bytes per second over all lanes together while the block runs; None: no limit."""
        self._rate = rate
        if rate is not None:
            self._limit(self._lanes[0], rate)
        try:
            yield
        finally:
            self._rate = None
            for lane in self._lanes:
                if lane.rate is not None and lane.alive:
                    self._limit(lane, None)

    def _share_rate(self) -> None:
        """Lanes that carry files have equal shares of the limit."""
        if self._rate is None:
            return
        active = [lane for lane in self._lanes if lane.files and lane.alive]
        for lane in active:
            share = max(1, self._rate // len(active))
            if lane.rate != share:
                self._limit(lane, share)

    @staticmethod
    def _limit(lane: Lane, rate: int | None) -> None:
        lane.rate = rate
        lane.connection.limit_receiving(rate)
        lane.connection.limit_sending(rate)

    async def on_what_is_left(
        self, attempt: Callable[[], Awaitable[Outcome]], name: str, observer: Observer
    ) -> Outcome:
        """Make an attempt at a file, and again as often as a lane other than the first was lost meanwhile."""
        for number in range(1, len(self._lanes) + 1):
            before = self._dead
            try:
                return await attempt()
            except PeerShutdown:
                raise  # it goes for all connections
            except FsmuxError as exc:
                if self._dead == before or not self._lanes[0].alive:
                    raise
                observer(Retrying(name, number, 0.0, str(exc)))
        return await attempt()

    async def dialled(self) -> None:
        """Return once every connection has been made, or has failed."""
        while self._dialling:
            await self._changed.wait()

    async def keep(self, client: Client, observer: Observer) -> None:
        """Hold a lane until cancelled, another one when it is lost, as long as there is a point in it. Never raises."""
        backoff = Backoff()
        self._dialling += 1
        first = True

        def known() -> None:
            nonlocal first
            if first:
                first = False
                self._dialling -= 1
                self._changed.set()
                self._changed = trio.Event()

        try:
            while self._lanes[0].alive:
                held = False
                try:
                    async with client.dial() as connection:
                        held = True
                        self._lanes.append(Lane(connection))
                        known()
                        while await connection.accept() is not None:
                            pass  # servers open no streams; this returns when the connection is lost and then closed
                    raise connection.failure or ConnectionLost("the server closed it")
                except FsmuxError as exc:
                    if held or first:  # and not of each attempt to get it back
                        observer(Warned(str(client.remote.server), f"one connection less: {exc}"))
                    known()
                    delay = backoff.failed(progressed=held)
                    if delay is None or not exc.retryable or isinstance(exc, PeerShutdown):
                        return
                await trio.sleep(delay)
        finally:
            known()


@asynccontextmanager
async def open_lanes(client: Client, count: int, observer: Observer, run: Run | None = None) -> AsyncIterator[Lanes]:
    """``count`` connections to the server of ``client``, its own included, for the block.

    They are not all there at once; see :meth:`Lanes.dialled`.  ``run`` is the run that this is an attempt of, if it may
    have others.
    """
    lanes = Lanes(client.connection, run or Run())
    async with serving(trio.CancelScope(), *[partial(lanes.keep, client, observer)] * (count - 1)):
        await trio.lowlevel.checkpoint()  # so that all have begun to dial
        yield lanes
