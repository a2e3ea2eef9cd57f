from __future__ import annotations

import errno
import os
import random
import stat
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import xxhash

from fsmux.errors import (
    BadName,
    Busy,
    IntegrityError,
    InternalError,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotRegular,
    RefusedError,
    StorageError,
)
from fsmux.files import resume
from fsmux.files.opening import open_sink
from fsmux.files.root import Root
from fsmux.files.sink import CHECKPOINT_BYTES, CHECKPOINT_SECONDS, Sink
from fsmux.records import Durability, Extent, Identity
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fsmux.records import Parts

CHUNK = 64 * 1024
DATA = random.Random(1).randbytes(5 * CHUNK + 777)
OTHER = DATA[:CHUNK] + random.Random(2).randbytes(CHUNK) + DATA[2 * CHUNK :]
NAME = (b"file",)


def identity(data: bytes, tag: bytes = b"") -> Identity:
    return Identity(len(data), 1_600_000_000_123_456_789, tag or zlib.crc32(data).to_bytes(16, "big"))


def begin(root: Root, data: bytes = DATA, parts: Parts = NAME, **options: Any) -> Sink:
    options.setdefault("owner", b"me")
    return open_sink(root, parts, identity(data), 0o640, CHUNK, **options)


def fill(sink: Sink, data: bytes = DATA, chunks: Iterable[int] | None = None) -> list[int]:
    """Write and record the chunks that are missing (of those named); which ones that were."""
    done = []
    for index in range(sink.manifest.map.count) if chunks is None else chunks:
        if sink.manifest.holds(index):
            continue
        extent = sink.manifest.map.extent(index)
        content = memoryview(data)[extent.offset : extent.end]
        crc = sink.write((content[:100], content[100:]), extent.offset)
        assert crc == zlib.crc32(content)
        sink.received(index, crc)
        done.append(index)
    return done


def state_of(top: Path) -> list[str]:
    return sorted(os.listdir(top / ".fsmux")) if (top / ".fsmux").exists() else []


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(DATA)])
@pytest.mark.parametrize("parts", [NAME, (b"new", b"dir", b"file")])
def test_a_file_appears_whole(root: Root, top: Path, durability: Durability, size: int, parts: Parts) -> None:
    data = DATA[:size]
    sink = begin(root, data, parts, durability=durability)
    path = top.joinpath(*(part.decode() for part in parts))
    fill(sink, data)
    assert not path.exists()
    assert sink.manifest.crc32() == zlib.crc32(data)
    assert sink.commit() == (durability != Durability.NONE)
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_mtime_ns == sink.identity.mtime_ns
    assert os.listdir(top) == [parts[0].decode()]
    sink.suspend()
    sink.close()
    sink.discard()
    assert path.exists()


def test_mode_and_time_may_be_told_late_and_no_mode_bit_above_the_nine_is_set(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink)
    sink.commit(0o7777, 42)
    facts = (top / "file").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == (0o777, 42)


