"""Packs to the disk: one call writes hundreds of files through held directory descriptors.

Theory: a file is put together under a name of its own in the reserved directory, gets its mode and times there, and
appears under its final name by ``rename`` alone, so that nothing partial ever stands there; a directory is opened once
for all that a pack has for it, through no symbolic link.  An entry that fails takes none of the others with it.

What is to be durable is shared: with ``BATCH`` the files of several packs are written first, then the file system is
synced once, all are renamed, and it is synced once more for their directories; only then is any of them acknowledged.
``syncfs`` tells of every write that failed since its descriptor was opened (Linux 5.8), so that descriptor is opened
before the first file is written and belongs to one stream of packs alone.  On older kernels each file and directory is
synced by itself, as with ``FILE``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from zlib_ng.zlib_ng import crc32

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Act, Group
from fsmux.errors import FsmuxError, IntegrityError, from_os_error
from fsmux.files import names, ranges
from fsmux.files.naming import named
from fsmux.files.state import Pin, StateDir
from fsmux.files.syscalls import OPEN_DIRECTORY, OPEN_EXCLUSIVE, OPEN_READ
from fsmux.records import Durability, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

_TELLS: Final = (5, 8)
"""The Linux from which on ``syncfs`` reports failed writes."""

PASSABLE: Final = 0o700
"""What a directory's owner may do until it is finished, whatever its mode will be."""


class Failure(NamedTuple):
    """An entry that does not stand: the numbers of its pack, of its group in it, and of itself in the group."""

    pack: int
    group: int
    entry: int
    error: FsmuxError


class _Staged(NamedTuple):
    """A group that is to be committed: its files are in ``state``, each as (name until then, number in the group)."""

    pack: int
    place: int
    group: Group
    state: StateDir | None
    files: list[tuple[bytes, int]]


class _Held(NamedTuple):
    """A reserved directory that is kept, with a descriptor of our own; others cannot remove it for the guard in it."""

    pin: Pin
    fd: int
    guard: bytes


