"""A held directory as the place where files land: resolving, making directories, making their entries durable.

Theory: this is the part of :class:`~fsmux.files.root.Root` that sinks need, apart from what a peer may ask for by name.
Nothing here checks names; callers have.  A file is put together in the reserved directory of the file system *and
mount* that it is to end up on, because only there can it be renamed into place; which one that is follows from
resolving with and without leave to cross mounts.
"""

from __future__ import annotations

import errno
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from fsmux.errors import BadName, from_os_error
from fsmux.files import leftovers
from fsmux.files.lease import Lease
from fsmux.files.naming import named
from fsmux.files.resolve import open_beneath
from fsmux.files.state import Pin, StateDir
from fsmux.files.syscalls import OPEN_DIRECTORY, OPEN_STEP, Syscalls, real
from fsmux.records import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from fsmux.records import Parts

T = TypeVar("T")

_CHANGEABLE: Final = stat.S_IWUSR | stat.S_IXUSR
"""What its owner needs of a directory to put something into it."""

_OPENINGS: Final = 20
"""Times that something is tried in a directory which its owner has closed: as often other processes may close it."""

_SETTLED: Final = 4096
"""Directories remembered as durable; beyond it all are forgotten, which costs some fsyncs and nothing else."""


class Landing:
    """One held directory.  Thread-safe."""

    def __init__(self, fd: int, sys: Syscalls = real) -> None:
        """``fd`` is an open directory, owned from here on."""
        self.sys = sys
        self._top = Lease(fd, sys)
        try:
            self._device = sys.fstat(fd).st_dev
        except OSError as error:
            self._top.close()
            raise from_os_error(error, "the directory") from None
        self._mutex = threading.Lock()
        self._states: dict[Parts, StateDir] = {}
        self._settled: dict[Parts, tuple[int, int]] = {}
        self._secret = b""
        self._opened: dict[tuple[int, int], tuple[int, int]] = {}
        """Directories that their owner may change for the moment: by how many users, and the permissions they had."""

    def close(self) -> None:
        """Leases handed out stay good; new ones are refused."""
        with self._mutex:
            states, self._states = self._states, {}
        for state in states.values():
            state.close()
        self._top.close()

    @contextmanager
    def keep_state(self) -> Iterator[None]:
        """Keep the root's own directory of unfinished files for the block, without what was abandoned in it.

        Without it a lone small file makes the directory and removes it again; a batch of them should not.
        """
        with named(()):
            pin = self.pin(())
        try:
            leftovers.sweep(self, pin.state)
            yield
        finally:
            pin.release()

    def pin(self, parent: Parts) -> Pin:
        """Pin the directory of unfinished files for files in ``parent``, which need not exist yet."""
        with self._top as top:
            while True:
                try:
                    return Pin(self._state_of(top, parent))
                except FileNotFoundError:
                    if not parent:
                        raise
                    parent = parent[:-1]

    @contextmanager
    def landing(self, parent: Parts) -> Iterator[Pin]:
        """A pin for the block."""
        pin = self.pin(parent)
        try:
            yield pin
        finally:
            pin.release()

    def land(self, parts: Parts) -> tuple[os.stat_result | None, Pin]:
        """What has the name now, as :meth:`existing`, and a pin for its parent, as :meth:`pin`; in fewer calls."""
        parent = parts[:-1]
        sys = self.sys
        with self._top as top:
            try:
                fd = open_beneath(sys, top, parent, OPEN_STEP, one_mount=True) if parent else top
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EXDEV):
                    raise
                return self.existing(parts), self.pin(parent)
            try:
                at_home = fd == top or sys.fstat(fd).st_dev == self._device
                try:
                    facts = sys.stat(fd, parts[-1])
                except FileNotFoundError:
                    facts = None
            finally:
                if fd != top:
                    self._close(fd)
            return facts, Pin(self._state_at(top, ())) if at_home else self.pin(parent)

    @contextmanager
    def landing_in(self, parent: Parts) -> Iterator[tuple[int, StateDir]]:
        """The directory ``parent``, which must be there, and where files for it are put together, for the block."""
        sys = self.sys
        with self._top as top:
            at_home = True
            try:
                fd = open_beneath(sys, top, parent, OPEN_DIRECTORY, one_mount=True)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                at_home = False
                fd = self._strict(top, parent)
            try:
                at_home = at_home and sys.fstat(fd).st_dev == self._device
                pin = Pin(self._state_at(top, ())) if at_home else self.pin(parent)
                try:
                    yield fd, pin.state
                finally:
                    pin.release()
            finally:
                self._close(fd)

    def make_directory(self, parent: int, parts: Parts, mode: int) -> bool:
        """Make ``parts`` in its directory, on which ``parent`` is open; False if it is there, which is fine."""
        try:
            self._mkdir(parent, parts, mode)
        except FileExistsError:
            if not stat.S_ISDIR(self.sys.stat(parent, parts[-1]).st_mode):
                raise
            return False
        return True

    def rename_into(self, here: int, name: bytes, directory: int, to_name: bytes) -> None:
        """Give what is ``name`` in ``here`` its name in an open directory, which its owner may have closed."""
        self.change(directory, self.sys.rename, here, name, directory, to_name)

    def change(self, directory: int, act: Callable[..., None], *args: object) -> None:
        """Change something in an open directory, which its owner may have closed."""
        try:
            act(*args)
        except PermissionError as refused:
            self.opening(refused, directory, act, *args)

    def opening(self, refused: PermissionError, directory: int, act: Callable[..., T], *args: object) -> T:
        """``act`` once more, which was ``refused`` to change something in an open directory, if its owner may not.

        He may for as long as it takes; whoever is killed meanwhile leaves it so.  Raises what it was refused with if
        that was not the reason, and what it raises now.
        """
        for _ in range(_OPENINGS):
            key, ours = self._open_up(directory)
            if not ours:
                break
            try:
                return act(*args)
            except PermissionError as again:  # another process has opened it, too, and closed it just now
                refused = again
            finally:
                if key is not None:
                    self._close_again(directory, key)
        raise refused

    def _open_up(self, directory: int) -> tuple[tuple[int, int] | None, bool]:
        """By what to close it again, if it was closed; and whether it is open now and ours, or neither."""
        with self._mutex:
            facts = self.sys.fstat(directory)
            key = facts.st_dev, facts.st_ino
            users, mode = self._opened.get(key, (0, stat.S_IMODE(facts.st_mode)))
            if not users:
                if mode & _CHANGEABLE == _CHANGEABLE:
                    return None, facts.st_uid == self.sys.euid()
                try:
                    self.sys.fchmod(directory, mode | _CHANGEABLE)
                except OSError:  # it is somebody else's
                    return None, False
            self._opened[key] = users + 1, mode
        return key, True

    def _close_again(self, directory: int, key: tuple[int, int]) -> None:
        with self._mutex:
            users, mode = self._opened.pop(key)
            if users > 1:
                self._opened[key] = users - 1, mode
            else:
                with suppress(OSError):
                    self.sys.fchmod(directory, mode)

    def existing(self, parts: Parts) -> os.stat_result | None:
        """What has the name now, itself, without following links.  None if nothing or no directory to hold it."""
        with self._top as top:
            try:
                if len(parts) == 1:
                    return self.sys.stat(top, parts[0])
                with self._step(top, parts[:-1]) as parent:
                    return self.sys.stat(parent, parts[-1])
            except FileNotFoundError:
                return None

    def enter(self, parts: Parts) -> Lease:
        """The directory that is to hold ``parts``, made if it is missing; close it unless it is the root's own."""
        with self._top as top:
            if len(parts) == 1:
                return self._top
            return Lease(self._make_directories(top, parts[:-1]), self.sys)

    def leave(self, directory: Lease) -> None:
        """Close what :meth:`enter` opened."""
        if directory is not self._top:
            directory.close()

    def settle(self, parent: Parts, fd: int) -> None:
        """Make the entries of the directory ``parent``, on which ``fd`` is open, durable.

        An entry is durable when its directory was synced after it, and that directory's own entry, up to the root.
        The upper part is done once per directory and remembered: it may have been made by somebody who did not sync.
        """
        self.sys.fsync(fd)
        if not parent:
            return
        facts = self.sys.fstat(fd)
        key = (facts.st_dev, facts.st_ino)
        if self._settled.get(parent) == key:
            return
        with self._top as top:
            for depth in range(len(parent) - 1, -1, -1):
                upper = self._strict(top, parent[:depth])
                try:
                    self.sys.fsync(upper)
                finally:
                    self._close(upper)
        with self._mutex:
            if len(self._settled) >= _SETTLED:
                self._settled.clear()
            self._settled[parent] = key

    def _state_of(self, top: int, parent: Parts) -> StateDir:
        """The reserved directory of the file system (and mount) that ``parent`` is on."""
        if not parent:
            return self._state_at(top, ())
        device = self._device
        for depth in range(len(parent) + 1):
            # From the root down: the first directory that reaches ``parent`` without crossing a mount is the top of
            # its mount.  Nearly always that is the root itself, in the first round.
            base = top if not depth else self._strict(top, parent[:depth])
            try:
                if depth:
                    device = self.sys.fstat(base).st_dev
                fd = open_beneath(self.sys, base, parent[depth:], OPEN_STEP, one_mount=True)
                try:
                    if self.sys.fstat(fd).st_dev == device:
                        return self._state_at(base, parent[:depth])
                finally:
                    self._close(fd)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            finally:
                if depth:
                    self._close(base)
        raise BadName(f"{printable(parent)}: its file system changed meanwhile")

    def _state_at(self, base: int, parts: Parts) -> StateDir:
        state = self._states.get(parts)
        if state is None:
            with self._mutex:
                state = self._states.get(parts)
                if state is None:
                    state = self._states[parts] = StateDir(self.sys, self._strict(base, ()), self.change)
        return state

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _strict(self, top: int, parts: Parts) -> int:
        return open_beneath(self.sys, top, parts, OPEN_DIRECTORY)

    @contextmanager
    def _step(self, top: int, parts: Parts, *, links: bool = False, one_mount: bool = False) -> Iterator[int]:
        """The descriptor of a directory to reach one of its entries, for the block."""
        if not parts:
            yield top
            return
        fd = open_beneath(self.sys, top, parts, OPEN_STEP, links=links, one_mount=one_mount)
        try:
            yield fd
        finally:
            self._close(fd)

    def _make_directories(self, top: int, parts: Parts) -> int:
        """Open a directory, making it and its parents if they are missing; anew if one has lost its place meanwhile."""
        try:
            return self._open_or_make(top, parts)
        except FileNotFoundError:
            return self._open_or_make(top, parts)

    def _open_or_make(self, top: int, parts: Parts) -> int:
        try:
            return self._strict(top, parts)
        except FileNotFoundError:
            if not parts:
                raise
        parent = self._open_or_make(top, parts[:-1])
        try:
            with suppress(FileExistsError):
                self._mkdir(parent, parts, 0o777)
            return self.sys.openat(parent, parts[-1], OPEN_DIRECTORY)
        finally:
            self._close(parent)

    def _mkdir(self, parent: int, parts: Parts, mode: int) -> None:
        self.change(parent, self.sys.mkdir, parent, parts[-1], mode)
        with self._mutex:
            self._settled.pop(parts, None)

    def _close(self, fd: int) -> None:
        with suppress(OSError):
            self.sys.close(fd)
