"""Directories that appear with all their files in them, and those that must not."""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fsmux.columns import DIRECTORY, REGULAR, SYMLINK, Act, Group, itself
from fsmux.files import leftovers
from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls
from fsmux.files.unpacking import Unpacker
from fsmux.files.whole import POSSIBLE, WORTH_A_DIRECTORY
from fsmux.records import Durability
from tests.files.groups import CONTENTS, NAMES, files, is_subtree, made, number_of, stands, subtree, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsmux.records import Parts

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="only where it was measured")

LEVELS = [Durability.NONE, Durability.BATCH]
DEFAULT_ACL = struct.pack("<I" + "HHI" * 3, 2, 1, 7, 2**32 - 1, 4, 5, 2**32 - 1, 32, 0, 2**32 - 1)
"""``d:u::rwx,d:g::r-x,d:o::---`` as Linux has it in ``system.posix_acl_default``."""


@pytest.fixture(params=LEVELS)
def unpacker(root: Root, request: pytest.FixtureRequest) -> Iterator[Unpacker]:
    with closing(Unpacker(root, (), request.param)) as opened:
        yield opened


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o500])
def test_another_directory_with_the_files_takes_the_place_of_the_empty_one(
    top: Path, unpacker: Unpacker, mode: int
) -> None:
    write(unpacker, 1, made(b"d", b"e", mode=mode), contents=b"")
    assert unpacker.commit() == []
    before = os.stat(top / "d")
    write(unpacker, 2, files())
    assert unpacker.commit() == []
    after = os.stat(top / "d")
    assert stands(top / "d")
    assert (after.st_ino != before.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
        True, before.st_mode, before.st_uid, before.st_gid,
    )  # fmt: skip
    write(unpacker, 3, *[itself((name,), 5, DIRECTORY | mode, Act.ADJUST) for name in (b"d", b"e")])
    assert unpacker.commit() == []
    assert [stat.S_IMODE((top / name).stat().st_mode) for name in "de"] == [mode, mode]
    unpacker.close()
    assert sorted(os.listdir(top)) == ["d", "e"]


def test_directory_and_files_may_come_in_one_pack(top: Path, unpacker: Unpacker) -> None:
    write(unpacker, 1, made(b"d"), files())
    assert unpacker.commit() == []
    assert stands(top / "d")


def test_links_appear_with_them(top: Path, unpacker: Unpacker) -> None:
    group = files()
    group.names.append(b"link")
    group.sizes.append(0)
    group.mtimes.append(9)
    group.modes.append(SYMLINK | 0o777)
    group.crcs.append(0)
    group.targets.append(b"00")
    write(unpacker, 1, made(b"d"), group)
    assert unpacker.commit() == []
    assert stands(top / "d")
    assert os.readlink(top / "d/link") == "00"


def test_what_somebody_else_has_put_there_stays(top: Path, unpacker: Unpacker) -> None:
    write(unpacker, 1, made(b"d"), contents=b"")
    unpacker.commit()
    (top / "d/theirs").write_bytes(b"theirs")
    before = number_of(top / "d")
    write(unpacker, 2, files())
    assert unpacker.commit() == []
    assert stands(top / "d")
    assert (top / "d/theirs").read_bytes() == b"theirs"
    assert number_of(top / "d") == before


def test_a_directory_that_was_there_is_filled_file_by_file(top: Path, unpacker: Unpacker) -> None:
    (top / "d").mkdir()
    before = number_of(top / "d")
    write(unpacker, 1, made(b"d"), files())
    assert unpacker.commit() == []
    assert stands(top / "d")
    assert number_of(top / "d") == before


def test_what_a_directory_inherits_it_keeps(top: Path, unpacker: Unpacker) -> None:
    os.chmod(top, 0o2755)
    write(unpacker, 1, made(b"d"), contents=b"")
    unpacker.commit()
    before = os.stat(top / "d")
    assert before.st_mode & stat.S_ISGID
    write(unpacker, 2, files())
    assert unpacker.commit() == []
    after = os.stat(top / "d")
    assert stands(top / "d")
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("before", [False, True])
def test_access_control_lists_are_neither_lost_nor_gained(top: Path, unpacker: Unpacker, before: bool) -> None:
    """The top has one before the reserved directory is made, which gets it, too; or only then."""
    try:
        if before:
            os.setxattr(top, "system.posix_acl_default", DEFAULT_ACL)
        write(unpacker, 1, made(b"other"), contents=b"")
        unpacker.commit()
        if before:
            os.removexattr(top, "system.posix_acl_default")
        else:
            os.setxattr(top, "system.posix_acl_default", DEFAULT_ACL)
    except OSError:
        pytest.skip("the file system has no access control lists")
    write(unpacker, 2, made(b"d"), contents=b"")
    unpacker.commit()
    lists = os.listxattr(top / "d")
    assert bool(lists) is not before
    write(unpacker, 3, files())
    assert unpacker.commit() == []
    assert stands(top / "d")
    assert os.listxattr(top / "d") == lists


