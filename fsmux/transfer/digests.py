"""What the chunks of a source come to, and came to: remembered, a file served again need not be read for it.

Theory: identity decides.  A file whose device, inode, size, mtime and ctime are what they were has not been written
since, except within the resolution of its clock; so nothing is remembered of a file that was modified a moment ago.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import xxhash

from fsmux.wire.frames import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.records import Identity
    from fsmux.wire.frames import Buffer

MAX_CHUNKS_REMEMBERED = 1_000_000
"""Chunk checksums kept, about 100 bytes each: 4 TiB of files at 4 MiB a chunk."""

SETTLED_NS = 2_000_000_000
"""Nanoseconds since its last modification after which a file's times are believed to show the next one."""


class DigestCache:
    """CRC-32 of chunks by (identity, chunk size), least recently used out first. For the event loop only."""

    def __init__(self, wall_clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._now = wall_clock_ns
        self._files: OrderedDict[tuple[Identity, int], dict[int, int]] = OrderedDict()
        self._count = 0

    def of(self, identity: Identity, chunk_size: int) -> dict[int, int]:
        """The known CRC-32 by chunk index; what is put into it through :meth:`remember` stays."""
        key = (identity, chunk_size)
        known = self._files.get(key)
        if known is None:
            return {}
        self._files.move_to_end(key)
        return known

    def remember(self, identity: Identity, chunk_size: int, crcs: dict[int, int]) -> None:
        """Keep ``crcs``, beside those known, of a source that was found unchanged after they were made."""
        if not crcs or abs(self._now() - identity.mtime_ns) < SETTLED_NS:
            return
        key = (identity, chunk_size)
        known = self._files.pop(key, {})
        self._files[key] = {**known, **crcs}
        self._count += len(self._files[key]) - len(known)
        while self._count > MAX_CHUNKS_REMEMBERED and len(self._files) > 1:
            _, dropped = self._files.popitem(last=False)
            self._count -= len(dropped)


class DigestMeter(Meter):
    """One that makes the XXH3-128 of what is sent, too."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        super().__init__()
        self._state = xxhash.xxh3_128()

    def update(self, data: Buffer) -> None:
        super().update(data)
        self._state.update(data)

    def digest(self) -> bytes:
        return self._state.digest()
