"""One transfer over several connections: who carries what, what a lost one costs, and how streams find each other."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from zlib_ng.zlib_ng import crc32

from fsmux.errors import ConnectionLost, FsmuxError, PeerShutdown
from fsmux.events import ChunkHealed, FileFailed, FileProgress, FileStarted, Planned, Retrying, Warned
from fsmux.files.root import Root
from fsmux.files.source import Source
from fsmux.limits import KIB, MIB
from fsmux.records import Extent, Identity
from fsmux.transfer import disk
from fsmux.transfer.sender import Sending
from fsmux.transfer.session import Report
from fsmux.wire.messages import Chunk, Committed, Finish, Offer, Put, Span, Want

from . import kit
from .kit import Move, Side, content, damaging_pair, facing, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fsmux.events import Event, Summary
    from fsmux.mux.connection import Connection
    from fsmux.mux.stream import Stream

LANES = 4
SPREAD = 4 * MIB
SIZE = 24 * MIB + 12_345
MIN_SHARE = 1 / 8
"""Of an equal share: who is faster gets more, and here that is up to the scheduler. Half of it was too much once."""
JOIN = bytes(range(16))


class Joint(Move):
    """A transfer over several connections, of which both ends are known."""

    def __init__(self, side: Side, direction: str) -> None:
        super().__init__(side, direction)
        self.near: list[Connection] = [side.client.connection]
        dial = side.client.dial

        def recording() -> AbstractAsyncContextManager[Connection]:
            return _Recording(dial(), self.near)

        side.client.dial = recording

    async def __call__(self, name: str = "file", **options: Any) -> Summary:
        del self.near[1:]
        return await super().__call__(name, **{"connections": LANES, "chunk_size": MIB, **options})

    def carried(self) -> list[int]:
        """Bytes by connection, counted where they arrived."""
        ends = self.near if self.direction == "down" else self.side.behind
        return [end._received_bytes for end in ends]

    def write(self, size: int = SIZE, seed: int = 1) -> bytes:
        (self.source / "file").write_bytes(wanted := content(size, seed))
        return wanted

    def when(self, count: int, act: Any) -> None:
        """Do something once so many bytes have passed."""
        passed = 0

        def look(event: Event) -> None:
            nonlocal passed
            if isinstance(event, FileProgress):
                passed += event.bytes
                if passed >= count:
                    self.side.on_event = lambda event: None
                    act()

        self.side.on_event = look

    async def once_arrived(self, count: int, act: Any) -> None:
        """The same once they have arrived, where that may be all of it before the sender tells of so many."""
        while sum(self.carried()) < count:  # noqa: ASYNC110  # the other end tells nobody
            await trio.sleep(0.001)
        act()

    def cut(self, number: int) -> None:
        """End a connection as if its cable were cut."""
        self.near[number]._fail(ConnectionLost("the cable was cut"))


class _Recording:
    def __init__(self, inner: AbstractAsyncContextManager[Connection], seen: list[Connection]) -> None:
        self._inner = inner
        self._seen = seen

    async def __aenter__(self) -> Connection:
        connection = await self._inner.__aenter__()
        self._seen.append(connection)
        return connection

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._inner.__aexit__(*exc)


@pytest.fixture(autouse=True)
def files_are_big_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.sites.SPREAD_BYTES", SPREAD)


@pytest.fixture
async def joint(side: Side, direction: str) -> AsyncIterator[Joint]:
    yield Joint(side, direction)
    await side.quiet()


# ---- who carries what ---------------------------------------------------------------------------------------------


async def test_a_big_file_goes_over_all_connections(joint: Joint) -> None:
    wanted = joint.write()
    summary = await joint()
    assert (joint.target / "file").read_bytes() == wanted
    assert (summary.files, summary.bytes_sent, summary.bytes_resumed, summary.retries) == (1, SIZE, 0, 0)
    carried = joint.carried()
    assert len(carried) == LANES
    assert min(carried) >= MIN_SHARE * SIZE / LANES, carried
    assert sum(carried) < SIZE * 1.01
    assert sum(event.bytes for event in joint.side.of(FileProgress)) == SIZE
    assert len(joint.side.of(FileStarted)) == 1
    assert state_of(joint.side.served) == state_of(joint.side.there) == set()


async def test_many_files_are_dealt_out_over_all_connections(joint: Joint) -> None:
    (joint.source / "many").mkdir()
    for number in range(60):
        (joint.source / "many" / str(number)).write_bytes(content(MIB // 2, seed=number))
    assert not (await joint("many")).failed
    for number in range(60):
        assert (joint.target / "many/many" / str(number)).read_bytes() == content(MIB // 2, seed=number)
    carried = joint.carried()
    assert len(carried) == LANES
    assert min(carried) >= MIN_SHARE * 60 * MIB / 2 / LANES, carried


async def test_a_file_of_moderate_size_takes_one_connection(joint: Joint) -> None:
    joint.write(SPREAD)
    summary = await joint()
    assert summary.bytes_sent == SPREAD
    assert sorted(joint.carried())[-2] < MIB


async def test_a_dry_run_opens_no_further_connection(joint: Joint) -> None:
    joint.write(10)
    await joint(dry_run=True)
    assert len(joint.near) == 1


async def test_a_limit_holds_over_all_connections_together(joint: Joint) -> None:
    joint.write()
    rate = 20 * MIB
    started = trio.current_time()
    await joint(bwlimit=rate)
    assert trio.current_time() - started >= 0.9 * SIZE / rate


async def test_what_is_there_already_is_not_sent_again(joint: Joint) -> None:
    wanted = bytearray(joint.write())
    await joint()
    wanted[5 * MIB + 3] ^= 1
    wanted += content(MIB, seed=9)
    (joint.source / "file").write_bytes(wanted)
    summary = await joint()
    assert (joint.target / "file").read_bytes() == wanted
    assert summary.bytes_sent <= 3 * MIB
    assert summary.bytes_sent + summary.bytes_resumed == len(wanted)


async def test_another_chunk_size_than_pieces_have(joint: Joint) -> None:
    """Chunks larger than pieces come in parts, on streams of different connections."""
    wanted = joint.write()
    summary = await joint(chunk_size=16 * MIB)
    assert (joint.target / "file").read_bytes() == wanted
    assert summary.bytes_sent == SIZE


# ---- interruptions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, LANES])
async def test_resuming_sends_what_is_missing(joint: Joint, connections: int) -> None:
    """Whether the second attempt has as many connections or one."""
    wanted = joint.write()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joint.once_arrived, SIZE // 2, scope.cancel)
            await joint(bwlimit=60 * MIB)
    assert scope.cancelled_caught
    await joint.side.quiet()
    assert not (joint.target / "file").exists()
    summary = await joint(connections=connections)
    assert (joint.target / "file").read_bytes() == wanted
    assert summary.bytes_sent + summary.bytes_resumed == SIZE
    assert summary.bytes_resumed >= SIZE // 4
    assert state_of(joint.target) == set()


@pytest.mark.parametrize("chunk_size", [MIB, 16 * MIB])
async def test_a_lost_connection_leaves_its_pieces_to_the_others(joint: Joint, chunk_size: int) -> None:
    wanted = joint.write()
    joint.when(SIZE // 3, lambda: joint.cut(2))
    summary = await joint(bwlimit=60 * MIB, chunk_size=chunk_size)
    assert (joint.target / "file").read_bytes() == wanted
    assert (summary.files, summary.failed) == (1, 0)
    assert len(joint.side.of(FileStarted)) == 1, "it was not begun again"
    # What was on its way, and perhaps a chunk whose checksum was lost, is sent twice; to a receiver it came once.
    assert SIZE <= summary.bytes_sent <= SIZE + (16 * MIB if joint.direction == "up" else chunk_size)
    assert any("cable" in event.message for event in joint.side.of(Warned))


async def test_another_connection_takes_the_place_of_a_lost_one(joint: Joint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.backoff.FIRST_SECONDS", 0.0)
    (joint.source / "many").mkdir()
    for number in range(40):
        (joint.source / f"many/{number}").write_bytes(content(MIB, number))
    behind = len(joint.side.behind)
    joint.when(3 * MIB, lambda: joint.cut(1))
    summary = await joint("many", streams=4, connections=2)
    assert (summary.files, summary.failed) == (40, 0)
    assert len(joint.near) == 3
    carried = joint.carried()[-1] if joint.direction == "down" else joint.carried()[behind + 1]
    assert carried > 5 * MIB
    assert len(joint.side.of(Warned)) == 1
    for number in range(40):
        (found,) = (joint.target / "many").rglob(str(number))
        assert found.read_bytes() == content(MIB, number)


async def test_all_further_connections_may_be_lost(joint: Joint) -> None:
    wanted = joint.write()
    joint.when(SIZE // 3, lambda: [joint.cut(number) for number in (1, 2, 3)])
    assert not (await joint(bwlimit=60 * MIB)).failed
    assert (joint.target / "file").read_bytes() == wanted


async def test_even_the_first_one_may_be_lost_while_a_big_file_is_on_its_way(
    direction: str, served: Path, there: Path
) -> None:
    async with facing("unix", served, there, check=False) as side:
        joint = Joint(side, direction)
        wanted = joint.write()

        def cut() -> None:
            joint.cut(0)
            side.behind[0]._fail(ConnectionLost("the cable was cut"))

        joint.when(SIZE // 2, cut)
        assert not (await joint(bwlimit=60 * MIB)).failed
        assert (joint.target / "file").read_bytes() == wanted
        with pytest.raises(ConnectionLost):
            await joint()


async def test_a_first_connection_that_takes_no_streams_does_not_keep_the_others_waiting(joint: Joint) -> None:
    wanted = joint.write()
    joint.side.on_event = lambda event: setattr(joint.near[0], "_peer_leaving", isinstance(event, Planned))
    if joint.direction == "up":
        assert not (await joint()).failed
        assert (joint.target / "file").read_bytes() == wanted
    else:  # it is the first one that opens the file
        with pytest.raises(PeerShutdown):
            await joint()
    joint.near[0]._peer_leaving = False


async def test_files_on_a_lost_connection_are_begun_again(joint: Joint) -> None:
    (joint.source / "many").mkdir()
    for number in range(16):
        (joint.source / "many" / str(number)).write_bytes(content(2 * MIB, seed=number))
    joint.when(8 * MIB, lambda: joint.cut(3))
    summary = await joint("many", bwlimit=100 * MIB)
    assert (summary.files, summary.failed) == (16, 0), joint.side.of(FileFailed)
    assert joint.side.of(Retrying)
    for number in range(16):
        assert (joint.target / "many/many" / str(number)).read_bytes() == content(2 * MIB, seed=number)


async def test_connections_that_cannot_be_made_are_done_without(joint: Joint) -> None:
    wanted = joint.write()
    dial, seen = joint.side.client.dial, 0

    def sometimes() -> AbstractAsyncContextManager[Connection]:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise ConnectionLost("no more of them")
        return dial()

    joint.side.client.dial = sometimes
    assert not (await joint()).failed
    assert (joint.target / "file").read_bytes() == wanted
    assert len(joint.side.of(Warned)) == LANES - 2


async def test_a_file_replaced_meanwhile_is_never_mixed(joint: Joint) -> None:
    """Streams that are offered another version than the first one are of no use."""
    if joint.direction == "up":
        pytest.skip("an upload has one open file for all streams")
    joint.write()
    other = joint.source / "other"
    other.write_bytes(content(SIZE, seed=2))

    def replace(event: Event) -> None:
        if isinstance(event, FileStarted):
            os.replace(other, joint.source / "file")

    joint.side.on_event = replace
    assert (await joint()).failed
    assert joint.side.failure.code == "SOURCE_CHANGED"
    joint.side.on_event = lambda event: None
    assert not (await joint()).failed
    assert (joint.target / "file").read_bytes() == content(SIZE, seed=2)


async def test_a_file_that_changes_meanwhile_fails(joint: Joint) -> None:
    joint.write()

    def change() -> None:
        with (joint.source / "file").open("r+b") as file:
            file.seek(7)
            file.write(b"changed")

    joint.when(1, change)  # what goes up is told of when a connection is through with its part
    summary = await joint(bwlimit=60 * MIB)
    assert summary.failed == 1
    assert joint.side.failure.code == "SOURCE_CHANGED"
    assert not (joint.target / "file").exists()


async def test_damage_heals_over_several_connections(
    direction: str, served: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0

    def choose(index: int, length: int) -> int | None:
        nonlocal seen
        seen += 1
        return length // 2 if seen in (16, 48) else None  # twice: a third time in one chunk would be too often

    monkeypatch.setattr(kit, "transports", lambda kind: damaging_pair(choose))
    async with facing("memory", served, there) as side:
        joint = Joint(side, direction)
        wanted = joint.write()
        summary = await joint()
        assert not summary.failed, side.failure
        assert (joint.target / "file").read_bytes() == wanted
        assert side.of(ChunkHealed)
        await side.quiet()


# ---- how streams find each other ----------------------------------------------------------------------------------


@pytest.fixture
async def sending(side: Side, there: Path) -> AsyncIterator[Sending]:
    (there / "file").write_bytes(content(3 * MIB))
    with Root.open(there) as root, Source.open(root, (b"file",)) as source:
        yield Sending(source, side.client.disk, side.client.digests, Report("file"), MIB)


async def test_a_stream_that_comes_late_is_told_that_the_file_stands(side: Side, sending: Sending) -> None:
    request = Put((b"file",), join=JOIN, streams=2)
    outcomes = []
    for _ in range(2):
        async with side.client.connection.open_stream(request) as stream:
            outcomes.append(await sending.send_on(stream))
    assert outcomes[0] == outcomes[1]
    assert sending.sent == 3 * MIB


async def test_a_stream_of_another_version_is_turned_away(side: Side, sending: Sending) -> None:
    request = Put((b"file",), join=JOIN, streams=2)
    offer = Offer(sending.source.identity, 0o644, MIB)
    async with side.client.connection.open_stream(request) as first:
        await first.send(offer)
        want = await first.expect_message(Want)
        assert want.missing
        async with side.client.connection.open_stream(request) as second:
            await second.send(Offer(sending.source.identity, 0o644, 2 * MIB))
            with pytest.raises(FsmuxError, match="another version"):
                await second.receive()


async def test_without_an_id_a_second_stream_is_a_second_writer(
    side: Side, sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "BUSY_SECONDS", 0.2)
    async with side.client.connection.open_stream(Put((b"file",))) as first:
        await first.send(Offer(sending.source.identity, 0o644, MIB))
        await first.expect_message(Want)
        async with side.client.connection.open_stream(Put((b"file",), join=JOIN, streams=2)) as second:
            with pytest.raises(FsmuxError) as caught:
                await sending.send_on(second)
            assert caught.value.code.name == "BUSY"


async def test_the_next_id_begins_where_the_last_one_stopped(side: Side, sending: Sending) -> None:
    """A stream that comes while the last of the others leaves waits for it, and is not BUSY."""
    request = Put((b"file",), join=JOIN, streams=2)
    first = side.client.connection.open_stream(request)
    await first.send(Offer(sending.source.identity, 0o644, MIB))
    await first.expect_message(Want)
    first.close(ConnectionError())
    async with side.client.connection.open_stream(request) as second:
        outcome = await sending.send_on(second)
    assert outcome.bytes == 3 * MIB
    assert (side.served / "file").read_bytes() == content(3 * MIB)


async def to_the_end(stream: Stream) -> None:
    while await stream.receive() is not None:
        pass


async def test_one_stream_finishes_for_nothing(side: Side, sending: Sending) -> None:
    """FINISH that nobody asked for is a protocol error, on that file only."""
    async with side.client.connection.open_stream(Put((b"file",), join=JOIN, streams=2)) as stream:
        await stream.send(Offer(sending.source.identity, 0o644, MIB))
        want = await stream.expect_message(Want)
        await stream.send(Finish(3))
        if not want.more:
            await stream.send(Finish(3))
        with pytest.raises(FsmuxError, match="finished before"):
            await to_the_end(stream)


async def bring(stream: Stream, sent: bytes, chunk: int) -> None:
    """Send what is wanted, until that is all."""
    more = True
    while more:
        want = await stream.expect_message(Want)
        for offset, length in want.missing:
            await stream.send(Span(offset, length))
            await stream.send_data(sent[offset : offset + length])
            for index in range(offset // chunk, (offset + length) // chunk):
                await stream.send(Chunk(index, crc32(sent[index * chunk : (index + 1) * chunk])))
        more = want.more


async def test_a_finish_from_before_a_loss_vouches_for_nothing(side: Side) -> None:
    """It may have been said before the source changed, and what the lost stream brought may be newer."""
    chunk, count = 64 * KIB, 128
    sent = content(chunk * count)
    request, offer = Put((b"file",), join=JOIN, streams=2), Offer(Identity(len(sent), 1, b"tag"), 0o644, chunk)
    streams = [side.client.connection.open_stream(request) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for stream in streams:
            await stream.send(offer)
            nursery.start_soon(bring, stream, sent, chunk)
    first, second = streams
    while [part.read_bytes() for part in (side.served / ".fsmux").glob("*.part")] != [sent]:
        await side.client.connection.ping()
    await trio.testing.wait_all_tasks_blocked()  # the checksum of the last chunk is known, too
    second.close(ConnectionError())
    want = await first.expect_message(Want)
    assert not want.missing
    assert not want.more
    await first.send(Finish(count))
    await side.client.connection.ping()
    await trio.testing.wait_all_tasks_blocked()
    assert not (side.served / "file").exists()
    await first.send(Finish(count))
    assert isinstance(await first.receive(), Committed)
    assert (side.served / "file").read_bytes() == sent
    first.close()


async def test_a_file_of_a_million_chunks_does_not_stop_everybody(side: Side) -> None:
    """Nor does it take memory: it is a hole, says its sender."""
    chunk, count = 64 * KIB, 2**20
    offer = Offer(Identity(chunk * count, 1, b"tag"), 0o644, chunk, holes=chunk * count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with side.client.connection.open_stream(Put((b"file",), join=JOIN, streams=2)) as stream:
        await stream.send(offer)
        await stream.expect_message(Want)
        assert await side.client.connection.ping() < 1.5  # 3 s were too many
        await stream.send(Span(holes=(Extent(0, chunk * count // 4),)))
        slowest = max([await side.client.connection.ping() for _ in range(20)])
        assert slowest < 1.5, slowest
        stream.close(ConnectionError())
    await side.quiet()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