def test_a_file_that_fails_takes_none_of_the_others_with_it(top: Path, unpacker: Unpacker) -> None:
    group = files()
    group.crcs[3] ^= 1
    write(unpacker, 1, made(b"d"), group)
    failures = unpacker.commit()
    assert [failure[:3] for failure in failures] == [(1, 1, 3)]
    assert sorted(map(os.fsencode, os.listdir(top / "d"))) == [*NAMES[:3], *NAMES[4:]]


def test_what_was_not_committed_leaves_nothing(top: Path, root: Root) -> None:
    unpacker = Unpacker(root, (), Durability.BATCH)
    write(unpacker, 1, made(b"d"), files())
    assert len(list((top / ".fsmux").glob("*.tmp/*"))) == len(NAMES)
    unpacker.close()
    assert os.listdir(top) == ["d"]
    assert os.listdir(top / "d") == []


def test_what_a_killed_process_left_is_swept(top: Path) -> None:
    left = top / ".fsmux" / "0123456789abcdef-1.tmp"
    left.mkdir(parents=True, mode=0o700)
    (top / ".fsmux").chmod(0o700)
    (left / "file").write_bytes(b"left")
    (left.with_name("0123456789abcdef.guard")).touch()
    with Root.open(top) as root:
        (found,) = leftovers.find(root)
        assert found.loose
        leftovers.sweep_top(root)
    assert os.listdir(top) == []


def test_what_is_below_appears_with_it(top: Path, unpacker: Unpacker) -> None:
    write(unpacker, 1, made(b"d"), *subtree(), contents=CONTENTS * 3)
    assert os.listdir(top / "d") == []
    assert unpacker.commit() == []
    assert is_subtree(top)
    unpacker.close()
    assert os.listdir(top) == ["d"]


@pytest.mark.parametrize("mode", [0o750, 0o550])
def test_what_comes_below_later_appears_by_itself(top: Path, unpacker: Unpacker, mode: int) -> None:
    outer, *inner = subtree()
    write(unpacker, 1, made(b"d"), outer, inner[0], contents=CONTENTS)
    assert unpacker.commit() == []
    before = number_of(top / "d"), number_of(top / "d/e")
    for group in inner[4:]:
        group.modes = [DIRECTORY | mode]
    write(unpacker, 2, *inner[1:], contents=CONTENTS * 2)
    assert unpacker.commit() == []
    assert (top / "d/e/f").stat().st_mtime_ns == 5
    assert stat.S_IMODE((top / "d/e").stat().st_mode) == mode
    if mode == 0o750:
        assert is_subtree(top)
        assert (number_of(top / "d"), number_of(top / "d/e") != before[1]) == (before[0], True)


def test_packs_that_are_committed_together_fill_one_directory(top: Path, root: Root) -> None:
    with closing(Unpacker(root, (), Durability.BATCH)) as unpacker:
        groups = subtree()
        write(unpacker, 1, made(b"d"), *groups[:2])
        write(unpacker, 2, groups[2], groups[3])
        write(unpacker, 3, *groups[4:])
        assert unpacker.commit() == []
    assert is_subtree(top)


@pytest.mark.parametrize("theirs", ["theirs", "e/theirs", "e/f/theirs"])
def test_all_that_is_below_goes_beside_what_somebody_else_has_put_there(
    top: Path, unpacker: Unpacker, theirs: str
) -> None:
    write(unpacker, 1, made(b"d"), contents=b"")
    assert unpacker.commit() == []
    write(unpacker, 2, *subtree(), contents=CONTENTS * 3)
    (top / "d" / theirs).parent.mkdir(parents=True, exist_ok=True)
    (top / "d" / theirs).write_bytes(b"theirs")
    assert unpacker.commit() == []
    assert is_subtree(top)
    assert (top / "d" / theirs).read_bytes() == b"theirs"
    unpacker.close()
    assert os.listdir(top) == ["d"]


