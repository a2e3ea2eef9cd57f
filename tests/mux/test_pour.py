"""Payloads that go from the socket to the disk in one thread: what arrives where, and what may go wrong on the way."""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from zlib_ng.zlib_ng import crc32

from fsmux.errors import ConnectionLost, FsmuxError, InternalError, NoSpace, StreamReset
from fsmux.limits import MIB
from fsmux.mux import pour as pouring
from fsmux.mux import reader
from fsmux.mux.buffers import Data
from fsmux.mux.pour import POUR_MIN, POUR_ON
from fsmux.wire.frames import Cmd, Flags, Frame
from fsmux.wire.messages import Chunk, Get, Ok, Pong, Put, Span, Stat
from fsmux.wire.state import Role

from .kit import DEADLINE, RawPeer, as_bytes, connected, facing_raw, span_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fsmux.mux.connection import Connection
    from fsmux.mux.stream import Stream

SIZE = 21 * MIB + 4321
BOUNDARY = 4 * MIB


class Canvas:
    """An outlet into memory, which remembers who wrote."""

    boundary = BOUNDARY

    def __init__(self, size: int = SIZE, on_write: Callable[[int], None] = lambda offset: None) -> None:
        self.content = bytearray(size)
        self.threads: set[int] = set()
        self.poured = 0
        self._on_write = on_write

    def takes(self, offset: int, length: int) -> bool:
        return offset + length <= len(self.content)

    def write(self, view: memoryview, offset: int) -> int:
        assert offset // self.boundary == (offset + len(view) - 1) // self.boundary
        self._on_write(offset)
        self.threads.add(threading.get_ident())
        self.content[offset : offset + len(view)] = view
        self.poured += len(view)
        return crc32(view)

    async def take(self, stream: Stream, size: int) -> list[object]:
        """Everything that comes on ``stream`` until ``size`` bytes are here; messages in their order."""
        stream.outlet = self
        stream.expect(size)
        messages: list[object] = []
        have = 0
        while have < size:
            item = await stream.receive()
            if not isinstance(item, Data):
                messages.append(item)
                continue
            have += item.length
            if item.pour is None:
                (place,) = item.places
                self.content[place.offset : place.end] = bytes(item)
            stream.consumed(item)
            if item.pour is not None and item.pour.error is not None:
                raise item.pour.error
        return messages


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"".join(number.to_bytes(8, "big") for number in range(SIZE // 8 + 1))[:SIZE])
    return path


async def send(stream: Stream, source: Path, *spans: tuple[int, int]) -> None:
    for offset, length in spans:
        span = span_of(source, offset, length)
        try:
            stream.send_nowait(Span(offset, length))
            await stream.send_data(span)
            stream.send_nowait(Chunk(offset // BOUNDARY, 7))
            await stream.drained()
        finally:
            span.source.close()  # type: ignore[attr-defined]


@asynccontextmanager
async def flow(
    kind: str, source: Path, *spans: tuple[int, int]
) -> AsyncIterator[tuple[Connection, Stream, Connection]]:
    """A stream on which ``spans`` of ``source`` come, for as long as it likes; the connection lives on afterwards."""
    async with connected(kind) as (client, server):
        stream = client.open_stream(Get((b"x",)))
        far = await server.accept()
        assert far is not None

        async def give() -> None:
            with suppress(FsmuxError):
                async with far:
                    await far.receive()
                    await send(far, source, *spans)

        async with trio.open_nursery() as nursery, stream:
            nursery.start_soon(give)
            yield client, stream, server
            nursery.cancel_scope.cancel()
        assert await client.ping() >= 0


@pytest.mark.parametrize("kind", ["tcp", "unix", "memory"])
async def test_bytes_arrive_where_spans_say(kind: str, source: Path) -> None:
    """Over sockets some of them in a thread of their own; in memory none."""
    canvas = Canvas()
    half = SIZE // 2 + 11
    async with flow(kind, source, (half, SIZE - half), (0, half)) as (_, stream, _):
        messages = await canvas.take(stream, SIZE)
    assert canvas.content == source.read_bytes()
    assert messages[0] == Chunk(half // BOUNDARY, 7)
    assert threading.get_ident() not in canvas.threads
    assert bool(canvas.poured) is (kind != "memory")


async def test_other_streams_go_on_between_payloads(source: Path) -> None:
    canvas = Canvas()
    async with flow("tcp", source, (0, SIZE)) as (client, stream, server), trio.open_nursery() as nursery:
        nursery.start_soon(canvas.take, stream, SIZE)
        for _ in range(20):
            async with client.open_stream(Put((b"y",)), end=True) as small:
                other = await server.accept()
                assert other is not None
                async with other:
                    await other.send(Ok(), end=True)
                    assert await small.receive() == Ok()
    assert canvas.content == source.read_bytes()


async def test_an_error_ends_its_stream_and_nothing_else(source: Path) -> None:
    def fail(offset: int) -> None:
        if offset >= 8 * MIB:
            raise NoSpace("x: no space left on the device")

    canvas = Canvas(on_write=fail)
    async with flow("tcp", source, (0, SIZE)) as (_, stream, _):
        with pytest.raises(NoSpace):
            await canvas.take(stream, SIZE)
    assert canvas.content[: 8 * MIB] == source.read_bytes()[: 8 * MIB]


async def test_a_bug_in_an_outlet_is_an_error_of_its_stream(source: Path) -> None:
    def fail(offset: int) -> None:
        raise ZeroDivisionError

    canvas = Canvas(on_write=fail)
    async with flow("tcp", source, (0, SIZE)) as (_, stream, _):
        with pytest.raises(InternalError, match="writing failed unexpectedly: ZeroDivisionError"):
            await canvas.take(stream, SIZE)


async def test_a_slow_disk_leaves_the_rest_to_buffers(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader waits for one write and no more; what was not poured arrives all the same."""
    clock = iter(range(10**9))
    monkeypatch.setattr(pouring, "time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    canvas = Canvas()
    async with flow("tcp", source, (MIB // 2, SIZE - MIB // 2)) as (_, stream, _):
        await canvas.take(stream, SIZE - MIB // 2)
    assert canvas.content[MIB // 2 :] == source.read_bytes()[MIB // 2 :]
    assert 0 < canvas.poured < SIZE - MIB // 2


async def test_a_reset_stream_gets_nothing_more(source: Path) -> None:
    """What its peer sent before it heard of that is read from the wire and forgotten."""
    canvas = Canvas()
    async with flow("tcp", source, (0, SIZE)) as (_, stream, _):
        stream.outlet = canvas
        stream.expect(SIZE)
        while not isinstance(item := await stream.receive(), Data):
            pass
        stream.consumed(item)
        stream.close(StreamReset("enough"))
    assert canvas.poured < SIZE


async def test_a_thread_that_is_there_takes_smaller_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "IDLE_MS", 5000)
    canvas, sizes = Canvas(), (POUR_MIN, POUR_ON, POUR_ON - 1)
    async with facing_raw("tcp", Role.CLIENT) as (client, peer), client.open_stream(Get((b"x",))) as stream:

        async def give() -> None:
            await peer.until(Cmd.CREDIT)
            await peer.send(Span(0, sum(sizes)), on=stream.id)
            for value, size in enumerate(sizes, 1):
                await peer.stream.send_all(as_bytes(Frame(Cmd.DATA, stream.id, bytes([value]) * size)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give)
            await canvas.take(stream, sum(sizes))
    assert canvas.content[: sum(sizes)] == b"".join(bytes([value]) * size for value, size in enumerate(sizes, 1))
    assert canvas.poured == POUR_MIN + POUR_ON


async def half_a_payload(stream: Stream, peer: RawPeer) -> None:
    await peer.until(Cmd.CREDIT)
    await peer.send(Span(0, 2 * POUR_MIN), on=stream.id)
    await peer.stream.send_all(as_bytes(Frame(Cmd.DATA, stream.id, bytes(2 * POUR_MIN)))[: POUR_MIN + 99])


async def test_the_peer_leaves_inside_a_payload() -> None:
    canvas = Canvas()
    async with facing_raw("tcp", Role.CLIENT) as (client, peer):
        stream = client.open_stream(Get((b"x",)))

        async def leave() -> None:
            await half_a_payload(stream, peer)
            await peer.stream.aclose()

        async with trio.open_nursery() as nursery, stream:
            nursery.start_soon(leave)
            with pytest.raises(ConnectionLost, match="inside a frame"):
                await canvas.take(stream, SIZE)


async def test_cancelled_inside_a_payload() -> None:
    """The thread notices, and the connection ends without waiting for the rest."""
    canvas = Canvas()
    began = time.monotonic()
    async with (
        facing_raw("tcp", Role.CLIENT) as (client, peer),
        trio.open_nursery() as nursery,
        client.open_stream(Get((b"x",))) as stream,
    ):
        nursery.start_soon(canvas.take, stream, SIZE)
        await half_a_payload(stream, peer)
        nursery.cancel_scope.cancel()
    assert time.monotonic() - began < DEADLINE / 4


async def test_cancelled_while_small_frames_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits for the next frame stays for as long as there is one, but not when nobody wants it."""
    monkeypatch.setattr(reader, "IDLE_MS", 1000)
    canvas, leaving = Canvas(), trio.Event()
    pong = as_bytes(Pong(1))

    async def chatter(peer: RawPeer, stream: Stream) -> None:
        await peer.until(Cmd.CREDIT)
        await peer.send(Span(0, POUR_MIN), on=stream.id)
        await peer.stream.send_all(as_bytes(Frame(Cmd.DATA, stream.id, bytes(POUR_MIN))))
        ends = time.monotonic() + DEADLINE / 2
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while time.monotonic() < ends:
                await peer.stream.send_all(pong)
                await trio.sleep(0.001)
                if canvas.poured:
                    leaving.set()

    async with trio.open_nursery() as outer:
        async with (
            facing_raw("tcp", Role.CLIENT) as (client, peer),
            trio.open_nursery() as nursery,
            client.open_stream(Get((b"x",))) as stream,
        ):
            outer.start_soon(chatter, peer, stream)
            nursery.start_soon(canvas.take, stream, SIZE)
            await leaving.wait()
            began = time.monotonic()
            nursery.cancel_scope.cancel()
        assert time.monotonic() - began < DEADLINE / 4


@pytest.mark.parametrize("count", [3000, 12_000])
async def test_requests_behind_a_payload_are_all_heard(kind: str, count: int) -> None:
    """The thread that pours may be ahead of the event loop by so many frames; what it has read then is not lost."""
    assert count > reader.MAX_BEHIND
    requests = b"".join(as_bytes(Stat((), True), 3 + 2 * index, Flags.END_STREAM) for index in range(count))
    heard = 0
    async with facing_raw(kind) as (connection, peer), trio.open_nursery() as nursery:
        await peer.send(Put((b"x",)), on=1)
        stream = await connection.accept()
        assert stream is not None
        await stream.receive()
        canvas = Canvas(BOUNDARY)
        content = bytes(range(256)) * (BOUNDARY // 256)
        frames = [as_bytes(Span(0, BOUNDARY), 1), as_bytes(Frame(Cmd.DATA, 1, content)), requests]
        nursery.start_soon(canvas.take, stream, BOUNDARY)
        while (frame := await peer.frame()) is not None and frame.cmd != Cmd.CREDIT:
            pass
        nursery.start_soon(peer.stream.send_all, b"".join(frames))
        while heard < count:
            asked = await connection.accept()
            assert asked is not None
            asked.close()
            heard += 1
        assert canvas.content == content
        assert connection.failure is None
        nursery.cancel_scope.cancel()
