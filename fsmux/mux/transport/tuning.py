"""What TCP is asked for on one connection: how to fill the link, and whom to wake when.

Theory: the kernel knows the link and how large its buffers ought to be; what it cannot know is what the bytes are for.
So it is told how little to hold unsent, so that urgent frames pass; for how much of a large frame to wake the reader;
and how fast to send while somebody waits for small replies.  Where it lacks an option or does not allow it, a
connection does without.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Final

from fsmux.limits import MIN_FRAME, NOTSENT_LOWAT
from fsmux.mux.standing import StandingQueue

RCVLOWAT: Final = 512 * 1024
"""Bytes. Inside a large frame the reader is woken for this much at a time (SO_RCVLOWAT): 2 GiB downloaded then take 8 %
less of both sides' processor time than with a wake-up for every segment (measured). Only what the frame still lacks is
ever waited for, so nothing can be held up that could have been handed out."""

MIN_LOWAT: Final = 128 * 1024
"""Bytes. Half of it is refilled in 1 ms at 1 Gbit/s, which a woken thread manages."""

CONGESTION_CONTROL: Final = b"bbr"
"""What TCP is asked to decide by how much to have under way. BBR goes by the rate at which data arrives; CUBIC and Reno
take every lost packet for a full link, so that at 100 ms and 0.1 % loss they are left with 5 Mbit/s. Each side's choice
holds for what it sends. Where the kernel lacks BBR or does not allow it, its own choice stays. The sizes of the
socket's buffers are the kernel's choice always: naming one (SO_SNDBUF, SO_RCVBUF) would stop it from growing them."""

LOOK_SECONDS: Final = 0.01
"""Seconds between two looks of a sending thread at how TCP is doing; one costs 3 µs."""


class Tuning:
    """The options of ``sock``; of a socket that is not TCP, none."""

    def __init__(self, sock: socket.socket) -> None:
        self.tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        self._sock = sock
        self._rcvlowat = 1
        self._standing = StandingQueue()
        self._looked = 0.0
        self._pace: int | None = None
        if self.tcp:
            with contextlib.suppress(OSError):  # some kernels say so if the peer has left already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _prefer_congestion_control(sock)
            self._set_lowat(NOTSENT_LOWAT // 4)

    def reading(self, certain: int) -> None:
        """Have the kernel wake the reader only for a useful amount, of which ``certain`` bytes must still come."""
        lowat = min(certain, RCVLOWAT) if certain >= MIN_FRAME else 1
        if lowat != self._rcvlowat and self.tcp:
            self._rcvlowat = lowat
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowat)

    def sending(self, frame_size: int) -> None:
        """Have it hold no more unsent than frames of this size need."""
        self._set_lowat(min(max(2 * frame_size, MIN_LOWAT), NOTSENT_LOWAT))

    def look(self, now: float, messages: int) -> None:
        """Now and then, have it pace so that small frames get through; see :mod:`fsmux.mux.standing`."""
        if now - self._looked <= LOOK_SECONDS:
            return
        self._looked = now
        if (info := self._info()) is None:
            return
        pace = self._standing.pace(now, messages, *info)
        if pace != self._pace:
            self._pace = pace
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("@L", pace or _UNPACED))

    @property
    def least_rtt(self) -> float | None:
        """Seconds of the shortest round trip of late; None if it is not known."""
        with contextlib.suppress(OSError):  # it was closed
            info = self._info()
            return None if info is None else info[1]
        return None

    def _info(self) -> tuple[float, float, int] | None:
        """Seconds of a round trip now and without a queue, and at how many bytes per second data arrives."""
        if not self.tcp or sys.platform != "linux":
            return None
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        if len(info) < _TCP_INFO.size:  # a kernel before 4.9
            return None
        rtt, least, rate = _TCP_INFO.unpack(info)
        return rtt / 1e6, least / 1e6, rate

    def _set_lowat(self, size: int) -> None:
        if self.tcp and sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


_SO_MAX_PACING_RATE = 47
_UNPACED = 2 ** (8 * struct.calcsize("@L")) - 1
_TCP_INFO = struct.Struct("=68xI76xI8xQ")
"""tcpi_rtt and tcpi_min_rtt in microseconds, tcpi_delivery_rate in bytes per second."""


def _prefer_congestion_control(sock: socket.socket) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)
