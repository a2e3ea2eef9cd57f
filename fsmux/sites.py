"""The two sides of a transfer, the local tree and the remote one, behind one set of questions.

A *site* can say what stands under a name and what is beneath it, and can make what is not a file.  Files move between
a local site and the server by the two halves of ``fsmux.transfer``: :meth:`LocalSite.push` has the file,
:meth:`LocalSite.fetch` lacks it.  The local site is confined to its root as strictly as a server is to its own.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from fsmux.errors import ErrorCode, NotFound, from_code
from fsmux.files.root import Root
from fsmux.files.sink import Sink, may_resume, open_sink
from fsmux.files.source import Source
from fsmux.lanes import SPREAD_BYTES, Lane, Lanes
from fsmux.plan.walk import Listed, walk
from fsmux.records import Attrs, Kind, Parts
from fsmux.transfer.receiver import Receiving
from fsmux.transfer.sender import Sending
from fsmux.transfer.session import Outcome, Report, together
from fsmux.wire.frames import JOIN_FEATURE
from fsmux.wire.messages import JOIN_SIZE, Get, Offer, Put, Stat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from fsmux.client import Client
    from fsmux.events import Observer
    from fsmux.job import Options
    from fsmux.mux.stream import Stream
    from fsmux.wire.messages import Entry

    Keep = Callable[[Parts, bool], bool]
    Pages = AsyncIterator[list[Listed]]

OWNER = b"local"
"""Whose partial files a client keeps: those of the account that runs it."""


class Site(Protocol):
    """What can be asked of either side; all raise typed errors."""

    async def stat(self, parts: Parts, *, follow: bool = False) -> Attrs: ...
    def walk(self, parts: Parts, keep: Keep) -> AbstractAsyncContextManager[Pages]: ...
    async def mkdir(self, parts: Parts, mode: int) -> None: ...
    async def symlink(self, parts: Parts, attrs: Attrs) -> None: ...
    async def set_attrs(self, parts: Parts, attrs: Attrs) -> None: ...
    def keep_state(self) -> AbstractAsyncContextManager[None]: ...


class RemoteSite:
    """The server's side."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def stat(self, parts: Parts, *, follow: bool = False) -> Attrs:
        return await self._client.stat(parts, follow=follow)

    @asynccontextmanager
    async def walk(self, parts: Parts, keep: Keep) -> AsyncIterator[Pages]:
        async with self._client.pages(parts, recursive=True) as pages:
            yield _kept(pages, keep)

    @contextmanager
    def ask_for(self, parts: Parts, options: Options) -> Iterator[tuple[Stream, Stream]]:
        """Ask for a file before it is known to be one, in the hope that it is and comes a round trip sooner.

        Nothing may stand or be kept at its destination. Until somebody reads it, it takes no more than the initial
        credit; what nobody has taken over by the end of the block is called off. The first stream is that of a STAT,
        sent before, so that its answer does not come behind the first frame of the file.
        """
        open_stream = self._client.connection.open_stream
        streams = (
            open_stream(Stat(parts, False), end=True),
            open_stream(Get(parts, fresh=True, chunk_size=options.chunk_size)),
        )
        try:
            yield streams
        finally:
            for stream in streams:
                if not stream.left:
                    stream.reset(ErrorCode.CANCELLED)
                    stream.close()

    async def mkdir(self, parts: Parts, mode: int) -> None:
        await self._client.mkdir(parts, parents=True, mode=mode)

    async def symlink(self, parts: Parts, attrs: Attrs) -> None:
        await self._client.symlink(parts, attrs.link_target, attrs)

    async def set_attrs(self, parts: Parts, attrs: Attrs) -> None:
        await self._client.set_attrs(parts, attrs)

    @asynccontextmanager
    async def keep_state(self) -> AsyncIterator[None]:
        """The server keeps its own."""
        yield


async def _kept(pages: AsyncIterator[tuple[Entry, ...]], keep: Keep) -> Pages:
    """Listed entries of a server's pages, without those that are left out, and what is beneath them."""
    dropped: set[Parts] = set()
    async for page in pages:
        result: list[Listed] = []
        for entry in page:
            parts, attrs, fault = entry.path, entry.attrs, entry.fault
            if parts[:-1] in dropped or not keep(parts, attrs is not None and attrs.kind is Kind.DIRECTORY):
                dropped.add(parts)
                continue
            result.append(Listed(parts, attrs, from_code(fault.code, fault.text) if fault is not None else None))
        yield result


