"""Small files from the disk and to the disk, many at a time."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zlib_ng.zlib_ng import crc32

from fsmux.columns import DIRECTORY, REGULAR, SYMLINK, Act, Group, itself
from fsmux.errors import (
    AccessError,
    BadName,
    Busy,
    ExitCode,
    IntegrityError,
    NoSpace,
    NotADirectory,
    NotFound,
    NotRegular,
    SourceChanged,
    StorageError,
)
from fsmux.files import listing
from fsmux.files.contents import Contents
from fsmux.files.packing import read_pack
from fsmux.files.root import Root
from fsmux.files.syscalls import OPEN_READ, Syscalls
from fsmux.files.unpacking import Unpacker, _parts
from fsmux.limits import MEDIUM_FILE
from fsmux.mux.buffers import anonymous
from fsmux.records import Durability

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fsmux.files.terms import Failure

LEVELS = list(Durability)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def listed(path: Path, *parts: bytes) -> Group:
    with Root.open(path) as root:
        (group,) = listing.groups(root, parts)
        return group


def read(path: Path, *groups: Group) -> bytes:
    with Root.open(path) as root:
        return read_pack(root, (), groups, anonymous)


def write(
    path: Path, groups: Sequence[Group], contents: bytes, level: Durability = Durability.NONE, sys: Any = None
) -> list[Failure]:
    with Root.open(path, **({"sys": sys} if sys else {})) as root:
        unpacker = Unpacker(root, (), level)
        try:
            unpacker.write(1, groups, Contents([memoryview(contents)]))
            return unpacker.commit()
        finally:
            unpacker.close()


def move(source: Path, target: Path, level: Durability = Durability.NONE) -> None:
    """A whole directory without anything below it."""
    group = listed(source)
    assert not write(target, [group], read(source, group), level)


def facts(path: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for one in path.iterdir():
        kept = one.lstat()
        content = os.readlink(one) if one.is_symlink() else one.read_bytes() if one.is_file() else None
        mode = 0 if one.is_symlink() else stat.S_IMODE(kept.st_mode)
        found[one.name] = (stat.S_IFMT(kept.st_mode), mode, kept.st_mtime_ns if not one.is_dir() else 0, content)
    return found


# ---- both halves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_files_and_links_come_out_as_they_went_in(source: Path, target: Path, level: Durability) -> None:
    for name, content, mode in (("a", b"", 0o644), ("b", os.urandom(5000), 0o600), ("c", b"x", 0o777)):
        (source / name).write_bytes(content)
        (source / name).chmod(mode)
        os.utime(source / name, ns=(1, 1_234_567_890_123_456_789))
    (source / "link").symlink_to("nowhere")
    (source / "dir").mkdir(mode=0o755)
    move(source, target, level)
    assert facts(target) == facts(source) | {"dir": (stat.S_IFDIR, 0o755, 0, None)}
    assert not (target / ".fsmux").exists()


def test_the_mask_of_the_process_takes_nothing_off(source: Path, target: Path) -> None:
    for number, mode in enumerate((0o666, 0o777, 0o444, 0o000, 0o666)):
        (source / str(number)).write_bytes(b"x")
        (source / str(number)).chmod(mode)
    before = os.umask(0o077)
    try:
        move(source, target)
    finally:
        os.umask(before)
    assert facts(target) == facts(source)


def test_every_byte_that_a_name_may_hold(source: Path, target: Path) -> None:
    for byte in set(range(1, 256)) - {ord("/"), ord(".")}:
        path = os.fsencode(source) + b"/" + bytes([byte])
        with open(path, "wb") as file:
            file.write(bytes([byte]))
    (source / ("n" * 255)).write_bytes(b"long")
    move(source, target)
    assert facts(target) == facts(source)


def test_hundreds_stand_together_and_nothing_is_mixed_up(source: Path, target: Path) -> None:
    for number in range(300):
        (source / f"{number:04d}").write_bytes(b"%d" % number * (number % 40))
    group = listed(source)
    groups = [group.cut(0, 100), group.cut(100, 300)]
    contents = read(source, *groups)
    with Root.open(target) as root:
        unpacker = Unpacker(root, (), Durability.BATCH)
        unpacker.write(1, groups, Contents([memoryview(contents)]))
        assert not list(target.glob("0*"))  # written, and not there yet
        assert not unpacker.commit()
        unpacker.close()
    assert facts(target) == facts(source)


@given(st.lists(st.binary(max_size=20), max_size=12), st.sets(st.integers(0, 11)), st.integers(0, 12))
def test_contents_find_their_files_whatever_was_lost(contents: list[bytes], lost: set[int], cut: int) -> None:
    columns = [b"%d" % number for number in range(len(contents))], [len(one) for one in contents]
    whole = Group((), *columns, [0] * len(contents), [REGULAR] * len(contents))
    groups = [whole.cut(0, cut), whole.pick([]), whole.cut(cut, 12)]
    for group, first in ((groups[0], 0), (groups[2], cut)):
        group.lost = [
            (index - first, NotFound("gone")) for index in sorted(lost) if first <= index < first + len(group)
        ]
    sent = b"".join(one for index, one in enumerate(contents) if index not in lost)
    found = {}
    for part in _parts(groups):
        offset, gone = part.offset, {index for index, _ in part.group.lost}
        for index, name in enumerate(part.group.names):
            if index not in gone:
                found[int(name)] = sent[offset : offset + part.group.sizes[index]]
                offset += part.group.sizes[index]
    assert found == {index: one for index, one in enumerate(contents) if index not in lost}


KIB = 1024

layouts = st.tuples(
    st.lists(st.tuples(st.booleans(), st.sampled_from([1, 511, 4 * KIB, 12 * KIB, 20 * KIB])), max_size=8),
    st.integers(0, 5000),
).map(lambda found: b"".join((b"x" if data else b"\0") * length for data, length in found[0]) + bytes(found[1]))


def make_sparse(path: Path, content: bytes) -> None:
    """A file of these contents, of which no block is written that is all zeros."""
    with path.open("wb") as file:
        file.truncate(len(content))
        for start in range(0, len(content), 4 * KIB):
            if any(block := content[start : start + 4 * KIB]):
                os.pwrite(file.fileno(), block, start)
        os.fsync(file.fileno())


@given(st.lists(layouts, max_size=4), st.sampled_from([Durability.NONE, Durability.BATCH]))
@settings(max_examples=40)
def test_holes_stay_holes(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], level: Durability) -> None:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for number, content in enumerate(contents):
        make_sparse(source / str(number), content)
        (source / f"{number} in full").write_bytes(content)
    move(source, target, level)
    assert facts(target) == facts(source)
    for one in target.iterdir():
        assert one.stat().st_blocks <= (source / one.name).stat().st_blocks, one


def test_files_with_holes_are_told_apart(source: Path) -> None:
    (source / "data").write_bytes(bytes(9 * KIB))
    (source / "empty").touch()
    make_sparse(source / "few", bytes(100))
    make_sparse(source / "hole", bytes(10 * KIB))
    (source / "link").symlink_to("data")
    group = listed(source)
    read(source, group)
    assert [group.names[index] for index in group.holed] == [b"few", b"hole"]
    make_sparse(source / "data", b"x" + bytes(20 * KIB))  # another version than the one that was listed
    (source / "hole").write_bytes(b"short")
    read(source, group)
    assert [group.names[index] for index in group.holed] == [b"data", b"few"]


def test_who_says_holes_where_there_are_none_does_no_harm(target: Path) -> None:
    contents = [b"", b"x", os.urandom(10_001), bytes(5), b"\0" * 4096 + b"x"]
    group = Group((), [b"%d" % number for number in range(5)], list(map(len, contents)), [0] * 5, [REGULAR | 0o644] * 5)
    group.crcs = list(map(crc32, contents))
    group.holed = list(range(5))
    assert not write(target, [group], b"".join(contents), sys=Halves())
    assert [(target / str(number)).read_bytes() for number in range(5)] == contents


class Halves(Syscalls):
    """Writes half of what it is given."""

    def pwritev(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return super().pwrite(fd, buffers[0][: -(-len(buffers[0]) // 2)], offset)


# ---- reading --------------------------------------------------------------------------------------------------------


class Meddling(Syscalls):
    """Calls ``meddle(number)`` before each read."""

    def __init__(self, meddle: Any) -> None:
        self.reads = 0
        self._meddle = meddle

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        self.reads += 1
        self._meddle(self.reads)
        return super().preadv(fd, buffers, offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self.reads += 1
        self._meddle(self.reads)
        return super().pread(fd, length, offset)


def test_a_file_that_changed_since_it_was_listed_goes_as_it_is_now(source: Path) -> None:
    (source / "a").write_bytes(b"old")
    (source / "b").write_bytes(b"same")
    group = listed(source)
    (source / "a").write_bytes(b"something longer")
    assert read(source, group) == b"something longersame"
    assert (group.sizes, group.lost) == ([16, 4], [])
    assert group.mtimes == [(source / name).stat().st_mtime_ns for name in "ab"]


def test_a_file_that_changes_while_it_is_read_is_never_mixed(source: Path) -> None:
    (source / "a").write_bytes(b"1" * 10)
    group = listed(source)

    def meddle(number: int) -> None:
        if number == 1:
            (source / "a").write_bytes(b"2" * 12)

    with Root.open(source, sys=Meddling(meddle)) as root:
        assert read_pack(root, (), [group], anonymous) == b"2" * 12

    def always(number: int) -> None:
        (source / "a").write_bytes(b"x" * number)
        os.utime(source / "a", ns=(number, number))

    group = listed(source)
    with Root.open(source, sys=Meddling(always)) as root:
        assert read_pack(root, (), [group], anonymous) == b""
    ((index, error),) = group.lost
    assert index == 0
    assert isinstance(error, SourceChanged)


def test_what_cannot_be_read_is_lost_alone(source: Path) -> None:
    for name in "abcde":
        (source / name).write_bytes(name.encode())
    group = listed(source)
    (source / "a").unlink()
    (source / "b").unlink()
    (source / "b").symlink_to("c")
    (source / "d").unlink()
    os.mkfifo(source / "d")
    (source / "e").write_bytes(bytes(MEDIUM_FILE + 1))
    assert read(source, group) == b"c"
    assert [(index, type(error)) for index, error in group.lost] == [
        (0, NotFound), (1, BadName), (3, NotRegular), (4, SourceChanged),
    ]  # fmt: skip


def test_a_directory_that_is_gone_loses_all_that_was_in_it(source: Path) -> None:
    (source / "d").mkdir()
    (source / "d/a").write_bytes(b"a")
    (source / "z").write_bytes(b"z")
    below, top = listed(source, b"d"), listed(source)
    (source / "d/a").unlink()
    (source / "d").rmdir()
    assert read(source, below, top) == b"z"
    assert [type(error) for _, error in below.lost] == [NotFound]


# ---- writing --------------------------------------------------------------------------------------------------------


def regular(*files: tuple[bytes, bytes], directory: tuple[bytes, ...] = ()) -> tuple[Group, bytes]:
    contents = [content for _, content in files]
    group = Group(directory, [name for name, _ in files], [len(one) for one in contents])
    group.mtimes = [7] * len(files)
    group.modes = [REGULAR | 0o644] * len(files)
    group.crcs = [crc32(one) for one in contents]
    return group, b"".join(contents)


@pytest.mark.parametrize("level", LEVELS)
def test_an_entry_that_fails_fails_alone(target: Path, level: Durability) -> None:
    (target / "b").mkdir()
    (target / "b/inside").write_bytes(b"kept")
    group, contents = regular((b"a", b"A"), (b"b", b"BB"), (b"c", b"CCC"), (b"d", b"D"))
    group.crcs[2] ^= 1
    failures = write(target, [group], contents, level)
    assert sorted((one.group, one.entry) for one in failures) == [(0, 1), (0, 2)]
    assert {type(one.error) for one in failures} >= {IntegrityError}
    assert (target / "a").read_bytes() + (target / "d").read_bytes() == b"AD"
    assert not (target / "c").exists()
    assert (target / "b/inside").read_bytes() == b"kept"
    assert not (target / ".fsmux").exists()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("call", ["openat", "pwrite", "futime", "rename", "syncfs", "fsync"])
def test_a_call_that_fails_leaves_nothing_partial(target: Path, level: Durability, call: str) -> None:
    (target / "old").write_bytes(b"as it was")

    class Failing(Syscalls):
        armed = False

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.armed and not (call == "openat" and args[1] in (b"old.dir", b".", b".fsmux")):
            raise OSError(errno.ENOSPC, "full")
        return getattr(Syscalls, call)(self, *args, **kwargs)

    setattr(Failing, call, fail)
    sys = Failing()
    group, contents = regular((b"new", b"new"), (b"old", b"changed"))
    with Root.open(target, sys=sys) as root:
        unpacker = Unpacker(root, (), level)
        unpacker._holding.hold(root._state_at(root._top._fd, ()))
        sys.armed = True
        unpacker.write(1, [group], Contents([memoryview(contents)]))
        failures = unpacker.commit()
        sys.armed = False
        unpacker.close()
    syncs = {"syncfs": level is Durability.BATCH, "fsync": level is Durability.FILE}
    if syncs.get(call, True):
        assert {one.entry for one in failures} == {0, 1}
        assert all(isinstance(one.error, NoSpace) for one in failures)
    else:
        assert not failures
        return
    if call != "syncfs" and call != "fsync":
        assert (target / "old").read_bytes() == b"as it was"
        assert not (target / "new").exists()
    assert not (target / ".fsmux").exists()


def test_what_was_not_committed_is_gone(target: Path) -> None:
    group, contents = regular((b"a", b"a"))
    with Root.open(target) as root:
        unpacker = Unpacker(root, (), Durability.BATCH)
        unpacker.write(1, [group], Contents([memoryview(contents)]))
        assert len(list((target / ".fsmux").iterdir())) == 2  # the file, and what keeps others from removing this
        unpacker.close()
    assert not list(target.iterdir())


def test_no_link_is_followed_and_nothing_outside_is_touched(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "way").symlink_to(outside)
    (target / "name").symlink_to(outside / "file")
    through, first = regular((b"a", b"a"), directory=(b"way",))
    onto, second = regular((b"name", b"n"))
    failures = write(target, [through, onto], first + second)
    assert [one.group for one in failures] == [0]
    assert isinstance(failures[0].error, NotADirectory | BadName)
    assert not list(outside.iterdir())
    assert (target / "name").read_bytes() == b"n"
    assert not (target / "name").is_symlink()


@pytest.mark.parametrize(
    "name", [b"..", b".", b".fsmux", b".FSMUX", b"a/b", b"", b"n" * 256, b"zero\0", b"\xef\xbc\x8efsmux"]
)
def test_names_that_are_none_are_refused(target: Path, name: bytes) -> None:
    group, contents = regular((name, b"x"))
    failures = write(target, [group], contents)
    assert [type(one.error) for one in failures] == [BadName]
    assert not list(target.iterdir())


def test_directories_are_made_passable_and_finished_behind_their_contents(target: Path) -> None:
    top = Group((), [b"d", b"link"], [0, 0], [5, 6], [DIRECTORY | 0o500, SYMLINK | 0o777], [b"d"])
    top.crcs = [0, 0]
    below, contents = regular((b"f", b"f"), directory=(b"d",))
    finish = itself((b"d",), 1_000_000_007, DIRECTORY | 0o500, Act.ADJUST)
    for level in LEVELS:
        assert not write(target, [top, below, finish], contents, level)
        kept = (target / "d").stat()
        assert (stat.S_IMODE(kept.st_mode), kept.st_mtime_ns) == (0o500, 1_000_000_007)
        assert (target / "d/f").read_bytes() == b"f"
        assert os.readlink(target / "link") == "d"


def test_the_place_itself_is_made_and_finished_last(target: Path) -> None:
    with Root.open(target) as root:
        unpacker = Unpacker(root, (b"deep", b"er"), Durability.NONE)
        group, contents = regular((b"f", b"f"))
        groups = [
            itself((), 5, DIRECTORY | 0o700, Act.MAKE), group, itself((), 77, DIRECTORY | 0o711, Act.ADJUST),
        ]  # fmt: skip
        unpacker.write(3, groups, Contents([memoryview(contents)]))
        assert not unpacker.commit()
        unpacker.close()
    assert (target / "deep/er/f").read_bytes() == b"f"
    assert (target / "deep/er").stat().st_mtime_ns == 77


def test_what_is_renamed_is_synced_behind_that_also_when_the_place_itself_is_finished(target: Path) -> None:
    calls: list[str] = []

    class Noting(Syscalls):
        def rename(self, *names: Any) -> None:
            calls.append("rename")
            super().rename(*names)

        def syncfs(self, fd: int) -> None:
            calls.append("syncfs")
            super().syncfs(fd)

        def kernel(self) -> str:
            return "6.1"

    group, contents = regular((b"f", b"f"))
    finish = itself((), 77, DIRECTORY | 0o711, Act.ADJUST)
    assert not write(target, [group, finish], contents, Durability.BATCH, Noting())
    assert calls == ["syncfs", "rename", "syncfs"]
    assert target.stat().st_mtime_ns == 77
    assert os.listdir(target) == ["f"]


def test_a_file_where_a_directory_must_be_fails_what_belongs_there(target: Path) -> None:
    (target / "d").write_bytes(b"in the way")
    top = Group((), [b"d", b"e"], [0, 0], [5, 5], [DIRECTORY | 0o755] * 2, crcs=[0, 0])
    below, contents = regular((b"f", b"f"), directory=(b"d",))
    failures = write(target, [top, below], contents)
    assert [(one.group, one.entry) for one in failures] == [(0, 0), (1, 0)]
    assert (target / "d").read_bytes() == b"in the way"
    assert (target / "e").is_dir()


def test_modes_alone_are_set_by_name(target: Path) -> None:
    (target / "a").write_bytes(b"a")
    group = Group((), [b"a", b"gone"], [0, 0], [9, 9], [REGULAR | 0o640] * 2, act=Act.ADJUST)
    failures = write(target, [group], b"")
    assert [(one.entry, type(one.error)) for one in failures] == [(1, StorageError)]
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o640
    assert (target / "a").stat().st_mtime_ns == 9


def test_what_has_another_time_than_it_was_found_with_is_left_as_it_is(target: Path) -> None:
    for name in ("a", "b"):
        (target / name).write_bytes(b"x")
        os.utime(target / name, ns=(0, 5))
    (target / "same").hardlink_to(target / "a")
    names = [b"a", b"b", b"same"]
    group = Group((), names, [0] * 3, [9] * 3, [REGULAR | 0o640] * 3, act=Act.ADJUST, found=[5, 6, 5])
    failures = write(target, [group], b"")
    assert [(one.entry, type(one.error)) for one in failures] == [(1, Busy)]
    assert [(target / os.fsdecode(name)).stat().st_mtime_ns for name in names] == [9, 5, 9]


def test_a_directory_that_vanishes_from_the_destination_is_no_missing_source(target: Path) -> None:
    (target / "d").mkdir()
    groups, contents = regular((b"f", b"f"), directory=(b"d",))
    with Root.open(target) as root:
        unpacker = Unpacker(root, (), Durability.BATCH)
        unpacker.write(1, [groups], Contents([memoryview(contents)]))
        (target / "d").rmdir()
        (failure,) = unpacker.commit()
        unpacker.close()
    assert failure.error.exit_code == ExitCode.SOME_FAILED
    assert str(failure.error) == "d: no such file or directory, any more, at the destination"


# ---- listing --------------------------------------------------------------------------------------------------------


def pages(path: Path, *parts: bytes) -> Iterator[Group]:
    with Root.open(path) as root:
        yield from listing.groups(root, parts)


def test_a_listing_is_sorted_by_bytes_and_leaves_out_what_is_reserved(source: Path) -> None:
    for name in (b"b", b"\xff", "ä".encode(), b"a", b".fsmux", b"Z", b"fsmux"):
        with open(os.fsencode(source) + b"/" + name, "wb"):
            pass
    assert listed(source).names == sorted([b"b", b"\xff", "ä".encode(), b"a", b"Z", b"fsmux"])


def test_a_large_directory_comes_in_pages(source: Path) -> None:
    for number in range(2001):
        (source / f"{number:04d}").touch()
    found = list(pages(source))
    assert [(len(group), group.more) for group in found] == [(1000, True), (1000, True), (1, False)]
    assert [name for group in found for name in group.names] == [b"%04d" % number for number in range(2001)]


def test_what_vanishes_while_it_is_listed_is_left_out(source: Path) -> None:
    for name in "abc":
        (source / name).write_bytes(b"x")
    (source / "d").symlink_to("a")

    class Vanishing(Syscalls):
        def stat(self, directory: int, name: bytes) -> os.stat_result:
            if name == b"b":
                raise FileNotFoundError(errno.ENOENT, "gone")
            return super().stat(directory, name)

        def readlink(self, directory: int, name: bytes) -> bytes:
            raise FileNotFoundError(errno.ENOENT, "gone")

    with Root.open(source, sys=Vanishing()) as root:
        (group,) = listing.groups(root, ())
    assert (group.names, group.sizes, group.targets) == ([b"a", b"c"], [1, 1], [])


def test_a_link_that_cannot_be_read_is_not_left_out_silently(source: Path) -> None:
    (source / "link").symlink_to("a")

    class Bad(Syscalls):
        def readlink(self, directory: int, name: bytes) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Root.open(source, sys=Bad()) as root, pytest.raises(StorageError, match="link: input/output error"):
        list(listing.groups(root, ()))


def test_an_empty_directory_is_one_empty_group_and_none_is_an_error(source: Path) -> None:
    assert listed(source) == Group(())
    with pytest.raises(NotFound):
        listed(source, b"none")
    if os.geteuid():
        source.chmod(0)
        with pytest.raises(AccessError):
            listed(source)


# ---- what a further name promises -----------------------------------------------------------------------------------


class Noting(Syscalls):
    """Notes what is synced, by inode, and each name that is taken."""

    def __init__(self) -> None:
        self.notes: list[int | str | bytes] = []

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self.notes.append(os.fstat(fd).st_ino)

    def syncfs(self, fd: int) -> None:
        super().syncfs(fd)
        self.notes.append("all")

    def rename(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        super().rename(directory, name, to_directory, to_name)
        self.notes.append(to_name)

    def link(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        super().link(directory, name, to_directory, to_name)
        self.notes.append(to_name)


def further_name(name: bytes, first: bytes) -> Group:
    return Group((), [name], [0], [0], [REGULAR | 0o644], [first], Act.LINK)


@pytest.mark.parametrize("level", LEVELS)
def test_what_gets_a_further_name_is_synced_before_that(target: Path, level: Durability) -> None:
    (target / "first").write_bytes(b"never synced")
    inode = (target / "first").stat().st_ino
    sys = Noting()
    assert not write(target, [further_name(b"second", b"first")], b"", level, sys)
    assert (target / "second").stat().st_ino == inode
    before = sys.notes[: sys.notes.index(b"second")]
    after = sys.notes[len(before) + 1 :]
    top = target.stat().st_ino
    match level:
        case Durability.NONE:
            assert not before + after
        case Durability.FILE:
            assert inode in before
            assert top in after
        case _:
            assert "all" in before
            assert "all" in after


def test_a_file_that_may_not_be_read_is_synced_for_its_further_name(target: Path) -> None:
    (target / "first").write_bytes(b"never synced")

    class Unreadable(Noting):
        def openat(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> int:
            if flags == OPEN_READ:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return super().openat(directory, name, flags, mode)

    sys = Unreadable()
    assert not write(target, [further_name(b"second", b"first")], b"", Durability.FILE, sys)
    assert sys.notes.index("all") < sys.notes.index(b"second")


def test_what_cannot_be_synced_gets_no_further_name(target: Path) -> None:
    (target / "first").write_bytes(b"never synced")
    inode = (target / "first").stat().st_ino

    class Failing(Syscalls):
        def fsync(self, fd: int) -> None:
            if os.fstat(fd).st_ino == inode:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().fsync(fd)

    (failure,) = write(target, [further_name(b"second", b"first")], b"", Durability.FILE, Failing())
    assert isinstance(failure.error, StorageError)
    assert [one.name for one in target.iterdir()] == ["first"]
