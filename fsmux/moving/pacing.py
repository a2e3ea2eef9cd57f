"""How much is put into one pack, by what the link carries.  Without I/O, time is passed in.

Theory: of a pack nothing stands before all of it is there.  So what a pack takes to travel is what a lost connection
costs; and whoever has a slow link loses it often.  A pack is as long as the link is busy with it for a while at most.
What the link carries is counted in packs that are done, over windows in which some were under way; a pack that was
lost with its connection says how much it does not.  Before anything is known packs are shorter than where the link is
known to be fast.

A file that would take long goes by a session of its own, which keeps what has come of it.  That is decided by what is
known beforehand and by losses only: what one run keeps the next one should look for.
"""

from __future__ import annotations

from typing import Final

from fsmux.limits import KIB, MEDIUM_FILE, MIB, PACK_BYTES, PACKS_AHEAD, SMALL_FILE

PACK_SECONDS: Final = 0.5
"""Seconds that a pack may take to travel: little to lose, and a hundred times what a pack costs by itself."""

FILE_SECONDS: Final = 2.0
"""Seconds that a file in a pack may take to travel."""

FIRST_FAR: Final = 256 * KIB
"""Bytes of a pack while nothing is known, if the other side is far."""

FIRST_NEAR: Final = 1 * MIB
"""The same if it is not: then the link is fast but for tunnels and the like. Fewer cost time: 10,000 files of 4 KiB
took 0.416 s with the first ones as large as all, 0.427 with 256 KiB, 0.419 beside 0.418 with this (measured)."""

FIRST_AHEAD: Final = 4
"""Packs of ``FIRST_NEAR`` that are on their way before the first of them is done."""

FAR_FILE: Final = 1 * MIB
"""Bytes of a file up to which it may go in a pack at best, if the other side is far: the link may turn out to be slow
when all is planned. At 200 Mbit/s and 100 ms 80 files of 1 MiB take 4.8 s in packs, 5.2 down and 5.4 up in sessions, 16
at once (measured)."""

LEAST_PACK: Final = 64 * KIB
"""Bytes of a pack at least, be the link as slow as it may: about as much are its index and its answers."""

WINDOW_SECONDS: Final = 0.1
"""Seconds of a window in which less than ``FIRST_FAR`` was done."""

ENTRY_BYTES: Final = 1 * KIB
"""Bytes that an entry counts for beside its contents, so that a tree of nothing but names does not look slow."""


class Pace:
    """What one run has found out about its link.

    ``rate`` is the most bytes per second that may travel, if that is limited; ``far``: the other side is known not to
    be in the next room, so that the link may be slow.
    """

    def __init__(self, rate: int | None, *, far: bool) -> None:
        self.ahead = PACKS_AHEAD if far else FIRST_AHEAD
        """Packs that may be on their way."""
        self.pack_bytes = FIRST_FAR if far else FIRST_NEAR
        """Bytes of contents that a pack is to be filled up to."""
        self.medium = FAR_FILE if far else MEDIUM_FILE
        """Bytes of a file up to which it may go in a pack."""
        self._since = self._last = 0.0
        self._bytes = 0
        if rate is not None:
            self._carries(rate)
            self._lower(rate)

    def resume(self, now: float) -> None:
        """A pack is on its way, and none was since the last one was done: that time does not count."""
        self._since += now - self._last
        self._last = now

    def done(self, contents: int, entries: int, now: float) -> None:
        """A pack with so many bytes and entries stands."""
        self._last = now
        self._bytes += contents + entries * ENTRY_BYTES
        elapsed = now - self._since
        if self._bytes >= FIRST_FAR or elapsed >= WINDOW_SECONDS:
            self._carries(self._bytes / max(elapsed, 1e-6))
            self._since, self._bytes = now, 0

    def lost(self, contents: int, now: float) -> None:
        """The connection is, and with it a pack of so many bytes that was the next to be done."""
        elapsed = now - self._last
        if elapsed >= PACK_SECONDS:
            rate = contents / elapsed
            if rate * PACK_SECONDS < self.pack_bytes:
                self._carries(rate)
            self._lower(rate)
        self._since, self._last, self._bytes = now, now, 0

    def _carries(self, rate: float) -> None:
        self.ahead = PACKS_AHEAD
        self.pack_bytes = min(max(int(rate * PACK_SECONDS), LEAST_PACK), PACK_BYTES)

    def _lower(self, rate: float) -> None:
        self.medium = min(self.medium, max(int(rate * FILE_SECONDS), SMALL_FILE))
