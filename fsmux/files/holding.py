"""Reserved directories that a stream of packs keeps, and the syncs that all that was written there shares.

Theory: ``syncfs`` tells of every write that failed since its descriptor was opened (Linux 5.8), so that descriptor is
opened before the first file is written, and belongs to one stream of packs alone.  It is needed longer than the
directory it is of: finishing the top of a tree lets that be removed, and what was renamed is still to be synced.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from fsmux.errors import from_os_error
from fsmux.files.state import Pin
from fsmux.files.syscalls import OPEN_DIRECTORY

if TYPE_CHECKING:
    from fsmux.errors import FsmuxError
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls

_TELLS: Final = (5, 8)
"""The Linux from which on ``syncfs`` reports failed writes."""


class _Held(NamedTuple):
    """A reserved directory that is kept, with a descriptor of our own; others cannot remove it for the guard in it."""

    pin: Pin
    fd: int


class Holding:
    """The reserved directories of one stream of packs.  :meth:`hold` in any thread, all else in one."""

    def __init__(self, sys: Syscalls) -> None:
        self._sys = sys
        self._held: dict[StateDir, _Held] = {}
        self._left: dict[StateDir, int] = {}
        self._mutex = threading.Lock()

    @property
    def empty(self) -> bool:
        return not self._held and not self._left

    def hold(self, state: StateDir) -> int:
        """Keep a reserved directory until :meth:`let_go`: our descriptor of it."""
        held = self._held.get(state)
        if held is None:
            with self._mutex:
                held = self._held.get(state)
                if held is None:
                    held = self._held[state] = self._take(state)
        return held.fd

    def _take(self, state: StateDir) -> _Held:
        pin = Pin(state)
        try:
            state.guard()
            with state.hold() as here:
                return _Held(pin, self._sys.openat(here, b".", OPEN_DIRECTORY))
        except BaseException:
            pin.release()
            raise

    def sync(self) -> dict[StateDir, FsmuxError]:
        """Sync the file systems of all of them; the errors of those that failed."""
        errors: dict[StateDir, FsmuxError] = {}
        written = {state: held.fd for state, held in self._held.items()} | self._left
        for state, fd in written.items():
            try:
                self._sys.syncfs(fd)
            except OSError as error:
                errors[state] = from_os_error(error, "writing to the disk")
        return errors

    def let_go(self) -> None:
        """Let the reserved directories be removed. Their descriptors stay: what was written is still to be synced."""
        held, self._held = self._held, {}
        for state, (pin, fd) in held.items():
            self._left[state] = fd
            pin.release()

    def close_left(self) -> None:
        """Close the descriptors of those that were let go."""
        left, self._left = self._left, {}
        for fd in left.values():
            with suppress(OSError):
                self._sys.close(fd)


def tells_of_writes(sys: Syscalls) -> bool:
    """Whether ``syncfs`` can be believed on this kernel."""
    found = re.match(r"(\d+)\.(\d+)", sys.kernel())
    return found is not None and (int(found[1]), int(found[2])) >= _TELLS
