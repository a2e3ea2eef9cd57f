"""Loops over ranges of open files: write all of it, read all of it, checksum, digest, copy.

Theory: the kernel may do less than it was asked to, so each of these is a loop, and each is written once.  Checksums
are made in pieces that stay in the processor's cache, through one buffer per thread, and a range that is one hole is
not read for them.  ``poll`` is called between
pieces; it may raise, which is how a long read in a worker thread is cancelled.
"""

from __future__ import annotations

import errno
import os
import threading
from itertools import groupby
from typing import TYPE_CHECKING, Final

import xxhash
from zlib_ng import zlib_ng

from fsmux.files.holes import HOLE_UNIT, clear, is_hole, zero_views, zeros_crc, zeros_digest
from fsmux.files.syscalls import IOV_MAX
from fsmux.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fsmux.files.holes import Layout
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Extent

    Poll = Callable[[], None]

PIECE: Final = 256 * KIB
"""Bytes read at once for a checksum: they fit the second-level cache, and the extra calls do not show."""


class ShortFile(Exception):
    """The file ended before the range did."""


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(PIECE))


_scratch: Final = _Scratch()


def write_all(sys: Syscalls, fd: int, views: Sequence[memoryview], offset: int) -> int:
    """Write all of ``views``, one behind the other, from ``offset`` on; how many bytes that were."""
    start = offset
    total = sum(map(len, views))
    if len(views) <= IOV_MAX:
        written = sys.pwritev(fd, views, offset)
        if written == total:
            return total
        if not written and total:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        offset += written
        rest = _after(views, written)
    else:
        rest = list(views)
    while offset - start < total:
        written = sys.pwritev(fd, rest[:IOV_MAX], offset)
        if not written:  # no progress and no error; a loop would never end
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        offset += written
        rest = _after(rest, written)
    return total


def write_around_zeros(sys: Syscalls, fd: int, data: memoryview) -> None:
    """Write a new file whole.  Blocks of zeros are not written, so that they become holes."""
    sys.ftruncate(fd, len(data))
    blocks = [data[start : start + HOLE_UNIT] for start in range(0, len(data), HOLE_UNIT)]
    offset = 0
    for zeros, run in groupby(blocks, lambda block: bytes(block) == bytes(len(block))):
        length = sum(map(len, run))
        if not zeros:
            write_all(sys, fd, [data[offset : offset + length]], offset)
        offset += length


def _after(views: Sequence[memoryview], done: int) -> list[memoryview]:
    for index, view in enumerate(views):
        if done < len(view):
            return [view[done:], *views[index + 1 :]]
        done -= len(view)
    return []


def read_into(sys: Syscalls, fd: int, view: memoryview, offset: int) -> int:
    """Fill ``view`` from ``offset`` on; less than all of it only at the end of the file."""
    done = 0
    while done < len(view):
        count = sys.preadv(fd, (view[done:],), offset + done)
        if not count:
            break
        done += count
    return done


def pieces(sys: Syscalls, fd: int, offset: int, length: int, poll: Poll | None = None) -> Iterator[memoryview]:
    """The bytes of a range, piece by piece.  A piece is good until the next one is asked for, in this thread only."""
    buffer = _scratch.view
    end = offset + length
    while offset < end:
        view = buffer[: min(PIECE, end - offset)]
        if read_into(sys, fd, view, offset) < len(view):
            raise ShortFile
        yield view
        offset += len(view)
        if poll is not None:
            poll()


def crc32(sys: Syscalls, fd: int, offset: int, length: int, poll: Poll | None = None) -> int:
    if is_hole(sys, fd, offset, length):
        return zeros_crc(length)
    crc = 0
    for piece in pieces(sys, fd, offset, length, poll):
        crc = zlib_ng.crc32(piece, crc)
    return crc


def digest(sys: Syscalls, fd: int, offset: int, length: int, poll: Poll | None = None) -> bytes:
    """XXH3-128, sixteen bytes."""
    if is_hole(sys, fd, offset, length):
        return zeros_digest(length)
    state = xxhash.xxh3_128()
    for piece in pieces(sys, fd, offset, length, poll):
        state.update(piece)
    return state.digest()


def crc32_and_digest(sys: Syscalls, fd: int, offset: int, length: int, poll: Poll | None = None) -> tuple[int, bytes]:
    """Both, in one reading."""
    if is_hole(sys, fd, offset, length):
        return zeros_crc(length), zeros_digest(length)
    crc = 0
    state = xxhash.xxh3_128()
    for piece in pieces(sys, fd, offset, length, poll):
        crc = zlib_ng.crc32(piece, crc)
        state.update(piece)
    return crc, state.digest()


def copy(
    sys: Syscalls, source: int, target: int, extent: Extent, size: int, layout: Layout, poll: Poll | None = None
) -> bytes:
    """Copy a range to the same place in another file of ``size`` bytes, holes as holes; the digest of what was copied.

    Not ``copy_file_range``: the bytes must be seen anyway to be checked, and what is checked must be what is written.
    """
    state = xxhash.xxh3_128()
    for run, hole, _ in layout.runs(source, extent):
        offset = run.offset
        if hole:
            clear(sys, target, run, size)
            if run == extent:
                return zeros_digest(run.length)
            for view in zero_views(run.length):
                state.update(view)
            continue
        for piece in pieces(sys, source, offset, run.length, poll):
            state.update(piece)
            write_all(sys, target, (piece,), offset)
            offset += len(piece)
    return state.digest()
