"""Packs to the disk: one call writes hundreds of files through held directory descriptors.

Theory: a file is put together under a name of its own in the reserved directory, gets its mode and times there, and
appears under its final name by ``rename`` alone, so that nothing partial ever stands there; a directory is opened once
for all that a pack has for it, through no symbolic link.  An entry that fails takes none of the others with it.

What is to be durable is shared: with ``BATCH`` the files of several packs are written first, then the file system is
synced once, all are renamed, and it is synced once more for their directories; only then is any of them acknowledged.
``syncfs`` tells of every write that failed since its descriptor was opened (Linux 5.8), so that descriptor is opened
before the first file is written and belongs to one stream of packs alone.  On older kernels each file and directory is
synced by itself, as with ``FILE``.  A file that gets a further name is synced before it like one that was written.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from zlib_ng.zlib_ng import crc32

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Act, Group
from fsmux.errors import FsmuxError, IntegrityError, NotFound, from_os_error
from fsmux.files import names, ranges, sharing, tree
from fsmux.files.attributes import NEW_FILE, kept_mode, set_xattrs, settable
from fsmux.files.naming import named
from fsmux.files.state import Pin, StateDir
from fsmux.files.syscalls import OPEN_DIRECTORY, OPEN_EXCLUSIVE, OPEN_READ
from fsmux.records import EVERYTHING, Durability, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.files.ranges import Poll
    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Kept, Parts, Xattrs

_TELLS: Final = (5, 8)
"""The Linux from which on ``syncfs`` reports failed writes."""

WORTH_A_THREAD: Final = 128
"""Entries of a pack from which on it is shared by threads: writing a file is 14 µs of which the interpreter's lock is
held for 3, so that two threads write twice as many (measured: 7.9 µs a file against 14), and a hop is 75 µs."""

READABLE: Final = 0o400
"""What a file's owner may do until it was read back, whatever its mode will be."""

PASSABLE: Final = 0o700
"""What a directory's owner may do until it is finished, whatever its mode will be."""


class Failure(NamedTuple):
    """An entry that does not stand: the numbers of its pack, of its group in it, and of itself in the group.

    Or one that ``stands``, but for what the error is about.
    """

    pack: int
    group: int
    entry: int
    error: FsmuxError
    stands: bool = False


class _Staged(NamedTuple):
    """A group that is to be committed: its files are in ``state``, each as (name until then, number in the group).

    Without ``state`` nothing of it was written: it is to be linked or adjusted.
    """

    pack: int
    place: int
    group: Group
    state: StateDir | None
    files: list[tuple[bytes, int]]

    @property
    def indexes(self) -> list[int]:
        """All that it is about."""
        return list(range(max(len(self.group), 1))) if self.state is None else [index for _, index in self.files]


class _Made(NamedTuple):
    """Directories that were made: the numbers of their pack, of their group in it, and of themselves in the group."""

    pack: int
    place: int
    indexes: list[int]


_ORDER: Final = {Act.MAKE: 0, Act.LINK: 1, Act.REMOVE: 2, Act.ADJUST: 3}
"""Files are linked when they stand, and times of directories come behind everything that changes them."""


def _order(one: _Staged) -> int:
    return _ORDER[one.group.act]


class Part(NamedTuple):
    """Entries ``first`` to before ``stop`` of a group, whose contents begin at ``offset`` of the pack's."""

    place: int
    group: Group
    first: int
    stop: int
    offset: int


class Share(NamedTuple):
    """What one thread writes of a pack."""

    pack: int
    parts: list[Part]


class _Held(NamedTuple):
    """A reserved directory that is kept, with a descriptor of our own; others cannot remove it for the guard in it."""

    pin: Pin
    fd: int
    guard: bytes


