"""How streams and connections end, over every kind of transport: in good order, reset, refused, or with a bad file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from fsmux.errors import (
    ConnectionLost,
    ErrorCode,
    FlowControlError,
    NotFound,
    PeerShutdown,
    RefusedError,
    SourceChanged,
    StorageError,
    StreamReset,
)
from fsmux.files.lease import Lease
from fsmux.limits import INITIAL_CREDIT, MIB, STREAM_BACKLOG
from fsmux.mux.connection import open_connection
from fsmux.mux.stream import SEND_BACKLOG
from fsmux.wire.frames import FileSpan, Meter
from fsmux.wire.messages import Error, Finish, Ok, Stat
from fsmux.wire.state import Role

from .kit import (
    HELLO,
    RawPeer,
    answer_ok,
    ask,
    check_clean,
    connected,
    half_raw,
    read_to_the_end,
    receive_all,
    serve,
    span_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


async def test_an_error_message_becomes_its_type(kind: str) -> None:
    async with connected(kind) as (client, server):
        async with client.open_stream(Stat((b"x",)), end=True) as stream:
            incoming = await server.accept()
            assert incoming is not None
            async with incoming:
                await incoming.send(Error(ErrorCode.NOT_FOUND, "x: no such file"), end=True)
            with pytest.raises(NotFound, match="no such file"):
                await stream.receive()
        await check_clean(client, server)


async def test_a_reset_reaches_whoever_waits(kind: str, nursery: trio.Nursery) -> None:
    async with connected(kind) as (client, server):
        async with client.open_stream(Stat((b"x",))) as stream:
            incoming = await server.accept()
            assert incoming is not None

            async def wait_for_it() -> None:
                with pytest.raises(SourceChanged, match="changed"):
                    await stream.receive()
                with pytest.raises(SourceChanged):
                    await stream.send(Ok())
                with pytest.raises(SourceChanged):
                    await stream.send_data(b"x")

            async with trio.open_nursery() as waiting:
                waiting.start_soon(wait_for_it)
                await trio.testing.wait_all_tasks_blocked()
                incoming.reset(ErrorCode.SOURCE_CHANGED, "it changed")
                incoming.close()
        await check_clean(client, server)


async def test_leaving_by_an_exception_resets(kind: str) -> None:
    async with connected(kind) as (client, server):
        with pytest.raises(ZeroDivisionError):
            async with client.open_stream(Stat((b"x",))):
                raise ZeroDivisionError
        incoming = await server.accept()
        assert incoming is not None
        async with incoming:
            with pytest.raises(StreamReset):
                await read_to_the_end(incoming)
        await check_clean(client, server)


async def test_each_half_ends_for_itself(kind: str) -> None:
    async with connected(kind) as (client, server):
        async with client.open_stream(Stat((b"x",)), end=True) as stream:
            incoming = await server.accept()
            assert incoming is not None
            async with incoming:
                assert isinstance(await incoming.receive(), Stat)
                assert await incoming.receive() is None
                assert await incoming.receive() is None
                await incoming.send_data(b"after the other half had ended")
            assert await receive_all(stream) == b"after the other half had ended"
            with pytest.raises(StreamReset, match="ended already"):
                await stream.send(Ok())
        await check_clean(client, server)


async def test_leaving_twice_and_resetting_late_does_nothing(kind: str) -> None:
    async with connected(kind) as (client, server):
        stream = client.open_stream(Stat((b"x",)), end=True)
        incoming = await server.accept()
        assert incoming is not None
        incoming.end()
        incoming.end()
        incoming.close()
        incoming.close(RuntimeError())
        incoming.reset(ErrorCode.INTERNAL)
        assert await stream.receive() is None
        stream.close()
        stream.close()
        stream.reset(ErrorCode.INTERNAL)
        await check_clean(client, server)


async def test_more_messages_than_anybody_reads_reset_the_stream(kind: str) -> None:
    async with connected(kind) as (client, server):
        async with client.open_stream(Stat((b"x",))) as stream:
            incoming = await server.accept()
            assert incoming is not None
            async with incoming:
                for _ in range(STREAM_BACKLOG + 1):
                    stream.send_nowait(Finish(1))
                with pytest.raises(FlowControlError, match="more frames than"):
                    await stream.receive()
        assert client.failure is None

        await check_clean(client, server)


async def test_streams_beyond_what_the_peer_allows(kind: str) -> None:
    hello = HELLO.__class__(max_streams=2, initial_credit=INITIAL_CREDIT, eager_credit=MIB)
    async with connected(kind, server=hello) as (client, server):
        streams = [client.open_stream(Stat((b"x",))) for _ in range(2)]
        with pytest.raises(RefusedError, match="allows 2 streams"):
            client.open_stream(Stat((b"x",)))
        for stream in streams:
            stream.close(RuntimeError())
        for _ in range(2):
            incoming = await server.accept()
            assert incoming is not None
            incoming.close()
        await check_clean(client, server)


async def test_goaway_lets_open_streams_finish(kind: str) -> None:
    async with connected(kind) as (client, server):
        async with client.open_stream(Stat((b"x",)), end=True) as stream:
            incoming = await server.accept()
            assert incoming is not None
            server.goaway()
            server.goaway()
            while not client.orderly:
                await client.ping()
            with pytest.raises(PeerShutdown):
                client.open_stream(Stat((b"x",)))
            async with incoming:
                await incoming.send(Ok(), end=True)
            assert isinstance(await stream.receive(), Ok)
        await check_clean(client, server)


async def test_the_end_of_the_connection_ends_every_wait(kind: str, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        waits = 0

        async def expect_lost(wait: Callable[[], Awaitable[Any]]) -> None:
            nonlocal waits
            with pytest.raises(ConnectionLost):
                await wait()
            waits += 1

        (tmp_path / "file").write_bytes(bytes(MIB))
        span = span_of(tmp_path / "file")
        async with connected(kind) as (client, server):
            stream = client.open_stream(Stat((b"x",)))
            full = client.open_stream(Stat((b"x",)))
            for _ in range(SEND_BACKLOG):
                await full.send_data(span)
            nursery.start_soon(expect_lost, stream.receive)
            nursery.start_soon(expect_lost, lambda: full.send_data(b"x"))
            nursery.start_soon(server.accept)
            await trio.testing.wait_all_tasks_blocked()
            await server.transport.aclose()
            while client.failure is None:
                await trio.lowlevel.checkpoint()
        assert client.failure is not None
        with pytest.raises(ConnectionLost):
            client.open_stream(Stat((b"x",)))
        with trio.fail_after(1), pytest.raises(ConnectionLost):
            await client.ping()
        assert await client.accept() is None
        stream.close()
        full.close(RuntimeError())
        assert client.open_streams == 0
    assert waits == 2
    span.source.close()  # type: ignore[attr-defined]
    assert span.source.users == 0  # type: ignore[attr-defined]


async def test_a_file_that_became_shorter_resets_its_stream_only(
    kind: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    span = span_of(tmp_path / "file")
    (tmp_path / "file").write_bytes(bytes(1000))
    async with connected(kind) as (client, server):
        async with client.open_stream(Stat((b"x",))) as stream:
            incoming = await server.accept()
            assert incoming is not None
            async with incoming:
                await stream.send_data(span)
                incoming.expect(100_000)
                with pytest.raises(SourceChanged):
                    await read_to_the_end(incoming)
        nursery.start_soon(serve, server, answer_ok)
        await ask(client)
        await check_clean(client, server)
    span.source.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("meter", [None, Meter()])
async def test_a_file_that_cannot_be_read_resets_its_stream_only(
    kind: str, tmp_path: Path, nursery: trio.Nursery, meter: Meter | None
) -> None:
    """A directory is the one thing that opens everywhere and that no read succeeds on."""
    lease = Lease(os.open(tmp_path, os.O_RDONLY))
    async with connected(kind) as (client, server):
        async with client.open_stream(Stat((b"x",))) as stream:
            incoming = await server.accept()
            assert incoming is not None
            async with incoming:
                await stream.send_data(FileSpan(lease, 0, 100_000, meter))
                incoming.expect(100_000)
                with pytest.raises(StorageError, match="cannot be read: is a directory"):
                    await read_to_the_end(incoming)
        nursery.start_soon(serve, server, answer_ok)
        await ask(client)
        await check_clean(client, server)
    lease.close()


async def test_errors_of_the_block_come_out_as_they_are(kind: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        await fail_inside(kind)
    assert type(caught.value) is ZeroDivisionError


async def fail_inside(kind: str) -> None:
    transport, stream = half_raw(kind)
    async with stream:
        await RawPeer(stream).greet()
        async with open_connection(transport, Role.CLIENT, HELLO):
            raise ZeroDivisionError
