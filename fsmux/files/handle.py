"""Random access to one file in place, for OPEN, READ, WRITE and CLOSE.

Unlike a sink this writes under the final name at once: whoever opens a file to write ranges of it has asked for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsmux.errors import AccessError
from fsmux.files import ranges
from fsmux.files.chunks import crc32_of
from fsmux.files.naming import named
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.files.lease import Lease
    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts


class Handle:
    """An open file to read and, if so opened, to write at any offset.  Thread-safe; close it when done."""

    __slots__ = ("_sys", "lease", "parts", "writable")

    def __init__(self, sys: Syscalls, parts: Parts, lease: Lease, writable: bool) -> None:
        self._sys = sys
        self.parts = parts
        self.lease = lease
        self.writable = writable

    @classmethod
    def open(
        cls, root: Root, parts: Parts, *, write: bool = False, create: bool = False, truncate: bool = False
    ) -> Handle:
        write = write or create or truncate
        lease = root.open_file(parts, write=write, create=create, truncate=truncate)
        return cls(root.sys, parts, lease, write)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def size(self) -> int:
        with named(self.parts), self.lease.hold() as fd:
            return self._sys.fstat(fd).st_size

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill ``view`` from ``offset`` on; less only at the end of the file."""
        with named(self.parts), self.lease.hold() as fd:
            return ranges.read_into(self._sys, fd, view, offset)

    def write(self, views: Sequence[memoryview], offset: int) -> int:
        """Write all of ``views`` from ``offset`` on; how many bytes.  The caller has checked their CRC."""
        if not self.writable:
            raise AccessError(f"{printable(self.parts)}: was opened for reading only")
        with named(self.parts), self.lease.hold() as fd:
            return ranges.write_all(self._sys, fd, views, offset)

    @staticmethod
    def crc32(views: Sequence[memoryview]) -> int:
        return crc32_of(views)

    def sync(self) -> None:
        with named(self.parts), self.lease.hold() as fd:
            self._sys.fsync(fd)

    def close(self) -> None:
        self.lease.close()
