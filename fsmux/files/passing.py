"""Digests of files on their way, made of the bytes that pass anyway, for a manifest.

Theory: who receives a chunk has its bytes in hand when it makes their CRC-32, and so has who sends it; the XXH3-128 of
the same bytes costs little there, and saves a second read.  It needs the bytes of a chunk in order, which they are
but for a few that have to wait for others.  What did not pass (held by the receiver before, taken from an earlier
version) or passed in quite another order (pieces of one chunk over several connections) is read when the file stands,
and counted, so that it can be said.

Nothing is taken on trust: each digest belongs to a CRC-32 of the same bytes, and those of all chunks must make the one
that sender and receiver have agreed upon.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import xxhash

from fsmux.columns import KIND_BITS, REGULAR, Act, Group, time_of
from fsmux.errors import IntegrityError, SourceChanged
from fsmux.files import ranges
from fsmux.files.contents import Contents
from fsmux.files.digestfile import Record, chunks_of, make_record
from fsmux.files.holes import zero_views, zeros_digest
from fsmux.files.naming import named
from fsmux.files.packing import read_pack
from fsmux.files.unpacking import Unpacker
from fsmux.limits import MIB
from fsmux.records import EVERYTHING, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.files.chunks import ChunkMap
    from fsmux.files.packing import Take
    from fsmux.files.ranges import Poll
    from fsmux.files.root import Root
    from fsmux.files.sink import Sink
    from fsmux.records import Durability, Extent, Identity, Kept, Parts

    Both = tuple[int, bytes]
    """CRC-32 and XXH3-128."""


AHEAD_BYTES: Final = 4 * MIB
"""Bytes of one file that are copied because what belongs before them is still being written by another thread: the
first payload of a file goes through buffers, and the next one may pass it."""


class _Run:
    """The bytes of one chunk, in whatever order they come; the last ones written to a place count."""

    __slots__ = ("ahead", "ahead_bytes", "state", "upto")

    def __init__(self) -> None:
        self.state: xxhash.xxh3_128 | None = None
        self.upto = 0
        """What ``state`` has seen is all that is before this."""
        self.ahead: dict[int, tuple[int, Sequence[bytes | memoryview]]] = {}
        """What has come beyond that, by place, as its length and bytes; disjoint."""
        self.ahead_bytes = 0

    def wrote(
        self, views: Sequence[memoryview], at: int, length: int, room: int, *, lasting: bool = False
    ) -> bytes | None:
        """Take bytes that were written at ``at``, copying at most ``room``; the digest if all ``length`` are there.

        ``lasting`` bytes stay as they are and need not be copied.
        """
        size = sum(map(len, views))
        if self.ahead:
            self._drop(at, at + size)
        if at == 0:
            self.state, self.upto = xxhash.xxh3_128(), 0
        elif at < self.upto:
            self.state, self.upto = None, 0  # what was seen stands no longer
        if at != self.upto or self.state is None:
            if lasting:
                self.ahead[at] = (size, views)
            elif self.ahead_bytes + size <= room:
                self.ahead[at] = (size, [b"".join(views)])
                self.ahead_bytes += size
            return None
        for view in views:
            self.state.update(view)
        self.upto += size
        while (more := self.ahead.pop(self.upto, None)) is not None:
            for data in more[1]:
                self.state.update(data)
            self.upto += more[0]
            self._let_go(more)
        return self.state.digest() if self.upto == length else None

    def _drop(self, start: int, stop: int) -> None:
        for at in [at for at, (size, _) in self.ahead.items() if at < stop and start < at + size]:
            self._let_go(self.ahead.pop(at))

    def _let_go(self, data: tuple[int, Sequence[bytes | memoryview]]) -> None:
        if isinstance(data[1][0], bytes):
            self.ahead_bytes -= data[0]


class ChunkDigests:
    """The chunks of one file on its way, for a manifest with ``chunk_size``.  In any thread.

    With ``expected`` a chunk that comes with another digest is an error before it is recorded.
    """

    def __init__(self, chunk_size: int, expected: Record | None = None) -> None:
        self.read = 0
        """Bytes that were read beside the transfer."""
        self._chunk_size = chunk_size
        self._expected = expected
        self._map: ChunkMap | None = None
        """How the transfer cuts the file, if that is how the manifest does."""
        self._identity: Identity | None = None
        self._known: dict[int, Both] = {}
        self._runs: dict[int, _Run] = {}  # chunks under way
        self._passed: dict[int, bytes] = {}  # whole, and not yet found right
        self._ahead = 0
        self._mutex = threading.Lock()

    def begin(self, identity: Identity, chunks: ChunkMap) -> None:
        """A session begins; what an earlier one of the same version came to stays."""
        if identity != self._identity:
            self._known.clear()
        self._identity = identity
        self._runs.clear()
        self._passed.clear()
        self._ahead = 0
        self._map = chunks if chunks == chunks_of(identity.size, self._chunk_size) else None

    # ---- receiving -----------------------------------------------------------------------------------------------

    def attach(self, sink: Sink) -> None:
        """Watch what is written to ``sink``."""
        manifest = sink.manifest
        self.begin(manifest.identity, manifest.map)
        self._known = {index: both for index, both in self._known.items() if manifest.crc_of(index) == both[0]}
        sink.watch = self

    def cleared(self, hole: Extent) -> None:
        """This range was made a hole."""
        if self._map is None:
            return
        for index in self._map.chunks_of(hole):
            chunk = self._map.extent(index)
            start, end = max(chunk.offset, hole.offset), min(chunk.end, hole.end)
            if end - start < chunk.length:
                self.wrote(zero_views(end - start), start, lasting=True)
            else:
                with self._mutex:
                    if (run := self._runs.pop(index, None)) is not None:
                        self._ahead -= run.ahead_bytes
                    self._passed[index] = zeros_digest(chunk.length)

    def wrote(self, views: Sequence[memoryview], offset: int, *, lasting: bool = False) -> None:
        """These bytes, of one chunk, were written; ``lasting`` ones stay as they are."""
        if self._map is None:
            return
        index, into = divmod(offset, self._map.chunk_size)
        with self._mutex:
            run = self._runs.get(index)
            if run is None:
                run = self._runs[index] = _Run()
            self._ahead -= run.ahead_bytes
            room = AHEAD_BYTES - self._ahead
            digest = run.wrote(views, into, self._map.length(index), room, lasting=lasting)
            self._ahead += run.ahead_bytes
            self._passed.pop(index, None)
            if digest is not None:
                self._passed[index] = digest
                del self._runs[index]

    def settled(self, index: int, crc: int) -> None:
        """A chunk is whole and has this CRC-32, as its sender says."""
        with self._mutex:
            digest = self._passed.pop(index, None)
        if digest is None:
            return
        if self._expected is not None and digest != self._expected.chunk(index):
            raise IntegrityError(
                f"{printable(self._expected.parts)}: the source has other bytes than the manifest says, in chunk "
                f"{index}; it was changed or has rotted, too, and what is here was left as it is"
            )
        self._known[index] = (crc, digest)

    # ---- sending -------------------------------------------------------------------------------------------------

    def measured(self, index: int, crc: int, digest: bytes) -> None:
        """A chunk was read to be sent."""
        if self._map is not None:
            self._known[index] = (crc, digest)

    # ---- the record ----------------------------------------------------------------------------------------------

    def record(self, root: Root, parts: Parts, crc32: int, poll: Poll | None = None) -> Record:
        """The record of the file, which stands here as ``parts`` and came to ``crc32`` at its receiver.

        Raises:
            SourceChanged: it was written to after that.
            IntegrityError: here are other bytes than there.
        """
        lease, facts = root.open_regular(parts)
        try:
            size, identity = facts.st_size, self._identity
            if identity is None or (size, time_of(facts)) != (identity.size, identity.mtime_ns):
                raise SourceChanged(f"{printable(parts)}: it has changed since it was transferred")
            chunks = chunks_of(size, self._chunk_size)
            with named(parts), lease as fd:
                found = [self._both(root, fd, chunks, index, poll) for index in range(chunks.count)]
        except ranges.ShortFile:
            raise SourceChanged(f"{printable(parts)}: it has changed since it was transferred") from None
        finally:
            lease.close()
        if chunks.crc32([crc for crc, _ in found]) != crc32:
            raise IntegrityError(
                f"{printable(parts)}: the other side has other bytes of it than this one; remove it there, then "
                "transfer it again"
            )
        return make_record(parts, size, identity.mtime_ns, crc32, (digest for _, digest in found))

    def _both(self, root: Root, fd: int, chunks: ChunkMap, index: int, poll: Poll | None) -> Both:
        both = self._known.get(index) if self._map is not None else None
        if both is None:
            both = ranges.crc32_and_digest(root.sys, fd, *chunks.extent(index), poll)
            self.read += chunks.length(index)
        return both


class PackDigests:
    """The small files of packs on their way, by the number of the pack and of the group in it.  In any thread.

    Their digests are those of chunks as a manifest with ``chunk_size`` has them.
    """

    def __init__(self, chunk_size: int) -> None:
        self._chunk_size = chunk_size
        self._found: dict[tuple[int, int], dict[int, list[bytes]]] = {}

    def note(self, number: int, groups: Sequence[Group], contents: Contents) -> None:
        """What is in a pack."""
        offset = 0
        for place, group in enumerate(groups):
            offset = self._note_group(number, place, group, contents, offset)

    def _note_group(self, number: int, place: int, group: Group, contents: Contents, offset: int) -> int:
        """A group, whose contents begin at ``offset``; where they end."""
        if group.act is not Act.MAKE or group.itself:
            return offset
        found = self._found.setdefault((number, place), {})
        lost = {index for index, _ in group.lost}
        digest = xxhash.xxh3_128_digest
        for index, mode in enumerate(group.modes):
            if mode & KIND_BITS == REGULAR and index not in lost:
                size = group.sizes[index]
                if size <= self._chunk_size:
                    found[index] = [digest(contents.take(offset, size))]
                else:
                    chunks = chunks_of(size, self._chunk_size)
                    extents = map(chunks.extent, range(chunks.count))
                    found[index] = [digest(contents.take(offset + one.offset, one.length)) for one in extents]
                offset += size
        return offset

    def take(self, number: int, place: int) -> dict[int, list[bytes]]:
        """The digests of the chunks of a group's files, by index."""
        return self._found.pop((number, place), {})

    def read_pack(self, number: int, root: Root, base: Parts, groups: Sequence[Group], take: Take) -> memoryview:
        """:func:`.packing.read_pack`, and note what was read."""
        contents = read_pack(root, base, groups, take)
        self.note(number, groups, Contents([contents]))
        return contents


class NotingUnpacker(Unpacker):
    """One that notes what it writes."""

    def __init__(
        self, root: Root, base: Parts, durability: Durability, notes: PackDigests, kept: Kept = EVERYTHING, *,
        verify: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(root, base, durability, kept, verify=verify)
        self._notes = notes

    def write(self, number: int, groups: Sequence[Group], contents: Contents) -> None:
        super().write(number, groups, contents)
        self._notes.note(number, groups, contents)
