"""Files with several names between a client and a server: what is linked, what is sent instead, what is refused."""

from __future__ import annotations

import errno
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fsmux.columns import REGULAR, Act, Group
from fsmux.errors import ErrorCode
from fsmux.events import FileDone, FileFailed, FilesDone, FilesLinked, Scanning
from fsmux.limits import MEDIUM_FILE
from fsmux.moving.sharing import Sharing
from fsmux.plan.plan import Plan
from fsmux.plan.sharing import Further, SharedFile
from fsmux.records import Durability
from fsmux.wire.frames import LINKS_FEATURE
from fsmux.wire.messages import Listed, Pack, Packed, Store, Walk

from .kit import Side, content, facing
from .test_trees import Tree, inventory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .kit import Move

LARGE = MEDIUM_FILE + 5


@pytest.fixture
def move(move: Move) -> Tree:
    return Tree(move.side, move.direction)


def make(root: Path, size: int) -> Path:
    """One file with four names."""
    (root / "d").mkdir(parents=True)
    (root / "z").mkdir()
    (root / "d/1").write_bytes(content(size, 1))
    for name in ("d/2", "z/3", "z/4"):
        os.link(root / "d/1", root / name)
    os.utime(root / "z", ns=(1, 5))
    return root


def one_file(*names: Path) -> bool:
    return len({name.stat().st_ino for name in names}) == 1


def linked(side: Side) -> set[str]:
    return {one.path for event in side.of(FilesLinked) for one in event.each()}


@pytest.mark.parametrize("size", [9, LARGE])
@pytest.mark.parametrize("durability", list(Durability))
async def test_contents_travel_once(move: Tree, size: int, durability: Durability) -> None:
    source = make(move.source / "file", size)
    summary = await move(durability=durability)
    assert (summary.files, summary.bytes_sent, summary.failed) == (4, size, 0)
    assert linked(move.side) == {"d/2", "z/3", "z/4"}
    target = move.target / "file"
    assert inventory(target) == inventory(source)
    assert one_file(*(target / name for name in ("d/1", "d/2", "z/3", "z/4")))


@pytest.mark.parametrize("size", [9, LARGE])
async def test_where_the_first_one_cannot_stand_the_next_one_is_sent(move: Tree, size: int) -> None:
    source, target = make(move.source / "file", size), move.target / "file"

    def plant(event: object) -> None:
        if isinstance(event, Scanning):
            (target / "d/1").mkdir(parents=True, exist_ok=True)

    move.side.on_event = plant  # after the plan, before anything is moved
    summary = await move()
    assert {event.path for event in move.side.of(FileFailed)} == {"d/1"}
    assert (summary.files, summary.failed) == (3, 1)
    found = inventory(target)
    assert {name: found[name] for name in ("d/2", "z/3", "z", "z/4")} == {
        name: inventory(source)[name] for name in ("d/2", "z/3", "z", "z/4")
    }
    assert one_file(target / "d/2", target / "z/3", target / "z/4")


