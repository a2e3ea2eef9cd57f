"""Directories that their owner has closed to himself: they are opened to go, and for what is put into them."""

from __future__ import annotations

import os
import stat
import tempfile
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fsmux.columns import DIRECTORY, REGULAR, SYMLINK, Act, Group
from fsmux.errors import AccessError, FsmuxError, NotEmpty
from fsmux.files.contents import Contents
from fsmux.files.opening import open_sink
from fsmux.files.root import Root
from fsmux.files.unpacking import Unpacker
from fsmux.records import Attrs, Durability, Identity, Kept, Kind

from .groups import files, made, stands, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534


def as_user(act: Callable[[], None]) -> None:
    """Do it in a process that is not root's, and fail if it fails there."""
    if os.geteuid() != 0:
        act()
        return
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that a user who is not root can reach and owns, with one that is closed in all its depth."""
    with tempfile.TemporaryDirectory(dir="/tmp") as found:
        top = Path(found)
        top.chmod(0o755)
        deep = top / "old/deep"
        deep.mkdir(parents=True)
        for name in ("old/a", "old/deep/b", "beside"):
            (top / name).write_bytes(b"x")
        (deep / "empty").mkdir()
        if os.geteuid() == 0:
            for path in (top, *top.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        for path in (deep / "empty", deep, top / "old"):
            path.chmod(0o555)
        try:
            yield top
        finally:
            for path in sorted(top.rglob("*")):
                if path.is_dir():
                    path.chmod(0o755)


def modes(top: Path) -> dict[str, int]:
    return {str(path.relative_to(top)): stat.S_IMODE(path.lstat().st_mode) for path in (top, *top.rglob("*"))}


def remove_by_pack(top: Path, name: bytes, directory: tuple[bytes, ...] = ()) -> FsmuxError | None:
    kind = DIRECTORY if top.joinpath(*map(os.fsdecode, directory), os.fsdecode(name)).is_dir() else REGULAR
    with Root.open(top) as root:
        unpacker = Unpacker(root, (), Durability.NONE)
        try:
            unpacker.write(1, [Group(directory, [name], [0], [0], [kind], act=Act.REMOVE)], Contents([]))
            failures = unpacker.commit()
        finally:
            unpacker.close()
        return failures[0].error if failures else None


def test_a_closed_directory_goes_with_all_that_is_in_it(place: Path) -> None:
    def act() -> None:
        with Root.open(place) as root:
            root.remove((b"old",), recursive=True)

    as_user(act)
    assert list(modes(place)) == [".", "beside"]


def test_a_closed_directory_goes_by_a_pack(place: Path) -> None:
    def act() -> None:
        assert remove_by_pack(place, b"old") is None

    as_user(act)
    assert list(modes(place)) == [".", "beside"]


@pytest.mark.parametrize("durability", [Durability.NONE, Durability.BATCH])
def test_a_closed_directory_is_open_while_something_is_put_into_it(place: Path, durability: Durability) -> None:
    def act() -> None:
        with Root.open(place) as root:
            unpacker = Unpacker(root, (), durability)
            try:
                below, again = made(b"below"), files(b"old")
                below.directory = (b"old",)
                link = Group((b"old",), [b"link"], [0], [7], [SYMLINK], [b"a"], crcs=[0])
                write(unpacker, 1, below, again, link)
                write(unpacker, 2, Group((b"old",), [b"hard"], [0], [0], [REGULAR], [b"beside"], act=Act.LINK))
                assert unpacker.commit() == []
            finally:
                unpacker.close()
            sink = open_sink(root, (b"old", b"file"), Identity(4, 7, b""), 0o640, durability=durability)
            sink.received(0, sink.write([memoryview(b"1234")], 0))
            sink.commit()
            root.symlink((b"old", b"single"), b"a")

    as_user(act)
    assert stands(place / "old")
    after = modes(place)
    assert (after["old"], after["old/below"], after["old/file"]) == (0o555, 0o755, 0o640)
    assert os.readlink(place / "old/link") == os.readlink(place / "old/single") == "a"
    assert (place / "old/hard").samefile(place / "beside")


def test_a_directory_that_several_are_at_is_closed_by_the_last(place: Path) -> None:
    def act() -> None:
        with Root.open(place) as root, closing(root.directory((b"old",))) as lease, lease as directory:
            seen: list[int] = []

            def refused(depth: int) -> None:
                root.opening(PermissionError(), directory, deeper, depth)

            def deeper(depth: int) -> None:
                if depth:
                    refused(depth - 1)
                seen.append(stat.S_IMODE(os.fstat(directory).st_mode))

            refused(2)
            assert seen == [0o755] * 3

    as_user(act)
    assert modes(place)["old"] == 0o555


def test_what_is_refused_for_another_reason_is_told_as_it_was(place: Path) -> None:
    reason = PermissionError("the reason")

    def refuse() -> None:
        raise reason

    with Root.open(place) as root, closing(root.directory(())) as lease, lease as directory:
        with pytest.raises(PermissionError) as caught:
            root.opening(reason, directory, refuse)
        assert caught.value is reason


def test_a_directory_that_does_not_go_has_its_permissions_back(place: Path) -> None:
    deep = place / "old/deep"
    deep.chmod(0o755)
    (deep / ".fsmux").mkdir()
    deep.chmod(0o555)
    if os.geteuid() == 0:
        os.chown(deep / ".fsmux", NOBODY, NOBODY)

    def act() -> None:
        with Root.open(place) as root, pytest.raises(NotEmpty):
            root.remove((b"old",), recursive=True)

    as_user(act)
    assert modes(place) == {
        ".": 0o755, "beside": 0o644, "old": 0o555, "old/deep": 0o555, "old/deep/.fsmux": 0o755,
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_stays(place: Path) -> None:
    os.chown(place / "old", 1, 1)
    before = modes(place)

    def act() -> None:
        with Root.open(place) as root, pytest.raises(AccessError):
            root.remove((b"old",), recursive=True)

    as_user(act)
    assert modes(place) == before


def test_a_closed_destination_takes_files(place: Path) -> None:
    """Its reserved directory is made and removed, too; a single file, a pack, and what is linked."""
    place.chmod(0o555)

    def act() -> None:
        with Root.open(place) as root:
            sink = open_sink(root, (b"single",), Identity(4, 7, b""), 0o640)
            sink.received(0, sink.write([memoryview(b"1234")], 0))
            sink.commit()
            unpacker = Unpacker(root, (), Durability.BATCH)
            group = files()
            group.directory = ()
            write(unpacker, 1, group)
            write(unpacker, 2, made(b"new"), files(b"new"))
            assert unpacker.commit() == []
            unpacker.close()
            root.mkdir((b"made",))
            root.symlink((b"link",), b"single")

    as_user(act)
    assert stands(place)
    assert stands(place / "new")
    assert {"single", "made", "link"} <= set(os.listdir(place))
    assert ".fsmux" not in os.listdir(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o555


def test_a_closed_directory_that_stays_is_opened_for_what_goes(place: Path) -> None:
    (place / "beside").rename(place / "away")
    place.chmod(0o555)

    def act() -> None:
        with Root.open(place) as root:
            root.remove((b"old", b"a"))
            assert remove_by_pack(place, b"empty", (b"old", b"deep")) is None
            assert remove_by_pack(place, b"b", (b"old", b"deep")) is None
            assert remove_by_pack(place, b"away") is None

    as_user(act)
    assert modes(place) == {".": 0o555, "old": 0o555, "old/deep": 0o555}


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o200])
def test_a_directory_that_cannot_be_read_goes(place: Path, mode: int) -> None:
    (place / "old/deep/empty").chmod(mode)
    (place / "old/deep").chmod(mode)
    as_user(lambda: Root.open(place).remove((b"old",), recursive=True))
    assert not (place / "old").exists()


@pytest.mark.parametrize("perms", [True, False])
def test_a_file_that_cannot_be_read_is_given_what_it_should_have(place: Path, perms: bool) -> None:
    names = [b"one", b"two"]
    for name in names:
        (place / os.fsdecode(name)).write_bytes(b"x")
        os.chown(place / os.fsdecode(name), *((NOBODY, NOBODY) if os.geteuid() == 0 else (-1, -1)))
        (place / os.fsdecode(name)).chmod(0o200)

    def act() -> None:
        with Root.open(place) as root:
            kept = Kept(perms=perms)
            unpacker = Unpacker(root, (), Durability.NONE, kept)
            group = Group((), [b"one"], [0], [5_000_000_000], [REGULAR | 0o640], act=Act.ADJUST)
            unpacker.write(1, [group], Contents([]))
            assert unpacker.commit() == []
            unpacker.close()
            root.set_attrs((b"two",), Attrs(Kind.FILE, mtime_ns=5_000_000_000, mode=0o640 if perms else 0))

    as_user(act)
    for name in names:
        facts = (place / os.fsdecode(name)).stat()
        assert (facts.st_mtime_ns, stat.S_IMODE(facts.st_mode)) == (5_000_000_000, 0o640 if perms else 0o200)


def test_what_is_not_ours_stays_closed(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    for name in ("beside", "old/deep/empty"):
        os.chown(place / name, 1, 1)
        (place / name).chmod(0o000)

    def act() -> None:
        with Root.open(place) as root:
            with pytest.raises(AccessError, match="permission denied"):
                root.set_attrs((b"beside",), Attrs(Kind.FILE, mtime_ns=5))
            with pytest.raises(AccessError, match="permission denied"):
                root.remove((b"old", b"deep", b"empty"), recursive=True)

    as_user(act)
    assert {name: modes(place)[name] for name in ("beside", "old/deep/empty", "old/deep")} == {
        "beside": 0, "old/deep/empty": 0, "old/deep": 0o555,
    }  # fmt: skip


def test_processes_that_open_the_same_directory_do_not_fail_for_each_other(place: Path) -> None:
    """Each closes it again, perhaps just when another one wants to change something in it."""
    (place / "old").chmod(0o755)
    names = [f"{number}" for number in range(600)]
    for name in names:
        (place / "old" / name).write_bytes(b"x")
    (place / "old").chmod(0o555)

    def act() -> None:
        children = []
        for part in range(3):
            child = os.fork()
            if not child:
                code = 1
                with Root.open(place) as root:
                    for name in names[part::3]:
                        root.remove((b"old", name.encode()))
                    code = 0
                os._exit(code)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]

    as_user(act)
    assert sorted(os.listdir(place / "old")) == ["a", "deep"]
    assert modes(place)["old"] == 0o555


def test_what_is_closed_on_both_sides_gets_another_name(place: Path) -> None:
    (place / "new").mkdir(mode=0o755)
    os.chown(place / "new", *((NOBODY, NOBODY) if os.geteuid() == 0 else (-1, -1)))
    (place / "new").chmod(0o555)

    def act() -> None:
        with Root.open(place) as root:
            root.rename((b"old", b"a"), (b"new", b"b"))
            root.rename((b"new", b"b"), (b"c",), replace=True)
            root.rename((b"c",), (b"new", b"d"))

    as_user(act)
    after = modes(place)
    assert (after["old"], after["new"], after["new/d"]) == (0o555, 0o555, 0o644)
    assert "old/a" not in after


def test_the_directory_of_unfinished_files_leaves_no_trace_in_the_time_of_its_own(place: Path) -> None:
    os.utime(place, ns=(5, 1_000_000_000_000_000_007))
    with Root.open(place) as root:
        unpacker = Unpacker(root, (), Durability.BATCH)
        group = files(b"old")
        write(unpacker, 1, group)
        assert (place / ".fsmux").is_dir()
        assert unpacker.commit() == []
        unpacker.close()
    assert not (place / ".fsmux").exists()
    assert place.stat().st_mtime_ns == 1_000_000_000_000_000_007
    with Root.open(place) as root:
        pin = root.pin(())
        (place / "theirs").touch()
        changed = place.stat().st_mtime_ns
        pin.release()
    assert place.stat().st_mtime_ns >= changed, "what somebody else has changed meanwhile is not hidden"