def test_short_writes_are_finished(top: Path) -> None:
    with Root.open(top, sys=Faulty(short=1000)) as root:
        sink = begin(root)
        fill(sink)
        sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_several_threads_write_at_once(root: Root, top: Path) -> None:
    data = random.Random(3).randbytes(40 * CHUNK)
    sink = begin(root, data)
    threads = [threading.Thread(target=fill, args=(sink, data, range(n, 40, 4))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    sink.commit()
    assert (top / "file").read_bytes() == data


# ---- going on ---------------------------------------------------------------------------------------------------


def test_what_was_received_is_not_asked_for_again(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink, chunks=[0, 3, 5])
    sink.suspend()
    assert len(state_of(top)) == 2
    assert stat.S_IMODE((top / ".fsmux").stat().st_mode) == 0o700
    sink = begin(root)
    assert sink.manifest.missing() == [Extent(CHUNK, 2 * CHUNK), Extent(4 * CHUNK, CHUNK)]
    assert fill(sink) == [1, 2, 4]
    sink.commit()
    assert (top / "file").read_bytes() == DATA
    assert os.listdir(top) == ["file"]


def test_without_resume_everything_is_asked_for_again(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink, chunks=[0, 3])
    sink.suspend()
    sink = begin(root, resume=False)
    assert sink.basis is None
    assert fill(sink) == [0, 1, 2, 3, 4, 5]
    sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_a_session_without_a_chunk_leaves_nothing(root: Root, top: Path) -> None:
    for data in (DATA, DATA[:10]):
        sink = begin(root, data)
        sink.write((memoryview(data)[:5],), 0)
        sink.suspend()
        assert os.listdir(top) == []


def test_discard_leaves_nothing(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink, chunks=[0])
    sink.suspend()
    begin(root).discard()
    assert os.listdir(top) == []


def test_a_chunk_that_rotted_is_found_and_only_that_one_asked_for(root: Root, top: Path) -> None:
    sink = begin(root, durability=Durability.NONE)
    fill(sink, chunks=[0, 1, 2])
    sink.suspend()
    part = next((top / ".fsmux").glob("*.part"))
    with part.open("r+b") as file:
        file.seek(CHUNK + 17)
        file.write(b"!")
    for _ in range(2):  # the second time the journal itself says so
        sink = begin(root, durability=Durability.NONE)
        assert list(sink.manifest.indices()) == [0, 2]
        sink.suspend()
    sink = begin(root)
    fill(sink)
    sink.commit()
    assert (top / "file").read_bytes() == DATA


@pytest.mark.parametrize("touched", [False, True])
def test_only_what_lies_beyond_the_last_checkpoint_is_read_again(top: Path, touched: bool) -> None:
    """Unless something was written since, by whomever."""
    with Root.open(top) as root:
        sink = begin(root)
        fill(sink, chunks=[0, 1, 2])
        late = sink.write((memoryview(DATA)[3 * CHUNK : 4 * CHUNK],), 3 * CHUNK)
        sink.checkpoint()
        sink.received(3, late)
        if touched:
            part = next((top / ".fsmux").glob("*.part"))
            os.utime(part, ns=(0, part.stat().st_mtime_ns + 1))
        sink.close()
    sys = Faulty()
    with Root.open(top, sys=sys) as root:
        sink = begin(root)
        assert list(sink.manifest.indices()) == [0, 1, 2, 3]
        steps = [name for name in sys.calls if name in ("lock", "fsync", "drop_cache", "preadv")]
        chunks = 4 if touched else 1
        assert steps == ["lock", "preadv", "fsync", "drop_cache", *["preadv"] * chunks]
        sink.discard()


def test_a_part_that_is_longer_than_the_file_is_cut_when_it_is_gone_on_with(root: Root, top: Path) -> None:
    """As after a power cut that undid the shortening of an earlier version's part, and kept the journal of the new."""
    sink = begin(root)
    fill(sink, chunks=[0, 5])
    sink.suspend()
    os.truncate(next((top / ".fsmux").glob("*.part")), len(DATA) + 3 * CHUNK)
    sink = begin(root)
    assert set(sink.manifest.indices()) == {0, 5}
    fill(sink)
    sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_a_failed_sync_at_resume_takes_all_trust_back(top: Path) -> None:
    with Root.open(top) as root:
        sink = begin(root)
        fill(sink, chunks=[0, 1])
        sink.suspend()
    sys = Faulty(1, only={"fsync"})
    with Root.open(top, sys=sys) as root:
        sink = begin(root)
        assert list(sink.manifest.indices()) == [0, 1]
        sink.close()
    sys = Faulty()
    with Root.open(top, sys=sys) as root:
        begin(root).close()
    assert sys.calls.count("preadv") == 1 + 2


def test_the_part_is_cut_or_gone_or_not_ours(root: Root, top: Path, tmp_path: Path) -> None:
    def part() -> Path:
        return next((top / ".fsmux").glob("*.part"))

    sink = begin(root)
    fill(sink)
    sink.suspend()
    os.truncate(part(), CHUNK + 5)
    sink = begin(root)
    assert list(sink.manifest.indices()) == [0]
    fill(sink)
    sink.suspend()
    os.link(part(), tmp_path / "second name")
    sink = begin(root)
    assert list(sink.manifest.indices()) == []
    fill(sink)
    sink.suspend()
    name = part()
    name.rename(tmp_path / "moved")
    (tmp_path / "victim").write_bytes(DATA)
    name.symlink_to(tmp_path / "victim")
    sink = begin(root)
    assert list(sink.manifest.indices()) == []
    fill(sink, chunks=[0])
    sink.suspend()
    name.unlink()
    sink = begin(root)
    assert list(sink.manifest.indices()) == []
    fill(sink)
    sink.commit()
    assert (tmp_path / "victim").read_bytes() == DATA
    assert (top / "file").read_bytes() == DATA


def test_a_part_that_was_left_read_only(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink, chunks=[0])
    sink.suspend()
    part = next((top / ".fsmux").glob("*.part"))
    part.chmod(0o400)
    sink = begin(root)
    assert list(sink.manifest.indices()) == [0]
    assert stat.S_IMODE(part.stat().st_mode) == 0o600
    sink.discard()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "noise"])
