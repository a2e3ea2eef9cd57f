"""How a transfer is carried out: scan, plan, make directories, move files, finish directories.

Theory: the two sides of a transfer, the local tree and the remote one, answer the same questions (what stands here,
what is in it, make this directory), so upload and download are one procedure over a source *site* and a destination
*site*.  It carries the plan out with ``streams`` sessions at once, over one connection or a few.

A file that fails fails alone: it becomes a :class:`~fsmux.events.FileFailed` and the rest goes on.  What ends the
first connection ends the transfer; a file that loses another one is begun again on those that are left.
"""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fsmux import events
from fsmux.errors import FsmuxError, NotFound, UsageError
from fsmux.events import FileDone, FileFailed, FileSkipped, Planned, Scanning, Summary
from fsmux.files.names import RESERVED
from fsmux.lanes import Lanes, open_lanes
from fsmux.plan.mapping import Mapped, Origin, Target, map_sources
from fsmux.plan.plan import (
    Action,
    AdjustFile,
    Fail,
    FinishDirectory,
    MakeDirectory,
    MakeSymlink,
    Skip,
    TransferFile,
    plan,
)
from fsmux.plan.walk import Listed
from fsmux.records import Attrs, Kind, Parts, printable
from fsmux.sites import LocalSite, RemoteSite, Site, local_site
from fsmux.urls import Local, Remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsmux.client import Client
    from fsmux.events import Observer
    from fsmux.job import Options
    from fsmux.mux.stream import Stream


@dataclass(slots=True)
class _Item:
    """A source in its place: where it is read, where it goes, and what of it (relative to both) takes part."""

    source: Site
    source_prefix: Parts
    target: Site
    target_prefix: Parts
    top: Attrs
    label: str
    entries: list[Listed]


