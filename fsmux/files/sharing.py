"""One more name for a file that stands: how a hard link is made.

Theory: a link may be made only where both names are reached through no symbolic link below the root, and only of a
regular file.  It is made under a name of its own in the reserved directory and takes its name by ``rename``, so that
whatever had the name is replaced in one step and never written to, as with any other file.  What is to be durable is
synced before that: the file may stand from a transfer that asked for no durability.
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
    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts


def link(root: Root, here: int, temporary: bytes, directory: int, name: bytes, first: Parts, *, sync: bool) -> None:
    """Let ``name`` in ``directory`` be a name of the file ``first``; ``temporary`` in ``here`` is free to be used.

    With ``sync`` the file is on stable storage before it gets the name; the name itself is for the caller to sync.

    Raises:
        NotRegular: ``first`` is no regular file, but a symbolic link, say.
        BadName: ``first`` is reserved, or cannot be a path.
        OSError: whatever the kernel refuses, such as a link to another file system.
    """
    names.check(first)
    if not first:
        raise IsADirectory(f"{printable(first)}: is a directory")
    sys = root.sys
    lease = root.directory(first[:-1])
    try:
        with lease as there:
            if not stat.S_ISREG(sys.stat(there, first[-1]).st_mode):
                raise NotRegular(f"{printable(first)}: only a regular file can get another name")
            sys.link(there, first[-1], here, temporary)
    finally:
        lease.close()
    try:
        if sync:
            _sync(sys, here, temporary)
        root.rename_into(here, temporary, directory, name)
    finally:
        with suppress(OSError):
            sys.unlink(here, temporary)  # a rename between two names of one file does nothing, or it failed


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
