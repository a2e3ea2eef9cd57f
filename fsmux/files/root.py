"""The served directory, and everything that can be done in it by components.

Theory: a root is one descriptor, opened once from the operator's own path and held.  A method takes components, checks
them (:mod:`.names`), resolves them beneath that descriptor (:mod:`.resolve`) and works on what it got, never on a path.
Reading may pass symbolic links that stay inside; whatever writes passes none.  Directory descriptors are not kept
between calls: resolving anew costs 2 to 3 µs, and a kept one goes on pointing at a directory that was moved away.
"""

from __future__ import annotations

import errno
import stat
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import BadName, Exists, IsADirectory, NotRegular, UsageError, from_os_error
from fsmux.files import names, tree
from fsmux.files.lease import Lease
from fsmux.files.naming import named
from fsmux.files.resolve import open_beneath, open_target
from fsmux.files.state import Pin, StateDir
from fsmux.files.syscalls import OPEN_CREATE, OPEN_DIRECTORY, OPEN_READ, OPEN_STEP, OPEN_WRITE, Syscalls, real
from fsmux.records import Attrs, Kind, printable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from fsmux.records import Parts

PAGE: Final = 1000
"""Entries of one page of a listing."""

_SETTLED: Final = 4096
"""Directories remembered as durable; beyond it all are forgotten, which costs some fsyncs and nothing else."""


