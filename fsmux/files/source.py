"""One file to be read: which version it is, its bytes, its checksums, and whether it is still that version.

Theory: everything about a transfer refers to one version of the file, taken by ``fstat`` when it is opened.  Bytes and
checksums come from the same descriptor, so a file that is *replaced* meanwhile does not matter; one that is *written
to* is noticed by ``check_unchanged`` and by reads that end early.

The identity's ``tag`` hashes device, inode and ctime.  The ctime is in it because a write that restores the mtime shows
nowhere else; a mere ``chmod`` thus makes another version too, and costs no more than comparing digests: what the
receiver holds of it is found equal chunk by chunk and is not sent again.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

from fsmux.columns import time_of
from fsmux.errors import SourceChanged
from fsmux.files import ranges
from fsmux.files.chunks import ChunkMap
from fsmux.files.holes import Layout, Run, holes_of
from fsmux.files.naming import named
from fsmux.limits import KIB, MIB
from fsmux.records import Identity, printable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from fsmux.files.lease import Lease
    from fsmux.files.ranges import Poll
    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Extent, Parts

SHORT_RUN: Final = 64 * KIB
"""Bytes of data between two holes below which a frame of their own would cost more than they do."""

GATHERED: Final = 1 * MIB
"""Bytes of short runs that are read in one hop: some hundreds of them, less than a millisecond."""

MOST_RUNS: Final = 500
"""Runs in one message: 24 bytes each and 13 for its chunk, in at most 20 KiB."""

_VERSION = struct.Struct("<QQq")


def identity_of(facts: os.stat_result) -> Identity:
    version = _VERSION.pack(facts.st_dev & (2**64 - 1), facts.st_ino, facts.st_ctime_ns)
    return Identity(facts.st_size, time_of(facts), hashlib.blake2b(version, digest_size=16).digest())


class Source:
    """An open file of one version.  Thread-safe, as all it keeps is constant; close it when done."""

    __slots__ = ("_ctime_ns", "_layout", "_sys", "holes", "identity", "lease", "mode", "parts")

    def __init__(self, sys: Syscalls, parts: Parts, lease: Lease, facts: os.stat_result) -> None:
        self._sys = sys
        self._ctime_ns = facts.st_ctime_ns
        self.parts = parts
        self.lease = lease
        self.identity = identity_of(facts)
        self.mode = facts.st_mode & 0o777
        self.holes = holes_of(facts)
        self._layout = Layout(sys, facts)

    @classmethod
    def open(cls, root: Root, parts: Parts) -> Source:
        lease, facts = root.open_regular(parts)
        return cls(root.sys, parts, lease, facts)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        return printable(self.parts)

    def check_unchanged(self) -> None:
        """Raise :class:`SourceChanged` if the file was written to since it was opened."""
        with named(self.parts), self.lease.hold() as fd:
            facts = self._sys.fstat(fd)
        now = (facts.st_size, time_of(facts), facts.st_ctime_ns)
        if now != (self.identity.size, self.identity.mtime_ns, self._ctime_ns):
            raise self._changed()

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill ``view`` from ``offset`` on; less only where this version of the file ends."""
        wanted = max(0, min(len(view), self.identity.size - offset))
        with named(self.parts), self.lease.hold() as fd:
            count = ranges.read_into(self._sys, fd, view[:wanted], offset)
        if count < wanted:
            raise self._changed()
        return count

    def runs(self, extents: Iterable[Extent]) -> list[Run]:
        """The first of the runs of data and holes that ``extents`` consist of, at most ``MOST_RUNS``.

        Of short runs of data with holes between them the bytes are read at once, until they are ``GATHERED``.
        """
        found: list[Run] = []
        gathered = 0
        with named(self.parts), self.lease.hold() as fd:
            for extent in extents:
                if found and extent.offset < found[-1].extent.end:
                    break
                for run in self._layout.runs(fd, extent):
                    if not run.hole and run.extent.length < SHORT_RUN:
                        run = run._replace(data=self._read(fd, run.extent))
                        gathered += run.extent.length
                    found.append(run)
                    if len(found) == MOST_RUNS or gathered >= GATHERED:
                        return found
        return found

    def _read(self, fd: int, extent: Extent) -> bytes:
        data = bytearray(extent.length)
        if ranges.read_into(self._sys, fd, memoryview(data), extent.offset) < extent.length:
            raise self._changed()
        return bytes(data)

    def chunk_crc(self, index: int, chunk_size: int, poll: Poll | None = None) -> int:
        """CRC-32 of a chunk."""
        extent = ChunkMap(self.identity.size, chunk_size).extent(index)
        return self.range_crc(extent.offset, extent.length, poll)

    def range_crc(self, offset: int, length: int, poll: Poll | None = None) -> int:
        """CRC-32 of a range."""
        try:
            with named(self.parts), self.lease.hold() as fd:
                return ranges.crc32(self._sys, fd, offset, length, poll)
        except ranges.ShortFile:
            raise self._changed() from None

    def range_digest(self, offset: int, length: int, poll: Poll | None = None) -> bytes:
        """XXH3-128 of a range, sixteen bytes; a range beyond the end belongs to no version and has no digest: b''."""
        if offset < 0 or length < 0 or offset + length > self.identity.size:
            return b""
        try:
            with named(self.parts), self.lease.hold() as fd:
                return ranges.digest(self._sys, fd, offset, length, poll)
        except ranges.ShortFile:
            raise self._changed() from None

    def close(self) -> None:
        self.lease.close()

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self.name}: it changed while it was being read")
