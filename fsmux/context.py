"""What the handlers of one connection work with, and how much of it at once.

Theory: a client is limited however it behaves.  What it asks for is read and queued a few answers at a time, by kind,
so that no kind waits for another: a conversation that is open holds nothing between two answers.
"""

from __future__ import annotations

import resource
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct, field

from fsmux.errors import AccessError, RefusedError
from fsmux.limits import MAX_STREAMS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fsmux.events import Observer
    from fsmux.files.root import Root
    from fsmux.records import Durability
    from fsmux.transfer.attempts import Attempts
    from fsmux.transfer.desk import Desk
    from fsmux.transfer.digests import DigestCache
    from fsmux.transfer.disk import Disk
    from fsmux.transfer.growths import Growths
    from fsmux.wire.messages import Create, Put, Store


class StateKeeper:
    """Keeps the root's directory of unfinished files from the first upload of a connection to its end.

    Without it, each of a thousand small files would make that directory and remove it again.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._stack = ExitStack()
        self._once = threading.Lock()
        self._kept = False

    def keep(self) -> None:
        """Blocking, from any thread."""
        with self._once:
            if not self._kept:
                self._stack.enter_context(self._root.keep_state())
                self._kept = True

    def release(self) -> None:
        """Blocking; removes the directory if it is empty and nobody else keeps it."""
        self._stack.close()


TREES_AT_ONCE: Final = 8
"""Trees that are sent by themselves at once over one connection, and as many that are stored; others wait. Each of the
former holds two packs until they are read, each of the latter credit for more of them for as long as it lasts."""

LISTINGS_AT_ONCE: Final = 64
"""Listings that are read and sent at once over one connection; others wait. Each holds a page of up to 300 KB."""

PACKS_AT_ONCE: Final = 8
"""Packs that were asked for and are read and sent at once over one connection."""

DIGESTS_AT_ONCE: Final = 2
"""Files that are read at once for the digests that one connection asks for: half of the threads that read."""


def _most_handles() -> int:
    """Files that one connection may have open: half of what the process may, so that it leaves others room."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_STREAMS if limit == resource.RLIM_INFINITY else min(max(limit // 2, 1), MAX_STREAMS)


class Context(Struct, frozen=True):
    """What handlers of one connection work with."""

    root: Root
    disk: Disk
    digests: DigestCache
    owner: bytes
    refusal: str | None
    """Why nothing may be written; None if it may."""
    durability: Durability
    peer: str
    observer: Observer
    kept: StateKeeper
    desk: Desk
    attempts: Attempts
    growths: Growths
    handles: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_most_handles()))
    trees: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(TREES_AT_ONCE))
    stores: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(TREES_AT_ONCE))
    listings: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(LISTINGS_AT_ONCE))
    looks: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(LISTINGS_AT_ONCE))
    packs: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(PACKS_AT_ONCE))
    digesting: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(DIGESTS_AT_ONCE))

    @contextmanager
    def handle(self) -> Iterator[None]:
        """A file that is open for this connection, for a block. Raises :class:`RefusedError` if there are too many."""
        holder = object()
        try:
            self.handles.acquire_on_behalf_of_nowait(holder)
        except trio.WouldBlock:
            raise RefusedError(f"this connection has {self.handles.total_tokens} files open; close some") from None
        try:
            yield
        finally:
            self.handles.release_on_behalf_of(holder)

    def check_write(self) -> None:
        if self.refusal is not None:
            raise AccessError(f"the server does not allow writing here{self.refusal}")

    async def for_run(self, request: Put | Store | Create, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a request in the place of what earlier attempts of its run have left under way."""
        if request.join:
            await self.attempts.take_part((self.owner, request.join), request.attempt, work)
        else:
            await work()
