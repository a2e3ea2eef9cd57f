"""``--delete``: what stands at the destination alone goes, when all else has succeeded, and nothing else does."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from fsmux import handlers
from fsmux.columns import DIRECTORY, REGULAR, SYMLINK, Act, Group
from fsmux.errors import FsmuxError, ProtocolError, Unsupported, UsageError, from_os_error
from fsmux.events import Changed, FileFailed, NamesChanged, Warned, WouldDo
from fsmux.files import listing, packing
from fsmux.files.contents import Contents
from fsmux.files.root import Root
from fsmux.files.unpacking import Unpacker
from fsmux.job import Options
from fsmux.limits import MEDIUM_FILE
from fsmux.moving.report import Report
from fsmux.moving.transfer import Transfer
from fsmux.plan.filters import Filters, Rule
from fsmux.records import Durability
from fsmux.transfer.session import Run
from fsmux.urls import Local
from fsmux.wire.messages import Ask, Pack, Store
from fsmux.wire.messages import types as t

from .kit import Move, Side, content
from .test_trees import inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsmux.events import Summary
    from fsmux.records import Parts


class Mirror(Move):
    """Transfers with ``--delete``."""

    async def __call__(self, *names: str, **options: Any) -> Summary:
        """Sources by their names, with a slash for what is in them, into the destination."""
        side = self.side
        side.events.clear()
        self.report = Report(side.observe)
        options.setdefault("delete", True)
        transfer = Transfer(side.client, Options(**options), self.report, Run())
        up = self.direction == "up"
        sources: list[Any] = []
        for name in names:
            place = side.client._place(name) if not up else Local(str(self.source / name.rstrip("/")), name[-1] == "/")
            sources.append(place)
        await transfer.run(sources, side.client._place("") if up else Local(str(self.target), True))
        return self.report.sum_up()

    @property
    def removed(self) -> list[str]:
        """What was told to be removed."""
        return [path for action, path in self.changed if action == "remove"]

    @property
    def changed(self) -> list[tuple[str, str]]:
        found = []
        for event in self.side.events:
            if isinstance(event, NamesChanged):
                found += [(one.action, one.path) for one in event.each()]
            elif isinstance(event, Changed):
                found.append((event.action, event.path))
        return sorted(found)

    @property
    def would(self) -> list[tuple[str, str]]:
        return sorted((event.action, event.path) for event in self.side.of(WouldDo))


@pytest.fixture
def mirror(move: Move) -> Mirror:
    return Mirror(move.side, move.direction)


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
            os.utime(path, ns=(1, 1_000_000_000))
    return root


def filters(*rules: str) -> Filters:
    return Filters([Rule(rule[0] == "+", rule[2:]) for rule in rules])


async def test_what_stands_there_alone_goes_and_the_rest_is_as_the_source(mirror: Mirror) -> None:
    fill(mirror.source / "s", "a", "d/b", "d/e/c", "empty/", "gone-inside/")
    target = fill(mirror.target, "x", "d/y", "d/e/z/deep/file", "d/e/z/other", "gone-inside/q", "gone-inside/r/")
    (target / "link").symlink_to("d")
    (target / "to-nothing").symlink_to("/nowhere")
    os.mkfifo(target / "d/fifo")
    (mirror.source / "s/d").touch()
    summary = await mirror("s/")
    assert inventory(target) == inventory(mirror.source / "s")
    expected = ["d/e/z", "d/fifo", "d/y", "gone-inside/q", "gone-inside/r", "link", "to-nothing", "x"]
    assert mirror.removed == expected
    assert (summary.deleted, summary.failed) == (8, 0)
    again = await mirror("s/")
    assert (again.deleted, again.files, mirror.changed) == (0, 0, [])


async def test_nothing_above_or_beside_what_is_transferred_is_touched(mirror: Mirror) -> None:
    fill(mirror.source / "s", "a")
    fill(mirror.target, "beside", "s/x")
    assert (await mirror("s")).deleted == 1
    assert sorted(inventory(mirror.target)) == ["beside", "s", "s/a"]


@pytest.mark.parametrize("rules", [(), ("- keep*",)])
async def test_a_dry_run_tells_what_a_real_one_does(mirror: Mirror, rules: tuple[str, ...]) -> None:
    fill(mirror.source / "s", "a", "d/b", "d/same", "new/one", "is-directory/f")
    target = fill(mirror.target, "x", "d/y/z", "d/y/keep-it", "d/same", "is-directory", "a/dir/f")
    (mirror.source / "s/d/same").chmod(0o600)
    (mirror.source / "s/link").symlink_to("a")
    before = inventory(target)
    dry = await mirror("s/", dry_run=True, filters=filters(*rules))
    would = [one for one in mirror.would if one[0] != "send"]
    assert inventory(target) == before
    real = await mirror("s/", filters=filters(*rules))
    assert mirror.changed == would
    assert dry.deleted == real.deleted > 3
    assert dry.files == real.files == 4


async def test_the_order_is_everything_else_first(mirror: Mirror) -> None:
    fill(mirror.source / "s", *(f"d{number}/f" for number in range(50)))
    fill(mirror.target, *(f"d{number}/x" for number in range(50)))
    (mirror.source / "s/large").write_bytes(content(MEDIUM_FILE + 1))
    await mirror("s/")
    kinds = [type(event).__name__ for event in mirror.side.events]
    actions = [getattr(event, "action", "") for event in mirror.side.events]
    last_done = max(index for index, kind in enumerate(kinds) if kind in ("FilesDone", "FileDone"))
    assert actions.index("remove") > last_done


async def test_nothing_goes_if_anything_failed_and_one_line_says_so(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mirror.source / "s", "a", "bad")
    target = fill(mirror.target, "x")
    read = packing._read_group

    def lose(root: Root, base: Parts, group: Group, contents: packing._Contents) -> None:
        read(root, base, group, contents)
        if b"bad" in group.names:
            index = group.names.index(b"bad")
            group.lost = [(index, FsmuxError("bad: unreadable"))]
            contents.filled -= group.sizes[index]  # it is the last one

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_read_group", lose)
        summary = await mirror("s/")
    assert (summary.failed, summary.deleted, mirror.removed) == (1, 0, [])
    assert sorted(inventory(target)) == ["a", "x"]
    (warned,) = mirror.side.of(Warned)
    assert warned.message == "nothing was removed at the destination, because 1 of the above failed"
    assert (await mirror("s/")).deleted == 1


async def test_what_is_skipped_is_no_failure_and_no_extra(mirror: Mirror) -> None:
    fill(mirror.source / "s", "a")
    os.mkfifo(mirror.source / "s/pipe")
    fill(mirror.target, "pipe", "x")
    assert (await mirror("s/")).deleted == 1
    assert sorted(inventory(mirror.target)) == ["a", "pipe"]


def lose(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk fail when the directory is listed."""
    groups = listing.groups

    def fails(root: Root, parts: Parts, *rest: Any, **options: Any) -> Iterator[Group]:
        if parts and root.stat(parts).mode == 0o711:
            raise from_os_error(OSError(errno.EIO, "unreadable"), "d")
        return groups(root, parts, *rest, **options)

    directory.chmod(0o711)
    monkeypatch.setattr(listing, "groups", fails)


