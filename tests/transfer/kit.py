"""What tests of transfers share: a server and a client over any transport, damage on the way, and what may be left."""

from __future__ import annotations

import gc
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import msgspec
import trio
from trio.testing import memory_stream_pair

from fsmux.auth import ServerAuth
from fsmux.client import connect
from fsmux.errors import FsmuxError
from fsmux.events import FileDone, FileFailed
from fsmux.files.root import Root
from fsmux.greeting import hello
from fsmux.limits import MIB
from fsmux.mux.connection import open_connection
from fsmux.mux.transport import StreamTransport
from fsmux.records import Durability
from fsmux.server import _Server
from fsmux.transfer.disk import open_disk
from fsmux.wire.frames import HEADER, HEADER_SIZE, Cmd
from fsmux.wire.state import Role
from tests.mux.kit import DEADLINE, check_clean, transports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from fsmux.client import Client
    from fsmux.events import Event, Summary
    from fsmux.mux.connection import Connection
    from fsmux.mux.transport import Transport
    from fsmux.transfer.disk import Disk

CHUNK = 64 * 1024
"""The smallest chunk size, so that small files have many."""


class Side:
    """A client, what stands behind its server, and a directory of its own; all events of both sides in order."""

    def __init__(self, client: Client, behind: Connection, served: Path, there: Path, disks: Iterable[Disk]) -> None:
        self.client = client
        self.behind = behind
        self.served = served
        self.there = there
        self.events: list[Event] = []
        self.server_events: list[Event] = []
        self.on_event: Callable[[Event], None] = lambda event: None
        self.stop: Callable[[], None] = lambda: None
        """End the server as a signal would."""
        self._disks = tuple(disks)

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def idle_threads(self) -> bool:
        limiters = [
            limiter
            for disk in self._disks
            for limiter in (disk.write_limiter, disk.read_limiter, disk.meta_limiter, disk.pack_limiter)
        ]
        return not any(limiter.borrowed_tokens for limiter in limiters)

    async def idle(self) -> None:
        """Until no worker thread has anything to do."""
        while not self.idle_threads():
            await trio.lowlevel.checkpoint()

    async def quiet(self) -> None:
        """Until neither side works on a stream: only then does it let go of its files."""
        while not self.idle_threads() or any(one.open_streams for one in (self.client.connection, *self.behind)):
            await self.client.connection.ping()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def failure(self) -> FileFailed:
        (failed,) = self.of(FileFailed)
        return failed  # type: ignore[no-any-return]

    @property
    def done(self) -> FileDone:
        (done,) = self.of(FileDone)
        return done  # type: ignore[no-any-return]


class Move:
    """One direction: files go from ``source`` to ``target``."""

    def __init__(self, side: Side, direction: str) -> None:
        self.side = side
        self.direction = direction
        up = direction == "up"
        self.source = side.there if up else side.served
        self.target = side.served if up else side.there

    async def __call__(self, name: str = "file", **options: Any) -> Summary:
        side = self.side
        side.events.clear()
        options.setdefault("chunk_size", CHUNK)
        if self.direction == "up":
            return await side.client.upload(self.source / name, name, observer=side.observe, **options)
        return await side.client.download(name, self.target / name, observer=side.observe, **options)


@asynccontextmanager
async def facing(
    kind: str,
    served: Path,
    there: Path,
    *,
    write: bool = True,
    durability: Durability = Durability.NONE,
    pair: tuple[Transport, Transport] | None = None,
    check: bool = True,
) -> AsyncIterator[Side]:
    """A client of a server of ``served``. In the end nothing of any stream is left, on either side."""
    server = _Server(ServerAuth({}), write, durability, lambda event: side.server_events.append(event))
    behind: list[Connection] = []

    async def serve(transport: Transport) -> None:
        with suppress(FsmuxError):
            async with open_connection(transport, Role.SERVER, hello(read_only=not write)) as connection:
                behind.append(connection)
                await server._serve_streams(connection)

    async def dial(path: str) -> Transport:
        near, far = pair or transports(kind)
        nursery.start_soon(serve, far)
        return near

    with Root.open(served) as root, trio.fail_after(DEADLINE):
        async with open_disk() as disk, trio.open_nursery() as nursery:
            server.root, server.roots, server.disk = root, {}, disk
            with patch("fsmux.client.dial_unix", dial):
                async with connect("fsmux+unix:///anywhere") as client:
                    side = Side(client, behind, served, there, (client.disk, disk))
                    side.stop = nursery.cancel_scope.cancel
                    yield side
                    if check:
                        await check_clean(client.connection, *behind[:1])  # others come and go with the transfers
                        await side.idle()


class DamagingStream(trio.abc.Stream):
    """Flips a bit in DATA payloads, where ``choose(index, size)`` says so: the number of the byte, or None."""

    def __init__(self, inner: trio.abc.Stream, choose: Callable[[int, int], int | None]) -> None:
        self._inner = inner
        self._choose = choose
        self._index = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Frames come whole, so headers are where the last payload ended."""
        changed = bytearray(data)
        position = 0
        while position < len(changed):
            _, _, _, cmd, _, length, _ = HEADER.unpack_from(changed, position)
            position += HEADER_SIZE
            if cmd == Cmd.DATA and length:
                where = self._choose(self._index, length)
                self._index += 1
                if where is not None:
                    changed[position + where] ^= 1
            position += length
        await self._inner.send_all(changed)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._inner.aclose()


def forget_feature(side: Side, feature: str) -> None:
    """For this client the server is one of before it."""
    connection = side.client.connection
    features = tuple(one for one in connection.peer_hello.features if one != feature)
    connection.peer_hello = msgspec.structs.replace(connection.peer_hello, features=features)


def damaging_pair(choose: Callable[[int, int], int | None]) -> tuple[Transport, Transport]:
    near, far = memory_stream_pair()
    return StreamTransport(DamagingStream(near, choose)), StreamTransport(DamagingStream(far, choose))


def descriptors() -> set[str]:
    """What this process has open, by what it leads to."""
    gc.collect()
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue
    return {name for name in found if "/proc" not in name}


def state_of(root: Path) -> set[str]:
    """Names in the directory where unfinished files are kept, but for the guards of who keeps it open."""
    kept = root / ".fsmux"
    return {path.name for path in kept.iterdir() if path.suffix != ".guard"} if kept.exists() else set()


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that differ everywhere: no two chunks of them are the same."""
    import random

    return random.Random(seed).randbytes(size)


BIG = 2 * MIB + 4321