def test_a_damaged_journal_costs_at_most_what_it_said(root: Root, top: Path, damage: str) -> None:
    sink = begin(root)
    fill(sink, chunks=[0, 1, 2])
    sink.suspend()
    journal = next((top / ".fsmux").glob("*.journal"))
    content = bytearray(journal.read_bytes())
    if damage == "cut":
        del content[-60:]
    elif damage == "flip":
        content[-50] ^= 4
    else:
        content = bytearray(b"" if damage == "empty" else os.urandom(500))
    journal.write_bytes(content)
    sink = begin(root)
    assert set(sink.manifest.indices()) <= {0, 1, 2}
    fill(sink)
    sink.commit()
    assert (top / "file").read_bytes() == DATA


# ---- who ---------------------------------------------------------------------------------------------------------


def test_one_writer_at_a_time(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink, chunks=[0])
    for other in (root, Root.open(top)):
        with pytest.raises(Busy, match="file: it is being received"):
            begin(other)
        if other is not root:
            other.close()
    sink.suspend()
    begin(root).discard()
    assert os.listdir(top) == []


def test_the_lock_is_held_until_the_last_thread_has_written(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink, chunks=[0])
    with sink.place.part.hold():  # a thread in the middle of a write
        sink.suspend()
        with pytest.raises(Busy):
            begin(root)
    with pytest.raises(Busy):
        sink.write((memoryview(b"x"),), CHUNK)
    with pytest.raises(Busy):
        sink.received(1, 1)
    begin(root).discard()


def test_what_somebody_else_left_is_not_gone_on_with(root: Root, top: Path) -> None:
    sink = begin(root, owner=b"alice")
    fill(sink, chunks=[0])
    sink.suspend()
    sink = begin(root, owner=b"bob")
    assert list(sink.manifest.indices()) == []
    sink.discard()
    sink = begin(root, owner=b"alice")
    assert list(sink.manifest.indices()) == [0]
    sink.discard()


def test_small_files_of_the_same_name_do_not_meet(root: Root, top: Path) -> None:
    one, two = begin(root, b"one"), begin(root, b"two")
    fill(one, b"one")
    fill(two, b"two")
    two.commit()
    one.commit()
    assert (top / "file").read_bytes() == b"one"
    assert os.listdir(top) == ["file"]


# ---- where -------------------------------------------------------------------------------------------------------


def test_what_a_file_does_not_replace(root: Root, top: Path) -> None:
    (top / "dir").mkdir()
    (top / "plain").touch()
    (top / "link").symlink_to("dir")
    for parts, error in (
        ((b"dir",), IsADirectory), ((), IsADirectory), ((b"plain", b"x"), NotADirectory),
        ((b"link", b"x"), (BadName, NotADirectory)), ((b".fsmux", b"x"), BadName), ((b"a", b"..", b"x"), BadName),
    ):  # fmt: skip
        for data in (DATA, b"small"):
            with pytest.raises(error):
                begin(root, data, parts)
    assert sorted(os.listdir(top)) == ["dir", "link", "plain"]


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_what_nobody_can_keep_a_file_in_is_replaced(root: Root, top: Path, kind: int) -> None:
    for data in (DATA, b"small", b""):
        os.mknod(top / "name", kind | 0o600)
        sink = begin(root, data, (b"name",))
        assert sink.basis is None
        fill(sink, data)
        sink.commit()
        assert (top / "name").read_bytes() == data
        (top / "name").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_not_replaced(root: Root, top: Path) -> None:
    try:
        os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError:
        pytest.skip("may not make devices here")
    with pytest.raises(NotRegular, match="is a device"):
        begin(root, DATA, (b"null",))


