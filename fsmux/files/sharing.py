"""One more name for a file that stands: how a hard link is made.

Theory: a link may be made only where both names are reached through no symbolic link below the root, and only of a
regular file.  Where the name is taken, it is made under one of its own in the reserved directory and takes its name by
``rename``, so that whatever had it is replaced in one step and never written to, as with any other file.  What is to be
durable is synced before that: the file may stand from a transfer that asked for no durability.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from fsmux.errors import IsADirectory, NotRegular
from fsmux.files import names
from fsmux.files.syscalls import OPEN_READ
from fsmux.records import printable

if TYPE_CHECKING:
    from fsmux.files.lease import Lease
    from fsmux.files.root import Root
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts


class Linker:
    """Gives files of ``root`` further names.  Blocking, one thread at a time; :meth:`close` it when done.

    With ``sync`` a file is on stable storage before it gets a name; the name itself is for the caller to sync.
    """

    def __init__(self, root: Root, *, sync: bool) -> None:
        self._root = root
        self._sync = sync
        self._parent: tuple[Parts, Lease] | None = None  # of the file that was linked last, often of the next one

    def link(self, state: StateDir, here: int, directory: int, name: bytes, first: Parts) -> None:
        """Let ``name`` in ``directory`` be a name of the file ``first``; ``here`` is open on the reserved ``state``.

        Raises:
            NotRegular: ``first`` is no regular file, but a symbolic link, say.
            BadName: ``first`` is reserved, or cannot be a path.
            OSError: whatever the kernel refuses, such as a link to another file system.
        """
        sys = self._root.sys
        with self._directory_of(first) as there:
            if not stat.S_ISREG(sys.stat(there, first[-1]).st_mode):
                raise NotRegular(f"{printable(first)}: only a regular file can get another name")
            if not self._sync:
                with suppress(OSError):  # the name is taken, or its directory closed
                    sys.link(there, first[-1], directory, name)
                    return
            temporary = state.unique()
            sys.link(there, first[-1], here, temporary)
        try:
            if self._sync:
                _sync(sys, here, temporary)
            self._root.rename_into(here, temporary, directory, name)
        finally:
            with suppress(OSError):
                sys.unlink(here, temporary)  # a rename between two names of one file does nothing, or it failed

    def close(self) -> None:
        """Let go of what is open. May be called more than once."""
        parent, self._parent = self._parent, None
        if parent is not None:
            parent[1].close()

    def _directory_of(self, first: Parts) -> Lease:
        names.check(first)
        if not first:
            raise IsADirectory(f"{printable(first)}: is a directory")
        if self._parent is None or self._parent[0] != first[:-1]:
            self.close()
            self._parent = first[:-1], self._root.directory(first[:-1])
        return self._parent[1]


def _sync(sys: Syscalls, here: int, name: bytes) -> None:
    try:
        fd = sys.openat(here, name, OPEN_READ)
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
        sys.syncfs(here)  # not even its owner may read it, but it is on this file system
        return
    try:
        sys.fsync(fd)
    finally:
        sys.close(fd)
