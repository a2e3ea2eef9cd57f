"""A relay between a client and a server that counts bytes, stops at a chosen one, damages one, or lets them drip.

Theory: to end a process at a random point of a transfer, the point must be one of the transfer and not of the clock.
The relay forwards exactly so many bytes in one direction and then holds back the rest until it is told to go on, so
the process can be ended at that byte, however fast or slow the machine is.  Its address stays the same while servers
behind it come and go, so the client's command does not change.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal, Self, TypeAlias

Direction: TypeAlias = Literal["up", "down"]
"""``up`` is from the client to the server."""

_PIECE = 256 * 1024
_CONNECT_SECONDS = 10.0


class Relay:
    """Forwards connections to ``target`` (HOST:PORT, may be set anew at any time)."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.by_connection: list[dict[Direction, int]] = []
        """The same as ``passed``, of each connection: what a killed process had sent passes even after its end."""
        self.reached = threading.Event()
        """Set once the byte that :meth:`stop_after` named has been forwarded."""
        self._limit: dict[Direction, int | None] = {"up": None, "down": None}
        self._damage: dict[Direction, int | None] = {"up": None, "down": None}
        self._bit = 0
        self._trickle: dict[Direction, int] = {"up": 0, "down": 0}
        self._go_on = threading.Event()
        self._stopped: list[threading.Event] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop_after(self, direction: Direction, count: int) -> None:
        """Forward ``count`` more bytes in this direction, then set ``reached`` and hold back what follows."""
        self.reached.clear()
        self._go_on.clear()
        self._limit[direction] = self.passed[direction] + count

    def go_on(self) -> None:
        """Hold back nothing any more."""
        self._limit = {"up": None, "down": None}
        for event in (*self._stopped, self._go_on):
            event.set()

    def leave_behind(self) -> None:
        """What is held back stays so until :meth:`go_on`, as on a dead network; other connections pass."""
        self._limit = {"up": None, "down": None}
        self._stopped.append(self._go_on)
        self._go_on = threading.Event()

    def damage(self, direction: Direction, count: int, bit: int = 4) -> None:
        """Turn one bit over, in the byte that passes after ``count`` more in this direction."""
        self._damage[direction] = self.passed[direction] + count
        self._bit = bit

    def trickle(self, direction: Direction, count: int) -> None:
        """Forward the next ``count`` bytes in this direction one by one, each in a segment of its own."""
        self._trickle[direction] = count

    def cut(self, number: int) -> None:
        """End one connection on both sides, without a goodbye; they are counted from 0 as they were made."""
        with self._lock:
            pair = self._sockets[2 * number : 2 * number + 2]
        for sock in pair:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.go_on()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            threads = self._threads
        for thread in threads:
            thread.join(_CONNECT_SECONDS)
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            host, _, port = self.target.rpartition(":")
            try:
                server = socket.create_connection((host, int(port)), _CONNECT_SECONDS)
            except OSError:  # the server is gone: so is what the client connected to
                client.close()
                continue
            server.settimeout(None)
            counts: dict[Direction, int] = {"up": 0, "down": 0}
            with self._lock:
                self.by_connection.append(counts)
                self._sockets += [client, server]
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pair in (("up", client, server), ("down", server, client)):
                thread = threading.Thread(target=self._forward, args=(*pair, counts), daemon=True)
                thread.start()
                with self._lock:
                    self._threads.append(thread)

    def _forward(
        self, direction: Direction, source: socket.socket, sink: socket.socket, counts: dict[Direction, int]
    ) -> None:
        buffer = bytearray(_PIECE)
        try:
            while got := source.recv_into(buffer):
                self._pass(direction, memoryview(buffer)[:got], sink)
                counts[direction] += got
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side is gone, so the other one has nobody to talk to
            for sock in (source, sink):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _pass(self, direction: Direction, data: memoryview, sink: socket.socket) -> None:
        at = self._damage[direction]
        if at is not None and at < self.passed[direction] + len(data):
            data[at - self.passed[direction]] ^= 1 << self._bit
            self._damage[direction] = None
        if (single := min(self._trickle[direction], len(data))) > 0:
            self._trickle[direction] -= single
            for at in range(single):
                sink.sendall(data[at : at + 1])
            self.passed[direction] += single
            data = data[single:]
        limit = self._limit[direction]
        if limit is not None and self.passed[direction] + len(data) >= limit:
            allowed = max(0, limit - self.passed[direction])
            sink.sendall(data[:allowed])
            self.passed[direction] += allowed
            data = data[allowed:]
            self.reached.set()
            self._go_on.wait()
        sink.sendall(data)
        self.passed[direction] += len(data)