def test_a_link_under_the_final_name_is_replaced_and_not_followed(root: Root, top: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    for data in (DATA, b"small"):
        (top / "link").symlink_to(tmp_path / "victim")
        sink = begin(root, data, (b"link",))
        assert sink.basis is None
        fill(sink, data)
        sink.commit()
        assert (top / "link").read_bytes() == data
        assert not (top / "link").is_symlink()
        (top / "link").unlink()
    assert (tmp_path / "victim").read_text() == "untouched"


def test_a_directory_that_takes_the_name_meanwhile(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink)
    (top / "file").mkdir()
    with pytest.raises(IsADirectory):
        sink.commit()
    sink.suspend()
    (top / "file").rmdir()
    sink = begin(root)
    assert sink.manifest.complete
    sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_a_planted_state_directory_is_refused(root: Root, top: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (top / ".fsmux").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="not a directory; remove it"):
        begin(root)
    (top / ".fsmux").unlink()
    (top / ".fsmux").touch()
    with pytest.raises(Exception, match="not a directory; remove it"):
        begin(root, b"small")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_directories_are_made_only_when_the_file_is_there(root: Root, top: Path) -> None:
    sink = begin(root, DATA, (b"a", b"b", b"c"))
    fill(sink, chunks=[0])
    assert os.listdir(top) == [".fsmux"]
    sink.discard()
    assert os.listdir(top) == []


def test_the_parents_of_new_directories_are_synced_once(top: Path) -> None:
    sys = Faulty()
    with Root.open(top, sys=sys) as root:
        for name, syncs in ((b"one", 1 + 1 + 2), (b"two", 1 + 1)):
            sink = begin(root, b"small", (b"a", b"b", name))
            fill(sink, b"small")
            sys.calls.clear()
            assert sink.commit()
            assert sys.calls.count("fsync") == syncs  # the part, its directory, and what is above it
            assert sys.calls.index("fsync") < sys.calls.index("rename")


def test_without_durability_nothing_is_synced(top: Path) -> None:
    sys = Faulty()
    with Root.open(top, sys=sys) as root:
        sink = begin(root, durability=Durability.NONE)
        fill(sink)
        assert not sink.checkpoint_due()
        sink.checkpoint()
        assert not sink.commit()
    assert not {"fsync", "fdatasync"} & set(sys.calls)


def test_the_state_directory_stays_while_it_is_kept(root: Root, top: Path) -> None:
    with root.keep_state():
        for name in (b"one", b"two"):
            sink = begin(root, b"small", (name,))
            fill(sink, b"small")
            sink.commit()
            assert [name.rpartition(".")[2] for name in state_of(top)] == ["guard"]
            assert (top / ".fsmux").exists()
    assert sorted(os.listdir(top)) == ["one", "two"]


def test_somebody_else_removes_the_empty_state_directory(root: Root, top: Path) -> None:
    with root.keep_state():
        (top / ".fsmux").rmdir()
        for data in (b"small", DATA):
            sink = begin(root, data)
            fill(sink, data)
            sink.commit()
            assert (top / "file").read_bytes() == data


# ---- limits and order -------------------------------------------------------------------------------------------


def test_nothing_is_written_outside_the_file_or_over_what_is_there(root: Root) -> None:
    sink = begin(root)
    fill(sink, chunks=[1])
    for offset, size in ((-1, 1), (len(DATA), 1), (len(DATA) - 1, 2), (CHUNK, 1), (CHUNK - 1, 2), (2 * CHUNK - 1, 9)):
        with pytest.raises(InternalError):
            sink.write((memoryview(bytes(size)),), offset)
    with pytest.raises(InternalError, match="before it is complete"):
        sink.commit()
    with pytest.raises(IntegrityError):
        sink.received(1, 5)
    sink.discard()


def test_a_size_beyond_all_limits_is_refused(root: Root, top: Path) -> None:
    with pytest.raises(RefusedError):
        open_sink(root, NAME, Identity(2**62, 1, b""), 0o644, CHUNK)
    with pytest.raises(BadName):
        open_sink(root, NAME, Identity(5, 1, b"x" * 65), 0o644, CHUNK)
    assert os.listdir(top) == []


def test_a_file_that_cannot_fit_is_refused_at_once(root: Root, top: Path) -> None:
    with pytest.raises(NoSpace):
        open_sink(root, NAME, Identity(2**45, 1, b""), 0o644, CHUNK)
    assert os.listdir(top) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EOPNOTSUPP])
