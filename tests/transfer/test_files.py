"""Single files, up and down: fresh, resumed, grown, edited, changing, damaged; and who may not."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import trio

from fsmux import greeting
from fsmux.errors import AccessError, BadName, FsmuxError, IsADirectory, NotFound
from fsmux.events import ChunkHealed, FileFailed, FileHoles, FileProgress
from fsmux.limits import INITIAL_CREDIT, MIN_FRAME
from fsmux.records import Durability
from fsmux.wire.frames import HOLES_FEATURE

from .kit import BIG, CHUNK, Move, Side, content, damaging_pair, facing, state_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fsmux.events import Event

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, INITIAL_CREDIT, INITIAL_CREDIT + 1, BIG)


@pytest.mark.parametrize("size", SIZES)
async def test_a_fresh_file(kind: str, direction: str, size: int, served: Path, there: Path) -> None:
    async with facing(kind, served, there) as side:
        move = Move(side, direction)
        (move.source / "file").write_bytes(wanted := content(size))
        (move.source / "file").chmod(0o640)
        os.utime(move.source / "file", ns=(1, 1_234_567_890_123_456_789))
        summary = await move()
        assert not summary.failed, side.failure
        assert (move.target / "file").read_bytes() == wanted
        facts = (move.target / "file").stat()
        assert (facts.st_mode & 0o777, facts.st_mtime_ns) == (0o640, 1_234_567_890_123_456_789)
        assert (summary.files, summary.failed, summary.bytes, summary.bytes_sent) == (1, 0, size, size)
        assert sum(event.bytes for event in side.of(FileProgress)) == size
        again = await move()
        assert (again.files, again.skipped, again.bytes_sent) == (0, 1, 0)
    assert state_of(served) == state_of(there) == set()


async def stop_after(move: Move, count: int) -> None:
    """Cancel a transfer once so many bytes have passed."""
    passed = 0

    def look(event: Event) -> None:
        nonlocal passed
        if isinstance(event, FileProgress):
            passed += event.bytes
            if passed >= count:
                scope.cancel()

    with trio.CancelScope() as scope:
        move.side.on_event = look
        try:
            await move(bwlimit=40 * 2**20)
        finally:
            move.side.on_event = lambda event: None
    assert scope.cancelled_caught, "the transfer was over before it could be cancelled"
    await move.side.quiet()


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
async def test_what_a_cancelled_transfer_left_is_not_sent_again(move: Move, part: float) -> None:
    size = 6 * BIG
    (move.source / "file").write_bytes(wanted := content(size))
    await stop_after(move, int(size * part))
    assert not (move.target / "file").exists()
    summary = await move()
    assert (move.target / "file").read_bytes() == wanted
    assert summary.bytes_sent + summary.bytes_resumed == size
    if move.direction == "down":  # progress was that of the receiver, so at least the whole chunks of it are held
        assert summary.bytes_resumed > size * part - 4 * CHUNK - 2**20
    assert state_of(move.target) == set()


async def test_without_resume_everything_is_sent(move: Move) -> None:
    (move.source / "file").write_bytes(wanted := content(4 * BIG))
    await stop_after(move, 2 * BIG)
    summary = await move(resume=False)
    assert (move.target / "file").read_bytes() == wanted
    assert (summary.bytes_sent, summary.bytes_resumed) == (4 * BIG, 0)


async def test_early_files_that_come_in_pieces_do_not_lock_each_other_out(
    direction: str, served: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More files at once than early credit has room for, each part-way: they need credit of their own to go on."""
    monkeypatch.setattr("fsmux.limits.EAGER_CREDIT", 8 * MIN_FRAME)
    for name in ("MAX_DATA_PAYLOAD", "START_FRAME"):
        monkeypatch.setattr(f"fsmux.mux.outbox.{name}", MIN_FRAME)
    async with facing("unix", served, there) as side:
        move = Move(side, direction)
        wanted = {f"{index}": content(INITIAL_CREDIT, seed=index) for index in range(30)}
        for name, data in wanted.items():
            (move.source / name).write_bytes(data)
        if direction == "up":
            summary = await side.client.upload(str(move.source) + "/", "all", observer=side.observe, streams=30)
        else:
            summary = await side.client.download("", move.target / "all", observer=side.observe, streams=30)
        assert (summary.files, summary.failed) == (30, 0), side.events
        assert {path.name: path.read_bytes() for path in (move.target / "all").iterdir()} == wanted