def test_what_cannot_go_beside_it_fails_alone(top: Path, unpacker: Unpacker) -> None:
    """A file stands where a directory was to be, whose files and whose subdirectory fail with it."""
    write(unpacker, 1, made(b"d"), contents=b"")
    assert unpacker.commit() == []
    groups = subtree()
    write(unpacker, 2, *groups, contents=CONTENTS * 3)
    (top / "d/e").write_bytes(b"theirs")
    failed = {failure[:3] for failure in unpacker.commit()}
    entries = {(2, place, index) for place in (3, 4) for index in range(len(NAMES))}
    assert failed == {(2, 0, 0), (2, 2, 0), *entries, (2, 5, 0), (2, 6, 0)}
    assert stands(top / "d")
    assert (top / "d").stat().st_mtime_ns == (top / "d/empty").stat().st_mtime_ns == 5


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("count", [2, WORTH_A_DIRECTORY])
@pytest.mark.parametrize("mode", [0o750, 0o500])
def test_a_group_finishes_its_directory(top: Path, unpacker: Unpacker, fresh: bool, count: int, mode: int) -> None:
    """Whatever else of the pack goes into it, or below it."""
    if not fresh:
        (top / "d").mkdir()
    first, second, inner = files(), files(), made(b"e")
    first.names, second.names = NAMES[:count], [b"more" + name for name in NAMES[:count]]
    inner.directory = (b"d",)
    below = files()
    below.directory = (b"d", b"e")
    for group in (first, second):
        for column in (group.sizes, group.mtimes, group.modes, group.crcs):
            del column[count:]
    contents = CONTENTS[: count * 200]
    second.finish = below.finish = (5, DIRECTORY | mode)
    write(unpacker, 1, made(b"d"), inner, first, second, below, contents=contents * 2 + CONTENTS)
    assert unpacker.commit() == []
    assert stands(top / "d/e")
    assert len(os.listdir(top / "d")) == 2 * count + 1
    for path in (top / "d", top / "d/e"):
        assert (path.stat().st_mtime_ns, stat.S_IMODE(path.stat().st_mode)) == (5, mode)


def test_a_directory_is_finished_when_what_is_linked_in_it_stands(top: Path, unpacker: Unpacker) -> None:
    filling = files()
    filling.finish = (5, DIRECTORY | 0o755)
    linking = Group((b"d",), [b"same"], [0], [0], [REGULAR | 0o640], [b"d/00"], Act.LINK)
    write(unpacker, 1, made(b"d"), filling, linking)
    assert unpacker.commit() == []
    assert (top / "d/same").samefile(top / "d/00")
    assert (top / "d").stat().st_mtime_ns == 5


class Strict(Syscalls):
    """Has permissions count, as they do for anybody but root: nobody passes through what has no ``x`` for its owner."""

    def openat2(self, directory: int, parts: Parts, flags: int, resolve: int) -> int:
        for depth in range(1, len(parts)):
            if not os.stat(b"/".join(parts[:depth]), dir_fd=directory, follow_symlinks=False).st_mode & 0o100:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return super().openat2(directory, parts, flags, resolve)


@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.parametrize("by_group", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
def test_directories_that_keep_their_owner_out_are_finished_last(
    top: Path, durability: Durability, by_group: bool, fresh: bool
) -> None:
    if not fresh:
        (top / "d/e").mkdir(parents=True)
    outer, *groups = subtree()
    filling = [group for group in groups if group.act is Act.MAKE]
    finishing = [group for group in groups if group.act is Act.ADJUST]
    for group in finishing:
        group.modes = [DIRECTORY | 0o640]
    if by_group:
        facts = {group.directory: (group.mtimes[0], group.modes[0]) for group in finishing}
        outer.finish = facts.pop((b"d",))
        for group in filling:
            group.finish = facts.pop(group.directory, None)
        finishing = [group for group in finishing if group.directory in facts]
    with Root.open(top, sys=Strict()) as root, closing(Unpacker(root, (), durability)) as unpacker:
        write(unpacker, 1, made(b"d"), outer, *filling, *finishing, contents=CONTENTS * 3)
        assert unpacker.commit() == []
    assert is_subtree(top, mode=0o640)


def test_a_directory_that_cannot_be_finished_fails_as_its_last_entry(top: Path, unpacker: Unpacker) -> None:
    filling = files()
    filling.finish = (5, DIRECTORY | 0o755)
    write(unpacker, 1, filling)
    failed = [failure[:3] for failure in unpacker.commit()]
    assert sorted(failed) == [(1, 0, index) for index in range(len(NAMES) + 1)]
