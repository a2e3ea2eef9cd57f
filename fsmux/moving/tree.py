"""A tree on its way: scanned, compared, planned and moved side by side, a directory at a time.

Theory: five things go on at once, each waiting for the next one where that is slower, so that nothing ever holds the
tree.  The *scan* reads the source, directories before what is in them, and has the destination look into the same
directories.  The *look* puts what is there beside it, and has bytes compared where times do not tell.  The *plan*
compares the two, page by page.  The *carrier* takes directories, links and small files to the other side in packs.
*Workers* take large files there, each by a session of its own; they have a queue of their own, so that a large file
starts as soon as it is met, and small ones do not wait behind it.

Where nothing stands at the destination, and nothing is left out, there is nothing to compare: then a server sends its
tree in packs by itself.  The scan hands them on, and the plan only says what of them needs more than being written.

A directory is finished when the scan has left it and its large files are done.  What belongs to it in packs is ahead of
that on the same stream.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio
from msgspec import Struct, field

from fsmux.columns import Act, Group, itself
from fsmux.limits import MEDIUM_FILE, SMALL_FILE
from fsmux.moving.account import UNKNOWN_XATTRS
from fsmux.moving.existing import Existing
from fsmux.moving.finishing import Left
from fsmux.moving.sharing import Sharing
from fsmux.mux.service import all_of
from fsmux.plan.plan import Entered, Large, conflicts, plan
from fsmux.plan.walk import kept
from fsmux.records import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from fsmux.moving.account import Account
    from fsmux.moving.carriers import Carrier
    from fsmux.moving.comparing import Comparer
    from fsmux.moving.extras import TreeExtras
    from fsmux.moving.ledger import TreeNotes
    from fsmux.plan.filters import Filters
    from fsmux.plan.plan import Claimed
    from fsmux.records import Kept, Parts
    from fsmux.transfer.packs import Arrived

LOOKED = 2
"""Batches that wait to be planned."""

COMPARED = 4
"""The same if digests of files may be made of them meanwhile: at 100 ms, 40,000 files a second."""

BATCHES = 16
"""Batches of about a thousand entries that wait for what stands at the destination: at 100 ms, 160,000 entries/s."""

LARGE_BACKLOG = 4096
"""Large files that wait for a worker. Beyond it the scan waits, too; a name and a few numbers each."""


class _Looked(NamedTuple):
    """A group of the source, what stands beside it, and which of its files may be equal to that."""

    group: Group
    existing: Group | None
    alike: Group | None


class Looker(Protocol):
    """What stands in directories of the destination."""

    async def ask(self, directories: list[Parts]) -> None:
        """Have these looked into, in this order."""

    async def next_group(self) -> Group:
        """The next group of those that were asked for: at least one for each; an error where there is no directory."""


class Tree(Struct):
    """What a tree needs to know of where it comes from and goes to."""

    scan: AbstractAsyncContextManager[AsyncIterator[list[Group] | Arrived]]
    """What comes with its contents, nobody has asked for: that is so if nothing stands there and nothing is left out.
    """
    looker: Looker | None
    """None: nothing stands at the destination."""
    carrier: Carrier
    transfer: Callable[[Parts, Large], Awaitable[bool]]
    """Move one large file; what it fails with is its own affair.  Whether it stands."""
    workers: int
    top: Entered
    make_top: bool
    filters: Filters
    comparing: Callable[[], Awaitable[Comparer]] | None
    """How to have the bytes of files compared, if anything stands there."""
    by_bytes: bool
    """Whether files are found up to date by that alone."""
    update: bool
    """Whether files that are newer at the destination are left alone."""
    account: Account
    medium: int
    """Bytes of a file up to which it goes in a pack if nothing stands in its place."""
    planned: Callable[[], None]
    """Told when all of it is known that is to be sent; perhaps more than once."""
    came: Callable[[Arrived], Awaitable[None]] | None = None
    """Who takes what has come with its contents, when all of it was put that is to be made."""
    claimed: Claimed | None = None
    """What other sources have put there."""
    later: list[Left] | None = None
    """Where finishing is put off to if other sources go to the same place."""
    kept: Kept = EVERYTHING
    links: bool = True
    """Whether further names of one file are to be that at the destination, too."""
    extras: TreeExtras | None = None
    """Who is told what stands at the destination, if what is there alone is to be removed."""
    clear: Callable[[Parts, bool], Awaitable[bool]] | None = None
    """Remove what stands in the way of a name (a directory or not), and return whether that is gone; if that is wanted.
    """
    notes: TreeNotes | None = None
    """Who is told what is up to date, if a manifest is made."""


class _Open(Struct, eq=False):
    """A directory that is not finished yet."""

    parts: Parts
    facts: Entered
    above: _Open | None
    expected: dict[bytes, Entered] = field(default_factory=dict)
    """Subdirectories that are still to come."""
    touched: bool = False
    left: bool = False
    pending: int = 0
    """Large files and links beneath that are not done, and directories that are not finished."""


async def move_tree(tree: Tree) -> None:
    """Move it. Single files that fail are reported; raises what ends the whole."""
    await _Moving(tree).run()


class _Moving:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._account = tree.account
        self._scanned_in, self._scanned = trio.open_memory_channel[list[Group]](BATCHES)
        self._large_in, self._large = trio.open_memory_channel[tuple[_Open, Large]](LARGE_BACKLOG)
        self._looked_in: trio.MemorySendChannel[list[_Looked] | Arrived]
        self._looked: trio.MemoryReceiveChannel[list[_Looked] | Arrived]
        self._looked_in, self._looked = trio.open_memory_channel(LOOKED if tree.comparing is None else COMPARED)
        self._comparer: Comparer | None = None
        self._here: _Open | None = None
        top = tree.top
        self._top = _Open((), top, None)
        self._existing = Existing(tree.looker)
        self._sharing = Sharing(tree.carrier, tree.transfer, tree.medium)
        tree.carrier.watch = self._sharing.told

    async def run(self) -> None:
        try:
            await all_of(self._scan, self._look, self._plan_and_work, self._tree.carrier.run)
        finally:
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    if not isinstance(left := self._looked.receive_nowait(), list):
                        left.give_back()

    # ---- the scan ------------------------------------------------------------------------------------------------

    async def _scan(self) -> None:
        """Read the source, and have the destination look into the same directories."""
        keeps = self._tree.filters.keeps
        filtering = bool(self._tree.filters)
        dropped: Parts | None = None
        last: Parts | None = None
        with self._scanned_in:
            async with self._tree.scan as batches:
                async for batch in batches:
                    if not isinstance(batch, list):
                        await self._pass_on(batch)
                        continue
                    chosen: list[Group] = []
                    asked: list[Parts] = []
                    for group in batch:
                        parts = group.directory
                        if dropped is not None and parts[: len(dropped)] == dropped:
                            continue
                        if filtering:
                            if parts and not keeps(parts, True):
                                dropped = parts
                                continue
                            group = kept(group, keeps)
                            if group.more and not group.names:
                                continue  # the next one is compared with what stands beside this one, too
                        if parts != last:
                            asked.append(parts)
                            last = parts
                        chosen.append(group)
                    await self._existing.ask(asked)
                    await self._scanned_in.send(chosen)

    async def _pass_on(self, arrived: Arrived) -> None:
        try:
            await self._looked_in.send(arrived)
        except BaseException:
            arrived.give_back()
            raise

    # ---- the other side --------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Put beside what was scanned what stands at the destination, and have bytes compared if that is wanted."""
        with self._looked_in:
            async for batch in self._scanned:
                looked: list[_Looked] = []
                for group in batch:
                    existing = await self._existing.beside(group)
                    looked.append(_Looked(group, existing, await self._alike(group, existing)))
                if self._comparer is not None:
                    await self._comparer.ask([alike for _, _, alike in looked if alike is not None])
                await self._looked_in.send(looked)

    async def _alike(self, group: Group, existing: Group | None) -> Group | None:
        """The files that may be equal, although times say that they are not, or whatever these say."""
        tree = self._tree
        if tree.comparing is None or existing is None or (existing.mtimes == group.mtimes and not tree.by_bytes):
            return None
        self._comparer = self._comparer or await tree.comparing()
        return self._comparer.alike(group, existing)

    # ---- the plan ------------------------------------------------------------------------------------------------

    async def _plan_and_work(self) -> None:
        async def with_workers() -> None:
            await all_of(*[self._work] * self._tree.workers)

        async def until_all_are_linked() -> None:
            await all_of(self._plan, with_workers)
            await self._sharing.finish()

        await all_of(until_all_are_linked, self._sharing.run)
        await self._tree.carrier.end()

    async def _plan(self) -> None:
        tree = self._tree
        with self._large_in:
            top, self._here = tree.top, self._top
            if tree.make_top:
                await tree.carrier.put(itself((), top.mtime, top.mode, Act.MAKE, top.owner, top.xattrs))
            async for batch in self._looked:
                if not isinstance(batch, list):
                    await self._plan_arrived(batch)
                    continue
                asked = [alike for _, _, alike in batch if alike is not None]
                compared = [] if self._comparer is None else await self._comparer.equal(asked)
                compared.reverse()
                for group, existing, alike in batch:
                    equal = {} if alike is None else compared.pop()
                    await self._plan_group(group, existing, equal, medium=tree.medium)
                self._account.report.scanning()
                if not any(one.statistics().current_buffer_used for one in (self._scanned, self._looked)):
                    await tree.carrier.hurry()
            while self._here is not None:
                await self._leave()
        self._tree.planned()

    async def _plan_arrived(self, arrived: Arrived) -> None:
        """Plan what has come with its contents; what is only told of is asked for as always."""
        report, pack = self._account.report, arrived.pack
        report.foresee(self._account, pack.files, pack.bytes)
        report.scanning()
        if pack.all_known:
            self._tree.planned()
        try:
            for group in pack.groups:
                came = group.act is Act.MAKE  # with its contents, however much these have grown
                await self._plan_group(group, None, {}, medium=MEDIUM_FILE if came else self._tree.medium)
            assert self._tree.came is not None
            await self._tree.came(arrived)
        except BaseException:
            arrived.give_back()  # what of it was not handed on
            raise

    async def _plan_group(self, group: Group, existing: Group | None, equal: dict[bytes, bool], *, medium: int) -> None:
        here = await self._enter(group.directory)
        if here is None:
            return  # what is in a directory that failed is not spoken of
        if group.error is not None:
            self._account.fail(group.directory, group.error)
            return
        for index, xattrs in group.xattrs.items():
            if xattrs is None:
                name = self._account.name_of((*group.directory, group.names[index]))
                self._account.report.warn_once(UNKNOWN_XATTRS, name)
        if here.facts.made:
            existing = None  # by ourselves, at most
        if existing is not None and existing.error is not None:
            if self._tree.extras is not None:  # or names that should go would stay, and nobody be told
                self._account.fail(group.directory, existing.error)
            existing = None
        if self._tree.extras is not None:
            self._tree.extras.beside(group, existing, here.facts)
        if self._tree.clear is not None and existing is not None:
            existing = await self._cleared(self._tree.clear, group, existing)
        for part in self._account.parted(group):
            part.act = Act.MAKE
            await self._do(here, part, existing, equal, medium)
        if not (group.more or here.expected):
            await self._leave()  # nothing more comes of it, and what finishes it goes with its files

    async def _cleared(self, clear: Callable[[Parts, bool], Awaitable[bool]], group: Group, existing: Group) -> Group:
        """What stands at the destination, after directories in the way of files, and the reverse, were removed."""
        gone: set[int] = set()
        for index, is_directory in conflicts(group, existing):
            parts = (*group.directory, existing.names[index])
            if parts in (self._tree.claimed or ()):
                continue  # another source has put it there
            if await clear(parts, is_directory):
                gone.add(index)
        return existing.pick([index for index in range(len(existing)) if index not in gone]) if gone else existing

    async def _do(
        self, here: _Open, group: Group, existing: Group | None, equal: dict[bytes, bool], medium: int
    ) -> None:
        """Plan a group, tell of it, and hand it to those who move it."""
        tree, owed = self._tree, self._account.owed(group.directory)
        shared = self._sharing.shared if tree.links else None
        found = plan(
            group, existing, small=SMALL_FILE, medium=medium, update=tree.update, equal=equal,
            by_bytes=tree.by_bytes, claimed=tree.claimed, again=owed, shared=shared,
            standing=self._sharing.standing, kept=tree.kept,
        )  # fmt: skip
        self._account.take(group, found)
        if tree.notes is not None:
            await tree.notes.planned(group, found)
        here.expected.update(found.enter)
        self._sharing.expect(group.directory, found)
        if found.further or found.make is not None or found.large:
            here.touched = self._top.touched = True  # what is unfinished may live in the top meanwhile
        for further in found.further:
            here.pending += 1
            self._sharing.follow(group.directory, further, partial(self._released, here))
        if found.make is not None:
            await tree.carrier.put(found.make)
        if found.adjust is not None:
            await tree.carrier.put(found.adjust)
        for large in found.large:
            here.pending += 1
            await self._large_in.send((here, large))

    async def _enter(self, parts: Parts) -> _Open | None:
        """The directory that the scan has come to; None if it is not to be entered, or was never spoken of."""
        while self._here is not None and self._here.parts != parts[: len(self._here.parts)]:
            await self._leave()
        here = self._here
        if here is None or here.parts == parts:
            return here
        if here.parts != parts[:-1] or (facts := here.expected.pop(parts[-1], None)) is None:
            return None
        self._here = _Open(parts, facts, here)
        return self._here

    async def _leave(self) -> None:
        """The scan is through with the directory that it was in."""
        left = self._here
        assert left is not None
        self._here = left.above
        left.left = True
        if left.above is not None:
            left.above.pending += 1
        await self._settle(left)

    async def _settle(self, directory: _Open | None) -> None:
        """Finish a directory that nothing is missing of, and those above it that waited for it alone."""
        while directory is not None and directory.left and not directory.pending:
            facts = directory.facts
            if self._tree.later is not None:
                self._tree.later.append(Left(directory.parts, facts, directory.touched))
            elif facts.differs or (directory.touched and self._tree.kept.times):
                finishing = itself(directory.parts, facts.mtime, facts.mode, Act.ADJUST, facts.owner, facts.xattrs)
                await self._tree.carrier.put(finishing, told=facts.differs and not facts.made)
            directory = directory.above
            if directory is not None:
                directory.pending -= 1

    async def _work(self) -> None:
        async for directory, large in self._large:
            parts = (*directory.parts, large.name)
            self._sharing.ended(parts, await self._tree.transfer(parts, large))
            await self._released(directory)

    async def _released(self, directory: _Open) -> None:
        """One thing less is to be done in it."""
        directory.pending -= 1
        await self._settle(directory)
