"""Small files that were named one by one, and go to the same directory from the same one.

Theory: a session is worth its round trip and its hops for a large file, or for one that is alone.  Thousands of small
ones (``*.txt``) are entries of one directory like those of a tree, and travel as they do: in packs.  Each is judged
before and accounted for by itself, as if it went alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fsmux.columns import GROUP_ENTRIES, REGULAR, Group, sparse
from fsmux.errors import FsmuxError, NotFound
from fsmux.events import FilesDone
from fsmux.limits import SMALL_FILE
from fsmux.moving.account import Account
from fsmux.plan.plan import is_large
from fsmux.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fsmux.moving.attempt import Item
    from fsmux.moving.report import Report

FEW: Final = 8
"""Files that go by sessions, side by side, at least as soon as a pack of them would."""


def batched(waiting: Iterable[tuple[Item, bool]], medium: int) -> Iterator[list[Item]]:
    """Those that should go in packs, by where they come from and go to; the fresh ones up to ``medium`` bytes."""
    batches: dict[tuple[object, ...], dict[bytes, Item]] = {}
    for item, fresh in waiting:
        source, target = item.source_prefix, item.target_prefix
        if item.top.kind is not Kind.FILE or not source or source[-1:] != target[-1:]:
            continue
        if is_large(item.top.size, fresh, SMALL_FILE, medium):
            continue
        site, _ = item.local
        batches.setdefault((id(site), source[:-1], target[:-1]), {}).setdefault(source[-1], item)
    for batch in batches.values():
        if len(batch) > FEW:
            yield list(batch.values())


class Batch(Account):
    """The account of a batch, which is those of its files."""

    def __init__(self, report: Report, items: Sequence[Item]) -> None:
        super().__init__(report)
        self._items = {item.source_prefix[-1]: item for item in items}

    def name_of(self, parts: tuple[bytes, ...]) -> str:
        return self._items[parts[-1]].account.name

    def packed(self, event: FilesDone) -> None:
        for name in event.names:
            self._items[name].account.settled()
        labels = [self._items[name].label.rstrip("/").rpartition("/")[2] for name in event.names]
        self.report.packed(FilesDone((), list(map(os.fsencode, labels)), event.sizes, event.crcs, event.durable))

    def fail(self, parts: tuple[bytes, ...], error: FsmuxError) -> None:
        self._items[parts[-1]].account.fail((), error)

    def fail_rest(self, error: FsmuxError) -> None:
        """What failed the batch failed each file that was not told of."""
        for item in self._items.values():
            if item.account.owed(()):
                item.account.fail((), error)


def pages(items: Iterable[Item]) -> Iterator[Group]:
    """A batch as groups."""
    items = sorted(items, key=lambda item: item.source_prefix[-1])
    for start in range(0, len(items), GROUP_ENTRIES):
        page = items[start : start + GROUP_ENTRIES]
        yield Group(
            (),
            [item.source_prefix[-1] for item in page],
            [item.top.size for item in page],
            [item.top.mtime_ns for item in page],
            [REGULAR | item.top.mode for item in page],
            owners=[item.top.owner for item in page if item.top.owner is not None],
            xattrs=sparse(item.top.xattrs for item in page),
        )


async def has_place(item: Item) -> bool:
    """Whether the directory that ``item`` goes to is there."""
    try:
        await item.target.stat(item.target_prefix[:-1], follow=True)
    except NotFound:
        return False
    return True
