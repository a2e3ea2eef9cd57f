"""Removing at the destination what no source has, and what stands in the way of what one has.

Theory: nothing is removed before everything else has been done, but what must make room; and nothing at all if anything
failed, because a source that could not be read looks just like an empty one.  What the filters leave out is protected.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fsmux import events
from fsmux.columns import Act, itself
from fsmux.errors import NotFound, Unsupported, UsageError
from fsmux.events import Warned
from fsmux.moving.extras import Extras, TreeExtras, removal, unprotected
from fsmux.plan.judging import Facts, Verdict, judge
from fsmux.records import Kind, Parts
from fsmux.wire.frames import SYNC_FEATURE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fsmux.columns import Group
    from fsmux.moving.attempt import Attempt, Item
    from fsmux.moving.extras import Emptied
    from fsmux.plan.filters import Filters


class Removing:
    """What an attempt with ``--delete`` removes.  ``items`` are its sources; with ``complete`` none is missing."""

    def __init__(self, attempt: Attempt, items: Sequence[Item], *, complete: bool) -> None:
        if complete and all(item.top.kind is not Kind.DIRECTORY for item in items):
            raise UsageError("--delete needs a directory among the sources: only what is in directories is removed")
        if not attempt.has(SYNC_FEATURE):
            raise Unsupported("the server cannot remove what a source has not; both sides need this release of fsmux")
        self._attempt = attempt
        self._complete = complete
        self._extras = Extras([item.target_prefix for item in items])

    def beside(self, item: Item, filters: Filters) -> TreeExtras:
        """Who is told what stands beside the names of a tree."""
        return TreeExtras(self._extras, item.number, item.target_prefix, filters)

    async def remove(self, trees: Sequence[Item]) -> None:
        """Remove what stands at the destination and in no source, unless anything failed."""
        report = self._attempt.report
        if report.failed:
            nothing = "nothing else" if report.deleted else "nothing"
            report(Warned("", f"{nothing} was removed at the destination, because {report.failed} of the above failed"))
            return
        for item in trees:
            groups = [one async for one in self._removals(item, self._extras.of(item.number))]
            item.account.removing([group for group, told in groups if told])
            if groups:
                await self._attempt.carry(item, groups)

    async def _removals(self, item: Item, found: Sequence[Emptied]) -> AsyncIterator[tuple[Group, bool]]:
        """The groups that remove names, each followed by what that changes of its directory."""
        filters = item.filters(self._attempt.options)
        inside: dict[Parts, Group | None] = {}
        if filters:
            tops = [(*one.directory, name) for one in found for name, is_dir in one.names.items() if is_dir]
            inside = await self._unprotected(item, tops, filters)
        for some in inside.values():
            if some:
                yield some, True
        for one in found:
            whole = [each for each in one.names.items() if inside.get((*one.directory, each[0])) is None]
            if whole:
                yield removal(one.directory, whole), True
            yield (
                itself(one.directory, one.facts.mtime, one.facts.mode, Act.ADJUST, one.facts.owner, one.facts.xattrs),
                False,
            )

    async def _unprotected(self, item: Item, tops: list[Parts], filters: Filters) -> dict[Parts, Group | None]:
        if not tops:
            return {}
        async with item.target.looking(item.target_prefix, nothing=False) as looker:
            return {} if looker is None else await unprotected(looker, tops, filters)

    async def make_way(self, item: Item, existing: Facts | None) -> Facts | None:
        """What stands where a source goes, when what was in its way is gone.

        Not if that is the destination itself, which was named: a link that leads to a directory, and is to stay one.
        """
        if not item.listed:
            return existing
        verdict = judge(Facts.of(item.top), existing)
        is_directory = verdict is Verdict.DIRECTORY_IN_THE_WAY
        if (is_directory or verdict is Verdict.FILE_IN_THE_WAY) and await self.clear(item, (), is_directory):
            return None
        return existing

    async def clear(self, item: Item, parts: Parts, is_directory: bool) -> bool:
        """Remove what stands in the way of a name; whether that is gone now, or would be."""
        place, filters = item.target_prefix + parts, item.filters(self._attempt.options)
        if not self._complete or (parts and self._extras.taken(place)):
            return False  # it is another source's, or may be
        if is_directory and filters and (await self._unprotected(item, [parts], filters)).get(parts) is not None:
            return False
        if self._attempt.options.dry_run:
            self._attempt.report.would(events.REMOVE, item.account.name_of(parts))
            return True
        gone = False

        async def remove() -> None:
            nonlocal gone
            with suppress(NotFound):
                await item.target.remove(place, recursive=is_directory)
            gone = True
            item.account.changed_itself(events.REMOVE, parts)
            if self._attempt.ledger is not None:
                self._attempt.ledger.forget(item.listed + parts, is_directory)

        await self._attempt.guarded(item, parts, remove)
        return gone
