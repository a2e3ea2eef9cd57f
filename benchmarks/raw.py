"""The baseline: a file through one socket with no protocol, ``sendfile`` on one side and ``recv_into`` on the other.

Theory: what two processes with blocking sockets reach is what the machine allows; a protocol is measured by how much
of it is left.  Variants, because each answers another question:

* single-threaded: what a person writes in an afternoon;
* ``--overlap``: the receiver writes one buffer in a second thread while the next arrives, the most that a receiver
  with two cores can do;
* ``--crc``: both sides make the CRC-32 of every byte and the receiver compares, as fsmux does.

It imports nothing that a bare interpreter does not have (zlib-ng only for ``--crc``), so that its start-up counts for
as little as possible.  One process serves one connection and ends::

    python -m benchmarks.raw serve FILE PORT_FILE [--receive] [--overlap] [--crc]
    python -m benchmarks.raw connect FILE ADDRESS [--receive] [--overlap] [--crc]
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading

BUFFER = 1024 * 1024
BUFFERS = 8
"""Buffers between the receiving and the writing thread."""

CRC_PIECE = 256 * 1024
"""Bytes read at once for a CRC: they stay in the second-level cache between the read and the checksum."""

STEP = 4 * 1024 * 1024
"""Bytes sent by one sendfile call, and then read for their CRC while they are in the page cache."""

_NUMBER = 8


def send(sock: socket.socket, path: str, crc: bool) -> None:
    """Send the length, the bytes, their checksum if wanted, and wait until the receiver says that it has them."""
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    sock.sendall(size.to_bytes(_NUMBER, "big"))
    offset, checksum = 0, 0
    piece = memoryview(bytearray(CRC_PIECE))
    while offset < size:
        sent = os.sendfile(sock.fileno(), fd, offset, min(STEP, size - offset))
        if crc:
            checksum = _checksum_range(fd, offset, sent, piece, checksum)
        offset += sent
    if crc:
        sock.sendall(checksum.to_bytes(_NUMBER, "big"))
    os.close(fd)
    if sock.recv(1) != b"k":
        raise SystemExit("the receiver did not confirm")


def _checksum_range(fd: int, offset: int, length: int, piece: memoryview, checksum: int) -> int:
    from zlib_ng import zlib_ng

    end = offset + length
    while offset < end:
        got = os.preadv(fd, [piece[: min(len(piece), end - offset)]], offset)
        checksum = zlib_ng.crc32(piece[:got], checksum)
        offset += got
    return checksum


def receive(sock: socket.socket, path: str, overlap: bool, crc: bool) -> None:
    """Receive into ``path``, which must not exist yet, and confirm."""
    size = int.from_bytes(_exactly(sock, _NUMBER), "big")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    checksum = _receive_overlapped(sock, fd, size, crc) if overlap else _receive_plainly(sock, fd, size, crc)
    if crc and checksum != int.from_bytes(_exactly(sock, _NUMBER), "big"):
        raise SystemExit("the checksum does not match")
    os.close(fd)
    sock.sendall(b"k")


def _receive_plainly(sock: socket.socket, fd: int, size: int, crc: bool) -> int:
    if crc:
        from zlib_ng import zlib_ng
    buffer = memoryview(bytearray(BUFFER))
    offset, checksum = 0, 0
    while offset < size:
        got = sock.recv_into(buffer[: size - offset])
        if not got:
            raise SystemExit("the sender left")
        if crc:
            checksum = zlib_ng.crc32(buffer[:got], checksum)
        written = 0
        while written < got:
            written += os.pwrite(fd, buffer[written:got], offset + written)
        offset += got
    return checksum


def _receive_overlapped(sock: socket.socket, fd: int, size: int, crc: bool) -> int:
    free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
    for _ in range(BUFFERS):
        free.put(memoryview(bytearray(BUFFER)))
    checksum = 0

    def write() -> None:
        nonlocal checksum
        if crc:
            from zlib_ng import zlib_ng
        offset = 0
        while (item := full.get()) is not None:
            buffer, got = item
            if crc:
                checksum = zlib_ng.crc32(buffer[:got], checksum)
            written = 0
            while written < got:
                written += os.pwrite(fd, buffer[written:got], offset + written)
            offset += got
            free.put(buffer)

    writer = threading.Thread(target=write)
    writer.start()
    received = 0
    try:
        while received < size:
            buffer = free.get()
            # Filled whole: a hand-over costs the same for 64 KiB as for 1 MiB.
            got = sock.recv_into(buffer[: size - received], 0, socket.MSG_WAITALL)
            if not got:
                raise SystemExit("the sender left")
            full.put((buffer, got))
            received += got
    finally:
        full.put(None)
        writer.join()
    return checksum


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
