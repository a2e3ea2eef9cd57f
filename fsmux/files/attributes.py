"""What a file has beside its bytes: reading it and setting it.

Theory: bits above 0777 are never kept, whoever asks: a file that runs as its owner must be made so on purpose, where it
stands.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.files.syscalls import OPEN_EXCLUSIVE

if TYPE_CHECKING:
    from fsmux.files.state import StateDir
    from fsmux.files.syscalls import Syscalls

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
