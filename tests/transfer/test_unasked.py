"""Trees of which nothing stands at the destination: they come as they are, and only what needs a plan is asked for."""

from __future__ import annotations

import gc
import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from fsmux import context, handlers, tree_handlers
from fsmux.errors import FsmuxError
from fsmux.events import FileDone, FileFailed, FilesDone, FileSkipped, FilesLinked, Planned, Retrying, Scanning
from fsmux.job import Options
from fsmux.limits import MEDIUM_FILE, PACK_BYTES
from fsmux.moving.pacing import FIRST_NEAR, Pace
from fsmux.moving.report import Report
from fsmux.moving.transfer import Transfer
from fsmux.plan.filters import Filters, Rule
from fsmux.plan.selection import select
from fsmux.records import Durability
from fsmux.transfer.session import Run
from fsmux.urls import Local
from fsmux.wire.frames import UNASKED_FEATURE
from fsmux.wire.messages import Ok, Pack, Walk

from .kit import content, damaging_pair, descriptors, facing, forget_feature, state_of
from .test_cancel import EVERY, sweep
from .test_trees import Tree, files, inventory, make

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsmux.columns import Group

    from .kit import Side


class Heard:
    """What a server hears: walks, and names that it is asked for."""

    def __init__(self) -> None:
        self.walks: list[Walk] = []
        self.fetches = 0
        self.asked: list[str] = []


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    heard = Heard()
    walk, fetch, send = tree_handlers.walk_tree, tree_handlers.fetch, tree_handlers.send_pack

    async def on_walk(context: Any, stream: Any, request: Any) -> None:
        heard.walks.append(request)
        await walk(context, stream, request)

    async def on_fetch(context: Any, stream: Any, request: Any) -> None:
        heard.fetches += 1
        await fetch(context, stream, request)

    async def on_ask(sender: Any, disk: Any, root: Any, base: Any, number: int, groups: Any, read: Any) -> Any:
        for group in groups:
            heard.asked += [os.fsdecode(b"/".join((*group.directory, name))) for name in group.names]
        return await send(sender, disk, root, base, number, groups, read)

    monkeypatch.setitem(handlers.HANDLERS, type(Walk(())), on_walk)
    monkeypatch.setitem(handlers.HANDLERS, tree_handlers.Fetch, on_fetch)
    monkeypatch.setattr(tree_handlers, "send_pack", on_ask)
    return heard


@pytest.fixture
def down(side: Side) -> Tree:
    return Tree(side, "down")


async def test_nothing_is_asked_for_that_needs_no_plan(down: Tree, heard: Heard) -> None:
    source = make(down.source / "file")
    summary = await down()
    assert (summary.files, summary.failed, summary.skipped) == (42, 0, 0)
    assert inventory(down.target / "file") == inventory(source)
    assert sum(len(event.names) for event in down.side.of(FilesDone)) == 41
    assert [event.path for event in down.side.of(FileDone)] == ["d/deep/er/large"]
    (walk,) = heard.walks
    assert walk.pack_bytes
    assert (heard.asked, heard.fetches) == ([], 0)
    await down()
    assert not heard.walks[1].pack_bytes


async def test_what_needs_a_plan_is_asked_for_and_stands_beside_the_rest(down: Tree, heard: Heard) -> None:
    source = make(down.source / "file")
    (source / "same").mkdir()
    for number, name in enumerate(["a", "b", "c", "x", "y", "z"]):
        (source / "same" / name).write_bytes(content(90 + number, number))
    os.link(source / "same/b", source / "same/twin")
    os.link(source / "same/b", source / "d/05twin")
    os.link(source / "d/deep/er/large", source / "same/large twin")
    os.mkfifo(source / "same/n")
    (source / "same/w").write_bytes(content(MEDIUM_FILE + 1))
    os.utime(source / "same", ns=(1, 12345))
    summary = await down()
    assert (summary.files, summary.failed) == (42 + 10, 0)
    assert [event.path for event in down.side.of(FileSkipped)] == ["same/n"]
    assert sum(len(event.names) for event in down.side.of(FilesLinked)) == 3
    expected = inventory(source)
    del expected["same/n"]
    assert inventory(down.target / "file") == expected
    there = down.target / "file"
    assert (there / "same/b").stat().st_ino == (there / "d/05twin").stat().st_ino == (there / "same/twin").stat().st_ino
    assert (there / "d/deep/er/large").samefile(there / "same/large twin")
    assert set(heard.asked) == {"d/05twin"}
    assert not state_of(down.target)


