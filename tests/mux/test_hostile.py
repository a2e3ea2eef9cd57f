"""Peers that break the protocol: what they do ends their stream or their connection, and nothing else happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from zlib_ng.zlib_ng import crc32

from fsmux import limits
from fsmux.errors import ConnectionLost, ErrorCode, FsmuxError, ProtocolError
from fsmux.mux.connection import open_connection
from fsmux.mux.table import MAX_STRAY_FRAMES, STRAY_FRAMES_PER_SECOND
from fsmux.records import Attrs, Kind
from fsmux.wire.frames import HEADER, MAGIC, Cmd, Flags, Frame
from fsmux.wire.messages import Auth, Credit, Entries, Entry, Get, Goaway, Ok, Ping, Pong, Reset, Stat, decode, encode
from fsmux.wire.state import ConnectionPhase, Role, legal

from .kit import DEADLINE, HELLO, UNKNOWN, Census, RawPeer, as_bytes, facing_raw, half_raw

if TYPE_CHECKING:
    from trio.testing import MockClock

    from fsmux.mux.connection import Connection


def fault(frame: Frame) -> ErrorCode:
    message = decode(frame.cmd, frame.payload)  # type: ignore[arg-type]
    return ErrorCode(message.code)  # type: ignore[union-attr]


async def ended(connection: Connection) -> FsmuxError:
    """How the connection failed, once it has."""
    with trio.fail_after(DEADLINE):
        assert await connection.accept() is None
    assert connection.failure is not None
    return connection.failure


async def in_phase(phase: ConnectionPhase, peer: RawPeer) -> None:
    if phase is not ConnectionPhase.GREETING:
        await peer.greet(mechanisms=("SCRAM-SHA-256",))


async def never(connection: Connection) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("phase", [ConnectionPhase.GREETING, ConnectionPhase.AUTHENTICATING])
@pytest.mark.parametrize("stream_id", [0, 1, 2])
@pytest.mark.parametrize("cmd", [*Cmd, *UNKNOWN])
async def test_whatever_comes_too_early_ends_the_connection(phase: ConnectionPhase, stream_id: int, cmd: int) -> None:
    transport, stream = half_raw("memory")
    peer = RawPeer(stream)
    if legal(phase, cmd, stream_id):
        return
    await in_phase(phase, peer)
    await peer.send(Frame(cmd, stream_id, b""))
    with trio.fail_after(DEADLINE), pytest.raises(ProtocolError):
        async with open_connection(transport, Role.SERVER, HELLO, never):
            raise AssertionError
    frames = await peer.rest()
    assert frames[-1].cmd == Cmd.GOAWAY
    assert fault(frames[-1]) is ErrorCode.PROTOCOL
    await stream.aclose()


@pytest.mark.parametrize("cmd", [Cmd.PING, Cmd.STAT, Cmd.DATA, Cmd.CREDIT])
@pytest.mark.parametrize("phase", [ConnectionPhase.GREETING, ConnectionPhase.AUTHENTICATING, ConnectionPhase.OPEN])
async def test_a_payload_beyond_its_limit_is_refused_at_its_header(phase: ConnectionPhase, cmd: Cmd, kind: str) -> None:
    """The payload itself is never sent, so whoever waits for it hangs here."""
    transport, stream = half_raw(kind)
    peer = RawPeer(stream)
    if phase is ConnectionPhase.OPEN:
        await peer.greet()
    else:
        await in_phase(phase, peer)
    length = limits.MAX_DATA_PAYLOAD + 1
    for size in (length, 2**31, 2**32 - 1):
        await peer.send(bare_header(cmd, 0 if cmd in (Cmd.PING, Cmd.CREDIT) else 1, size))
    with trio.fail_after(DEADLINE), pytest.raises(ProtocolError):
        async with open_connection(
            transport, Role.SERVER, HELLO, None if phase is ConnectionPhase.OPEN else never
        ) as connection:
            raise await ended(connection)
    await stream.aclose()


def bare_header(cmd: int, stream_id: int, length: int, flags: int = 0) -> bytes:
    bare = HEADER.pack(MAGIC, 1, flags, cmd, stream_id, length, 0)
    crc = crc32(bare[:-2] + b"\0\0")
    return HEADER.pack(MAGIC, 1, flags, cmd, stream_id, length, (crc >> 16) ^ (crc & 0xFFFF))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("cmd", UNKNOWN)
async def test_an_unknown_command_fails_its_own_stream(kind: str, role: Role, cmd: int) -> None:
    own = 1 if role is Role.CLIENT else 2
    foreign = 3 - own
    async with facing_raw(kind, role) as (connection, peer):
        await peer.send(Frame(cmd, foreign, b"whatever this is", Flags.END_STREAM))
        answer = await peer.until(Cmd.ERROR)
        assert (answer.stream_id, fault(answer), answer.flags) == (foreign, ErrorCode.UNSUPPORTED, Flags.END_STREAM)
        # in the middle of a stream that is known
        async with connection.open_stream(Stat((b"x",))) as stream:
            await peer.until(Cmd.STAT)
            await peer.send(Frame(cmd, own, b"", Flags.END_STREAM))
            assert (await peer.until(Cmd.ERROR)).stream_id == own
            assert await stream.receive() is None
        await answer_pings(connection, peer)
        await check_raw_clean(connection)


async def answer_pings(connection: Connection, peer: RawPeer) -> None:
    """One round trip, to show that the connection lives."""
    await peer.send(Ping(4711))
    while decode(Cmd.PONG, (await peer.until(Cmd.PONG)).payload) != Pong(4711):  # type: ignore[arg-type]
        pass
    assert connection.failure is None


async def check_raw_clean(connection: Connection) -> None:
    with trio.move_on_after(2):
        while not Census(connection).clean:
            await trio.lowlevel.checkpoint()
    assert Census(connection).clean, Census(connection)


@pytest.mark.parametrize("role", Role)
async def test_ids_that_cannot_be(kind: str, role: Role) -> None:
    """Going back is a stream that is over; data first, or an id that is ours and was never given, is the end."""
    first = 1 if role is Role.SERVER else 2
    async with facing_raw(kind, role) as (connection, peer):
        await peer.send(Stat((b"x",)), on=first + 10)
        await peer.send(Stat((b"x",)), Frame(Cmd.DATA, first, b"late"), Reset(ErrorCode.CANCELLED), on=first)
        await answer_pings(connection, peer)
        assert connection.open_streams == 1
        stream = await connection.accept()
        assert stream is not None
        assert stream.id == first + 10
        stream.close(RuntimeError())
        await check_raw_clean(connection)
    for item in (Frame(Cmd.DATA, first, b"x"), Frame(Cmd.STAT, 3 - first, encode(Stat(())))):
        async with facing_raw(kind, role) as (connection, peer):
            await peer.send(item)
            assert isinstance(await ended(connection), ProtocolError)


async def test_more_data_than_credit_resets_the_stream_only(kind: str) -> None:
    async with facing_raw(kind) as (connection, peer):
        await peer.send(Stat((b"x",)), on=1)
        await peer.send(Frame(Cmd.DATA, 1, bytes(limits.INITIAL_CREDIT)), Frame(Cmd.DATA, 1, b"x"))
        answer = await peer.until(Cmd.RESET)
        assert (answer.stream_id, fault(answer)) == (1, ErrorCode.FLOW_CONTROL)
        stream = await connection.accept()
        assert stream is not None
        stream.close()
        await answer_pings(connection, peer)
        await check_raw_clean(connection)


async def test_a_listing_beyond_credit_resets_the_stream_only(kind: str) -> None:
    page = Entries(tuple(Entry((b"%0200d" % index,), Attrs(Kind.FILE)) for index in range(80)))
    async with facing_raw(kind, Role.CLIENT) as (connection, peer):
        stream = connection.open_stream(Stat((b"x",)))
        for _ in range(limits.INITIAL_CREDIT // len(encode(page)) + 1):
            await peer.send(page, on=1)
        answer = await peer.until(Cmd.RESET)
        assert fault(answer) is ErrorCode.FLOW_CONTROL
        stream.close()
        await answer_pings(connection, peer)
        await check_raw_clean(connection)


async def test_early_data_over_all_streams_is_bounded(kind: str) -> None:
    count = limits.EAGER_CREDIT // limits.INITIAL_CREDIT + 1
    async with facing_raw(kind) as (connection, peer), trio.open_nursery() as nursery:

        async def send() -> None:
            for index in range(count):
                await peer.send(
                    Stat((b"x",)), Frame(Cmd.DATA, 2 * index + 1, bytes(limits.INITIAL_CREDIT)), on=2 * index + 1
                )

        nursery.start_soon(send)
        answer = await peer.until(Cmd.RESET)
        assert (answer.stream_id, fault(answer)) == (2 * count - 1, ErrorCode.FLOW_CONTROL)
        assert connection._table._pool.allocated <= limits.EAGER_CREDIT // limits.MIB + 1
        for _ in range(count):
            stream = await connection.accept()
            assert stream is not None
            stream.close(RuntimeError())
        await check_raw_clean(connection)


async def test_a_reset_gives_early_credit_back_before_its_handler_has_noticed(kind: str) -> None:
    """For whoever sent the RESET, the stream's bytes count no more; so they must not count here, either."""
    count = limits.EAGER_CREDIT // limits.INITIAL_CREDIT
    async with facing_raw(kind) as (connection, peer):

        async def send() -> None:
            for index in range(2 * count):
                stream_id = 2 * index + 1
                await peer.send(Stat((b"x",)), Frame(Cmd.DATA, stream_id, bytes(limits.INITIAL_CREDIT)), on=stream_id)
                await peer.send(Reset(ErrorCode.CANCELLED), on=stream_id)

        async with trio.open_nursery() as sending:
            sending.start_soon(send)
            for _ in range(2 * count):
                assert await connection.accept() is not None
        await answer_pings(connection, peer)
        assert connection._table._eager.used == 0
        assert connection.open_streams == 2 * count  # until their handlers leave