@pytest.mark.parametrize("size", [9, LARGE])
async def test_what_cannot_be_linked_is_sent(move: Tree, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    monkeypatch.setattr("fsmux.files.sharing.Linker.link", refuse)
    source = make(move.source / "file", size)
    summary = await move()
    assert (summary.files, summary.bytes_sent, summary.failed) == (4, 4 * size, 0)
    assert not linked(move.side)
    assert inventory(move.target / "file") == inventory(source)


async def test_a_first_one_that_was_edited_gets_its_other_names_back(move: Tree) -> None:
    source, target = make(move.source / "file", 9), move.target / "file"
    await move()
    (source / "z/4").write_bytes(b"edited in place")
    await move()
    assert inventory(target) == inventory(source)
    assert one_file(*(target / name for name in ("d/1", "d/2", "z/3", "z/4")))


async def test_a_file_that_is_apart_now_is_sent_apart(move: Tree) -> None:
    source, target = make(move.source / "file", 9), move.target / "file"
    await move()
    (source / "z/4").unlink()
    (source / "z/4").write_bytes(b"new")
    await move()
    assert (target / "z/4").read_bytes() == b"new"
    assert (target / "z/3").read_bytes() == content(9, 1)
    assert one_file(*(target / name for name in ("d/1", "d/2", "z/3")))


async def test_names_in_pages_of_a_directory_belong_together(move: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.files.listing.GROUP_ENTRIES", 7)
    source, target = move.source / "file", move.target / "file"
    source.mkdir()
    for number in range(40):
        if number < 4:
            (source / f"{number:02d}").write_bytes(b"%d" % number)
        else:
            os.link(source / f"{number % 4:02d}", source / f"{number:02d}")
    assert (await move()).files == 40
    assert len(linked(move.side)) == 36
    again = await move()
    assert (again.files, again.skipped) == (0, 40)
    for number in range(4):
        assert one_file(*(target / f"{other:02d}" for other in range(number, 40, 4)))


async def test_a_peer_that_cannot_link_gets_files(move: Tree) -> None:
    make(move.source / "file", 9)
    hello = move.side.client.connection.peer_hello
    features = tuple(one for one in hello.features if one != LINKS_FEATURE)
    move.side.client.connection.peer_hello = msgspec.structs.replace(hello, features=features)
    summary = await move()
    assert (summary.files, summary.bytes_sent) == (4, 36)
    assert not move.side.of(FileDone)
    assert sum(len(event.names) for event in move.side.of(FilesDone)) == 4


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_changes_in_between_names_of_one_file_end_as_that(move: Tree, seed: int) -> None:
    rng = random.Random(seed)
    source, target = move.source / "file", move.target / "file"
    places = [source / f"{directory}/{number}" for directory in ("a", "b", "b/c", "d") for number in range(6)]
    for directory in ("a", "b/c", "d"):
        (source / directory).mkdir(parents=True)
    for round_ in range(3):
        for place in rng.sample(places, 16):
            place.unlink(missing_ok=True)
            others = [other for other in places if other.exists()]
            if others and rng.random() < 0.7:
                os.link(rng.choice(others), place)
            else:
                place.write_bytes(rng.randbytes(rng.choice([0, 9, 9, 9, LARGE])))
        for place in rng.sample(sorted(target.rglob("*/[0-9]")), 6) if round_ else ():
            content = place.read_bytes()
            place.unlink()
            if rng.random() < 0.5:
                place.write_bytes(content)  # apart, and newer
        options: dict[str, Any] = {"checksum": True} if rng.random() < 0.3 else {}
        assert (await move(**options)).failed == 0
        found = inventory(target)
        assert {name: found[name] for name in inventory(source)} == inventory(source)
        together: dict[int, list[Path]] = {}
        for place in places:
            if place.exists():
                together.setdefault(place.stat().st_ino, []).append(target / place.relative_to(source))
        assert all(one_file(*names) for names in together.values())
        again = await move()
        assert (again.files, again.bytes_sent, again.failed) == (0, 0, 0)


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("first", ["one", "two"])
async def test_what_was_one_file_at_the_destination_and_is_two_now_is_taken_apart(
    move: Tree, checksum: bool, first: str
) -> None:
    """As soon as something is set of one of them, or the other would have it, too."""
    source, target = move.source / "file", move.target / "file"
    for where in (source, target):
        where.mkdir(parents=True)
        (where / "one").write_bytes(b"same")
    os.link(target / "one", target / "two")
    shutil.copy2(source / "one", source / "two")
    for where in (source, target):
        os.utime(where / "one", ns=(7, 7))
    os.utime(source / "two", ns=(7, 7))
    if checksum:
        os.utime(source / first, ns=(9, 9))
    else:
        (source / first).chmod(0o600)
    assert (await move(checksum=checksum)).failed == 0
    assert inventory(target) == inventory(source)
    again = await move(checksum=checksum)
    assert (again.files, again.bytes_sent) == (0, 0)


async def test_what_is_newer_at_the_destination_is_no_first_name(move: Tree) -> None:
    source, target = make(move.source / "file", 9), move.target / "file"
    (target / "d").mkdir(parents=True)
    (target / "d/1").write_bytes(b"newer")
    summary = await move(update=True)
    assert (summary.files, summary.skipped) == (3, 1)
    assert (target / "d/1").read_bytes() == b"newer"
    assert one_file(target / "d/2", target / "z/3", target / "z/4")
    assert (target / "d/2").read_bytes() == (source / "d/2").read_bytes()


async def test_what_is_extra_is_removed_beside_what_is_linked(move: Tree) -> None:
    source, target = make(move.source / "file", 9), move.target / "file"
    await move()
    (source / "d/2").unlink()
    os.link(source / "d/1", source / "d/5")
    os.utime(source / "d", ns=(1, 7))
    summary = await move(delete=True)
    assert summary.failed == 0
    assert inventory(target) == inventory(source)
    assert one_file(*(target / name for name in ("d/1", "d/5", "z/3", "z/4")))


# ---- a hostile client -----------------------------------------------------------------------------------------------


@pytest.fixture
async def side(served: Path, there: Path) -> AsyncIterator[Side]:
    async with facing("memory", served, there) as side:
        yield side


async def try_link(side: Side, name: bytes, first: bytes, base: tuple[bytes, ...] = (b"in",)) -> list[Any]:
    group = Group((), [name], [0], [0], [REGULAR | 0o644], [first], Act.LINK)
    async with side.client.connection.open_stream(Store(base, Durability.BATCH)) as stream:
        await stream.send(Pack(1, (group,)))
        packed = await stream.expect_message(Packed)
        stream.end()
        assert await stream.receive() is None
    return [(one.fault.code, one.fault.text) for one in packed.failed]


@pytest.fixture
def here(side: Side) -> Path:
    """Where links are asked for; beside it is what they must not reach."""
    base = side.served / "in"
    (base / "directory").mkdir(parents=True)
    (base / "file").write_bytes(b"file")
    (side.served.parent / "outside").write_bytes(b"secret")
    (base / "way out").symlink_to(side.served.parent)
    (base / "symlink").symlink_to("file")
    (base / "broken").symlink_to("nowhere")
    os.mkfifo(base / "pipe")
    (base / ".fsmux").mkdir()
    (base / ".fsmux/part").write_bytes(b"part")
    return base


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"way out/outside", None),
        (b"../../outside", ErrorCode.BAD_NAME),
        (b"/etc/passwd", ErrorCode.BAD_NAME),
        (b".", ErrorCode.BAD_NAME),
        (b"directory", ErrorCode.NOT_REGULAR),
        (b"symlink", ErrorCode.NOT_REGULAR),
        (b"broken", ErrorCode.NOT_REGULAR),
        (b"pipe", ErrorCode.NOT_REGULAR),
        (b".fsmux/part", ErrorCode.BAD_NAME),
        (b"nothing", ErrorCode.NOT_FOUND),
        (b"file/below", ErrorCode.NOT_A_DIRECTORY),
        (b"x" * 300, ErrorCode.BAD_NAME),
    ],
)
async def test_a_link_to_what_must_not_be_linked_fails_alone(
    side: Side, here: Path, first: bytes, code: ErrorCode | None
) -> None:
    before = sorted(path.name for path in here.rglob("*"))
    ((found, text),) = await try_link(side, b"new", first)
    assert text
    assert code is None or found == code
    assert sorted(path.name for path in here.rglob("*")) == before
    assert (side.served.parent / "outside").stat().st_nlink == 1
    assert (here / ".fsmux/part").stat().st_nlink == 1