async def test_what_cannot_be_read_fails_alone(down: Tree, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(down.source / "file")
    real = tree_handlers.listing.groups

    def refuse(root: Any, parts: Any, *args: Any, **options: Any) -> Iterator[Group]:
        for group in real(root, parts, *args, **options):
            group.more = True
            yield group
            if parts[-1:] == (b"er",):
                raise FsmuxError("it cannot be read to its end")

    monkeypatch.setattr(tree_handlers.listing, "groups", refuse)
    (source / "d/07").unlink()
    packed = tree_handlers.read_pack

    def vanish(*words: Any) -> memoryview:
        (source / "d/09").unlink(missing_ok=True)
        return packed(*words)

    monkeypatch.setattr(tree_handlers, "read_pack", vanish)
    summary = await down()
    assert sorted(event.path for event in down.side.of(FileFailed)) == ["d/09", "d/deep/er"]
    assert (summary.files, summary.failed) == (40, 2)
    expected = inventory(source)
    found = inventory(down.target / "file")
    for name in ("d", "d/deep/er"):
        del expected[name], found[name]
    assert found == expected


@pytest.mark.parametrize("what", ["a filter", "a dry run", "it is there", "names", "two sources", "an earlier server"])
async def test_where_there_is_something_to_decide_nothing_comes_by_itself(side: Side, heard: Heard, what: str) -> None:
    options: dict[str, Any] = {}
    served = [b"file"]
    if what == "a filter":
        options["filters"] = Filters([Rule(False, "*7")])
    elif what == "a dry run":
        options["dry_run"] = True
    elif what == "names":
        options["selection"] = select([b"d"])
    elif what == "it is there":
        (side.there / "file").mkdir()
    elif what == "two sources":
        served.append(b"other")
    else:
        forget_feature(side, UNASKED_FEATURE)
    sources = []
    for name in served:
        make(side.served / os.fsdecode(name))
        source = side.client.remote.server.join((name,))
        sources.append(msgspec.structs.replace(source, trailing_slash=len(served) > 1))
    report = Report(side.observe)
    transfer = Transfer(side.client, Options(durability=Durability.NONE, **options), report, Run())
    await transfer.run(sources, Local(os.fspath(side.there), True))
    assert heard.walks
    assert not any(walk.pack_bytes for walk in heard.walks)


async def test_what_arrives_damaged_is_asked_for(served: Path, there: Path, heard: Heard) -> None:
    hurt = 1

    def damage(index: int, size: int) -> int | None:
        nonlocal hurt
        if hurt and size > 1000:
            hurt -= 1
            return 700
        return None

    async with facing("memory", served, there, pair=damaging_pair(damage)) as side:
        move = Tree(side, "down")
        source = make(move.source / "file")
        summary = await move()
        assert (summary.files, summary.failed, summary.retries) == (42, 0, 1)
        assert len(side.of(Retrying)) == len(heard.asked) == 1
        assert inventory(move.target / "file") == inventory(source)


@pytest.mark.parametrize("seed", range(12))
async def test_what_is_damaged_again_and_again_leaves_the_times_of_directories(
    served: Path, there: Path, seed: int
) -> None:
    """Also where some of what a directory has is asked for from the beginning."""
    rng = random.Random(seed)

    def damage(index: int, size: int) -> int | None:
        return rng.randrange(size) if size > 300 and rng.random() < 0.25 else None

    async with facing("memory", served, there, pair=damaging_pair(damage)) as side:
        move = Tree(side, "down")
        source = move.source / "file"
        source.mkdir()
        directories, kept = [source], []
        for number in range(150):
            path = rng.choice(directories) / f"{number}"
            kind = rng.random()
            if kind < 0.25:
                path.mkdir()
                directories.append(path)
            elif kind < 0.4 and kept:
                os.link(rng.choice(kept), path)
            else:
                path.write_bytes(content(rng.choice([0, 10, 500, 3000, 70_000, 300_000]), number))
                kept.append(path)
        for path in reversed(directories):
            os.utime(path, ns=(1, rng.randrange(1, 2**60)))
        await move()
        wanted, found = inventory(source), inventory(move.target / "file")
        failed = {event.path for event in side.of(FileFailed)}
        for name in failed | {os.path.dirname(name) for name in failed}:
            wanted.pop(name, None)
            found.pop(name, None)
        assert found == wanted


@pytest.mark.parametrize("direction", ["down", "asked for"])
@pytest.mark.parametrize("count", [1, 6])
async def test_files_that_grow_come_as_they_are_or_fail_alone(
    side: Side, monkeypatch: pytest.MonkeyPatch, direction: str, count: int
) -> None:
    """Also if they grow beyond what is to come in a pack."""
    move = Tree(side, direction)
    source = make(move.source / "file")
    real = tree_handlers.read_pack
    size = 300_000 if count == 1 else 3_000_000

    def grow(*words: Any) -> memoryview:
        for number in range(10, 10 + count):
            os.truncate(source / f"d/{number}", size)
        return real(*words)

    monkeypatch.setattr(tree_handlers, "read_pack", grow)
    summary = await move(chunk_size=64 * 1024)
    lost = side.of(FileFailed)
    assert summary.files + len(lost) == 42
    assert len(lost) == (0 if count == 1 else 4)
    assert all(event.message.startswith(f"file/{event.path}: it grew") for event in lost)
    grown = [number for number in range(10, 10 + count) if f"d/{number}" not in {event.path for event in lost}]
    assert all((move.target / f"file/d/{number}").stat().st_size == size for number in grown)


async def test_nothing_is_kept_of_trees_that_nobody_wants_any_more(served: Path, there: Path) -> None:
    for number in range(40):
        (served / f"{number}").write_bytes(bytes(100_000))

    def held() -> int:
        return sum(isinstance(one, Pack) for one in gc.get_objects())

    async with facing("unix", served, there) as side:
        before = held()
        gc.disable()  # or nobody knows whether it was only collected in time
        try:
            for _ in range(3):
                walk = Walk((), pack_bytes=PACK_BYTES, medium=MEDIUM_FILE)
                async with side.client.connection.open_stream(walk, end=True) as stream:
                    await stream.receive()
            await side.quiet()
            while held() > before:  # the handlers are about to end
                await side.client.connection.ping()
        finally:
            gc.enable()


async def test_trees_wait_for_one_another_where_they_are_many(side: Side) -> None:
    """A peer that reads none of them has the server hold a few packs, and not one for each."""
    for number in range(400):
        (side.served / f"{number}").write_bytes(bytes(100_000))
    walk = Walk((), pack_bytes=PACK_BYTES, medium=MEDIUM_FILE)
    streams = [side.client.connection.open_stream(walk, end=True) for _ in range(3 * context.TREES_AT_ONCE)]

    def begun() -> int:
        return sum(stream.receive_credit.received > 0 for stream in streams)

    while begun() < context.TREES_AT_ONCE or not side.idle_threads():
        await side.client.connection.ping()
    for _ in range(20):
        await side.client.connection.ping()
    assert begun() == context.TREES_AT_ONCE
    for stream in streams[: 2 * context.TREES_AT_ONCE]:
        stream.close()
    for stream in streams[2 * context.TREES_AT_ONCE :]:
        assert isinstance(await stream.receive(), Pack)
        stream.close()


async def test_packs_become_longer_where_they_go_fast(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        (side.served / f"{number:02d}").write_bytes(content(MEDIUM_FILE // 8))
    sizes: list[int] = []
    async with side.client.connection.open_stream(Walk((), pack_bytes=200_000, medium=MEDIUM_FILE), end=True) as stream:
        stream.expect(None)
        item: Any = None
        while not isinstance(item := await stream.receive(), Ok):
            if isinstance(item, Pack):
                sizes.append(item.size)
            else:
                stream.consumed(item)  # type: ignore[arg-type]
    assert sizes[0] == MEDIUM_FILE // 8
    assert PACK_BYTES / 2 < max(sizes) <= PACK_BYTES
    assert sum(sizes) == 40 * (MEDIUM_FILE // 8)


async def test_how_much_there_is_of_a_tree_is_known_before_it_is_there(down: Tree) -> None:
    """Of those with not too many entries; and after a part of the tree has come, of what comes behind it."""
    source = make(down.source / "file")
    (source / "last").mkdir()
    for number in range(30):
        (source / f"last/{number}").write_bytes(content(300_000, number))
    os.mkfifo(source / "last/pipe")
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    summary = await down()
    assert (summary.files, summary.bytes) == (72, size)
    events = [event for event in down.side.events if isinstance(event, Planned | FilesDone)]
    (planned,) = down.side.of(Planned)
    assert (planned.files, planned.bytes) == (72, size)
    assert any(isinstance(event, FilesDone) for event in events[events.index(planned) :])
    for event in down.side.of(Scanning):
        assert event.files <= 72
        assert event.bytes <= size


@pytest.mark.slow
async def test_cancelled_at_every_step(served: Path, there: Path) -> None:
    """Nothing is left of a tree that comes by itself, and what has come of it stays."""
    import shutil

    async with facing("unix", served, there) as side:
        move = Tree(side, "down")
        source = make(move.source / "file")
        (source / "d/deep/er/large").write_bytes(content(MEDIUM_FILE + 5)[: MEDIUM_FILE + 1])
        os.link(source / "d/07", source / "d/tied")

        def remove() -> None:
            for name in state_of(move.target):
                assert not name.endswith(".tmp")
            shutil.rmtree(move.target / "file", ignore_errors=True)

        assert await sweep(side, move, remove) > 20 / EVERY
        assert not (await move()).failed
        assert inventory(move.target / "file") == inventory(source)


async def test_ended_in_the_middle_the_rest_is_asked_for(down: Tree, heard: Heard) -> None:
    source = down.source / "file"
    for directory in range(30):
        (source / f"{directory}").mkdir(parents=True)
        for number in range(100):
            (source / f"{directory}/{number}").write_bytes(b"%d" % number)
    before = descriptors()
    down.side.on_event = lambda event: scope.cancel() if isinstance(event, FilesDone) else None
    with trio.CancelScope() as scope:
        await down()
    assert scope.cancelled_caught
    await down.side.quiet()
    kept = f" {down.target}"
    assert {name for name in descriptors() - before if not name.endswith(kept)} == set()
    down.side.on_event = lambda event: None
    summary = await down()
    assert summary.skipped > 0
    assert summary.files + summary.skipped == 3000
    assert [bool(walk.pack_bytes) for walk in heard.walks] == [True, False]
    assert inventory(down.target / "file") == inventory(source)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_tree_that_ends_in_the_middle_tells_of_the_link(
    side: Side, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """What was on its way is lost as a pack that was asked for would be."""
    make(side.served / "file")
    walk, lost = tree_handlers.walk_tree, []

    async def end(context: Any, stream: Any, request: Any) -> None:
        if whole:
            await walk(context, stream, request)
        else:
            await stream.send(Pack(0, (files(b"a"),)))
            await stream.send_data(b"x")
            stream.end()

    monkeypatch.setitem(handlers.HANDLERS, Walk, end)
    monkeypatch.setattr(Pace, "lost", lambda pace, size, now: lost.append(size))
    with suppress(FsmuxError):
        await side.client.download("file", side.there, observer=side.observe)
    assert lost == ([] if whole else [FIRST_NEAR])
