"""From components to a descriptor, without ever leaving the root.

Theory: the kernel resolves a whole path in one step that no rename can fool (``openat2`` with BENEATH, NO_MAGICLINKS
and NO_SYMLINKS).  Two cases are left for the walk below, one component at a time under O_NOFOLLOW: kernels without
``openat2``, and reading through symbolic links.  The latter is not left to the kernel, because a link could lead to the
reserved directory, whose name only a walk gets to see.  The walk keeps the descriptors it came by, so ``..`` in a link
goes back to a directory it has been in, and never above the root.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import BadName
from fsmux.files import names
from fsmux.files.syscalls import (
    BENEATH,
    FOLLOW,
    NO_MAGICLINKS,
    NO_SYMLINKS,
    NO_XDEV,
    OPEN_LOOK,
    OPEN_STEP,
)

if TYPE_CHECKING:
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

MAX_LINKS: Final = 40
"""Symbolic links in one path, as in the kernel."""

_STRICT: Final = BENEATH | NO_MAGICLINKS | NO_SYMLINKS
_RETRIES: Final = 64
"""Tries of ``openat2`` while others rename directories; then the walk takes over, which needs no luck."""

_GONE: Final = (errno.ENOSYS, errno.EPERM, errno.E2BIG)
"""What ``openat2`` says where it does not exist (EPERM: an old seccomp filter).  The walk tells a real EPERM apart."""


def open_beneath(
    sys: Syscalls, top: int, parts: Parts, flags: int, *, links: bool = False, one_mount: bool = False
) -> int:
    """Open what ``parts`` lead to below the directory ``top``.

    ``links``: whether symbolic links may be passed (also as the last component) if they stay inside.  Otherwise one
    anywhere is ELOOP.  Leaving the root is EXDEV, and so is a mount point on the way where ``one_mount`` forbids them
    (without ``openat2`` that is not noticed; the caller compares device numbers as well).
    """
    rules = _STRICT | NO_XDEV if one_mount else _STRICT
    for _ in range(_RETRIES):
        try:
            return sys.openat2(top, parts, flags & FOLLOW, rules)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue
            if error.errno in _GONE or (links and error.errno == errno.ELOOP):
                break
            raise
    return _walk(sys, top, parts, flags, links=links)


def open_target(sys: Syscalls, top: int, parts: Parts) -> int:
    """A descriptor to look at what ``parts`` finally lead to, whatever it is, through links that stay inside."""
    return _walk(sys, top, parts, OPEN_LOOK, links=True)


def _walk(sys: Syscalls, top: int, parts: Parts, flags: int, *, links: bool) -> int:
    trail: list[int] = []  # descriptors of the directories passed, below top
    todo = list(reversed(parts))
    budget = MAX_LINKS if links else 0
    try:
        while todo:
            name = todo.pop()
            here = trail[-1] if trail else top
            if name == b"..":
                if not trail:
                    raise _error(errno.EXDEV)
                sys.close(trail.pop())
                continue
            fd = _step(sys, here, name, OPEN_STEP if todo else flags)
            if fd is None:
                if not budget:
                    raise _error(errno.ELOOP)
                budget -= 1
                todo.extend(_components(sys.readlink(here, name)))
            elif todo:
                trail.append(fd)
            else:
                return fd
        return sys.openat(trail[-1] if trail else top, b".", flags & FOLLOW, 0)
    finally:
        for fd in trail:
            with suppress(OSError):
                sys.close(fd)


def _step(sys: Syscalls, here: int, name: bytes, flags: int) -> int | None:
    """Open one component; None if it is a symbolic link."""
    try:
        fd = sys.openat(here, name, flags, 0)
    except OSError as error:
        # O_DIRECTORY makes a link "not a directory", like a file; only looking tells them apart.
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and stat.S_ISLNK(sys.stat(here, name).st_mode):
            return None
        raise
    if flags == OPEN_LOOK:
        try:
            if not stat.S_ISLNK(sys.fstat(fd).st_mode):
                return fd
        except OSError:
            sys.close(fd)
            raise
        sys.close(fd)
        return None
    return fd


def _components(target: bytes) -> list[bytes]:
    """The components of a link's text, last one first, as the walk takes them."""
    if target.startswith(b"/"):
        raise _error(errno.EXDEV)
    steps = [step for step in target.split(b"/") if step not in (b"", b".")]
    if any(names.is_reserved(step) for step in steps):
        raise BadName(f"a symbolic link leads to the reserved name {names.RESERVED.decode()}")
    return steps[::-1]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
