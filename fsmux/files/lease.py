"""File descriptors that several threads may use while somebody else wants to close them.

Theory: a descriptor is a number, and numbers are used again.  A thread that still writes to number 8 after it was
closed writes into whatever file got number 8 next: one user's bytes in another user's file.  So nobody who may share a
descriptor with a thread holds the number; they hold a :class:`Lease`.  Using it counts up, closing only marks it, and
the last user to leave closes it.  Nobody ever waits.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import Busy
from fsmux.files.syscalls import Syscalls, real

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_mutex: Final = threading.Lock()
"""One for all leases: it is held for some bytecodes only, and a thousand sessions need no thousand locks."""


class Lease:
    """A descriptor with a count of users: ``with lease.hold() as fd: …``."""

    __slots__ = ("_after", "_closing", "_fd", "_sys", "_users")

    def __init__(self, fd: int, sys: Syscalls = real) -> None:
        self._fd = fd
        self._sys = sys
        self._users = 0
        self._closing = False
        self._after: Callable[[], None] | None = None

    @property
    def users(self) -> int:
        return self._users

    @property
    def closed(self) -> bool:
        """Whether it was given up; the descriptor itself lives on for as long as it has users."""
        return self._closing

    def hold(self) -> Lease:
        """For ``with``: the descriptor stays open until the block is left.  :class:`Busy` after :meth:`close`."""
        return self

    def share(self) -> int:
        """Count one more user, on behalf of one that holds it now; closing or not.  Each leaves by ``__exit__``."""
        with _mutex:
            assert self._users
            self._users += 1
        return self._fd

    def __enter__(self) -> int:
        with _mutex:
            if self._closing:
                raise Busy("the file was closed meanwhile")
            self._users += 1
        return self._fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _mutex:
            self._users -= 1
            last = self._closing and not self._users
        if last:
            self._really_close()

    def close(self, after: Callable[[], None] | None = None) -> None:
        """Give it up.  ``after`` runs once the descriptor is really closed: in this call if nobody uses it.

        What ``close(2)`` reports is not passed on: the descriptor is gone all the same, and whoever needs to know that
        the bytes are safe has synced before.
        """
        with _mutex:
            if self._closing:
                return
            self._closing = True
            self._after = after
            last = not self._users
        if last:
            self._really_close()

    def _really_close(self) -> None:
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            self._sys.close(fd)
        if self._after is not None:
            after, self._after = self._after, None
            after()

    def __del__(self) -> None:
        if not self._closing:
            number = self._fd
            self.close()  # first: where warnings are errors, nothing after one is reached
            warnings.warn(f"descriptor {number} was never closed", ResourceWarning, source=self, stacklevel=1)
