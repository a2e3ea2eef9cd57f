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

from fsmux.columns import KIND_BITS, MODE_BITS, REGULAR, Act, Group, time_of
from fsmux.errors import FsmuxError, NotRegular, SourceChanged, from_os_error
from fsmux.files import names
from fsmux.files.holes import BLOCK
from fsmux.files.syscalls import OPEN_READ
from fsmux.limits import MAX_PACK_BYTES, MEDIUM_FILE
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

    Take = Callable[[int], memoryview]

_TRIES: Final = 3
"""Times that a changing file is read before it is given up for now."""


class _Version(NamedTuple):
    data: bytes
    mtime: int
    mode: int
    holed: bool


def read_pack(root: Root, base: Parts, groups: Sequence[Group], take: Take) -> memoryview:
    """Read the regular files in ``groups``, whose directories are below ``base``; their contents, joined.

    They are in the memory, of so many bytes at least, that ``take`` gives, unless one has another size by now.

    Every group gets its checksums, its sizes and times as they are now, what of it has holes, and what of it is lost;
    one that is another now is ``as_asked`` no more.  Blocking.
    """
    made = [group for group in groups if group.act is Act.MAKE and not group.itself]
    with_files = [group for group in made if REGULAR in group.kinds]
    size = sum([sum(group.sizes) for group in with_files])
    contents = _Contents(take(min(size, MAX_PACK_BYTES) + 1))  # one file may have a byte more than was listed
    for group in made:
        group.crcs = [0] * len(group)
    for group in with_files:
        _read_group(root, base, group, contents)
    return contents.joined()


class _Contents:
    """Files one after the other, each of which the kernel lays where it belongs; those of another size than was listed
    come in between.
    """

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.filled = 0
        self.room = MAX_PACK_BYTES
        """Bytes that may still come."""
        self._taken = 0
        self._pieces: list[bytes | memoryview] = []

    def add(self, data: bytes) -> None:
        """Have something come behind what is filled already."""
        self._pieces += [self.view[self._taken : self.filled], data]
        self._taken = self.filled

    def joined(self) -> memoryview:
        rest = self.view[self._taken : self.filled]
        return memoryview(b"".join([*self._pieces, rest])) if self._pieces else rest


def _read_group(root: Root, base: Parts, group: Group, contents: _Contents) -> None:
    where = base + group.directory
    try:
        names.check_in(where, group.names)
        lease = root.look_into(where)
    except FsmuxError as error:
        group.lost = [(index, error) for index, mode in enumerate(group.modes) if mode & KIND_BITS == REGULAR]
        return
    sys, buffer, filled, room = root.sys, contents.view, contents.filled, contents.room
    openat, preadv, fstat, close = sys.openat, sys.preadv, sys.fstat, sys.close
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
                    count = preadv(file, (buffer[filled : filled + size + 1],), 0)
                    facts = fstat(file)
                finally:
                    close(file)
                if (
                    count != size
                    or facts.st_size != size
                    or facts.st_mtime_ns != mtime
                    or facts.st_mode & MODE_BITS != mode
                ):
                    data, mtime, mode, holed = _read_anew(sys, fd, (*where, name))
                    if len(data) > room:
                        raise SourceChanged(f"{printable((*where, name))}: it grew while it was read; run it again")
                    group.sizes[index], group.mtimes[index], group.modes[index] = len(data), mtime, mode
                    group.as_asked = False
                    contents.filled = filled
                    contents.add(data)
                    crcs.append(crc32(data))
                    room -= len(data)
                else:
                    holed = facts.st_blocks * BLOCK < size
                    crcs.append(crc32(buffer[filled : filled + size]))
                    filled += size
                    room -= size
            except (OSError, FsmuxError) as error:
                group.lost.append((index, _typed(error, (*where, name))))
                crcs.append(0)
                continue
            if holed:
                group.holed.append(index)
    contents.filled, contents.room = filled, room
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
            return _Version(data, time_of(after), after.st_mode & MODE_BITS, holed)
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
