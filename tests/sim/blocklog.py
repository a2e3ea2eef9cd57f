"""A file that remembers every write to it: what the image of a disk lies on, so that each moment can be had again.

Theory: a FUSE file system whose root is one regular file, without libraries: requests are read from ``/dev/fuse`` and
answered one after the other.  Every WRITE is done on the image beneath and then appended to a log with its bytes, and
so is every FSYNC.  A loop device on that file gives a file system something to live on; a write that the file system
was told is done is in the log, so that the length of the log is a time.  It runs as a process of its own, because the
kernel waits for its answers: ``python -m tests.sim.blocklog IMAGE FILE LOG``, which ends when FILE is unmounted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_IN: Final = struct.Struct("<IIQQIIII")
_OUT: Final = struct.Struct("<IiQ")
_INIT: Final = struct.Struct("<IIIIHHIIHHII24x")
_ATTR: Final = struct.Struct("<QII6Q10I")
_OPEN: Final = struct.Struct("<QII")
_RANGE: Final = struct.Struct("<QQIIQII")
_STATFS: Final = struct.Struct("<5Q4I24x")
_RECORD: Final = struct.Struct("<QI")

_FORGET, _GETATTR, _SETATTR, _OPENING, _READ, _WRITE, _STATFS_OF, _RELEASE = 2, 3, 4, 14, 15, 16, 17, 18
_FSYNC, _FLUSH, _INITIAL, _INTERRUPT, _DESTROY, _FORGET_MANY = 20, 25, 26, 36, 38, 42
_UNANSWERED: Final = frozenset((_FORGET, _INTERRUPT, _FORGET_MANY))
_EMPTY: Final = frozenset((_RELEASE, _FLUSH, _DESTROY))

MOST_WRITE: Final = 128 * 1024
"""Bytes of one WRITE; a larger one comes in several."""

BUFFER: Final = MOST_WRITE + 64 * 1024
MODE: Final = 0o100600
FLUSHED: Final = (1 << 64) - 1
"""The offset of a record that says: all before is on stable storage."""


class Written(NamedTuple):
    """One entry of a log; ``end`` is the length of the log with it."""

    offset: int
    data: bytes
    end: int

    @property
    def flush(self) -> bool:
        return self.offset == FLUSHED


def read_log(path: Path) -> Iterator[Written]:
    """Everything that was written, and when it was made durable, in order."""
    log = path.read_bytes()
    at = 0
    while at < len(log):
        offset, length = _RECORD.unpack_from(log, at)
        at += _RECORD.size + length
        yield Written(offset, log[at - length : at], at)


class Server:
    """Answers for one file."""

    def __init__(self, image: str, log: str) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._fuse = os.open("/dev/fuse", os.O_RDWR)

    def mount(self, file: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self._fuse},rootmode={MODE:o},user_id={os.getuid()},group_id={os.getgid()}"
        if libc.mount(b"blocklog", os.fsencode(file), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def run(self) -> None:
        """Until it is unmounted."""
        while True:
            try:
                request = os.read(self._fuse, BUFFER)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue  # somebody did not want to wait any longer
                raise
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode in _UNANSWERED:
                continue
            number, answer = 0, b""
            try:
                answer = self._answer(opcode, memoryview(request)[_IN.size :])
            except OSError as error:
                number = -(error.errno or errno.EIO)
            try:
                os.write(self._fuse, _OUT.pack(_OUT.size + len(answer), number, unique) + answer)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise

    def _answer(self, opcode: int, body: memoryview) -> bytes:
        if opcode == _WRITE:
            _, offset, length, *_ = _RANGE.unpack_from(body)
            data = body[_RANGE.size : _RANGE.size + length]
            os.pwrite(self._image, data, offset)
            self._note(offset, data)
            return struct.pack("<II", length, 0)
        if opcode == _READ:
            _, offset, length, *_ = _RANGE.unpack_from(body)
            return os.pread(self._image, length, offset)
        if opcode == _FSYNC:
            self._note(FLUSHED, b"")
            return b""
        if opcode in (_GETATTR, _SETATTR):
            size = os.fstat(self._image).st_size
            return _ATTR.pack(
                1, 0, 0, 1, size, size // 512, 0, 0, 0, 0, 0, 0, MODE, 1, os.getuid(), os.getgid(), 0, 4096, 0
            )
        if opcode == _OPENING:
            return _OPEN.pack(1, 0, 0)
        if opcode == _INITIAL:
            return _INIT.pack(7, 31, MOST_WRITE, 1 << 5, 16, 12, MOST_WRITE, 1, 32, 0, 0, 0)
        if opcode == _STATFS_OF:
            return _STATFS.pack(1 << 20, 1 << 20, 1 << 20, 1, 1, 4096, 255, 4096, 0)
        if opcode in _EMPTY:
            return b""
        raise OSError(errno.ENOSYS, "")

    def _note(self, offset: int, data: bytes | memoryview) -> None:
        record = _RECORD.pack(offset, len(data)) + data
        if os.write(self._log, record) != len(record):
            raise OSError(errno.EIO, "")


def main() -> None:
    """See the head of this module. Says ``ready`` when the file is there."""
    image, file, log = sys.argv[1:]
    server = Server(image, log)
    server.mount(file)
    print("ready", flush=True)
    server.run()


if __name__ == "__main__":
    main()
