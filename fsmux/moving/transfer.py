"""One transfer: where each source goes, single files by sessions, and trees one after the other.

Theory: the two sides of a transfer, the local tree and the remote one, answer the same questions, so upload and
download are one procedure over a source *site* and a destination *site*.

A file that fails fails alone: it becomes a :class:`~fsmux.events.FileFailed` and the rest goes on.  What ends the
first connection ends this attempt at the transfer, and so does a server that is going away; a file that loses another
connection is begun again on those that are left.  What a further attempt must know is in the
:class:`~fsmux.moving.report.Report`.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio
from msgspec import Struct, structs
from msgspec.structs import replace

from fsmux import events
from fsmux.columns import Act, itself
from fsmux.errors import FsmuxError, IntegrityError, NetworkError, NotFound, Unsupported, UsageError
from fsmux.events import Warned
from fsmux.files.names import RESERVED
from fsmux.lanes import Lanes, open_lanes
from fsmux.moving.carriers import Carrier, Download, Rehearsal, Route, Upload
from fsmux.moving.comparing import Comparer
from fsmux.moving.extras import Extras, TreeExtras, removal, unprotected
from fsmux.moving.report import NEWER, UNKNOWN_XATTRS, UP_TO_DATE, name_of
from fsmux.moving.selecting import selected
from fsmux.moving.singles import Batch, batched, carry, has_place
from fsmux.moving.tree import Tree, move_tree
from fsmux.moving.twins import find_twin
from fsmux.mux.service import all_of
from fsmux.plan.mapping import Mapped, Origin, Target, map_sources
from fsmux.plan.plan import (
    Entered,
    Facts,
    Large,
    Verdict,
    as_group,
    differs,
    in_the_way,
    judge,
    known_different,
    known_equal,
    same_size_and_time,
)  # fmt: skip
from fsmux.records import EVERYTHING, Attrs, Kind, Namespaces, Parts, printable
from fsmux.sites import LocalSite, RemoteSite, Site, local_site
from fsmux.urls import Local, Remote
from fsmux.wire.frames import (
    CHOWN_FEATURE,
    KEPT_FEATURE,
    LINKS_FEATURE,
    OWNERS_FEATURE,
    PACKS_FEATURE,
    SYNC_FEATURE,
    XATTRS_FEATURE,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fsmux.client import Client
    from fsmux.columns import Group
    from fsmux.job import Options
    from fsmux.moving.extras import Emptied
    from fsmux.moving.ledger import TreeNotes
    from fsmux.moving.report import Account, Report
    from fsmux.mux.stream import Stream
    from fsmux.plan.filters import Filters
    from fsmux.records import Xattrs
    from fsmux.transfer.session import Outcome, Run


T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S", LocalSite, RemoteSite)


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

    @property
    def place(self) -> tuple[int, Parts]:
        return id(self.target), self.target_prefix

    def filters(self, options: Options) -> Filters:
        """The rules for names below it: a source that goes by its name is one directory further down."""
        return options.filters.below(self.named)


class Transfer:
    """One attempt at a transfer, over ``client``; :meth:`run` it once."""

    _lanes: Lanes

    def __init__(self, client: Client, options: Options, report: Report, run: Run) -> None:
        self._client = client
        self._options = options
        self._report = report
        self._run = run
        self._asked: Stream | None = None
        self._sites: dict[str | bytes, LocalSite] = {}
        self._begun: set[tuple[int, Parts]] = set()
        self._extras: Extras | None = None
        self._ledger = None if options.dry_run else options.manifest

    async def run(self, sources: Sequence[Local | Remote], destination: Local | Remote) -> None:
        """Move ``sources`` to ``destination``, exactly one side of which is remote."""
        if self._options.selection is not None:
            if len(sources) > 1:
                raise UsageError("--files-from names what is in one source; name one directory")
            if self._options.delete:
                raise UsageError("--files-from does not go with --delete: what it does not name is not extra")
            sources = [replace(sources[0], trailing_slash=True)]
        if self._options.kept.xattrs:
            self._check_xattrs(isinstance(destination, Remote))
        if self._options.kept != EVERYTHING and KEPT_FEATURE not in self._client.connection.peer_hello.features:
            raise Unsupported("the server keeps times and permissions always; both sides need this release of fsmux")
        if self._options.kept.owner:
            self._check_owners(isinstance(destination, Remote))
        count = 1 if self._options.dry_run else self._options.connections
        with ExitStack() as open_roots:
            async with open_lanes(self._client, count, self._report, self._run) as self._lanes:
                looked = await self._ask_early(sources, destination, open_roots)
                items = await self._map(sources, destination, open_roots, looked)
                if not self._options.dry_run:
                    await self._lanes.dialled()
                with self._lanes.limited(None if self._options.dry_run else self._options.bwlimit):
                    await self._move(items)

    async def _move(self, items: Sequence[Item]) -> None:
        """Single files first, ``streams`` at a time, then one tree after the other."""
        items = [item for item in items if self._takes_part(item)]
        for item in items if self._options.kept.xattrs else ():
            if item.top.xattrs is None:
                self._report.warn_once(UNKNOWN_XATTRS, name_of((), item.label))
        trees = [item for item in items if item.top.kind is Kind.DIRECTORY]
        extras = self._extras = self._begin_extras(items, trees) if self._options.delete else None
        singles = [item for item in items if item.top.kind is not Kind.DIRECTORY]
        there = await self._each(singles, self._standing)
        waiting = [
            single
            for item, seen in zip(singles, there, strict=True)
            if (single := await self._judge(item, seen)) is not None
        ]
        if not trees:
            self._report.planned()
        await self._all(await self._carry_small(waiting))
        shared = Counter(item.place for item in trees)
        # By place: names that are taken, because sources that share one must not meet in them; and what is left.
        claimed: dict[tuple[int, Parts], dict[Parts, bool]] = {}
        later: dict[tuple[int, Parts], list[tuple[Group, bool]]] = {}
        for item in trees:
            if shared[item.place] > 1:
                names = claimed.setdefault(item.place, {})
                await self._move_tree(item, names, later.setdefault(item.place, []), last=item is trees[-1])
            else:
                await self._move_tree(item, None, None, last=item is trees[-1])
        for item in trees:
            if (groups := later.pop(item.place, None)) is not None:
                await self._finish(item, groups)
        if extras is not None:
            await self._remove_extras(trees, extras)

    def _takes_part(self, item: Item) -> bool:
        """Whether the filters let in the source itself, which they do if only what is in it goes."""
        is_directory = item.top.kind is Kind.DIRECTORY
        if not item.named or self._options.filters.keeps(item.named, is_directory):
            return True
        if item.account.take_itself(None):
            self._report.skip(name_of((), item.label), 0 if is_directory else item.top.size, "left out by a filter")
        return False

    # ---- what goes where -------------------------------------------------------------------------------------------

    async def _map(
        self,
        sources: Sequence[Local | Remote],
        destination: Local | Remote,
        open_roots: ExitStack,
        looked: Stream | None,
    ) -> list[Item]:
        origins: list[Origin] = []

        located = [(place, *await self._source_site(place, open_roots)) for place in sources]

        async def facts(source: tuple[Local | Remote, Site, Parts]) -> tuple[Site, Parts, Attrs]:
            place, site, prefix = source
            if looked is not None:
                async with looked as stream:
                    attrs: Attrs = await stream.expect_message(Attrs)
            else:
                attrs = await site.stat(prefix, follow=place.is_contents)
            if attrs.kind is Kind.SYMLINK and place.is_contents:
                attrs = await site.stat(prefix, follow=True)
            if self._options.selection is not None and attrs.kind is not Kind.DIRECTORY:
                raise UsageError(f"{place}: --files-from needs a directory as source")
            return site, prefix, attrs

        tops = await self._each(located, facts)
        for place, (_, prefix, attrs) in zip(sources, tops, strict=True):
            name = prefix[-1] if prefix else b""  # without a name of its own it means its contents
            origins.append(Origin(str(place), name, attrs.kind, place.is_contents))
        kind = await self._kind_of(destination)
        target = Target(str(destination), kind, destination.trailing_slash)
        mapped = map_sources(origins, target)
        self._report.mapped(place_map.describe(target) for place_map in mapped)
        into_directory = kind is Kind.DIRECTORY or any(_makes_directory(place_map) for place_map in mapped)
        site, base = await self._target_site(destination, into_directory, open_roots)
        return [
            Item(
                source,
                prefix,
                site,
                base + place_map.suffix,
                attrs,
                place_map.origin.label,
                self._report.account(number, name_of((), place_map.origin.label)),
                () if place_map.origin.contents else (place_map.origin.name,),
                number,
                place_map.suffix if into_directory else (base + place_map.suffix)[-1:],
            )
            for number, (place_map, (source, prefix, attrs)) in enumerate(zip(mapped, tops, strict=True))
        ]

    async def _ask_early(
        self, sources: Sequence[Local | Remote], destination: Local | Remote, open_roots: ExitStack
    ) -> Stream | None:
        """Ask for the one remote source at once if it would be fresh here, whatever it is: a guess that saves a round
        trip. If it is no file, or the plan comes to something else, it is dropped unread.

        Returns the stream on which the source's attributes will come.
        """
        options, place = self._options, sources[0]
        if len(sources) > 1 or not isinstance(place, Remote) or not isinstance(destination, Local):
            return None
        if place.is_contents or not place.path_parts or options.dry_run or options.bwlimit is not None:
            return None
        if self._ledger:  # something that is here may be the file, under another name
            return None
        if options.connections > 1:  # a big file will be asked for piece by piece
            return None
        if not await self._client.disk.meta(_surely_fresh, destination, place.path_parts[-1]):
            return None
        asking = RemoteSite(self._client).ask_for(place.path_parts, options)
        looked, self._asked = open_roots.enter_context(asking)
        return looked

    def _check_owners(self, up: bool) -> None:
        """Owners are set by root alone: otherwise that is said, and they are left out."""
        features = self._client.connection.peer_hello.features
        if OWNERS_FEATURE not in features:
            raise Unsupported("the server knows nothing of owners; both sides need this release of fsmux")
        if CHOWN_FEATURE not in features if up else os.geteuid() != 0:
            who = "the server does" if up else "this command does"
            self._report.warn_once(f"--owner: {who} not run as root, so owners are not kept")
            self._options = replace(self._options, kept=structs.replace(self._options.kept, owner=False))

    def _check_xattrs(self, up: bool) -> None:
        """Those of users are kept between any two sides that know of them; others if the receiver is root."""
        features = self._client.connection.peer_hello.features
        if not hasattr(os, "setxattr"):
            raise UsageError("--xattrs: extended attributes are kept on Linux only")
        xattrs = Namespaces.ALL if (CHOWN_FEATURE in features if up else os.geteuid() == 0) else Namespaces.USER
        if XATTRS_FEATURE not in features:
            self._report.warn_once("--xattrs: the server knows no extended attributes, so they are not kept")
            xattrs = Namespaces.NONE
        self._options = replace(self._options, kept=structs.replace(self._options.kept, xattrs=xattrs))

    def _asking(self, site: S) -> S:
        """A site that says what is kept of things."""
        site.kept = self._options.kept
        return site

    async def _source_site(self, place: Local | Remote, open_roots: ExitStack) -> tuple[Site, Parts]:
        if isinstance(place, Remote):
            return self._asking(RemoteSite(self._client)), place.path_parts
        # A directory's contents are read beneath it; anything else beneath the directory that holds its name.
        path = place.path if place.is_contents else os.path.dirname(place.path) or "."
        name = () if place.is_contents else (os.fsencode(os.path.basename(place.path)),)
        try:
            if path not in self._sites:
                self._sites[path] = self._asking(await local_site(self._client, self._lanes, path, open_roots))
            return self._sites[path], name
        except NotFound:
            raise NotFound(f"{printable(place.path)}: no such file or directory") from None

    async def _kind_of(self, destination: Local | Remote) -> Kind | None:
        if isinstance(destination, Local):
            try:
                facts = await trio.Path(destination.path).stat()
            except FileNotFoundError:
                return None
            except OSError as exc:
                raise UsageError(f"{printable(destination.path)}: {(exc.strerror or '').lower()}") from exc
            is_directory = (await trio.Path(destination.path).is_dir()) if facts else False
            return Kind.DIRECTORY if is_directory else Kind.FILE
        try:
            return (await self._client.stat(destination.path_parts)).kind
        except NotFound:
            return None

    async def _target_site(
        self, destination: Local | Remote, into_directory: bool, open_roots: ExitStack
    ) -> tuple[Site, Parts]:
        if isinstance(destination, Remote):
            return self._asking(RemoteSite(self._client)), destination.path_parts
        path = destination.path if into_directory else os.path.dirname(destination.path) or "."
        name = () if into_directory else (os.fsencode(os.path.basename(destination.path)),)
        if not self._options.dry_run:
            await trio.Path(path).mkdir(parents=True, exist_ok=True)
        elif not await trio.Path(path).is_dir():
            return LocalSite(self._client, self._lanes, None), name
        return self._asking(await local_site(self._client, self._lanes, path, open_roots)), name

    # ---- single files ----------------------------------------------------------------------------------------------

    async def _each(self, things: Sequence[T], ask: Callable[[T], Awaitable[U]]) -> list[U]:
        """What each of many questions is answered with, of which some are asked at once."""
        answers: dict[int, U] = {}
        waiting = iter(enumerate(things))

        async def work() -> None:
            for index, thing in waiting:
                answers[index] = await ask(thing)

        await all_of(*[work] * min(self._options.streams, len(things)))
        return [answers[index] for index in range(len(things))]

    async def _standing(self, item: Item) -> Facts | None:
        """What stands where a single file or link goes."""
        try:
            return Facts.of(await item.target.stat(item.target_prefix, follow=not item.target_prefix))
        except NotFound:
            return None

    async def _carry_small(self, waiting: list[tuple[Item, bool]]) -> list[tuple[Item, bool]]:
        """Move small files that share their directories in packs; those that are left."""
        if PACKS_FEATURE not in self._client.connection.peer_hello.features:
            return waiting
        moved: set[int] = set()
        for batch in batched(item for item, _ in waiting):
            if not await has_place(batch[0]):
                continue  # which a file that comes by a session makes
            account = Batch(self._report, batch)
            try:
                with self._lanes.carrying(self._lanes.alive[:1]):
                    await carry(batch, self._carrier(batch[0], account))
            except NetworkError:
                raise
            except FsmuxError as exc:
                failure = self._client.connection.failure
                if failure is not None:
                    raise failure from exc
                account.fail_rest(exc)
            moved.update(item.number for item in batch)
        return [(item, fresh) for item, fresh in waiting if item.number not in moved]

    async def _judge(self, item: Item, existing: Facts | None) -> tuple[Item, bool] | None:
        """What is to be done about a source that is no directory: the item, and whether it is fresh; or nothing."""
        report, account, name = self._report, item.account, name_of((), item.label)
        kept = self._options.kept
        verdict = await self._verdict(item, existing)
        if verdict is Verdict.DIRECTORY_IN_THE_WAY and self._options.delete and await self._clear(item, (), True):
            existing, verdict = None, judge(Facts.of(item.top), None, kept=kept)
        if verdict in (Verdict.CURRENT, Verdict.ADJUST) and account.owed(()) and item.top.kind is Kind.FILE:
            verdict = Verdict.SEND  # an attempt that was cut short had it on its way, and heard no more of it
        if verdict in (Verdict.CURRENT, Verdict.ADJUST) and item.top.kind is Kind.FILE:
            await self._note_current(item)
        news = account.take_itself(item.top.size if verdict is Verdict.SEND else None)
        match verdict:
            case Verdict.SPECIAL if news:
                report.skip(name, 0, "special file", warn=True)
            case Verdict.CURRENT if news:
                report.skip(name, item.top.size, UP_TO_DATE)
            case Verdict.NEWER if news:
                report.skip(name, item.top.size, NEWER)
            case Verdict.DIRECTORY_IN_THE_WAY:
                account.fail(name, (), in_the_way(verdict, ()))
            case Verdict.SEND:
                if not self._options.dry_run:
                    return item, existing is None
                report.would_send(name, item.top.size)
            case Verdict.MAKE:
                if not self._options.dry_run:
                    return item, existing is None
                report.would(events.MAKE_LINK, name)
            case Verdict.ADJUST:
                if self._options.dry_run:
                    report.would(events.ADJUST, name)
                else:
                    adjust = partial(self._adjust, item)
                    await self._guarded(item, (), partial(self._change, item, events.ADJUST, adjust))
        return None

    async def _verdict(self, item: Item, existing: Facts | None) -> Verdict:
        """What to do about it where that stands at the destination."""
        options, top = self._options, Facts.of(item.top)
        up_to_date = same_size_and_time
        if options.checksum and existing is not None:
            name, there = item.source_prefix[-1:], item.target_prefix[-1:]
            source, found = as_group(name, top), as_group(name, existing)
            up_to_date = known_different
            async with self._comparing(item, False, above=True) as comparer:
                if comparer is not None and (alike := comparer.alike(source, found)) is not None:
                    await comparer.ask([alike], [replace(alike, names=list(there))])
                    up_to_date = known_equal if any(await comparer.equal([alike])) else known_different
        return judge(top, existing, up_to_date, update=options.update, kept=options.kept)

    async def _note_current(self, item: Item) -> None:
        """A file is up to date, and is to have a record in the manifest."""
        ledger, (site, here) = self._ledger, item.local
        if ledger is None or ledger.has(b"/".join(item.listed), item.top.size, item.top.mtime_ns):
            return
        files = [((), item.top.size)]
        await ledger.read(self._client.disk, site.root, here, item.listed, files, self._report)

    async def _all(self, items: Sequence[tuple[Item, bool]]) -> None:
        """Transfer single files and links, ``streams`` at a time."""
        waiting = iter(items)

        async def work() -> None:
            for item, fresh in waiting:
                if item.top.kind is Kind.SYMLINK:
                    make = partial(self._make_link, item)
                    await self._guarded(item, (), partial(self._change, item, events.MAKE_LINK, make))
                else:
                    top = item.top
                    move = partial(self._transfer, item, (), Large(b"", top.size, fresh, top.owner, top.xattrs))
                    await self._guarded(item, (), move)

        await all_of(*[work] * min(self._options.streams, len(items)))

    async def _change(self, item: Item, action: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something else than sending to a source that is one file, and tell of it."""
        await act()
        item.account.changed_itself(action, ())

    async def _make_link(self, item: Item) -> None:
        await item.target.symlink(item.target_prefix, self._kept_of(item))
        if item.top.xattrs:
            await self._set_xattrs(item, (), item.top.xattrs)

    async def _adjust(self, item: Item) -> None:
        """Set what is kept of an item that is a file."""
        await item.target.set_attrs(item.target_prefix, self._kept_of(item))
        if item.top.xattrs is not None:
            await self._set_xattrs(item, (), item.top.xattrs)

    async def _set_xattrs(self, item: Item, parts: Parts, xattrs: Xattrs) -> None:
        """Have a file that stands have these; what is refused of them fails nothing."""
        target = item.target_prefix + parts
        try:
            await item.target.set_attrs(target, Attrs(Kind.FILE, xattrs=xattrs))
        except NetworkError:
            raise
        except FsmuxError as exc:
            if self._client.connection.failure is not None:
                raise
            self._report.warn_once(str(exc).removeprefix(f"{printable(target)}: "), name_of(parts, item.label))

    def _kept_of(self, item: Item) -> Attrs:
        """What is to be set of an item that is a file or a link; zero leaves something alone."""
        kept, top = self._options.kept, item.top
        mtime, mode = top.mtime_ns if kept.times else 0, top.mode if kept.perms else 0
        return structs.replace(top, mtime_ns=mtime, mode=mode, xattrs=None)

    async def _guarded(self, item: Item, parts: Parts, act: Callable[[], Awaitable[None]]) -> bool:
        """Do something about one file, which fails alone unless the connection is lost. Whether it was done."""
        try:
            await act()
            return True
        except NetworkError:
            raise  # said once, and not of each file that was still to come
        except FsmuxError as exc:
            failure = self._client.connection.failure
            if failure is not None:
                raise failure from exc
            item.account.fail(name_of(parts, item.label), parts, exc)
            return False

    async def _transfer(self, item: Item, parts: Parts, large: Large) -> None:
        _, size, fresh, owner, xattrs = large
        name = name_of(parts, item.label)
        source, target = item.source_prefix + parts, item.target_prefix + parts
        journey = item.account.journey(parts)
        options = replace(self._options, resume=True) if journey.begun else self._options
        ledger, listed = self._ledger, item.listed + parts
        passing = None if ledger is None else ledger.passing(listed)

        async def move(like: Parts) -> Outcome:
            if isinstance(item.target, LocalSite):
                return await item.target.fetch(
                    source, target, name, journey, options, fresh=fresh, size=size,
                    asked=self._asked if not (parts or like) else None, passing=passing, like=like,
                )  # fmt: skip
            assert isinstance(item.source, LocalSite)
            return await item.source.push(
                source, target, name, journey, options, fresh=fresh, passing=passing, like=like
            )

        twin: Parts = ()
        if ledger is not None and fresh and options.resume:
            twin = await find_twin(ledger, self._client.disk, item.source, source, size, listed)
        try:
            outcome = await move(twin and item.below_destination(twin))
        except IntegrityError:
            if not twin:
                raise
            outcome = await move(())  # somebody wrote to the twin while it was being copied
        if owner is not None:
            await item.target.set_attrs(target, Attrs(Kind.FILE, owner=owner))
        if xattrs:
            await self._set_xattrs(item, parts, xattrs)
        if ledger is not None:
            site, here = item.local
            await ledger.passed(self._client.disk, site.root, here + parts, listed, outcome.crc32, self._report)
        item.account.done(name, parts, outcome, printable(twin) if twin else "")

    # ---- trees -----------------------------------------------------------------------------------------------------

    async def _move_tree(
        self, item: Item, claimed: dict[Parts, bool] | None, later: list[tuple[Group, bool]] | None, *, last: bool
    ) -> None:
        options = self._options
        if PACKS_FEATURE not in self._client.connection.peer_hello.features:
            raise Unsupported("the server cannot move trees in packs; both sides need this release of fsmux")
        there: Attrs | None = None
        with suppress(NotFound):
            there = await item.target.stat(item.target_prefix, follow=not item.target_prefix)
        top, seen = Facts.of(item.top), None if there is None else Facts.of(there)
        verdict = judge(top, seen)
        if verdict is Verdict.FILE_IN_THE_WAY and options.delete and await self._clear(item, (), False):
            seen, verdict = None, Verdict.MAKE
        if verdict is Verdict.FILE_IN_THE_WAY:
            item.account.fail(name_of((), item.label), (), in_the_way(verdict, ()))
            return
        made = verdict is Verdict.MAKE
        first = item.place not in self._begun
        self._begun.add(item.place)
        filters = item.filters(options)
        extras = None
        if self._extras is not None:
            extras = TreeExtras(self._extras, item.number, item.target_prefix, filters)

        async def transfer(parts: Parts, large: Large) -> bool:
            if options.dry_run:
                self._report.would_send(name_of(parts, item.label), large.size)
                return True
            return await self._guarded(item, parts, partial(self._transfer, item, parts, large))

        async with (
            item.target.looking(item.target_prefix, nothing=made) as looker,
            self._comparing(item, made) as comparer,
        ):
            tree = Tree(
                scan=self._scan(item, filters),
                looker=looker,
                carrier=self._carrier(item),
                transfer=transfer,
                workers=options.streams,
                top=Entered(top.mtime, top.mode, made, differs(top, seen, options.kept), top.owner, top.xattrs),
                make_top=made and first,
                filters=filters,
                comparer=comparer,
                update=options.update,
                account=item.account,
                claimed=claimed,
                later=later,
                last=last,
                extras=extras,
                clear=partial(self._clear, item) if options.delete else None,
                tell_top=first,
                kept=options.kept,
                links=LINKS_FEATURE in self._client.connection.peer_hello.features,
                notes=self._notes(item),
            )
            with self._lanes.carrying(self._lanes.alive[:1]):
                await move_tree(tree)
        if extras is not None:
            extras.end()

    @asynccontextmanager
    async def _comparing(self, item: Item, made: bool, *, above: bool = False) -> AsyncIterator[Comparer | None]:
        """Who compares bytes, if that is wanted; of what is beside the item if it is a file (``above``)."""
        if not self._options.checksum or made:
            yield None
            return
        if SYNC_FEATURE not in self._client.connection.peer_hello.features:
            raise Unsupported("the server makes no digests of files; both sides need this release of fsmux")
        source, target = item.source_prefix, item.target_prefix
        if above:
            source, target = source[:-1], target[:-1]
        async with item.source.digesting(source) as here, item.target.digesting(target) as there:
            yield Comparer(here, there, update=self._options.update)

    def _scan(self, item: Item, filters: Filters) -> AbstractAsyncContextManager[AsyncIterator[list[Group]]]:
        if (selection := self._options.selection) is None:
            return item.source.scan(item.source_prefix)
        return selected(item.source, item.source_prefix, selection, filters, item.account)

    async def _finish(self, item: Item, groups: list[tuple[Group, bool]]) -> None:
        """Finish the directories that several sources share, deepest first."""
        groups.sort(key=lambda one: one[0].directory, reverse=True)
        await self._carry(item, groups)

    async def _carry(self, item: Item, groups: Sequence[tuple[Group, bool]]) -> None:
        """Have groups done in their order, and told if they are to be."""
        carrier = self._carrier(item)

        async def put() -> None:
            for group, told in groups:
                await carrier.put(group, told=told)
            await carrier.end()

        await all_of(put, carrier.run)

    # ---- what is there alone ---------------------------------------------------------------------------------------

    def _begin_extras(self, items: Sequence[Item], trees: Sequence[Item]) -> Extras:
        if not trees:
            raise UsageError("--delete needs a directory among the sources: only what is in directories is removed")
        if SYNC_FEATURE not in self._client.connection.peer_hello.features:
            raise Unsupported("the server cannot remove what a source has not; both sides need this release of fsmux")
        return Extras([item.target_prefix for item in items])

    async def _remove_extras(self, trees: Sequence[Item], extras: Extras) -> None:
        """Remove what stands at the destination and in no source, unless anything failed."""
        report = self._report
        if report.failed:
            report(Warned("", f"nothing was removed at the destination, because {report.failed} of the above failed"))
            return
        for item in trees:
            groups = [one async for one in self._removals(item, extras.of(item.number))]
            item.account.removing([group for group, told in groups if told])
            if groups:
                await self._carry(item, groups)

    async def _removals(self, item: Item, found: Sequence[Emptied]) -> AsyncIterator[tuple[Group, bool]]:
        """The groups that remove names, each followed by what that changes of its directory."""
        filters = item.filters(self._options)
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

    async def _clear(self, item: Item, parts: Parts, is_directory: bool) -> bool:
        """Remove what stands in the way of a name; whether that is gone now, or would be."""
        place, filters = item.target_prefix + parts, item.filters(self._options)
        assert self._extras is not None
        if parts and self._extras.taken(place):
            return False  # it is another source's
        if is_directory and filters and (await self._unprotected(item, [parts], filters)).get(parts) is not None:
            return False
        if self._options.dry_run:
            self._report.would(events.REMOVE, item.account.name_of(parts))
            return True
        gone = False

        async def remove() -> None:
            nonlocal gone
            with suppress(NotFound):
                await item.target.remove(place, recursive=is_directory)
            gone = True
            item.account.changed_itself(events.REMOVE, parts)
            if self._ledger is not None:
                self._ledger.forget(item.listed + parts, is_directory)

        await self._guarded(item, parts, remove)
        return gone

    def _notes(self, item: Item) -> TreeNotes | None:
        ledger, (site, here) = self._ledger, item.local
        if ledger is None:
            return None
        return ledger.notes(self._client.disk, site.root, here, item.listed, self._report)

    def _notes_beside(self, item: Item) -> TreeNotes | None:
        ledger, (site, here) = self._ledger, item.local
        if ledger is None:
            return None
        return ledger.notes(self._client.disk, site.root, here[:-1], item.listed[:-1], self._report)

    def _carrier(self, item: Item, batch: Batch | None = None) -> Carrier:
        """What carries the small things of a tree; or a batch of which ``item`` is one."""
        if self._options.dry_run:
            return Rehearsal(item.account)
        down = isinstance(item.target, LocalSite)
        there = item.source_prefix if down else item.target_prefix
        site, here = item.local
        client, options = self._client, self._options
        notes = self._notes(item) if batch is None else self._notes_beside(item)
        if batch is not None:
            here, there = here[:-1], there[:-1]
        route = Route(
            client.connection, client.disk, site.root, here, there, options.durability, options.verify, self._run,
            notes, options.kept,
        )  # fmt: skip
        account = batch or item.account
        return Download(route, account) if down else Upload(route, account)


def _surely_fresh(destination: Local, name: bytes) -> bool:
    """Whether a file called ``name`` would come where nothing stands and nothing is kept of earlier attempts."""
    path = os.fsencode(destination.path)
    directory, name = (path, name) if destination.trailing_slash or os.path.isdir(path) else os.path.split(path)
    return not any(os.path.lexists(os.path.join(directory, found)) for found in (name, RESERVED))


def _makes_directory(place: Mapped) -> bool:
    return bool(place.suffix) or place.origin.kind is Kind.DIRECTORY
