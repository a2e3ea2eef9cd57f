"""Attempts of one run: a later one takes the place of earlier ones at once, and nobody else can."""

from __future__ import annotations

import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from fsmux.columns import Group
from fsmux.errors import Busy, FsmuxError, PeerShutdown, StreamReset
from fsmux.files import lock
from fsmux.files.chunks import crc32_of
from fsmux.files.journal import parse
from fsmux.files.root import Root
from fsmux.files.source import Source
from fsmux.limits import MIB
from fsmux.transfer import attempts, disk
from fsmux.transfer.attempts import Attempts
from fsmux.transfer.sender import Sending
from fsmux.transfer.session import Report
from fsmux.wire.messages import Chunk, Committed, Finish, Offer, Pack, Packed, Put, Span, Store, Want

from .kit import Side, content, facing, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fsmux.mux.connection import Connection
    from fsmux.mux.stream import Stream

JOIN, OTHER = bytes(range(16)), bytes(16)
FILE = 0o100644


# ---- who goes first ------------------------------------------------------------------------------------------------


async def for_ever() -> None:
    await trio.sleep_forever()


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


@pytest.fixture
def known() -> Attempts:
    return Attempts()


@asynccontextmanager
async def working(known: Attempts, key: str, attempt: int) -> AsyncIterator[list[FsmuxError]]:
    """Some work of an attempt beside the block; what it ended with is in the list."""
    ends: list[FsmuxError] = []
    begun = trio.Event()

    async def work() -> None:
        begun.set()
        await trio.sleep_forever()

    async def run() -> None:
        try:
            await known.take_part(key, attempt, work)
        except FsmuxError as error:
            ends.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await begun.wait()
        yield ends
        nursery.cancel_scope.cancel()


async def test_a_later_attempt_ends_all_earlier_work(known: Attempts) -> None:
    async with working(known, "run", 1) as one, working(known, "run", 1) as two, working(known, "run", 2) as three:
        assert len(one) == len(two) == 1
        assert not three
        await known.take_part("run", 3, nothing)
        assert len(three) == 1
        assert isinstance(three[0], StreamReset)


async def test_others_are_left_alone(known: Attempts) -> None:
    async with working(known, "run", 1) as mine, working(known, "stranger", 1) as theirs:
        await known.take_part("third", 9, nothing)
        await known.take_part("run", 1, nothing)
        assert not mine
        assert not theirs


async def test_what_comes_late_is_turned_away(known: Attempts) -> None:
    await known.take_part("run", 5, nothing)
    for late in (0, 4):
        with pytest.raises(StreamReset, match="later attempt"):
            await known.take_part("run", late, for_ever)
    await known.take_part("run", 5, nothing)


async def test_a_later_attempt_waits_until_earlier_work_has_ended(known: Attempts) -> None:
    seen: list[str] = []
    begun, may_end = trio.Event(), trio.Event()

    async def slow() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await may_end.wait()
                seen.append("old")

    async def new() -> None:
        seen.append("new")

    async def old() -> None:
        with pytest.raises(StreamReset):
            await known.take_part("run", 1, slow)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(old)
        await begun.wait()
        nursery.start_soon(known.take_part, "run", 2, new)
        await trio.testing.wait_all_tasks_blocked()
        assert not seen
        may_end.set()
    assert seen == ["old", "new"]


