"""What a connection needs of whatever carries its bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import trio

from fsmux.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fsmux.mux.outbox import Outbox
    from fsmux.mux.pour import Pour
    from fsmux.mux.queued import Batch

NEAR_SECONDS: Final = 0.001
"""Seconds of a round trip, as TCP measures it, below which a peer is near: 2 GB/s, which is more than one connection
moves, have 2 MB under way in it."""

T = TypeVar("T")
OnShort: TypeAlias = "Callable[[int, OSError | None], None]"


class Transport(ABC):
    """One connection's bytes.  One task receives, one task sends; both may be cancelled, which breaks it."""

    peer: str = "memory"
    sent = 0
    """Bytes that were taken off our hands until now."""
    may_pour = False
    """Whether there is a reader's thread."""
    _broken = False

    @property
    def least_rtt(self) -> float | None:
        """Seconds of the shortest round trip of late, without the peer's part in it; None if nothing tells."""
        return None

    @property
    def near(self) -> bool:
        """Whether the peer is known to be so near that little has to be under way for the link to be busy."""
        rtt = self.least_rtt
        return rtt is not None and rtt < NEAR_SECONDS

    @property
    def far(self) -> bool:
        """Whether the peer is known not to be."""
        rtt = self.least_rtt
        return rtt is not None and rtt >= NEAR_SECONDS

    @abstractmethod
    async def receive_into(self, buffers: Sequence[memoryview]) -> int:
        """Fill the buffers in order with whatever is there, at least one byte; 0 at the end of the connection.

        May return without a checkpoint.  Raises :class:`ConnectionLost` if the connection breaks.
        """

    @abstractmethod
    async def pump(self, outbox: Outbox, on_short: OnShort) -> None:
        """Send until the outbox has nothing more to send.

        ``on_short(stream_id, error)`` is called, in whatever thread, when a span's file ended early, or could not be
        read, and zeros filled its frame.
        Raises :class:`ConnectionLost` if the connection breaks; cancellation inside a frame breaks it.
        """

    @contextmanager
    def _whole(self, batch: Batch) -> Iterator[None]:
        """Send ``batch`` in the block, to its end: whoever leaves it early breaks the connection."""
        try:
            if self._broken:
                raise ConnectionLost("the connection broke inside a frame")
            self._broken = True
            yield
        except OSError as exc:
            raise lost(exc) from exc
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("the connection was lost") from exc
        finally:
            batch.release()
        self._broken = False
        if batch.queue is not None:
            batch.queue.sent()

    async def in_reader_thread(self, fn: Callable[[], T]) -> T:
        """Run ``fn``, which uses the methods below, in a thread. Cancellation reaches it when it waits."""
        raise NotImplementedError

    def receive_now(self, buffers: Sequence[memoryview], milliseconds: int) -> int:
        """As :meth:`receive_into`, in the reader's thread; 0 if nothing came for so long. Blocks."""
        raise NotImplementedError

    def pour_now(self, pour: Pour, early: memoryview) -> None:
        """Receive a payload, of which ``early`` is here already, and have ``pour`` take it. Blocks.

        Returns with some of it done: all, or what ``pour`` took, or what came within ``POUR_SECONDS``.
        Raises :class:`ConnectionLost` if the connection breaks; cancellation leaves the payload unfinished.
        """
        raise NotImplementedError

    @abstractmethod
    async def aclose(self) -> None:
        """Close without ceremony. Never fails and leaves no descriptor, even when cancelled."""


def lost(exc: OSError) -> ConnectionLost:
    """The typed error for a socket that failed."""
    reason = (exc.strerror or "it broke").lower()
    return ConnectionLost(f"the connection was lost: {reason}")
