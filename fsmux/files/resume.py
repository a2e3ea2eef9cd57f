"""Opening the place where a file is put together: a fresh one, or what an earlier session left.

Theory (the order is the proof, see the durability section of the protocol): lock the journal, so that nobody else
writes; read its longest sound prefix; sync the part, which brings to light a failed write that nobody saw and makes
all its pages clean; drop them from the cache, which works only on clean pages; *then* read again what the journal
merely hints at, and what was written beside that (:mod:`.basis`).  So whatever is found good is on the device.  In any
other order a page that never reached the disk can answer from memory.  What the journal calls durable is read again
only if the part was touched since, by somebody else or by a session that did not come to its next checkpoint.

Made fresh, nothing needs a sync: losing the part or the journal loses progress and no file.  But a journal that
claimed something is emptied for good *before* its part is replaced or written to for another version, because inode
numbers are used again and old claims must not meet new bytes.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from fsmux.errors import Busy
from fsmux.files import lock, ranges
from fsmux.files.basis import pieces_of_begun
from fsmux.files.holes import BLOCK
from fsmux.files.journal import Header, Journal, Log, Type, identify, journal_name, stamp_of
from fsmux.files.lease import Lease
from fsmux.files.manifest import Manifest
from fsmux.files.syscalls import OPEN_EXCLUSIVE, OPEN_WRITE
from fsmux.limits import MIB
from fsmux.records import printable

if TYPE_CHECKING:
    import os

    from fsmux.files.basis import Piece
    from fsmux.files.ranges import Poll
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

RESERVE_FROM: Final = 8 * MIB
"""Bytes. Smaller files are written before reserving their blocks could help."""


class Place(Struct):
    """Where one file is being put together."""

    part: Lease
    part_name: bytes
    manifest: Manifest
    journal: Journal | None = None
    journal_name: bytes = b""
    header: Header | None = None
    """What the journal is to begin with, while it still speaks of another version (``old``)."""
    old: Manifest | None = None
    """What the part holds of another version, to reuse."""
    begun: list[Piece] = []
    """What else an earlier session has written to the part."""
    owner: bytes | None = None
    """Who could go on with it later, if there is no journal yet."""


def open_single(sys: Syscalls, state: StateDir, manifest: Manifest, owner: bytes | None = None) -> Place:
    """For a file of at most one chunk of which nothing is left: nearly all of them come whole, so that there is neither
    a journal nor a fixed name until a session of an ``owner`` ends early (:func:`keep_single`).
    """
    name = state.unique()
    return Place(Lease(state.create(name, OPEN_EXCLUSIVE), sys), name, manifest, owner=owner)


def keep_single(sys: Syscalls, state: StateDir, place: Place, parts: Parts) -> None:
    """Have a later session find what came of a file of one chunk. Whatever fails here, the place is to be removed.

    Raises :class:`Busy` if another session has left more meanwhile, or of another version: this one may have been dead
    for long before that was noticed.
    """
    assert place.owner is not None
    where, whose, stem = identify(parts, place.owner)
    part_name, name = stem + b".part", stem + b".journal"
    locked, made = lock.acquire(sys, state, name, printable(parts))
    journal = place.journal = Journal(sys, locked)
    log = None if made else journal.load()
    if log is not None and not _is_better(sys, state, place, part_name, log):
        raise Busy(f"{printable(parts)}: another session has left more of it")
    place.journal_name = name  # from here on it is ours, to be removed if the rest fails
    journal.reset()
    with state.hold() as directory:
        sys.rename(directory, place.part_name, directory, part_name)
    place.part_name = part_name
    journal.begin(_header(sys, place.part, place.manifest, whose, where))


def _is_better(sys: Syscalls, state: StateDir, place: Place, part_name: bytes, log: Log) -> bool:
    """Whether a place without a journal has more of the version that a journal speaks of than its part has."""
    if log.held or log.header.identity != place.manifest.identity:
        return False
    with state.hold() as directory, suppress(FileNotFoundError), place.part.hold() as fd:
        return sys.fstat(fd).st_blocks > sys.stat(directory, part_name).st_blocks
    return True


def _header(sys: Syscalls, part: Lease, manifest: Manifest, whose: bytes, where: bytes) -> Header:
    with part.hold() as fd:
        facts = sys.fstat(fd)
    return Header(manifest.identity, manifest.map.chunk_size, facts.st_dev, facts.st_ino, whose, where, sys.random(16))


def has_journal(sys: Syscalls, state: StateDir, parts: Parts, owner: bytes) -> bool:
    """Whether an earlier session of ``owner`` may have left something of ``parts``. Two system calls."""
    with state.hold() as directory:
        try:
            sys.stat(directory, journal_name(parts, owner))
        except FileNotFoundError:
            return False
    return True


def open_journaled(
    sys: Syscalls, state: StateDir, parts: Parts, manifest: Manifest, owner: bytes, resume: bool, poll: Poll | None
) -> Place:
    where, whose, stem = identify(parts, owner)
    journal_name, part_name = stem + b".journal", stem + b".part"
    locked, made = lock.acquire(sys, state, journal_name, printable(parts))
    journal = Journal(sys, locked)
    try:
        log = journal.load()
        if log is not None and resume and (log.header.owner, log.header.destination) == (whose, where):
            part = _reopen(sys, state, part_name, log.header)
            if part is not None:
                try:
                    return _resume(sys, state, part, part_name, journal, journal_name, log, manifest, poll)
                except BaseException:
                    part.close()
                    raise
        made = True
        return _fresh(sys, state, part_name, journal, journal_name, manifest, whose, where)
    except BaseException:
        if made:
            with suppress(OSError):
                state.unlink(journal_name)
        journal.close()
        raise


def _fresh(
    sys: Syscalls,
    state: StateDir,
    part_name: bytes,
    journal: Journal,
    journal_name: bytes,
    manifest: Manifest,
    whose: bytes,
    where: bytes,
) -> Place:
    journal.reset()
    state.unlink(part_name)
    part = Lease(state.create(part_name, OPEN_EXCLUSIVE), sys)
    try:
        with part.hold() as fd:
            reserve(sys, state, fd, manifest)
        journal.begin(_header(sys, part, manifest, whose, where))
    except BaseException:
        with suppress(OSError):
            state.unlink(part_name)
        part.close()
        raise
    return Place(part, part_name, manifest, journal, journal_name)


def _reopen(sys: Syscalls, state: StateDir, name: bytes, header: Header) -> Lease | None:
    """The part that the journal speaks of; None if there is none or it is not exactly that file."""
    with state.hold() as directory:
        try:
            facts = sys.stat(directory, name)
            if not _is_part(sys, facts, header):
                return None
            if facts.st_mode & 0o600 != 0o600:  # stopped between its last chmod and its rename
                sys.chmod(directory, name, 0o600)
            part = Lease(sys.openat(directory, name, OPEN_WRITE), sys)
        except FileNotFoundError:
            return None
    try:
        with part.hold() as fd:
            if _is_part(sys, sys.fstat(fd), header):
                return part
    except BaseException:
        part.close()
        raise
    part.close()
    return None


def _is_part(sys: Syscalls, facts: os.stat_result, header: Header) -> bool:
    return (
        stat.S_ISREG(facts.st_mode)
        and facts.st_nlink == 1
        and facts.st_uid == sys.euid()
        and (facts.st_dev, facts.st_ino) == (header.device, header.inode)
    )


def _resume(
    sys: Syscalls,
    state: StateDir,
    part: Lease,
    part_name: bytes,
    journal: Journal,
    journal_name: bytes,
    log: Log,
    manifest: Manifest,
    poll: Poll | None,
) -> Place:
    journal.resume(log)
    same = (log.header.identity, log.header.chunk_size) == (manifest.identity, manifest.map.chunk_size)
    held = manifest if same else Manifest(log.header.identity, log.header.chunk_size)
    with part.hold() as fd:
        trusted = _sync_part(sys, fd, state, journal, journal_name)
        sys.drop_cache(fd)
        facts = sys.fstat(fd)
        trusted = trusted and stamp_of(facts) == log.stamp
        if same and facts.st_size > manifest.identity.size:  # power failed before it was cut to a shorter version
            sys.ftruncate(fd, manifest.identity.size)
        for index in sorted(log.held):
            crc = log.held[index][0]
            extent = held.map.extent(index)
            if trusted and log.is_durable(index):
                held.add(index, crc)
                continue
            try:
                found = ranges.crc32(sys, fd, extent.offset, extent.length, poll)
            except (ranges.ShortFile, OSError):  # shorter than it was, or unreadable: not held
                found = None
            if found == crc:
                held.add(index, crc)
            else:
                journal.append(Type.INVALID, index)
        begun = pieces_of_begun(sys, fd, held, manifest, poll)
    journal.flush()
    place = Place(part, part_name, manifest, journal, journal_name, begun=begun)
    if not same:
        place.old = held
        place.header = Header(
            manifest.identity, manifest.map.chunk_size, log.header.device, log.header.inode,
            log.header.owner, log.header.destination, sys.random(16),
        )  # fmt: skip
    return place


def _sync_part(sys: Syscalls, fd: int, state: StateDir, journal: Journal, journal_name: bytes) -> bool:
    """Sync what an earlier process wrote.  False if the disk lost some of it: then nothing is taken on trust."""
    try:
        sys.fsync(fd)
    except OSError:
        revoke(state, journal, journal_name)
        return False
    return True


def revoke(state: StateDir, journal: Journal, journal_name: bytes) -> None:
    """Take back all claims of durability, durably.  A journal that cannot even take that is removed."""
    try:
        journal.append(Type.REVOKE)
        journal.flush()
        journal.sync()
    except OSError:
        state.unlink(journal_name)
        raise


def take_over(sys: Syscalls, state: StateDir, place: Place) -> None:
    """Make the place one for the new version: called before the first byte of it is written to the part.

    Until then the journal speaks of the old version, so that a session that ends before it has anything loses nothing.
    """
    assert place.journal is not None
    assert place.header is not None
    place.journal.reset()
    size = place.manifest.identity.size
    with place.part.hold() as fd:
        if sys.fstat(fd).st_size > size:
            sys.ftruncate(fd, size)
        reserve(sys, state, fd, place.manifest)
    place.journal.begin(place.header)
    place.header = None


def reserve(sys: Syscalls, state: StateDir, fd: int, manifest: Manifest) -> None:
    """See to it that there is room for the whole file, but for its holes, before any of it travels."""
    size = manifest.identity.size
    if size - manifest.holes < RESERVE_FROM:
        return
    if manifest.holes or not state.reserves:
        if sys.free_bytes(fd) < size - manifest.holes - sys.fstat(fd).st_blocks * BLOCK:
            raise OSError(errno.ENOSPC, "no space")
        return
    try:
        sys.fallocate(fd, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
