"""What interrupted sessions left in the reserved directory, and removing it when nobody will come back for it.

Theory: whatever is in use is locked: the journal of a file in chunks, or the guard of temporary files (:mod:`.state`).
So what can be locked belongs to nobody who lives.  It is removed under its lock, the part before the journal, so that
whoever begins anew meanwhile is either turned away or finds nothing.  What others lock goes last.

An unfinished file is of use to a later session; the time of its last change tells how long it lies there.  If the very
version that it was to become has come to stand another way since, it is of use no more, nor if another version has come
in a pack to the same place for the same owner.  Temporary files are of no use
to anybody but who made them: without a guard that somebody has locked they are removed at once.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct

from fsmux.columns import KIND_BITS, REGULAR, Act, time_of
from fsmux.errors import Busy, FsmuxError
from fsmux.files import lock, names, ranges, tree
from fsmux.files.holes import Layout
from fsmux.files.journal import MAX_HEADER, MAX_JOURNAL, Header, Log, journal_name, parse
from fsmux.files.lease import Lease
from fsmux.files.names import RESERVED
from fsmux.files.naming import named
from fsmux.files.state import GUARD, TEMPORARY
from fsmux.files.syscalls import OPEN_READ, OPEN_WRITE
from fsmux.records import Extent

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from fsmux.columns import Group
    from fsmux.files.landing import Landing
    from fsmux.files.root import Root
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls
    from fsmux.files.terms import Failure
    from fsmux.records import Parts

ABANDONED_SECONDS: Final = 14 * 86_400.0
"""Seconds after which an unfinished file is given up: longer than any journey, shorter than a disk takes to fill up."""

T = TypeVar("T")

_JOURNAL, _PART = b".journal", b".part"


class Leftover(Struct, frozen=True):
    """Something unfinished.  ``parts`` is where it was to go, () if nothing says so any more."""

    names: tuple[bytes, ...]
    """Its files, in the order in which they are to be removed; whoever uses it has the last one locked."""
    parts: Parts
    size: int
    """Bytes of the whole file, as far as they are known."""
    held: int
    """Bytes that were received: what its journal says, or what was written if that is more."""
    disk: int
    """Bytes that it takes on the disk."""
    changed_ns: int
    """When something of it was last changed, in nanoseconds since 1970."""
    loose: bool
    """Whether these are the temporary files of one guard: of no use to a later session."""

    def age(self, now_ns: int) -> float:
        """Seconds since its last change."""
        return (now_ns - self.changed_ns) / 1_000_000_000


def find(root: Root) -> list[Leftover]:
    """All that is unfinished at the top of ``root``, the oldest first, in use or not.  Changes nothing."""
    with named(()):
        if not _may_be_there(root):
            return []
        with root.landing(()) as pin:
            return sorted(_found(root.sys, pin.state, told=True), key=lambda leftover: leftover.changed_ns)


def _may_be_there(root: Root) -> bool:
    facts = root.existing((RESERVED,))
    return facts is not None and stat.S_ISDIR(facts.st_mode)


def remove(root: Root, leftover: Leftover) -> bool:
    """Remove it unless it is in use, or has changed since it was found."""
    with named(leftover.parts), root.landing(()) as pin:
        return _remove(root.sys, pin.state, leftover)


def in_use(root: Root, leftover: Leftover) -> bool:
    """Whether a session works on it."""
    with named(leftover.parts), root.landing(()) as pin:
        try:
            lease = _locked(root.sys, pin.state, leftover)
        except Busy:
            return True
        except FileNotFoundError:
            return False
        lease.close()
        return False


class Superseding:
    """What ``owner`` has unfinished at the top of ``root`` when packs begin to come below ``base``, and what of it is
    of use no more when they have come.

    Blocking to make, which sweeps, too; where nothing is unfinished it costs nothing after that.
    """

    def __init__(self, root: Root, base: Parts, owner: bytes) -> None:
        sweep_top(root)
        self._root = root
        self._base = base
        self._owner = owner
        self._waiting: frozenset[bytes] = frozenset()
        self._stand: set[bytes] = set()
        with suppress(OSError, FsmuxError):
            if _may_be_there(root):
                with root.landing(()) as pin, pin.state.hold() as directory:
                    self._waiting = frozenset(name for name in _names(root.sys, directory) if name.endswith(_JOURNAL))

    def stand(self, groups: Sequence[Group], failures: Iterable[Failure]) -> None:
        """What a pack had stands, but for what failed of it."""
        if not self._waiting:
            return
        failed = {(failure.group, failure.entry) for failure in failures if not failure.stands}
        for place, group in enumerate(groups):
            if group.act is not Act.MAKE or group.itself:
                continue
            lost = {index for index, _ in group.lost}
            for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True)):
                if mode & KIND_BITS == REGULAR and index not in lost and (place, index) not in failed:
                    self._stand.add(journal_name((*self._base, *group.directory, name), self._owner))

    def sweep(self) -> None:
        """Remove it, and what else is of use to nobody.  Blocking; never fails."""
        sweep_top(self._root, self._stand & self._waiting)


def sweep_top(root: Root, superseded: Container[bytes] = ()) -> None:
    """As :func:`sweep`, at the top of ``root``, which stays as it is if nothing is unfinished there."""
    with suppress(OSError, FsmuxError):
        if _may_be_there(root):
            with root.landing(()) as pin:
                sweep(root, pin.state, superseded)


def sweep(root: Landing, state: StateDir, superseded: Container[bytes] = ()) -> None:
    """Remove what is of use to nobody, as are journals called ``superseded``, and what was abandoned long ago.

    Never fails: its callers have more to do.
    """
    sys = root.sys
    with suppress(OSError, FsmuxError):
        now_ns = sys.now_ns()
        for leftover in _found(sys, state, told=False):
            with suppress(OSError, FsmuxError):
                useless = leftover.loose or leftover.names[-1] in superseded
                if useless or leftover.age(now_ns) >= ABANDONED_SECONDS or _stands(root, state, leftover):
                    _remove(sys, state, leftover)


def _stands(root: Landing, state: StateDir, leftover: Leftover) -> bool:
    """Whether the version that it was to become has come to stand since, or a directory.

    What stood there before may have rotted, and this be what repairs it.
    """
    data = _read(root.sys, state, leftover.names[-1], MAX_HEADER)
    found = None if data is None else Header.decode(data)
    if found is None:
        return False
    header, _ = found
    parts = tuple(header.destination.split(b"\0"))
    names.check(parts)
    facts = root.existing(parts)
    if facts is None or facts.st_ctime_ns <= leftover.changed_ns:
        return False
    if stat.S_ISDIR(facts.st_mode):  # in whose place no file comes
        return True
    wanted = header.identity.size, header.identity.mtime_ns
    return stat.S_ISREG(facts.st_mode) and (facts.st_size, time_of(facts)) == wanted


def _found(sys: Syscalls, state: StateDir, *, told: bool) -> Iterator[Leftover]:
    """With ``told`` the journals are read for what they say."""
    stems: dict[bytes, dict[bytes, os.stat_result]] = {}
    with state.hold() as directory:
        for name in _names(sys, directory):
            if of := _belongs_to(name):
                with suppress(FileNotFoundError):
                    stems.setdefault(of, {})[name] = sys.stat(directory, name)
    for last, files in stems.items():
        loose = last.endswith(GUARD)
        data = _read(sys, state, last, MAX_JOURNAL) if told and not loose and last in files else None
        log = None if data is None else parse(data)
        yield Leftover(
            (*sorted(files.keys() - {last}), last),
            tuple(log.header.destination.split(b"\0")) if log is not None else (),
            log.header.identity.size if log is not None else 0,
            max(_held(log), _written(sys, state, last)) if log is not None else 0,
            sum(facts.st_blocks * 512 for facts in files.values()),
            max(facts.st_ctime_ns for facts in files.values()),  # the mtime may be the source's
            loose,
        )


def _belongs_to(name: bytes) -> bytes:
    """The journal or guard that tells whether a file is in use; empty if it is none of ours."""
    stem, dot, ending = name.rpartition(b".")
    ending = dot + ending
    if ending in (_JOURNAL, _PART):
        return stem + _JOURNAL
    if ending == TEMPORARY:
        return stem.partition(b"-")[0] + GUARD
    return name if ending == GUARD else b""


def _names(sys: Syscalls, directory: int) -> list[bytes]:
    found = sys.scandir(directory)
    try:
        return [entry.name.encode("utf-8", "surrogateescape") for entry in found]
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def _read(sys: Syscalls, state: StateDir, name: bytes, most: int) -> memoryview | None:
    def read(fd: int) -> memoryview:
        view = memoryview(bytearray(min(sys.fstat(fd).st_size, most)))
        return view[: ranges.read_into(sys, fd, view, 0)]

    return _ask(sys, state, name, read)


def _ask(sys: Syscalls, state: StateDir, name: bytes, act: Callable[[int], T]) -> T | None:
    """What a file of it says; None if it cannot be read."""
    try:
        with state.hold() as directory:
            lease = Lease(sys.openat(directory, name, OPEN_READ), sys)
    except OSError:
        return None
    try:
        with lease.hold() as fd:
            return act(fd)
    except OSError:
        return None
    finally:
        lease.close()


def _held(log: Log) -> int:
    size, step = log.header.identity.size, log.header.chunk_size
    return sum(min(step, size - index * step) for index in log.held)


def _written(sys: Syscalls, state: StateDir, journal: bytes) -> int:
    """Bytes of the part of a journal that are data; all of it where the file system does not tell."""

    def count(fd: int) -> int:
        facts = sys.fstat(fd)
        runs = Layout(sys, facts, sparse=True).runs(fd, Extent(0, facts.st_size))
        return sum(run.extent.length for run in runs if not run.hole)

    return _ask(sys, state, journal.removesuffix(_JOURNAL) + _PART, count) or 0


def _locked(sys: Syscalls, state: StateDir, leftover: Leftover) -> Lease:
    """The lock of it; :class:`Busy` if it is in use."""
    with state.hold() as directory:
        lease = Lease(sys.openat(directory, leftover.names[-1], OPEN_WRITE), sys)
    try:
        with lease.hold() as fd:
            sys.lock(fd)
    except BaseException as error:
        lease.close()
        if isinstance(error, BlockingIOError):
            raise Busy("it is in use") from None
        raise
    return lease


def _remove(sys: Syscalls, state: StateDir, leftover: Leftover) -> bool:
    if leftover.loose:
        return _remove_loose(sys, state, leftover)
    try:
        lease, made = lock.acquire(sys, state, leftover.names[-1], "it")
    except Busy:
        return False
    try:
        with state.hold() as directory:
            for name in leftover.names[:-1] if made else leftover.names:
                with suppress(FileNotFoundError):
                    if sys.stat(directory, name).st_ctime_ns > leftover.changed_ns:
                        return False
        for name in leftover.names:
            state.unlink(name)
    finally:
        lease.close()
    return True


def _remove_loose(sys: Syscalls, state: StateDir, leftover: Leftover) -> bool:
    lease = None
    try:
        with suppress(FileNotFoundError):  # its owner has ended since, or its name was lost with the power
            lease = _locked(sys, state, leftover)
    except Busy:
        return False
    try:
        for name in leftover.names:
            _remove_temporary(sys, state, name)
    finally:
        if lease is not None:
            lease.close()
    return True


def _remove_temporary(sys: Syscalls, state: StateDir, name: bytes) -> None:
    """A file, or a directory that was to appear whole."""
    with state.hold() as directory, suppress(FileNotFoundError):
        if stat.S_ISDIR(sys.stat(directory, name).st_mode):
            tree.remove(sys, directory, name)
        else:
            sys.unlink(directory, name)
