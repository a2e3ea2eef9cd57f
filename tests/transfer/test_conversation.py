"""The conversation of a transfer with a peer that says what it likes: its stream fails, the server goes on."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from zlib_ng.zlib_ng import crc32

from fsmux.errors import FsmuxError, ProtocolError, SourceChanged
from fsmux.files.chunks import crc32_of
from fsmux.mux.buffers import Data
from fsmux.records import Extent, Identity
from fsmux.wire.messages import (
    Again,
    Chunk,
    Close,
    Committed,
    Finish,
    Get,
    Have,
    Haves,
    Keep,
    Offer,
    Ok,
    Open,
    Put,
    Read,
    ReadDone,
    Span,
    Want,
    Write,
)

from .kit import CHUNK, Side, content, state_of

if TYPE_CHECKING:
    from fsmux.mux.stream import Stream

WANTED = content(3 * CHUNK + 5)
PIECES = [WANTED[start : start + CHUNK] for start in range(0, len(WANTED), CHUNK)]
IDENTITY = Identity(len(WANTED), 1_000_000_000, b"tag")


def chunk(index: int) -> Chunk:
    return Chunk(index, crc32(PIECES[index]))


Step = Any
"""A message, or bytes to be sent as DATA."""

WHOLE: list[Step] = [Span(0, len(WANTED)), WANTED, *map(chunk, range(4)), Finish(4, crc32(WANTED))]


async def play(stream: Stream, steps: list[Step]) -> None:
    for step in steps:
        if isinstance(step, bytes):
            await stream.send_data(step)
        else:
            await stream.send(step)


async def put(side: Side, steps: list[Step], offer: Offer | None = None, name: bytes = b"file") -> Any:
    """Upload by hand; what the server says in the end."""
    async with side.client.connection.open_stream(Put((name,))) as stream:
        await play(stream, [offer or Offer(IDENTITY, 0o644, CHUNK)])
        await stream.expect_message(Want)
        await play(stream, steps)
        return await stream.receive()


async def test_the_conversation_by_hand(side: Side) -> None:
    assert await put(side, WHOLE) == Committed(crc32(WANTED), True, 0)
    assert (side.served / "file").read_bytes() == WANTED


ORDERS: dict[str, list[Step]] = {
    "spans in any order": [
        Span(2 * CHUNK, CHUNK + 5), PIECES[2] + PIECES[3], chunk(3), chunk(2),
        Span(0, 10), PIECES[0][:10], Span(CHUNK, CHUNK), PIECES[1], Span(10, CHUNK - 10), PIECES[0][10:],
        chunk(0), chunk(1), Finish(4),
    ],
    "sums before their bytes": [*map(chunk, range(4)), Span(0, len(WANTED)), WANTED, Finish(4)],
    "the end before the rest": [Finish(4, crc32(WANTED)), *WHOLE[:-1]],
    "in frames of one byte": [Span(0, CHUNK), *(PIECES[0][i : i + 1] for i in range(40)), PIECES[0][40:], chunk(0),
                              Span(CHUNK, 2 * CHUNK + 5), WANTED[CHUNK:], *map(chunk, (1, 2, 3)), Finish(4)],
    "without a sum of the whole": [*WHOLE[:-1], Finish(4)],
    "ranges in one frame": [
        Span(ranges=(Extent(5, CHUNK), Extent(2 * CHUNK, CHUNK + 5)), chunks=(chunk(2), chunk(3))),
        WANTED[5 : CHUNK + 5] + WANTED[2 * CHUNK :],
        Span(ranges=(Extent(0, 5), Extent(CHUNK + 5, CHUNK - 5))), WANTED[:5] + WANTED[CHUNK + 5 : 2 * CHUNK],
        chunk(0), chunk(1), Finish(4),
    ],
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
async def test_orders_that_are_allowed(side: Side, order: str) -> None:
    assert isinstance(await put(side, ORDERS[order]), Committed)
    assert (side.served / "file").read_bytes() == WANTED


async def test_what_is_sent_once_more_is_vouched_for_anew(side: Side) -> None:
    """The source may have changed since the FINISH that came before it."""
    async with side.client.connection.open_stream(Put((b"file",))) as stream:
        await play(stream, [Offer(IDENTITY, 0o644, CHUNK)])
        await stream.expect_message(Want)
        await play(stream, [Span(0, CHUNK), bytes(CHUNK), Span(CHUNK, 2 * CHUNK + 5), WANTED[CHUNK:]])
        await play(stream, [*map(chunk, range(4)), Finish(4)])
        assert (await stream.expect_message(Again)).index == 0
        want = await stream.expect_message(Want)
        assert (want.missing, want.more) == ((), False)
        await play(stream, [Span(0, CHUNK), PIECES[0], chunk(0)])
        await side.client.connection.ping()
        await trio.testing.wait_all_tasks_blocked()
        assert not (side.served / "file").exists()
        await stream.send(Finish(4))
        assert isinstance(await stream.receive(), Committed)
    assert (side.served / "file").read_bytes() == WANTED


VIOLATIONS: dict[str, list[Step]] = {
    "data before its span": [b"x"],
    "more data than the span": [Span(0, 5), b"123456"],
    "a span before the last is full": [Span(0, 5), b"123", Span(5, 5)],
    "a span beyond the file": [Span(len(WANTED) - 1, 2), b"12"],
    "a span far beyond the file": [Span(2**62 - 1, 1), b"1"],
    "a chunk beyond the file": [Chunk(4, 0)],
    "a chunk described in two ways": [Chunk(0, 1), Chunk(0, 2)],
    "bytes sent twice": [Span(0, 10), b"0123456789", Span(5, CHUNK), PIECES[0]],
    "a chunk sent again unasked": [Span(0, CHUNK), PIECES[0], chunk(0), Span(0, CHUNK), PIECES[0], chunk(0)],
    "a hole beyond the file": [Span(holes=(Extent(2 * CHUNK, 2 * CHUNK),))],
    "a hole as large as can be said": [Span(holes=(Extent(0, 2**62),))],
    "a hole twice": [Span(holes=(Extent(0, 512),)), Span(holes=(Extent(0, CHUNK),))],
    "a hole in a chunk that is here": [Span(0, CHUNK), PIECES[0], chunk(0), Span(holes=(Extent(512, 512),))],
    "a hole and bytes for it": [Span(ranges=(Extent(0, CHUNK),), holes=(Extent(0, 512),)), PIECES[0], chunk(0)],
    "more data than the ranges": [Span(ranges=(Extent(0, 5), Extent(7, 5))), b"01234567890"],
    "ranges that are not full": [Span(ranges=(Extent(0, 5), Extent(7, 5))), b"01234", Span(20, 5)],
    "a message of the other side": [Again(0, 0)],
    "a second offer": [Offer(IDENTITY, 0o644, CHUNK)],
    "keep without have": [Keep((Extent(0, CHUNK),))],
    "a request": [Put((b"other",))],
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_violations_fail_their_stream(side: Side, violation: str) -> None:
    with pytest.raises(FsmuxError) as caught:
        await put(side, VIOLATIONS[violation])
    assert isinstance(caught.value, ProtocolError | SourceChanged), caught.value
    assert str(side.served) not in str(caught.value)
    await side.quiet()
    assert not (side.served / "file").exists()
    assert isinstance(await put(side, WHOLE, name=b"other"), Committed)


async def test_a_sum_of_the_whole_that_is_not_true(side: Side) -> None:
    with pytest.raises(FsmuxError, match="file: the whole file came to"):
        await put(side, [*WHOLE[:-1], Finish(4, crc32(WANTED) ^ 1)])
    assert not (side.served / "file").exists()


async def test_an_end_in_the_midst_leaves_no_file(side: Side) -> None:
    for cut in range(len(WHOLE)):
        async with side.client.connection.open_stream(Put((b"file",), no_resume=True)) as stream:
            await stream.send(Offer(IDENTITY, 0o644, CHUNK))
            await stream.expect_message(Want)
            await play(stream, WHOLE[:cut])
            stream.end()
            with pytest.raises(FsmuxError):
                await stream.receive()
        await side.quiet()
        assert not (side.served / "file").exists()
    async with side.client.connection.open_stream(Put((b"file",))) as stream:
        await stream.send(Offer(IDENTITY, 0o644, CHUNK))
        want = await stream.expect_message(Want)
        assert want.missing == (), "all chunks had been sent and were right"
        await stream.send(Finish(4, crc32(WANTED)))
        committed = await stream.expect_message(Committed)
        assert committed.bytes_resumed == len(WANTED)
    assert (side.served / "file").read_bytes() == WANTED


OFFERS: dict[str, Offer] = {
    "as large as can be said": Offer(Identity(2**62, 0, b""), 0o644, CHUNK),
    "larger than any disk": Offer(Identity(2**50, 0, b""), 0o644, 64 * 2**20),
    "a time before all times": Offer(Identity(1, -(2**63), b""), 0o644, CHUNK),
    "a time after all times": Offer(Identity(1, 2**63 - 1, b""), 0o644, CHUNK),
}


@pytest.mark.parametrize("offer", OFFERS)
async def test_offers_that_cannot_be_taken(side: Side, offer: str) -> None:
    """Refused, or taken; in no case a bug, and never a name of the server's own."""
    failure: FsmuxError | None = None
    async with side.client.connection.open_stream(Put((b"file",))) as stream:
        try:
            await stream.send(OFFERS[offer])
            await stream.expect_message(Want)
            if OFFERS[offer].identity.size == 1:
                await play(stream, [Span(0, 1), b"x", Chunk(0, crc32(b"x")), Finish(1)])
                await stream.expect_message(Committed)
        except FsmuxError as exc:
            failure = exc
    assert "Error" not in type(failure).__name__ or failure.code.name != "INTERNAL"  # type: ignore[union-attr]
    assert str(side.served) not in str(failure)
    await side.quiet()
    assert not state_of(side.served)


