"""What goes where: the sites on both sides, and an item for each source.

Theory: what stands at the destination decides with rsync's rules about slashes what a source becomes there.  The two
sides are opened once each, and confined from then on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio
from msgspec import structs
from msgspec.structs import replace

from fsmux.errors import FsmuxError, NotADirectory, NotFound, Unsupported, UsageError, from_os_error
from fsmux.files import leftovers
from fsmux.files.journal import journal_name
from fsmux.files.names import RESERVED
from fsmux.files.root import Root
from fsmux.moving.account import name_of
from fsmux.moving.attempt import SEVERAL, Attempt, Item, raise_if_lost
from fsmux.plan.mapping import Mapped, Origin, Target, map_sources
from fsmux.records import Attrs, Kind, Namespaces, Parts, printable
from fsmux.sites import OWNER, LocalSite, RemoteSite, Site, local_site
from fsmux.urls import Local, Remote
from fsmux.wire.frames import CHOWN_FEATURE, OWNERS_FEATURE, XATTRS_FEATURE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import ExitStack

    from fsmux.moving.account import Account
    from fsmux.mux.stream import Stream


S = TypeVar("S", LocalSite, RemoteSite)
T = TypeVar("T")


class Placing:
    """Finds the items of an attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._sites: dict[str | bytes, LocalSite] = {}

    async def items(
        self,
        sources: Sequence[Local | Remote],
        destination: Local | Remote,
        open_roots: ExitStack,
        looked: Stream | None,
    ) -> list[Item]:
        """The sources in their places; ``looked`` brings what the only one is, if it was asked early.

        Of several, one that cannot be had fails alone.
        """
        several = len(sources) > 1
        sites = [  # one after the other, as they share what is opened
            await self._had(number, sources, partial(self._source_site, place, open_roots))
            for number, place in enumerate(sources)
        ]

        there = [(number, located) for number, located in enumerate(sites) if located is not None]
        known = await self._known(sources, there)

        async def facts(located: tuple[int, tuple[Site, Parts]]) -> tuple[int, Site, Parts, Attrs] | None:
            number, (site, prefix) = located
            place, seen = sources[number], known.get(number)
            attrs = await self._had(number, sources, partial(self._attrs_of, place, site, prefix, looked, seen))
            if attrs is None:
                return None
            above = prefix[-1:] if several and not place.is_contents else ()
            self._account(number, place).found(above if attrs.kind is Kind.DIRECTORY else None)
            return number, site, prefix, attrs

        tops = [top for top in await self._attempt.each(there, facts) if top is not None]
        if not tops:
            return []
        origins = [
            # without a name of its own it means its contents
            Origin(str(sources[number]), prefix[-1] if prefix else b"", attrs.kind, sources[number].is_contents)
            for number, _, prefix, attrs in tops
        ]
        kind, fresh = await self._kind_of(destination)
        target = Target(str(destination), kind, destination.trailing_slash)
        mapped = map_sources(origins, target, several=several)
        self._attempt.report.mapped(place_map.describe(target) for place_map in mapped)
        into_directory = kind is Kind.DIRECTORY or any(_makes_directory(place_map) for place_map in mapped)
        filled = kind is Kind.DIRECTORY and any(place_map.suffix for place_map in mapped)
        site, base = await self._target_site(destination, into_directory, filled, open_roots)
        return [
            Item(
                source,
                prefix,
                site,
                base + place_map.suffix,
                attrs,
                place_map.origin.label,
                self._account(number, sources[number]),
                () if place_map.origin.contents else (place_map.origin.name,),
                number,
                place_map.suffix if into_directory else (base + place_map.suffix)[-1:],
                fresh and (len(mapped) == 1 or not place_map.suffix),
            )
            for place_map, (number, source, prefix, attrs) in zip(mapped, tops, strict=True)
        ]

    async def _had(self, number: int, sources: Sequence[Local | Remote], look: Callable[[], Awaitable[T]]) -> T | None:
        """What is found of a source.  Of several, one that cannot be had fails alone: None."""
        try:
            return await look()
        except FsmuxError as exc:
            raise_if_lost(self._attempt.client, exc)
            if len(sources) == 1 or isinstance(exc, UsageError):
                raise
            self._account(number, sources[number]).missing(printable(str(sources[number])), exc)
            return None

    def _account(self, number: int, place: Local | Remote) -> Account:
        return self._attempt.report.account(number, name_of(str(place)))

    async def _known(
        self, sources: Sequence[Local | Remote], there: Sequence[tuple[int, tuple[Site, Parts]]]
    ) -> dict[int, Attrs | FsmuxError]:
        """What sources are that were looked at together, by their number."""
        named = [(number, located) for number, located in there if located[1] and not sources[number].is_contents]
        if len(named) < SEVERAL:
            return {}
        from fsmux.moving.asking import attrs_of

        found = await attrs_of(self._attempt, [located for _, located in named])
        return {number: attrs for (number, _), attrs in zip(named, found, strict=True)}

    async def _attrs_of(
        self, place: Local | Remote, site: Site, prefix: Parts, looked: Stream | None,
        known: Attrs | FsmuxError | None,
    ) -> Attrs:  # fmt: skip
        try:
            if looked is not None:
                async with looked as stream:
                    attrs: Attrs = await stream.expect_message(Attrs)
            elif isinstance(known, FsmuxError):
                raise known
            elif known is not None:
                attrs = known
            else:
                attrs = await site.stat(prefix, follow=place.is_contents)
            if attrs.kind is Kind.SYMLINK and place.is_contents:
                attrs = await site.stat(prefix, follow=True)
        except NotFound:
            raise NotFound(f"{printable(str(place))}: no such file or directory") from None
        if self._attempt.options.selection is not None and attrs.kind is not Kind.DIRECTORY:
            raise UsageError(f"{place}: --files-from needs a directory as source")
        return attrs

    async def ask_early(
        self, sources: Sequence[Local | Remote], destination: Local | Remote, open_roots: ExitStack
    ) -> Stream | None:
        """Ask for the one remote source at once if it would be fresh here, whatever it is: a guess that saves a round
        trip. If it is no file, or the plan comes to something else, it is dropped unread.

        Returns the stream on which the source's attributes will come.
        """
        options, place = self._attempt.options, sources[0]
        if len(sources) > 1 or not isinstance(place, Remote) or not isinstance(destination, Local):
            return None
        if place.is_contents or not place.path_parts or options.dry_run or options.bwlimit is not None:
            return None
        if self._attempt.ledger:  # something that is here may be the file, under another name
            return None
        if options.connections > 1:  # a big file will be asked for piece by piece
            return None
        if not await self._attempt.client.disk.meta(_surely_fresh, destination, place.path_parts[-1]):
            return None
        asking = RemoteSite(self._attempt.client).ask_for(place.path_parts, options)
        looked, self._attempt.asked = open_roots.enter_context(asking)
        return looked

    def check_owners(self, up: bool) -> None:
        """Owners are set by root alone: otherwise that is said, and they are left out."""
        if not self._attempt.has(OWNERS_FEATURE):
            raise Unsupported("the server knows nothing of owners; both sides need this release of fsmux")
        if not self._attempt.has(CHOWN_FEATURE) if up else os.geteuid() != 0:
            who = "the server does" if up else "this command does"
            self._attempt.report.warn_once(f"--owner: {who} not run as root, so owners are not kept")
            self._attempt.options = replace(
                self._attempt.options, kept=structs.replace(self._attempt.options.kept, owner=False)
            )

    def check_xattrs(self, up: bool) -> None:
        """Those of users are kept between any two sides that know of them; others if the receiver is root."""
        if not hasattr(os, "setxattr"):
            raise UsageError("--xattrs: extended attributes are kept on Linux only")
        xattrs = Namespaces.ALL if (self._attempt.has(CHOWN_FEATURE) if up else os.geteuid() == 0) else Namespaces.USER
        if not self._attempt.has(XATTRS_FEATURE):
            self._attempt.report.warn_once("--xattrs: the server knows no extended attributes, so they are not kept")
            xattrs = Namespaces.NONE
        self._attempt.options = replace(
            self._attempt.options, kept=structs.replace(self._attempt.options.kept, xattrs=xattrs)
        )

    def _asking(self, site: S) -> S:
        """A site that says what is kept of things."""
        site.kept = self._attempt.options.kept
        return site

    async def _source_site(self, place: Local | Remote, open_roots: ExitStack) -> tuple[Site, Parts]:
        if isinstance(place, Remote):
            return self._asking(RemoteSite(self._attempt.client)), place.path_parts
        # A directory's contents are read beneath it; anything else beneath the directory that holds its name.
        path = place.path if place.is_contents else os.path.dirname(place.path) or "."
        name = () if place.is_contents else (os.fsencode(os.path.basename(place.path)),)
        try:
            if path not in self._sites:
                self._sites[path] = self._asking(
                    await local_site(self._attempt.client, self._attempt.lanes, path, open_roots)
                )
            return self._sites[path], name
        except NotFound:
            raise NotFound(f"{printable(str(place))}: no such file or directory") from None

    async def _kind_of(self, destination: Local | Remote) -> tuple[Kind | None, bool]:
        """What the destination is or leads to, and whether nothing stands there, not even a link to nothing."""
        if isinstance(destination, Local):
            try:
                facts = await trio.Path(destination.path).stat()
            except FileNotFoundError:
                return None, not await trio.Path(destination.path).is_symlink()
            except OSError as exc:
                raise from_os_error(exc, printable(destination.path)) from exc
            is_directory = (await trio.Path(destination.path).is_dir()) if facts else False
            return Kind.DIRECTORY if is_directory else Kind.FILE, False

        async def kind(follow: bool) -> Kind | None:
            try:
                return (await self._attempt.client.stat(destination.path_parts, follow=follow)).kind
            except NotFound:
                return None

        there, itself = await self._attempt.each((True, False), kind)
        return there, itself is None

    async def _target_site(
        self, destination: Local | Remote, into_directory: bool, filled: bool, open_roots: ExitStack
    ) -> tuple[Site, Parts]:
        """Where things go, and what is before their names there.

        ``filled``: that is a directory which stands, and gets names of sources.
        """
        if isinstance(destination, Remote):
            if self._attempt.options.dry_run:
                await self._check_write(destination.path_parts if filled else destination.path_parts[:-1])
            return self._asking(RemoteSite(self._attempt.client)), destination.path_parts
        path = destination.path if into_directory else os.path.dirname(destination.path) or "."
        name = () if into_directory else (os.fsencode(os.path.basename(destination.path)),)
        if not self._attempt.options.dry_run:
            await self._attempt.client.disk.meta(_make, path)
        elif not await trio.Path(path).is_dir():
            return LocalSite(self._attempt.client, self._attempt.lanes, None), name
        site = await local_site(self._attempt.client, self._attempt.lanes, path, open_roots)
        if not self._attempt.options.dry_run and self._attempt.client.first_into(path):
            await self._attempt.client.disk.meta(leftovers.sweep_top, site.root)
        return self._asking(site), name

    async def _check_write(self, parts: Parts) -> None:
        """Raise what writing into a directory of the server, or the one that it is to be made in, is refused with."""
        client = self._attempt.client
        while parts:
            with suppress(NotFound, NotADirectory):
                if (await client.stat(parts, follow=True)).kind is Kind.DIRECTORY:
                    break
            parts = parts[:-1]
        await client.check_write(parts)


def _make(path: str) -> None:
    """Make a directory of this machine, and those above it, if it is not there; its owner may have closed them."""
    missing: list[bytes] = []
    above = path
    while not os.path.isdir(above):
        above, name = os.path.split(above.rstrip("/"))
        missing.insert(0, os.fsencode(name))
        above = above or "."
    if missing:
        with Root.open(above) as root:
            try:
                root.mkdir(tuple(missing), parents=True)
            except FsmuxError as error:
                reason = str(error).removeprefix(f"{printable(tuple(missing))}: ")
                raise type(error)(f"{printable(path)}: {reason}") from error


def _surely_fresh(destination: Local, name: bytes) -> bool:
    """Whether a file called ``name`` would come where nothing stands, and earlier attempts have left nothing of it."""
    path = os.fsencode(destination.path)
    directory, name = (path, name) if destination.trailing_slash or os.path.isdir(path) else os.path.split(path)
    kept = os.path.join(RESERVED, journal_name((name,), OWNER))
    return not any(os.path.lexists(os.path.join(directory, found)) for found in (name, kept))


def _makes_directory(place: Mapped) -> bool:
    return bool(place.suffix) or place.origin.kind is Kind.DIRECTORY