class Root:
    """One directory; all names are relative to it and stay in it.  Thread-safe."""

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

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, sys: Syscalls = real) -> Root:
        """``path`` is the operator's, so it may lead through anything; no error text repeats it."""
        try:
            fd = sys.open_root(path)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                raise UsageError("the directory has a name that cannot be one") from None
            raise from_os_error(error, "the directory") from None
        return cls(fd, sys)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leases handed out stay good; new ones are refused."""
        with self._mutex:
            states, self._states = self._states, {}
        for state in states.values():
            state.close()
        self._top.close()

    # ---- looking -------------------------------------------------------------------------------------------------

    def stat(self, parts: Parts, follow: bool = False) -> Attrs:
        names.check(parts)
        with named(parts), self._top as top:
            if not parts:
                return tree.attrs_of(self.sys.fstat(top))
            with self._step(top, parts[:-1], links=True) as parent:
                facts = self.sys.stat(parent, parts[-1])
                if not stat.S_ISLNK(facts.st_mode):
                    return tree.attrs_of(facts)
                if not follow:
                    return tree.attrs_of(facts, self.sys.readlink(parent, parts[-1]))
            fd = open_target(self.sys, top, parts)
            try:
                return tree.attrs_of(self.sys.fstat(fd))
            finally:
                self._close(fd)

    def scan(self, parts: Parts) -> Iterator[list[tuple[bytes, Attrs]]]:
        """The entries of a directory in pages, unsorted, without ``.fsmux``; what vanishes meanwhile is left out.

        A generator that holds a descriptor: exhaust it or close it.
        """
        names.check(parts)
        with named(parts):
            with self._top as top:
                lease = Lease(open_beneath(self.sys, top, parts, OPEN_DIRECTORY, links=True), self.sys)
            try:
                with lease as fd, closing(tree.entries(self.sys, fd)) as found:
                    page: list[tuple[bytes, Attrs]] = []
                    for entry in found:
                        page.append(entry)
                        if len(page) == PAGE:
                            yield page
                            page = []
                    if page:
                        yield page
            finally:
                lease.close()

    def open_file(self, parts: Parts, *, write: bool = False, create: bool = False, truncate: bool = False) -> Lease:
        """A regular file, to read; with ``write`` to read and write in place.  Nothing else is ever waited for."""
        return self.open_regular(parts, write=write, create=create, truncate=truncate)[0]

    def open_regular(
        self, parts: Parts, *, write: bool = False, create: bool = False, truncate: bool = False, links: bool = True
    ) -> tuple[Lease, os.stat_result]:
        """As :meth:`open_file`, and what ``fstat`` said."""
        names.check(parts)
        if not parts:
            raise IsADirectory(f"{printable(parts)}: is a directory")
        with named(parts), self._top as top:
            if create:
                with self._step(top, parts[:-1]) as parent:
                    fd = self.sys.openat(parent, parts[-1], OPEN_CREATE, 0o666)
            else:
                fd = open_beneath(self.sys, top, parts, OPEN_WRITE if write else OPEN_READ, links=links and not write)
            lease = Lease(fd, self.sys)
            try:
                facts = self.sys.fstat(fd)
                if stat.S_ISDIR(facts.st_mode):
                    raise IsADirectory(f"{printable(parts)}: is a directory")
                if not stat.S_ISREG(facts.st_mode):
                    raise NotRegular(f"{printable(parts)}: not a regular file")
                if truncate and write:
                    self.sys.ftruncate(fd, 0)
            except BaseException:
                lease.close()
                raise
            return lease, facts

    def directory(self, parts: Parts, create: bool = False) -> Lease:
        """A directory that may be written to, reached through no link; ``create`` makes it and its parents."""
        names.check(parts)
        with named(parts), self._top as top:
            return Lease(self._make_directories(top, parts) if create else self._strict(top, parts), self.sys)

    # ---- changing ------------------------------------------------------------------------------------------------

    def mkdir(self, parts: Parts, parents: bool = False, mode: int = 0o777) -> None:
        """With ``parents`` missing parents are made and an existing directory is fine, as in ``mkdir -p``."""
        names.check(parts)
        with named(parts), self._top as top:
            if not parts:
                if parents:
                    return
                raise Exists(f"{printable(parts)}: exists")
            if parents:
                self._close(self._make_directories(top, parts[:-1]))
            try:
                with self._step(top, parts[:-1]) as parent:
                    self._mkdir(parent, parts, mode & 0o777)
            except FileExistsError:
                if not parents:
                    raise
                self._close(self._strict(top, parts))

    def rename(self, source: Parts, target: Parts, replace: bool = False) -> None:
        for parts in (source, target):
            names.check(parts)
            _refuse_root(parts)
        with named(source), self._top as top, self._step(top, source[:-1]) as here:
            self.sys.stat(here, source[-1])  # so that an error from here on is about the target
            with named(target), self._step(top, target[:-1]) as there:
                if replace:
                    self.sys.rename(here, source[-1], there, target[-1])
                else:
                    tree.rename_new(self.sys, here, source[-1], there, target[-1])
        with self._mutex:
            self._settled.clear()

    def remove(self, parts: Parts, recursive: bool = False) -> None:
        """A file, a link or an empty directory; with ``recursive`` a directory with all that is in it."""
        names.check(parts)
        _refuse_root(parts)
        with named(parts), self._top as top, self._step(top, parts[:-1]) as parent:
            if not stat.S_ISDIR(self.sys.stat(parent, parts[-1]).st_mode):
                self.sys.unlink(parent, parts[-1])
            elif recursive:
                tree.remove(self.sys, parent, parts[-1])
            else:
                self.sys.rmdir(parent, parts[-1])

    def symlink(self, parts: Parts, target: bytes, attrs: Attrs | None = None) -> None:
        """Make a symbolic link, in place of whatever file or link has the name, in one step.

        Its text is stored as it is: it may lead anywhere, because nothing here follows it out of the root.
        """
        names.check(parts)
        _refuse_root(parts)
        if not target or b"\0" in target:
            raise BadName(f"{printable(parts)}: a symbolic link needs a target")
        with named(parts), self.landing(parts[:-1]) as pin:
            state = pin.state
            name = state.unique()
            with state.hold() as here:
                self.sys.symlink(target, here, name)
                try:
                    if attrs is not None and attrs.mtime_ns:
                        self.sys.utime_link(here, name, attrs.mtime_ns)
                    with self._top as top:
                        there = self._make_directories(top, parts[:-1])
                        try:
                            self.sys.rename(here, name, there, parts[-1])
                        finally:
                            self._close(there)
                except BaseException:
                    with suppress(OSError):
                        self.sys.unlink(here, name)
                    raise

    def set_attrs(self, parts: Parts, attrs: Attrs) -> None:
        """Set mode and modification time of a file or directory, the time only of a link; zero leaves one alone."""
        names.check(parts)
        with named(parts), self._top as top:
            if parts:
                with self._step(top, parts[:-1]) as parent:
                    kind = tree.attrs_of(self.sys.stat(parent, parts[-1])).kind
                    if kind == Kind.SPECIAL:
                        raise NotRegular(f"{printable(parts)}: neither a file nor a directory")
                    if kind == Kind.SYMLINK:
                        if attrs.mtime_ns:
                            self.sys.utime_link(parent, parts[-1], attrs.mtime_ns)
                        return
            fd = open_beneath(self.sys, top, parts, OPEN_READ)
            try:
                if attrs.mode & 0o777:
                    self.sys.fchmod(fd, attrs.mode & 0o777)
                if attrs.mtime_ns:
                    self.sys.futime(fd, attrs.mtime_ns)
            finally:
                self._close(fd)

    # ---- for sinks -----------------------------------------------------------------------------------------------

    @contextmanager
    def keep_state(self) -> Iterator[None]:
        """Keep the root's own directory of unfinished files for the block.

        Without it a lone small file makes the directory and removes it again; a batch of them should not.
        """
        pin = self.pin(())
        try:
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
        with self._top as top:
            try:
                with self._step(top, parent, one_mount=True) as fd:
                    home = fd == top or self.sys.fstat(fd).st_dev == self._device
                    try:
                        facts = self.sys.stat(fd, parts[-1])
                    except FileNotFoundError:
                        facts = None
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EXDEV):
                    raise
                return self.existing(parts), self.pin(parent)
            return facts, Pin(self._state_at(top, ())) if home else self.pin(parent)

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

    @contextmanager
    def entering(self, parts: Parts) -> Iterator[int]:
        """The directory that is to hold ``parts``, made if it is missing, for the block."""
        with self._top as top:
            if len(parts) == 1:
                yield top
                return
            fd = self._make_directories(top, parts[:-1])
            try:
                yield fd
            finally:
                self._close(fd)

    def settle(self, parent: Parts, fd: int) -> None:
        """Make the entries of the directory ``parent`` durable; ``fd`` is open on it.

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
                    state = self._states[parts] = StateDir(self.sys, self._strict(base, ()))
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
        """Open a directory, making it and its parents if they are missing."""
        try:
            return self._strict(top, parts)
        except FileNotFoundError:
            if not parts:
                raise
        parent = self._make_directories(top, parts[:-1])
        try:
            with suppress(FileExistsError):
                self._mkdir(parent, parts, 0o777)
            return self.sys.openat(parent, parts[-1], OPEN_DIRECTORY)
        finally:
            self._close(parent)

    def _mkdir(self, parent: int, parts: Parts, mode: int) -> None:
        self.sys.mkdir(parent, parts[-1], mode)
        with self._mutex:
            self._settled.pop(parts, None)

    def _close(self, fd: int) -> None:
        with suppress(OSError):
            self.sys.close(fd)


def _refuse_root(parts: Parts) -> None:
    if not parts:
        raise BadName("the root itself cannot be renamed, removed or replaced")
