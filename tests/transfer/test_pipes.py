"""Files that come from pipes and go to pipes, on the wire: ranges in order, damaged ones, an end that never came."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import trio

from fsmux.errors import AccessError, IntegrityError, ProtocolError, StorageError, StreamReset
from fsmux.events import ChunkHealed, FileProgress
from fsmux.files.chunks import crc32_of
from fsmux.files.syscalls import Syscalls
from fsmux.limits import MAX_DATA_PAYLOAD
from fsmux.records import Attrs, Durability
from fsmux.transfer.drain import Drain
from fsmux.transfer.feed import Feed
from fsmux.transfer.growths import LINGER_SECONDS, MAX_LINGERING, Growths
from fsmux.transfer.session import Report
from fsmux.wire.messages import JOIN_SIZE, Close, Committed, Create, Get, Ok, Read, Store, Write

from .kit import BIG, CHUNK, content, damaging_pair, facing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from fsmux.mux.stream import Stream
    from fsmux.transfer.session import Outcome

    from .kit import Side


@pytest.fixture
async def side(served: Path, tmp_path: Path) -> AsyncIterator[Side]:
    async with facing("memory", served, tmp_path) as found:
        yield found


async def write(stream: Stream, data: bytes, offset: int, crc: int | None = None) -> None:
    await stream.send(Write(offset, len(data), crc32_of([data]) if crc is None else crc))
    await stream.send_data(data)


async def test_ranges_may_be_sent_without_waiting(side: Side, served: Path) -> None:
    data = content(BIG)
    async with side.client.connection.open_stream(Create((b"new", b"name"), 0o600, Durability.FILE)) as stream:
        assert isinstance(await stream.expect_message(Attrs), Attrs)
        for offset in range(0, BIG, CHUNK):
            await write(stream, data[offset : offset + CHUNK], offset)
        await stream.send(Close())
        for _ in range(0, BIG, CHUNK):
            await stream.expect_message(Ok)
        assert not (served / "new").exists() or (served / "new" / "name").exists()
        assert await stream.expect_message(Committed) == Committed(crc32_of([data]), durable=True)
        assert await stream.receive() is None
    assert (served / "new" / "name").read_bytes() == data
    assert (served / "new" / "name").stat().st_mode & 0o777 == 0o600


async def test_an_end_without_close_leaves_nothing(side: Side, served: Path) -> None:
    async with side.client.connection.open_stream(Create((b"name",))) as stream:
        await stream.expect_message(Attrs)
        await write(stream, b"some", 0)
        await stream.expect_message(Ok)
        assert list(served.glob(".fsmux/*.tmp"))
        stream.end()
        assert await stream.receive() is None
    await side.quiet()
    assert not list(served.rglob("*.tmp"))
    assert not (served / "name").exists()


async def test_what_the_disk_has_lost_gets_no_name(side: Side, served: Path) -> None:
    data = content(BIG)

    def rot(sys: Syscalls, fd: int) -> None:
        (part,) = served.glob(".fsmux/*.tmp")
        with part.open("r+b") as file:
            file.seek(CHUNK)
            file.write(b"rotten")

    async def create() -> bytes:
        request = Create((b"name",), verify=True)
        async with side.client.connection.open_stream(request) as stream:
            await stream.expect_message(Attrs)
            await write(stream, data, 0)
            await stream.send(Close())
            await stream.expect_message(Ok)
            done: Committed = await stream.expect_message(Committed)
            assert done.crc32 == crc32_of([data])
        return (served / "name").read_bytes()

    with patch.object(Syscalls, "drop_cache", rot), pytest.raises(StorageError, match="gave back other bytes"):
        await create()
    await side.quiet()
    assert not (served / "name").exists()
    assert await create() == data


async def test_a_later_attempt_of_a_run_takes_over(side: Side, served: Path) -> None:
    """And whoever is no part of it begins a file of its own."""
    open_stream = side.client.connection.open_stream
    async with open_stream(Create((b"name",), join=b"j" * 16, attempt=1)) as first:
        await first.expect_message(Attrs)
        await write(first, b"some", 0)
        await first.expect_message(Ok)
        async with open_stream(Create((b"name",), join=b"k" * 16, attempt=2)) as other:
            assert (await other.expect_message(Attrs)).size == 0
        async with open_stream(Create((b"name",), join=b"j" * 16, attempt=2)) as second:
            assert (await second.expect_message(Attrs)).size == 4
            with pytest.raises(StreamReset):
                await first.receive()
            await write(second, b"thing", 4)
            await second.send(Close())
            await second.expect_message(Ok)
            assert (await second.expect_message(Committed)).crc32 == crc32_of([b"something"])
    assert (served / "name").read_bytes() == b"something"
    await side.quiet()
    assert not list(served.rglob("*.tmp"))


async def test_an_attempt_that_comes_after_the_end_is_told_of_it(side: Side, served: Path) -> None:
    open_stream = side.client.connection.open_stream
    for attempt in (1, 2):
        async with open_stream(Create((b"name",), join=b"j" * 16, attempt=attempt)) as stream:
            if attempt == 1:
                await stream.expect_message(Attrs)
                await write(stream, b"content", 0)
                await stream.send(Close())
                await stream.expect_message(Ok)
            assert (await stream.expect_message(Committed)).crc32 == crc32_of([b"content"])
    assert (served / "name").read_bytes() == b"content"


async def attempt(side: Side, step: Callable[[Stream], Awaitable[None]]) -> None:
    async with side.client.connection.open_stream(Create((b"name",))) as stream:
        await stream.expect_message(Attrs)
        await step(stream)
        while True:
            await stream.expect_message(Ok)


async def test_what_does_not_fit_ends_it(side: Side, served: Path) -> None:
    async def damaged(stream: Stream) -> None:
        await write(stream, b"some", 0, 1)

    async def elsewhere(stream: Stream) -> None:
        await write(stream, b"some", 1)

    async def read(stream: Stream) -> None:
        await stream.send(Read(0, 1))

    async def bare(stream: Stream) -> None:
        await stream.send_data(b"some")

    async def too_long(stream: Stream) -> None:
        await stream.send(Write(0, MAX_DATA_PAYLOAD + 1, 0))

    async def too_much(stream: Stream) -> None:
        await stream.send(Write(0, 1, 0))
        await stream.send_data(b"some")

    with pytest.raises(IntegrityError):
        await attempt(side, damaged)
    for step in (elsewhere, read, bare, too_long, too_much):
        with pytest.raises(ProtocolError):
            await attempt(side, step)
    await side.quiet()
    assert not (served / "name").exists()
    assert not list(served.rglob("*.tmp"))


async def test_writing_must_be_allowed(served: Path, tmp_path: Path) -> None:
    async with facing("memory", served, tmp_path, write=False) as side:
        with pytest.raises(AccessError):
            async with side.client.connection.open_stream(Create((b"name",))) as stream:
                await stream.expect_message(Attrs)


@pytest.mark.parametrize("chunk", [CHUNK, 4 * CHUNK])
async def test_a_damaged_chunk_is_written_when_it_is_right(served: Path, tmp_path: Path, chunk: int) -> None:
    (served / "name").write_bytes(data := content(BIG))
    found = bytearray()
    pair = damaging_pair(lambda index, length: 7 if index in (3, 5) else None)

    def take(views: Sequence[memoryview], written: Callable[[int], None], poll: Callable[[], None]) -> None:
        for view in views:
            found.extend(view)
            written(len(view))

    async with facing("memory", served, tmp_path, pair=pair) as side:
        drain = Drain(take, Report("name", side.observe), lambda size: None)
        async with side.client.connection.open_stream(Get((b"name",), chunk_size=chunk)) as stream:
            outcome = await drain.receive_on(stream)
    assert bytes(found) == data
    assert outcome.crc32 == crc32_of([data])


async def test_a_chunk_that_is_never_right_is_given_up(served: Path, tmp_path: Path) -> None:
    (served / "name").write_bytes(content(BIG))
    written: list[int] = []

    def take(views: Sequence[memoryview], tell: Callable[[int], None], poll: Callable[[], None]) -> None:
        written.extend(map(len, views))

    pair = damaging_pair(lambda index, length: 7)
    async with facing("memory", served, tmp_path, pair=pair) as side:
        drain = Drain(take, Report("name", side.observe), lambda size: None)
        with pytest.raises(IntegrityError, match="3 times"):
            async with side.client.connection.open_stream(Get((b"name",), chunk_size=CHUNK)) as stream:
                await drain.receive_on(stream)
    assert not written


@pytest.mark.parametrize("kind", ["unix", "memory"])
async def test_a_connection_that_has_ended_holds_no_buffers(served: Path, tmp_path: Path, kind: str) -> None:
    """A server looks for cycles so seldom that those of a hundred connections would add up to gigabytes."""
    data = content(8 * BIG)
    async with facing(kind, served, tmp_path) as side:
        async with side.client.connection.open_stream(Create((b"name",))) as stream:
            await stream.expect_message(Attrs)
            for offset in range(0, len(data), BIG):
                await write(stream, data[offset : offset + BIG], offset)
            await stream.send(Close())
            while not isinstance(await stream.expect_message(Ok, Committed), Committed):
                pass
        (behind,) = side.behind
        assert behind._table.slabs
    assert (served / "name").read_bytes() == data
    assert not behind._table.slabs


# ---- pieces that arrive damaged -------------------------------------------------------------------------------------


class Piped:
    """A pipe with so many bytes in it, that are read in pieces of at most so many."""

    def __init__(self, data: bytes, most: int) -> None:
        self.data = data
        self.most = most
        self.read = 0

    def __call__(self, view: memoryview, poll: Callable[[], None]) -> tuple[int, int]:
        piece = self.data[self.read : self.read + min(self.most, len(view))]
        view[: len(piece)] = piece
        self.read += len(piece)
        return len(piece), crc32_of([piece])


async def feed(side: Side, pipe: Piped) -> Outcome:
    feeding = Feed(pipe, Report("name", side.observe), lambda size: None)
    async with side.client.connection.open_stream(Create((b"name",), again=True)) as stream:
        return await feeding.send_on(stream)


@pytest.mark.parametrize("bad", [{0}, {3}, {31}, {0, 1}, {2, 5, 20}])
@pytest.mark.parametrize("pieces", [1, 32])
async def test_a_piece_that_arrives_damaged_is_sent_again(
    served: Path, tmp_path: Path, bad: set[int], pieces: int
) -> None:
    data = content(32 * 1000, 5)
    hit: list[int] = []

    def choose(index: int, length: int) -> int | None:
        if index not in bad:
            return None
        hit.append(index)
        return 7

    async with facing("memory", served, tmp_path, pair=damaging_pair(choose)) as side:
        outcome = await feed(side, Piped(data, len(data) // pieces))
        await side.quiet()
    assert (served / "name").read_bytes() == data
    assert (outcome.bytes, outcome.crc32) == (len(data), crc32_of([data]))
    assert bool(side.of(ChunkHealed)) == bool(hit)


async def test_a_piece_is_sent_again_although_the_pipe_has_nothing_to_say(served: Path, tmp_path: Path) -> None:
    data = content(4000, 6)
    healed = trio.Event()

    class Waiting(Piped):
        def __call__(self, view: memoryview, poll: Callable[[], None]) -> tuple[int, int]:
            if self.read:
                trio.from_thread.run(healed.wait)
            return super().__call__(view, poll)

    async with facing(
        "memory", served, tmp_path, pair=damaging_pair(lambda index, _: 7 if not index else None)
    ) as side:

        def progress(event: object) -> None:
            if isinstance(event, FileProgress):
                healed.set()

        side.on_event = progress
        outcome = await feed(side, Waiting(data, 1000))
    assert outcome.crc32 == crc32_of([data])
    assert (served / "name").read_bytes() == data


async def test_a_piece_that_is_never_right_is_given_up(served: Path, tmp_path: Path) -> None:
    async with facing("memory", served, tmp_path, pair=damaging_pair(lambda index, length: 7)) as side:
        with pytest.raises(
            IntegrityError, match=r"name: the range at 0 .* 3 times \(CRC-32 [0-9a-f]{8}, expected "
        ) as info:
            await feed(side, Piped(content(3000), 1000))
        assert f"{crc32_of([content(3000)[:1000]]):08x}" in str(info.value)
        await side.quiet()
    assert not (served / "name").exists()
    assert not list(served.rglob("*.tmp"))


async def test_whoever_cannot_send_again_is_told_at_once(served: Path, tmp_path: Path) -> None:
    async with facing("memory", served, tmp_path) as side:
        with pytest.raises(IntegrityError, match=r"damaged \(CRC-32"):
            await attempt(side, lambda stream: write(stream, b"some", 0, 1))


def unfinished(served: Path) -> list[str]:
    return [one.name for one in (served / ".fsmux").iterdir() if one.suffix != ".guard"]


async def test_what_no_later_attempt_takes_over_is_thrown_away(side: Side, served: Path) -> None:
    """The next attempt of the run asks for something else."""
    run, opened = bytes(range(JOIN_SIZE)), side.client.connection.open_stream
    async with opened(Create((b"f",), join=run, attempt=1)) as first:
        await first.expect_message(Attrs)
        assert unfinished(served)
        async with opened(Store((), join=run, attempt=2), end=True) as second:
            assert await second.receive() is None
        with pytest.raises(StreamReset, match="a later attempt"):
            await first.receive()
    await side.client.stat("")
    assert not unfinished(served)


async def test_few_files_are_kept_for_clients_that_are_gone(autojump_clock: MockClock) -> None:
    growths, ended = Growths(), []

    async def linger() -> None:
        await growths.linger()
        ended.append(trio.current_time())

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_LINGERING + 5):
            nursery.start_soon(linger)
    assert sorted(ended) == [start] * 5 + [start + LINGER_SECONDS] * MAX_LINGERING
    await growths.linger()
    assert trio.current_time() == start + 2 * LINGER_SECONDS
