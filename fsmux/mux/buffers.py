"""Where received DATA waits for the disk: large reused buffers that frames of all streams are laid into one by one.

Theory: the kernel copies a payload straight to where the disk writer will take it from, so Python never copies it.
Frames are laid end to end into *slabs*, whichever stream they belong to, because a buffer per stream would cost a
thousand half-empty buffers for a thousand streams.  A slab is free again when each piece in it has been released.
Credit bounds what may arrive, and so how many slabs there are; those not in use are kept only up to ``KEEP``.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from fsmux.limits import EAGER_CREDIT, MIB, RECEIVE_BUDGET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.mux.pour import Pour
    from fsmux.records import Extent

SLAB = 1 * MIB
"""Bytes. Large enough that a frame rarely spans two, small enough that a pinned one wastes little. Anonymous maps,
because a fresh ``bytearray`` of this size costs 256 page faults each time."""

KEEP = 16
"""Free slabs kept for reuse (16 MiB): what a transfer at full speed has in flight between socket and disk."""


MOST = (RECEIVE_BUDGET + EAGER_CREDIT) // SLAB + KEEP
"""Slabs at most. Credit lets no more be full; where a little in each of many has to wait, what comes beyond them gets
memory of its own."""


def anonymous(size: int) -> memoryview:
    """``size`` bytes of memory that the kernel takes back when the last view of it is gone."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class _Slab:
    __slots__ = ("pending", "used", "view")

    def __init__(self) -> None:
        self.view = anonymous(SLAB)
        self.used = 0
        self.pending = 0


class Data:
    """The payload of one DATA frame, or a part of it: ``length`` bytes, for ``places`` of a file if a SPAN said so.

    They are in ``views``, valid until it is handed to ``Stream.consumed``; or on the disk already, as ``pour`` says.
    """

    __slots__ = ("_slabs", "length", "places", "pour", "released", "views")

    def __init__(
        self,
        length: int,
        views: list[memoryview],
        slabs: Sequence[_Slab] = (),
        *,
        places: tuple[Extent, ...] = (),
        pour: Pour | None = None,
    ) -> None:
        self.length = length
        self.views = views
        self.places = places
        self.pour = pour
        self.released = False
        self._slabs = slabs

    def __bytes__(self) -> bytes:
        return b"".join(self.views)


class BufferPool:
    """Slabs of one connection.  Not thread-safe: only the event loop lays out and releases."""

    def __init__(self) -> None:
        self._free: list[_Slab] = []
        self._current: _Slab | None = None
        self._keep = KEEP
        self.allocated = 0

    def place(self, length: int, places: tuple[Extent, ...] = ()) -> Data:
        """Room for a payload of ``length`` bytes (at least one)."""
        views: list[memoryview] = []
        slabs: list[_Slab] = []
        rest = length
        while rest:
            slab = self._current
            if slab is None or slab.used == SLAB:
                if not self._free and self.allocated >= MOST:
                    self._current = None
                    views.append(memoryview(bytearray(rest)))
                    break
                slab = self._current = self._take()
            size = min(rest, SLAB - slab.used)
            views.append(slab.view[slab.used : slab.used + size])
            slab.used += size
            slab.pending += 1
            slabs.append(slab)
            rest -= size
        return Data(length, views, slabs, places=places)

    def release(self, data: Data) -> None:
        """Give the room back; a second call does nothing."""
        if data.released:
            return
        data.released = True
        data.views = []
        for slab in data._slabs:
            slab.pending -= 1
            if slab.pending == 0:
                if slab is self._current:
                    slab.used = 0  # the newest slab, empty again: start over while it is warm in the cache
                else:
                    self._give(slab)

    def close(self) -> None:
        """Nothing more arrives: keep no slab for it. What is laid out stays until it is released.

        Without this the slabs of each connection that has ended would stay until somebody looks for cycles, which a
        server seldom does.
        """
        self.allocated -= len(self._free)
        self._free.clear()
        self._keep = 0
        current, self._current = self._current, None
        if current is not None and not current.pending:
            self.allocated -= 1

    def _take(self) -> _Slab:
        if self._free:
            return self._free.pop()
        self.allocated += 1
        return _Slab()

    def _give(self, slab: _Slab) -> None:
        slab.used = 0
        if len(self._free) < self._keep:
            self._free.append(slab)
        else:
            self.allocated -= 1
