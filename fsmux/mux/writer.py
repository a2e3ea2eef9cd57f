"""The writer of a connection: what the outbox has goes to the transport, as soon and as fast as it may.

Theory: it alone sends.  It sleeps while nothing can be sent, and whoever queues something wakes it.  Under a rate it
gives the outbox an allowance of bytes under credit, as many as the throttle has free; what needs no allowance is not
held back, so that requests and pings pass however low the rate is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from fsmux.mux.throttle import Throttle

if TYPE_CHECKING:
    from fsmux.mux.outbox import Outbox
    from fsmux.mux.transport import Transport
    from fsmux.mux.transport.base import OnShort


class Writer:
    """Empties ``outbox``; ``on_short`` is the transport's."""

    def __init__(self, transport: Transport, outbox: Outbox, on_short: OnShort) -> None:
        self.sending = False
        """Whether the transport has something that the peer has yet to take."""
        self._transport = transport
        self._outbox = outbox
        self._on_short = on_short
        self._throttle = Throttle()
        self._stopped = False
        self._sendable = trio.Event()
        self._sent_all = trio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        if not self._sendable.is_set():
            self._sendable.set()

    def limit(self, rate: int | None) -> None:
        """Send at most ``rate`` bytes under credit per second; None: as many as possible."""
        self._throttle.limit(rate, trio.current_time())
        if rate is not None:
            self._outbox.hold_back()  # a thread that sends without a limit is to come back
        self.wake()

    def stop(self) -> None:
        """Take nothing more: what is queued is a GOAWAY that says why, and for whoever ends the connection to send."""
        self._stopped = True
        self._sent_all.set()

    async def run(self) -> None:
        """Send until stopped; raises :class:`ConnectionLost` if the connection breaks."""
        while True:
            if self._outbox.idle:
                self._sent_all.set()
                self._sendable = trio.Event()
                if self._outbox.idle:
                    await self._sendable.wait()
                if self._stopped:
                    return
                self._sent_all = trio.Event()
            if self._throttle.rate is None:
                self._outbox.allowance = None
                await self.pump()
            else:
                await self._pump_at_rate()

    async def flush(self) -> None:
        """Return once all that can be sent has been, or the writer was stopped; nothing else is going to be sent."""
        self._outbox.end()
        while not (self._outbox.idle and self._sent_all.is_set()) and not self._stopped:
            await self._sent_all.wait()
            await trio.lowlevel.checkpoint()

    async def pump(self) -> None:
        """Send what can be sent now; for :meth:`run`, and for the last words of a connection whose writer has ended."""
        self.sending = True
        try:
            await self._transport.pump(self._outbox, self._on_short)
        finally:
            self.sending = False

    async def _pump_at_rate(self) -> None:
        """Send what the rate allows now, or wait until it allows something or there is something else to send."""
        outbox, throttle = self._outbox, self._throttle
        outbox.allowance = throttle.take(trio.current_time()) if outbox.has_bulk else 0
        try:
            if not outbox.held:
                await self.pump()
                return
        finally:
            throttle.give_back(outbox.allowance)
            outbox.allowance = 0
        self._sendable = trio.Event()
        if outbox.held:
            with trio.move_on_at(throttle.ready_at(trio.current_time())):
                await self._sendable.wait()