class Unpacker:
    """Writes packs below ``base``.  Blocking, one thread at a time but for :meth:`fill`; :meth:`close` it when done."""

    def __init__(
        self, root: Root, base: Parts, durability: Durability, kept: Kept = EVERYTHING, *, verify: bool = False
    ) -> None:
        self._root = root
        self._sys = root.sys
        self._base = base
        self._kept = kept
        self._owners = root.sys.euid() == 0
        self._namespaces = settable(root.sys, kept.xattrs)
        together = durability is Durability.BATCH or (verify and durability is Durability.NONE)
        self.commits_together = together and _tells_of_writes(root.sys)
        """Whether several packs are best written before :meth:`commit`."""
        self.durable = durability is not Durability.NONE
        """Whether what was committed is on stable storage."""
        self._verify = verify
        self._staged: list[_Staged] = []
        self._held: dict[StateDir, _Held] = {}
        self._left: dict[StateDir, int] = {}
        self._made: list[tuple[StateDir, _Made]] = []
        self._failures: list[Failure] = []
        self._masked: dict[int, bool] = {}
        self._removed = False
        self._mutex = threading.Lock()

    def begin(self, number: int, groups: Sequence[Group], threads: int) -> list[Share]:
        """Make the directories of a pack, and deal out the rest of it, to that many threads if it is worth it."""
        for place, group in enumerate(groups):
            try:
                with named(self._base + group.directory):
                    if group.act is not Act.MAKE:
                        self._staged.append(_Staged(number, place, group, None, []))
                    elif group.itself:
                        mode = self._passable(group.modes[0])
                        parent = self._base + group.directory
                        self._root.mkdir(parent, True, mode)
                        with self._root.landing_in(parent) as (directory, state):
                            self._note_made(parent, directory, state, _Made(number, place, [0]))
                    elif DIRECTORY in group.kinds:
                        self._make_directories(number, place, group)
            except FsmuxError as error:
                made = [index for index, mode in enumerate(group.modes) if mode & KIND_BITS == DIRECTORY]
                self._fail(number, place, made, error)
        entries = sum(map(len, groups))
        return _deal(number, groups, threads if entries >= WORTH_A_THREAD else 1, entries)

    def fill(self, share: Share, contents: memoryview) -> None:
        """Write the files and links of a share; :meth:`commit` says what became of them.  In any thread."""
        for part in share.parts:
            try:
                with named(self._base + part.group.directory):
                    self._write_part(share.pack, part, contents)
            except FsmuxError as error:
                lost = {index for index, _ in part.group.lost}
                files = [index for index in range(part.first, part.stop) if index not in lost]
                self._fail(share.pack, part.place, files, error)

    def commit(self, poll: Poll | None = None) -> list[Failure]:
        """Have all that was written stand under its names, and durably if that is asked for; what failed of it.

        ``poll`` is called between removals, and may raise.
        """
        staged, self._staged = self._staged, []
        staged.sort(key=_order)
        self._hold_linked(staged)
        bad = self._sync()
        for one in staged:
            try:
                with named(self._base + one.group.directory):
                    if one.group.act is Act.REMOVE:
                        self._remove(one, poll)
                    elif one.group.act is Act.ADJUST:
                        self._adjust(one)
                    elif one.state is None:
                        if bad:
                            raise next(iter(bad.values()))  # what is linked may be among it
                        self._link(one)
                    elif one.state in bad:
                        self._discard(one)
                        raise bad[one.state]
                    else:
                        self._publish(one)
            except FsmuxError as error:
                self._fail(one.pack, one.place, one.indexes, error)
        if self._removed:
            self._sync_removed()
        unsafe = self._sync()
        self._close_left()
        for one in staged:
            if one.state is not None and one.state in unsafe:
                self._fail(one.pack, one.place, one.indexes, unsafe[one.state])
            elif unsafe and one.group.act is Act.LINK:
                self._fail(one.pack, one.place, one.indexes, next(iter(unsafe.values())))
        directories, self._made = self._made, []
        for state, made in directories:
            if (lost := unsafe.get(state) or bad.get(state)) is not None:
                self._fail(made.pack, made.place, made.indexes, lost)
        failures, self._failures = self._failures, []
        if not any([failure.stands for failure in failures]):
            return failures
        fallen = {failure[:3] for failure in failures if not failure.stands}
        return [failure for failure in failures if not failure.stands or failure[:3] not in fallen]

    def close(self) -> None:
        """Remove what was not committed."""
        staged, self._staged = self._staged, []
        for one in staged:
            self._discard(one)
        self._let_go()
        self._close_left()

    def _fail(self, pack: int, place: int, indexes: list[int], error: FsmuxError) -> None:
        self._failures += [Failure(pack, place, index, error) for index in indexes]

    # ---- writing -------------------------------------------------------------------------------------------------

    def _make_directories(self, number: int, place: int, group: Group) -> None:
        parent = self._base + group.directory
        names.check(parent)
        names.check_in(parent, group.names)
        made: list[int] = []
        with self._root.landing_in(parent) as (directory, state):
            for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True)):
                if mode & KIND_BITS == DIRECTORY:
                    try:
                        self._root.make_directory(directory, (*parent, name), self._passable(mode))
                        made.append(index)
                    except OSError as error:
                        self._fail(number, place, [index], from_os_error(error, printable((*parent, name))))
            self._note_made(parent, directory, state, _Made(number, place, made))

    def _note_made(self, parent: Parts, directory: int, state: StateDir, made: _Made) -> None:
        """Directories, made in ``parent`` or that itself, are to be durable: at once, or with all that is committed."""
        if self.commits_together:
            self._hold(state)
            self._made.append((state, made))
        elif self.durable:
            self._root.settle(parent, directory)

    def _passable(self, mode: int) -> int:
        """How a directory is made that is finished later."""
        return mode & 0o777 | PASSABLE if self._kept.perms else 0o777

    def _write_part(self, pack: int, part: Part, contents: memoryview) -> None:
        group = part.group
        parent = self._base + group.directory
        names.check(parent)
        names.check_in(parent, group.names)
        with self._root.landing_in(parent) as (directory, state):
            here = self._hold(state)
            staged = _Staged(pack, part.place, group, state, [])
            if self.commits_together:
                self._staged.append(staged)
            self._write_entries(staged, part, directory, here, contents)
            if self.durable and not self.commits_together:
                self._root.settle(parent, directory)

    def _write_entries(self, staged: _Staged, part: Part, directory: int, here: int, contents: memoryview) -> None:
        """Write files and links; they go by the descriptor ``here`` to that of their ``directory``."""
        group, first, stop = part.group, part.first, part.stop
        assert staged.state is not None
        unique, rename = staged.state.unique, self._sys.rename
        lost = {index for index, _ in group.lost}
        texts = group.link_targets()
        temporary = unique()
        offset = part.offset
        for index, name, size, mtime, mode, crc in zip(
            range(first, stop), group.names[first:stop], group.sizes[first:stop], group.mtimes[first:stop],
            group.modes[first:stop], group.crcs[first:stop], strict=True,
        ):  # fmt: skip
            if index in lost or mode & KIND_BITS == DIRECTORY:
                continue
            try:
                if mode & KIND_BITS == REGULAR:
                    data = contents[offset : offset + size]
                    offset += size
                    if crc32(data) != crc:
                        raise IntegrityError(f"{self._named(group, index)}: it arrived damaged")
                    usual = mode & 0o777 if self._kept.perms else kept_mode(self._sys, directory, name)
                    owner, xattrs = self._owner(group, index), self._xattrs(group, index)
                    refused = self._write_file(here, temporary, data, mtime, usual, owner, xattrs)
                    if self._verify and not self.commits_together:
                        self._read_back(here, temporary, group, index)
                else:
                    owner, xattrs = self._owner(group, index), self._xattrs(group, index)
                    refused = self._write_link(here, temporary, texts[index], mtime, owner, xattrs)
                self._note(staged, index, refused)
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
                self._fail(staged.pack, staged.place, [index], from_os_error(error, self._named(group, index)))
            except FsmuxError as error:
                self._fail(staged.pack, staged.place, [index], error)

    def _named(self, group: Group, index: int) -> str:
        return printable((*self._base, *group.directory, group.names[index]))

    def _owner(self, group: Group, index: int) -> int | None:
        return group.owners[index] if group.owners and self._owners else None

    def _xattrs(self, group: Group, index: int) -> Xattrs | None:
        """What an entry is to have; None if that is left alone."""
        return group.xattrs.get(index, ()) if self._namespaces else None

    def _note(self, staged: _Staged, index: int, refused: FsmuxError | None) -> None:
        """An entry stands without something of it, if that was refused."""
        if refused is not None:
            self._failures.append(Failure(staged.pack, staged.place, index, refused, stands=True))

    def _write_file(
        self, here: int, temporary: bytes, data: memoryview, mtime: int, mode: int | None,
        owner: int | None, xattrs: Xattrs | None,
    ) -> FsmuxError | None:  # fmt: skip
        """Without a ``mode`` it has the one of any new file.  Why it has not all of its extended attributes, if so."""
        refused = None
        sys = self._sys
        if self._verify and mode is not None:
            mode |= READABLE
        fd = sys.openat(here, temporary, OPEN_EXCLUSIVE, NEW_FILE if mode is None else mode)
        try:
            if data and sys.pwrite(fd, data, 0) != len(data):
                ranges.write_all(sys, fd, [data], 0)
            if owner is not None:
                sys.fchown(fd, *divmod(owner, 2**32))
            if mode is not None:
                masked = self._masked.get(mode)
                if masked is None:  # what the process's mask takes off is the same for all
                    masked = self._masked[mode] = sys.fstat(fd).st_mode & 0o777 != mode
                if masked:
                    sys.fchmod(fd, mode)
            if xattrs:
                refused = set_xattrs(sys, fd, xattrs, self._namespaces, fresh=True)
            if self._kept.times:
                sys.futime(fd, mtime)
            if (self.durable or self._verify) and not self.commits_together:
                sys.fsync(fd)
        except BaseException:
            sys.close(fd)
            with suppress(OSError):
                sys.unlink(here, temporary)
            raise
        sys.close(fd)
        return refused

    def _read_back(self, here: int, temporary: bytes, group: Group, index: int) -> None:
        """See that the device has a file that was synced, and give it its mode; one that is wrong is removed."""
        sys, mode = self._sys, group.modes[index] & 0o777
        try:
            fd = sys.openat(here, temporary, OPEN_READ)
            try:
                sys.drop_cache(fd)
                try:
                    found = ranges.crc32(sys, fd, 0, group.sizes[index])
                except (ranges.ShortFile, OSError):
                    found = None
                if found != group.crcs[index]:
                    raise IntegrityError(
                        f"{self._named(group, index)}: the disk gave back other bytes than were written to it"
                    )
                if self._kept.perms and not mode & READABLE:
                    sys.fchmod(fd, mode)
            finally:
                sys.close(fd)
        except BaseException:
            with suppress(OSError):
                sys.unlink(here, temporary)
            raise

    def _write_link(
        self, here: int, temporary: bytes, text: bytes, mtime: int, owner: int | None, xattrs: Xattrs | None
    ) -> FsmuxError | None:
        refused = None
        self._sys.symlink(text, here, temporary)
        try:
            if owner is not None:
                self._sys.chown_link(here, temporary, *divmod(owner, 2**32))
            if xattrs:
                link = self._sys.link_itself(here, temporary)
                refused = set_xattrs(self._sys, link, xattrs, self._namespaces, fresh=True)
            if self._kept.times:
                self._sys.utime_link(here, temporary, mtime)
        except OSError:
            self._sys.unlink(here, temporary)
            raise
        return refused

    def _hold(self, state: StateDir) -> int:
        """Keep a reserved directory until :meth:`close`: our descriptor of it."""
        held = self._held.get(state)
        if held is None:
            with self._mutex:
                held = self._held.get(state)
                if held is None:
                    held = self._held[state] = self._take(state)
        return held.fd

    def _take(self, state: StateDir) -> _Held:
        pin, guard = Pin(state), state.unique()
        try:
            self._sys.close(state.create(guard, OPEN_EXCLUSIVE))
            with state.hold() as here:
                return _Held(pin, self._sys.openat(here, b".", OPEN_DIRECTORY), guard)
        except BaseException:
            with suppress(OSError, FsmuxError):
                state.unlink(guard)
            pin.release()
            raise

    def _let_go(self) -> None:
        """Let the reserved directories be removed. Their descriptors stay: what was written is still to be synced."""
        held, self._held = self._held, {}
        for state, (pin, fd, guard) in held.items():
            with suppress(OSError):
                self._sys.unlink(fd, guard)
            self._left[state] = fd
            pin.release()

    def _close_left(self) -> None:
        left, self._left = self._left, {}
        for fd in left.values():
            with suppress(OSError):
                self._sys.close(fd)

    # ---- committing ----------------------------------------------------------------------------------------------

    def _sync(self) -> dict[StateDir, FsmuxError]:
        """Sync what is written to together; the errors of those file systems that failed."""
        errors: dict[StateDir, FsmuxError] = {}
        written = {state: held.fd for state, held in self._held.items()} | self._left
        for state, fd in written.items() if self.commits_together else ():
            try:
                self._sys.syncfs(fd)
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
                        if self._verify and one.group.modes[index] & KIND_BITS == REGULAR:
                            self._read_back(here, temporary, one.group, index)
                        rename(here, temporary, directory, name)
                    except OSError as error:
                        with suppress(OSError):
                            self._sys.unlink(here, temporary)
                        self._fail(one.pack, one.place, [index], from_os_error(error, self._named(one.group, index)))
                    except IntegrityError as error:
                        self._fail(one.pack, one.place, [index], error)
        finally:
            lease.close()

    def _discard(self, one: _Staged) -> None:
        for temporary, _ in one.files:
            assert one.state is not None
            with suppress(OSError):
                self._sys.unlink(self._hold(one.state), temporary)

    def _hold_linked(self, staged: list[_Staged]) -> None:
        """Have the file systems synced on which files are to be linked: they may stand from earlier transfers."""
        for one in staged if self.commits_together and self.durable else ():
            if one.group.act is Act.LINK:
                with (
                    suppress(FsmuxError, OSError),
                    self._root.landing_in(self._base + one.group.directory) as (_, state),
                ):
                    self._hold(state)

    def _link(self, one: _Staged) -> None:
        group = one.group
        alone = self.durable and not self.commits_together
        parent = self._base + group.directory
        names.check(parent)
        names.check_in(parent, group.names)
        with self._root.landing_in(parent) as (directory, state):
            here = self._hold(state)
            for index, (name, first) in enumerate(zip(group.names, group.targets, strict=True)):
                try:
                    path = self._base + tuple(first.split(b"/"))
                    sharing.link(self._root, here, state.unique(), directory, name, path, sync=alone)
                except OSError as error:
                    self._fail(one.pack, one.place, [index], from_os_error(error, self._named(group, index)))
                except FsmuxError as error:
                    self._fail(one.pack, one.place, [index], error)
            if alone:
                self._root.settle(parent, directory)

    def _remove(self, one: _Staged, poll: Poll | None) -> None:
        """Remove names; what somebody else has removed is as good as removed by us."""
        group = one.group
        parent = self._base + group.directory
        names.check_in(parent, group.names)
        try:
            lease = self._root.directory(parent)
        except NotFound:
            return
        try:
            with lease as directory:
                for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True)):
                    try:
                        if mode & KIND_BITS == DIRECTORY:
                            tree.remove(self._sys, directory, name, poll)
                        else:
                            self._sys.unlink(directory, name)
                    except FileNotFoundError:
                        pass
                    except OSError as error:
                        self._fail(one.pack, one.place, [index], from_os_error(error, self._named(group, index)))
                    if poll is not None:
                        poll()
                if self.durable and not self.commits_together:
                    self._sys.fsync(directory)
        finally:
            lease.close()
        self._removed = True

    def _sync_removed(self) -> None:
        """Removals have no reserved directory that would be synced for them."""
        self._removed = False
        if not self.commits_together or self._held or self._left:
            return
        with suppress(OSError, FsmuxError):  # what is lost of a removal comes back, and is removed by the next run
            lease = self._root.directory(self._base)
            try:
                with lease as directory:
                    self._sys.syncfs(directory)
            finally:
                lease.close()

    def _adjust(self, one: _Staged) -> None:
        group = one.group
        parent = self._base + group.directory
        if group.itself and not group.directory:
            self._let_go()  # or removing the reserved directory from it would be its last change
        lease = self._root.directory(parent)
        try:
            with lease as directory:
                if group.itself:
                    self._set(directory, one, 0)
                for index, name in enumerate(group.names):
                    try:
                        fd = self._sys.openat(directory, name, OPEN_READ)
                        try:
                            self._set(fd, one, index)
                        finally:
                            self._sys.close(fd)
                    except OSError as error:
                        self._fail(one.pack, one.place, [index], from_os_error(error, printable((*parent, name))))
        finally:
            lease.close()

    def _set(self, fd: int, one: _Staged, index: int) -> None:
        group = one.group
        if (owner := self._owner(group, index)) is not None:
            self._sys.fchown(fd, *divmod(owner, 2**32))
        if self._kept.perms:
            self._sys.fchmod(fd, group.modes[index] & 0o777)
        if (xattrs := self._xattrs(group, index)) is not None:
            self._note(one, index, set_xattrs(self._sys, fd, xattrs, self._namespaces))
        if self._kept.times:
            self._sys.futime(fd, group.mtimes[index])


def _tells_of_writes(sys: Syscalls) -> bool:
    found = re.match(r"(\d+)\.(\d+)", sys.kernel())
    return found is not None and (int(found[1]), int(found[2])) >= _TELLS


def _deal(number: int, groups: Sequence[Group], threads: int, entries: int) -> list[Share]:
    """The files and links of a pack, in shares of about as many entries each."""
    most = -(-entries // threads)
    shares: list[Share] = []
    room = offset = 0
    for place, group in enumerate(groups):
        if group.act is not Act.MAKE or not group.names or group.kinds == {DIRECTORY}:
            continue
        lost = {index for index, _ in group.lost}
        first = 0
        while first < len(group):
            if not room:
                shares.append(Share(number, []))
                room = most
            stop = min(first + room, len(group))
            shares[-1].parts.append(Part(place, group, first, stop, offset))
            sizes = group.sizes
            offset += sum([sizes[index] for index in range(first, stop) if index not in lost])
            room -= stop - first
            first = stop
    return shares
