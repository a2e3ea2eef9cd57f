"""What a file has beside its bytes: reading it and setting it.

Theory: bits above 0777 are never kept, whoever asks: a file that runs as its owner must be made so on purpose, where it
stands.  For the same reason no extended attribute is ever read or set that means something to the kernel
(``security.*``, ``system.*``); those that only root may see (``trusted.*``) need root on the side that sets them.
What cannot be set of them fails none of a file: it is told, and the file stands without.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from fsmux.columns import user_and_group, xattrs_size
from fsmux.errors import from_os_error
from fsmux.files.syscalls import OPEN_EXCLUSIVE, OPEN_READ
from fsmux.limits import MAX_XATTRS
from fsmux.records import Namespaces, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.errors import FsmuxError
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Attrs, Xattrs

NEW_FILE: Final = 0o666
"""Permissions of a file of which none are kept, before the process's mask takes off what it does."""


def kept_mode(sys: Syscalls, directory: int, name: bytes) -> int | None:
    """The permissions of the file that has the name now, and that another one is to have in its place."""
    try:
        facts = sys.stat(directory, name)
    except FileNotFoundError:
        return None
    return facts.st_mode & 0o777 if stat.S_ISREG(facts.st_mode) else None


def usual_mode(sys: Syscalls, state: StateDir) -> int:
    """What a new file has of ``NEW_FILE``: asked of the kernel, since the mask belongs to the whole process."""
    name = state.unique()
    fd = state.create(name, OPEN_EXCLUSIVE, NEW_FILE)
    try:
        return sys.fstat(fd).st_mode & 0o777
    finally:
        sys.close(fd)
        with suppress(OSError):
            state.unlink(name)


def give(sys: Syscalls, fd: int, attrs: Attrs) -> FsmuxError | None:
    """Have an open file belong to whom ``attrs`` says, if this is root, and have just these extended attributes.

    What is None in them is left alone.  Call it before permissions are set, some of which a new owner takes away.
    Returns why the file has not all of the extended attributes; the caller names the file.
    """
    if attrs.owner is not None and sys.euid() == 0:
        sys.fchown(fd, *user_and_group(attrs.owner))
    if attrs.xattrs is None:
        return None
    return set_xattrs(sys, fd, attrs.xattrs, settable(sys, Namespaces.ALL))


# ---- extended attributes -------------------------------------------------------------------------------------------

_OF_USERS: Final = b"user."
_OF_THE_KERNEL: Final = (b"security.", b"system.")


def settable(sys: Syscalls, namespaces: Namespaces) -> Namespaces:
    """What of these namespaces this process may set."""
    return namespaces if sys.euid() == 0 else min(namespaces, Namespaces.USER)


def read_xattrs(sys: Syscalls, of: int | bytes, namespaces: Namespaces) -> Xattrs | None:
    """The extended attributes of an open file, or of a link (``link_itself``), by name.

    None if they are more than are kept, or cannot be read.
    """
    found: list[tuple[bytes, bytes]] = []
    room = MAX_XATTRS
    try:
        for name in sorted(_names(sys, of, namespaces)):
            try:
                value = sys.getxattr(of, name)
            except OSError as error:
                if error.errno == errno.ENODATA:  # removed since they were listed
                    continue
                raise
            found.append((name, value))
            room -= xattrs_size((found[-1],))
            if room < 0:
                return None
    except OSError:
        return None
    return tuple(found)


def read_xattrs_at(sys: Syscalls, directory: int, name: bytes, mode: int, namespaces: Namespaces) -> Xattrs | None:
    """Those of a name, whose ``mode`` is known.  Links have none of users, and what is special is not transferred."""
    if stat.S_ISLNK(mode) and namespaces is Namespaces.ALL:
        return read_xattrs(sys, sys.link_itself(directory, name), namespaces)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return ()
    try:
        fd = sys.openat(directory, name, OPEN_READ)
    except OSError:
        return None
    try:
        return read_xattrs(sys, fd, namespaces)
    finally:
        sys.close(fd)


def set_xattrs(
    sys: Syscalls, of: int | bytes, wanted: Xattrs, namespaces: Namespaces, *, fresh: bool = False
) -> FsmuxError | None:
    """Have an open file, or a link, have these extended attributes and no others in the namespaces.

    A ``fresh`` one has none.  Whatever can be done is.  Returns why not all of it could; the caller names the file.
    """
    refused: list[FsmuxError] = []
    try:
        had = set() if fresh else set(_names(sys, of, namespaces))
    except OSError as error:
        return _refusal(error, "its extended attributes")
    values = {one: value for one, value in wanted if _within(one, namespaces)}
    for one in sorted(had | values.keys()):
        try:
            if one not in values:
                _writable(sys, of, partial(sys.removexattr, of, one))
            elif one not in had or sys.getxattr(of, one) != values[one]:
                _writable(sys, of, partial(sys.setxattr, of, one, values[one]))
        except OSError as error:
            if error.errno != errno.ENODATA:
                refused.append(_refusal(error, f"its extended attribute {printable(one)}"))
    return refused[0] if refused else None


def _refusal(error: OSError, what: str) -> FsmuxError:
    """The typed error, in the kernel's words: what is said of files that cannot be written is no help here."""
    return type(from_os_error(error, what))(f"{what}: {(error.strerror or 'refused').lower()}")


def _names(sys: Syscalls, of: int | bytes, namespaces: Namespaces) -> list[bytes]:
    if not namespaces:
        return []
    try:
        return [name for name in sys.listxattr(of) if _within(name, namespaces)]
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def _within(name: bytes, namespaces: Namespaces) -> bool:
    if namespaces is Namespaces.ALL:
        return not name.startswith(_OF_THE_KERNEL)
    return namespaces is Namespaces.USER and name.startswith(_OF_USERS)


def _writable(sys: Syscalls, of: int | bytes, change: Callable[[], None]) -> None:
    """Make a change that needs the right to write, which the owner of a file can give himself."""
    try:
        change()
    except PermissionError as error:
        if error.errno != errno.EACCES or not isinstance(of, int):
            raise
        mode = stat.S_IMODE(sys.fstat(of).st_mode)
        if mode & stat.S_IWUSR:
            raise
        sys.fchmod(of, mode | stat.S_IWUSR)
        try:
            change()
        finally:
            sys.fchmod(of, mode)
