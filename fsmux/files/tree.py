"""Steps on directories that need more than one system call and no root: entries, recursive removal, careful rename."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from fsmux.columns import owner_of, time_of
from fsmux.errors import Busy
from fsmux.files import names
from fsmux.files.syscalls import OPEN_DIRECTORY, OPEN_LOOK
from fsmux.records import Attrs, Kind, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from fsmux.files.ranges import Poll
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

_REMOVABLE: Final = stat.S_IWUSR | stat.S_IXUSR
"""What its owner needs of a directory to remove what is in it."""

_READABLE: Final = stat.S_IRUSR
"""What its owner needs of a file or directory to open it."""

KIND_OF: Final = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
"""By the bits of a mode that say it; anything else is special."""


def attrs_of(facts: os.stat_result, link_target: bytes = b"", owner: bool = False) -> Attrs:
    kind = KIND_OF.get(stat.S_IFMT(facts.st_mode), Kind.SPECIAL)
    size = facts.st_size if kind == Kind.FILE else 0
    return Attrs(kind, size, time_of(facts), facts.st_mode & 0o777, link_target, owner_of(facts) if owner else None)


def entries(sys: Syscalls, directory: int) -> Generator[tuple[bytes, Attrs], None, None]:
    """What is in a directory, unsorted, without what is reserved."""
    found = sys.scandir(directory)
    try:
        for entry in found:
            name = os.fsencode(entry.name)
            if names.is_reserved(name):
                continue
            try:
                attrs = attrs_of(entry.stat(follow_symlinks=False))
                if attrs.kind == Kind.SYMLINK:
                    target = sys.readlink(directory, name)
                    attrs = Attrs(attrs.kind, 0, attrs.mtime_ns, attrs.mode, target)
            except FileNotFoundError:
                continue  # removed since the directory was read
            yield name, attrs
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


class _Emptied(NamedTuple):
    """A directory that is being removed, whose files are gone: open, with the subdirectories that are still to go."""

    fd: int
    name: bytes
    below: list[bytes]
    mode: int | None
    """What it had, if it was made writable to go."""


def remove(
    sys: Syscalls, parent: int, name: bytes, poll: Poll | None = None,
    rmdir: Callable[[int, bytes], None] | None = None,
) -> None:  # fmt: skip
    """Remove a directory with all that is in it, links as links.

    The reserved directory is not removed, so a directory that still receives files is "not empty" at the end.  What
    somebody else removes meanwhile is as good as removed by us.  A directory that its owner may not write to is made
    writable, because it is to go; one that does not go has its permissions back.  ``poll`` is called now and then, and
    may raise.  ``rmdir`` takes the directory itself from its parent, if it needs more than the system call.
    """
    trail: list[_Emptied] = []
    try:
        trail.append(_emptied(sys, parent, name))
        while trail:
            if poll is not None:
                poll()
            here = trail[-1]
            if here.below:
                with suppress(FileNotFoundError):
                    trail.append(_emptied(sys, here.fd, here.below.pop()))
                continue
            with suppress(FileNotFoundError):
                if len(trail) > 1:
                    sys.rmdir(trail[-2].fd, here.name)
                else:
                    (rmdir or sys.rmdir)(parent, here.name)
            sys.close(trail.pop().fd)
    finally:
        for left in trail:
            _leave(sys, left.fd, left.mode)


def _emptied(sys: Syscalls, parent: int, name: bytes) -> _Emptied:
    """Open a directory and remove all that is in it but directories."""
    fd = open_own(sys, parent, name, OPEN_DIRECTORY)
    mode = None
    try:
        mode = _made_writable(sys, fd)
        below: list[bytes] = []
        for entry, attrs in entries(sys, fd):
            if attrs.kind == Kind.DIRECTORY:
                below.append(entry)
            else:
                with suppress(FileNotFoundError):
                    sys.unlink(fd, entry)
    except BaseException:
        _leave(sys, fd, mode)
        raise
    return _Emptied(fd, name, below, mode)


def check_found(sys: Syscalls, fd: int, parts: Parts, found_ns: int, mtime_ns: int) -> None:
    """Raise :class:`Busy` of an open file if it is another one than was found, or was written to since then.

    It has the time that it is to get, ``mtime_ns``, if another name of it came first.
    """
    if time_of(sys.fstat(fd)) not in (found_ns, mtime_ns):
        raise Busy(f"{printable(parts)}: it was changed here meanwhile; run it again")


def open_own(sys: Syscalls, directory: int, name: bytes, flags: int) -> int:
    """Open a file or directory to read it, also if its owner may not: he may for the moment.

    Whoever is killed meanwhile leaves it so.  No symbolic link is followed.
    """
    try:
        return sys.openat(directory, name, flags)
    except PermissionError as refused:
        look = sys.openat(directory, name, OPEN_LOOK)
        try:
            facts = sys.fstat(look)
            mode = stat.S_IMODE(facts.st_mode)
            if stat.S_ISLNK(facts.st_mode) or mode & _READABLE == _READABLE:
                raise
            try:
                sys.fchmod(look, mode | _READABLE)
            except OSError:  # it is somebody else's
                raise refused from None
            try:
                return sys.openat(directory, name, flags)
            finally:
                sys.fchmod(look, mode)
        finally:
            sys.close(look)


def _made_writable(sys: Syscalls, fd: int) -> int | None:
    """Let the owner of a directory remove what is in it; the permissions that it had, if that needed to be changed."""
    mode = stat.S_IMODE(sys.fstat(fd).st_mode)
    if mode & _REMOVABLE == _REMOVABLE:
        return None
    try:
        sys.fchmod(fd, mode | _REMOVABLE)
    except PermissionError:
        return None  # it is somebody else's
    return mode


def _leave(sys: Syscalls, fd: int, mode: int | None) -> None:
    """Close a directory that has not gone, with the permissions that it had."""
    with suppress(OSError):
        if mode is not None:
            sys.fchmod(fd, mode)
    with suppress(OSError):
        sys.close(fd)


def rename_new(sys: Syscalls, here: int, name: bytes, there: int, to_name: bytes) -> None:
    """Rename that replaces nothing.

    Where the file system has no such call, a link that is made and one that is removed do the same for files; for
    directories a look beforehand is all there is, and a rename over a directory refuses unless that one is empty.
    """
    try:
        sys.rename_new(here, name, there, to_name)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        facts = sys.stat(here, name)
        if not stat.S_ISDIR(facts.st_mode):
            sys.link(here, name, there, to_name)
            sys.unlink(here, name)
            return
        try:
            sys.stat(there, to_name)
        except FileNotFoundError:
            sys.rename(here, name, there, to_name)
            return
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
