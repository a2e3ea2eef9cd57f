"""One transfer: where each source goes, single files by sessions, and trees some at a time.

Theory: the two sides of a transfer, the local tree and the remote one, answer the same questions, so upload and
download are one procedure over a source *site* and a destination *site*.

A file that fails fails alone: it becomes a :class:`~fsmux.events.FileFailed` and the rest goes on.  What ends the
first connection ends this attempt at the transfer, and so does a server that is going away; a file that loses another
connection is begun again on those that are left.  What a further attempt must know is in the
:class:`~fsmux.moving.report.Report`.

What only trees need, or only some options, is imported when it is met: one file waits for none of it.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from fsmux.errors import FsmuxError, Unsupported, UsageError
from fsmux.lanes import open_lanes
from fsmux.moving.account import UNKNOWN_XATTRS
from fsmux.moving.attempt import Attempt, Item
from fsmux.moving.carriers import Download
from fsmux.moving.files import Files
from fsmux.moving.placing import Placing
from fsmux.plan.judging import Facts, Verdict, differs, in_the_way, judge
from fsmux.plan.plan import Entered, Large
from fsmux.records import EVERYTHING, Kind, Parts
from fsmux.sites import RemoteSite
from fsmux.urls import Local, Remote
from fsmux.wire.frames import KEPT_FEATURE, LINKS_FEATURE, PACKS_FEATURE, UNASKED_FEATURE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fsmux.client import Client
    from fsmux.columns import Group
    from fsmux.job import Options
    from fsmux.moving.finishing import Left
    from fsmux.moving.meeting import Meeting
    from fsmux.moving.removing import Removing
    from fsmux.moving.report import Report
    from fsmux.plan.filters import Filters
    from fsmux.transfer.packs import Arrived
    from fsmux.transfer.session import Run


NEAR_AT_ONCE: Final = 2
"""Trees on their way at once where a round trip is nothing to wait for. 500 of 20 small files take 2.3 s up instead of
3.5 one after the other, and no less with four; what is in memory grows with each: six trees with 640 MB together took
142 MiB with four at once, and take 83 with two."""


class Transfer:
    """One attempt at a transfer, over ``client``; :meth:`run` it once."""

    def __init__(self, client: Client, options: Options, report: Report, run: Run) -> None:
        self._attempt = Attempt(client, options, report, run)
        self._files = Files(self._attempt)
        self._sessions = trio.CapacityLimiter(options.streams)  # of all trees together
        self._removing: Removing | None = None
        self._complete = False  # no source is missing

    async def run(self, sources: Sequence[Local | Remote], destination: Local | Remote) -> None:
        """Move ``sources`` to ``destination``, exactly one side of which is remote."""
        attempt, options = self._attempt, self._attempt.options
        placing = Placing(attempt)
        if options.selection is not None:
            if len(sources) > 1:
                raise UsageError("--files-from names what is in one source; name one directory")
            if options.delete:
                raise UsageError("--files-from does not go with --delete: what it does not name is not extra")
            sources = [replace(sources[0], trailing_slash=True)]
        if options.kept.xattrs:
            placing.check_xattrs(isinstance(destination, Remote))
        if attempt.options.kept != EVERYTHING and not attempt.has(KEPT_FEATURE):
            raise Unsupported("the server keeps times and permissions always; both sides need this release of fsmux")
        if options.kept.owner:
            placing.check_owners(isinstance(destination, Remote))
        count = 1 if options.dry_run else options.connections
        with ExitStack() as open_roots:
            async with open_lanes(attempt.client, count, attempt.report, attempt.run) as attempt.lanes:
                looked = await placing.ask_early(sources, destination, open_roots)
                items = await placing.items(sources, destination, open_roots, looked)
                self._complete = len(items) == len(sources)
                if not options.dry_run:
                    await attempt.lanes.dialled()
                with attempt.lanes.limited(None if options.dry_run else options.bwlimit):
                    await self._move([item for item in items if self._takes_part(item)])

    async def _move(self, items: Sequence[Item]) -> None:
        """Single files first, ``streams`` at a time, then trees."""
        if self._attempt.options.delete:
            from fsmux.moving.removing import Removing

            self._removing = self._files.removing = Removing(self._attempt, items, complete=self._complete)
        for item in items if self._attempt.options.kept.xattrs else ():
            if item.top.xattrs is None:
                self._attempt.report.warn_once(UNKNOWN_XATTRS, item.account.name)
        trees = [item for item in items if item.top.kind is Kind.DIRECTORY]
        singles = [item for item in items if item.top.kind is not Kind.DIRECTORY]
        meeting = await self._meeting(items) if trees and len(items) > 1 else None
        waiting = await self._files.plan(singles)
        if not trees:
            self._attempt.report.planned()
        await self._files.move(waiting)
        if meeting is not None:
            for item, _ in waiting:
                if meeting.has(item):
                    meeting.leave(item, (), touched=True)
        await self._move_trees(trees, meeting)
        if meeting is not None:
            for item, groups in meeting.finished(trees, self._attempt.options.kept):
                await self._attempt.carry(item, groups)
        if self._removing is not None:
            await self._removing.remove(trees)

    async def _move_trees(self, trees: Sequence[Item], meeting: Meeting | None) -> None:
        """Some at once, as each takes some round trips; but one after the other where it matters to others what one
        does or says, or if no two files are to be on their way at once.
        """
        options, to_plan = self._attempt.options, {item.number for item in trees}

        async def move(item: Item) -> None:
            met = meeting if meeting is not None and meeting.has(item) else None
            await self._move_tree(item, met, partial(planned, item))
            planned(item)

        def planned(item: Item) -> None:
            to_plan.discard(item.number)
            if not to_plan:
                self._attempt.report.planned()

        in_order, apart = list(trees), []
        if not (options.dry_run or options.streams == 1 or self._removing is not None or options.manifest is not None):
            in_order = [] if meeting is None else [item for item in trees if meeting.has(item)]
            apart = [item for item in trees if meeting is None or not meeting.has(item)]
        far = self._attempt.client.connection.transport.far
        await self._attempt.each(apart, move, options.streams if far else NEAR_AT_ONCE)
        for item in in_order:
            await move(item)

    async def _meeting(self, items: Sequence[Item]) -> Meeting:
        """Which sources meet at the destination; what is no directory has taken its place already."""
        from fsmux.moving.meeting import Meeting

        meeting = Meeting(items)
        for item in [item for item in items if meeting.has(item)]:
            if item.top.kind is Kind.DIRECTORY:
                seen = await item.standing()
                if judge(Facts.of(item.top), seen) is not Verdict.FILE_IN_THE_WAY:
                    meeting.seen[item.number] = seen
            elif item.top.kind is not Kind.SPECIAL:
                meeting.claim(item)
        return meeting

    def _takes_part(self, item: Item) -> bool:
        """Whether the filters let in the source itself, which they do if only what is in it goes."""
        is_directory = item.top.kind is Kind.DIRECTORY
        if not item.named or self._attempt.options.filters.keeps(item.named, is_directory):
            return True
        if item.account.take_itself(None):
            size = 0 if is_directory else item.top.size
            self._attempt.report.skip(item.account.name, size, "left out by a filter")
        return False

    async def _move_tree(self, item: Item, meeting: Meeting | None, planned: Callable[[], None]) -> None:
        from fsmux.moving.tree import Tree, move_tree

        options = self._attempt.options
        if not self._attempt.has(PACKS_FEATURE):
            raise Unsupported("the server cannot move trees in packs; both sides need this release of fsmux")
        top, first = Facts.of(item.top), True
        if meeting is not None:
            try:
                first = meeting.claim(item)
            except FsmuxError as exc:
                item.account.fail_itself(exc)
                return
        if meeting is not None and item.number in meeting.seen:
            seen = meeting.seen[item.number]
        else:
            seen = await item.standing()
        if self._removing is not None:
            seen = await self._removing.make_way(item, seen)
        verdict = judge(top, seen)
        if verdict is Verdict.FILE_IN_THE_WAY:
            item.account.fail_itself(in_the_way(verdict, ()))
            return
        made = verdict is Verdict.MAKE
        left: list[Left] = []
        filters = item.filters(options)
        extras = None if self._removing is None else self._removing.beside(item, filters)

        async def transfer(parts: Parts, large: Large) -> bool:
            if options.dry_run:
                self._attempt.report.would_send(item.account.name_of(parts), large.size)
                return True
            async with self._sessions:
                return await self._attempt.guarded(item, parts, partial(self._files.send, item, parts, large))

        async with (
            self._attempt.client.trees,
            item.target.looking(item.target_prefix, nothing=made) as looker,
            self._attempt.comparing(item, made) as comparing,
        ):
            unasked = made and meeting is None and self._may_come_unasked(item, filters)
            carrier = self._attempt.carrier(item, unasked=unasked)
            tree = Tree(
                scan=self._scan(item, filters, unasked=unasked),
                looker=looker,
                carrier=carrier,
                came=carrier.came if isinstance(carrier, Download) else None,
                transfer=transfer,
                workers=options.streams,
                top=Entered(top.mtime, top.mode, made, differs(top, seen, options.kept), top.owner, top.xattrs),
                make_top=made and first,
                filters=filters,
                comparing=comparing,
                by_bytes=options.checksum,
                update=options.update,
                account=item.account,
                medium=self._attempt.medium,
                claimed=None if meeting is None else meeting.below(item),
                later=None if meeting is None else left,
                planned=planned,
                extras=extras,
                clear=None if self._removing is None else partial(self._removing.clear, item),
                kept=options.kept,
                links=self._attempt.has(LINKS_FEATURE),
                notes=self._attempt.notes(item),
            )
            with self._attempt.lanes.carrying(self._attempt.lanes.alive[:1]):
                await move_tree(tree)
        if meeting is not None:
            meeting.leave(item, left, touched=made)
        if extras is not None:
            extras.end()

    def _may_come_unasked(self, item: Item, filters: Filters) -> bool:
        """Whether a tree, of which nothing stands at the destination, is to come as it is."""
        options = self._attempt.options
        if filters or options.selection is not None or options.dry_run or not item.account.untouched:
            return False
        return isinstance(item.source, RemoteSite) and self._attempt.has(UNASKED_FEATURE)

    def _scan(
        self, item: Item, filters: Filters, *, unasked: bool
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Group] | Arrived]]:
        if unasked:
            assert isinstance(item.source, RemoteSite)
            return item.source.giving(item.source_prefix, self._attempt.pace.pack_bytes, self._attempt.medium)
        if (selection := self._attempt.options.selection) is None:
            return item.source.scan(item.source_prefix)
        from fsmux.moving.selecting import selected

        return selected(item.source, item.source_prefix, selection, filters, item.account)