class Transfer:
    """One transfer over ``client``; :meth:`run` it once."""

    _lanes: Lanes

    def __init__(self, client: Client, options: Options, observer: Observer) -> None:
        self._client = client
        self._options = options
        self._tell = observer
        self._started = time.monotonic()
        self._counts = {"files": 0, "bytes": 0, "sent": 0, "resumed": 0, "skipped": 0, "failed": 0, "retries": 0}
        self._asked: Stream | None = None

    async def run(self, sources: Sequence[Local | Remote], destination: Local | Remote) -> Summary:
        """Move ``sources`` to ``destination``, exactly one side of which is remote, and return what it came to."""
        count = 1 if self._options.dry_run else self._options.connections
        with ExitStack() as open_roots:
            async with open_lanes(self._client, count, self._observer) as self._lanes:
                await self._move(sources, destination, open_roots)
        return self._sum_up()

    async def _move(
        self, sources: Sequence[Local | Remote], destination: Local | Remote, open_roots: ExitStack
    ) -> None:
        looked = await self._ask_early(sources, destination, open_roots)
        items = await self._map(sources, destination, open_roots, looked)
        for item in items:
            await self._scan(item)
        claimed: dict[Parts, dict[Parts, bool]] = {}  # by place: sources that share one must not meet in a name
        actions = [
            (item, action)
            for item in items
            for action in await self._plan(item, claimed.setdefault(item.target_prefix, {}))
        ]
        files = [action for _, action in actions if isinstance(action, TransferFile)]
        skipped = [action for _, action in actions if isinstance(action, Skip)]
        self._observer(
            Planned(
                len(files),
                sum(action.attrs.size for action in files),
                len(skipped),
                sum(action.attrs.size for action in skipped),
            )
        )
        if self._options.dry_run:
            self._rehearse(actions)
        else:
            await self._lanes.dialled()
            with self._lanes.limited(self._options.bwlimit):
                await self._carry_out(actions)

    def _sum_up(self) -> Summary:
        counts = self._counts
        summary = Summary(
            files=counts["files"],
            bytes=counts["bytes"],
            bytes_sent=counts["sent"],
            bytes_resumed=counts["resumed"],
            skipped=counts["skipped"],
            failed=counts["failed"],
            retries=counts["retries"],
            seconds=time.monotonic() - self._started,
        )
        self._observer(summary)
        return summary

    def _observer(self, event: events.Event) -> None:
        if isinstance(event, events.ChunkHealed | events.Retrying):
            self._counts["retries"] += 1
        self._tell(event)

    # ---- what goes where -------------------------------------------------------------------------------------------

    async def _map(
        self,
        sources: Sequence[Local | Remote],
        destination: Local | Remote,
        open_roots: ExitStack,
        looked: Stream | None,
    ) -> list[_Item]:
        origins: list[Origin] = []
        tops: list[tuple[Site, Parts, Attrs]] = []
        for place in sources:
            site, prefix = await self._source_site(place, open_roots)
            if looked is not None:
                async with looked as stream:
                    attrs: Attrs = await stream.expect_message(Attrs)
            else:
                attrs = await site.stat(prefix, follow=place.is_contents)
            if attrs.kind is Kind.SYMLINK and place.is_contents:
                attrs = await site.stat(prefix, follow=True)
            name = prefix[-1] if prefix else b""  # without a name of its own it means its contents
            origins.append(Origin(str(place), name, attrs.kind, place.is_contents))
            tops.append((site, prefix, attrs))
        kind = await self._kind_of(destination)
        target = Target(str(destination), kind, destination.trailing_slash)
        mapped = map_sources(origins, target)
        for place_map in mapped:
            self._observer(events.MappedTo(place_map.describe(target)))
        into_directory = kind is Kind.DIRECTORY or any(_makes_directory(place_map) for place_map in mapped)
        site, base = await self._target_site(destination, into_directory, open_roots)
        return [
            _Item(source, prefix, site, base + place_map.suffix, attrs, place_map.origin.label, [])
            for place_map, (source, prefix, attrs) in zip(mapped, tops, strict=True)
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
        if options.connections > 1:  # a big file will be asked for piece by piece
            return None
        if not await self._client.disk.meta(_surely_fresh, destination, place.path_parts[-1]):
            return None
        asking = RemoteSite(self._client).ask_for(place.path_parts, options)
        looked, self._asked = open_roots.enter_context(asking)
        return looked

    async def _source_site(self, place: Local | Remote, open_roots: ExitStack) -> tuple[Site, Parts]:
        if isinstance(place, Remote):
            return RemoteSite(self._client), place.path_parts
        # A directory's contents are read beneath it; anything else beneath the directory that holds its name.
        path = place.path if place.is_contents else os.path.dirname(place.path) or "."
        name = () if place.is_contents else (os.fsencode(os.path.basename(place.path)),)
        try:
            return await local_site(self._client, self._lanes, path, open_roots), name
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
            return RemoteSite(self._client), destination.path_parts
        path = destination.path if into_directory else os.path.dirname(destination.path) or "."
        name = () if into_directory else (os.fsencode(os.path.basename(destination.path)),)
        if not self._options.dry_run:
            await trio.Path(path).mkdir(parents=True, exist_ok=True)
        elif not await trio.Path(path).is_dir():
            return LocalSite(self._client, self._lanes, None), name
        return await local_site(self._client, self._lanes, path, open_roots), name

    # ---- scanning and planning -------------------------------------------------------------------------------------

    async def _scan(self, item: _Item) -> None:
        files = size = 0
        item.entries.append(Listed((), item.top))
        if item.top.kind is Kind.DIRECTORY:
            async with item.source.walk(item.source_prefix, self._options.filters.keeps) as pages:
                async for page in pages:
                    item.entries.extend(page)
                    for listed in page:
                        if listed.attrs is not None and listed.attrs.kind is Kind.FILE:
                            files += 1
                            size += listed.attrs.size
                    self._observer(Scanning(files, size))

    async def _plan(self, item: _Item, claimed: dict[Parts, bool]) -> Iterable[Action]:
        existing: dict[Parts, Attrs] = {}
        try:
            top = await item.target.stat(item.target_prefix, follow=not item.target_prefix)
            existing[()] = top
            if top.kind is Kind.DIRECTORY and item.top.kind is Kind.DIRECTORY:
                async with item.target.walk(item.target_prefix, self._options.filters.keeps) as pages:
                    async for page in pages:
                        existing.update((listed.parts, listed.attrs) for listed in page if listed.attrs is not None)
        except NotFound:
            pass
        return plan(item.entries, existing, claimed=claimed)

    def _rehearse(self, actions: Iterable[tuple[_Item, Action]]) -> None:
        for item, action in actions:
            match action:
                case Skip() | Fail():
                    self._report_undone(item, action)
                case TransferFile():
                    self._counts["files"] += 1
                    self._counts["bytes"] += action.attrs.size
                    self._observer(events.WouldDo("send", self._name(item, action.parts), action.attrs.size))
                case MakeDirectory():
                    self._observer(events.WouldDo("make directory", self._name(item, action.parts), 0))
                case MakeSymlink():
                    self._observer(events.WouldDo("make link", self._name(item, action.parts), 0))
                case AdjustFile():
                    self._observer(events.WouldDo("set mode of", self._name(item, action.parts), 0))
                case FinishDirectory():
                    pass

    # ---- carrying out ----------------------------------------------------------------------------------------------

    async def _carry_out(self, actions: Sequence[tuple[_Item, Action]]) -> None:
        directories = [pair for pair in actions if isinstance(pair[1], MakeDirectory)]
        finishing = [pair for pair in actions if isinstance(pair[1], FinishDirectory)]
        rest = [pair for pair in actions if not isinstance(pair[1], MakeDirectory | FinishDirectory)]
        targets = {id(item.target): item.target for item, _ in actions}
        async with AsyncExitStack() as kept:
            for target in targets.values():
                await kept.enter_async_context(target.keep_state())
            for level in _by_depth(directories):
                await self._all(level)
            await self._all(rest)
        for level in reversed(_by_depth(finishing)):
            await self._all(level)

    async def _all(self, actions: Sequence[tuple[_Item, Action]]) -> None:
        """Carry out actions that do not depend on one another, ``streams`` at a time."""
        waiting = iter(actions)
        lost: FsmuxError | None = None

        async def work() -> None:
            nonlocal lost
            for item, action in waiting:
                try:
                    await self._do(item, action)
                except FsmuxError as exc:
                    lost = lost or exc
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(self._options.streams, len(actions))):
                nursery.start_soon(work)
        if lost is not None:
            raise lost

    async def _do(self, item: _Item, action: Action) -> None:
        target = item.target_prefix + action.parts
        try:
            match action:
                case Skip() | Fail():
                    self._report_undone(item, action)
                case MakeDirectory(attrs=attrs):
                    # The owner must be able to fill it; its own mode comes when it is finished.
                    await item.target.mkdir(target, attrs.mode | 0o700)
                case MakeSymlink(attrs=attrs):
                    await item.target.symlink(target, attrs)
                case AdjustFile(attrs=attrs) | FinishDirectory(attrs=attrs):
                    await item.target.set_attrs(target, attrs)
                case TransferFile():
                    await self._transfer(item, action)
        except FsmuxError as exc:
            failure = self._client.connection.failure
            if failure is not None:
                raise failure from exc  # said once, and not of each file that was still to come
            self._fail(item, action.parts, exc)

    async def _transfer(self, item: _Item, action: TransferFile) -> None:
        name = self._name(item, action.parts)
        source, target = item.source_prefix + action.parts, item.target_prefix + action.parts
        fresh = action.existing is None
        if isinstance(item.target, LocalSite):
            outcome = await item.target.fetch(
                source, target, name, self._observer, self._options, fresh=fresh, size=action.attrs.size,
                asked=self._asked if not action.parts else None,
            )  # fmt: skip
        else:
            assert isinstance(item.source, LocalSite)
            outcome = await item.source.push(source, target, name, self._observer, self._options, fresh=fresh)
        self._counts["files"] += 1
        self._counts["bytes"] += outcome.bytes
        self._counts["sent"] += outcome.bytes_sent
        self._counts["resumed"] += outcome.bytes_resumed
        self._observer(
            FileDone(
                name, outcome.bytes, outcome.bytes_sent, outcome.bytes_resumed, f"{outcome.crc32:08x}", outcome.durable
            )
        )

    # ---- reporting -------------------------------------------------------------------------------------------------

    def _name(self, item: _Item, parts: Parts) -> str:
        """What a person calls a file: its path below the source that was named."""
        return printable(parts) if parts else printable(item.label.rstrip("/").rpartition("/")[2] or item.label)

    def _report_undone(self, item: _Item, action: Skip | Fail) -> None:
        if isinstance(action, Fail):
            self._fail(item, action.parts, action.error)
            return
        self._counts["skipped"] += 1
        name = self._name(item, action.parts)
        self._observer(FileSkipped(name, action.attrs.size, action.reason))
        if action.warn:
            self._observer(events.Warned(name, f"skipped: {action.reason}"))

    def _fail(self, item: _Item, parts: Parts, error: FsmuxError) -> None:
        self._counts["failed"] += 1
        text = str(error) if parts else str(error).removeprefix(".: ")  # the source itself has a name in the event
        self._observer(FileFailed(self._name(item, parts), error.code.name, text, error.retryable))


def _surely_fresh(destination: Local, name: bytes) -> bool:
    """Whether a file called ``name`` would come where nothing stands and nothing is kept of earlier attempts."""
    path = os.fsencode(destination.path)
    directory, name = (path, name) if destination.trailing_slash or os.path.isdir(path) else os.path.split(path)
    return not any(os.path.lexists(os.path.join(directory, found)) for found in (name, RESERVED))


def _makes_directory(place: Mapped) -> bool:
    return bool(place.suffix) or place.origin.kind is Kind.DIRECTORY


def _by_depth(actions: Iterable[tuple[_Item, Action]]) -> list[list[tuple[_Item, Action]]]:
    levels: dict[int, list[tuple[_Item, Action]]] = {}
    for item, action in actions:
        levels.setdefault(len(action.parts), []).append((item, action))
    return [levels[depth] for depth in sorted(levels)]