async def test_one_that_waits_can_itself_be_overtaken(known: Attempts) -> None:
    ends: list[object] = []
    may_end = trio.Event()
    begun = trio.Event()

    async def stubborn() -> None:
        begun.set()
        with trio.CancelScope(shield=True):
            await may_end.wait()
        await trio.lowlevel.checkpoint()

    async def attempt(number: int, work: object = nothing) -> None:
        try:
            await known.take_part("run", number, work)  # type: ignore[arg-type]
            ends.append(number)
        except StreamReset:
            ends.append(-number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt, 1, stubborn)
        await begun.wait()
        nursery.start_soon(attempt, 2)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(attempt, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert ends == [-2]
        may_end.set()
    assert sorted(map(int, ends)) == [-2, -1, 3]  # type: ignore[call-overload]


async def test_runs_are_forgotten_in_the_end(known: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_REMEMBERED", 3)
    async with working(known, "busy", 2):
        for number in range(10):
            await known.take_part(number, 1, nothing)
        assert len(known) == 4, "one that has work is never forgotten"
        with pytest.raises(StreamReset):
            await known.take_part("busy", 1, nothing)
    assert len(known) == 3


async def test_a_cancelled_attempt_is_no_later_one(known: Attempts) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await known.take_part("run", 1, for_ever)
    assert scope.cancelled_caught
    await known.take_part("run", 1, nothing)


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(there: Path) -> Iterator[Source]:
    (there / "file").write_bytes(content(3 * MIB))
    with Root.open(there) as root, Source.open(root, (b"file",)) as found:
        yield found


@asynccontextmanager
async def half_open(side: Side, source: Source, request: Put) -> AsyncIterator[Stream]:
    """A stream on which a chunk has come and nothing follows, as if its connection were dead and nobody knew."""
    data = content(3 * MIB)[:MIB]
    stream = side.client.connection.open_stream(request)
    try:
        await stream.send(Offer(source.identity, 0o644, MIB))
        await stream.expect_message(Want)
        await stream.send(Span(0, MIB + 1))
        await stream.send_data(data)
        await stream.send(Chunk(0, crc32_of([data])))
        await stream.send_data(b"?")  # with the next write the record of the last chunk leaves the process
        while not recorded(side.served):
            await side.client.connection.ping()
        yield stream
    finally:
        stream.close()


def recorded(root: Path) -> bool:
    """Whether any chunk is on record there."""
    logs = [parse(path.read_bytes()) for path in (root / ".fsmux").glob("*.journal")]
    return any(log is not None and log.held for log in logs)


async def to_the_end(stream: Stream) -> None:
    while await stream.receive() is not None:
        pass


async def put(side: Side, connection: Connection, source: Source, request: Put) -> Sending:
    sending = Sending(source, side.client.disk, side.client.digests, Report("file"), MIB)
    async with connection.open_stream(request) as stream:
        await sending.send_on(stream)
    return sending


@pytest.mark.parametrize("streams", [0, 1, 4])
async def test_a_reconnecting_client_takes_over_its_own_upload(side: Side, source: Source, streams: int) -> None:
    first = Put((b"file",), join=JOIN, streams=streams, attempt=1)
    async with half_open(side, source, first) as stream, side.client.dial() as again:
        second = Put((b"file",), join=JOIN, streams=1, attempt=2)
        sending = await put(side, again, source, second)
        assert sending.sent == 2 * MIB, "what the first one brought is kept"
        with pytest.raises(FsmuxError, match="later attempt"):
            await to_the_end(stream)
    assert (side.served / "file").read_bytes() == content(3 * MIB)
    assert state_of(side.served) == set()


@pytest.mark.parametrize(
    "stranger", [Put((b"file",)), Put((b"file",), join=OTHER, attempt=9), Put((b"file",), join=OTHER, streams=4)]
)
async def test_another_command_is_told_that_somebody_is_at_it(
    side: Side, source: Source, stranger: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "BUSY_SECONDS", 0.2)
    first = Put((b"file",), join=JOIN, streams=1, attempt=1)
    async with half_open(side, source, first) as stream:
        with pytest.raises(Busy):
            await put(side, side.client.connection, source, stranger)
        assert stream.error is None, "the first one goes on"


async def test_another_command_waits_for_one_that_is_about_to_end(
    side: Side, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed a moment ago, and the server has not done with it."""
    refused = threading.Event()
    inner = lock.acquire

    def acquire(*args: Any, **options: Any) -> Any:
        try:
            return inner(*args, **options)
        except Busy:
            refused.set()
            raise

    monkeypatch.setattr(lock, "acquire", acquire)
    monkeypatch.setattr(disk, "BUSY_SECONDS", 60.0)
    first, second = (Put((b"file",), join=join, streams=1, attempt=1) for join in (JOIN, OTHER))
    async with trio.open_nursery() as nursery, half_open(side, source, first):
        nursery.start_soon(put, side, side.client.connection, source, second)
        await trio.to_thread.run_sync(refused.wait)
    assert (side.served / "file").read_bytes() == content(3 * MIB)
    assert state_of(side.served) == set()


async def test_a_second_stream_of_the_same_attempt_takes_the_place_of_the_first(side: Side, source: Source) -> None:
    """A further connection was lost, and its client has noticed first."""
    request = Put((b"file",), join=JOIN, streams=1, attempt=1)
    async with half_open(side, source, request) as stream:
        sending = await put(side, side.client.connection, source, request)
        assert sending.sent == 2 * MIB
        with pytest.raises(FsmuxError, match="begun this file anew"):
            await to_the_end(stream)
    assert (side.served / "file").read_bytes() == content(3 * MIB)


async def test_a_late_request_of_an_earlier_attempt_changes_nothing(side: Side, source: Source, there: Path) -> None:
    await put(side, side.client.connection, source, Put((b"file",), join=JOIN, streams=1, attempt=2))
    (there / "old").write_bytes(b"what it was before")
    late = Put((b"file",), join=JOIN, streams=1, attempt=1)
    with (
        Root.open(there) as root,
        Source.open(root, (b"old",)) as old,
        pytest.raises(FsmuxError, match="later attempt"),
    ):
        await put(side, side.client.connection, old, late)
    assert (side.served / "file").read_bytes() == content(3 * MIB)


async def test_a_file_that_was_committed_unheard_is_not_sent_again(side: Side, source: Source) -> None:
    for attempt, expected in ((1, 3 * MIB), (2, 0)):
        request = Put((b"file",), join=JOIN, streams=1, attempt=attempt)
        assert (await put(side, side.client.connection, source, request)).sent == expected


async def test_another_version_than_the_one_that_was_committed_is_received(
    side: Side, source: Source, there: Path
) -> None:
    """The run is the same, the file has changed meanwhile."""
    await put(side, side.client.connection, source, Put((b"file",), join=JOIN, streams=1, attempt=1))
    (there / "new").write_bytes(content(3 * MIB, seed=2))
    with Root.open(there) as root, Source.open(root, (b"new",)) as new:
        await put(side, side.client.connection, new, Put((b"file",), join=JOIN, streams=1, attempt=2))
    assert (side.served / "file").read_bytes() == content(3 * MIB, seed=2)


async def test_finish_must_speak_of_the_same_file(side: Side) -> None:
    data = content(MIB)
    (side.there / "file").write_bytes(data)
    with Root.open(side.there) as root, Source.open(root, (b"file",)) as source:
        async with side.client.connection.open_stream(Put((b"file",))) as stream:
            await stream.send(Offer(source.identity, 0o644, MIB))
            await stream.expect_message(Want)
            await stream.send(Span(0, MIB))
            await stream.send_data(data)
            await stream.send(Chunk(0, crc32_of([data])))
            await stream.send(Finish(2))
            with pytest.raises(FsmuxError, match="2 chunks of 1"):
                await stream.expect_message(Committed)
    assert not (side.served / "file").exists()


# ---- packs ---------------------------------------------------------------------------------------------------------


async def send_pack(stream: Stream, name: bytes, data: bytes, *, but: int = 0) -> None:
    """A pack of one file, all but the last bytes of it."""
    group = Group((), [name], [len(data)], [1], [FILE], crcs=[crc32_of([data])])
    await stream.send(Pack(1, (group,)))
    await stream.send_data(data[: len(data) - but])


async def test_a_pack_of_a_dead_connection_never_lands(side: Side) -> None:
    """Its last bytes come when the next attempt has brought something newer."""
    old = side.client.connection.open_stream(Store((), join=JOIN, attempt=1))
    await send_pack(old, b"name", b"the old version", but=3)
    await side.client.connection.ping()
    async with side.client.dial() as again:
        async with again.open_stream(Store((), join=JOIN, attempt=2)) as stream:
            await send_pack(stream, b"name", b"the new version")
            packed = await stream.expect_message(Packed)
            assert not packed.failed
            stream.end()
            assert await stream.receive() is None
        with pytest.raises(FsmuxError, match="later attempt"):
            await to_the_end(old)
        old.close()
        async with side.client.connection.open_stream(Store((), join=JOIN, attempt=1)) as late:
            await send_pack(late, b"name", b"the old version")
            with pytest.raises(FsmuxError, match="later attempt"):
                await late.expect_message(Packed)
    assert (side.served / "name").read_bytes() == b"the new version"
    assert os.listdir(side.served) == ["name"]


# ---- a server that stops -------------------------------------------------------------------------------------------


async def test_a_server_that_stops_says_so_on_every_stream(served: Path, there: Path) -> None:
    async with facing("unix", served, there, check=False) as side:
        (there / "file").write_bytes(content(3 * MIB))
        with Root.open(there) as root, Source.open(root, (b"file",)) as source:
            stream = side.client.connection.open_stream(Put((b"file",), join=JOIN, streams=1, attempt=1))
            await stream.send(Offer(source.identity, 0o644, MIB))
            await stream.expect_message(Want)
            side.stop()
            with pytest.raises(PeerShutdown):
                await stream.receive()
            stream.close()