async def test_a_flood_of_resets_holds_nothing(kind: str) -> None:
    async with facing_raw(kind) as (connection, peer), trio.open_nursery() as nursery:

        async def leave() -> None:
            while (stream := await connection.accept()) is not None:
                stream.close()

        nursery.start_soon(leave)
        for start in range(0, 6000, 100):
            await peer.send(*(
                as_bytes(item, 2 * index + 1)
                for index in range(start, start + 100)
                for item in (Stat((b"x",)), Reset(ErrorCode.CANCELLED))
            ))  # fmt: skip
        await answer_pings(connection, peer)
        await check_raw_clean(connection)
        nursery.cancel_scope.cancel()


async def test_streams_count_until_their_work_has_ended(kind: str) -> None:
    """Resetting what was opened does not make room for more: the slots are those of the handlers."""
    hello = HELLO.__class__(max_streams=10, initial_credit=limits.INITIAL_CREDIT, eager_credit=limits.EAGER_CREDIT)
    async with facing_raw(kind, hello=hello) as (connection, peer):
        for index in range(11):
            await peer.send(Stat((b"x",)), Reset(ErrorCode.CANCELLED), on=2 * index + 1)
        answer = await peer.until(Cmd.RESET)
        assert (answer.stream_id, fault(answer)) == (21, ErrorCode.REFUSED)
        assert connection.open_streams == 10
        for _ in range(10):
            stream = await connection.accept()
            assert stream is not None
            stream.close()
        await check_raw_clean(connection)


