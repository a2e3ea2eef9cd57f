"""Reserved directories that a stream of packs keeps, and the syncs that all that was written shares.

Theory: ``syncfs`` tells of every write that failed since its descriptor was opened (Linux 5.8), so that descriptor is
opened before the first file is written, and belongs to one stream of packs alone.  It is needed longer than the
directory it is of: finishing the top of a tree lets that be removed, and what was renamed is still to be synced.
Where names are only removed or adjusted no reserved directory is made for it: the directory itself is as good to sync.
"""

from __future__ import annotations

import re
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
    device: int


class Holding:
    """The reserved directories of one stream of packs.  One thread at a time, but for :meth:`sync_ahead`."""

    def __init__(self, sys: Syscalls) -> None:
        self._sys = sys
        self._held: dict[StateDir, _Held] = {}
        self._left: dict[StateDir | int, int] = {}  # an int is the device of a directory that was noted
        self._devices: set[int] = set()

    def hold(self, state: StateDir) -> int:
        """Keep a reserved directory until :meth:`let_go`: our descriptor of it."""
        held = self._held.get(state)
        if held is None:
            held = self._held[state] = self._take(state)
        return held.fd

    def _take(self, state: StateDir) -> _Held:
        pin = Pin(state)
        try:
            state.guard()
            with state.hold() as here:
                device = self._sys.fstat(here).st_dev
                fd = self._sys.openat(here, b".", OPEN_DIRECTORY)
            self._devices.add(device)
            return _Held(pin, fd, device)
        except BaseException:
            pin.release()
            raise

    def note(self, directory: int) -> None:
        """Have the file system of an open directory, in which something is to change, synced next time."""
        device = self._sys.fstat(directory).st_dev
        if device not in self._devices:
            self._left[device] = self._sys.dup(directory)
            self._devices.add(device)

    def sync(self) -> dict[StateDir | int, FsmuxError]:
        """Sync the file systems of all that is held or was noted; the errors of those that failed."""
        errors: dict[StateDir | int, FsmuxError] = {}
        for state, fd in [*[(state, held.fd) for state, held in self._held.items()], *self._left.items()]:
            try:
                self._sys.syncfs(fd)
            except OSError as error:
                errors[state] = from_os_error(error, "writing to the disk")
        return errors

    def sync_ahead(self) -> None:
        """Have what was written so far go to the disk, which :meth:`sync` then does not wait for.

        In another thread, beside one that holds and notes; :meth:`sync` waits for its end.  Descriptors of its own keep
        it from hearing of failed writes in the place of those that are believed.
        """
        for _, fd, _ in list(self._held.values()):
            with suppress(OSError):
                own = self._sys.openat(fd, b".", OPEN_DIRECTORY)
                try:
                    self._sys.syncfs(own)
                finally:
                    self._sys.close(own)

    def let_go(self) -> None:
        """Let the reserved directories be removed. Their descriptors stay: what was written is still to be synced."""
        held, self._held = self._held, {}
        for state, (pin, fd, _) in held.items():
            self._left[state] = fd
            pin.release()

    def close_left(self) -> None:
        """Close the descriptors of those that were let go or noted."""
        left, self._left = self._left, {}
        self._devices = {held.device for held in self._held.values()}
        for fd in left.values():
            with suppress(OSError):
                self._sys.close(fd)


def tells_of_writes(sys: Syscalls) -> bool:
    """Whether ``syncfs`` can be believed on this kernel."""
    found = re.match(r"(\d+)\.(\d+)", sys.kernel())
    return found is not None and (int(found[1]), int(found[2])) >= _TELLS
