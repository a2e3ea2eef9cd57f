"""What the parts of one attempt at a transfer share: its connection, its options, and how things are done and told.

Theory: a source in its place is an *item*.  Whatever is done about one of its files fails alone, unless the connection
is lost with it; small things are carried in packs, and compared byte by byte if that is wanted, in either direction.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct

from fsmux.errors import FsmuxError, NetworkError, NotFound, Unsupported
from fsmux.limits import SMALL_FILE
from fsmux.moving.carriers import Carrier, Download, Route, Upload, carry_all
from fsmux.moving.pacing import Pace
from fsmux.mux.service import all_of
from fsmux.plan.judging import Facts
from fsmux.sites import LocalSite, Site
from fsmux.wire.frames import SYNC_FEATURE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fsmux.client import Client
    from fsmux.columns import Group
    from fsmux.job import Options
    from fsmux.lanes import Lanes
    from fsmux.moving.account import Account
    from fsmux.moving.comparing import Comparer
    from fsmux.moving.ledger import TreeNotes
    from fsmux.moving.report import Report
    from fsmux.moving.singles import Batch
    from fsmux.mux.stream import Stream
    from fsmux.plan.filters import Filters
    from fsmux.records import Attrs, Parts
    from fsmux.transfer.session import Run


T = TypeVar("T")
U = TypeVar("U")


SEVERAL: Final = 16
"""Sources by themselves from which on they are looked at together (:mod:`.asking`)."""


def raise_if_lost(client: Client, error: FsmuxError) -> None:
    """Raise what the connection was lost with, which is said once, and not of each file that was still to come."""
    if isinstance(error, NetworkError):
        raise error
    if client.connection.failure is not None:
        raise client.connection.failure from error


class Item(Struct):
    """A source in its place: where it is read and where it goes."""

    source: Site
    source_prefix: Parts
    target: Site
    target_prefix: Parts
    top: Attrs
    label: str
    account: Account
    named: Parts
    """What it is called in the transfer: nothing, if only what is in it goes."""
    number: int
    listed: Parts
    """What a manifest calls the target: its path below the destination, or the name of the destination itself."""
    fresh: bool
    """Whether nothing stood at the destination, and what else is to come there is known (:mod:`.meeting`)."""

    @property
    def local(self) -> tuple[LocalSite, Parts]:
        """The side that is on this machine."""
        if isinstance(self.target, LocalSite):
            return self.target, self.target_prefix
        assert isinstance(self.source, LocalSite)
        return self.source, self.source_prefix

    def below_destination(self, listed: Parts) -> Parts:
        """Where the target has what a manifest calls so."""
        return self.target_prefix[: len(self.target_prefix) - len(self.listed)] + listed

    async def standing(self, known: Attrs | FsmuxError | None = None) -> Facts | None:
        """What stands where it goes, if anything does; ``known``, if it was found out."""
        if self.fresh:
            return None
        try:
            if isinstance(known, FsmuxError):
                raise known
            return Facts.of(known or await self.target.stat(self.target_prefix, follow=not self.target_prefix))
        except NotFound:
            return None

    def filters(self, options: Options) -> Filters:
        """The rules for names below it: a source that goes by its name is one directory further down."""
        return options.filters.below(self.named)


class Attempt:
    """One attempt at a transfer, over ``client``."""

    lanes: Lanes
    """The connections, while they are open."""

    def __init__(self, client: Client, options: Options, report: Report, run: Run) -> None:
        self.client = client
        self.options = options
        self.report = report
        self.run = run
        self.asked: Stream | None = None
        """On which the first source comes already, if that was asked for early."""
        self.ledger = None if options.dry_run else options.manifest
        if report.pace is None:
            report.pace = Pace(options.bwlimit, far=client.connection.transport.far)
        self.pace = report.pace

    @property
    def medium(self) -> int:
        """Bytes of a file up to which it goes in a pack if nothing stands in its place.

        That is less where a session can do more: with further connections, over which files are spread; with a
        manifest, which may know of a twin; with chunks so short that it would keep some of the file when it ends; and
        on a slow link.
        """
        options = self.options
        if options.connections > 1 or options.manifest is not None:
            return SMALL_FILE
        return max(min(self.pace.medium, options.chunk_size), SMALL_FILE)

    def has(self, feature: str) -> bool:
        """Whether the server speaks it."""
        return feature in self.client.connection.peer_hello.features

    async def each(self, things: Sequence[T], ask: Callable[[T], Awaitable[U]], at_once: int | None = None) -> list[U]:
        """What each of many questions is answered with, of which ``at_once`` are asked together, or ``streams``."""
        answers: dict[int, U] = {}
        waiting = iter(enumerate(things))

        async def work() -> None:
            for index, thing in waiting:
                answers[index] = await ask(thing)

        await all_of(*[work] * min(at_once or self.options.streams, len(things)))
        return [answers[index] for index in range(len(things))]

    async def guarded(self, item: Item, parts: Parts, act: Callable[[], Awaitable[None]]) -> bool:
        """Do something about one file, which fails alone unless the connection is lost. Whether it was done."""
        try:
            await act()
            return True
        except FsmuxError as exc:
            raise_if_lost(self.client, exc)
            item.account.fail(parts, exc)
            return False

    async def carry(self, item: Item, groups: Sequence[tuple[Group, bool]]) -> None:
        """Have groups done in their order, and told if they are to be."""
        await carry_all(self.carrier(item), groups)

    def carrier(self, item: Item, batch: Batch | None = None, *, unasked: bool = False) -> Carrier:
        """What carries the small things of a tree, which may come ``unasked``; or a batch of which ``item`` is one."""
        if self.options.dry_run:
            from fsmux.moving.rehearsal import Rehearsal

            return Rehearsal(item.account)
        down = isinstance(item.target, LocalSite)
        there = item.source_prefix if down else item.target_prefix
        site, here = item.local
        client, options = self.client, self.options
        notes = self.notes(item, above=batch is not None)
        if batch is not None:
            here, there = here[:-1], there[:-1]
        route = Route(
            client.connection, client.disk, site.root, here, there, options.durability, options.verify, self.run,
            self.pace, notes, options.kept,
        )  # fmt: skip
        account = batch or item.account
        return Download(route, account, unasked=unasked) if down else Upload(route, account)

    @asynccontextmanager
    async def comparing(
        self, item: Item, made: bool, *, above: bool = False
    ) -> AsyncIterator[Callable[[], Awaitable[Comparer]] | None]:
        """How to have bytes compared, if there are any: of the item, or of what is beside it (``above``)."""
        options = self.options
        if options.checksum and not made and not self.has(SYNC_FEATURE):
            raise Unsupported("the server makes no digests of files; both sides need this release of fsmux")
        if made or not self.has(SYNC_FEATURE):
            yield None
            return
        source, target = item.source_prefix, item.target_prefix
        if above:
            source, target = source[:-1], target[:-1]
        async with AsyncExitStack() as stack:

            async def opened() -> Comparer:
                from fsmux.moving.comparing import Comparer

                here = await stack.enter_async_context(item.source.digesting(source))
                there = await stack.enter_async_context(item.target.digesting(target))
                most = None if options.checksum else self.medium
                return Comparer(here, there, most=most, update=options.update)

            yield opened

    def notes(self, item: Item, *, above: bool = False) -> TreeNotes | None:
        """Who notes files for the manifest, if one is made: of the item, or of what is beside it (``above``)."""
        if self.ledger is None:
            return None
        (site, here), listed = item.local, item.listed
        if above:
            here, listed = here[:-1], listed[:-1]
        return self.ledger.notes(self.client.disk, site.root, here, listed, self.report)
