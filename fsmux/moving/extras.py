"""What stands at the destination and in no source: gathered while a transfer goes on, removed when it has succeeded.

Theory: the plan sees all that stands in the directories which it compares, so what is there alone costs no further
question; only its names are kept.  Nothing is removed before everything else has been done, and nothing at all if
anything failed: a source that cannot be read looks just like one from which everything was deleted.  A directory of the
destination may belong to several sources; then a name is extra if none of them has it.

What the filters would leave out of the source is protected at the destination, as with rsync.  So where there are
filters, an extra directory is looked into before it goes, and stays if anything in it is protected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Act, Group
from fsmux.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsmux.moving.tree import Looker
    from fsmux.plan.filters import Filters
    from fsmux.plan.plan import Entered
    from fsmux.records import Parts


class Emptied(Struct):
    """A directory of the destination in which names are extra, whether each is a directory, and how it is finished."""

    source: int
    directory: Parts
    """Relative to where that source goes."""
    facts: Entered
    names: dict[bytes, bool]


class Extras:
    """Those of one attempt at a transfer.  ``places`` are where its sources go."""

    def __init__(self, places: Sequence[Parts]) -> None:
        self._several = len(places) > 1
        self._found: dict[Parts, Emptied] = {}
        self._taken = {place[:depth] for place in places for depth in range(1, len(place) + 1)}

    def taken(self, place: Parts) -> bool:
        """Whether a source as a whole is to stand there, or beneath."""
        return place in self._taken

    def add(self, base: Parts, emptied: Emptied) -> None:
        """One source, which goes to ``base``, has this directory and none of these names in it."""
        place = base + emptied.directory
        names = {name: kind for name, kind in emptied.names.items() if (*place, name) not in self._taken}
        if (before := self._found.get(place)) is not None:
            names = {name: kind for name, kind in names.items() if name in before.names}
            emptied.facts = before.facts  # the first one decides what it is to be
        if names or self._several:  # that there are none says something to the next one
            emptied.names = names
            self._found[place] = emptied

    def of(self, source: int) -> list[Emptied]:
        """What is extra in the directories that this source was the last to speak of."""
        return [one for one in self._found.values() if one.source == source and one.names]


class TreeExtras:
    """What one tree tells of them, a directory after the other."""

    def __init__(self, extras: Extras, source: int, base: Parts, filters: Filters) -> None:
        self._extras = extras
        self._source = source
        self._base = base
        self._keeps = filters.keeps
        self._now: Emptied | None = None

    def beside(self, group: Group, existing: Group | None, facts: Entered) -> None:
        """``existing`` stands at the destination beside ``group``."""
        if self._now is None or self._now.directory != group.directory:
            self.end()
            self._now = Emptied(self._source, group.directory, facts, {})
        if existing is None or existing.names == group.names:
            return
        alone = set(existing.names).difference(group.names)
        for name, mode in zip(existing.names, existing.modes, strict=True) if alone else ():
            is_directory = mode & KIND_BITS == DIRECTORY
            if name in alone and self._keeps((*group.directory, name), is_directory):
                self._now.names[name] = is_directory

    def end(self) -> None:
        """No more of the directory, or of the tree."""
        if self._now is not None:
            self._extras.add(self._base, self._now)
            self._now = None


def removal(directory: Parts, names: Iterable[tuple[bytes, bool]]) -> Group:
    """The group that removes names, each of which is a directory or not."""
    group = Group(directory, act=Act.REMOVE)
    for name, is_directory in sorted(names):
        group.names.append(name)
        group.modes.append(DIRECTORY if is_directory else REGULAR)
    group.sizes, group.mtimes = [0] * len(group), [0] * len(group)
    return group


async def unprotected(looker: Looker, tops: list[Parts], filters: Filters) -> dict[Parts, Group | None]:
    """What may be removed of these directories: each itself (None), or only some of what is in it and beneath.

    Those beneath have entries of their own.  A directory that cannot be read stays.
    """
    inside: dict[Parts, list[tuple[bytes, bool]]] = {}
    stays: set[Parts] = set()
    level = [(parts, len(parts)) for parts in tops]
    while level:
        await looker.ask([parts for parts, _ in level])
        below: list[tuple[Parts, int]] = []
        for parts, top in level:
            listed = await _listed(looker)
            inside[parts] = [one for one in listed or () if filters.keeps((*parts, one[0]), one[1])]
            if listed is None or len(inside[parts]) < len(listed):
                stays.update(parts[:depth] for depth in range(top, len(parts) + 1))
            below += [((*parts, name), top) for name, is_directory in inside[parts] if is_directory]
        level = below
    found: dict[Parts, Group | None] = {parts: None for parts in tops if parts not in stays}
    for parts in stays:
        found[parts] = removal(parts, [one for one in inside[parts] if not one[1] or (*parts, one[0]) not in stays])
    return found


async def _listed(looker: Looker) -> list[tuple[bytes, bool]] | None:
    """The names in the directory that was asked for next, and whether each is one; None if it cannot be read."""
    found: list[tuple[bytes, bool]] = []
    while True:
        group = await looker.next_group()
        if group.error is not None:
            return [] if group.error.code is ErrorCode.NOT_FOUND else None
        found += [(name, mode & KIND_BITS == DIRECTORY) for name, mode in zip(group.names, group.modes, strict=True)]
        if not group.more:
            return found
