"""What the receiver has of a file and cannot vouch for, to take ranges from instead of receiving them.

Theory: there may be three of them: what an unfinished transfer of *another* version left in the part; what the part has
of chunks that were not whole when a session ended; and the finished file under the final name.  All are offered as
pieces with a digest; the sender says which it finds equal in its own version.  CRC-32 is not enough for that decision
(it was made for noise, not for edits), so digests have 128 bits.  A piece in the part is where it belongs already.  A
piece of the final file is copied, and digested once more while it is copied, because somebody may have written to that
file since.  Holes of it stay holes.

Of the second kind no journal speaks: what bytes a session had written when it ended, whoever ended it, the file system
knows, and whether they are the right ones, the sender.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from fsmux.errors import IntegrityError, InternalError
from fsmux.files import ranges
from fsmux.files.chunks import combine_all
from fsmux.files.holes import Layout, clear, zeros_digest
from fsmux.limits import KIB
from fsmux.records import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fsmux.files.lease import Lease
    from fsmux.files.manifest import Manifest
    from fsmux.files.ranges import Poll
    from fsmux.files.syscalls import Syscalls


BEGUN_LEAST: Final = 64 * KIB
"""Bytes from which on what came of chunks that are not whole is worth two files and a round trip."""

BEGUN_PIECES: Final = 16
"""Pieces that a run of them is compared in, or a few more.  Where a session was cut the last one is lost, so many
short ones; each takes 0.1 ms."""

BEGUN_PIECE: Final = 256 * KIB
"""Bytes of such a piece at most."""

SHORTEST_PIECE: Final = 4 * KIB
"""Bytes of one at least: a block of most file systems."""

BEGUN_MOST: Final = 1024
"""Pieces of one file that are compared at most, 256 MiB of the longest: many times what its streams have begun.  So
much is read in vain on a file system that cannot tell what was written."""


class Piece(NamedTuple):
    """A range that can be reused, within one chunk of the new version.

    ``crc`` is what the part's journal says of it, if it says anything of exactly this range.
    """

    extent: Extent
    in_part: bool
    crc: int | None = None


class Known(NamedTuple):
    """A range as it is offered to the sender, with its XXH3-128."""

    offset: int
    length: int
    digest: bytes


class Basis:
    """The pieces of one sink, in order and disjoint."""

    def __init__(
        self,
        sys: Syscalls,
        shown: str,
        part: Lease,
        final: Lease | None,
        pieces: Sequence[Piece],
        manifest: Manifest,
        layout: Layout | None,
    ) -> None:
        self._sys = sys
        self._manifest = manifest
        self._layout = layout
        self._shown = shown
        self._part = part
        self._final = final
        self.pieces = list(pieces)
        self._starts = [piece.extent.offset for piece in self.pieces]
        self._known: dict[int, tuple[bytes, int]] = {}  # what was offered, by offset: digest and CRC-32

    @property
    def size(self) -> int:
        """Bytes that could be reused at most."""
        return sum(piece.extent.length for piece in self.pieces)

    def digests(self, poll: Poll | None = None) -> Iterator[Known]:
        """The pieces with their digests.  One that has become unreadable is left out."""
        for piece in self.pieces:
            try:
                with self._lease(piece).hold() as fd:
                    crc, digest = ranges.crc32_and_digest(self._sys, fd, *piece.extent, poll)
            except (ranges.ShortFile, OSError):
                continue
            if piece.crc is None or piece.crc == crc:
                self._known[piece.extent.offset] = (digest, crc)
                yield Known(*piece.extent, digest)

    def reuse(self, extent: Extent, poll: Poll | None = None) -> int:
        """Bring a range of whole pieces to its place in the part; its CRC-32."""
        found: list[tuple[int, int]] = []
        offset = extent.offset
        while offset < extent.end:
            at = bisect_right(self._starts, offset) - 1
            piece = self.pieces[at] if at >= 0 else None
            if piece is None or piece.extent.offset != offset or piece.extent.end > extent.end:
                raise InternalError(f"{self._shown}: {extent} is not made of pieces that were offered")
            found.append((self._reuse(piece, poll), piece.extent.length))
            offset = piece.extent.end
        return combine_all(found)

    def _reuse(self, piece: Piece, poll: Poll | None) -> int:
        known = self._known.get(piece.extent.offset)
        if known is None:
            raise InternalError(f"{self._shown}: {piece.extent} was never offered")
        size = self._manifest.identity.size
        if self._manifest.holes and known[0] == zeros_digest(piece.extent.length):
            with self._part.hold() as target:
                clear(self._sys, target, piece.extent, size)
        elif not piece.in_part:
            assert self._layout is not None
            try:
                with self._lease(piece).hold() as source, self._part.hold() as target:
                    digest = ranges.copy(self._sys, source, target, piece.extent, size, self._layout, poll)
            except ranges.ShortFile:
                digest = b""
            if digest != known[0]:
                raise IntegrityError(f"{self._shown}: the existing file changed while parts of it were being reused")
        return known[1]

    def _lease(self, piece: Piece) -> Lease:
        lease = self._part if piece.in_part else self._final
        if lease is None:
            raise InternalError(f"{self._shown}: there is no file to reuse {piece.extent} of")
        return lease

    def close(self) -> None:
        """The part is not ours to close."""
        if self._final is not None:
            self._final.close()


def pieces_of_part(old: Manifest, manifest: Manifest) -> list[Piece]:
    """What an unfinished transfer of another version left, as far as the new version reaches, cut at its chunks."""
    pieces: list[Piece] = []
    size, chunk_size = manifest.identity.size, manifest.map.chunk_size
    for index in old.indices():
        extent = old.map.extent(index)
        for piece in _cut(extent.offset, min(extent.end, size), chunk_size):
            pieces.append(Piece(piece, True, old.crc_of(index) if piece == extent else None))
    return pieces


def _cut(start: int, stop: int, step: int) -> Iterator[Extent]:
    """A range, cut at the multiples of ``step``."""
    while start < stop:
        end = min(stop, (start // step + 1) * step)
        yield Extent(start, end - start)
        start = end


def pieces_of_begun(
    sys: Syscalls, fd: int, held: Manifest, manifest: Manifest, poll: Poll | None = None
) -> list[Piece]:
    """What was written to the part beside the chunks that are ``held``, as far as ``manifest`` reaches."""
    facts = sys.fstat(fd)
    layout = Layout(sys, facts, sparse=True)  # blocks that were set aside count as room, and are no data
    end = min(facts.st_size, manifest.identity.size)
    longest = min(BEGUN_PIECE, manifest.map.chunk_size)
    pieces: list[Piece] = []
    for extent in held.missing():
        if poll is not None:
            poll()
        for run in layout.runs(fd, Extent(extent.offset, min(extent.end, end) - extent.offset)):
            if run.hole:
                continue
            length = SHORTEST_PIECE
            while length < longest and length * BEGUN_PIECES < run.extent.length:
                length *= 2
            for piece in _cut(run.extent.offset, run.extent.end, length):
                pieces.append(Piece(piece, True))
                if len(pieces) == BEGUN_MOST:
                    return pieces
    return pieces


def pieces_of_final(final_size: int, manifest: Manifest, taken: Sequence[Piece]) -> list[Piece]:
    """The chunks of the finished file that are neither held nor taken from the part, the short last one included."""
    size = min(final_size, manifest.identity.size)
    chunk_size = manifest.map.chunk_size
    busy = bytearray(-(-size // chunk_size))
    for piece in taken:
        for index in manifest.map.chunks_of(piece.extent):
            if index < len(busy):
                busy[index] = 1
    return [
        Piece(Extent(index * chunk_size, min(chunk_size, size - index * chunk_size)), False)
        for index, skip in enumerate(busy)
        if not skip and not manifest.holds(index)
    ]
