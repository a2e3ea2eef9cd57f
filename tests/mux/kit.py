"""What tests of connections share: pairs of transports, peers that speak raw frames, and the check for leftovers."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from msgspec.structs import replace
from trio.testing import memory_stream_pair

from fsmux import limits
from fsmux.files.lease import Lease
from fsmux.files.syscalls import real
from fsmux.mux.buffers import Data
from fsmux.mux.connection import Connection, open_connection
from fsmux.mux.transport import SocketTransport, StreamTransport, Transport
from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import Cmd, FileSpan, Frame
from fsmux.wire.frames import encode as encode_frame
from fsmux.wire.messages import Hello, Message, Ok, Stat, encode
from fsmux.wire.state import Role

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fsmux.mux.stream import Stream

DEADLINE = 30.0
"""Seconds after which a test hangs; nothing here takes a tenth of it on an idle machine."""

HELLO = Hello(
    max_streams=limits.MAX_STREAMS, initial_credit=limits.INITIAL_CREDIT, eager_credit=limits.EAGER_CREDIT, agent="test"
)

KINDS = ("tcp", "unix", "memory")

UNKNOWN = sorted({0, 9, 15, 27, 37, 60, 61, 62, 255, 65535} - set(Cmd))
"""Commands that no release has."""


def socket_pair(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def transports(kind: str) -> tuple[Transport, Transport]:
    """Two joined transports."""
    if kind == "memory":
        near, far = memory_stream_pair()
        return StreamTransport(near), StreamTransport(far)
    near_socket, far_socket = socket_pair(kind)
    return SocketTransport(near_socket, f"{kind} peer"), SocketTransport(far_socket, f"{kind} peer")


def half_raw(kind: str) -> tuple[Transport, trio.abc.Stream]:
    """A transport, and the other end as plain bytes."""
    if kind == "memory":
        near, far = memory_stream_pair()
        return StreamTransport(near), far
    near_socket, far_socket = socket_pair(kind)
    far_socket.setblocking(False)
    return SocketTransport(near_socket, kind), trio.SocketStream(trio.socket.from_stdlib_socket(far_socket))


@asynccontextmanager
async def connected(
    kind: str, *, client: Hello = HELLO, server: Hello = HELLO, pair: tuple[Transport, Transport] | None = None
) -> AsyncIterator[tuple[Connection, Connection]]:
    """A client's and a server's connection with each other. When both left in good order, neither may keep anything."""
    near, far = pair or transports(kind)
    send, receive = trio.open_memory_channel[Connection](0)
    leave = trio.Event()

    async def serve() -> None:
        async with open_connection(far, Role.SERVER, server) as connection:
            await send.send(connection)
            await leave.wait()

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with open_connection(near, Role.CLIENT, client) as mine:
                yield mine, await receive.receive()
                leave.set()


async def serve(connection: Connection, handler: Callable[[Stream], Awaitable[None]]) -> None:
    """Run ``handler`` for each stream that the peer opens, until the connection ends."""

    async def one(stream: Stream) -> None:
        async with stream:
            await handler(stream)

    async with trio.open_nursery() as streams:
        while (stream := await connection.accept()) is not None:
            streams.start_soon(one, stream)


async def answer_ok(stream: Stream) -> None:
    await stream.receive()
    await stream.send(Ok(), end=True)


async def read_to_the_end(stream: Stream) -> None:
    while (item := await stream.receive()) is not None:
        if isinstance(item, Data):
            stream.consumed(item)


async def ask(connection: Connection) -> None:
    async with connection.open_stream(Stat((b"x",)), end=True) as stream:
        assert isinstance(await stream.receive(), Ok)


class RawPeer:
    """The other side of a connection, for sending whatever bytes a test likes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._decoder = Decoder(lambda header: limits.MAX_DATA_PAYLOAD)
        self._frames: list[Frame] = []

    async def send(self, *items: Message | Frame | bytes, on: int = 0, flags: int = 0) -> None:
        await self.stream.send_all(b"".join(as_bytes(item, on, flags) for item in items))

    async def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection, however it ended."""
        while not self._frames:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    async def until(self, cmd: int) -> Frame:
        """The next frame with this command."""
        while True:
            frame = await self.frame()
            assert frame is not None, f"the connection ended before a frame with command {cmd}"
            if frame.cmd == cmd:
                return frame

    async def rest(self) -> list[Frame]:
        """All frames up to the end of the connection."""
        frames: list[Frame] = []
        while (frame := await self.frame()) is not None:
            frames.append(frame)
        return frames

    async def greet(self, **changes: Any) -> None:
        await self.send(replace(HELLO, **changes))


def as_bytes(item: Message | Frame | bytes, on: int = 0, flags: int = 0) -> bytes:
    if isinstance(item, bytes):
        return item
    frame = item if isinstance(item, Frame) else Frame(item.CMD, on, encode(item), flags)
    header, payload = encode_frame(frame)
    assert isinstance(payload, bytes)
    return header + payload


@asynccontextmanager
async def facing_raw(
    kind: str, role: Role = Role.SERVER, hello: Hello = HELLO, *, deadline: float = DEADLINE
) -> AsyncIterator[tuple[Connection, RawPeer]]:
    """A greeted connection in ``role`` and a raw peer on its other end."""
    transport, stream = half_raw(kind)
    peer = RawPeer(stream)
    with trio.fail_after(deadline):
        async with stream:
            await peer.greet()
            async with open_connection(transport, role, hello) as connection:
                await peer.frame()  # its HELLO
                yield connection, peer


class Census:
    """Counts what a connection holds, so that tests can say that nothing is left."""

    def __init__(self, connection: Connection) -> None:
        outbox, pool = connection.outbox, connection._table._pool
        current = pool._current
        self.leftovers = {
            "streams": connection.open_streams,
            "peer streams": connection._table._peer_streams,
            "unread messages": connection._table._unread,
            "owed credit": connection._table._budget.outstanding,
            "streams in the budget": len(connection._table._budget._streams),
            "early bytes received": connection._table._eager.used + len(connection._table._eager_taken),
            "early bytes sent": outbox._eager.used,
            "streams that wait for early credit": sum(bool(queue.items) for queue in outbox._eager_waiting),
            "queues in the ring": len(outbox._ring) + len(outbox._new),
            "control bytes": outbox._control_bytes,
            "slabs in use": pool.allocated - len(pool._free) - (current is not None and not current.pending),
        }

    @property
    def clean(self) -> bool:
        return not any(self.leftovers.values())

    def __repr__(self) -> str:
        return repr({name: count for name, count in self.leftovers.items() if count})


async def check_clean(*connections: Connection) -> None:
    """Wait until what is on its way has arrived; then no connection may hold anything of any stream."""
    with trio.move_on_after(DEADLINE / 4):
        while not all(Census(connection).clean for connection in connections):
            for connection in connections:
                await connection.ping()
    for connection in connections:
        assert connection.failure is None, connection.failure
        assert Census(connection).clean, f"{connection}: {Census(connection)}"


async def receive_all(stream: Stream) -> bytes:
    """All DATA up to the end of the stream."""
    stream.expect(None)
    content = bytearray()
    while (item := await stream.receive()) is not None:
        content += bytes(item)  # type: ignore[arg-type]
        stream.consumed(item)  # type: ignore[arg-type]
    return bytes(content)


def span_of(path: str | os.PathLike[str], offset: int = 0, length: int | None = None) -> FileSpan:
    """A span of a file with a lease of its own; close the source when done."""
    import os

    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    return FileSpan(Lease(fd, real), offset, size - offset if length is None else length)
