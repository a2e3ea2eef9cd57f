"""What takes the small things of a tree to the other side: packs up, packs down, or words only.

Theory: a *carrier* is given groups in the order in which they are to be done, cuts them into packs, and keeps some
packs on their way at once.  For an upload it reads and sends them, and hears how each went.  For a download it asks for
them and writes what comes: only what it has asked for, in the words it has asked in, or a server could plant files that
nobody wanted.  A pack that waits for its turn waits with its names only.

A tree of which nothing stands yet comes by itself, and is planned as it comes: what of a pack the plan has made of it
is done, all of it, and what is to be asked for all the same comes behind that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio
from msgspec import Struct
from msgspec.structs import replace

from fsmux.columns import KIND_BITS, REGULAR, Act, Group, finished_by
from fsmux.errors import ProtocolError, from_code
from fsmux.files import leftovers
from fsmux.moving.packs import Packs
from fsmux.mux.service import all_of
from fsmux.records import EVERYTHING, Durability, Kept, Parts
from fsmux.sites import OWNER
from fsmux.wire.frames import FINISH_FEATURE
from fsmux.wire.messages import Ask, Fetch, Pack, Packed, Store
from fsmux.wire.messages.groups import completed

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from fsmux.files.root import Root
    from fsmux.files.terms import Failure
    from fsmux.moving.account import Account
    from fsmux.moving.ledger import TreeNotes
    from fsmux.moving.pacing import Pace
    from fsmux.moving.packs import Errors
    from fsmux.mux.connection import Connection
    from fsmux.mux.stream import Stream
    from fsmux.transfer.disk import Disk
    from fsmux.transfer.packs import Arrived, Put
    from fsmux.transfer.session import Run


class Route(Struct, frozen=True):
    """Where the files of a tree are and where they go, one of them on this machine, the other on the server."""

    connection: Connection
    disk: Disk
    root: Root
    here: Parts
    there: Parts
    durability: Durability
    verify: bool
    run: Run
    pace: Pace
    notes: TreeNotes | None = None
    """Who is told of files that stand, if a manifest is made."""
    kept: Kept = EVERYTHING


class Watch(Protocol):
    """Who is told what became of entries."""

    def __call__(self, group: Group, failed: Container[int], again: Container[int] = ()) -> None: ...


class Carrier(Protocol):
    """Takes groups to the other side."""

    watch: Watch | None

    async def put(self, group: Group, *, told: bool = True) -> None:
        """Do this after all that was put before, and tell of it. Waits while too much is on its way."""

    async def hurry(self) -> None:
        """Nothing more may come for a while: do not wait for a pack to become full."""

    async def flush(self) -> None:
        """Have all that was put, and all that is to be tried again, be on its way."""

    async def end(self) -> None:
        """Nothing more comes."""

    async def run(self) -> None:
        """Carry until the end, and return when all has been done."""


async def carry_all(carrier: Carrier, groups: Iterable[tuple[Group, bool]]) -> None:
    """Have groups done in their order, and told if they are to be; raises what ends the whole of it."""

    async def put() -> None:
        for group, told in groups:
            await carrier.put(group, told=told)
        await carrier.end()

    await all_of(put, carrier.run)


class Upload(Packs):
    """Packs to the server."""

    def _may_finish(self) -> bool:
        return FINISH_FEATURE in self._route.connection.peer_hello.features

    async def _carry(self) -> None:
        route = self._route
        request = Store(
            route.there, route.durability, join=route.run.id, attempt=route.run.attempt, verify=route.verify,
            kept=route.kept,
        )  # fmt: skip
        async with route.connection.open_stream(request) as stream:
            await all_of(partial(self._send, stream), partial(self._hear, stream))

    async def _send(self, stream: Stream) -> None:
        from fsmux.files.packing import read_pack
        from fsmux.transfer.packs import PackSender, send_pack

        route, sender = self._route, PackSender(stream)

        async def carry(number: int, groups: list[Group]) -> None:
            read = read_pack if route.notes is None else route.notes.reader(number)
            await send_pack(sender, route.disk, route.root, route.here, number, groups, read)

        await self._each(carry)
        stream.end()

    async def _hear(self, stream: Stream) -> None:
        while (packed := await stream.receive()) is not None:
            groups = self._under_way.get(packed.number) if isinstance(packed, Packed) else None
            if not isinstance(packed, Packed) or groups is None:
                raise ProtocolError("the server acknowledged what was never sent")
            failed: Errors = []
            for place, index, fault, stands in packed.failed:
                if place >= len(groups) or index >= _entries(groups[place]):
                    raise ProtocolError("the server failed at what was never sent")
                error = from_code(fault.code, fault.text)
                if stands:
                    self._warn(groups[place], index, error)
                else:
                    failed.append((place, index, error))
            self._finished(packed.number, groups, failed, packed.durable)
        self._ended(answered=stream.local_ended and not self._under_way)


class Download(Packs):
    """Packs from the server: those that are asked for, and with ``unasked`` others, which :meth:`came` takes.

    With those goes what the server knows nothing of, as long as nothing was asked for.
    """

    _unfinished: leftovers.Superseding

    def __init__(self, route: Route, report: Account, *, unasked: bool = False) -> None:
        super().__init__(route, report)
        self._asked: set[int] = set()  # packs that were asked for and have not come
        self._unasked = unasked
        self._comes = route.pace.pack_bytes if unasked else None  # bytes of the next pack that comes, about
        self._pending: list[Group] = []  # what goes with the next pack that comes
        self._filling: dict[Parts, Group] = {}  # the last group of it in each directory
        self._later: list[tuple[Group, bool]] = []  # what is to be asked for when that has come
        self._has_asked = False
        self._asking = trio.Lock()
        self._may_ask = trio.Event()  # or nothing will be
        self._came_in: trio.MemorySendChannel[Arrived]
        self._came: trio.MemoryReceiveChannel[Arrived]
        self._came_in, self._came = trio.open_memory_channel(0)

    async def put(self, group: Group, *, told: bool = True) -> None:
        if not self._unasked:
            await super().put(group, told=told)
        elif group.crcs or not (self._later or self._has_asked or _travels(group)):
            self._pend(group, told)
        else:
            self._later.append((group, told))

    def _pend(self, group: Group, told: bool) -> None:
        if not told and self._goes_with(group, partial(finished_by, self._filling.get(group.directory))):
            return
        self._pending.append(group)
        if group.act is Act.MAKE and group.names:
            self._filling[group.directory] = group

    async def came(self, arrived: Arrived) -> None:
        """Take a pack that has come unasked, of which all was put that is to be made."""
        came = [id(group) for group in arrived.pack.groups if group.crcs]
        arrived.pack = self._of_pending()
        if came != [id(group) for group in arrived.pack.groups if group.crcs]:
            raise ProtocolError("the server sent what is in no directory that it has named")
        await self._came_in.send(replace(arrived))
        arrived.held = []
        await self._ask_later()

    def _of_pending(self) -> Pack:
        pack = Pack(self._begin(self._pending), tuple(self._pending))
        self._by_itself.add(pack.number)
        self._pending, self._filling = [], {}
        return pack

    async def _ask_later(self) -> None:
        async with self._asking:  # or what was put later could come first
            while self._later:
                self._has_asked = True
                self._may_ask.set()
                later, self._later = self._later, []
                for group, told in later:
                    await super().put(group, told=told)

    async def _settle(self) -> None:
        """Have done what waits for a pack to come."""
        if self._pending:
            from fsmux.files.contents import Contents
            from fsmux.transfer.packs import Arrived

            await self._came_in.send(Arrived(self._of_pending(), Contents(())))
        await self._ask_later()

    def _lost(self) -> int | None:
        return self._comes if self._comes is not None else super()._lost()

    async def flush(self) -> None:
        await self._settle()
        await super().flush()

    async def end(self) -> None:
        await self._settle()
        self._came_in.close()
        self._comes = None
        self._may_ask.set()
        await super().end()

    async def _carry(self) -> None:
        from fsmux.files.unpacking import Unpacker
        from fsmux.transfer.packs import write_packs

        route = self._route
        if self._comes is not None:
            route.pace.resume(trio.current_time())
        if route.notes is None:
            unpacker = Unpacker(route.root, route.here, route.durability, route.kept, verify=route.verify)
        else:
            unpacker = route.notes.unpacker(route.durability, route.kept, verify=route.verify)
        self._durable = unpacker.durable
        self._unfinished = await route.disk.meta(leftovers.Superseding, route.root, route.here, OWNER)
        await write_packs(self._arrive, unpacker, route.disk, done=self._done)
        self._ended(answered=not self._under_way)
        await route.disk.meta(self._unfinished.sweep)

    async def _arrive(self, put: Put) -> None:
        async def what_comes_by_itself() -> None:
            async for arrived in self._came:
                await put(arrived)

        await all_of(what_comes_by_itself, partial(self._fetch, put))

    async def _fetch(self, put: Put) -> None:
        """What is to be asked for."""
        from fsmux.transfer.packs import put_packs

        if self._unasked:
            await self._may_ask.wait()
            if not (self._has_asked or self._again):
                return  # a stream would take one more round trip

        async def hear() -> None:
            await put_packs(stream, self._check, put)
            self._ended(answered=stream.local_ended)

        async with self._route.connection.open_stream(Fetch(self._route.there)) as stream:
            await all_of(partial(self._ask, stream), hear)

    async def _ask(self, stream: Stream) -> None:
        async def carry(number: int, groups: list[Group]) -> None:
            self._asked.add(number)
            await stream.send(Ask(number, tuple([group for group in groups if _travels(group)])))

        await self._each(carry)
        stream.end()

    def _check(self, pack: Pack) -> Pack:
        """What is to be done: what has come, and in their places among it what nobody was asked for."""
        groups, came = self._under_way[pack.number] if pack.number in self._asked else [], iter(pack.groups)
        self._asked.discard(pack.number)
        found: list[Group] = []
        for group in groups:
            one = next(came, None) if _travels(group) else _as_it_is(group)
            one = None if one is None else completed(one, group)
            if one is None or not (one is group or _answers(one, group)):
                break
            one.finish = group.finish
            found.append(one)
        if not groups or len(found) != len(groups) or next(came, None) is not None:
            raise ProtocolError("the server sent something else than it was asked for")
        return Pack(pack.number, tuple(found))

    async def _done(self, pack: Pack, failures: list[Failure]) -> None:
        self._unfinished.stand(pack.groups, failures)
        failed: Errors = []
        for failure in failures:
            if failure.stands:
                self._warn(pack.groups[failure.group], failure.entry, failure.error)
            else:
                failed.append((failure.group, failure.entry, failure.error))
        self._finished(pack.number, pack.groups, failed, self._durable)


def _entries(group: Group) -> int:
    """How many things of a group can fail."""
    return max(len(group), 1) + (group.finish is not None)


def _travels(group: Group) -> bool:
    """Whether the server has anything of it that is not known here."""
    return group.act is Act.MAKE and not group.itself and REGULAR in group.kinds


def _as_it_is(group: Group) -> Group:
    """A group that has not travelled, as if it had."""
    if group.act is Act.MAKE:
        group.crcs = [0] * len(group)
    return group


def _answers(group: Group, asked: Group) -> bool:
    """Whether this is what was asked for: sizes, times and permissions of files may have changed since."""
    if group.names != asked.names or group.directory != asked.directory or group.act is not asked.act:
        return False
    if group.targets != asked.targets or group.owners != asked.owners or group.xattrs != asked.xattrs:
        return False
    if group.modes == asked.modes:
        return True
    kinds = zip(group.modes, asked.modes, strict=True)
    return not group.itself and all(now & KIND_BITS == then & KIND_BITS for now, then in kinds)
