"""Holes of files: where they are, what they come to, and making them.

Theory: a hole is a range that takes no room on the disk and reads as zeros.  What it comes to is known without reading
it, so that a file of a terabyte with nothing in it costs no more than its chunks.  Only a file that occupies less than
its size is asked where its data is; any other is data throughout, and no call is made for it.  Blocks that were set
aside and never written count as room, and so as data.

A run of data is looked for once: on some file systems finding its end means going through all of it.
"""

from __future__ import annotations

import errno
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import xxhash
from zlib_ng import zlib_ng

from fsmux.limits import KIB, MIN_HOLE
from fsmux.records import Extent

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from fsmux.files.syscalls import Syscalls

BLOCK: Final = 512
"""Bytes in the unit of ``st_blocks``, whatever the blocks of the file system are."""

MIN_HOLES: Final = 4 * KIB
"""Bytes. With fewer missing on the disk a file has no hole, but perhaps its contents beside its name."""

HOLE_UNIT: Final = 4 * KIB
"""Bytes, aligned, that are left out together of a small file with holes if all of them are zeros: a block of most file
systems."""

ZEROS: Final = memoryview(bytes(256 * KIB))


def holes_of(facts: os.stat_result) -> int:
    """How many bytes of a file take no room, more or less."""
    missing = facts.st_size - facts.st_blocks * BLOCK
    return missing if missing >= MIN_HOLES else 0


def zero_views(length: int) -> list[memoryview]:
    """``length`` zeros."""
    whole, rest = divmod(length, len(ZEROS))
    return [*[ZEROS] * whole, *([ZEROS[:rest]] if rest else [])]


@lru_cache(maxsize=4096)
def zeros_crc(length: int) -> int:
    """CRC-32 of so many zeros, in as many steps as the number has bits."""
    crc, unit, unit_length, rest = 0, zlib_ng.crc32(b"\0"), 1, length
    while rest:
        if rest & 1:
            crc = zlib_ng.crc32_combine(crc, unit, unit_length)
        rest >>= 1
        unit = zlib_ng.crc32_combine(unit, unit, unit_length) if rest else unit
        unit_length *= 2
    return crc


@lru_cache(maxsize=64)
def zeros_digest(length: int) -> bytes:
    """XXH3-128 of so many zeros; made once for the few sizes that chunks have."""
    state = xxhash.xxh3_128()
    for view in zero_views(length):
        state.update(view)
    return state.digest()


def is_hole(sys: Syscalls, fd: int, offset: int, length: int) -> bool:
    """Whether all of a range lies within the file and in a hole. One or two calls; in doubt it is data."""
    try:
        return sys.seek_data(fd, offset) >= offset + length > offset
    except OSError as error:
        return error.errno == errno.ENXIO and sys.fstat(fd).st_size >= offset + length > offset


def clear(sys: Syscalls, fd: int, extent: Extent, size: int) -> None:
    """Make a range of a file a hole, whatever is there; the file has ``size`` bytes then, if it had fewer."""
    if sys.fstat(fd).st_size < size:
        sys.ftruncate(fd, size)
    try:
        sys.punch(fd, *extent)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        if not is_hole(sys, fd, *extent):
            _write_zeros(sys, fd, extent)


def _write_zeros(sys: Syscalls, fd: int, extent: Extent) -> None:
    offset = extent.offset
    while offset < extent.end:
        written = sys.pwrite(fd, ZEROS[: extent.end - offset], offset)
        if not written:
            raise OSError(errno.EIO, "no progress")
        offset += written


class Run(NamedTuple):
    """A range that is all data or all hole; ``data`` if it was read."""

    extent: Extent
    hole: bool
    data: bytes | None = None


class Layout:
    """Where the data of an open file is.  In any thread.  Unless it is known to be ``sparse`` its facts tell."""

    __slots__ = ("_found", "_sys", "sparse")

    def __init__(self, sys: Syscalls, facts: os.stat_result, *, sparse: bool = False) -> None:
        self.sparse = sparse or holes_of(facts) > 0
        self._sys = sys
        self._found = (0, 0)  # the run of data that was found last

    def runs(self, fd: int, extent: Extent) -> Iterator[Run]:
        """A range as runs, in order."""
        at = extent.offset
        while at < extent.end:
            start, stop = self._data(fd, at, extent.end)
            if start > at:
                yield Run(Extent(at, start - at), start - at >= MIN_HOLE)
            if stop > start:
                yield Run(Extent(start, stop - start), False)
            at = stop

    def _data(self, fd: int, at: int, end: int) -> tuple[int, int]:
        """The next run of data from ``at`` on, as far as it lies before ``end``; empty and at the end if none does."""
        if not self.sparse:
            return at, end
        start, stop = self._found
        if not start <= at < stop:
            try:
                start = self._sys.seek_data(fd, at)
            except OSError as error:
                return (end, end) if error.errno == errno.ENXIO else (at, end)
            if start >= end:
                return end, end
            try:
                stop = self._sys.seek_hole(fd, start)
            except OSError:
                return start, end  # there is data, and in doubt it is all data
            self._found = start, stop
        return max(start, at), min(stop, end)
