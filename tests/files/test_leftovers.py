"""What interrupted sessions leave is found and removed, and what is in use is not."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from zlib_ng.zlib_ng import crc32

from fsmux.columns import REGULAR, Group
from fsmux.errors import Busy
from fsmux.files import leftovers
from fsmux.files.contents import Contents
from fsmux.files.leftovers import ABANDONED_SECONDS
from fsmux.files.opening import open_sink
from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls
from fsmux.files.unpacking import Unpacker
from fsmux.records import Durability
from tests.files.faults import Faulty
from tests.files.test_sink import CHUNK, DATA, begin, fill, identity, state_of

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.files.sink import Sink

NAME = (b"new", b"file")


class Later(Syscalls):
    """The kernel, some time from now."""

    def __init__(self, seconds: float) -> None:
        self._ahead = round(seconds * 1e9)

    def now_ns(self) -> int:
        return super().now_ns() + self._ahead


def leave_unfinished(root: Root) -> None:
    sink = begin(root, DATA, NAME)
    fill(sink, chunks=[0, 1, 5])
    sink.suspend()


def loose_file(top: Path, name: str = "0123-1.tmp") -> Path:
    """As a killed process leaves it."""
    (top / ".fsmux").mkdir(mode=0o700, exist_ok=True)
    path = top / ".fsmux" / name
    path.write_bytes(b"half of it")
    return path


def sweep(top: Path, seconds: float) -> None:
    with Root.open(top, sys=Later(seconds)) as root, root.keep_state():
        pass


def test_an_unfinished_file_is_described(root: Root, top: Path) -> None:
    assert leftovers.find(root) == []
    assert os.listdir(top) == []
    leave_unfinished(root)
    (found,) = leftovers.find(root)
    assert (found.parts, found.size, found.held) == (NAME, len(DATA), 2 * CHUNK + 777)
    assert found.disk >= found.held
    assert 0 <= found.age(root.sys.now_ns()) < 60
    assert not found.loose
    assert not leftovers.in_use(root, found)


def test_what_is_removed_is_gone_and_the_directory_too(root: Root, top: Path) -> None:
    leave_unfinished(root)
    loose_file(top)
    found = leftovers.find(root)
    assert [leftover.loose for leftover in found] == [False, True]
    assert [len(leftover.names) for leftover in found] == [2, 2]
    assert all(leftovers.remove(root, leftover) for leftover in found)
    assert os.listdir(top) == []
    assert leftovers.remove(root, found[1])  # gone is gone


@pytest.mark.parametrize("data", [DATA, b"small"])
def test_what_is_in_use_stays(root: Root, top: Path, data: bytes) -> None:
    sink = begin(root, data)
    (found,) = leftovers.find(root)
    assert leftovers.in_use(root, found)
    assert not leftovers.remove(root, found)
    sweep(top, 10 * ABANDONED_SECONDS)
    fill(sink, data)
    sink.commit()
    assert (top / "file").read_bytes() == data


def test_what_was_gone_on_with_meanwhile_stays(root: Root, top: Path) -> None:
    leave_unfinished(root)
    (found,) = leftovers.find(root)
    part = next((top / ".fsmux").glob("*.part"))
    while part.stat().st_ctime_ns <= found.changed_ns:  # clocks of file systems may have steps of 4 ms
        os.utime(part)
    assert not leftovers.remove(root, found)
    assert len(state_of(top)) == 2


def test_keeping_state_removes_what_was_abandoned_long_ago(root: Root, top: Path) -> None:
    leave_unfinished(root)
    sweep(top, ABANDONED_SECONDS - 60)
    assert len(state_of(top)) == 2
    sweep(top, ABANDONED_SECONDS)
    assert os.listdir(top) == []


def test_a_part_that_lost_its_journal_is_removed(root: Root, top: Path) -> None:
    leave_unfinished(root)
    next((top / ".fsmux").glob("*.journal")).unlink()
    (found,) = leftovers.find(root)
    assert (found.parts, found.held) == ((), 0)
    assert not leftovers.in_use(root, found)
    sweep(top, ABANDONED_SECONDS)
    assert os.listdir(top) == []


def test_what_is_no_journal_is_removed_as_well_and_what_is_not_ours_is_not(root: Root, top: Path) -> None:
    leave_unfinished(root)
    next((top / ".fsmux").glob("*.journal")).write_bytes(b"nonsense")
    (top / ".fsmux" / "9-9.tmp").symlink_to("/nowhere")
    (top / ".fsmux" / "notes").write_text("by the owner")
    sweep(top, ABANDONED_SECONDS)
    assert state_of(top) == ["notes"]


def test_temporary_files_stay_as_long_as_their_guard_is_locked_and_no_longer(root: Root, top: Path) -> None:
    files = [loose_file(top, f"0123-{number}.tmp") for number in range(3)]
    guard = loose_file(top, "0123.guard")
    others = [loose_file(top, "4567-1.tmp"), loose_file(top, "89ab.guard")]
    with guard.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sweep(top, 10 * ABANDONED_SECONDS)
        assert all(path.exists() for path in (*files, guard))
        assert not any(path.exists() for path in others)
        (found,) = leftovers.find(root)
        assert (len(found.names), leftovers.in_use(root, found), leftovers.remove(root, found)) == (4, True, False)
    sweep(top, 0)
    assert os.listdir(top) == []


def test_many_files_in_a_pack_are_not_swept_while_they_are_written(root: Root, top: Path) -> None:
    """However long ago they were, by whatever process; and what it leaves when it ends before its commit, at once."""
    group = Group((), [b"a", b"b"], [1, 2], [7, 7], [REGULAR | 0o644] * 2)
    contents = b"abb"
    group.crcs = [crc32(b"a"), crc32(b"bb")]
    unpacker = Unpacker(root, (), Durability.BATCH)
    unpacker.write(0, [group], Contents([memoryview(contents)]))
    assert len(state_of(top)) == 3
    sweep(top, 10 * ABANDONED_SECONDS)
    assert len(state_of(top)) == 3
    abandoned = top.with_name("abandoned")
    shutil.copytree(top, abandoned)  # as a process leaves it that was killed now
    assert unpacker.commit() == []
    unpacker.close()
    assert {path.name: path.read_bytes() for path in top.iterdir()} == {"a": b"a", "b": b"bb"}
    sweep(abandoned, 0)
    assert os.listdir(abandoned) == []


@pytest.mark.parametrize("still_held", [False, True])
def test_a_guard_that_is_swept_before_it_is_locked_is_not_relied_on(top: Path, still_held: bool) -> None:
    """Between making it and locking it somebody else may find it, lock it and remove it, or still hold it."""
    held: list[int] = []

    class Between(Syscalls):
        def lock(self, fd: int) -> None:
            if not held:
                (guard,) = (top / ".fsmux").glob("*.guard")
                held.append(os.open(guard, os.O_RDWR))
                fcntl.flock(held[0], fcntl.LOCK_EX)
                if not still_held:
                    guard.unlink()
                    os.close(held[0])
            super().lock(fd)

    with Root.open(top, sys=Between()) as root:
        sink = begin(root, b"small")
        if still_held:
            os.close(held[0])
        sweep(top, 0)
        assert len(state_of(top)) == 2
        fill(sink, b"small")
        sink.commit()
    assert os.listdir(top) == ["file"]


def test_a_file_system_without_locks_has_to_do_without(top: Path) -> None:
    class NoLocks(Syscalls):
        def lock(self, fd: int) -> None:
            raise OSError(errno.ENOLCK, "no locks")

    with Root.open(top, sys=NoLocks()) as root:
        sink = begin(root, b"small")
        with Root.open(top, sys=NoLocks()) as other, other.keep_state():
            assert len(state_of(top)) == 2  # nobody can tell whether it is in use
        fill(sink, b"small")
        sink.commit()
    assert os.listdir(top) == ["file"]


def test_a_sweep_that_fails_keeps_nobody_from_receiving(top: Path) -> None:
    class LaterAndFaulty(Faulty):
        def now_ns(self) -> int:
            return Later(ABANDONED_SECONDS).now_ns()

    count = 1
    sys = None
    while sys is None or sys.failed:
        with Root.open(top) as root:
            leave_unfinished(root)
        loose_file(top)
        sys = LaterAndFaulty()
        with Root.open(top, sys=sys) as root, root.landing(()) as pin:
            sys.fail_at = len(sys.calls) + count
            leftovers.sweep(root, pin.state)
            sys.fail_at = 0
        count += 1
    assert count > 10


@pytest.mark.parametrize("chunk_size", [CHUNK, 8 * CHUNK])
def test_what_has_come_another_way_is_of_no_use(root: Root, top: Path, chunk_size: int) -> None:
    """Such as in a pack, which knows nothing of an unfinished file."""
    data = DATA
    (top / "new").mkdir()

    def leave() -> None:
        sink = open_sink(root, NAME, identity(data), 0o640, chunk_size, owner=b"me", resume=False)
        sink.write((memoryview(data)[:CHUNK],), 0)
        sink.suspend()

    leave()
    assert len(state_of(top)) == 2
    leftovers.sweep_top(root)
    assert len(state_of(top)) == 2, "nothing stands"
    (top / "new" / "file").write_bytes(data)
    leftovers.sweep_top(root)
    assert len(state_of(top)) == 2, "another version stands"
    os.utime(top / "new" / "file", ns=(0, identity(data).mtime_ns))
    leave()
    leftovers.sweep_top(root)
    assert len(state_of(top)) == 2, "what stands has stood before"
    (left,) = leftovers.find(root)
    while (top / "new" / "file").stat().st_ctime_ns <= left.changed_ns:  # the clock of files ticks some ms at a time
        os.utime(top / "new" / "file", ns=(0, identity(data).mtime_ns))
    with begin(root, data, NAME, owner=b"somebody else"):
        leftovers.sweep_top(root)
    assert os.listdir(top) == ["new"]


def test_what_has_come_of_chunks_that_are_not_whole_is_told(root: Root) -> None:
    sink = begin(root, DATA, NAME)
    fill(sink, chunks=[5])
    sink.write((memoryview(DATA)[: CHUNK - 4096],), 0)
    sink.suspend()
    assert [found.held for found in leftovers.find(root)] == [CHUNK - 4096 + 777]


def test_where_a_directory_stands_now_no_file_comes(root: Root, top: Path) -> None:
    leave_unfinished(root)
    (left,) = leftovers.find(root)
    (top / "new" / "file").mkdir(parents=True)
    while (top / "new" / "file").stat().st_ctime_ns <= left.changed_ns:
        (top / "new" / "file").touch()
    leftovers.sweep_top(root)
    assert os.listdir(top) == ["new"]


def test_another_session_may_begin_while_one_is_thrown_away(top: Path) -> None:
    """Between the two names that a session removes, somebody may want to receive the same file."""
    later: list[Sink] = []

    class Between(Syscalls):
        def unlink(self, directory: int, name: bytes) -> None:
            super().unlink(directory, name)
            if sink.ended and not later:
                with suppress(Busy):
                    later.append(begin(other, DATA, NAME))

    with Root.open(top, sys=Between()) as root, Root.open(top) as other:
        sink = begin(root, DATA, NAME)
        fill(sink, chunks=[0])
        sink.discard()
        for session in later or [begin(other, DATA, NAME)]:
            fill(session)
            session.commit()
    assert (top / "new" / "file").read_bytes() == DATA
