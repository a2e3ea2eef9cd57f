"""Directories that several sources share, when all of them have been moved.

Theory: the last source that has a directory decides what it is to be, as it would if the sources were transferred one
after the other.  What that changes is seen beside what stood there before the first of them, because what the others
have done meanwhile has changed its time; so a dry run, which has done nothing, comes to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fsmux.columns import Act, Group, itself
from fsmux.plan.plan import Entered, Facts, differs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.records import Kept, Parts


class Left(NamedTuple):
    """A directory as one source leaves it."""

    parts: Parts
    facts: Entered
    touched: bool
    """Whether anything in it was made, or may have been for a while."""


def finished(left: Sequence[Left], kept: Kept) -> list[tuple[Group, bool]]:
    """What is to be set of directories, deepest first, and whether it is told; ``left`` is in the order of sources."""
    by_name: dict[Parts, list[Left]] = {}
    for one in left:
        by_name.setdefault(one.parts, []).append(one)
    groups: list[tuple[Group, bool]] = []
    for parts, each in sorted(by_name.items(), reverse=True):
        made, before = each[0].facts.made, each[0].facts.before
        mtime, mode, _, _, owner, xattrs, _ = each[-1].facts
        changes = differs(Facts(0, mtime, mode, b"", owner, xattrs), before, kept)
        if made or changes or (kept.times and any(one.touched for one in each)):
            groups.append((itself(parts, mtime, mode, Act.ADJUST, owner, xattrs), changes and not made))
    return groups
