"""Digests of files where they are, so that two sides can compare bytes without moving them.

Theory: a digest is asked for only of what has the same size on both sides, so it says whether two files are equal and
nothing else.  Files are read one after the other through one buffer; a result is given out after some tens of MiB or
some hundreds of files, so that whoever waits for it hears in time and can call it off.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from fsmux.errors import FsmuxError
from fsmux.files import names, ranges
from fsmux.files.reading import BATCH_FILES, RUN_BYTES
from fsmux.files.syscalls import OPEN_READ

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from fsmux.columns import Group
    from fsmux.files.ranges import Poll
    from fsmux.files.root import Root
    from fsmux.records import Parts


def digests(
    root: Root, base: Parts, groups: Iterable[Group], poll: Poll | None = None
) -> Generator[list[bytes | None], None, None]:
    """XXH3-128 of the files in ``groups``, in their order; None of what is no file of that size, or cannot be read.

    A generator that holds a descriptor: exhaust it or close it.  Blocking; ``poll`` is called between pieces.
    """
    found: list[bytes | None] = []
    size = 0
    for group in groups:
        where = base + group.directory
        try:
            names.check_in(where, group.names)
            lease = root.look_into(where)
        except FsmuxError:
            found += [None] * len(group)
            continue
        with closing(lease), lease as directory:
            for name, length in zip(group.names, group.sizes, strict=True):
                found.append(_digest(root, directory, name, length, poll))
                size += length
                if size >= RUN_BYTES or len(found) >= BATCH_FILES:
                    yield found
                    found, size = [], 0
    if found:
        yield found


def _digest(root: Root, directory: int, name: bytes, size: int, poll: Poll | None) -> bytes | None:
    sys = root.sys
    try:
        fd = sys.openat(directory, name, OPEN_READ)
        try:
            # What is no regular file cannot be read at an offset, or has another size.
            if sys.fstat(fd).st_size != size:
                return None
            return ranges.digest(sys, fd, 0, size, poll)
        finally:
            sys.close(fd)
    except (OSError, ranges.ShortFile):
        return None
