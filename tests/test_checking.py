"""A tree beside its manifest: what is found, and that nothing else is."""

from __future__ import annotations

import hashlib
import io
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from fsmux import checking, events
from fsmux.checking import Check, check_tree, in_order, sha256_tree, write_tree
from fsmux.errors import NotFound
from fsmux.files import reading
from fsmux.files.digestfile import Reader, Writer
from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls
from fsmux.limits import MIB, MIN_CHUNK_SIZE
from fsmux.records import Extent, Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

CHUNK = MIN_CHUNK_SIZE
BIG = 7 * CHUNK + 5


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small trees take several tasks, and files several runs."""
    monkeypatch.setattr(reading, "RUN_BYTES", 2 * CHUNK)
    monkeypatch.setattr(reading, "BATCH_FILES", 3)
    monkeypatch.setattr(checking, "THREADS", 4)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "d/e").mkdir(parents=True)
    for number in range(10):
        (top / "d" / f"{number}").write_bytes(os.urandom(100 * number))
    (top / "d/e/big").write_bytes(os.urandom(BIG))
    (top / "link").symlink_to("d/1")
    (top / "new\nline\udcff").write_bytes(b"x")
    return top


async def manifest_of(
    tree: Path, observer: events.Observer = events.ignore, *, beneath: Parts = (), aside: Parts | None = None
) -> io.BytesIO:
    file = io.BytesIO()
    with Root.open(tree) as root:
        writer = Writer(file, CHUNK)
        await write_tree(root, writer, CHUNK, observer, beneath=beneath, aside=aside)
        writer.close()
    file.seek(0)
    return file


class Seen:
    """An observer that keeps what was found."""

    def __init__(self) -> None:
        self.found: list[events.Event] = []
        self.bytes = 0

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.FileDamaged() | events.FileMissing() | events.FileExtra() | events.FileFailed():
                self.found.append(event)
            case events.FilesDone():
                self.bytes += event.bytes
            case events.FileProgress(_, count):
                self.bytes += count


async def checked(
    tree: Path, manifest: io.BytesIO, *, sys: Syscalls | None = None, beneath: Parts = (), extra: bool = False
) -> tuple[Check, Seen]:
    seen = Seen()
    manifest.seek(0)
    with Root.open(tree, sys=sys or Syscalls()) as root:
        check = await check_tree(root, Reader(manifest, "m"), seen, beneath=beneath, extra=extra)
    return check, seen


def spoil(path: Path, offset: int) -> None:
    """Change a byte and nothing else, as a disk does."""
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        before = file.read(1)
        file.seek(offset)
        file.write(bytes([before[0] ^ 1]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


async def test_a_tree_is_as_its_manifest_says(tree: Path) -> None:
    check, seen = await checked(tree, await manifest_of(tree), extra=True)
    assert (check.files, check.bytes) == (12, 4500 + BIG + 1)
    assert seen.found == []
    assert seen.bytes == check.bytes


async def test_records_come_in_the_order_of_the_walk_and_say_what_the_files_are(tree: Path) -> None:
    records = list(Reader(await manifest_of(tree), "m"))
    assert [record.parts[-1] for record in records] == [b"new\nline\xff", *map(b"%d".__mod__, range(10)), b"big"]
    facts = (tree / "d/e/big").stat()
    assert (records[-1].size, records[-1].mtime_ns) == (BIG, facts.st_mtime_ns)
    assert len(records[-1].chunks) == 8 * 16


async def test_what_rotted_is_told_by_chunk(tree: Path) -> None:
    manifest = await manifest_of(tree)
    spoil(tree / "d/e/big", 3 * CHUNK)
    spoil(tree / "d/e/big", BIG - 1)
    spoil(tree / "d/9", 0)
    check, seen = await checked(tree, manifest)
    small, big = seen.found
    assert isinstance(small, events.FileDamaged)
    assert isinstance(big, events.FileDamaged)
    assert (small.path, small.chunks) == ("d/9", [Extent(0, 900)])
    assert (big.path, big.chunks) == ("d/e/big", [Extent(3 * CHUNK, CHUNK), Extent(7 * CHUNK, 5)])
    assert "2 of 8 chunks differ" in big.reason
    assert "not modified since" in big.reason
    assert check.missing == 0


@pytest.mark.parametrize(
    ("change", "reason", "chunks"),
    [
        (lambda path: os.truncate(path, 2 * CHUNK), "bytes instead of", 6),
        (lambda path: path.write_bytes(path.read_bytes() + b"+"), "bytes instead of", 0),
        (lambda path: path.write_bytes(os.urandom(BIG)), "it was modified since", 8),
        (lambda path: (path.unlink(), path.mkdir()), "something else", 1),
        (lambda path: (path.rename(path.with_name("other")), path.symlink_to("other")), "something else", 1),
    ],
)
async def test_what_was_done_to_a_file_is_said(
    tree: Path, change: Callable[[Path], object], reason: str, chunks: int
) -> None:
    manifest = await manifest_of(tree)
    change(tree / "d/e/big")
    _, seen = await checked(tree, manifest)
    (found,) = seen.found
    assert isinstance(found, events.FileDamaged)
    assert reason in found.reason
    assert len(found.chunks) == chunks


async def test_what_is_missing_and_what_is_extra(tree: Path) -> None:
    manifest = await manifest_of(tree)
    (tree / "d/5").rename(tree / "d/50")
    (tree / "d/e/big").unlink()
    (tree / "d/e").rmdir()
    (tree / "d/e").write_text("a file where a directory was")
    check, seen = await checked(tree, manifest, extra=True)
    assert check.missing == 2
    assert sorted(map(repr, seen.found)) == sorted(
        map(
            repr,
            [
                events.FileMissing("d/5", 500), events.FileMissing("d/e/big", BIG), events.FileExtra("d/50", 500),
                events.FileExtra("d/e", 28),
            ],
        )
    )  # fmt: skip


async def test_a_touched_file_with_its_bytes_is_good(tree: Path) -> None:
    manifest = await manifest_of(tree)
    os.utime(tree / "d/9", ns=(1, 1))
    (tree / "d/9").chmod(0o600)
    check, _ = await checked(tree, manifest)
    assert not check.damaged


async def test_a_part_of_a_tree_can_be_checked(tree: Path) -> None:
    manifest = await manifest_of(tree)
    spoil(tree / "d/9", 0)
    check, _ = await checked(tree, manifest, beneath=(b"d", b"e"), extra=True)
    assert (check.files, check.damaged, check.extra) == (1, [], 0)
    check, _ = await checked(tree, manifest, beneath=(b"d", b"9"))
    assert (check.files, len(check.damaged)) == (1, 1)
    with pytest.raises(NotFound):
        await checked(tree, manifest, beneath=(b"link",))


async def test_a_manifest_in_its_own_tree_leaves_itself_out(tree: Path) -> None:
    (tree / "m").write_text("the manifest, say")
    with_it, without = await manifest_of(tree), await manifest_of(tree, aside=(b"m",))
    assert Reader(with_it, "m").files == Reader(without, "m").files + 1


async def test_one_file_alone(tree: Path) -> None:
    (record,) = Reader(await manifest_of(tree, beneath=(b"d", b"e", b"big")), "m")
    assert record.parts == (b"d", b"e", b"big")


class BadSector(Syscalls):
    """A disk that cannot read one range."""

    def __init__(self, size: int, start: int, stop: int) -> None:
        self.bad = (size, start, stop)
        self.dropped = 0

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        size, start, stop = self.bad
        if start <= offset < stop and self.fstat(fd).st_size == size:
            raise OSError(5, "Input/output error")
        return super().preadv(fd, buffers, offset)

    def drop_cache(self, fd: int) -> None:
        self.dropped += 1
        super().drop_cache(fd)


async def test_a_sector_that_cannot_be_read_is_a_damaged_chunk_and_not_the_end(tree: Path) -> None:
    manifest = await manifest_of(tree)
    sys = BadSector(BIG, 4 * CHUNK, 5 * CHUNK)
    check, _ = await checked(tree, manifest, sys=sys)
    assert [damage.chunks for damage in check.damaged] == [[Extent(4 * CHUNK, CHUNK)]]
    assert sys.dropped == check.files, "the disk is asked, and not the cache"


async def test_what_may_not_be_read_is_told_and_is_not_called_damaged(tree: Path) -> None:
    class Closed(Syscalls):
        def openat2(self, directory: int, parts: Parts, flags: int, resolve: int) -> int:
            if parts[-1:] == (b"9",):
                raise PermissionError(13, "Permission denied")
            return super().openat2(directory, parts, flags, resolve)

    check, seen = await checked(tree, await manifest_of(tree), sys=Closed())
    assert (check.unreadable, check.damaged) == (1, [])
    (failed,) = seen.found
    assert isinstance(failed, events.FileFailed)
    assert (failed.path, failed.code) == ("d/9", "PERMISSION")


async def test_a_file_that_changes_while_it_is_read_gets_no_record(tree: Path) -> None:
    class Growing(Syscalls):
        def fstat(self, fd: int) -> os.stat_result:
            facts = super().fstat(fd)
            if facts.st_size == 900:
                os.truncate(tree / "d/9", 901)
            return facts

    seen, file = Seen(), io.BytesIO()
    with Root.open(tree, sys=Growing()) as root:
        writer = Writer(file, CHUNK)
        assert await write_tree(root, writer, CHUNK, seen, beneath=(), aside=None) == 1
    (failed,) = seen.found
    assert isinstance(failed, events.FileFailed)
    assert (failed.path, failed.code) == ("d/9", "SOURCE_CHANGED")
    assert writer.files == 11


async def test_sums_are_those_of_the_files(tree: Path) -> None:
    sums: dict[bytes, str] = {}
    with Root.open(tree) as root:
        assert await sha256_tree(root, lambda parts, sum: sums.update({parts[-1]: sum}), events.ignore, beneath=()) == 0
    assert len(sums) == 12
    assert sums[b"big"] == hashlib.sha256((tree / "d/e/big").read_bytes()).hexdigest()


async def test_results_come_in_order_however_long_each_takes() -> None:
    later = trio.Event()
    taken: list[int] = []

    def work(number: int) -> int:
        if number == 0:
            trio.from_thread.run(later.wait)
        if number == 5:
            trio.from_thread.run_sync(later.set)
        return -number

    def items() -> Iterator[int]:
        yield from range(40)

    await in_order(items(), work, lambda number, result: taken.append(number + result + number))
    assert taken == list(range(40))


async def test_a_check_can_be_cancelled(tree: Path) -> None:
    (tree / "huge").touch()
    os.truncate(tree / "huge", 64 * MIB)
    with trio.move_on_after(0) as scope:
        await manifest_of(tree, partial(lambda event: None))
    assert scope.cancelled_caught
