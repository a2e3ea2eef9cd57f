"""Sources of one command that meet at the destination: their places are one, or one lies within the other.

Theory: what one of them has put under a name is refused to the others, unless both are directories, which become one.
Of such a directory the first source that has it says what it is to be (:mod:`.finishing`), and as long as another one
may still put something into it, it is not finished.  Places that nobody else has anything in cost nothing of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsmux.errors import Exists
from fsmux.moving.finishing import Left, finished
from fsmux.records import Kind, Parts, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fsmux.columns import Group
    from fsmux.moving.attempt import Item
    from fsmux.plan.judging import Facts
    from fsmux.records import Kept


class Claims:
    """Which names below a place are taken, and whether each is a directory."""

    def __init__(self, names: dict[Parts, bool], place: Parts) -> None:
        self._names = names
        self._place = place

    def get(self, parts: Parts) -> bool | None:
        return self._names.get(self._place + parts)

    def setdefault(self, parts: Parts, is_directory: bool) -> bool:
        return self._names.setdefault(self._place + parts, is_directory)

    def __contains__(self, parts: object) -> bool:
        return isinstance(parts, tuple) and self._place + parts in self._names


class Meeting:
    """Who meets whom among ``items``, and what they have taken and left."""

    def __init__(self, items: Sequence[Item]) -> None:
        trees: dict[Parts, list[Item]] = {}
        for item in items:
            if item.top.kind is Kind.DIRECTORY:
                trees.setdefault(item.target_prefix, []).append(item)
        self._outermost: dict[int, Item] = {}
        for item in items:
            place = item.target_prefix
            around = [tree for end in range(len(place) + 1) for tree in trees.get(place[:end], ())]
            if len({item.number, *(tree.number for tree in around)}) > 1:
                self._outermost.update({each.number: around[0] for each in (*around, item)})
        self._names: dict[Parts, bool] = {}
        self._left: dict[int, list[Left]] = {}
        self._touched: dict[int, set[Parts]] = {}
        self.seen: dict[int, Facts | None] = {}
        """The directories that stood at the places of trees before anything was done; None where nothing did."""

    def has(self, item: Item) -> bool:
        """Whether it meets any other."""
        return item.number in self._outermost

    def claim(self, item: Item) -> bool:
        """Take the place of a source; False if another one has it, too, and both are directories.

        Raises:
            Exists: they are not.
        """
        place, is_directory = item.target_prefix, item.top.kind is Kind.DIRECTORY
        taken = self._names.get(place)
        if taken is not None and not (taken and is_directory):
            raise Exists(f"{printable(place)}: two sources would both become this")
        self._names[place] = is_directory
        return taken is None

    def below(self, item: Item) -> Claims:
        """What is taken of the place of a tree."""
        return Claims(self._names, item.target_prefix)

    def leave(self, item: Item, left: Sequence[Left], *, touched: bool) -> None:
        """A source is done with these directories; ``touched``: also with those that its place is in."""
        outermost = self._outermost[item.number]
        below = item.target_prefix[len(outermost.target_prefix) :]
        self._left.setdefault(outermost.number, []).extend(one._replace(parts=below + one.parts) for one in left)
        if touched or any(one.touched for one in left):
            self._touched.setdefault(outermost.number, set()).update(below[:end] for end in range(len(below)))

    def finished(self, trees: Sequence[Item], kept: Kept) -> Iterator[tuple[Item, list[tuple[Group, bool]]]]:
        """What is to be set of directories that all are done with, and below which source's place."""
        for item in trees:
            if (left := self._left.pop(item.number, None)) is not None:
                yield item, finished(left, kept, self._touched.get(item.number, ()))