def test_reserving(top: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "RESERVE_FROM", CHUNK)
    sys = Faulty(1, number, only={"fallocate"})
    with Root.open(top, sys=sys) as root:
        if number == errno.ENOSPC:
            with pytest.raises(NoSpace):
                begin(root)
            assert os.listdir(top) == []
        sink = begin(root)
        fill(sink)
        sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_checkpoints_are_due_by_time_and_by_bytes(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    sink = begin(root, clock=lambda: now)
    now += CHECKPOINT_SECONDS
    assert not sink.checkpoint_due()  # nothing was written
    fill(sink, chunks=[0])
    assert sink.checkpoint_due()
    sink.checkpoint()
    assert not sink.checkpoint_due()
    fill(sink, chunks=[1])
    assert not sink.checkpoint_due()
    sink._dirty += CHECKPOINT_BYTES
    assert sink.checkpoint_due()
    sink.discard()


def test_durable_is_said_only_after_the_part_was_synced(top: Path) -> None:
    sys = Faulty()
    with Root.open(top, sys=sys) as root:
        sink = begin(root)
        fill(sink, chunks=[0])
        sink.received(1, sink.write((memoryview(DATA)[CHUNK : 2 * CHUNK],), CHUNK))
        sys.calls.clear()
        sink.checkpoint()
        assert sys.calls == ["pwritev", "fstat", "fdatasync", "pwritev", "fdatasync"]
        sink.discard()


def test_what_was_durable_is_not_read_again(top: Path) -> None:
    sys = Faulty(only={"preadv"})
    with Root.open(top, sys=sys) as root:
        sink = begin(root)
        fill(sink, chunks=[0, 1, 3])
        sink.suspend()
        sys.calls.clear()
        sink = begin(root)
        assert set(sink.manifest.indices()) == {0, 1, 3}
        assert len(sys.calls) == 1  # the journal
        sink.discard()


@pytest.mark.parametrize("restore", [False, True])
def test_what_somebody_else_wrote_to_the_part_is_found_also_where_it_was_durable(
    root: Root, top: Path, restore: bool
) -> None:
    sink = begin(root)
    fill(sink, chunks=[0, 1, 3])
    sink.suspend()
    part = next((top / ".fsmux").glob("*.part"))
    facts = part.stat()
    with part.open("r+b") as file:
        file.seek(CHUNK + 5)
        file.write(b"not from us")
    mtime_ns = facts.st_mtime_ns + (0 if restore else 1)
    while part.stat().st_ctime_ns == facts.st_ctime_ns:  # clocks of file systems may have steps of 4 ms
        os.utime(part, ns=(facts.st_atime_ns, mtime_ns))
    sink = begin(root)
    assert set(sink.manifest.indices()) == {0, 3}
    fill(sink)
    sink.commit()
    assert (top / "file").read_bytes() == DATA


@pytest.mark.parametrize("name", ["fdatasync", "fsync"])
def test_after_a_failed_sync_nothing_is_trusted(top: Path, name: str) -> None:
    sys = Faulty(1, only={name})
    with Root.open(top, sys=sys) as root:
        sink = begin(root)
        if name == "fdatasync":
            fill(sink, chunks=[0, 1])
            with pytest.raises(StorageError, match="could not keep"):
                sink.checkpoint()
            with pytest.raises(StorageError):
                sink.write((memoryview(b"x"),), 3 * CHUNK)
        fill_all = name == "fsync"
        if fill_all:
            fill(sink, chunks=range(5))
            sink.checkpoint()
            fill(sink)
            with pytest.raises(StorageError):
                sink.commit()
        for again in (sink.checkpoint, sink.commit):
            with pytest.raises(StorageError):
                again()
        sink.suspend()
        assert not (top / "file").exists()
        sys.calls.clear()
        sink = begin(root)
        held = sink.manifest.chunks_held
        assert held == (6 if fill_all else 2)
        assert sys.calls.count("preadv") == 0  # only fsync/fdatasync are counted by this twin
        fill(sink)
        sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_after_a_failed_sync_every_chunk_is_read_again(top: Path) -> None:
    with Root.open(top, sys=Faulty(2, only={"fdatasync"})) as root:
        sink = begin(root)
        fill(sink, chunks=[0, 1, 2])
        with pytest.raises(StorageError):  # the second fdatasync: of the journal; harmless
            sink.checkpoint()
        sink.suspend()
    with Root.open(top, sys=Faulty(1, only={"fsync"})) as root:
        sink = begin(root)
        sink.suspend()
    sys = Faulty()
    with Root.open(top, sys=sys) as root:
        sink = begin(root)
        assert sys.calls.count("preadv") == 1 + 3
        sink.discard()


def test_the_part_is_exchanged_under_our_hands(root: Root, top: Path) -> None:
    sink = begin(root)
    fill(sink)
    part = next((top / ".fsmux").glob("*.part"))
    part.unlink()
    part.write_bytes(b"x" * len(DATA))
    with pytest.raises(StorageError, match="removed by somebody else"):
        sink.commit()
    sink.discard()
    sink = begin(root)
    fill(sink)
    os.truncate(next((top / ".fsmux").glob("*.part")), 5)
    with pytest.raises(IntegrityError, match="changed by somebody else"):
        sink.commit()
    sink.discard()
    assert os.listdir(top) == []


class Rotten(Faulty):
    """A disk that gives other bytes back, once they are no longer in the cache."""

    def drop_cache(self, fd: int) -> None:
        super().drop_cache(fd)
        os.pwrite(fd, b"rot", CHUNK + 7)


@pytest.mark.parametrize("durability", [Durability.BATCH, Durability.NONE])
def test_what_the_disk_does_not_give_back_is_not_committed(top: Path, durability: Durability) -> None:
    with Root.open(top, sys=Rotten()) as root:
        sink = begin(root, verify=True, durability=durability)
        fill(sink)
        with pytest.raises(StorageError, match=r"other bytes than were written to it, in chunk 1;"):
            sink.commit()
        assert not (top / "file").exists()
        sink.suspend()
    with Root.open(top) as root:
        sink = begin(root, verify=True, durability=durability)
        assert fill(sink) == [1]
        sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_reading_back_comes_after_the_sync(top: Path) -> None:
    sys = Faulty(only={"fsync", "drop_cache", "preadv", "rename"})
    with Root.open(top, sys=sys) as root:
        sink = begin(root, DATA[: 2 * CHUNK], verify=True)
        fill(sink, DATA[: 2 * CHUNK])
        sys.calls.clear()
        assert sink.commit()
    assert sys.calls == ["fsync", "drop_cache", "preadv", "preadv", "rename", "fsync"]


# ---- earlier versions --------------------------------------------------------------------------------------------


def reuse(sink: Sink, data: bytes) -> int:
    """Keep what is equal in ``data``, as a sender would say; how many bytes that is."""
    kept = 0
    known = list(sink.basis_digests())
    for offset, length, digest in known:
        assert length
        if xxhash.xxh3_128_digest(data[offset : offset + length]) != digest:
            continue
        found = sink.copy_from_basis(Extent(offset, length))
        assert found == zlib.crc32(data[offset : offset + length])
        kept += length
        cut = sink.manifest.map
        index = offset // cut.chunk_size
        if cut.extent(index) == Extent(offset, length):
            sink.received(index, found)
    return kept


def test_a_file_that_grew_is_sent_only_its_growth(root: Root, top: Path) -> None:
    old, new = DATA[: 2 * CHUNK + 100], DATA
    (top / "file").write_bytes(old)
    sink = begin(root, new)
    assert sink.basis is not None
    assert sink.basis.size == len(old)
    assert [known[:2] for known in sink.basis_digests()] == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 100)]
    assert reuse(sink, new) == len(old)
    rest = memoryview(new)[len(old) : 3 * CHUNK]
    sink.write((rest,), len(old))
    sink.received(2, zlib.crc32(new[2 * CHUNK : 3 * CHUNK]))
    assert fill(sink, new) == [3, 4, 5]
    sink.commit()
    assert (top / "file").read_bytes() == new


