"""stdin and stdout: bytes that pass once, in order, at the pace of somebody else's process.

Theory: a thread that waits in ``read`` or ``write`` cannot be cancelled, so nobody waits there: ``poll`` tells when
there is something to do, for a fraction of a second at a time, and the caller's ``poll`` may raise in between.  The
descriptors belong to other processes as well, and so do their flags: stdin is only read when it has something, and a
pipe that is stdout is opened anew, as a file of our own that never blocks.  Where that cannot be (a socket, a pipe of
another user) so little is written at a time that a pipe which can be written to at all has room for it.
"""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import from_os_error
from fsmux.files.chunks import crc32_of
from fsmux.files.syscalls import Syscalls, real
from fsmux.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsmux.files.ranges import Poll

PIPE_BYTES: Final = 1 * MIB
"""Bytes that a pipe is asked to hold: the most that Linux lets anybody have. With the usual 64 KiB the two processes
take turns 16 times as often."""

ATOMIC_BYTES: Final = 4 * KIB
"""PIPE_BUF: a pipe that ``poll`` calls writable has room for so many."""

TICK_MS: Final = 100
"""Milliseconds after which a wait looks whether it is still wanted."""

GATHER_MS: Final = 5
"""Milliseconds that a piece which is not full waits for more. A producer that writes steadily has written by then."""

PIECE_SECONDS: Final = 0.1
"""Seconds after which a piece is full enough: from here on it can be cancelled, and is not lost by that."""


class PipeReader:
    """Reads stdin, or whatever ``fd`` is.  One thread at a time."""

    def __init__(self, fd: int = 0, sys: Syscalls = real) -> None:
        self._sys = sys
        self._fd = fd
        self._ended = False
        with suppress(OSError):
            sys.set_pipe_size(fd, PIPE_BYTES)

    def read_into(self, view: memoryview, poll: Poll) -> tuple[int, int]:
        """Fill ``view`` as far as bytes come without much waiting: how many, and their CRC-32.  0: the end.

        ``poll`` is called while nothing at all has come, and may raise; nothing is lost then.
        """
        done, until = 0, 0.0
        try:
            while done < len(view) and not self._ended:
                if done and time.monotonic() > until:
                    break
                if not self._sys.wait(self._fd, False, GATHER_MS if done else TICK_MS):
                    if done:
                        break
                    poll()
                    continue
                with suppress(BlockingIOError):  # somebody else has made it so, and was faster
                    count = self._sys.readv(self._fd, (view[done:],))
                    until = until if done else time.monotonic() + PIECE_SECONDS
                    done += count
                    self._ended = not count  # a terminal could begin anew
        except OSError as error:
            raise from_os_error(error, "stdin") from error
        return done, crc32_of([view[:done]])


class PipeWriter:
    """Writes to stdout, or whatever ``fd`` is.  One thread at a time; close it when done, which leaves ``fd`` alone."""

    def __init__(self, fd: int = 1, sys: Syscalls = real) -> None:
        self._sys = sys
        self._fd = fd
        self._own = -1
        self._most = ATOMIC_BYTES
        try:
            kind = sys.fstat(fd).st_mode
            if stat.S_ISREG(kind) or stat.S_ISBLK(kind):
                self._most = 0  # it is never waited for by anybody else's leave
            elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
                with suppress(OSError):
                    self._own = self._fd = sys.reopen_to_write(fd)
                    self._most = 0
        except OSError as error:
            raise from_os_error(error, "stdout") from error
        with suppress(OSError):
            sys.set_pipe_size(fd, PIPE_BYTES)

    def close(self) -> None:
        if self._own >= 0:
            with suppress(OSError):
                self._sys.close(self._own)
            self._own = -1

    def write(self, views: Sequence[memoryview], written: Callable[[int], None], poll: Poll) -> None:
        """Write all of ``views``; ``written`` hears of every step, ``poll`` is called when nobody reads and may raise.

        Raises :class:`BrokenPipeError` as it is when nobody will read any more.
        """
        for view in views:
            while len(view):
                step = view[: self._most] if self._most else view
                try:
                    if not self._sys.wait(self._fd, True, TICK_MS):
                        poll()
                        continue
                    count = self._sys.writev(self._fd, (step,))
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise
                except OSError as error:
                    raise from_os_error(error, "stdout") from error
                written(count)
                view = view[count:]
