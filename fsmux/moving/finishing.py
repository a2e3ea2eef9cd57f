"""Directories that several sources share, when all of them have been moved.

Theory: the first source that has a directory decides what it is to be, as with rsync.  Only that one saw what stood
there before anything was done in it, so it says what is to be told, too, and a dry run comes to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fsmux.columns import Act, Group, itself

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from fsmux.plan.plan import Entered
    from fsmux.records import Kept, Parts


class Left(NamedTuple):
    """A directory as one source leaves it."""

    parts: Parts
    facts: Entered
    touched: bool
    """Whether anything in it was made, or may have been for a while."""


def finished(left: Sequence[Left], kept: Kept, touched: Container[Parts] = ()) -> list[tuple[Group, bool]]:
    """What is to be set of directories, deepest first, and whether it is told; ``left`` is in the order of sources.

    Into those that are ``touched`` something was put by others than these.
    """
    by_name: dict[Parts, list[Left]] = {}
    for one in left:
        by_name.setdefault(one.parts, []).append(one)
    groups: list[tuple[Group, bool]] = []
    for parts, each in sorted(by_name.items(), reverse=True):
        mtime, mode, made, differs, owner, xattrs = each[0].facts
        if differs or (kept.times and (parts in touched or any(one.touched for one in each))):
            groups.append((itself(parts, mtime, mode, Act.ADJUST, owner, xattrs), differs and not made))
    return groups
