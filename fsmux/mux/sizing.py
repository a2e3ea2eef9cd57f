"""How large a DATA frame may be, by what the link takes.  Without I/O, time is passed in.

Theory: a frame once begun is finished, so its length on the link is what an urgent one may have to wait for, and its
cost in Python is the same however many bytes it has.  What the link accepted is counted over windows of steady sending
and rounded down to a power of two; a window is only believed once it moved more than the kernel's own queue can hide.
"""

from __future__ import annotations

from typing import Final, Protocol

from fsmux.limits import HOP_BYTES, MAX_DATA_PAYLOAD, MIN_FRAME

WINDOW_SECONDS: Final = 0.02
"""Seconds of steady sending in one window at least."""

HIDDEN_BYTES: Final = 4 * HOP_BYTES
"""Bytes that make a window however soon they are gone: no queue of the kernel hides as many."""


class Framed(Protocol):
    """What has frames of a size that can be set."""

    frame_size: int


class FrameSizer:
    """Sets the size of the frames of ``framed`` so that one occupies the link for about ``seconds``."""

    def __init__(self, framed: Framed, seconds: float) -> None:
        self._framed = framed
        self._seconds = seconds
        self._start = self._paused = 0.0
        self._bytes = 0

    def resume(self, now: float) -> None:
        """Sending goes on after a pause, which does not count."""
        self._start += now - self._paused

    def pause(self, now: float) -> None:
        """There is nothing to send for now."""
        self._paused = now

    def moved(self, size: int, now: float) -> bool:
        """``size`` more bytes were accepted, or have come.  True if the frame size changed."""
        self._bytes += size
        elapsed = now - self._start
        if elapsed < WINDOW_SECONDS:
            if self._bytes < HIDDEN_BYTES:
                return False
            elapsed = max(elapsed, 1e-6)
        goal = int(self._bytes / elapsed * self._seconds)
        self._start, self._bytes = now, 0
        size = MIN_FRAME
        while size * 2 <= goal and size < MAX_DATA_PAYLOAD:
            size *= 2
        changed = size != self._framed.frame_size
        self._framed.frame_size = size
        return changed