def test_a_small_file_that_grew(root: Root, top: Path) -> None:
    (top / "file").write_bytes(b"a first line\n")
    sink = begin(root, b"a first line\na second\n")
    assert reuse(sink, b"a first line\na second\n") == 13
    sink.write((memoryview(b"a second\n"),), 13)
    sink.received(0, zlib.crc32(b"a first line\na second\n"))
    sink.commit()
    assert (top / "file").read_bytes() == b"a first line\na second\n"


def test_a_file_that_shrank(root: Root, top: Path) -> None:
    (top / "file").write_bytes(DATA)
    new = DATA[: 2 * CHUNK + 50]
    sink = begin(root, new)
    assert reuse(sink, new) == len(new)
    assert sink.manifest.complete
    sink.commit()
    assert (top / "file").read_bytes() == new


def test_what_is_left_of_another_version_is_reused_in_place(root: Root, top: Path) -> None:
    sink = begin(root, OTHER)
    fill(sink, OTHER, chunks=[0, 1, 5])
    sink.suspend()
    sink = begin(root, DATA)
    assert sink.manifest.bytes_held == 0
    assert sink.basis is not None
    sink.suspend()  # before anything of the new version: the old one stays
    sink = begin(root, OTHER)
    assert list(sink.manifest.indices()) == [0, 1, 5]
    sink.suspend()
    sink = begin(root, DATA)
    assert reuse(sink, DATA) == CHUNK + 777
    sink.suspend()
    sink = begin(root, DATA)
    assert list(sink.manifest.indices()) == [0, 5]
    assert fill(sink) == [1, 2, 3, 4]
    sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_the_part_and_the_finished_file_together(root: Root, top: Path) -> None:
    (top / "file").write_bytes(DATA[: 3 * CHUNK] + bytes(2 * CHUNK))
    sink = begin(root, OTHER)
    fill(sink, OTHER, chunks=[0, 4])
    sink.suspend()
    sink = begin(root, DATA)
    assert sink.basis is not None
    assert [piece.in_part for piece in sink.basis.pieces] == [True, False, False, False, True]
    assert reuse(sink, DATA) == 4 * CHUNK
    assert fill(sink) == [3, 5]
    sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_another_chunk_size_reuses_too(root: Root, top: Path) -> None:
    big = open_sink(root, NAME, identity(DATA), 0o600, 2 * CHUNK, owner=b"me")
    for index in (0, 2):
        extent = big.manifest.map.extent(index)
        big.received(index, big.write((memoryview(DATA)[extent.offset : extent.end],), extent.offset))
    big.suspend()
    sink = begin(root)
    assert reuse(sink, DATA) == 2 * CHUNK + CHUNK + 777
    fill(sink)
    sink.commit()
    assert (top / "file").read_bytes() == DATA


