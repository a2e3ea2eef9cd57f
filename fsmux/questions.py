"""Questions to one side of a transfer, asked ahead: what stands in these directories, what these files' digests are.

Theory: whoever plans asks for many things and takes the answers later, in the order in which it asked, so that no
directory and no file costs a round trip.  The server has the questions on its way meanwhile; this side keeps them, and
looks or reads when an answer is taken, in a thread and as much as makes a hop.  What cannot be looked into or read is
an answer like any other.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING

from fsmux.columns import Packer
from fsmux.files.listing import Listings
from fsmux.limits import KIB, MAX_FILE_SIZE
from fsmux.plan.walk import batches
from fsmux.transfer.disk import poll
from fsmux.wire.messages import Digest, Digests, Listed, Look

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from fsmux.columns import Group
    from fsmux.files.root import Root
    from fsmux.mux.stream import Stream
    from fsmux.records import Kept, Parts
    from fsmux.transfer.disk import Disk

LOOK_BYTES = 16 * KIB
"""Bytes of paths in one LOOK."""


class RemoteLooker:
    """Asks the server."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._found: deque[Group] = deque()

    async def ask(self, directories: list[Parts]) -> None:
        page: list[Parts] = []
        room = LOOK_BYTES
        for parts in directories:
            room -= sum(map(len, parts)) + 4 * len(parts) + 8
            if page and room < 0:
                await self._stream.send(Look((), tuple(page)))
                page, room = [], LOOK_BYTES
            page.append(parts)
        await self._stream.send(Look((), tuple(page)))

    async def next_group(self) -> Group:
        while not self._found:
            listed: Listed = await self._stream.expect_message(Listed)
            self._found.extend(listed.groups)
        return self._found.popleft()


class LocalLooker:
    """Looks itself."""

    def __init__(self, disk: Disk, root: Root, base: Parts, kept: Kept) -> None:
        self._disk = disk
        self._listings = Listings(root, base, kept.owner, kept.xattrs)
        self._asked: deque[Parts] = deque()
        self._found: deque[Group] = deque()
        self._hops: Generator[list[Group], None, None] | None = None

    async def ask(self, directories: list[Parts]) -> None:
        self._asked.extend(directories)

    async def next_group(self) -> Group:
        while not self._found:
            if self._hops is None:
                self._hops = batches(self._listings.of(self._next_asked()))
            batch = await self._disk.pack(next, self._hops, None)
            if batch is None:
                self._hops = None
            else:
                self._found.extend(batch)
        return self._found.popleft()

    def close(self) -> None:
        if self._hops is not None:
            self._hops.close()

    def _next_asked(self) -> Iterator[Parts]:
        while self._asked:
            yield self._asked.popleft()


class RemoteDigester:
    """Asks the server."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._found: deque[bytes | None] = deque()

    async def ask(self, groups: Sequence[Group]) -> None:
        packer = Packer(MAX_FILE_SIZE)
        for group in groups:
            for page in packer.put(group):
                await self._stream.send(Digest((), tuple(page)))
        if not packer.empty:
            await self._stream.send(Digest((), tuple(packer.flush())))

    async def answer(self, count: int) -> list[bytes | None]:
        while len(self._found) < count:
            found: Digests = await self._stream.expect_message(Digests)
            self._found.extend(found.digests)
        return [self._found.popleft() for _ in range(count)]


class LocalDigester:
    """Reads itself, in a thread."""

    def __init__(self, disk: Disk, root: Root, base: Parts) -> None:
        self._disk = disk
        self._root = root
        self._base = base
        self._asked: deque[Group] = deque()
        self._found: deque[bytes | None] = deque()

    async def ask(self, groups: Sequence[Group]) -> None:
        self._asked.extend(groups)

    async def answer(self, count: int) -> list[bytes | None]:
        from fsmux.files.comparing import digests

        wanted: list[Group] = []
        while len(self._found) + sum(map(len, wanted)) < count:
            wanted.append(self._asked.popleft())
        with closing(digests(self._root, self._base, wanted, poll)) as hops:
            while (batch := await self._disk.read(next, hops, None)) is not None:
                self._found.extend(batch)
        return [self._found.popleft() for _ in range(count)]
