"""Trees between a client and a server: what arrives, what fails alone, what a hostile peer gets, what is left."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from zlib_ng.zlib_ng import crc32

from fsmux import handlers, limits, tree_handlers
from fsmux.client import TREES_AT_ONCE
from fsmux.columns import DIRECTORY, REGULAR, Act, Group, itself
from fsmux.errors import ErrorCode, FsmuxError, ProtocolError, StreamReset, Unsupported
from fsmux.events import FileDone, FileFailed, FilesDone, FilesSkipped, Planned, Scanning, WouldDo
from fsmux.files.syscalls import Syscalls
from fsmux.job import Options
from fsmux.limits import MEDIUM_FILE
from fsmux.moving.report import Report
from fsmux.moving.transfer import NEAR_AT_ONCE, Transfer
from fsmux.mux.service import all_of
from fsmux.records import Durability
from fsmux.transfer.session import Run
from fsmux.urls import Local
from fsmux.wire.frames import BRIEF_FEATURE, FINISH_FEATURE, UNASKED_FEATURE
from fsmux.wire.messages import Ask, Failed, Fault, Fetch, Listed, Look, Ok, Pack, Packed, Store, Walk
from fsmux.wire.messages.groups import completed

from .kit import Move, Side, content, damaging_pair, descriptors, facing, forget_feature, state_of

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.events import Summary


def make(root: Path) -> Path:
    """A tree of a little of everything."""
    (root / "d/deep/er").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o711)
    for number in range(40):
        (root / f"d/{number:02d}").write_bytes(content(number * 37, number))
    (root / "d/deep/er/large").write_bytes(content(MEDIUM_FILE + 5, 99))
    (root / "d/deep/er/small").write_bytes(b"")
    (root / "d/link").symlink_to("../empty")
    (root / "d/deep").chmod(0o750)
    os.utime(root / "d/deep", ns=(1, 1_000_000_000_000_000_001))
    os.utime(root / "d/07", ns=(1, 7))
    return root


class Tree(Move):
    """Moves the directory ``file`` by its name; "asked for" is down, with each file being asked for."""

    def __init__(self, side: Side, direction: str) -> None:
        super().__init__(side, direction.replace("asked for", "down"))
        if direction == "asked for":
            forget_feature(side, UNASKED_FEATURE)

    async def __call__(self, name: str = "file", **options: Any) -> Summary:
        side = self.side
        side.events.clear()
        if self.direction == "up":
            return await side.client.upload(self.source / name, "", observer=side.observe, **options)
        return await side.client.download(name, self.target, observer=side.observe, **options)


@pytest.fixture(params=["up", "down", "asked for"])
def move(side: Side, request: pytest.FixtureRequest) -> Tree:
    return Tree(side, request.param)


def inventory(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        if path.is_symlink():
            kept: tuple[object, ...] = (os.readlink(path),)
        else:
            kept = (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, path.read_bytes() if path.is_file() else None)
        found[str(path.relative_to(root))] = kept
    return {name: kept for name, kept in found.items() if not name.startswith(".fsmux")}


async def test_what_lies_deeper_than_paths_are_long_is_told_of_and_all_else_arrives(move: Tree) -> None:
    (move.source / "file").mkdir()
    (move.source / "file/zz").write_bytes(b"last")
    here = os.open(move.source / "file", os.O_RDONLY)
    for _ in range(22):
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir("d" * 200, dir_fd=here)
        above, here = here, os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(above)
    os.close(here)
    summary = await move()
    assert (summary.files, summary.failed) == (22, 1)  # of 22 times f and zz the deepest does not fit
    (failed,) = move.side.of(FileFailed)
    assert failed.path.endswith("d" * 200)
    assert "1 name in it makes a path of more than 4095 bytes" in failed.message
    assert [sorted(files) for _, _, files, _ in os.fwalk(move.target / "file")] == [["f", "zz"], *[["f"]] * 20]


@pytest.mark.parametrize("durability", list(Durability))
async def test_a_tree_arrives_with_everything_and_a_second_time_nothing_moves(
    move: Tree, durability: Durability
) -> None:
    make(move.source / "file")
    summary = await move(durability=durability)
    assert inventory(move.target / "file") == inventory(move.source / "file")
    assert (summary.files, summary.failed) == (42, 0)
    assert sum(len(event.names) for event in move.side.of(FilesDone)) == 41
    assert [event.path for event in move.side.of(FileDone)] == ["d/deep/er/large"]
    assert all(event.durable is (durability is not Durability.NONE) for event in move.side.of(FilesDone))
    assert not state_of(move.side.served)
    again = await move(durability=durability)
    assert (again.files, again.bytes_sent, again.skipped) == (0, 0, 43)
    assert sum(len(event.names) for event in move.side.of(FilesSkipped)) == 43
    assert inventory(move.target / "file") == inventory(move.source / "file")


async def test_only_what_differs_moves_and_what_is_there_alone_stays(move: Tree) -> None:
    make(move.source / "file")
    await move()
    (move.source / "file/d/03").write_bytes(b"new")
    (move.source / "file/d/04").chmod(0o600)
    (move.source / "file/new").mkdir()
    (move.source / "file/new/one").write_bytes(b"1")
    (move.target / "file/d/extra").write_bytes(b"stays")
    (move.source / "file/d/link").unlink()
    (move.source / "file/d/link").symlink_to("elsewhere")
    summary = await move()
    assert (summary.files, summary.failed) == (2, 0)
    expected = inventory(move.source / "file")
    found = inventory(move.target / "file")
    assert found.pop("d/extra")[2] == b"stays"
    assert found == expected


async def test_a_dry_run_says_what_a_real_one_does(move: Tree) -> None:
    make(move.source / "file")
    dry = await move(dry_run=True)
    would = {(event.action, event.path) for event in move.side.of(WouldDo)}
    assert not (move.target / "file").exists()
    real = await move()
    assert (dry.files, dry.bytes) == (real.files, real.bytes)
    sent = {path for action, path in would if action == "send"}
    done = {one.path for event in move.side.of(FilesDone) for one in event.each()}
    assert sent == done | {event.path for event in move.side.of(FileDone)}
    made = {path for action, path in would if action in ("make directory", "make link")}
    assert made == set(inventory(move.target / "file")) - sent | {"."}


async def test_the_scan_is_told_of_before_the_plan_is_whole(move: Tree) -> None:
    make(move.source / "file")
    await move()
    kinds = [type(event) for event in move.side.events]
    assert kinds.index(Scanning) < kinds.index(Planned)
    (planned,) = move.side.of(Planned)
    assert (planned.files, planned.skipped) == (42, 0)


async def test_directories_with_more_entries_than_a_page_are_compared_page_by_page(
    move: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmux.files.listing.GROUP_ENTRIES", 7)
    (move.source / "file/d").mkdir(parents=True)
    (move.target / "file/d").mkdir(parents=True)
    for number in range(60):
        (move.source / f"file/d/{number:03d}").write_bytes(b"x" * number)
        if number % 3:
            (move.target / f"file/d/{number:03d}").write_bytes(b"x" * number)
            facts = (move.source / f"file/d/{number:03d}").stat()
            os.utime(move.target / f"file/d/{number:03d}", ns=(1, facts.st_mtime_ns))
        (move.target / f"file/d/{number:03d}-other").write_bytes(b"")
    summary = await move()
    assert (summary.files, summary.skipped) == (20, 40)
    names = [name for name in inventory(move.target / "file") if not name.endswith("other")]
    assert names == list(inventory(move.source / "file"))


async def test_one_that_fails_does_not_keep_the_others(move: Tree) -> None:
    make(move.source / "file")
    (move.target / "file/d/05").mkdir(parents=True)
    (move.target / "file/empty").write_bytes(b"in the way")
    (move.source / "file/empty/below").write_bytes(b"never tried")
    os.mkfifo(move.source / "file/pipe")
    summary = await move()
    assert (summary.failed, summary.skipped, summary.files) == (2, 1, 41)
    failed = {event.path: event.code for event in move.side.of(FileFailed)}
    assert failed == {"d/05": "IS_A_DIRECTORY", "empty": "NOT_A_DIRECTORY"}
    assert (move.target / "file/empty").read_bytes() == b"in the way"


async def test_a_directory_that_appears_as_a_file_meanwhile_is_said_once(move: Tree) -> None:
    make(move.source / "file")

    def plant(event: object) -> None:
        if isinstance(event, Scanning) and not (move.target / "file/d").exists():
            (move.target / "file").mkdir(exist_ok=True)
            (move.target / "file/d").write_bytes(b"in the way")

    move.side.on_event = plant  # after the plan, before the first pack
    summary = await move()
    assert {event.path for event in move.side.of(FileFailed)} <= {"d", "d/deep/er/large"}
    assert summary.failed
    assert (move.target / "file/d").read_bytes() == b"in the way"
    assert (move.target / "file/empty").is_dir()


async def test_several_sources_in_one_place_share_directories(move: Tree) -> None:
    from fsmux.job import Options
    from fsmux.moving.report import Report
    from fsmux.moving.transfer import Transfer
    from fsmux.transfer.session import Run
    from fsmux.urls import Local

    if move.direction != "up":
        return
    for name in "ab":
        make(move.source / name)
    (move.source / "b/d/only").write_bytes(b"b")
    side = move.side
    sources = [Local(os.fspath(side.there / name), True) for name in "ab"]
    report = Report(side.observe)
    transfer = Transfer(side.client, Options(durability=Durability.NONE), report, Run())
    await transfer.run(sources, side.client.remote.server.join((b"both",)))
    summary = report.sum_up()
    expected = inventory(move.source / "a") | {"d/only": inventory(move.source / "b")["d/only"]}
    found = inventory(move.target / "both")
    assert found.keys() == expected.keys()
    assert found["d/deep"] == expected["d/deep"]
    assert summary.failed == 43  # every file and link of the second that has a name of the first
    assert (summary.files, found["d/only"]) == (43, expected["d/only"])


async def test_cancelled_in_the_middle_it_leaves_nothing_and_goes_on_from_there(move: Tree) -> None:
    (move.source / "file").mkdir()
    for directory in range(30):
        (move.source / f"file/{directory}").mkdir()
        for number in range(100):
            (move.source / f"file/{directory}/{number}").write_bytes(b"%d" % number)
    before = descriptors()

    def stop(event: object) -> None:
        if isinstance(event, FilesDone):
            scope.cancel()

    move.side.on_event = stop
    with trio.CancelScope() as scope:
        await move()
    assert scope.cancelled_caught
    await move.side.quiet()
    assert not [name for name in state_of(move.target) if name.endswith(".tmp")]
    kept = f" {move.target}"  # where unfinished files go, once it was needed
    assert {name for name in descriptors() - before if not name.endswith(kept)} == set()
    move.side.on_event = lambda event: None
    summary = await move()
    assert summary.files + summary.skipped == 3000
    assert inventory(move.target / "file") == inventory(move.source / "file")


@pytest.mark.parametrize("direction", ["up", "down", "asked for"])
@pytest.mark.parametrize("count", [20, 1500])
async def test_what_arrives_damaged_is_asked_for_again(served: Path, there: Path, direction: str, count: int) -> None:
    """And its directory is finished again, by whatever group of it has done so before."""
    hurt, place = (3, 700) if count < 1000 else (1, 5000)

    def damage(index: int, size: int) -> int | None:
        nonlocal hurt
        if hurt and size > place + 300:
            hurt -= 1
            return place
        return None

    async with facing("memory", served, there, pair=damaging_pair(damage)) as side:
        move = Tree(side, direction)
        (move.source / "file/d").mkdir(parents=True)
        for number in range(count):
            (move.source / f"file/d/{number}").write_bytes(content(500, number))
        os.utime(move.source / "file/d", ns=(1, 7))
        summary = await move()
        assert (summary.files, summary.failed) == (count, 0)
        assert summary.retries >= 1
        assert inventory(move.target / "file") == inventory(move.source / "file")


@pytest.mark.parametrize("lacking", ["", FINISH_FEATURE], ids=["a server", "an earlier server"])
async def test_directories_are_finished_by_what_fills_them(
    side: Side, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """But on servers that know what that means only."""
    source = make(side.there / "from")
    (source / "leaf").mkdir()
    (source / "leaf/file").write_bytes(b"1")
    forget_feature(side, lacking)
    came: list[Group] = []
    real = tree_handlers._accept

    def accept(pack: Pack) -> Pack:
        came.extend(pack.groups)
        return real(pack)

    monkeypatch.setattr(tree_handlers, "_accept", accept)
    assert (await side.client.upload(source, "", observer=side.observe)).failed == 0
    assert inventory(side.served / "from") == inventory(source)
    by_themselves = {group.directory for group in came if group.itself and group.act is Act.ADJUST}
    with_files = {group.directory for group in came if group.finish is not None}
    every = {(), (b"d",), (b"d", b"deep"), (b"d", b"deep", b"er"), (b"empty",), (b"leaf",)}
    assert by_themselves | with_files == every
    assert with_files == (set() if lacking else {(b"leaf",)})


async def test_a_directory_that_cannot_be_finished_is_named(move: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(move.source / "file")
    (source / "leaf").mkdir()
    (source / "leaf/file").write_bytes(b"1")
    real = Syscalls.fchmod

    def refuse(self: Syscalls, fd: int, mode: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real(self, fd, mode)

    monkeypatch.setattr(Syscalls, "fchmod", refuse)
    summary = await move()
    assert {event.path for event in move.side.of(FileFailed)} == {
        ".", "d", "d/deep", "d/deep/er", "empty", "leaf",
    }  # fmt: skip
    assert (summary.failed, summary.files) == (6, 43)


@pytest.mark.parametrize(("index", "known"), [(1, True), (2, False)])
@pytest.mark.parametrize("code", [ErrorCode.PERMISSION, ErrorCode.INTEGRITY])
async def test_a_server_fails_at_what_was_sent_only(
    side: Side, monkeypatch: pytest.MonkeyPatch, index: int, known: bool, code: ErrorCode
) -> None:
    """The directory comes behind the files of a group that finishes it, and nothing behind the directory."""
    (side.there / "d/leaf").mkdir(parents=True)
    (side.there / "d/leaf/only").write_bytes(b"1")

    async def lie(context: Any, stream: Any, request: Any) -> None:
        stream.expect(None)
        pack: Pack = await stream.receive()
        (place,) = [place for place, group in enumerate(pack.groups) if group.finish is not None]
        data: Any = await stream.receive()
        stream.consumed(data)
        await stream.send(Packed(pack.number, (Failed(place, index, Fault(code, "no"), False),), False))
        while isinstance(pack := await stream.receive(), Pack):
            await stream.send(Packed(pack.number, (), False))
        stream.end()

    monkeypatch.setitem(handlers.HANDLERS, Store, lie)
    if known:
        await side.client.upload(side.there / "d", "", observer=side.observe)
        assert [event.path for event in side.of(FileFailed)] == ["leaf"]
    else:
        with pytest.raises(ProtocolError, match="failed at what was never sent"):
            await side.client.upload(side.there / "d", "", observer=side.observe)


async def test_a_peer_without_packs_is_a_clear_error(move: Tree) -> None:
    make(move.source / "file")
    connection = move.side.client.connection
    connection.peer_hello = msgspec.structs.replace(connection.peer_hello, features=())
    with pytest.raises(Unsupported, match="both sides need this release"):
        await move()


async def test_the_first_error_of_several_tasks_comes_out_as_it_is() -> None:
    async def fail(error: FsmuxError) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(ProtocolError, match="first"):
        await all_of(partial(fail, ProtocolError("first")), trio.sleep_forever)


# ---- a hostile client -----------------------------------------------------------------------------------------------


@pytest.fixture
async def side(served: Path, there: Path) -> Any:
    async with facing("memory", served, there) as side:
        yield side


def files(*names: bytes, data: bytes = b"x", directory: tuple[bytes, ...] = ()) -> Group:
    count = len(names)
    group = Group(directory, list(names), [len(data)] * count, [0] * count, [REGULAR | 0o644] * count)
    group.crcs = [crc32(data)] * count
    return group


async def test_packs_by_hand(side: Side) -> None:
    async with side.client.connection.open_stream(Store((b"in",), Durability.NONE)) as stream:
        await stream.send(Pack(9, (itself((), 0, DIRECTORY | 0o755, Act.MAKE), files(b"a", b"b"))))
        await stream.send_data(b"xx")
        assert await stream.expect_message(Packed) == Packed(9)
        stream.end()
        assert await stream.receive() is None
    assert {path.name for path in (side.served / "in").iterdir()} == {"a", "b"}


@pytest.mark.parametrize("wrong", ["too much", "too little", "another message", "a message in it"])
async def test_a_pack_that_does_not_add_up_ends_its_stream(side: Side, wrong: str) -> None:
    async def send() -> None:
        async with side.client.connection.open_stream(Store((), Durability.NONE)) as stream:
            if wrong == "another message":
                await stream.send(Walk(()))
            else:
                await stream.send(Pack(1, (files(b"a", data=b"four"),)))
                if wrong == "too much":
                    await stream.send_data(b"more than four")
                elif wrong == "too little":
                    await stream.send_data(b"f")
                    stream.end()
                else:
                    await stream.send(Pack(2, ()))
            await stream.receive()

    with pytest.raises((ProtocolError, StreamReset)):
        await send()
    assert not (side.served / "a").exists()


async def test_a_bad_name_in_a_pack_is_refused_alone(side: Side) -> None:
    async with side.client.connection.open_stream(Store((), Durability.NONE)) as stream:
        await stream.send(Pack(1, (files(b".fsmux", b"a"), files(b"b"), files(b"c", directory=(b".FSMUX",)))))
        await stream.send_data(b"xxxx")
        packed = await stream.expect_message(Packed)
        assert {(one.group, one.entry) for one in packed.failed} == {(0, 0), (0, 1), (2, 0)}
        stream.end()
    assert (side.served / "b").read_bytes() == b"x"


async def test_a_read_only_server_takes_no_packs(served: Path, there: Path) -> None:
    make(there / "tree")
    async with facing("memory", served, there, write=False) as side:
        with pytest.raises(FsmuxError, match="read-only"):
            await side.client.upload(there / "tree", "tree", observer=side.observe)
    assert not list(served.iterdir())


async def test_looking_and_walking_by_hand(side: Side) -> None:
    make(side.served / "t")
    connection = side.client.connection
    async with connection.open_stream(Look((b"t",), ((b"d", b"deep"),))) as stream:
        stream.expect(None)
        (group,) = (await stream.expect_message(Listed)).groups
        assert (group.directory, group.names) == ((b"d", b"deep"), [b"er"])
        await stream.send(Look((), ((b"none",), ())))
        groups = [one for one in (await stream.expect_message(Listed)).groups]
        assert [(one.directory, one.error is not None) for one in groups] == [((b"none",), True), ((), False)]
        stream.end()
        assert await stream.receive() is None
    async with connection.open_stream(Walk((b"t",)), end=True) as stream:
        stream.expect(None)
        directories: list[Any] = []
        while isinstance(listed := await stream.expect_message(Listed, Ok), Listed):
            directories += [one.directory for one in listed.groups]
    assert directories == [(), (b"d",), (b"d", b"deep"), (b"d", b"deep", b"er"), (b"empty",)]


async def test_what_cannot_be_packed_is_named_in_the_index(side: Side) -> None:
    (side.served / "a").write_bytes(b"x")
    async with side.client.connection.open_stream(Fetch(())) as stream:
        stream.expect(None)
        wanted = files(b"a", b"none")
        wanted.crcs = []
        await stream.send(Ask(4, (wanted,)))
        pack: Pack = await stream.expect_message(Pack)
        assert (pack.number, pack.size, [index for index, _ in pack.groups[0].lost]) == (4, 1, [1])
        data = await stream.receive()
        assert bytes(data) == b"x"  # type: ignore[arg-type]
        stream.consumed(data)  # type: ignore[arg-type]
        stream.end()


# ---- a hostile server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plant",
    [
        lambda pack: Pack(pack.number, (*pack.groups, files(b"evil"))),
        lambda pack: Pack(pack.number + 7, pack.groups),
        lambda pack: Pack(pack.number, tuple(renamed(group) for group in pack.groups)),
        lambda pack: Pack(pack.number, pack.groups[:-1]),
    ],
    ids=["more", "number", "names", "less"],
)
async def test_a_client_writes_only_what_it_asked_for(side: Side, monkeypatch: pytest.MonkeyPatch, plant: Any) -> None:
    forget_feature(side, UNASKED_FEATURE)
    make(side.served / "file")
    real = tree_handlers.send_pack

    class Lying:
        def __init__(self, stream: Any) -> None:
            self._stream = stream
            self.send_data = stream.send_data
            self.sent_bytes = 0

        async def send(self, message: Any) -> None:
            await self._stream.send(plant(message))

    async def lie(sender: Any, *args: Any) -> None:
        sender.stream = Lying(sender.stream)
        await real(sender, *args)

    monkeypatch.setattr(tree_handlers, "send_pack", lie)
    with pytest.raises(ProtocolError):
        await side.client.download("file", side.there, observer=side.observe)
    assert not list(side.there.rglob("evil*"))


def renamed(group: Group) -> Group:
    group.as_asked = False
    group.names = [name + b"evil" for name in group.names]
    return group


@pytest.mark.parametrize(
    "brief",
    [
        Group((), crcs=[1], as_asked=True),
        Group((), crcs=[1, 2, 3], as_asked=True),
        Group((), crcs=[1, 2], holed=[1], as_asked=True),
    ],
    ids=["fewer", "more", "holes in a link"],
)
async def test_a_pack_that_is_not_as_it_was_asked_for(
    side: Side, monkeypatch: pytest.MonkeyPatch, brief: Group
) -> None:
    forget_feature(side, UNASKED_FEATURE)
    (side.served / "file").mkdir()
    (side.served / "file/a").write_bytes(b"x")
    (side.served / "file/l").symlink_to("a")

    async def lie(sender: Any, disk: Any, root: Any, base: Any, number: int, groups: Any, read: Any) -> None:
        await sender.stream.send(Pack(number, (brief,)))
        await sender.stream.send_data(b"x")

    monkeypatch.setattr(tree_handlers, "send_pack", lie)
    with pytest.raises(ProtocolError):
        await side.client.download("file", side.there, observer=side.observe)
    assert not (side.there / "file/a").exists()


@pytest.mark.parametrize("features", [(), (BRIEF_FEATURE,)], ids=["an earlier client", "a client"])
async def test_what_is_as_it_was_asked_for_is_not_said_again(
    side: Side, monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...]
) -> None:
    """But to clients that know what that means only; what has changed since is said."""
    names = [b"%03d" % number for number in range(100)]
    wanted = []
    for directory in (b"same", b"other"):
        (side.served / os.fsdecode(directory)).mkdir()
        for name in names:
            (side.served / os.fsdecode(directory) / os.fsdecode(name)).write_bytes(name)
        facts = [(side.served / os.fsdecode(directory) / os.fsdecode(name)).stat() for name in names]
        times, modes = [one.st_mtime_ns for one in facts], [one.st_mode for one in facts]
        wanted.append(Group((directory,), names, [3] * 100, times, modes))
    (side.served / "other/050").write_bytes(b"more")
    (side.served / "same/007").unlink()
    connection = side.client.connection
    real = tree_handlers.fetch

    async def fetch(context: Any, stream: Any, request: Any) -> None:
        monkeypatch.setattr(type(stream), "peer_features", frozenset(features))
        await real(context, stream, request)

    monkeypatch.setitem(handlers.HANDLERS, Fetch, fetch)
    async with connection.open_stream(Fetch(())) as stream:
        stream.expect(None)
        await stream.send(Ask(1, tuple(wanted)))
        pack: Pack = await stream.expect_message(Pack)
        same, other = pack.groups
        assert (same.as_asked, other.as_asked) == (bool(features), False)
        assert same.names == ([] if features else names)
        assert (same.crcs[8], [index for index, _ in same.lost]) == (crc32(b"008"), [7])
        assert (other.sizes[50], other.crcs[50]) == (4, crc32(b"more"))
        same = completed(same, wanted[0])
        size = Pack(1, (same, other)).size
        assert size == 99 * 3 + 99 * 3 + 4
        while size:
            data: Any = await stream.receive()
            size -= data.length
            stream.consumed(data)
        stream.end()


async def test_a_server_takes_no_pack_that_refers_to_what_nobody_asked_for(side: Side) -> None:
    async with side.client.connection.open_stream(Store((), Durability.NONE)) as stream:
        await stream.send(Pack(1, (Group((), crcs=[crc32(b"x")], as_asked=True),)))
        await stream.send_data(b"x")
        with pytest.raises(FsmuxError, match="refers to what nobody asked for"):
            await stream.receive()


async def test_a_directory_that_was_never_listed_is_not_entered(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_feature(side, UNASKED_FEATURE)
    make(side.served / "file")

    async def lie(context: Any, stream: Any, request: Any) -> None:
        groups = [files(b"a"), files(b"b", directory=(b"never",))]
        for group in groups:
            group.crcs = []
        await stream.send(Listed(tuple(groups)))
        await stream.send(Ok(), end=True)

    monkeypatch.setitem(handlers.HANDLERS, Walk, lie)
    await side.client.download("file", side.there, observer=side.observe)
    assert not (side.there / "file/never").exists()


def test_the_limits_leave_room_for_what_grows() -> None:
    assert limits.PACK_BYTES + limits.MEDIUM_FILE < limits.MAX_PACK_BYTES
    assert limits.PACK_BYTES < limits.INITIAL_WINDOW


@pytest.mark.parametrize("at_once", [TREES_AT_ONCE, 100], ids=["by the client", "by the server"])
async def test_more_trees_at_once_than_there_is_credit_for(served: Path, there: Path, at_once: int) -> None:
    """Each keeps some while it waits for its large file: all ended waiting, with nothing left for any of these."""
    source = there / "source"
    source.mkdir()
    for number in range(60):
        (source / f"{number}").write_bytes(content(5000, number))
    (source / "large").write_bytes(content(MEDIUM_FILE + 5, 99))
    async with facing("tcp", served, there) as side:
        side.client.trees = trio.CapacityLimiter(at_once)
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(side.client.upload, f"{source}/", f"copy{number}")
    for number in range(60):
        assert inventory(served / f"copy{number}") == inventory(source)


@pytest.mark.parametrize(
    ("far", "options", "at_once"),
    [
        (True, {}, TREES_AT_ONCE),
        (False, {}, NEAR_AT_ONCE),
        (True, {"streams": 1}, 1),
        (True, {"delete": True}, 1),
    ],
    ids=["far", "near", "one stream", "delete"],
)
async def test_several_trees_are_on_their_way_at_once(
    side: Side, far: bool, options: dict[str, Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not where one has to wait for another; what the plan comes to is said once, and is right."""
    names = [f"s{number}" for number in range(2 * TREES_AT_ONCE)]
    size = 0
    for name in names:
        (side.there / name).mkdir()
        for number in range(5):
            (side.there / name / f"{number}").write_bytes(content(3000, number))
            size += 3000
    most = 0

    def look(event: object) -> None:
        nonlocal most
        most = max(most, side.client.trees.borrowed_tokens)

    side.on_event = look
    monkeypatch.setattr(type(side.client.connection.transport), "far", far)
    moving = Transfer(side.client, Options(**options), Report(side.observe), Run())
    await moving.run([Local(f"{side.there}/{name}") for name in names], side.client.remote.join((b"copy",)))
    assert most == at_once
    assert inventory(side.served / "copy") == inventory(side.there)
    (plan,) = side.of(Planned)
    assert (plan.files, plan.bytes) == (5 * len(names), size)