@pytest.mark.parametrize("name", [b".fsmux", b".FSMUX", b"directory"])
async def test_a_link_takes_no_name_that_it_must_not_have(side: Side, here: Path, name: bytes) -> None:
    assert await try_link(side, name, b"file")
    assert (here / "file").stat().st_nlink == 1
    assert (here / "directory").is_dir()


async def test_a_link_to_itself_changes_nothing(side: Side, here: Path) -> None:
    inode = (here / "file").stat().st_ino
    assert not await try_link(side, b"file", b"file")
    facts = (here / "file").stat()
    assert (facts.st_ino, facts.st_nlink, (here / "file").read_bytes()) == (inode, 1, b"file")


async def test_a_link_takes_the_place_of_a_symbolic_link_and_follows_none(side: Side, here: Path) -> None:
    assert not await try_link(side, b"way out", b"file")
    assert one_file(here / "way out", here / "file")
    assert not (here / "way out").is_symlink()


async def test_inode_numbers_are_not_told(side: Side) -> None:
    make(side.served / "t", 9)
    (side.served / "t/z/other").write_bytes(b"x")
    os.link(side.served / "t/z/other", side.served / "t/z/other 2")
    async with side.client.connection.open_stream(Walk((b"t",)), end=True) as stream:
        stream.expect(None)
        listed = await stream.expect_message(Listed)
        stream.reset(ErrorCode.CANCELLED)
    keys = [key for group in listed.groups for key in group.shared.values()]
    assert len(keys) == 6
    assert len(set(keys)) == 2
    inode = (side.served / "t/d/1").stat().st_ino
    assert not any(inode.to_bytes(8, order) in key for key in keys for order in ("little", "big"))


