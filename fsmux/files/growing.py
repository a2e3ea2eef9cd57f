"""A file whose length nobody knows yet: written from its beginning to its end, and then made visible whole.

Theory: bytes from a pipe cannot be had twice, so there is nothing that another session could go on with, and no
journal.  What is written is a part like that of a file of one chunk, which is just what it has become once its end is
known; from there on it is committed like any other file.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsmux.errors import ProtocolError
from fsmux.files import ranges
from fsmux.files import resume as places
from fsmux.files.chunks import combine, crc32_of
from fsmux.files.manifest import Manifest
from fsmux.files.naming import named
from fsmux.files.opening import land_file
from fsmux.files.sink import Sink
from fsmux.records import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.files.root import Root
    from fsmux.records import Durability, Parts


class Growing:
    """A file that grows at its end only; :meth:`commit` or :meth:`discard` it.  For one thread at a time."""

    def __init__(self, root: Root, parts: Parts, mode: int, durability: Durability, *, verify: bool = False) -> None:
        """Begin it.  ``verify`` is that of :func:`.open_sink`; so is how it fails, and that it changes nothing then."""
        _, pin = land_file(root, parts)
        try:
            with named(parts):
                place = places.open_single(root.sys, pin.state, _whole(0, 0, 0))
        except BaseException:
            pin.release()
            raise
        self.size = 0
        self.crc32 = 0
        self.committed = False
        self._sink = Sink(root, parts, place, pin, mode, durability, time.monotonic, final=(), verify=verify)

    def append(self, views: Sequence[memoryview], offset: int, crc: int) -> int:
        """Write ``views``, whose place must be the end of the file, if their CRC-32 is ``crc``; what that is."""
        sink = self._sink
        if offset != self.size:
            raise ProtocolError(f"{sink.name}: a range begins at {offset}, and the file ends at {self.size}")
        found = crc32_of(views)
        if found != crc:
            return found
        with named(sink.parts), sink.place.part.hold() as fd:
            length = ranges.write_all(sink.sys, fd, views, offset)
        self.size += length
        self.crc32 = combine(self.crc32, crc, length)
        return found

    def commit(self) -> bool:
        """Give it its name.  True if it is on stable storage, name and all.

        Raises :class:`StorageError` if it was to be verified and the device has something else.
        """
        self._sink.manifest = _whole(self.size, self._sink.sys.now_ns(), self.crc32)
        durable = self._sink.commit()
        self.committed = True
        return durable

    def discard(self) -> None:
        """Remove what was written, unless it was committed.  The second call does nothing."""
        self._sink.discard()


def _whole(size: int, mtime_ns: int, crc: int) -> Manifest:
    """A complete manifest: of no chunks, or of one that is the file."""
    manifest = Manifest(Identity(size, mtime_ns, b""), max(size, 1))
    if size:
        manifest.add(0, crc)
    return manifest
