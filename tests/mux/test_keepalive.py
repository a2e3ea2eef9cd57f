"""Time: keepalive, slow greetings, drains. Virtual seconds, in memory, without threads."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from fsmux import limits
from fsmux.errors import ConnectionLost, FsmuxError
from fsmux.mux.connection import open_connection
from fsmux.mux.transport import StreamTransport
from fsmux.wire.frames import Cmd, encode_header
from fsmux.wire.messages import Ping, Pong, Stat, decode
from fsmux.wire.state import Role

from .kit import HELLO, RawPeer, as_bytes, facing_raw, half_raw

if TYPE_CHECKING:
    from trio.testing import MockClock

SLACK = 3.0
"""Seconds between two looks of the keepalive, and one more."""


async def test_a_silent_peer_is_pinged_and_then_lost(autojump_clock: MockClock) -> None:
    async with facing_raw("memory", deadline=1000) as (connection, peer), trio.open_nursery() as nursery:
        pings: list[float] = []

        async def listen() -> None:
            while (frame := await peer.frame()) is not None:
                if frame.cmd == Cmd.PING:
                    pings.append(trio.current_time() - start)
                    if pings[-1] < 0:
                        await peer.send(Pong(decode(frame.cmd, frame.payload).token))  # type: ignore[arg-type,union-attr]

        start = trio.current_time() + 1.5
        nursery.start_soon(listen)
        await trio.sleep(1.5)
        await peer.send(Ping(1))
        assert await connection.accept() is None
        assert isinstance(connection.failure, ConnectionLost)
        assert "silent" in str(connection.failure)
        assert limits.DEAD_SECONDS <= trio.current_time() - start <= limits.DEAD_SECONDS + SLACK
        assert [ping for ping in pings if 0 < ping < limits.KEEPALIVE_SECONDS + SLACK]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("patience", [0.5, 3.0, 1000.0])
async def test_how_long_a_silence_is_borne_can_be_said(patience: float, autojump_clock: MockClock) -> None:
    transport, stream = half_raw("memory")
    peer = RawPeer(stream)
    await peer.greet()
    async with open_connection(transport, Role.CLIENT, HELLO, patience=patience) as connection:
        start = trio.current_time()
        assert await connection.accept() is None
        assert patience <= trio.current_time() - start <= patience + min(patience, SLACK)
        assert "silent" in str(connection.failure)
    await stream.aclose()


async def test_the_impatient_do_not_wait_for_a_greeting_either(autojump_clock: MockClock) -> None:
    transport, stream = half_raw("memory")
    with pytest.raises(ConnectionLost, match=r"did not greet within 0.5 s"):
        async with open_connection(transport, Role.CLIENT, HELLO, patience=0.5):
            raise AssertionError
    await stream.aclose()


@pytest.mark.parametrize("role", Role)
async def test_any_whole_frame_is_a_sign_of_life(role: Role, autojump_clock: MockClock) -> None:
    transport, stream = half_raw("memory")
    peer = RawPeer(stream)
    await peer.greet()
    async with open_connection(transport, role, HELLO) as connection, trio.open_nursery() as nursery:

        async def read() -> None:
            await peer.rest()

        nursery.start_soon(read)
        for _ in range(20):
            await trio.sleep(limits.DEAD_SECONDS - SLACK)
            await peer.send(Pong(99))  # of a ping that was never sent: ignored
        assert connection.failure is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("role", Role)
async def test_what_is_swallowed_by_a_damaged_length_is_no_sign_of_life(role: Role, autojump_clock: MockClock) -> None:
    async with facing_raw("memory", role, deadline=1000) as (connection, peer), trio.open_nursery() as nursery:
        start = trio.current_time()
        await peer.send(as_bytes(Pong(1))[:12] + b"\0\0\x4f\xff" + as_bytes(Pong(1))[16:])

        async def talk() -> None:
            while True:
                await peer.send(Pong(99))
                await trio.sleep(1)

        nursery.start_soon(talk)
        nursery.start_soon(peer.rest)
        assert await connection.accept() is None
        assert isinstance(connection.failure, ConnectionLost)
        assert limits.DEAD_SECONDS <= trio.current_time() - start <= limits.DEAD_SECONDS + SLACK
        nursery.cancel_scope.cancel()


async def test_a_payload_of_data_that_comes_byte_by_byte_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with facing_raw("memory", deadline=10_000) as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.rest)
        await peer.send(Stat((b"x",)), on=1)
        await peer.send(encode_header(Cmd.DATA, 1, 50))
        for _ in range(49):
            await trio.sleep(limits.DEAD_SECONDS - SLACK)
            await peer.send(b"x")
        assert connection.failure is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("reads", [False, True])
async def test_a_peer_that_talks_and_takes_nothing_is_lost(role: Role, reads: bool, autojump_clock: MockClock) -> None:
    """One that takes little is not. It is seen when an answer to a ping was waited for in vain, so twice as late."""
    near, far = trio.testing.lockstep_stream_pair()

    async def talk() -> None:
        with suppress(trio.BrokenResourceError):  # the end
            await far.send_all(as_bytes(HELLO))
            while True:
                await trio.sleep(5)
                await far.send_all(as_bytes(Pong(99)))

    async def read() -> None:
        await far.receive_some(10_000)
        while reads:
            await trio.sleep(limits.DEAD_SECONDS - 2 * SLACK)
            await far.receive_some(100_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        nursery.start_soon(read)
        async with open_connection(StreamTransport(near), role, HELLO) as connection:
            start = trio.current_time()
            for _ in range(600):
                connection.open_stream(Stat((b"x" * 255,) * 15))
            if reads:
                await trio.sleep(10 * limits.DEAD_SECONDS)
                assert connection.failure is None
            else:
                assert await connection.accept() is None
                assert isinstance(connection.failure, ConnectionLost)
                assert "taken nothing" in str(connection.failure)
                assert limits.DEAD_SECONDS <= trio.current_time() - start <= 2 * limits.DEAD_SECONDS + SLACK
        nursery.cancel_scope.cancel()


async def test_idle_connections_are_quiet(autojump_clock: MockClock) -> None:
    """Pings count as received bytes; two peers must not keep each other awake with them."""
    transport, stream = half_raw("memory")
    peer = RawPeer(stream)
    await peer.greet()
    pings: list[float] = []

    async def answer() -> None:
        while (frame := await peer.frame()) is not None:
            if frame.cmd == Cmd.PING:
                pings.append(trio.current_time())
                message = decode(frame.cmd, frame.payload)  # type: ignore[arg-type]
                await peer.send(Pong(message.token))  # type: ignore[union-attr]

    async with open_connection(transport, Role.CLIENT, HELLO) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await trio.sleep(600)
        assert connection.failure is None
        nursery.cancel_scope.cancel()
    assert 600 / (limits.KEEPALIVE_SECONDS + SLACK) - 1 <= len(pings) <= 600 / limits.KEEPALIVE_SECONDS + 2


@pytest.mark.parametrize("role", Role)
async def test_a_greeting_that_does_not_come(role: Role, autojump_clock: MockClock) -> None:
    transport, stream = half_raw("memory")
    start = trio.current_time()
    with pytest.raises(ConnectionLost, match="did not greet within 10 s"):
        async with open_connection(transport, role, HELLO):
            raise AssertionError
    assert trio.current_time() - start < limits.HANDSHAKE_SECONDS + limits.DRAIN_SECONDS + 1
    await stream.aclose()


async def test_a_greeting_that_comes_byte_by_byte(autojump_clock: MockClock) -> None:
    """The deadline is for the whole, however much happens meanwhile."""
    transport, stream = half_raw("memory")

    async def dribble() -> None:
        data = as_bytes(HELLO)
        for index in range(len(data) - 1):
            await trio.sleep(limits.HANDSHAKE_SECONDS / (len(data) - 2))
            try:
                await stream.send_all(data[index : index + 1])
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        with pytest.raises(ConnectionLost, match="did not greet"):
            async with open_connection(transport, Role.SERVER, HELLO):
                raise AssertionError
    await stream.aclose()


async def test_leaving_does_not_wait_for_a_peer_that_reads_nothing(autojump_clock: MockClock) -> None:
    near, far = trio.testing.lockstep_stream_pair()

    async def greet() -> None:
        await far.send_all(as_bytes(HELLO))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        async with open_connection(StreamTransport(near), Role.SERVER, HELLO) as connection:
            for _ in range(100):
                connection.open_stream(Stat((b"x",)))
            start = trio.current_time()
        assert trio.current_time() - start <= limits.DRAIN_SECONDS + 1
    await far.aclose()


async def test_a_peer_that_is_lost_while_leaving_is_not_waited_for(autojump_clock: MockClock) -> None:
    near, far = trio.testing.lockstep_stream_pair()

    async def greet_and_go() -> None:
        await far.send_all(as_bytes(HELLO))
        await trio.sleep(1)
        await far.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet_and_go)
        async with open_connection(StreamTransport(near), Role.SERVER, HELLO) as connection:
            connection.open_stream(Stat((b"x",)))
            start = trio.current_time()
        assert trio.current_time() - start < limits.DRAIN_SECONDS - 1


async def test_garbage_is_no_reason_to_wait(autojump_clock: MockClock) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
        b"SSH-2.0-x\r\n",
    ):
        transport, stream = half_raw("memory")
        await stream.send_all(garbage)
        start = trio.current_time()
        with pytest.raises(FsmuxError, match="does not speak fsmux"):
            async with open_connection(transport, Role.SERVER, HELLO):
                raise AssertionError
        assert trio.current_time() - start < 1
        await stream.aclose()


async def test_the_raw_peer_hears_of_a_reset(autojump_clock: MockClock) -> None:
    async with facing_raw("memory", Role.CLIENT) as (connection, peer):
        connection.open_stream(Stat((b"x",))).close(RuntimeError())
        assert (await peer.until(Cmd.RESET)).stream_id == 1
