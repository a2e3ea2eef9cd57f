"""The reserved directory: where files live until they are whole.

Theory: a rename is atomic only within one file system, so each file system that is written to has a ``.fsmux/`` of its
own, at the top of it as seen from the root.  It is made when the first unfinished file needs it and removed when the
last one is gone; whoever needs it in between holds a *pin*.  It must be a real directory of our own user: a planted
link or somebody else's directory is refused, because everything in it is trusted.

Temporary files have names that nobody comes back to.  All that begin alike belong to one *guard*, a file that is there
before the first of them, and locked for as long as its owner lives: so anybody can tell for certain whether they are
of use to somebody (:mod:`.leftovers`).  A guard that was let go is never taken up again.
"""

from __future__ import annotations

import errno
import itertools
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import AccessError, Busy, FsmuxError, StorageError
from fsmux.files import lock
from fsmux.files.lease import Lease
from fsmux.files.names import RESERVED
from fsmux.files.syscalls import OPEN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from fsmux.files.syscalls import Syscalls

    class Change(Protocol):
        def __call__(self, directory: int, act: Callable[..., None], *args: object) -> None: ...


_RETRIES: Final = 100
"""Times that somebody else may remove the empty directory just when it was about to be used."""


TEMPORARY: Final = b".tmp"
"""How names of temporary files end; they begin with the name of their guard and a dash."""

GUARD: Final = b".guard"
"""How names of guards end."""


class StateDir:
    """One reserved directory.  Its descriptor is open while it has pins."""

    def __init__(self, sys: Syscalls, home: int, change: Change) -> None:
        """``home`` is a descriptor of the directory that holds it, and is owned from here on.

        ``change`` changes something there even if its owner has closed that (:meth:`.landing.Landing.change`).
        """
        self._sys = sys
        self._change = change
        self._home = Lease(home, sys)
        self._mutex = threading.RLock()  # opening it anew may be part of making a guard
        self._pins = 0
        self._lease: Lease | None = None
        self._guard: tuple[bytes, Lease] | None = None
        self._numbers = itertools.count(1)
        self._closing = False
        self._home_time: int | None = None
        """When what it is in was last changed by anybody else, if it was made here."""
        self.reserves = True

    def pin(self) -> None:
        """Have the directory made if need be, and keep it."""
        with self._mutex:
            if self._lease is None:
                try:
                    self._lease = self._open()
                except BaseException:
                    self._remove()
                    raise
            self._pins += 1

    def unpin(self) -> None:
        with self._mutex:
            self._pins -= 1
            if self._pins:
                return
            self._let_go()
            lease, self._lease = self._lease, None
            if lease is not None:
                lease.close()
            self._remove()
            if self._closing:
                self._home.close()

    def _remove(self) -> None:
        with suppress(OSError), self._home.hold() as home:
            before = self._time_of(home)
            self._change(home, self._sys.rmdir, home, RESERVED)  # refuses while anything is in it
            if before is not None and before == self._home_time:
                self._sys.futime(home, before)

    def hold(self) -> Lease:
        """The directory's descriptor, for ``with``; only for holders of a pin."""
        if self._lease is None:
            raise StorageError("the directory of unfinished files is not open")
        return self._lease

    def create(self, name: bytes, flags: int, mode: int = 0o600) -> int:
        """Open ``name`` in it, creating it.

        Another process may have removed the empty directory between our opening and our using it; then it is made anew.
        """
        for _ in range(_RETRIES):
            lease = self.hold()
            try:
                with lease as fd:
                    return self._sys.openat(fd, name, flags, mode)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            with self._mutex:
                if self._lease is lease:
                    self._lease = self._open()
                    lease.close()
        raise StorageError("the directory of unfinished files is being removed again and again")

    def unique(self) -> bytes:
        """A name for a temporary file that nobody else has: that of our guard, and a count."""
        guard = self._guard  # which is kept while the directory is pinned
        # A count is one step: no two threads get the same.
        return b"%s-%x%s" % (self.guard() if guard is None else guard[0], next(self._numbers), TEMPORARY)

    def guard(self) -> bytes:
        """From here on nobody removes the directory, nor what has a :meth:`unique` name, while it is pinned."""
        with self._mutex:
            if self._guard is None:
                self._guard = self._guarded()
            return self._guard[0]

    def _guarded(self) -> tuple[bytes, Lease]:
        for _ in range(_RETRIES):
            name = self._sys.random(8).hex().encode()
            with suppress(Busy):  # somebody sweeps, and has found it before we had locked it
                return name, lock.acquire(self._sys, self, name + GUARD, "a guard", if_possible=True)[0]
        raise StorageError("the directory of unfinished files is being swept again and again")

    def _let_go(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            with suppress(OSError, FsmuxError):
                self.unlink(guard[0] + GUARD)
            guard[1].close()

    def unlink(self, name: bytes) -> None:
        """Remove ``name``; it may be gone."""
        with self.hold() as fd, suppress(FileNotFoundError):
            self._sys.unlink(fd, name)

    def close(self) -> None:
        """The root ends: the last pin that is left takes the descriptor with it."""
        with self._mutex:
            self._closing = True
            if not self._pins:
                self._home.close()

    def _open(self) -> Lease:
        sys = self._sys
        with self._home.hold() as home:
            for _ in range(_RETRIES):
                with suppress(FileExistsError):
                    self._make(home)
                try:
                    fd = sys.openat(home, RESERVED, OPEN_DIRECTORY)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise AccessError(f"{RESERVED.decode()} is not a directory; remove it") from None
                    raise
                return self._checked(fd)
        raise StorageError("the directory of unfinished files is being removed again and again")

    def _make(self, home: int) -> None:
        """Make it, and leave no trace of that in the time of what it is in."""
        self._home_time, before = None, self._time_of(home)
        self._change(home, self._sys.mkdir, home, RESERVED, 0o700)
        if before is not None:
            with suppress(OSError):  # it is somebody else's
                self._sys.futime(home, before)
                self._home_time = before

    def _time_of(self, home: int) -> int | None:
        try:
            return self._sys.fstat(home).st_mtime_ns
        except OSError:
            return None

    def _checked(self, fd: int) -> Lease:
        lease = Lease(fd, self._sys)
        try:
            facts = self._sys.fstat(fd)
            if facts.st_uid != self._sys.euid():
                raise AccessError(f"{RESERVED.decode()} belongs to another user; files cannot be received here")
            if facts.st_mode & 0o077:
                self._sys.fchmod(fd, 0o700)
            # Reserving blocks saves half of the time of writing on a disk, but on a tmpfs it zeroes every page first,
            # in one go and before the first byte is received (measured: 0.23 s per GiB, nothing gained later).
            self.reserves = not self._sys.in_memory(fd)
        except BaseException:
            lease.close()
            raise
        return lease


class Pin:
    """One pin, given back once however often it is asked to."""

    __slots__ = ("_done", "state")

    def __init__(self, state: StateDir) -> None:
        self.state = state
        self._done: Callable[[], None] | None = None
        state.pin()
        self._done = state.unpin

    def release(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()
