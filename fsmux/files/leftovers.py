"""What interrupted sessions left in the reserved directory, and removing it when nobody will come back for it.

Theory: whatever is in use is locked: the journal of a file in chunks, or the temporary file itself.  So what can be
locked belongs to nobody who lives.  It is removed under its lock, the part before the journal, so that whoever begins
anew meanwhile is either turned away or finds nothing.  The journal is what other sessions lock, so it goes last.

How long something may lie there is told by the time of its last change.  A temporary file of one chunk is of no use to
a later session and is kept only as long as its owner may not have come to lock it yet.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from fsmux.errors import Busy, FsmuxError
from fsmux.files import lock, ranges
from fsmux.files.journal import MAX_JOURNAL, Log, parse
from fsmux.files.lease import Lease
from fsmux.files.names import RESERVED
from fsmux.files.naming import named
from fsmux.files.syscalls import OPEN_READ

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from fsmux.files.root import Root
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

ABANDONED_SECONDS: Final = 14 * 86_400.0
"""Seconds after which an unfinished file is given up: longer than any journey, shorter than a disk takes to fill up."""

LOOSE_SECONDS: Final = 3_600.0
"""Seconds after which an unlocked temporary file is: its owner locks it at once, unless it is stopped just then."""

_JOURNAL, _PART, _LOOSE = b".journal", b".part", b".tmp"


class Leftover(Struct, frozen=True):
    """Something unfinished.  ``parts`` is where it was to go, () if nothing says so any more."""

    stem: bytes
    parts: Parts
    size: int
    """Bytes of the whole file, as far as they are known."""
    held: int
    """Bytes that were received, by its journal."""
    disk: int
    """Bytes that it takes on the disk."""
    changed_ns: int
    """When something of it was last changed, in nanoseconds since 1970."""
    loose: bool
    """Whether it is a temporary file without a journal."""

    def age(self, now_ns: int) -> float:
        """Seconds since its last change."""
        return (now_ns - self.changed_ns) / 1_000_000_000

    @property
    def names(self) -> tuple[bytes, ...]:
        """Its files, in the order in which they are to be removed."""
        return (self.stem + _LOOSE,) if self.loose else (self.stem + _PART, self.stem + _JOURNAL)


def find(root: Root) -> list[Leftover]:
    """All that is unfinished at the top of ``root``, the oldest first, in use or not.  Changes nothing."""
    with named(()):
        facts = root.existing((RESERVED,))
        if facts is None or not stat.S_ISDIR(facts.st_mode):
            return []
    with named(()), root.landing(()) as pin:
        return sorted(_found(root.sys, pin.state, told=True), key=lambda leftover: leftover.changed_ns)


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


def sweep(sys: Syscalls, state: StateDir) -> None:
    """Remove what was abandoned long ago.  Never fails: whoever calls it has something else to do."""
    with suppress(OSError, FsmuxError):
        now_ns = sys.now_ns()
        for leftover in _found(sys, state, told=False):
            if leftover.age(now_ns) >= (LOOSE_SECONDS if leftover.loose else ABANDONED_SECONDS):
                with suppress(OSError, FsmuxError):
                    _remove(sys, state, leftover)


def _found(sys: Syscalls, state: StateDir, *, told: bool) -> Iterator[Leftover]:
    """With ``told`` the journals are read for what they say."""
    stems: dict[bytes, dict[bytes, os.stat_result]] = {}
    with state.hold() as directory:
        for name in _names(sys, directory):
            stem, dot, ending = name.rpartition(b".")
            if dot and dot + ending in (_JOURNAL, _PART, _LOOSE):
                with suppress(FileNotFoundError):
                    stems.setdefault(stem, {})[dot + ending] = sys.stat(directory, name)
    for stem, files in stems.items():
        log = _read(sys, state, stem + _JOURNAL) if told and _JOURNAL in files else None
        yield Leftover(
            stem,
            tuple(log.header.destination.split(b"\0")) if log is not None else (),
            log.header.identity.size if log is not None else 0,
            _held(log) if log is not None else 0,
            sum(facts.st_blocks * 512 for facts in files.values()),
            max(facts.st_ctime_ns for facts in files.values()),  # the mtime may be the source's
            loose=_LOOSE in files,
        )


def _names(sys: Syscalls, directory: int) -> list[bytes]:
    found = sys.scandir(directory)
    try:
        return [entry.name.encode("utf-8", "surrogateescape") for entry in found]
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def _read(sys: Syscalls, state: StateDir, name: bytes) -> Log | None:
    try:
        with state.hold() as directory:
            lease = Lease(sys.openat(directory, name, OPEN_READ), sys)
    except OSError:
        return None
    try:
        with lease.hold() as fd:
            view = memoryview(bytearray(min(sys.fstat(fd).st_size, MAX_JOURNAL)))
            return parse(view[: ranges.read_into(sys, fd, view, 0)])
    except OSError:
        return None
    finally:
        lease.close()


def _held(log: Log) -> int:
    size, step = log.header.identity.size, log.header.chunk_size
    return sum(min(step, size - index * step) for index in log.held)


def _locked(sys: Syscalls, state: StateDir, leftover: Leftover) -> Lease:
    """The lock of it; :class:`Busy` if it is in use."""
    with state.hold() as directory:
        lease = Lease(sys.openat(directory, leftover.names[-1], OPEN_READ), sys)
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
            for name in leftover.names[:1] if made else leftover.names:
                with suppress(FileNotFoundError):
                    if sys.stat(directory, name).st_ctime_ns > leftover.changed_ns:
                        return False
        for name in leftover.names:
            state.unlink(name)
    finally:
        lease.close()
    return True


def _remove_loose(sys: Syscalls, state: StateDir, leftover: Leftover) -> bool:
    try:
        lease = _locked(sys, state, leftover)
    except Busy:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        lease = None  # it is gone, or it is a symbolic link, which nobody can lock
    state.unlink(leftover.names[0])
    if lease is not None:
        lease.close()
    return True
