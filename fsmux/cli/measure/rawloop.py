"""The baseline: files through one socket with no protocol, ``sendfile`` on one side and ``recv_into`` on the other.

Theory: what two processes with blocking sockets reach is what the machine allows; a protocol is measured by how much
of it is left.  Variants, because each answers another question:

* single-threaded: what a person writes in an afternoon;
* ``--overlap``: the receiver writes one buffer in a second thread while the next arrives, the most that a receiver
  with two cores can do;
* ``--crc``: both sides make the CRC-32 of every byte and the receiver compares, as fsmux does.

A tree is its files one after the other, without modes or times.  It imports nothing that a bare interpreter does not
have (zlib-ng only for ``--crc``), and is run as a file, so that its start-up counts for as little as possible.  One
process serves one connection and ends::

    python -P rawloop.py serve PATH PORT_FILE [--receive] [--overlap] [--crc]
    python -P rawloop.py connect PATH HOST:PORT [--receive] [--overlap] [--crc]
"""

from __future__ import annotations

import os
import queue
import socket
import struct
import sys
import threading
import traceback

BUFFER = 1024 * 1024
BUFFERS = 8
"""Buffers between the receiving and the writing thread."""

CRC_PIECE = 256 * 1024
"""Bytes read at once for a CRC: they stay in the second-level cache between the read and the checksum."""

STEP = 4 * 1024 * 1024
"""Bytes sent by one sendfile call, and then read for their CRC while they are in the page cache."""

_COUNT = struct.Struct(">Q")
_ENTRY = struct.Struct(">IQ")
"""Length of the name, size of the file."""


def send(sock: socket.socket, path: str, crc: bool) -> None:
    """Send how many files, each with name and size before it, the checksum of all if wanted; wait for the answer."""
    names = _names(path)
    sock.sendall(_COUNT.pack(len(names)))
    checksum = 0
    piece = memoryview(bytearray(CRC_PIECE))
    for name in names:
        fd = os.open(os.path.join(path, name) if name else path, os.O_RDONLY)
        size = os.fstat(fd).st_size
        text = os.fsencode(name)
        sock.sendall(_ENTRY.pack(len(text), size) + text, socket.MSG_MORE if size else 0)
        offset = 0
        while offset < size:
            sent = os.sendfile(sock.fileno(), fd, offset, min(STEP, size - offset))
            if not sent:
                raise SystemExit("the file became shorter")
            if crc:
                checksum = _checksum_range(fd, offset, sent, piece, checksum)
            offset += sent
        os.close(fd)
    if crc:
        sock.sendall(_COUNT.pack(checksum))
    if sock.recv(1) != b"k":
        raise SystemExit("the receiver did not confirm")


def _names(path: str) -> list[str]:
    """Files beneath a directory, relative to it; the empty name for a file."""
    if not os.path.isdir(path):
        return [""]
    return [os.path.relpath(os.path.join(base, name), path) for base, _, names in os.walk(path) for name in names]


def _checksum_range(fd: int, offset: int, length: int, piece: memoryview, checksum: int) -> int:
    from zlib_ng import zlib_ng

    end = offset + length
    while offset < end:
        got = os.preadv(fd, [piece[: min(len(piece), end - offset)]], offset)
        checksum = zlib_ng.crc32(piece[:got], checksum)
        offset += got
    return checksum


class Writer:
    """Writes what was received, at once."""

    flags = 0

    def __init__(self, crc: bool) -> None:
        self.checksum = 0
        self._crc = crc
        self._buffer = memoryview(bytearray(BUFFER))

    def buffer(self) -> memoryview:
        """Where the next bytes go."""
        return self._buffer

    def write(self, fd: int, buffer: memoryview, offset: int) -> None:
        """Take the bytes that have arrived in a buffer."""
        if self._crc:
            from zlib_ng import zlib_ng

            self.checksum = zlib_ng.crc32(buffer, self.checksum)
        written = 0
        while written < len(buffer):
            written += os.pwrite(fd, buffer[written:], offset + written)

    def close(self, fd: int) -> None:
        """A file is whole."""
        os.close(fd)

    def finish(self) -> None:
        """Return when all is written."""


class OverlappedWriter(Writer):
    """Writes in a second thread, from buffers filled whole: a hand-over costs the same for 64 KiB and for 1 MiB."""

    flags = socket.MSG_WAITALL

    def __init__(self, crc: bool) -> None:
        super().__init__(crc)
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[int, memoryview | None, int, int] | None] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(memoryview(bytearray(BUFFER)))
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def buffer(self) -> memoryview:
        self._current = self._free.get()
        return self._current

    def write(self, fd: int, buffer: memoryview, offset: int) -> None:
        self._full.put((fd, self._current, len(buffer), offset))

    def close(self, fd: int) -> None:
        self._full.put((fd, None, 0, 0))

    def finish(self) -> None:
        self._full.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while (item := self._full.get()) is not None:
                fd, buffer, got, offset = item
                if buffer is None:
                    super().close(fd)
                else:
                    super().write(fd, buffer[:got], offset)
                    self._free.put(buffer)
        except Exception:
            traceback.print_exc()
            os._exit(1)  # the receiving thread would wait for a buffer for ever


def receive(sock: socket.socket, path: str, overlap: bool, crc: bool) -> None:
    """Receive into ``path``, which must not exist yet, and confirm."""
    writer = OverlappedWriter(crc) if overlap else Writer(crc)
    (count,) = _COUNT.unpack(_exactly(sock, _COUNT.size))
    directories = {os.path.dirname(path)}
    for _ in range(count):
        length, size = _ENTRY.unpack(_exactly(sock, _ENTRY.size))
        target = os.path.join(path, os.fsdecode(_exactly(sock, length))) if length else path
        if (directory := os.path.dirname(target)) not in directories:
            os.makedirs(directory, exist_ok=True)
            directories.add(directory)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        offset = 0
        while offset < size:
            buffer = writer.buffer()
            got = sock.recv_into(buffer[: size - offset], 0, writer.flags)
            if not got:
                raise SystemExit("the sender left")
            writer.write(fd, buffer[:got], offset)
            offset += got
        writer.close(fd)
    writer.finish()
    if crc and (writer.checksum,) != _COUNT.unpack(_exactly(sock, _COUNT.size)):
        raise SystemExit("the checksum does not match")
    sock.sendall(b"k")


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise SystemExit("the peer left")
        data += more
    return data


def main(arguments: list[str]) -> None:
    """Run as the docstring of this module says."""
    flags = {word for word in arguments if word.startswith("--")}
    mode, path, where = [word for word in arguments if not word.startswith("--")]
    if mode == "serve":
        listener = socket.create_server(("127.0.0.1", 0))
        with open(f"{where}.new", "w") as port_file:
            port_file.write(f"127.0.0.1:{listener.getsockname()[1]}\n")
        os.rename(f"{where}.new", where)
        sock, _ = listener.accept()
    else:
        host, _, port = where.rpartition(":")
        sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "--receive" in flags:
        receive(sock, path, "--overlap" in flags, "--crc" in flags)
    else:
        send(sock, path, "--crc" in flags)


if __name__ == "__main__":
    main(sys.argv[1:])
