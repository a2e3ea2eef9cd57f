"""Small files from the disk: one call reads hundreds of them through held directory descriptors.

Theory: a file was listed some time ago, and has changed since or is changing now.  It is read whole, and looked at
behind that: if it has the size and the time that were listed, the bytes are those of that version.  Otherwise it is
read again until it stands still, and travels as what it is now.  What cannot be read fails alone.
"""

from __future__ import annotations

import errno
import stat
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from zlib_ng.zlib_ng import crc32

from fsmux.columns import KIND_BITS, MODE_BITS, REGULAR, Act, Group
from fsmux.errors import FsmuxError, NotRegular, SourceChanged, from_os_error
from fsmux.files import names
from fsmux.files.holes import BLOCK
from fsmux.files.syscalls import OPEN_READ
from fsmux.limits import MAX_PACK_BYTES, MEDIUM_FILE
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

_TRIES: Final = 3
"""Times that a changing file is read before it is given up for now."""


class _Version(NamedTuple):
    data: bytes
    mtime: int
    mode: int
    holed: bool


def read_pack(root: Root, base: Parts, groups: Sequence[Group]) -> bytes:
    """Read the regular files in ``groups``, whose directories are below ``base``; their contents, joined.

    Every group gets its checksums, its sizes and times as they are now, what of it has holes, and what of it is lost;
    one that is another now is ``as_asked`` no more.  Blocking.
    """
    contents: list[bytes] = []
    room = MAX_PACK_BYTES
    for group in groups:
        if group.act is not Act.MAKE or group.itself:
            continue
        if REGULAR not in group.kinds:
            group.crcs = [0] * len(group)
            continue
        start = len(contents)
        _read_group(root, base, group, contents, room)
        room -= sum(map(len, contents[start:]))
    return b"".join(contents)


def _read_group(root: Root, base: Parts, group: Group, contents: list[bytes], room: int) -> None:
    where = base + group.directory
    try:
        names.check_in(where, group.names)
        lease = root.look_into(where)
    except FsmuxError as error:
        group.crcs = [0] * len(group)
        group.lost = [(index, error) for index, mode in enumerate(group.modes) if mode & KIND_BITS == REGULAR]
        return
    sys = root.sys
    openat, pread, fstat, close = sys.openat, sys.pread, sys.fstat, sys.close
    crcs: list[int] = []
    group.holed = []
    with closing(lease), lease as fd:
        for index, (name, size, mtime, mode) in enumerate(
            zip(group.names, group.sizes, group.mtimes, group.modes, strict=True)
        ):
            if mode & KIND_BITS != REGULAR:
                crcs.append(0)
                continue
            try:
                file = openat(fd, name, OPEN_READ)
                try:
                    data = pread(file, size + 1, 0)
                    facts = fstat(file)
                finally:
                    close(file)
                if (
                    len(data) != size
                    or facts.st_size != size
                    or facts.st_mtime_ns != mtime
                    or facts.st_mode & MODE_BITS != mode
                ):
                    data, mtime, mode, holed = _read_anew(sys, fd, (*where, name))
                    if len(data) > room:
                        raise SourceChanged(f"{printable((*where, name))}: it grew while it was read; run it again")
                    group.sizes[index], group.mtimes[index], group.modes[index] = len(data), mtime, mode
                    group.as_asked = False
                else:
                    holed = facts.st_blocks * BLOCK < size
            except (OSError, FsmuxError) as error:
                group.lost.append((index, _typed(error, (*where, name))))
                crcs.append(0)
                continue
            room -= len(data)
            contents.append(data)
            crcs.append(crc32(data))
            if holed:
                group.holed.append(index)
    group.crcs = crcs


def _read_anew(sys: Syscalls, directory: int, parts: Parts) -> _Version:
    """A version of a file that is no longer the one that was listed."""
    for _ in range(_TRIES):
        file = sys.openat(directory, parts[-1], OPEN_READ)
        try:
            before = sys.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                raise NotRegular(f"{printable(parts)}: it is not a regular file any more")
            if before.st_size > MEDIUM_FILE:
                raise SourceChanged(f"{printable(parts)}: it grew while it was read; run it again")
            data = _read_whole(sys, file, before.st_size)
            after = sys.fstat(file)
        finally:
            with suppress(OSError):
                sys.close(file)
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
            len(data), after.st_mtime_ns, after.st_ctime_ns,
        ):  # fmt: skip
            holed = after.st_blocks * BLOCK < len(data)
            return _Version(data, after.st_mtime_ns, after.st_mode & MODE_BITS, holed)
    raise SourceChanged(f"{printable(parts)}: it keeps changing while it is being read")


def _read_whole(sys: Syscalls, file: int, size: int) -> bytes:
    """``size`` bytes and one more, if there is one: some file systems give less than they were asked for."""
    pieces: list[bytes] = []
    have = 0
    while have <= size and (piece := sys.pread(file, size + 1 - have, have)):
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)


def _typed(error: OSError | FsmuxError, parts: Parts) -> FsmuxError:
    if isinstance(error, OSError) and error.errno == errno.ESPIPE:  # what pread says of a pipe
        return NotRegular(f"{printable(parts)}: it is not a regular file any more")
    return from_os_error(error, printable(parts)) if isinstance(error, OSError) else error