class Unpacker:
    """Writes packs below ``base``.  Blocking, one thread at a time; :meth:`close` it when done."""

    def __init__(self, root: Root, base: Parts, durability: Durability) -> None:
        self._root = root
        self._sys = root.sys
        self._base = base
        self.commits_together = durability is Durability.BATCH and _tells_of_writes(root.sys)
        """Whether several packs are best written before :meth:`commit`."""
        self.durable = durability is not Durability.NONE
        """Whether what was committed is on stable storage."""
        self._staged: list[_Staged] = []
        self._held: dict[StateDir, _Held] = {}
        self._failures: list[Failure] = []
        self._masked: dict[int, bool] = {}

    def write(self, number: int, groups: Iterable[Group], contents: memoryview) -> None:
        """Write a pack; :meth:`commit` says what became of it."""
        offset = 0
        for place, group in enumerate(groups):
            size = sum(group.sizes) - sum([group.sizes[index] for index, _ in group.lost])
            try:
                with named(self._base + group.directory):
                    if group.itself and group.act is Act.MAKE:
                        mode = group.modes[0] & 0o777 | PASSABLE
                        self._root.mkdir(self._base + group.directory, True, mode)
                    elif group.act is Act.MAKE:
                        self._write_group(number, place, group, contents[offset : offset + size])
                    else:
                        self._staged.append(_Staged(number, place, group, None, []))
            except FsmuxError as error:
                lost = {index for index, _ in group.lost}
                self._fail(number, place, [index for index in range(max(len(group), 1)) if index not in lost], error)
            offset += size

    def commit(self) -> list[Failure]:
        """Have all that was written stand under its names, and durably if that is asked for; what failed of it."""
        staged, self._staged = self._staged, []
        bad = self._sync()
        for one in staged:
            try:
                with named(self._base + one.group.directory):
                    if one.state is None:
                        self._adjust(one)
                    elif one.state in bad:
                        self._discard(one)
                        raise bad[one.state]
                    else:
                        self._publish(one)
            except FsmuxError as error:
                self._fail(one.pack, one.place, [index for _, index in one.files] or [0], error)
        unsafe = self._sync()
        for one in staged:
            if one.state is not None and one.state in unsafe:
                self._fail(one.pack, one.place, [index for _, index in one.files], unsafe[one.state])
        failures, self._failures = self._failures, []
        return failures

    def close(self) -> None:
        """Remove what was not committed."""
        staged, self._staged = self._staged, []
        for one in staged:
            self._discard(one)
        self._let_go()

    def _fail(self, pack: int, place: int, indexes: list[int], error: FsmuxError) -> None:
        self._failures += [Failure(pack, place, index, error) for index in indexes]

    # ---- writing -------------------------------------------------------------------------------------------------

    def _write_group(self, number: int, place: int, group: Group, contents: memoryview) -> None:
        parent = self._base + group.directory
        names.check(parent)
        names.check_in(parent, group.names)
        with self._root.landing_in(parent) as (directory, state):
            here = self._hold(state)
            staged = _Staged(number, place, group, state, [])
            if self.commits_together:
                self._staged.append(staged)
            self._write_entries(staged, parent, directory, here, contents)
            if self.durable and not self.commits_together:
                self._root.settle(parent, directory)

    def _write_entries(self, staged: _Staged, parent: Parts, directory: int, here: int, contents: memoryview) -> None:
        """Write what is in a group; files go by the descriptor ``here`` to that of their ``directory``."""
        group = staged.group
        assert staged.state is not None
        unique, rename = staged.state.unique, self._sys.rename
        lost = {index for index, _ in group.lost}
        texts = group.link_targets()
        temporary = unique()
        offset = 0
        for index, (name, size, mtime, mode, crc) in enumerate(
            zip(group.names, group.sizes, group.mtimes, group.modes, group.crcs, strict=True)
        ):
            if index in lost:
                continue
            try:
                if mode & KIND_BITS == REGULAR:
                    data = contents[offset : offset + size]
                    offset += size
                    if crc32(data) != crc:
                        raise IntegrityError(f"{printable((*parent, name))}: it arrived damaged")
                    self._write_file(here, temporary, data, mtime, mode & 0o777)
                elif mode & KIND_BITS == DIRECTORY:
                    self._root.make_directory(directory, (*parent, name), mode & 0o777 | PASSABLE)
                    continue
                else:
                    self._write_link(here, temporary, texts[index], mtime)
                if self.commits_together:
                    staged.files.append((temporary, index))
                    temporary = unique()
                    continue
                try:
                    rename(here, temporary, directory, name)
                except OSError:
                    self._sys.unlink(here, temporary)
                    raise
            except OSError as error:
                self._fail(staged.pack, staged.place, [index], from_os_error(error, printable((*parent, name))))
            except FsmuxError as error:
                self._fail(staged.pack, staged.place, [index], error)

    def _write_file(self, here: int, temporary: bytes, data: memoryview, mtime: int, mode: int) -> None:
        sys = self._sys
        fd = sys.openat(here, temporary, OPEN_EXCLUSIVE, mode)
        try:
            if data and sys.pwrite(fd, data, 0) != len(data):
                ranges.write_all(sys, fd, [data], 0)
            masked = self._masked.get(mode)
            if masked is None:  # what the process's mask takes off is the same for all
                masked = self._masked[mode] = sys.fstat(fd).st_mode & 0o777 != mode
            if masked:
                sys.fchmod(fd, mode)
            sys.futime(fd, mtime)
            if self.durable and not self.commits_together:
                sys.fsync(fd)
        except BaseException:
            sys.close(fd)
            with suppress(OSError):
                sys.unlink(here, temporary)
            raise
        sys.close(fd)

    def _write_link(self, here: int, temporary: bytes, text: bytes, mtime: int) -> None:
        self._sys.symlink(text, here, temporary)
        try:
            self._sys.utime_link(here, temporary, mtime)
        except OSError:
            self._sys.unlink(here, temporary)
            raise

    def _hold(self, state: StateDir) -> int:
        """Keep a reserved directory until :meth:`close`: our descriptor of it."""
        held = self._held.get(state)
        if held is None:
            pin, guard = Pin(state), state.unique()
            try:
                self._sys.close(state.create(guard, OPEN_EXCLUSIVE))
                with state.hold() as here:
                    held = self._held[state] = _Held(pin, self._sys.openat(here, b".", OPEN_DIRECTORY), guard)
            except BaseException:
                with suppress(OSError, FsmuxError):
                    state.unlink(guard)
                pin.release()
                raise
        return held.fd

    def _let_go(self) -> None:
        held, self._held = self._held, {}
        for pin, fd, guard in held.values():
            with suppress(OSError):
                self._sys.unlink(fd, guard)
            with suppress(OSError):
                self._sys.close(fd)
            pin.release()

    # ---- committing ----------------------------------------------------------------------------------------------

    def _sync(self) -> dict[StateDir, FsmuxError]:
        """Sync what is written to together; the errors of those file systems that failed."""
        errors: dict[StateDir, FsmuxError] = {}
        for state, held in self._held.items() if self.commits_together else ():
            try:
                self._sys.syncfs(held.fd)
            except OSError as error:
                errors[state] = from_os_error(error, "writing to the disk")
        return errors

    def _publish(self, one: _Staged) -> None:
        if not one.files:
            return
        assert one.state is not None
        parent = self._base + one.group.directory
        here, rename = self._hold(one.state), self._sys.rename
        lease = self._root.directory(parent)
        try:
            with lease as directory:
                for temporary, index in one.files:
                    name = one.group.names[index]
                    try:
                        rename(here, temporary, directory, name)
                    except OSError as error:
                        with suppress(OSError):
                            self._sys.unlink(here, temporary)
                        self._fail(one.pack, one.place, [index], from_os_error(error, printable((*parent, name))))
        finally:
            lease.close()

    def _discard(self, one: _Staged) -> None:
        for temporary, _ in one.files:
            assert one.state is not None
            with suppress(OSError):
                self._sys.unlink(self._hold(one.state), temporary)

    def _adjust(self, one: _Staged) -> None:
        group = one.group
        parent = self._base + group.directory
        if group.itself and not group.directory:
            self._let_go()  # or removing the reserved directory from it would be its last change
        lease = self._root.directory(parent)
        try:
            with lease as directory:
                if group.itself:
                    self._set(directory, group.mtimes[0], group.modes[0])
                for index, name in enumerate(group.names):
                    try:
                        fd = self._sys.openat(directory, name, OPEN_READ)
                        try:
                            self._set(fd, group.mtimes[index], group.modes[index])
                        finally:
                            self._sys.close(fd)
                    except OSError as error:
                        self._fail(one.pack, one.place, [index], from_os_error(error, printable((*parent, name))))
        finally:
            lease.close()

    def _set(self, fd: int, mtime: int, mode: int) -> None:
        self._sys.fchmod(fd, mode & 0o777)
        self._sys.futime(fd, mtime)


def _tells_of_writes(sys: Syscalls) -> bool:
    found = re.match(r"(\d+)\.(\d+)", sys.kernel())
    return found is not None and (int(found[1]), int(found[2])) >= _TELLS