def test_a_shrunken_version_over_a_longer_part(root: Root, top: Path) -> None:
    sink = begin(root, DATA)
    fill(sink)
    sink.suspend()
    new = DATA[: 2 * CHUNK + 50]
    sink = begin(root, new)
    assert reuse(sink, new) == len(new)
    sink.commit()
    assert (top / "file").read_bytes() == new


def test_the_existing_file_is_changed_while_it_is_reused(root: Root, top: Path) -> None:
    (top / "file").write_bytes(DATA)
    sink = begin(root, DATA)
    known = list(sink.basis_digests())
    with (top / "file").open("r+b") as file:
        file.write(b"!")
    with pytest.raises(IntegrityError, match="existing file changed"):
        sink.copy_from_basis(Extent(*known[0][:2]))
    assert sink.copy_from_basis(Extent(CHUNK, 2 * CHUNK)) == zlib.crc32(DATA[CHUNK : 3 * CHUNK])
    os.truncate(top / "file", 3 * CHUNK)
    with pytest.raises(IntegrityError):
        sink.copy_from_basis(Extent(3 * CHUNK, CHUNK))
    for extent in (Extent(1, CHUNK), Extent(CHUNK, CHUNK - 1)):
        with pytest.raises(InternalError):
            sink.copy_from_basis(extent)
    sink.discard()
    assert os.listdir(top) == ["file"]