async def test_a_directory_that_cannot_be_read_is_not_taken_for_an_empty_one(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mirror.source / "s", "d/a")
    target = fill(mirror.target, "d/a", "d/b", "x")
    lose(mirror.source / "s/d", monkeypatch)
    summary = await mirror("s/")
    assert (summary.failed, summary.deleted) == (1, 0)
    assert sorted(inventory(target)) == ["d", "d/a", "d/b", "x"]


async def test_a_directory_of_the_destination_that_cannot_be_read_is_told_of(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is extra in it is not known, and what is not there is sent."""
    fill(mirror.source / "s", "d/a", "e/a")
    target = fill(mirror.target, "d/b", "e/a", "x")
    lose(target / "d", monkeypatch)
    summary = await mirror("s/")
    assert (summary.failed, summary.deleted) == (1, 0)
    (failed,) = mirror.side.of(FileFailed)
    assert (failed.path, failed.code) == ("d", "IO")
    assert sorted(inventory(target)) == ["d", "d/a", "d/b", "e", "e/a", "x"]
    assert (await mirror("s/", delete=False)).failed == 0


async def test_what_the_filters_leave_out_is_protected_wherever_it_is(mirror: Mirror) -> None:
    fill(mirror.source / "s", "a", "d/b", "cache/x")
    target = fill(
        mirror.target, "a.o", "d/b.o", "d/c", "old/x", "old/deep/y.o", "old/deep/z", "old/empty/f", "all/x", "cache/q"
    )
    summary = await mirror("s/", filters=filters("- *.o", "- /cache/"))
    assert mirror.removed == ["all", "d/c", "old/deep/z", "old/empty", "old/x"]
    assert summary.deleted == 5
    left = [name for name, kept in inventory(target).items() if kept[-1] is not None]
    assert left == ["a", "a.o", "cache/q", "d/b", "d/b.o", "old/deep/y.o"]


async def test_a_protected_directory_alone_keeps_those_above_it(mirror: Mirror) -> None:
    fill(mirror.source / "s", "a")
    fill(mirror.target, "old/keep/")
    assert (await mirror("s/", filters=filters("- keep"))).deleted == 0
    assert (mirror.target / "old/keep").is_dir()


async def test_a_page_that_the_filters_empty_hides_nothing_of_the_next(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmux.files.listing.GROUP_ENTRIES", 3)
    fill(mirror.source / "s", *(f"{letter}{number}" for letter in "abc" for number in range(9)))
    fill(mirror.target, *(f"{letter}{number}" for letter in "abcd" for number in range(9)))
    summary = await mirror("s/", filters=filters("- a*", "- b[1-8]"))
    assert (summary.files, summary.deleted) == (0, 9)
    assert mirror.removed == [f"d{number}" for number in range(9)]


async def test_a_name_stays_if_any_source_has_it(mirror: Mirror) -> None:
    fill(mirror.source, "one/a", "one/d/x", "two/b", "two/d/y", "three/c", "single", "two/pipe-dir/")
    os.mkfifo(mirror.source / "two/pipe")
    target = fill(
        mirror.target, "a", "b", "d/x", "d/y", "d/z", "q", "single", "pipe", "three/c", "three/x", "pipe-dir/f"
    )
    for options in ({"dry_run": True}, {}):
        summary = await mirror("one/", "two/", "three", "single", **options)
        told = mirror.removed or [path for action, path in mirror.would if action == "remove"]
        assert told == ["d/z", "pipe-dir/f", "q", "three/x"] or sorted(told) == ["d/z", "pipe-dir/f", "q", "x"]
        assert (summary.deleted, summary.failed) == (4, 0)
    left = {name for name, kept in inventory(target).items() if kept[-1] is not None}
    assert {"a", "b", "d/x", "d/y", "single", "three/c"} <= left
    assert (await mirror("one/", "two/", "three", "single")).deleted == 0


async def test_what_is_in_the_way_is_replaced(mirror: Mirror) -> None:
    fill(mirror.source / "s", "file", "dir/inside", "link-was-dir/f")
    (mirror.source / "s/large").write_bytes(content(MEDIUM_FILE + 1))
    (mirror.source / "s/link").symlink_to("file")
    target = fill(mirror.target, "file/deep/x", "dir", "large/x", "link/x")
    (target / "link-was-dir").symlink_to("/etc")
    without = await mirror("s/", delete=False)
    assert without.failed == 5
    summary = await mirror("s/")
    assert (summary.failed, summary.deleted) == (0, 5)
    assert inventory(target) == inventory(mirror.source / "s")
    assert os.path.exists("/etc/passwd")


async def test_what_is_in_the_way_of_a_source_itself_is_replaced(mirror: Mirror) -> None:
    fill(mirror.source, "s/a", "single")
    target = fill(mirror.target, "s", "single/x")
    summary = await mirror("s", "single")
    assert (summary.failed, summary.deleted) == (0, 2)
    assert (target / "s/a").is_file()
    assert (target / "single").is_file()


async def test_what_is_in_the_way_and_protected_stays(mirror: Mirror) -> None:
    fill(mirror.source / "s", "file")
    target = fill(mirror.target, "file/keep.o", "file/other", "x")
    summary = await mirror("s/", filters=filters("- *.o"))
    assert (summary.failed, summary.deleted) == (1, 0)
    assert (target / "file/other").exists()
    assert (target / "x").exists()


async def test_times_of_directories_are_the_sources_afterwards(mirror: Mirror) -> None:
    fill(mirror.source / "s", "d/a")
    os.utime(mirror.source / "s/d", ns=(1, 77))
    os.utime(mirror.source / "s", ns=(1, 78))
    await mirror("s/")
    fill(mirror.target, "d/x", "y")
    await mirror("s/")
    assert ((mirror.target / "d").stat().st_mtime_ns, mirror.target.stat().st_mtime_ns) == (77, 78)


async def test_single_files_have_nothing_to_remove(mirror: Mirror) -> None:
    fill(mirror.source, "a")
    fill(mirror.target, "x")
    with pytest.raises(UsageError, match="--delete needs a directory"):
        await mirror("a")
    assert sorted(inventory(mirror.target)) == ["x"]


async def test_a_server_that_cannot_is_told_from_one_that_can(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(mirror.source / "s", "a")
    monkeypatch.setattr("fsmux.moving.removing.SYNC_FEATURE", "no such thing")
    with pytest.raises(Unsupported, match="both sides need this release"):
        await mirror("s/")


async def test_what_was_removed_but_never_told_is_told_by_the_next_attempt(mirror: Mirror) -> None:
    fill(mirror.source / "s", "a")
    fill(mirror.target, "a", "x", "y")
    report = Report(mirror.side.observe)
    account = report.account(0, "s")
    account.removing([Group((), [b"x", b"y", b"z"], [0] * 3, [0] * 3, [REGULAR] * 3, act=Act.REMOVE)])
    account.changed("remove", (), [b"y"])
    account.removing([Group((), [b"z"], [0], [0], [REGULAR], act=Act.REMOVE)])
    assert (report.deleted, mirror.removed) == (2, ["x", "y"])
    account.changed("remove", (), [b"z"])
    account.removing([])
    assert report.deleted == 3


# ---- what a peer may ask for ---------------------------------------------------------------------------------------


def removal(*names: bytes, kind: int = REGULAR, directory: tuple[bytes, ...] = ()) -> Group:
    count = len(names)
    return Group(directory, list(names), [0] * count, [0] * count, [kind] * count, act=Act.REMOVE)


async def store(side: Side, *groups: Group) -> list[tuple[int, int, str]]:
    async with side.client.connection.open_stream(Store(())) as stream:
        await stream.send(Pack(1, groups))
        stream.end()
        packed = await stream.expect_message(t.Packed)
        return [(one.group, one.entry, one.fault.text) for one in packed.failed]


async def test_removing_stays_below_the_root_and_follows_no_link(side: Side, tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "f", "d/f")
    fill(side.served, "dir/f", "dir/sub/f", "plain")
    (side.served / "link").symlink_to(outside)
    (side.served / "dir/link").symlink_to(outside)
    failed = await store(
        side, removal(b"f", directory=(b"link",)), removal(b"plain", kind=DIRECTORY), removal(b"dir"),
        removal(b"link", kind=DIRECTORY), removal(b"gone", b"neither"), removal(b"x", directory=(b"no", b"where")),
    )  # fmt: skip
    assert [(group, entry) for group, entry, _ in sorted(failed)] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert sorted(inventory(outside)) == ["d", "d/f", "f"]
    assert not await store(side, removal(b"dir", kind=DIRECTORY), removal(b"link"))
    assert sorted(inventory(outside)) == ["d", "d/f", "f"]
    assert sorted(inventory(side.served)) == ["plain"]


async def test_the_reserved_directory_cannot_be_removed(side: Side) -> None:
    (side.served / ".fsmux").mkdir()
    (side.served / ".fsmux/kept").touch()
    fill(side.served, "d/.fsmux/kept", "d/f")
    failed = await store(side, removal(b".fsmux", kind=DIRECTORY), removal(b"d", kind=DIRECTORY))
    assert [entry[:2] for entry in failed] == [(0, 0), (1, 0)]
    assert (side.served / ".fsmux/kept").exists()
    assert (side.served / "d/.fsmux/kept").exists()


@pytest.mark.parametrize(
    "group",
    [
        Group((), [], [0], [0], [DIRECTORY], act=Act.REMOVE),
        Group((), [b"a"], [5], [0], [REGULAR], act=Act.REMOVE),
        Group((), [b"a"], [0], [0], [SYMLINK], act=Act.REMOVE),
    ],
)
async def test_a_removal_that_means_something_else_is_refused(side: Side, group: Group) -> None:
    with pytest.raises(FsmuxError):
        await store(side, group)


@pytest.mark.parametrize("beside", [False, True])
async def test_a_server_cannot_have_anything_removed(side: Side, monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """Nobody asks it for that, neither instead of what was asked for nor beside it."""
    mirror = Mirror(side, "down")
    fill(side.served / "s", "a", "new")
    fill(side.there, "a", "x", "precious/f")

    asked: list[Act] = []

    async def lie(context: Any, stream: Any, request: Any) -> None:
        stream.expect(None)
        while isinstance(ask := await stream.receive(), Ask):
            asked.extend(group.act for group in ask.groups)
            groups = (*ask.groups[: None if beside else -1], removal(b"precious", kind=DIRECTORY))
            await stream.send(Pack(ask.number, groups))
        stream.end()

    monkeypatch.setitem(handlers.HANDLERS, t.Fetch, lie)
    with pytest.raises(ProtocolError):
        await mirror("s/")
    assert sorted(inventory(side.there)) == ["a", "precious", "precious/f", "x"]
    assert set(asked) == {Act.MAKE}


async def test_a_long_removal_can_be_called_off(side: Side, tmp_path: Path) -> None:
    for number in range(50):
        fill(tmp_path / "big", f"d/{number}/f")
    with Root.open(tmp_path / "big") as root:
        unpacker = Unpacker(root, (), Durability.NONE)
        unpacker.write(1, [removal(b"d", kind=DIRECTORY)], Contents([]))
        calls = iter(range(10))
        with pytest.raises(StopIteration):
            unpacker.commit(lambda: next(calls) and None)
        unpacker.close()
    assert 30 < len(list((tmp_path / "big/d").iterdir())) < 50


async def test_a_failed_removal_fails_alone(mirror: Mirror) -> None:
    fill(mirror.source / "s", "a")
    target = fill(mirror.target, "d/.fsmux/busy", "x")
    summary = await mirror("s/")
    assert (summary.failed, summary.deleted) == (1, 1)
    (failed,) = mirror.side.of(FileFailed)
    assert failed.path == "d"
    assert (target / "d/.fsmux/busy").exists()


async def test_a_link_that_is_the_destination_is_not_removed(side: Side) -> None:
    """It leads to a directory, so what is in the source is to go there; and nothing is written through links."""
    fill(side.there / "s", "a")
    fill(side.served / "real", "b")
    (side.served / "link").symlink_to("real")
    report = Report(side.observe)
    transfer = Transfer(side.client, Options(delete=True), report, Run())
    await transfer.run([Local(str(side.there / "s"), True)], side.client._place("link"))
    assert report.sum_up().failed == 1
    assert (side.served / "link").is_symlink()
    assert sorted(inventory(side.served / "real")) == ["b"]
