"""One writer per unfinished file, and one owner of temporary ones.

Theory: the lock is the ``flock`` of the journal, or of a guard (:mod:`.state`), so it ends with the process that holds
it, however that ends.  A lock on an inode says nothing about the name; the last holder may have removed the file
between our opening and our locking it.  So after locking we look whether the name still leads to what we locked, and
else begin again.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import AccessError, Busy
from fsmux.files.lease import Lease
from fsmux.files.syscalls import OPEN_EXCLUSIVE, OPEN_WRITE

if TYPE_CHECKING:
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls

_RETRIES: Final = 100

_NO_LOCKS: Final = frozenset((errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK))
"""What a file system says that has no locks."""


def acquire(
    sys: Syscalls, state: StateDir, name: bytes, shown: str, *, if_possible: bool = False
) -> tuple[Lease, bool]:
    """The locked file ``name`` and whether it was made for us.  :class:`Busy` if somebody else has it.

    With ``if_possible`` it stays unlocked on a file system that has no locks; there nobody else can lock it, either.
    """
    for _ in range(_RETRIES):
        lease, made = _open(sys, state, name)
        try:
            with lease.hold() as fd:
                try:
                    sys.lock(fd)
                except OSError as error:
                    if not if_possible or error.errno not in _NO_LOCKS:
                        raise
                if _leads_to(sys, state, name, fd):
                    return lease, made
        except BlockingIOError:
            lease.close()
            raise Busy(f"{shown}: it is being received by another session") from None
        except BaseException:
            if made:
                with suppress(OSError):
                    state.unlink(name)
            lease.close()
            raise
        lease.close()
    raise Busy(f"{shown}: it is being received by other sessions")


def _open(sys: Syscalls, state: StateDir, name: bytes) -> tuple[Lease, bool]:
    while True:
        with suppress(FileExistsError):
            return Lease(state.create(name, OPEN_EXCLUSIVE), sys), True
        with suppress(FileNotFoundError), state.hold() as directory:
            return Lease(sys.openat(directory, name, OPEN_WRITE), sys), False


def _leads_to(sys: Syscalls, state: StateDir, name: bytes, fd: int) -> bool:
    mine = sys.fstat(fd)
    if not stat.S_ISREG(mine.st_mode) or mine.st_uid != sys.euid():
        raise AccessError("the record of an unfinished file was tampered with; remove it from .fsmux")
    try:
        with state.hold() as directory:
            named = sys.stat(directory, name)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)