async def test_a_second_line_is_all_that_is_sent(move: Move) -> None:
    (move.source / "file").write_bytes(b"the first line\n")
    await move()
    with (move.source / "file").open("ab") as file:
        file.write(b"and a second one\n")
    summary = await move()
    assert (move.target / "file").read_bytes() == b"the first line\nand a second one\n"
    assert summary.bytes_sent == len(b"and a second one\n")
    assert summary.bytes_resumed == len(b"the first line\n")


@pytest.mark.parametrize("before", [CHUNK - 1, CHUNK, CHUNK + 1, BIG])
async def test_a_grown_file_sends_what_was_appended(move: Move, before: int) -> None:
    wanted = content(before + 3 * CHUNK + 5)
    (move.source / "file").write_bytes(wanted[:before])
    await move()
    (move.source / "file").write_bytes(wanted)
    summary = await move()
    assert (move.target / "file").read_bytes() == wanted
    assert summary.bytes_sent == len(wanted) - before


async def test_a_file_that_became_shorter_is_not_sent_at_all(move: Move) -> None:
    wanted = content(BIG)
    (move.source / "file").write_bytes(wanted)
    await move()
    (move.source / "file").write_bytes(wanted[: 5 * CHUNK])
    summary = await move()
    assert (move.target / "file").read_bytes() == wanted[: 5 * CHUNK]
    assert summary.bytes_sent == 0


async def test_an_edit_in_place_sends_its_chunks(move: Move) -> None:
    wanted = bytearray(content(BIG))
    (move.source / "file").write_bytes(wanted)
    await move()
    wanted[3 * CHUNK + 77] ^= 1
    wanted[9 * CHUNK : 11 * CHUNK] = content(2 * CHUNK, seed=2)
    (move.source / "file").write_bytes(wanted)
    os.utime(move.source / "file", ns=(1, time.time_ns() + 10**9))
    summary = await move()
    assert (move.target / "file").read_bytes() == wanted
    assert summary.bytes_sent == 3 * CHUNK


async def test_a_file_that_changes_while_it_is_sent(move: Move) -> None:
    """It fails as what it is, and what stood under the name stands there still."""
    size = 8 * BIG
    (move.target / "file").write_bytes(b"what stood here")
    for seed, change in enumerate((truncate, overwrite, append)):
        (move.source / "file").write_bytes(content(size, seed))

        def look(event: Event, change: Callable[[Path], None] = change) -> None:
            if isinstance(event, FileProgress):
                move.side.on_event = lambda event: None
                change(move.source / "file")

        move.side.on_event = look
        summary = await move(bwlimit=60 * 2**20)
        assert summary.failed == 1, change
        assert move.side.failure.code == "SOURCE_CHANGED", move.side.failure
        assert (move.target / "file").read_bytes() == b"what stood here"
        await move.side.quiet()
    wanted = (move.source / "file").read_bytes()
    assert not (await move()).failed
    assert (move.target / "file").read_bytes() == wanted


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    os.utime(path, ns=(1, time.time_ns() + 10**9))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