async def test_a_mode_does_not_make_a_file_special(side: Side) -> None:
    await put(side, WHOLE, Offer(IDENTITY, 0o4777, CHUNK))
    assert (side.served / "file").stat().st_mode & 0o7000 == 0


# ---- the server sends ---------------------------------------------------------------------------------------------


async def take(stream: Stream, size: int) -> tuple[bytes, list[Any]]:
    """The next DATA of that size, and all messages up to FINISH."""
    got, messages = b"", []
    stream.expect(size)
    while not isinstance(item := await stream.receive(), Finish):
        if isinstance(item, Data):
            got += bytes(item)
            stream.consumed(item)
        else:
            messages.append(item)
    assert len(got) == size
    return got, messages


@pytest.mark.parametrize(
    "missing",
    [
        (Extent(0, 3 * CHUNK + 5),),
        (Extent(CHUNK, CHUNK),),
        (Extent(0, 10),),
        (Extent(10, 20), Extent(CHUNK - 1, 2)),
        (Extent(0, 1), Extent(5, 1), Extent(3 * CHUNK, 5)),
        (),
    ],
)
async def test_any_ranges_can_be_wanted(side: Side, missing: tuple[Extent, ...]) -> None:
    """Each chunk of which something is sent is described once, after its last byte where nobody has read it yet."""
    (side.served / "file").write_bytes(WANTED)
    async with side.client.connection.open_stream(Get((b"file",), chunk_size=CHUNK)) as stream:
        offer = await stream.expect_message(Offer)
        assert (offer.identity.size, offer.chunk_size) == (len(WANTED), CHUNK)
        await stream.send(Want(missing))
        got, messages = await take(stream, sum(extent.length for extent in missing))
        assert got == b"".join(WANTED[extent.offset : extent.end] for extent in missing)
        touched = sorted({
            index
            for extent in missing
            for index in range(extent.offset // CHUNK, (extent.end - 1) // CHUNK + 1)
        })  # fmt: skip
        assert [message for message in messages if isinstance(message, Chunk)] == [chunk(index) for index in touched]
        await stream.send(Committed(crc32(WANTED), True))


async def sums_at(side: Side, want: Extent, whole: bytes) -> dict[int, int]:
    """Download by hand; how many bytes had come when a chunk was described."""
    async with side.client.connection.open_stream(Get((b"file",), chunk_size=CHUNK)) as stream:
        await stream.expect_message(Offer)
        await stream.send(Want((want,)))
        stream.expect(want.length)
        got, sums = b"", {}
        while not isinstance(item := await stream.receive(), Finish):
            if isinstance(item, Data):
                got += bytes(item)
                stream.consumed(item)
            elif isinstance(item, Chunk):
                assert item.crc32 == crc32(whole[item.index * CHUNK : (item.index + 1) * CHUNK])
                assert item.index not in sums
                sums[item.index] = len(got)
        assert got == whole[want.offset : want.end]
        await stream.send(Committed(crc32(whole), True))
    return sums


async def test_sums_that_are_known_go_before_their_bytes(side: Side) -> None:
    whole = content(9 * CHUNK + 5)
    (side.served / "file").write_bytes(whole)
    os.utime(side.served / "file", (1, 1))  # nobody writes to it now
    everything = Extent(0, len(whole))
    assert await sums_at(side, everything, whole) == {i: min((i + 1) * CHUNK, len(whole)) for i in range(10)}
    assert await sums_at(side, everything, whole) == {i: i // 4 * 4 * CHUNK for i in range(10)}
    inner = await sums_at(side, Extent(CHUNK - 10, 3 * CHUNK), whole)
    assert inner == {0: 10, 1: 10, 2: 10, 3: 3 * CHUNK}


async def test_wanting_what_is_not_there(side: Side) -> None:
    (side.served / "file").write_bytes(WANTED)
    wishes: list[list[Any]] = [
        [Want((Extent(0, len(WANTED) + 1),))],
        [Want((Extent(2**61, 5),))],
        [Again(0, 0)],
        [Haves(())],
        [Want((), have=True), Haves(()), Haves(())],
        [Committed(0, True)],
    ]
    for wish in wishes:
        async with side.client.connection.open_stream(Get((b"file",), chunk_size=CHUNK)) as stream:
            await stream.expect_message(Offer)
            await play(stream, wish)
            with pytest.raises(FsmuxError):
                await stream.expect_message(Ok)
        await side.quiet()


async def until_it_fails(stream: Stream) -> None:
    while (item := await stream.receive()) is not None:
        if isinstance(item, Data):
            stream.consumed(item)


async def test_a_peer_that_never_stops_wanting(side: Side) -> None:
    """Ranges are bounded by what a file can have; a peer cannot fill the sender's memory with them."""
    (side.served / "file").write_bytes(WANTED)
    async with side.client.connection.open_stream(Get((b"file",), chunk_size=CHUNK)) as stream:
        await stream.expect_message(Offer)

        async def wish() -> None:
            with suppress(ProtocolError):
                for page in range(100):
                    await stream.send(Want(tuple(Extent(4 * (2048 * page + i), 1) for i in range(2048)), more=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wish)
            with pytest.raises(ProtocolError):
                await until_it_fails(stream)
    await side.quiet()


async def test_again_is_bounded(side: Side) -> None:
    (side.served / "file").write_bytes(WANTED)
    async with side.client.connection.open_stream(Get((b"file",), chunk_size=CHUNK)) as stream:
        await stream.expect_message(Offer)
        await stream.send(Want((), whole=True))
        await take(stream, len(WANTED))
        for attempt in range(3):
            await stream.send(Again(1, attempt))
            stream.expect(CHUNK)
            have = 0
            while isinstance(item := await stream.receive(), Data):
                assert item.places == (Extent(CHUNK + have, item.length),)
                have += item.length
                stream.consumed(item)
            assert (have, item) == (CHUNK, chunk(1))
        await stream.send(Again(1, 9))
        with pytest.raises(FsmuxError, match="damaged too often"):
            await stream.receive()


async def test_digests_of_nonsense_keep_nothing(side: Side) -> None:
    (side.served / "file").write_bytes(WANTED)
    haves = (Have(0, CHUNK, bytes(16)), Have(CHUNK, 10, bytes(16)), Have(2**40, CHUNK, bytes(16)))
    async with side.client.connection.open_stream(Get((b"file",), chunk_size=CHUNK)) as stream:
        await stream.expect_message(Offer)
        await stream.send(Want((Extent(0, len(WANTED)),), have=True))
        await stream.send(Haves(haves))
        assert await stream.expect_message(Keep) == Keep(())
        got, _ = await take(stream, len(WANTED))
        assert got == WANTED
        await stream.send(Committed(crc32(WANTED), True))


# ---- handles ------------------------------------------------------------------------------------------------------


async def test_requests_on_a_handle_may_be_sent_without_waiting(side: Side) -> None:
    """READ, READ, CLOSE at once: the file stays open for what is still queued."""
    (side.served / "file").write_bytes(wanted := os.urandom(2_000_000))
    async with side.client.connection.open_stream(Open((b"file",))) as stream:
        await play(stream, [Read(0, len(wanted)), Read(5, 10), Close()])
        stream.expect(None)
        got, answers = b"", []
        while not isinstance(item := await stream.receive(), Ok):
            if isinstance(item, Data):
                got += bytes(item)
                stream.consumed(item)
                await side.client.connection.ping()
            else:
                answers.append(item)
        assert got == wanted + wanted[5:15]
        assert [answer for answer in answers if isinstance(answer, ReadDone)] == [
            ReadDone(len(wanted), crc32(wanted)),
            ReadDone(10, crc32(wanted[5:15])),
        ]


async def test_a_write_that_is_damaged_or_short_writes_nothing(side: Side) -> None:
    (side.served / "file").write_bytes(b"as it was")
    attempts: list[list[Step]] = [
        [Write(0, 3, crc32(b"abc") ^ 1), b"abc"],
        [Write(0, 3, crc32(b"abc")), b"abcd"],
        [Write(0, 3, crc32(b"abc")), Close()],
        [Write(0, 4 * 2**20 + 1, 0)],
        [Write(2**62 - 5, 5, crc32(b"abcde")), b"abcde"],
        [Put((b"x",))],
        [b"data for nothing"],
    ]
    for steps in attempts:
        async with side.client.connection.open_stream(Open((b"file",), write=True)) as stream:
            await play(stream, steps)
            with pytest.raises(FsmuxError) as caught:
                await stream.expect_message(Committed)
            assert caught.value.code.name != "INTERNAL", steps
        await side.quiet()
    assert (side.served / "file").read_bytes() == b"as it was"


async def test_reading_beyond_the_end(side: Side) -> None:
    (side.served / "file").write_bytes(b"0123456789")
    async with side.client.open("file") as file:
        assert await file.pread(100, 5) == b"56789"
        assert await file.pread(100, 10) == b""
        assert await file.pread(1, 2**61) == b""
        assert await file.pread(0, 3) == b""
    assert crc32_of([]) == 0


async def test_nothing_is_left_of_all_this(side: Side) -> None:
    assert state_of(side.served) == set()