@pytest.mark.parametrize("size", [9, LARGE])
async def test_a_new_name_before_an_old_one_is_linked_to_it(move: Tree, size: int) -> None:
    source = move.source / "file"
    source.mkdir()
    (source / "m").write_bytes(content(size, 1))
    os.link(source / "m", source / "z")
    await move()
    os.link(source / "m", source / "a")
    (source / "z").unlink()
    os.link(source / "m", source / "n")
    summary = await move()
    assert (summary.bytes_sent, summary.files, summary.failed) == (0, 2, 0)
    assert linked(move.side) >= {"a", "n"}
    target = move.target / "file"
    assert one_file(*(target / name for name in "amnz"))


async def test_what_waits_to_be_linked_waits_for_the_name_that_is_sent_instead() -> None:
    """A link was refused, and its name is sent: another one that was ready must not get what stood there before."""
    put: list[tuple[str, list[bytes], list[bytes]]] = []
    full = trio.Event()

    class Carrier:
        async def put(self, group: Group, *, told: bool = True) -> None:
            put.append((group.act.name, group.names, group.targets))
            if len(put) == 1:
                await full.wait()

        async def flush(self) -> None:
            pass

    async def nothing() -> None:
        pass

    async def send(parts: object, large: object) -> bool:
        raise AssertionError("all is small")

    def further(name: bytes) -> Further:
        return Further(name, b"key", 3, 1, REGULAR | 0o644, True)

    sharing = Sharing(Carrier(), send, MEDIUM_FILE)  # type: ignore[arg-type]
    sharing.shared[b"key"] = SharedFile((b"first",), None)
    first = Group((), [b"first"], [3], [1], [REGULAR | 0o644])
    sharing.expect((), Plan(first, 1, first={b"first": b"key"}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sharing.run)
        sharing.follow((), further(b"one"), nothing)
        sharing.told(first, ())
        await wait_all_tasks_blocked()
        sharing.follow((), further(b"two"), nothing)
        sharing.told(Group((), [b"one"], [0], [1], [REGULAR], [b"first"], Act.LINK), {0})
        full.set()
        await wait_all_tasks_blocked()
        assert put == [("LINK", [b"one"], [b"first"]), ("MAKE", [b"one"], [])]
        sharing.told(Group((), [b"one"], [3], [1], [REGULAR | 0o644]), ())
        await wait_all_tasks_blocked()
        assert put[2:] == [("LINK", [b"two"], [b"one"])]
        nursery.cancel_scope.cancel()
