"""From an unfinished file that is complete to a finished one.

Theory: everything that must be durable is made so in one order: the part with all that it has beside its bytes, then
the rename, then the directory that got the name, then the directories above it that were made for it.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import Busy, IntegrityError, InternalError, StorageError
from fsmux.files import ranges
from fsmux.files.attributes import give, usual_mode
from fsmux.files.journal import Type
from fsmux.files.naming import named
from fsmux.records import Durability

if TYPE_CHECKING:
    from fsmux.files.ranges import Poll
    from fsmux.files.sink import Sink


MOST_WRONG: Final = 64
"""Chunks that a disk did not keep, after which it is not read on: they are to be sent again first."""


def commit(sink: Sink, mode: int | None, mtime_ns: int | None) -> bool:
    """One file; see :meth:`.Sink.commit`."""
    sync = sink.durability != Durability.NONE
    with named(sink.parts):
        _prepare(sink, mode, mtime_ns)
        if sync or sink.verify:
            sink.sync_part(whole=True)
        if sink.verify:
            _prove(sink)
        try:
            _stand(sink, sync)
        except FileNotFoundError:  # the empty directory has lost its place (:mod:`.whole`)
            if not sink.place.part_name:
                raise
            _stand(sink, sync)
    return sync


def _stand(sink: Sink, sync: bool) -> None:
    directory = sink.root.enter(sink.parts)
    try:
        with directory.hold() as fd:
            _publish(sink, fd)
            try:
                if sync:
                    sink.root.settle(sink.parts[:-1], fd)
            finally:
                sink.end(keep=False)
    finally:
        sink.root.leave(directory)


def _prepare(sink: Sink, mode: int | None, mtime_ns: int | None) -> None:
    """See that the file is whole, and set all that it has beside its bytes."""
    if sink.ended:
        raise Busy(f"{sink.name}: this session has ended")
    if sink.poisoned:
        raise sink.lost()
    if not sink.manifest.complete:
        raise InternalError(f"{sink.name}: is to be committed before it is complete")
    part = sink.place.part
    if part.users:
        raise InternalError(f"{sink.name}: is to be committed while it is being written")
    if sink.place.header is not None:
        sink.take_over()
    with part.hold() as fd:
        if sink.sys.fstat(fd).st_size != sink.identity.size:
            raise IntegrityError(f"{sink.name}: its unfinished file was changed by somebody else")
        if sink.attrs is not None:
            sink.refused = give(sink.sys, fd, sink.attrs)
        sink.sys.fchmod(fd, (sink.mode if mode is None else mode) & 0o777 if sink.kept.perms else _mode_there(sink))
        if sink.kept.times:
            sink.sys.futime(fd, sink.identity.mtime_ns if mtime_ns is None else mtime_ns)


def _mode_there(sink: Sink) -> int:
    """Permissions that the sender has no say in."""
    facts = sink.root.existing(sink.parts)
    if facts is not None and stat.S_ISREG(facts.st_mode):
        return facts.st_mode & 0o777
    return usual_mode(sink.sys, sink.pin.state)


def read_back(sink: Sink, poll: Poll | None) -> dict[int, int | None]:
    """See :meth:`.Sink.read_back`."""
    sink.sync_part()
    return _wrong_chunks(sink, poll)


def _prove(sink: Sink) -> None:
    """See that the device has what was written, unless that was seen already."""
    if not sink.proven and (wrong := _wrong_chunks(sink, None)):
        raise StorageError(
            f"{sink.name}: the disk gave back other bytes than were written to it, in chunk {min(wrong)}; "
            "check the disk, run it again to send what is wrong"
        )


def _wrong_chunks(sink: Sink, poll: Poll | None) -> dict[int, int | None]:
    """Read everything from the device; the part was synced, so that the cache can be dropped."""
    manifest, place = sink.manifest, sink.place
    wrong: dict[int, int | None] = {}
    with place.part.hold() as fd:
        sink.sys.drop_cache(fd)
        for index in range(manifest.map.count):
            found = None
            with suppress(ranges.ShortFile, OSError):
                found = ranges.crc32(sink.sys, fd, *manifest.map.extent(index), poll)
            if found != manifest.crc_of(index):
                wrong[index] = found
                if len(wrong) == MOST_WRONG:
                    break
    for index in wrong:
        manifest.drop(index)
        if place.journal is not None:
            place.journal.append(Type.INVALID, index)
    sink.proven = not wrong
    return wrong


def _publish(sink: Sink, directory: int) -> None:
    """The rename.  From here on the place is empty."""
    place = sink.place
    with sink.pin.state.hold() as here:
        if place.journal is not None:
            _check_name(sink, here)
        sink.root.rename_into(here, place.part_name, directory, sink.parts[-1])
    place.part_name = b""


def _check_name(sink: Sink, directory: int) -> None:
    """The part has a name that others of our kind know; it must still be our file that is renamed."""
    with sink.place.part.hold() as fd:
        mine = sink.sys.fstat(fd)
    try:
        found = sink.sys.stat(directory, sink.place.part_name)
    except FileNotFoundError:
        found = None
    if found is None or (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
        raise StorageError(f"{sink.name}: its unfinished file was removed by somebody else")
