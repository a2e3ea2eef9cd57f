"""What takes the small things of a tree to the other side: packs up, packs down, or words only.

Theory: a *carrier* is given groups in the order in which they are to be done, cuts them into packs, and keeps some
packs on their way at once.  For an upload it reads and sends them, and hears how each went.  For a download it asks for
them and writes what comes: only what it has asked for, in the words it has asked in, or a server could plant files that
nobody wanted.  A pack that waits for its turn waits with its names only.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio
from msgspec import Struct

from fsmux import events
from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, SYMLINK, Act, Group, Packer
from fsmux.errors import ErrorCode, FsmuxError, ProtocolError, from_code
from fsmux.events import FilesDone, FilesLinked, Retrying
from fsmux.limits import PACK_BYTES, PACKS_AHEAD
from fsmux.mux.service import all_of
from fsmux.records import EVERYTHING, Durability, Kept, Parts, printable
from fsmux.transfer.assembly import MAX_ATTEMPTS
from fsmux.wire.frames import FINISH_FEATURE
from fsmux.wire.messages import Ask, Fetch, Pack, Packed, Store
from fsmux.wire.messages.groups import completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Iterable, Sequence

    from fsmux.files.root import Root
    from fsmux.files.terms import Failure
    from fsmux.files.unpacking import Unpacker
    from fsmux.moving.ledger import TreeNotes
    from fsmux.moving.report import Account
    from fsmux.mux.connection import Connection
    from fsmux.mux.stream import Stream
    from fsmux.transfer.disk import Disk
    from fsmux.transfer.session import Run

    Errors = list[tuple[int, int, FsmuxError]]

_DONE_BY: Final = {Act.MAKE: events.MAKE_DIRECTORY, Act.ADJUST: events.ADJUST, Act.REMOVE: events.REMOVE}
"""What is told of groups about a directory itself, and of those that make nothing."""


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


class _Packs:
    """What both directions have in common: cutting, counting, and telling what became of what."""

    def __init__(self, route: Route, report: Account) -> None:
        self.watch: Watch | None = None
        self._route = route
        self._report = report
        self._packer = Packer(PACK_BYTES)
        self._in, self._out = trio.open_memory_channel[list[Group]](1)
        self._finishes = self._may_finish()
        self._number = 0
        self._under_way: dict[int, list[Group]] = {}
        self._again: deque[list[Group]] = deque()
        self._attempts: dict[Parts, int] = {}
        self._blocked: set[Parts] = set()
        self._untold: set[Parts] = set()
        self._changed = trio.Event()

    def _may_finish(self) -> bool:
        """Whether directories may be finished by the groups that fill them."""
        return True

    async def put(self, group: Group, *, told: bool = True) -> None:
        if not told:
            if self._finishes and group.itself and group.act is Act.ADJUST and self._packer.finish(group):
                return
            self._untold.add(group.directory)
        for groups in self._packer.put(group):
            await self._in.send(groups)

    async def hurry(self) -> None:
        if not (self._packer.empty or self._under_way):
            await self._in.send(self._packer.flush())

    async def flush(self) -> None:
        if self._again or not self._packer.empty:
            await self._in.send(self._packer.flush())

    async def end(self) -> None:
        if not self._packer.empty:
            await self._in.send(self._packer.flush())
        self._in.close()

    async def run(self) -> None:
        """One stream for all, which this side ends behind the last pack, not behind the last answer: that would cost
        one more round trip.  What is to be tried again by then takes another one.
        """
        await self._carry()
        while self._again:
            await self._carry()

    async def _carry(self) -> None:
        """What there is to be carried, over one stream."""
        raise NotImplementedError

    async def _each(self, carry: Callable[[int, list[Group]], Awaitable[None]]) -> None:
        """Have every pack carried, not too many at once; return when the last one is on its way."""
        async for groups in self._out:
            if groups:
                await self._start(carry, groups)
            while self._again:
                await self._start(carry, self._again.popleft())
        while self._again:
            await self._start(carry, self._again.popleft())

    async def _start(self, carry: Callable[[int, list[Group]], Awaitable[None]], groups: list[Group]) -> None:
        while len(self._under_way) >= PACKS_AHEAD:
            self._changed = trio.Event()
            await self._changed.wait()
        self._number += 1
        self._under_way[self._number] = groups
        await carry(self._number, groups)

    def _ended(self, stream: Stream) -> None:
        """The server has nothing more to say: that is so when all that was begun was answered."""
        if self._under_way or not stream.local_ended:
            raise ProtocolError("the server ended the transfer early")

    def _finished(self, number: int, groups: Sequence[Group], failed: Errors, durable: bool) -> None:
        """A pack stands, but for what failed."""
        by_group: dict[int, dict[int, FsmuxError]] = {}
        for place, index, error in failed:
            by_group.setdefault(place, {})[index] = error
        for place, group in enumerate(groups):
            errors = by_group.get(place, {})
            errors.update(group.lost)
            if self._route.notes is not None:
                self._route.notes.stands(number, place, group, errors)
            self._tell(group, errors, durable)
        del self._under_way[number]
        self._changed.set()

    def _tell(self, group: Group, errors: dict[int, FsmuxError], durable: bool) -> None:
        if group.act is Act.LINK:  # what cannot be linked is sent
            names = [name for index, name in enumerate(group.names) if index not in errors]
            if names:
                self._report.linked(FilesLinked(group.directory, names))
            if self.watch is not None:
                self.watch(group, errors)
            return
        again = self._fail(group, errors) if errors else ()
        if self.watch is not None:
            self.watch(group, errors, again)
        if group.act is not Act.MAKE or not group.names:
            self._tell_changed(group, errors)
            return
        kinds = group.kinds
        if kinds != {REGULAR}:
            self._tell_made(group, kinds, errors)
        if errors or kinds != {REGULAR}:
            files = [
                index for index, mode in enumerate(group.modes) if mode & KIND_BITS == REGULAR and index not in errors
            ]
            if not files:
                return
            crcs = [group.crcs[index] for index in files]
            group = group.pick(files)
            group.crcs = crcs
        self._report.packed(FilesDone(group.directory, group.names, group.sizes, group.crcs, durable))

    def _fail(self, group: Group, errors: dict[int, FsmuxError]) -> set[int]:
        """Entries have failed; those that are to be tried again."""
        again: set[int] = set()
        for index, error in sorted(errors.items()):
            name = group.names[index : index + 1]  # none: it is about the directory
            parts = (*group.directory, *name)
            if error.code is ErrorCode.INTEGRITY and self._may_try_again(parts, error):
                once_more = group.pick([index])
                once_more.finish = group.finish  # which its coming undoes
                self._again.append([once_more])
                again.add(index)
            elif not any(parts[:depth] in self._blocked for depth in range(len(parts) + 1)):
                if name and group.act is Act.MAKE and group.modes[index] & KIND_BITS == DIRECTORY:
                    self._blocked.add(parts)  # said once, and not of everything in it
                self._report.fail(printable(parts), parts, error)
        return again

    def _warn(self, group: Group, index: int, error: FsmuxError) -> None:
        """An entry stands, but for this."""
        parts = (*group.directory, *group.names[index : index + 1])
        self._report.report.warn_once(str(error), self._report.name_of(parts))

    def _tell_changed(self, group: Group, errors: Container[int]) -> None:
        """Tell of a directory itself, or of names that are not made."""
        report = self._report
        if not group.names:
            if group.act is Act.ADJUST and group.directory in self._untold:
                self._untold.discard(group.directory)
            elif 0 not in errors:
                report.changed_itself(_DONE_BY[group.act], group.directory)
        else:
            names = [name for index, name in enumerate(group.names) if index not in errors]
            report.changed(_DONE_BY[group.act], group.directory, names)

    def _tell_made(self, group: Group, kinds: set[int], errors: Container[int]) -> None:
        """Tell of what is made without being sent."""
        for kind, action in ((DIRECTORY, events.MAKE_DIRECTORY), (SYMLINK, events.MAKE_LINK)):
            if kind in kinds:
                made = [i for i, mode in enumerate(group.modes) if mode & KIND_BITS == kind and i not in errors]
                self._report.changed(action, group.directory, [group.names[index] for index in made])

    def _may_try_again(self, parts: Parts, error: FsmuxError) -> bool:
        attempt = self._attempts[parts] = self._attempts.get(parts, 0) + 1
        if attempt < MAX_ATTEMPTS:
            self._report(Retrying(printable(parts), attempt, 0.0, str(error)))
        return attempt < MAX_ATTEMPTS


class Upload(_Packs):
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
        from fsmux.transfer.packs import send_pack

        route = self._route

        async def carry(number: int, groups: list[Group]) -> None:
            read = read_pack if route.notes is None else route.notes.reader(number)
            await send_pack(stream, route.disk, route.root, route.here, number, groups, read)

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
        self._ended(stream)


class Download(_Packs):
    """Packs from the server."""

    async def _carry(self) -> None:
        from fsmux.files.unpacking import Unpacker

        route = self._route
        if route.notes is None:
            unpacker = Unpacker(route.root, route.here, route.durability, route.kept, verify=route.verify)
        else:
            unpacker = route.notes.unpacker(route.durability, route.kept, verify=route.verify)
        self._durable = unpacker.durable
        async with route.connection.open_stream(Fetch(route.there)) as stream:
            await all_of(partial(self._ask, stream), partial(self._take, stream, unpacker))

    async def _ask(self, stream: Stream) -> None:
        async def carry(number: int, groups: list[Group]) -> None:
            await stream.send(Ask(number, tuple([group for group in groups if _travels(group)])))

        await self._each(carry)
        stream.end()

    async def _take(self, stream: Stream, unpacker: Unpacker) -> None:
        from fsmux.transfer.packs import receive_packs

        await receive_packs(stream, unpacker, self._route.disk, check=self._check, done=self._done)
        self._ended(stream)

    def _check(self, pack: Pack) -> Pack:
        """What is to be done: what has come, and in their places among it what nobody was asked for."""
        groups, came = self._under_way.get(pack.number, []), iter(pack.groups)
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
