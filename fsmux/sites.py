"""The two sides of a transfer, the local tree and the remote one, behind one interface.

A *site* can say what stands under a name and what is beneath it, and can make what is not a file.  Files move between
a local site and the server by the two halves of ``fsmux.transfer``: :meth:`LocalSite.push` has the file,
:meth:`LocalSite.fetch` lacks it, and each imports its half when it is called: no command needs both, and most trees
need neither.  The local site is confined to its root as strictly as a server is to its own.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, aclosing, asynccontextmanager, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from fsmux.columns import Act
from fsmux.errors import ErrorCode, FsmuxError, NotFound, ProtocolError
from fsmux.files import listing
from fsmux.files.root import Root
from fsmux.lanes import SPREAD_BYTES, Lane, Lanes
from fsmux.limits import INITIAL_CREDIT
from fsmux.plan.walk import batches, preorder
from fsmux.questions import LocalDigester, LocalLooker, RemoteDigester, RemoteLooker
from fsmux.records import EVERYTHING, Attrs
from fsmux.transfer.disk import poll
from fsmux.transfer.session import Outcome, Report, together
from fsmux.wire.frames import JOIN_FEATURE
from fsmux.wire.messages import Digest, Get, Listed, Look, Offer, Ok, Pack, Put, Stat, Walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
    from contextlib import AbstractAsyncContextManager

    from fsmux.client import Client
    from fsmux.columns import Group
    from fsmux.events import Observer
    from fsmux.files.passing import ChunkDigests
    from fsmux.files.sink import Sink
    from fsmux.job import Options
    from fsmux.moving.comparing import Digester
    from fsmux.moving.tree import Looker
    from fsmux.mux.stream import Stream
    from fsmux.records import Durability, Kept, Parts
    from fsmux.transfer.packs import Arrived

    Batches = AsyncGenerator[list[Group], None]

OWNER = b"local"
"""Whose partial files a client keeps: those of the account that runs it."""


class Site(Protocol):
    """What can be asked of either side; all raise typed errors."""

    kept: Kept
    """Whether it says whose things are, and their extended attributes."""

    async def stat(self, parts: Parts, *, follow: bool = False) -> Attrs: ...
    def scan(self, parts: Parts) -> AbstractAsyncContextManager[Batches]:
        """The tree at ``parts`` for the block, directories before what is in them."""

    def looking(self, parts: Parts, *, nothing: bool) -> AbstractAsyncContextManager[Looker | None]:
        """What stands in directories below ``parts``, for the block; None if nothing does."""

    def digesting(self, parts: Parts) -> AbstractAsyncContextManager[Digester]:
        """Who reads files below ``parts`` for their digests, for the block."""

    async def symlink(self, parts: Parts, attrs: Attrs, durability: Durability) -> None: ...
    async def set_attrs(self, parts: Parts, attrs: Attrs, durability: Durability, found_ns: int = 0) -> None: ...
    async def remove(self, parts: Parts, *, recursive: bool) -> None: ...


class RemoteSite:
    """The server's side.  ``kept`` says whether it is asked whose things are, and for extended attributes."""

    kept = EVERYTHING

    def __init__(self, client: Client) -> None:
        self._client = client

    async def stat(self, parts: Parts, *, follow: bool = False) -> Attrs:
        stat = Stat(parts, follow, self.kept.owner, self.kept.xattrs)
        async with self._client.connection.open_stream(stat, end=True) as stream:
            attrs: Attrs = await stream.expect_message(Attrs)
            return attrs

    @asynccontextmanager
    async def scan(self, parts: Parts) -> AsyncIterator[Batches]:
        async with self._client.connection.open_stream(
            Walk(parts, self.kept.owner, self.kept.xattrs), end=True
        ) as stream:
            stream.expect(None)

            async def batches() -> Batches:
                while isinstance(page := await stream.expect_message(Listed, Ok), Listed):
                    yield list(page.groups)

            async with aclosing(batches()) as found:
                yield found

    @asynccontextmanager
    async def giving(self, parts: Parts, pack_bytes: int, medium: int) -> AsyncIterator[AsyncGenerator[Arrived, None]]:
        """The tree at ``parts`` for the block, in packs of about so many bytes, with files of up to ``medium``."""
        from fsmux.transfer.packs import gathered

        walk = Walk(parts, self.kept.owner, self.kept.xattrs, pack_bytes, medium)
        async with self._client.connection.open_stream(walk, end=True) as stream:
            stream.expect(None)

            async def packs() -> AsyncGenerator[Arrived, None]:
                while isinstance(pack := await stream.expect_message(Pack, Ok), Pack):
                    yield await gathered(stream, _of_a_tree(pack))

            async with aclosing(packs()) as found:
                yield found

    @asynccontextmanager
    async def looking(self, parts: Parts, *, nothing: bool) -> AsyncIterator[Looker | None]:
        if nothing:
            yield None
            return
        look = Look(parts, owners=self.kept.owner, xattrs=self.kept.xattrs)
        async with self._client.connection.open_stream(look) as stream:
            stream.expect(None)
            yield RemoteLooker(stream)
            stream.reset(ErrorCode.CANCELLED)  # of what it was asked for, nothing more matters

    @asynccontextmanager
    async def digesting(self, parts: Parts) -> AsyncIterator[Digester]:
        async with self._client.connection.open_stream(Digest(parts)) as stream:
            stream.expect(None)
            yield RemoteDigester(stream)
            stream.reset(ErrorCode.CANCELLED)  # nothing more is asked for

    @contextmanager
    def ask_for(self, parts: Parts, options: Options) -> Iterator[tuple[Stream, Stream]]:
        """Ask for a file before it is known to be one, in the hope that it is and comes a round trip sooner.

        Nothing may stand or be kept at its destination. Until somebody reads it, it takes no more than the initial
        credit; what nobody has taken over by the end of the block is called off. The first stream is that of a STAT,
        sent before, so that its answer does not come behind the first frame of the file.
        """
        open_stream = self._client.connection.open_stream
        streams = (
            open_stream(Stat(parts, False, options.kept.owner, options.kept.xattrs), end=True),
            open_stream(Get(parts, fresh=True, chunk_size=options.chunk_size)),
        )
        try:
            yield streams
        finally:
            for stream in streams:
                if not stream.left:
                    stream.reset(ErrorCode.CANCELLED)
                    stream.close()

    async def symlink(self, parts: Parts, attrs: Attrs, durability: Durability) -> None:
        await self._client.symlink(parts, attrs.link_target, attrs, durability=durability)

    async def set_attrs(self, parts: Parts, attrs: Attrs, durability: Durability, found_ns: int = 0) -> None:
        await self._client.set_attrs(parts, attrs, durability=durability, found_ns=found_ns)

    async def remove(self, parts: Parts, *, recursive: bool) -> None:
        await self._client.remove(parts, recursive=recursive)


