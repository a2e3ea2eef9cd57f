"""Which files have the same bytes on both sides, found out by reading them where they are.

Theory: only files of the same size can be equal, so nothing else is read.  Both sides read at once, some batches of the
scan ahead of the plan; a batch is one question, so no file costs a round trip.  ``--checksum`` compares all of them.
Otherwise those are compared of which the times alone differ, unless a file is so large that a session may keep some of
its chunks: after a checkout, say, nearly all are equal, and a digest costs less than their bytes, near or far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fsmux.columns import KIND_BITS, REGULAR, Group
from fsmux.mux.service import all_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Digester(Protocol):
    """Makes digests of files of one side."""

    async def ask(self, groups: Sequence[Group]) -> None:
        """Have these files read, behind those that were asked for before."""

    async def answer(self, count: int) -> list[bytes | None]:
        """The digests of the next ``count`` files; None of one that cannot be read, or has another size."""


class Comparer:
    """Compares files of two sides.

    With ``most`` only those of which the times differ, of up to so many bytes; with ``update`` none that is left alone
    anyway.
    """

    def __init__(self, source: Digester, target: Digester, *, most: int | None, update: bool) -> None:
        self._source = source
        self._target = target
        self._most = most
        self._update = update

    def alike(self, source: Group, existing: Group | None) -> Group | None:
        """The files that may be equal."""
        if existing is None or not existing.names:
            return None
        columns = zip(existing.names, existing.sizes, existing.mtimes, existing.modes, strict=True)
        there = {name: (size, mtime) for name, size, mtime, mode in columns if mode & KIND_BITS == REGULAR}
        indexes = [
            index
            for index, (name, size, mtime, mode) in enumerate(
                zip(source.names, source.sizes, source.mtimes, source.modes, strict=True)
            )
            if mode & KIND_BITS == REGULAR
            and (facts := there.get(name)) is not None
            and facts[0] == size
            and (self._most is None or (facts[1] != mtime and size <= self._most))
            and not (self._update and facts[1] > mtime)
        ]
        if not indexes:
            return None
        alike = source.pick(indexes)
        alike.shared = {}  # what is read need not be known to be the same
        return alike

    async def ask(self, groups: Sequence[Group], there: Sequence[Group] | None = None) -> None:
        """Have both sides read these files, which may have other names ``there``."""
        await self._source.ask(groups)
        await self._target.ask(groups if there is None else there)

    async def equal(self, groups: Sequence[Group]) -> list[dict[bytes, bool]]:
        """Whether each of the files that were asked for next is equal, for each group."""
        count = sum(map(len, groups))
        answers: dict[bool, list[bytes | None]] = {}

        async def hear(digester: Digester, which: bool) -> None:
            answers[which] = await digester.answer(count)

        async def hear_source() -> None:
            await hear(self._source, True)

        async def hear_target() -> None:
            await hear(self._target, False)

        await all_of(hear_source, hear_target)
        both = zip(answers[True], answers[False], strict=True)
        same = iter([here is not None and here == there for here, there in both])
        return [{name: next(same) for name in group.names} for group in groups]