class LocalSite:
    """A directory on this machine, held open. Without a root it is one that does not exist yet."""

    def __init__(self, client: Client, lanes: Lanes, root: Root | None) -> None:
        self._client = client
        self._lanes = lanes
        self._disk = client.disk
        self._held = root

    @property
    def _root(self) -> Root:
        if self._held is None:
            raise NotFound("no such directory")
        return self._held

    async def stat(self, parts: Parts, *, follow: bool = False) -> Attrs:
        root = self._root
        return await self._disk.meta(root.stat, parts, follow)

    @asynccontextmanager
    async def walk(self, parts: Parts, keep: Keep) -> AsyncIterator[Pages]:
        with closing(walk(self._root.scan, parts, keep=keep)) as found:

            async def pages() -> Pages:
                while (page := await self._disk.meta(next, found, None)) is not None:
                    yield page

            yield pages()

    async def mkdir(self, parts: Parts, mode: int) -> None:
        await self._disk.meta(self._root.mkdir, parts, True, mode)

    async def symlink(self, parts: Parts, attrs: Attrs) -> None:
        await self._disk.meta(self._root.symlink, parts, attrs.link_target, attrs)

    async def set_attrs(self, parts: Parts, attrs: Attrs) -> None:
        await self._disk.meta(self._root.set_attrs, parts, attrs)

    @asynccontextmanager
    async def keep_state(self) -> AsyncIterator[None]:
        """Keep the directory of unfinished files for the block: many small files need it many times."""
        with ExitStack() as stack:
            await self._disk.meta(stack.enter_context, self._root.keep_state())
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):  # one rmdir
                    await self._disk.meta(stack.close)

    async def push(
        self, parts: Parts, target: Parts, name: str, observer: Observer, options: Options, *, fresh: bool
    ) -> Outcome:
        """Upload a file. ``fresh``: nothing is known to stand at its destination."""
        source = await self._disk.meta(Source.open, self._root, parts)
        with source:
            sending = Sending(source, self._disk, self._client.digests, Report(name, observer), options.chunk_size)
            size = source.identity.size
            eager = fresh and _single_chunk(size, options)
            # The same in all attempts: the next one joins what the server may still keep for a connection that is lost.
            join = secrets.token_bytes(JOIN_SIZE) if self._may_join and options.connections > 1 and not eager else b""

            async def attempt() -> Outcome:
                with self._lanes_for(size) as lanes:
                    streams = len(lanes) if join else 0
                    request = Put(target, not options.resume, options.durability, join=join, streams=streams)

                    async def send(lane: Lane) -> Outcome:
                        async with lane.connection.open_stream(request) as stream:
                            return await sending.send_on(stream, eager=eager)

                    return await together([partial(send, lane) for lane in lanes])

            outcome = await self._lanes.on_what_is_left(attempt, name, observer)
            return replace(outcome, bytes_sent=sending.sent)

    async def fetch(
        self, source: Parts, parts: Parts, name: str, observer: Observer, options: Options, *, fresh: bool, size: int,
        asked: Stream | None = None,
    ) -> Outcome:  # fmt: skip
        """Download a file of ``size`` bytes. ``fresh``: nothing stands at its destination.

        Where nothing was kept of it either, it comes without a question what is missing. ``asked`` is the stream of a
        :meth:`RemoteSite.ask_for` that has asked for it already.
        """
        root = self._root

        def open_for(offer: Offer) -> Sink:
            return open_sink(
                root,
                parts,
                offer.identity,
                offer.mode,
                offer.chunk_size,
                owner=OWNER,
                resume=options.resume and not offer.eager,
                durability=options.durability,
                clock=time.monotonic,
            )

        report = Report(name, observer)

        async def attempt() -> Outcome:
            eager = fresh
            if asked is None and fresh and not _single_chunk(size, options):
                eager = not await self._disk.meta(may_resume, root, parts, OWNER)
            with self._lanes_for(size) as lanes:
                joint = len(lanes) > 1
                receiving = Receiving(open_for, self._disk, report, streams=len(lanes), joint=joint)
                request = Get(source, fresh=eager and not joint, chunk_size=options.chunk_size)

                async def receive(lane: Lane) -> Outcome | None:
                    if lane is not lanes[0] and await receiving.to_come() <= SPREAD_BYTES:
                        receiving.alone()
                        return None
                    opened = lane.connection.open_stream(request) if joint or asked is None else asked
                    async with opened as stream:
                        return await receiving.receive_on(stream)

                return await together([partial(receive, lane) for lane in lanes])

        return await self._lanes.on_what_is_left(attempt, name, observer)

    @property
    def _may_join(self) -> bool:
        return JOIN_FEATURE in self._client.connection.peer_hello.features

    @contextmanager
    def _lanes_for(self, size: int) -> Iterator[list[Lane]]:
        """The lanes that a file of ``size`` bytes goes over, for the block: one, or all if it is big."""
        alive = self._lanes.alive
        if size <= SPREAD_BYTES or len(alive) < 2 or not self._may_join:
            with self._lanes.least_busy() as lane:
                yield [lane]
        else:
            with self._lanes.carrying(alive):
                yield alive


def _single_chunk(size: int, options: Options) -> bool:
    """Whether nothing of a file can have been kept by an earlier attempt, so that nobody needs to be asked for it."""
    return size <= options.chunk_size


async def local_site(client: Client, lanes: Lanes, path: str, open_roots: ExitStack) -> LocalSite:
    """The site at ``path``, closed with ``open_roots``. Raises the typed error if it is no directory."""
    root = await client.disk.meta(Root.open, path)
    open_roots.enter_context(root)
    return LocalSite(client, lanes, root)