# ---- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 3 * CHUNK, BIG])
async def test_a_damaged_chunk_is_healed(direction: str, size: int, served: Path, there: Path) -> None:
    pair = damaging_pair(lambda index, length: length // 2 if index == 0 else None)
    async with facing("memory", served, there, pair=pair) as side:
        move = Move(side, direction)
        (move.source / "file").write_bytes(wanted := content(size))
        summary = await move()
        assert (move.target / "file").read_bytes() == wanted
        assert summary.failed == 0
        assert summary.retries >= 1
        assert side.of(ChunkHealed)


async def test_a_chunk_that_is_always_damaged_fails_its_file(direction: str, served: Path, there: Path) -> None:
    """The file is named, and the chunk, and what was found and expected; other files are not touched by it."""
    async with facing("memory", served, there, pair=damaging_pair(lambda index, length: 0)) as side:
        move = Move(side, direction)
        (move.source / "file").write_bytes(content(3 * CHUNK))
        summary = await move()
        assert summary.failed == 1
        failed = side.failure
        assert failed.code == "INTEGRITY"
        for part in ("file: chunk ", "3 times", "expected", "CRC-32"):
            assert part in failed.message, failed.message
        assert not (move.target / "file").exists()
        (move.source / "empty").write_bytes(b"")
        assert not (await move("empty")).failed


async def test_damage_here_and_there(direction: str, served: Path, there: Path) -> None:
    """Every fifth chunk is damaged on its first way: all of it heals."""
    pair = damaging_pair(lambda index, length: (index * 7919) % length if index < 33 and index % 5 == 0 else None)
    async with facing("memory", served, there, pair=pair) as side:
        side.client.connection.outbox.frame_size = CHUNK
        move = Move(side, direction)
        (move.source / "file").write_bytes(wanted := content(BIG))
        assert not (await move()).failed
        assert (move.target / "file").read_bytes() == wanted


@pytest.mark.parametrize("damage", ["garbage", "cut", "flip", "empty", "gone", "part cut"])
async def test_what_was_kept_and_is_damaged(move: Move, damage: str) -> None:
    """Whatever happened to the journal or the part meanwhile: the file is whole, or there is none."""
    (move.source / "file").write_bytes(wanted := content(6 * BIG))
    await stop_after(move, 3 * BIG)
    kept = move.target / ".fsmux"
    (journal,) = kept.glob("*.journal")
    (part,) = kept.glob("*.part")
    data = journal.read_bytes()
    match damage:
        case "garbage":
            journal.write_bytes(content(len(data), seed=9))
        case "cut":
            journal.write_bytes(data[: len(data) * 2 // 3])
        case "flip":
            journal.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
        case "empty":
            journal.write_bytes(b"")
        case "gone":
            journal.unlink()
        case "part cut":
            os.truncate(part, CHUNK)
    summary = await move()
    if summary.failed:
        assert not (move.target / "file").exists()
        assert not (await move(resume=False)).failed, move.side.failure
    assert (move.target / "file").read_bytes() == wanted
    assert state_of(move.target) == set()


# ---- who may not --------------------------------------------------------------------------------------------------


async def test_two_uploads_to_one_name(served: Path, there: Path) -> None:
    """One gets it, the other is told that it is busy; afterwards the file is one of the two."""
    first, second = content(20 * BIG, seed=1), content(20 * BIG, seed=2)
    (there / "one").write_bytes(first)
    (there / "two").write_bytes(second)
    async with facing("unix", served, there) as side:
        results = {}

        async def upload(name: str) -> None:
            events: list[Event] = []
            summary = await side.client.upload(there / name, "file", observer=events.append, chunk_size=CHUNK)
            results[name] = (summary, events)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload, "one")
            nursery.start_soon(upload, "two")
        failed = {event for _, events in results.values() for event in events if isinstance(event, FileFailed)}
        assert {event.code for event in failed} <= {"BUSY"}, failed
        assert (served / "file").read_bytes() in (first, second)
        assert state_of(served) == set()


async def test_a_server_that_may_only_be_read(served: Path, there: Path) -> None:
    (there / "file").write_bytes(b"x")
    (served / "other").write_bytes(b"y")
    async with facing("unix", served, there, write=False) as side:
        client = side.client
        assert (await Move(side, "up")()).failed == 1
        assert side.failure.code == "PERMISSION"
        assert "--write" in side.failure.message
        for attempt in (
            lambda: client.mkdir("d"),
            lambda: client.remove("other"),
            lambda: client.rename("other", "b"),
            lambda: client.symlink("link", b"other"),
        ):
            with pytest.raises(AccessError, match="--write"):
                await attempt()
        for options in ({"write": True}, {"create": True}, {"truncate": True}):
            with pytest.raises(AccessError):
                async with client.open("other", **options):
                    pass
        assert not (await Move(side, "down")("other")).failed
    assert sorted(path.name for path in served.iterdir()) == ["other"]


@pytest.mark.parametrize(
    ("server", "client", "durable"),
    [
        (Durability.NONE, "none", False),
        (Durability.NONE, "batch", True),
        (Durability.BATCH, "none", True),
        (Durability.FILE, "file", True),
    ],
)
async def test_committed_says_whether_it_is_durable(
    served: Path, there: Path, server: Durability, client: str, durable: bool
) -> None:
    """Each side gets at least what it asks for."""
    async with facing("unix", served, there, durability=server) as side:
        (there / "file").write_bytes(content(BIG))
        await Move(side, "up")(durability=Durability[client.upper()])
        assert side.done.durable is durable
        (served / "other").write_bytes(content(BIG))
        await Move(side, "down")("other", durability=Durability[client.upper()])
        assert side.done.durable is (client != "none")


async def test_names_of_every_kind(side: Side, direction: str) -> None:
    names = [
        b"not-utf8-\xff\xfe",
        b"new\nline",
        b"\x1b[31mred",
        b"-n",
        b" ",
        "grün".encode(),
        b"\xe2\x80\xae",
        b"x" * 255,
    ]
    move = Move(side, direction)
    for name in names:
        with open(os.fsencode(move.source) + b"/" + name, "wb") as file:
            file.write(name)
    if direction == "up":
        summary = await side.client.upload(str(move.source) + "/", "all", observer=side.observe)
        target = side.served / "all"
    else:
        summary = await side.client.download("", str(side.there / "all"), observer=side.observe)
        target = side.there / "all"
    assert (summary.files, summary.failed) == (len(names), 0), side.events
    assert {os.fsencode(path.name): path.read_bytes() for path in target.iterdir()} == {name: name for name in names}
    for event in side.events:  # what a person is shown is fit to be shown
        assert str(getattr(event, "path", "")).isprintable()


async def test_paths_that_lead_outside(side: Side, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (side.served / "link").symlink_to(tmp_path)
    (side.served / "loop").symlink_to("loop")
    (side.there / "file").write_bytes(b"x")
    client = side.client
    for path in ("link/secret", "loop", ".fsmux/x", ".FSMUX", "loop/x"):
        with pytest.raises(FsmuxError) as caught:
            await client.stat(path)
        assert isinstance(caught.value, BadName | NotFound)
        assert str(tmp_path) not in str(caught.value)
        with pytest.raises(FsmuxError):
            await client.remove(f"{path}/x")
        with pytest.raises(FsmuxError):
            await side.client.upload(side.there / "file", f"{path}/x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "served", "there"]
    assert (tmp_path / "secret").read_bytes() == b"secret"


async def test_a_directory_stands_where_the_file_should(side: Side) -> None:
    (side.served / "name" / "inside").mkdir(parents=True)
    (side.there / "name").write_bytes(b"x")
    with pytest.raises(IsADirectory):
        async with side.client.open("name"):
            pass
    summary = await side.client.upload(side.there / "name", ".", observer=side.observe)
    assert summary.failed == 1
    assert (side.served / "name" / "inside").is_dir()
    assert state_of(side.served) == set()


async def test_a_receiver_that_fails_without_granting_more_credit_is_heard(served: Path, there: Path) -> None:
    """More than the initial credit, so that the rest would wait for a grant that never comes."""
    (there / "big").write_bytes(content(INITIAL_CREDIT + 5))
    async with facing("unix", served, there, write=False) as side:
        summary = await side.client.upload(there / "big", "big", observer=side.observe)
        assert summary.failed == 1
        assert side.failure.code == "PERMISSION"


async def test_a_peer_that_knows_no_holes_is_sent_zeros(
    kind: str, direction: str, served: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "FEATURES", tuple(set(greeting.FEATURES) - {HOLES_FEATURE}))
    async with facing(kind, served, there) as side:
        move = Move(side, direction)
        with (move.source / "file").open("wb") as file:
            file.truncate(BIG)
            os.pwrite(file.fileno(), b"data", CHUNK + 5)
        summary = await move()
        assert (summary.failed, summary.bytes_sent) == (0, BIG)
        assert not side.of(FileHoles)
        assert (move.target / "file").read_bytes() == (move.source / "file").read_bytes()


async def test_a_damaged_chunk_with_holes_heals(direction: str, served: Path, there: Path) -> None:
    damaged = 0

    def choose(index: int, length: int) -> int | None:
        nonlocal damaged
        damaged += length > CHUNK // 4
        return length // 2 if length > CHUNK // 4 and damaged == 1 else None

    async with facing("memory", served, there, pair=damaging_pair(choose)) as side:
        move = Move(side, direction)
        with (move.source / "file").open("wb") as file:
            file.truncate(8 * CHUNK)
            os.pwrite(file.fileno(), content(CHUNK // 2), 2 * CHUNK + CHUNK // 4)
        summary = await move()
        assert (summary.failed, summary.bytes_sent) == (0, CHUNK)
        assert len(side.of(ChunkHealed)) == 1
        assert (move.target / "file").read_bytes() == (move.source / "file").read_bytes()
        assert (move.target / "file").stat().st_blocks <= (move.source / "file").stat().st_blocks + 16
