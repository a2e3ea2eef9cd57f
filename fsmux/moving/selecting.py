"""The scan of a source of which only some names take part: what ``--files-from`` gives.

Theory: nobody is asked about a single name.  The directories that names lie in are listed, many questions ahead of the
answers, and what was not named is left out of them; so a hundred thousand names in a thousand directories cost a
thousand listings and hardly a round trip.  A named directory is walked, several of them at once.  The groups come in
the order of a walk, as from any scan.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING

from fsmux.columns import DIRECTORY, KIND_BITS, Group
from fsmux.errors import FsmuxError, NotADirectory, NotFound
from fsmux.plan.walk import PAGE
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from fsmux.moving.account import Account
    from fsmux.moving.tree import Looker
    from fsmux.plan.filters import Filters
    from fsmux.plan.selection import Selection
    from fsmux.records import Parts
    from fsmux.sites import Site

LOOKED_AHEAD = 512
"""Directories that are being listed: at 100 ms, 5,000 a second."""

WALKED_AHEAD = 16
"""Named directories that are being walked."""


@asynccontextmanager
async def selected(
    site: Site, prefix: Parts, selection: Selection, filters: Filters, account: Account
) -> AsyncIterator[AsyncGenerator[list[Group], None]]:
    """What of the tree at ``prefix`` is selected, for the block.  Names that are not there fail alone."""
    if selection.whole:
        async with site.scan(prefix) as batches:
            yield batches
        return
    async with site.looking(prefix, nothing=False) as looker:
        assert looker is not None
        scan = _Scan(site, prefix, looker, selection, filters, account)
        try:
            async with aclosing(scan.batches()) as found:
                yield found
        finally:
            await scan.close()


class _Scan:
    def __init__(
        self, site: Site, prefix: Parts, looker: Looker, selection: Selection, filters: Filters, account: Account
    ) -> None:
        self._site = site
        self._prefix = prefix
        self._looker = looker
        self._selection = selection
        self._filters = filters
        self._account = account
        self._to_ask = selection.inner()
        self._asked = 0
        self._walks: dict[Parts, tuple[AsyncExitStack, AsyncIterator[list[Group]]]] = {}

    async def batches(self) -> AsyncGenerator[list[Group], None]:
        batch: list[Group] = []
        count = 0
        async with aclosing(self._groups()) as groups:
            async for group in groups:
                batch.append(group)
                count += len(group) + 1
                if count >= PAGE:
                    yield batch
                    batch, count = [], 0
        if batch:
            yield batch

    async def _groups(self) -> AsyncGenerator[Group, None]:
        pending: list[tuple[Parts, Selection, bool]] = [((), self._selection, True)]
        while pending:
            parts, node, there = pending.pop()
            if node.whole:
                await self._walk_ahead(parts, pending)
                async with aclosing(self._walked(parts)) as walked:
                    async for group in walked:
                        yield group
                continue
            directories: set[bytes] = set()
            async with aclosing(self._looked(parts, node, there, directories)) as looked:
                async for group in looked:
                    yield group
            for name, child in sorted(node.below.items(), reverse=True):
                if not child.whole or name in directories:
                    pending.append(((*parts, name), child, name in directories))

    # ---- directories on the way ------------------------------------------------------------------------------------

    async def _looked(
        self, parts: Parts, node: Selection, there: bool, directories: set[bytes]
    ) -> AsyncGenerator[Group, None]:
        """What is named of a directory; which of it are ``directories`` is added to these."""
        await self._look_ahead()
        self._asked -= 1
        found: dict[bytes, int] = {}
        more = True
        while more:
            group = await self._looker.next_group()
            more = group.more and group.error is None
            if not there:
                continue  # that it is missing was said
            if group.error is not None:
                if not parts:
                    raise group.error
                yield Group(parts, error=group.error)
                return
            named = {name: mode for name, mode in zip(group.names, group.modes, strict=True) if name in node.below}
            found |= named
            wants = {name for name, mode in named.items() if _wants(node.below[name], mode)}
            picked = group.pick([index for index, name in enumerate(group.names) if name in wants])
            picked.more = more
            if picked.names or not more:
                yield picked
        if there:
            directories.update(name for name, mode in found.items() if mode & KIND_BITS == DIRECTORY)
            for name, child in sorted(node.below.items()):
                if name not in found or not (child.whole or name in directories):
                    self._missing((*parts, name), child, name in found)

    def _missing(self, parts: Parts, node: Selection, in_the_way: bool) -> None:
        for rest in node.named():
            path = parts + rest
            if not self._filters.admits(path, False):
                continue
            name = printable(path)
            error: FsmuxError = NotFound(f"{name}: no such file or directory in the source")
            if in_the_way:
                error = NotFound(f"{name}: there is no such file, because {printable(parts)} is not a directory")
            self._account.fail(path, error)

    async def _look_ahead(self) -> None:
        if self._asked > LOOKED_AHEAD // 2:
            return
        directories = list(islice(self._to_ask, LOOKED_AHEAD))
        if directories:
            await self._looker.ask(directories)
            self._asked += len(directories)

    # ---- whole directories -----------------------------------------------------------------------------------------

    async def _walked(self, parts: Parts) -> AsyncGenerator[Group, None]:
        stack, batches = self._walks.pop(parts)
        try:
            async for batch in batches:
                for group in batch:
                    group.directory = parts + group.directory
                    yield group
        except (NotFound, NotADirectory) as error:
            yield Group(parts, error=error)
        finally:
            await stack.aclose()

    async def _walk_ahead(self, parts: Parts, pending: list[tuple[Parts, Selection, bool]]) -> None:
        """Begin to walk this directory and the next ones."""
        ahead = [one for one, node, _ in pending[: -WALKED_AHEAD - 1 : -1] if node.whole]
        for one in (parts, *ahead):
            if one not in self._walks and (one == parts or len(self._walks) < WALKED_AHEAD):
                stack = AsyncExitStack()
                self._walks[one] = (stack, await stack.enter_async_context(self._site.scan(self._prefix + one)))

    async def close(self) -> None:
        """End the walks that nobody has come to."""
        for stack, _ in self._walks.values():
            await stack.aclose()


def _wants(child: Selection, mode: int) -> bool:
    """Whether a name takes part: it was given, or is a directory on the way to one that was."""
    return child.whole or mode & KIND_BITS == DIRECTORY