async def test_too_many_late_frames_end_the_connection(kind: str) -> None:
    async with facing_raw(kind) as (connection, peer), trio.open_nursery() as nursery:
        await peer.send(Stat((b"x",)), on=3)

        async def send() -> None:
            late = as_bytes(Frame(Cmd.DATA, 1, b"late")) * 500
            try:
                while True:
                    await peer.send(late)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(send)
        stream = await connection.accept()
        assert stream is not None
        assert isinstance(await ended(connection), ProtocolError)
        nursery.cancel_scope.cancel()


async def test_late_frames_all_day_are_no_flood(autojump_clock: MockClock) -> None:
    """A client that cancels one stream after the other for a quarter of an hour."""
    async with facing_raw("memory", deadline=10_000) as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.rest)
        await peer.send(Stat((b"x",)), on=3)
        late = as_bytes(Frame(Cmd.DATA, 1, b"late")) * (STRAY_FRAMES_PER_SECOND // 10)
        for _ in range(900):
            await trio.sleep(0.12)
            await peer.send(late)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.failure is None
        await peer.send(as_bytes(Frame(Cmd.DATA, 1, b"late")) * (MAX_STRAY_FRAMES + 1))
        assert await connection.accept() is not None
        assert isinstance(await ended(connection), ProtocolError)
        nursery.cancel_scope.cancel()


async def test_messages_that_nobody_reads_are_bounded_over_all_streams() -> None:
    """Each stream is within its own bound."""
    message, count, streams = Stat((b"x" * 255,) * 15), 100, 60
    async with facing_raw("memory") as (connection, peer):
        for index in range(streams):
            await peer.send(*[as_bytes(message, 2 * index + 1)] * count)
        answer = await peer.until(Cmd.RESET)
        assert fault(answer) is ErrorCode.FLOW_CONTROL
        assert answer.stream_id > 2 * 20
        unread = connection._table._unread
        assert limits.MAX_UNREAD - count * 10_000 < unread <= limits.MAX_UNREAD
        for _ in range(streams):
            stream = await connection.accept()
            assert stream is not None
            assert stream.id >= answer.stream_id or await stream.receive() == message
            stream.close()
        await answer_pings(connection, peer)
        assert not connection._table._unread


async def test_a_flood_of_pings_without_reading_ends_the_connection(kind: str) -> None:
    """The answers that nobody reads are bounded."""
    async with facing_raw(kind) as (connection, peer), trio.open_nursery() as nursery:
        if kind == "memory":  # takes whatever is sent, so nothing piles up
            nursery.cancel_scope.cancel()
        flood = as_bytes(Ping(2**60)) * 2000

        async def send() -> None:
            try:
                while True:
                    await peer.stream.send_all(flood)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(send)
        failure = await ended(connection)
        assert isinstance(failure, ConnectionLost)
        assert "does not read" in str(failure)
        assert connection.outbox._control_bytes <= limits.MAX_QUEUED_CONTROL + 100
        nursery.cancel_scope.cancel()


async def test_a_peer_that_reads_nothing_stops_its_streams_only_as_far_as_they_are_its_own(kind: str) -> None:
    """What is queued for it stays bounded, and leaving is not held up."""
    async with facing_raw(kind) as (connection, peer):
        await peer.send(Get((b"x",)), on=1)
        await peer.send(Credit(((1, 2**62),)))
        stream = await connection.accept()
        assert stream is not None
        sent = 0
        with trio.move_on_after(0.3):
            while kind != "memory":
                await stream.send_data(bytes(limits.MIB))
                sent += 1
        assert sent < 64
        assert stream.queue.queued <= 8
        stream.close(RuntimeError())
        connection._fail(ConnectionLost("enough"))


@pytest.mark.parametrize("code", [0, 1, 3, 6, 20, 21, 99])
async def test_goaway_of_every_kind(kind: str, code: int) -> None:
    async with facing_raw(kind, Role.CLIENT) as (connection, peer):
        stream = connection.open_stream(Stat((b"x",)))
        await peer.send(Goaway(code, "for a reason"))
        if code:
            with pytest.raises(FsmuxError, match="for a reason"):
                await stream.receive()
        else:
            await peer.send(Ok(), on=1, flags=Flags.END_STREAM)
            assert isinstance(await stream.receive(), Ok)
        stream.close()


async def test_messages_that_break_the_rules_of_values_reset_their_stream(kind: str) -> None:
    """Well-formed frames whose content is not: each costs its stream, none the connection."""
    payloads = [
        b"\xff",
        b"\x0a\x02\x0a\x00",
        b"\x0a\x04\x0a\x02..",
        b"\x0a\x03\x0a\x01/",
        b"\x0a\x05\x0a\x03a\x00b",
        b"\x0a" * 1000,
    ]
    async with facing_raw(kind) as (connection, peer):
        for index, payload in enumerate(payloads):
            await peer.send(Frame(Cmd.STAT, 2 * index + 1, payload))
            answer = await peer.until(Cmd.RESET)
            assert answer.stream_id == 2 * index + 1
            assert fault(answer) in (ErrorCode.PROTOCOL, ErrorCode.BAD_NAME)
            stream = await connection.accept()
            assert stream is not None
            stream.close()
        await answer_pings(connection, peer)
        await check_raw_clean(connection)


async def test_second_hello_and_stray_auth(kind: str) -> None:
    for item in (HELLO, Auth("X", b"", False)):
        async with facing_raw(kind) as (connection, peer):
            await peer.send(item)
            assert isinstance(await ended(connection), ProtocolError)


async def test_credit_for_nobody_and_absurd_credit(kind: str) -> None:
    async with facing_raw(kind, Role.CLIENT) as (connection, peer):
        await peer.send(Credit(((1, 5), (2, 5), (99, 2**62))))
        connection.open_stream(Stat((b"x",))).close(RuntimeError())
        await peer.send(Credit(((1, 2**62), (1, 0))))
        await answer_pings(connection, peer)
        await check_raw_clean(connection)
