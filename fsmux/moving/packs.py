"""Packs that are under way between two sides: what both directions of carrying have in common.

Theory: groups are cut into packs in the order in which they come; some packs are on their way at once, and one whose
turn has not come waits with its names only.  When one has been done, what became of each of its groups is told, and
what arrived damaged is carried once more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from fsmux import events
from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, SYMLINK, Act, Group, Packer
from fsmux.errors import ErrorCode, FsmuxError, ProtocolError
from fsmux.events import FilesDone, FilesLinked, Retrying
from fsmux.limits import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Iterable, Sequence

    from fsmux.moving.account import Account
    from fsmux.moving.carriers import Route, Watch
    from fsmux.records import Parts

    Errors = list[tuple[int, int, FsmuxError]]

_DONE_BY: Final = {Act.MAKE: events.MAKE_DIRECTORY, Act.ADJUST: events.ADJUST, Act.REMOVE: events.REMOVE}
"""What is told of groups about a directory itself, and of those that make nothing."""


class Packs:
    """What both directions have in common: cutting, counting, and telling what became of what."""

    def __init__(self, route: Route, report: Account) -> None:
        self.watch: Watch | None = None
        self._route = route
        self._report = report
        self._packer = Packer(route.pace.pack_bytes)
        self._in, self._out = trio.open_memory_channel[list[Group]](1)
        self._finishes = self._may_finish()
        self._number = 0
        self._under_way: dict[int, list[Group]] = {}
        self._by_itself: set[int] = set()
        """Those of them that were not asked for."""
        self._again: deque[list[Group]] = deque()
        self._repeated: list[Group] = []
        """What was put there and does not stand yet."""
        self._attempts: dict[Parts, int] = {}
        self._blocked: set[Parts] = set()
        self._untold: set[Parts] = set()
        self._changed = trio.Event()

    def _may_finish(self) -> bool:
        """Whether directories may be finished by the groups that fill them."""
        return True

    async def put(self, group: Group, *, told: bool = True) -> None:
        if not told and self._goes_with(group, self._packer.finish):
            return
        pace, packer = self._route.pace, self._packer
        packer.most_bytes = pace.pack_bytes
        for groups in packer.put(group):
            await self._in.send(groups)
            packer.most_bytes = pace.pack_bytes

    def _goes_with(self, group: Group, finish: Callable[[Group], bool]) -> bool:
        """Have ``finish`` put a group that nobody is to be told of to another one, or note that nobody is."""
        if self._finishes and group.itself and group.act is Act.ADJUST and finish(group):
            return True
        self._untold.add(group.directory)
        return False

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
        try:
            await self._carry()
            while self._again:
                await self._carry()
        finally:
            if (lost := self._lost()) is not None:
                self._route.pace.lost(lost, trio.current_time())

    def _lost(self) -> int | None:
        """Bytes of the pack that would have been the next to be done, if any is under way."""
        return _contents(next(iter(self._under_way.values()))) if self._under_way else None

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
        pace = self._route.pace
        while len(self._under_way) - len(self._by_itself) >= pace.ahead:
            self._changed = trio.Event()
            await self._changed.wait()
        if not self._under_way:
            pace.resume(trio.current_time())
        await carry(self._begin(groups), groups)

    def _begin(self, groups: list[Group]) -> int:
        """A pack is on its way from now on; its number."""
        for repeated in self._repeated:  # what comes into a directory once more undoes what finishes that
            repeated.finish = self._finish_in(groups, repeated.directory) or repeated.finish
        self._number += 1
        self._under_way[self._number] = groups
        return self._number

    def _ended(self, *, answered: bool) -> None:
        """The server has nothing more to say: that is so when all that was begun was answered."""
        if not answered:
            raise ProtocolError("the server ended the transfer early")

    def _finished(self, number: int, groups: Sequence[Group], failed: Errors, durable: bool) -> None:
        """A pack stands, but for what failed."""
        self._route.pace.done(_contents(groups), sum(map(len, groups)), trio.current_time())
        # Before those of this pack are added that are to come once more.
        self._repeated = [one for one in self._repeated if not any(_same_names(one, group) for group in groups)]
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
        self._by_itself.discard(number)
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
            if name and error.code is ErrorCode.INTEGRITY and self._may_try_again(parts, error):
                once_more = group.pick([index])
                for groups in self._under_way.values():
                    once_more.finish = self._finish_in(groups, group.directory) or once_more.finish
                self._again.append([once_more])
                self._repeated.append(once_more)
                again.add(index)
            elif not any(parts[:depth] in self._blocked for depth in range(len(parts) + 1)):
                if name and group.act is Act.MAKE and group.modes[index] & KIND_BITS == DIRECTORY:
                    self._blocked.add(parts)  # said once, and not of everything in it
                self._report.fail(parts, error)
        return again

    def _finish_in(self, groups: Iterable[Group], directory: Parts) -> tuple[int, int] | None:
        """How a directory is finished by these."""
        for one in groups if self._finishes else ():
            if one.directory == directory and one.finish is not None:
                return one.finish
            if one.directory == directory and one.itself and one.act is Act.ADJUST:
                return one.mtimes[0], one.modes[0]
        return None

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
            self._report(Retrying(self._report.name_of(parts), attempt, 0.0, str(error)))
        return attempt < MAX_ATTEMPTS


def _same_names(one: Group, other: Group) -> bool:
    return one.directory == other.directory and one.names == other.names


def _contents(groups: Iterable[Group]) -> int:
    """Bytes of the files in them."""
    return sum(sum(group.sizes) for group in groups)
