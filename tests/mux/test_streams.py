"""Streams between two connections, over every kind of transport: order, many at once, stalls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from fsmux.errors import StreamReset
from fsmux.limits import INITIAL_CREDIT, MAX_DATA_PAYLOAD, MIB, MIN_FRAME
from fsmux.mux.buffers import Data
from fsmux.records import Attrs, Kind
from fsmux.wire.messages import Entries, Entry, Finish, Get, List, Ok, Stat

from .kit import HELLO, answer_ok, ask, check_clean, connected, receive_all, serve, span_of

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.mux.connection import Connection
    from fsmux.mux.stream import Stream

MANY = int(os.environ.get("FSMUX_TEST_STREAMS", "2000"))


async def take_all(stream: Stream) -> None:
    """Take an upload: answer with its length."""
    await stream.receive()
    content = await receive_all(stream)
    await stream.send(Finish(len(content)), end=True)


async def give(stream: Stream) -> None:
    """Answer Get with as many bytes as its chunk size says, each stream with bytes of its own."""
    request: Any = await stream.receive()
    for piece in range(0, request.chunk_size, MIB):
        try:
            await stream.send_data(pattern(stream.id, min(MIB, request.chunk_size - piece)))
        except StreamReset:
            return


def pattern(seed: int, size: int) -> bytes:
    return bytes([seed % 251]) * size


async def get(connection: Connection, size: int) -> bytes:
    async with connection.open_stream(Get((b"x",), chunk_size=size), end=True) as stream:
        return await receive_all(stream)


async def test_a_request_and_its_answer(kind: str, nursery: trio.Nursery) -> None:
    async with connected(kind) as (client, server):
        nursery.start_soon(serve, server, answer_ok)
        await ask(client)
        await check_clean(client, server)


async def test_thousands_of_streams_at_once(kind: str, nursery: trio.Nursery) -> None:
    async with connected(kind) as (client, server):
        nursery.start_soon(serve, server, take_all)
        most = 0

        async def upload(index: int) -> None:
            nonlocal most
            async with client.open_stream(Stat((b"%d" % index,))) as stream:
                most = max(most, server.open_streams)
                await stream.send_data(bytes(index % 300))
                stream.end()
                done: Any = await stream.receive()
                assert done.chunks == index % 300

        async with trio.open_nursery() as streams:
            for index in range(MANY):
                streams.start_soon(upload, index)
        await check_clean(client, server)
        assert client._table._next_id == 2 * MANY + 1


@pytest.mark.parametrize(("frame", "least", "most"), [(MIN_FRAME, 400, 600), (MAX_DATA_PAYLOAD, 4, 12)])
async def test_who_waits_for_room_is_told_of_each_frame_unless_they_are_large(
    frame: int, least: int, most: int, nursery: trio.Nursery
) -> None:
    """On a fast link a wake-up would cost more than the frame."""
    told: list[int] = []
    async with connected("memory") as (client, server):
        nursery.start_soon(serve, server, take_all)
        client.outbox.frame_size = frame
        async with client.open_stream(Stat((b"x",))) as stream:
            stream.watch = lambda: told.append(stream.sent_bytes)
            for _ in range(32):
                await stream.send_data(bytes(MIB))
            await stream.drained()
            assert stream.sent_bytes == 32 * MIB
            assert told[-1] == 32 * MIB
            assert least <= len(told) <= most
            stream.end()
            await stream.receive()
        await check_clean(client, server)


async def test_ids_arrive_in_the_order_in_which_they_were_given(kind: str) -> None:
    async with connected(kind) as (client, server):
        streams = [client.open_stream(Stat((b"%d" % index,))) for index in range(500)]
        for index in (3, 77, 400):
            streams[index].close(RuntimeError())  # resets among them do not change the order of the rest
        seen = [0]
        while seen[-1] < streams[-1].id:
            stream = await server.accept()
            assert stream is not None
            seen.append(stream.id)
            stream.close()
        assert seen == sorted(seen)
        for stream in streams:
            stream.close()
        await check_clean(client, server)


async def test_bulk_both_ways_at_once(kind: str, nursery: trio.Nursery) -> None:
    size = 6 * MIB
    content = os.urandom(size)

    async def echo(stream: Stream) -> None:
        await stream.receive()
        stream.expect(None)
        while isinstance(item := await stream.receive(), Data):
            await stream.send_data(bytes(item))
            stream.consumed(item)

    async def check() -> None:
        async with client.open_stream(Stat((b"x",))) as stream, trio.open_nursery() as sending:

            async def send() -> None:
                for start in range(0, size, MIB):
                    await stream.send_data(content[start : start + MIB])
                stream.end()

            sending.start_soon(send)
            assert await receive_all(stream) == content

    async with connected(kind) as (client, server):
        nursery.start_soon(serve, server, echo)
        async with trio.open_nursery() as checks:
            for _ in range(3):
                checks.start_soon(check)
        await check_clean(client, server)


async def test_the_server_may_open_streams_too(kind: str) -> None:
    async with connected(kind) as (client, server):
        async with server.open_stream(Stat((b"x",)), end=True) as asking:
            assert asking.id == 2
            answering = await client.accept()
            assert answering is not None
            async with answering:
                await answer_ok(answering)
            assert isinstance(await asking.receive(), Ok)
        await check_clean(client, server)


async def test_a_span_of_a_file_arrives_as_it_is(kind: str, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB + 17)
    (tmp_path / "file").write_bytes(content)
    span = span_of(tmp_path / "file", 5, 3 * MIB)
    async with connected(kind) as (client, server), trio.open_nursery() as nursery:
        async with client.open_stream(Stat((b"x",))) as stream:
            await stream.send_data(span)
            stream.end()
            span.source.close()  # type: ignore[attr-defined]  # at once: what is queued keeps the file open
            incoming = await server.accept()
            assert incoming is not None
            async with incoming:
                await incoming.receive()
                assert await receive_all(incoming) == content[5 : 5 + 3 * MIB]
        await check_clean(client, server)
        nursery.cancel_scope.cancel()
    assert span.source.users == 0  # type: ignore[attr-defined]


async def test_what_was_queued_before_the_end_arrives_however_late_credit_comes(kind: str) -> None:
    """A stream lives until its queue is empty, not only until its users have left."""
    pages = [Entries(tuple(Entry((b"%0200d" % index,), Attrs(Kind.FILE)) for index in range(80)))] * 24

    async def listing(stream: Stream) -> None:
        await stream.receive()
        for page in pages:
            await stream.send(page)
        await stream.send(Ok(), end=True)

    async with connected(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(serve, server, listing)
        async with client.open_stream(List(()), end=True) as stream:
            stream.expect(None)
            left = 0
            while isinstance(await stream.receive(), Entries):
                left += 1
                await client.ping()
                await server.ping()
            assert left == len(pages)
        await check_clean(client, server)
        nursery.cancel_scope.cancel()


async def test_queued_payloads_outlive_their_handler(kind: str, tmp_path: Path) -> None:
    """The handler queues more than credit allows, ends the stream and leaves; the reader starts only then."""
    (tmp_path / "file").write_bytes(content := os.urandom(INITIAL_CREDIT + 100_000))
    span = span_of(tmp_path / "file")
    async with connected(kind) as (client, server):
        async with client.open_stream(Get((b"x",)), end=True) as stream:
            incoming = await server.accept()
            assert incoming is not None
            async with incoming:
                await incoming.receive()
                await incoming.send_data(span)
                await incoming.send(Ok(), end=True)
            span.source.close()  # type: ignore[attr-defined]
            await client.ping()
            assert server.open_streams == 1
            stream.expect(None)
            got = b""
            while isinstance(item := await stream.receive(), Data):
                got += bytes(item)
                stream.consumed(item)
            assert got == content
        await check_clean(client, server)
    assert span.source.users == 0  # type: ignore[attr-defined]


async def test_an_abandoned_listing_ends_on_the_other_side(kind: str, nursery: trio.Nursery) -> None:
    """Leaving early, without an error, must not leave the sender waiting for credit for ever."""
    page = Entries(tuple(Entry((b"%0200d" % index,), Attrs(Kind.FILE)) for index in range(80)))

    async def endless(stream: Stream) -> None:
        await stream.receive()
        while True:
            try:
                await stream.send(page)
            except StreamReset:
                return

    async with connected(kind) as (client, server):
        nursery.start_soon(serve, server, endless)
        async with client.open_stream(List(()), end=True) as stream:
            stream.expect(None)
            assert isinstance(await stream.receive(), Entries)
        await check_clean(client, server)


async def test_a_stalled_consumer_stalls_nobody_else(kind: str, nursery: trio.Nursery) -> None:
    """One stream is never read: it holds its own credit, and the others move all they have."""
    async with connected(kind) as (client, server):
        nursery.start_soon(serve, server, give)
        async with client.open_stream(Get((b"x",), chunk_size=64 * MIB), end=True) as stalled:
            stalled.expect(None)
            async with trio.open_nursery() as others:
                for _ in range(8):

                    async def check() -> None:
                        assert len(await get(client, 8 * MIB)) == 8 * MIB

                    others.start_soon(check)
            held = sum(item.length for item in iter_unread(stalled))
            assert 0 < held <= stalled.receive_credit.granted
        await check_clean(client, server)


def iter_unread(stream: Stream) -> list[Data]:
    found: list[Data] = []
    try:
        while isinstance(item := stream.receive_nowait(), Data):
            found.append(item)
    except trio.WouldBlock:
        pass
    for item in found:
        stream.consumed(item)
    return found


async def test_many_stalled_consumers_leave_room_for_one_that_reads(kind: str, nursery: trio.Nursery) -> None:
    async with connected(kind) as (client, server):
        nursery.start_soon(serve, server, give)
        stalled = [client.open_stream(Get((b"x",), chunk_size=64 * MIB), end=True) for _ in range(16)]
        for stream in stalled:
            stream.expect(None)
        assert len(await get(client, 8 * MIB)) == 8 * MIB
        for stream in stalled:
            stream.close(RuntimeError("enough"))
        await check_clean(client, server)


async def test_a_small_request_passes_under_bulk(kind: str, nursery: trio.Nursery) -> None:
    """Counted in bytes, not in seconds: of the bulk, little more than what is on its way goes before the answer."""

    async def handler(stream: Stream) -> None:
        request: Any = await stream.receive()
        if isinstance(request, Stat):
            await stream.send(Ok(), end=True)
            return
        while True:
            try:
                await stream.send_data(bytes(MIB))
            except StreamReset:
                return

    async with connected(kind) as (client, server):
        nursery.start_soon(serve, server, handler)
        async with trio.open_nursery() as bulk:

            async def read_for_ever() -> None:
                async with client.open_stream(Get((b"x",)), end=True) as stream:
                    await receive_all(stream)

            for _ in range(4):
                bulk.start_soon(read_for_ever)
            while client._received_bytes < (32 if kind != "memory" else 2) * MIB:
                await client.ping()
            for _ in range(20 if kind != "memory" else 2):  # memory takes all at once and is slow to give it
                before = client._received_bytes
                await ask(client)
                assert client._received_bytes - before < 48 * MIB
            bulk.cancel_scope.cancel()
        await check_clean(client, server)


async def test_early_credit_never_locks_up_streams_that_share_it(kind: str, nursery: trio.Nursery) -> None:
    """More streams than early credit has room for, all part-way: grants must get them out of it."""
    hello = HELLO.__class__(max_streams=1000, initial_credit=INITIAL_CREDIT, eager_credit=4 * MIN_FRAME)
    async with connected(kind, server=hello) as (client, server):
        client.outbox.frame_size = MIN_FRAME
        nursery.start_soon(serve, server, take_all)

        async def upload() -> None:
            async with client.open_stream(Stat((b"x",))) as stream:
                await stream.send_data(bytes(INITIAL_CREDIT))
                stream.end()
                done: Any = await stream.receive()
                assert done.chunks == INITIAL_CREDIT

        async with trio.open_nursery() as uploads:
            for _ in range(50):
                uploads.start_soon(upload)
        await check_clean(client, server)
