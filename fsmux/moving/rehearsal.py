"""What a dry run does with the small things of a tree: it says what would be done.

Theory: it stands where a carrier would (:mod:`.carriers`), is given the same groups in the same order, and so says what
a run would do and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsmux import events
from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Act

if TYPE_CHECKING:
    from fsmux.columns import Group
    from fsmux.moving.account import Account
    from fsmux.moving.carriers import Watch


class Rehearsal:
    """Says what would be done."""

    def __init__(self, account: Account) -> None:
        self.watch: Watch | None = None
        self._account = account
        self._report = account.report

    async def put(self, group: Group, *, told: bool = True) -> None:
        if not told:
            return
        if group.itself:
            action = events.MAKE_DIRECTORY if group.act is Act.MAKE else events.ADJUST
            self._report.would(action, self._account.name_of(group.directory))
            return
        if self.watch is not None:
            self.watch(group, ())
        for name, size, mode in zip(group.names, group.sizes, group.modes, strict=True):
            kind = mode & KIND_BITS
            path = self._account.name_of((*group.directory, name))
            if group.act is Act.LINK:
                self._report.would_link(path)
            elif group.act is not Act.MAKE:
                self._report.would(events.REMOVE if group.act is Act.REMOVE else events.ADJUST, path)
            elif kind == DIRECTORY:
                self._report.would(events.MAKE_DIRECTORY, path)
            elif kind == REGULAR:
                self._report.would_send(path, size)
            else:
                self._report.would(events.MAKE_LINK, path)

    async def hurry(self) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def end(self) -> None:
        pass

    async def run(self) -> None:
        pass
