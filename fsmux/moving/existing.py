"""What stands at the destination, put beside what was scanned of the source.

Theory: both sides list a directory in the order of its names, in pages of their own.  So whatever has one of the names
of a page of the source is in the pages up to the last of them, and no more than those need be held at once.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from fsmux.columns import Group
from fsmux.errors import ErrorCode

if TYPE_CHECKING:
    from fsmux.errors import FsmuxError
    from fsmux.moving.tree import Looker
    from fsmux.records import Parts

NOTHING_THERE = frozenset((ErrorCode.NOT_FOUND, ErrorCode.NOT_A_DIRECTORY))
"""What a listing fails with where no directory stands."""


class Existing:
    """What stands at the destination beside the groups of the source, in pages, none held longer than needed."""

    def __init__(self, looker: Looker | None) -> None:
        self._looker = looker
        self._directory: Parts | None = None
        self._held: Group | None = None
        self._more = False
        self._looked = False
        """Whether the directory was there to be looked into, as far as it was."""
        self._error: FsmuxError | None = None
        self._missing: list[Parts] = []
        self._absent: dict[Parts, set[bytes]] = {}
        """Directories that the one above them has not, and that the scan has not come to."""
        self._unasked: set[Parts] = set()

    async def ask(self, directories: list[Parts]) -> None:
        """Have these looked into, before the groups of the same directories are put beside what is there.

        Not those that were not there when the directory above them was looked into, nor what is in them: whatever
        stands there now was put there by ourselves, or behind our back.
        """
        if self._looker is None or not directories:
            return
        asked: list[Parts] = []
        for parts in directories:
            if self._missing:
                # They came in this order, so the scan is through with all that this one is not in.
                self._missing = [above for above in self._missing if parts[: len(above)] == above]
            if self._forget(parts):
                self._missing.append(parts)
            if self._missing:
                self._unasked.add(parts)
            else:
                asked.append(parts)
        if asked:
            await self._looker.ask(asked)

    async def beside(self, group: Group) -> Group | None:
        """All that has one of the names of ``group``, and others between them; or why nobody can know."""
        if self._looker is None:
            return None
        if self._directory != group.directory:
            await self._begin(self._looker, group.directory)
        last = group.names[-1] if group.more and group.names else None
        found: list[Group] = []
        while True:
            if (held := self._held) is not None:
                if last is not None and held.names and held.names[-1] > last:
                    count = bisect_right(held.names, last)
                    found.append(held.cut(0, count))
                    self._held = held.cut(count, len(held))
                    break
                found.append(held)
                self._held = None
            if not self._more:
                break
            self._take(await self._looker.next_group())
        if self._error is not None:
            return Group(group.directory, error=self._error)
        there = _joined(found)
        if self._looked and (below := group.subdirectories()):
            absent = set(below).difference(() if there is None else there.names)
            if absent:
                self._absent.setdefault(group.directory, set()).update(absent)
        return there

    def _forget(self, directory: Parts) -> bool:
        """Forget whether the directory above it lacks it, which is returned: the scan has come to it."""
        above = directory[:-1]
        names = self._absent.get(above)
        if names is None or not directory or directory[-1] not in names:
            return False
        names.remove(directory[-1])
        if not names:
            del self._absent[above]
        return True

    async def _begin(self, looker: Looker, directory: Parts) -> None:
        self._directory = directory
        self._error = None
        self._forget(directory)  # it may have been asked for before that was known
        if directory in self._unasked:
            self._unasked.remove(directory)
            self._looked = False
            self._held, self._more = None, False
            return
        while (group := await looker.next_group()).directory != directory:
            pass  # what was asked for and turned out not to matter
        self._take(group)

    def _take(self, group: Group) -> None:
        self._held = group if group.error is None and group.names else None
        self._more = group.more and group.error is None
        self._looked = group.error is None
        if group.error is not None:
            if group.error.code in NOTHING_THERE:
                self._missing.append(group.directory)
            else:
                self._error = group.error


def _joined(groups: list[Group]) -> Group | None:
    if len(groups) < 2:
        return groups[0] if groups else None
    whole = Group(groups[0].directory)
    for group in groups:
        whole.sizes += group.sizes
        whole.mtimes += group.mtimes
        whole.modes += group.modes
        whole.owners += group.owners
        whole.xattrs.update({len(whole.names) + index: found for index, found in group.xattrs.items()})
        whole.shared.update({len(whole.names) + index: key for index, key in group.shared.items()})
        whole.names += group.names
        whole.targets += group.targets
    return whole
