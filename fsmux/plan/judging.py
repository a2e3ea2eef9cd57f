"""What is to be done about one name, from what the source has under it and what the destination.

Theory: a pure function of two sets of facts.  The kinds decide what can be done at all; for files, whoever asks says
what counts as up to date.
"""

from __future__ import annotations

import stat
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, SYMLINK, Group
from fsmux.errors import FsmuxError, IsADirectory, NotADirectory
from fsmux.records import EVERYTHING, Attrs, Kept, Kind, Parts, Xattrs, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    UpToDate: TypeAlias = Callable[["Facts", "Facts"], bool]

KINDS = frozenset((REGULAR, DIRECTORY, SYMLINK))
"""What can be transferred."""

_BITS_OF = {Kind.FILE: REGULAR, Kind.DIRECTORY: DIRECTORY, Kind.SYMLINK: SYMLINK, Kind.SPECIAL: stat.S_IFIFO}


class Facts(NamedTuple):
    """What is known of one name."""

    size: int
    mtime: int
    mode: int
    target: bytes = b""
    owner: int | None = None
    xattrs: Xattrs | None = None

    @classmethod
    def of(cls, attrs: Attrs) -> Facts:
        mode = _BITS_OF[attrs.kind] | attrs.mode
        return cls(attrs.size, attrs.mtime_ns, mode, attrs.link_target, attrs.owner, attrs.xattrs)


def as_group(name: Sequence[bytes], facts: Facts) -> Group:
    """One name as a group of its own."""
    return Group((), list(name), [facts.size], [facts.mtime], [facts.mode])


class Verdict(Enum):
    """What is to be done about one name."""

    MAKE = auto()
    """Make the directory or the link, in place of a file or link that has the name."""
    SEND = auto()
    ADJUST = auto()
    """The bytes are up to date, the mode is not; nor, perhaps, the time, if the bytes were compared."""
    CURRENT = auto()
    """Nothing is to be done, or no more than in the directory."""
    NEWER = auto()
    """A file is left alone because the one at the destination is newer."""
    SPECIAL = auto()
    """It cannot be transferred."""
    FILE_IN_THE_WAY = auto()
    DIRECTORY_IN_THE_WAY = auto()


def same_size_and_time(source: Facts, destination: Facts) -> bool:
    """The default of what counts as up to date."""
    return source.size == destination.size and source.mtime == destination.mtime


def known_equal(source: Facts, destination: Facts) -> bool:
    """For files whose bytes were compared, and are the same."""
    return True


def known_different(source: Facts, destination: Facts) -> bool:
    """For files whose bytes were compared, or need not be."""
    return False


def differs(source: Facts, existing: Facts | None, kept: Kept = EVERYTHING) -> bool:
    """Whether what is kept of a file or a directory is to be set."""
    if existing is None:
        return True
    return (
        _other(source, existing, kept)
        or (kept.perms and source.mode != existing.mode)
        or (kept.times and source.mtime != existing.mtime)
    )


def _other(source: Facts, existing: Facts, kept: Kept) -> bool:
    """Whether anything differs that is kept of links, too; extended attributes that are not known are left alone."""
    xattrs = kept.xattrs and source.xattrs is not None and source.xattrs != existing.xattrs
    return bool(xattrs) or (kept.owner and source.owner != existing.owner)


def judge(
    source: Facts, existing: Facts | None, up_to_date: UpToDate = same_size_and_time, *, update: bool = False,
    kept: Kept = EVERYTHING,
) -> Verdict:  # fmt: skip
    """What to do about one name, which ``existing`` has at the destination; ``update``: no newer file is replaced."""
    kind = source.mode & KIND_BITS
    there = existing.mode & KIND_BITS if existing is not None else 0
    if kind not in KINDS:
        return Verdict.SPECIAL
    if kind == DIRECTORY:
        if existing is None:
            return Verdict.MAKE
        return Verdict.CURRENT if there == DIRECTORY else Verdict.FILE_IN_THE_WAY
    if there == DIRECTORY:
        return Verdict.DIRECTORY_IN_THE_WAY
    if kind == SYMLINK:
        if existing is None or there != SYMLINK or existing.target != source.target or _other(source, existing, kept):
            return Verdict.MAKE
        return Verdict.MAKE if kept.times and source.mtime != existing.mtime else Verdict.CURRENT
    if existing is None or there != REGULAR:
        return Verdict.SEND
    if update and existing.mtime > source.mtime:
        return Verdict.NEWER
    if up_to_date(source, existing):
        return Verdict.ADJUST if differs(source, existing, kept) else Verdict.CURRENT
    return Verdict.SEND


def in_the_way(verdict: Verdict, parts: Parts) -> FsmuxError:
    """The error for a verdict of that kind."""
    if verdict is Verdict.FILE_IN_THE_WAY:
        text = "something else stands where a directory must be, so nothing in it was transferred; move it away first"
        return NotADirectory(f"{printable(parts)}: {text}")
    return IsADirectory(f"{printable(parts)}: a directory stands under this name; move it away first")