class LocalSite:
    """A directory on this machine, held open. Without a root it is one that does not exist yet.

    ``kept`` says whether it tells whose things are, and their extended attributes.
    """

    kept = EVERYTHING

    def __init__(self, client: Client, lanes: Lanes, root: Root | None) -> None:
        self._client = client
        self._lanes = lanes
        self._disk = client.disk
        self._held = root

    @property
    def root(self) -> Root:
        if self._held is None:
            raise NotFound("no such directory")
        return self._held

    async def stat(self, parts: Parts, *, follow: bool = False) -> Attrs:
        root = self.root
        return await self._disk.meta(root.stat, parts, follow, self.kept.owner, self.kept.xattrs)

    def _listing(self, root: Root, parts: Parts) -> Generator[Group, None, None]:
        return listing.groups(root, parts, self.kept.owner, self.kept.xattrs, told=True)

    @asynccontextmanager
    async def scan(self, parts: Parts) -> AsyncIterator[Batches]:
        root = self.root
        with (
            closing(preorder(partial(self._listing, root), parts)) as found,
            closing(batches(found)) as hops,
        ):

            async def pages() -> Batches:
                while (batch := await self._disk.pack(next, hops, None)) is not None:
                    yield batch

            async with aclosing(pages()) as batched:
                yield batched

    @asynccontextmanager
    async def looking(self, parts: Parts, *, nothing: bool) -> AsyncIterator[Looker | None]:
        if nothing or self._held is None:
            yield None
            return
        with closing(LocalLooker(self._disk, self._held, parts, self.kept)) as looker:
            yield looker

    @asynccontextmanager
    async def digesting(self, parts: Parts) -> AsyncIterator[Digester]:
        yield LocalDigester(self._disk, self.root, parts)

    async def symlink(self, parts: Parts, attrs: Attrs, durability: Durability) -> None:
        await self._disk.meta(self.root.symlink, parts, attrs.link_target, attrs, durability)

    async def set_attrs(self, parts: Parts, attrs: Attrs, durability: Durability, found_ns: int = 0) -> None:
        await self._disk.meta(self.root.set_attrs, parts, attrs, durability, found_ns)

    async def remove(self, parts: Parts, *, recursive: bool) -> None:
        await self._disk.meta(self.root.remove, parts, recursive, poll=poll)

    async def push(
        self, parts: Parts, target: Parts, name: str, observer: Observer, options: Options, *, fresh: bool,
        passing: ChunkDigests | None = None, like: Parts = (), attrs: Attrs | None = None,
    ) -> Outcome:  # fmt: skip
        """Upload a file. ``fresh``: nothing is known to stand at its destination. ``passing`` sees what is read.

        ``like`` is a file there that may have the same bytes.  It gets owner and extended attributes of ``attrs``
        before its name.
        """
        from fsmux.files.source import Source
        from fsmux.transfer.sender import Sending

        source = await self._disk.meta(Source.open, self.root, parts)
        with source:
            digests, report = self._client.digests, Report(name, observer)
            sending = Sending(source, self._disk, digests, report, options.chunk_size, passing)
            size = source.identity.size
            eager = fresh and not like and _is_short(size, options)
            # The same in all attempts, so that what the server keeps for a lost connection is not somebody else's.
            run = self._lanes.run
            join = run.id if self._may_join else b""

            async def attempt() -> Outcome:
                with self._lanes_for(size) as lanes:
                    streams = len(lanes) if join else 0
                    request = Put(
                        target, not options.resume, options.durability,
                        join=join, streams=streams, attempt=run.attempt, verify=options.verify, like=like,
                        kept=options.kept, attrs=attrs,
                    )  # fmt: skip

                    async def send(lane: Lane) -> Outcome:
                        async with lane.connection.open_stream(request) as stream:
                            return await sending.send_on(stream, eager=eager)

                    return await together([partial(send, lane) for lane in lanes])

            outcome = await self._lanes.on_what_is_left(attempt, name, observer)
            return replace(outcome, bytes_sent=sending.sent)

    async def fetch(
        self, source: Parts, parts: Parts, name: str, observer: Observer, options: Options, *, fresh: bool, size: int,
        asked: Stream | None = None, passing: ChunkDigests | None = None, like: Parts = (), attrs: Attrs | None = None,
    ) -> Outcome:  # fmt: skip
        """Download a file of ``size`` bytes. ``fresh``: nothing stands at its destination.

        Where nothing was kept of it either, it comes without a question what is missing. ``asked`` is the stream of a
        :meth:`RemoteSite.ask_for` that has asked for it already. ``passing`` sees what is written. ``like`` is a file
        here that may have the same bytes.  It gets owner and extended attributes of ``attrs`` before its name.
        """
        from fsmux.files.opening import may_resume, open_sink
        from fsmux.transfer.receiver import Receiving

        root = self.root

        def open_for(offer: Offer) -> Sink:
            sink = open_sink(
                root,
                parts,
                offer.identity,
                offer.mode,
                offer.chunk_size,
                owner=OWNER,
                resume=options.resume and not offer.eager,
                durability=options.durability,
                kept=options.kept,
                attrs=attrs,
                verify=options.verify,
                like=like,
                holes=offer.holes,
                clock=time.monotonic,
                poll=poll,
            )
            if passing is not None:
                passing.attach(sink)
            return sink

        report = Report(name, observer)

        async def attempt() -> Outcome:
            eager = fresh and not like
            if asked is None and eager and not _is_short(size, options):
                eager = not await self._disk.meta(may_resume, root, parts, OWNER)
            with self._lanes_for(size) as lanes:
                joint = len(lanes) > 1
                receiving = Receiving(open_for, self._disk, report, streams=len(lanes), joint=joint)
                request = Get(source, fresh=eager and not joint, chunk_size=options.chunk_size)

                async def receive(lane: Lane) -> Outcome | None:
                    if lane is not lanes[0] and await receiving.to_come() <= SPREAD_BYTES:
                        receiving.alone()
                        return None
                    try:
                        opened = lane.connection.open_stream(request) if joint or asked is None else asked
                    except FsmuxError:
                        receiving.nothing_came()
                        raise
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


def _of_a_tree(pack: Pack) -> Pack:
    """A pack that nobody has asked for: it makes what a listing has, and tells of the rest of that."""
    for group in pack.groups:
        if group.act not in (Act.MAKE, Act.LIST) or group.itself or group.as_asked or group.finish is not None:
            raise ProtocolError("the server sent something else than a tree")
    return pack


def _is_short(size: int, options: Options) -> bool:
    """Whether a file travels before anybody was asked what is kept of it: the first credit covers it anyway."""
    return size <= min(options.chunk_size, INITIAL_CREDIT)


async def local_site(client: Client, lanes: Lanes, path: str, open_roots: ExitStack) -> LocalSite:
    """The site at ``path``, closed with ``open_roots``. Raises the typed error if it is no directory."""
    root = await client.disk.meta(Root.open, path)
    open_roots.enter_context(root)
    return LocalSite(client, lanes, root)
