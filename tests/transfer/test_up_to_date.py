"""What counts as up to date: bytes with ``--checksum``, and what is newer with ``--update``."""

from __future__ import annotations

import errno
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from fsmux.columns import REGULAR, Group
from fsmux.errors import FsmuxError, Unsupported
from fsmux.events import FileFailed, FileSkipped, FilesSkipped
from fsmux.files import comparing
from fsmux.files.syscalls import Syscalls
from fsmux.limits import MIB, SMALL_FILE
from fsmux.records import Durability
from fsmux.wire.messages import Digest, Digests, Look

from .kit import Move, Side, content
from .test_delete import Mirror, fill
from .test_trees import inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Sync(Mirror):
    async def __call__(self, *names: str, **options: Any) -> Any:
        return await super().__call__(*names, **{"delete": False} | options)

    @property
    def skipped(self) -> dict[str, str]:
        found = {event.path: event.reason for event in self.side.of(FileSkipped)}
        for event in self.side.of(FilesSkipped):
            found |= {one.path: one.reason for one in event.each()}
        return found


@pytest.fixture
def sync(move: Move) -> Sync:
    return Sync(move.side, move.direction)


def age(path: Path, seconds: float) -> None:
    facts = path.stat()
    os.utime(path, ns=(1, facts.st_mtime_ns + int(seconds * 10**9)))


# ---- bytes ---------------------------------------------------------------------------------------------------------


async def test_equal_bytes_do_not_travel_and_get_time_and_mode(sync: Sync) -> None:
    source = fill(sync.source / "s", "same", "d/touched", "d/mode")
    (source / "large").write_bytes(content(3 * SMALL_FILE, 1))
    (source / "large-touched").write_bytes(content(3 * SMALL_FILE, 2))
    (source / "empty").write_bytes(b"")
    await sync("s/")
    for name in ("d/touched", "large-touched", "empty"):
        age(sync.target / name, -5)
    (sync.target / "d/mode").chmod(0o600)
    summary = await sync("s/", checksum=True)
    assert (summary.files, summary.bytes_sent, summary.failed) == (0, 0, 0)
    assert {path for action, path in sync.changed if action == "set attributes of"} >= {
        "d/touched", "d/mode", "large-touched", "empty",
    }  # fmt: skip
    assert set(sync.skipped) == {"same", "large"}
    assert inventory(sync.target) == inventory(source)


@pytest.mark.parametrize("durability", Durability)
async def test_mode_and_time_of_single_files_are_synced(
    sync: Sync, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    source = fill(sync.source / "s", *"abc")
    names = [f"s/{name}" for name in "abc"]
    await sync(*names)
    for name in "abc":
        (source / name).chmod(0o640)
    synced: list[int] = []
    failing = (sync.target / "b").stat().st_ino

    def fsync(self: Syscalls, fd: int) -> None:
        facts = os.fstat(fd)
        synced.append(facts.st_ino)
        assert facts.st_mode & 0o777 == 0o640
        if facts.st_ino == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Syscalls, "fsync", fsync)
    summary = await sync(*names, durability=durability)
    expected = [] if durability is Durability.NONE else [(sync.target / name).stat().st_ino for name in "abc"]
    assert sorted(synced) == sorted(expected)
    assert [event.path for event in sync.side.of(FileFailed)] == ["b"] * bool(expected)
    assert (summary.files, summary.failed) == (0, bool(expected))
    done = [path for action, path in sync.changed if action == "set attributes of"]
    assert sorted(done) == (["a", "c"] if expected else ["a", "b", "c"])


async def test_other_bytes_of_the_same_size_and_time_travel(sync: Sync) -> None:
    source = fill(sync.source / "s", "small", "kept")
    (source / "large").write_bytes(content(3 * SMALL_FILE, 1))
    await sync("s/")
    for name in ("small", "large"):
        there, facts = sync.target / name, (sync.target / name).stat()
        data = bytearray(there.read_bytes())
        data[-1] ^= 1
        there.write_bytes(data)
        os.utime(there, ns=(1, facts.st_mtime_ns))
    assert (await sync("s/")).files == 0
    dry = await sync("s/", checksum=True, dry_run=True)
    assert {path for action, path in sync.would if action == "send"} == {"small", "large"}
    summary = await sync("s/", checksum=True)
    assert (dry.files, summary.files) == (2, 2)
    assert inventory(sync.target) == inventory(source)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of files of which digests are made, on either side."""
    found: list[bytes] = []
    digest = comparing._digest

    def noting(root: Any, directory: int, name: bytes, *rest: Any) -> bytes | None:
        found.append(name)
        return digest(root, directory, name, *rest)

    monkeypatch.setattr(comparing, "_digest", noting)
    return found


@pytest.fixture
def swapped(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """When both sides have read the file ``swapped``, another one of its size takes its place at the destination."""
    looks = 0
    digest = comparing._digest

    def swapping(root: Any, directory: int, name: bytes, *rest: Any) -> bytes | None:
        nonlocal looks
        found = digest(root, directory, name, *rest)
        looks += name == b"swapped"
        if looks == 2:
            (sync.target / "new").write_bytes(b"another")
            (sync.target / "new").rename(sync.target / "swapped")
            looks += 1
        return found

    monkeypatch.setattr(comparing, "_digest", swapping)


@pytest.mark.parametrize("name", ["s/", "s/swapped"])
async def test_what_takes_the_place_of_a_file_that_was_compared_does_not_get_its_time(
    sync: Sync, swapped: None, name: str
) -> None:
    source = fill(sync.source / "s", "swapped")
    fill(sync.target, "swapped")
    age(sync.target / "swapped", -5)
    summary = await sync(name, checksum=name != "s/")
    assert (summary.files, summary.failed) == (0, 1)
    (failed,) = sync.side.of(FileFailed)
    assert (failed.code, failed.retryable) == ("BUSY", True)
    assert failed.message == "swapped: it was changed here meanwhile; run it again"
    assert (sync.target / "swapped").read_bytes() == b"another"
    assert (sync.target / "swapped").stat().st_mtime_ns != (source / "swapped").stat().st_mtime_ns
    assert (await sync(name)).files == 1
    assert inventory(sync.target) == inventory(source)


async def test_times_that_no_message_can_say_become_the_nearest_one(sync: Sync) -> None:
    source = fill(sync.source / "s", "a", "d/b", "new")
    late = 10**10 * 10**9  # in 2286
    (source / "link").symlink_to("a")
    (source / "large").write_bytes(content(5 * MIB))
    for name in ("a", "large", "link", "d"):
        os.utime(source / name, ns=(0, late), follow_symlinks=False)
    if (source / "a").stat().st_mtime_ns != late:
        pytest.skip("this file system has no such times")
    fill(sync.target, "new")
    os.utime(sync.target / "new", ns=(0, late))
    assert (await sync("s/")).failed == 0
    found = {name: (sync.target / name).lstat().st_mtime_ns for name in ("a", "large", "link", "d")}
    assert found == dict.fromkeys(found, 2**63 - 1)
    again = await sync("s/")
    assert (again.files, again.bytes_sent, sync.changed) == (0, 0, [])


async def test_other_sizes_are_not_read(sync: Sync, read: list[bytes]) -> None:
    source = fill(sync.source / "s", "a", "b")
    fill(sync.target, "a")
    (sync.target / "b").write_bytes(b"longer than that")
    assert (await sync("s/", checksum=True)).files == 1
    assert read == [b"a", b"a"]  # once on either side
    assert inventory(sync.target) == inventory(source)


async def test_what_differs_in_its_time_alone_is_compared_and_gets_that(sync: Sync, read: list[bytes]) -> None:
    source = fill(sync.source / "s", "same", "d/touched", "d/other", "d/newer")
    for number, name in enumerate(("medium", "medium-touched", "medium-other")):
        (source / name).write_bytes(content(3 * SMALL_FILE, number))
    await sync("s/")
    assert read == []
    for name in ("d/other", "medium-other"):
        (sync.target / name).write_bytes(bytes((source / name).stat().st_size))
    for name in ("d/touched", "d/other", "medium-touched", "medium-other"):
        shutil.copystat(source / name, sync.target / name)
        age(sync.target / name, -5)
    age(sync.target / "d/newer", 50)
    dry = await sync("s/", dry_run=True, update=True)
    would = set(sync.would)
    summary = await sync("s/", update=True)
    assert {path for action, path in would if action == "send"} == {"d/other", "medium-other"}
    sent = sum((source / name).stat().st_size for name in ("d/other", "medium-other"))
    assert (dry.files, summary.files, summary.bytes_sent, summary.failed) == (2, 2, sent, 0)
    assert {path for action, path in sync.changed if action == "set attributes of"} >= {"d/touched", "medium-touched"}
    assert sorted(read) == sorted([b"touched", b"other", b"medium-touched", b"medium-other"] * 4)
    assert set(sync.skipped) >= {"same", "medium", "d/newer"}
    age(sync.target / "d/newer", -50)
    assert inventory(sync.target) == inventory(source)
    read.clear()
    assert (await sync("s/")).files == 0
    assert read == []


async def test_chunks_are_compared_of_what_has_several_of_them(sync: Sync, read: list[bytes]) -> None:
    source = sync.source / "s"
    source.mkdir()
    (source / "large").write_bytes(content(3 * SMALL_FILE, 1))
    await sync("s/")
    age(sync.target / "large", -5)
    summary = await sync("s/", chunk_size=SMALL_FILE)
    assert (summary.files, summary.bytes_sent, read) == (1, 0, [])
    assert inventory(sync.target) == inventory(source)


async def test_without_digests_what_has_another_time_is_sent(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(sync.source / "s", "a")
    await sync("s/")
    age(sync.target / "a", -5)
    monkeypatch.setattr("fsmux.moving.attempt.SYNC_FEATURE", "no such thing")
    summary = await sync("s/")
    assert (summary.files, summary.bytes_sent) == (1, (source / "a").stat().st_size)
    assert inventory(sync.target) == inventory(source)


async def test_a_single_file_is_compared_under_its_new_name(sync: Sync) -> None:
    fill(sync.source, "a")
    await sync("a")
    age(sync.target / "a", 9)
    summary = await sync("a", checksum=True)
    assert (summary.files, sync.changed) == (0, [("set attributes of", "a")])
    (sync.target / "a").write_bytes(b"A")
    assert (await sync("a", checksum=True)).files == 1


async def test_a_file_that_cannot_be_compared_is_sent(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sync.source / "s", "a")
    fill(sync.target, "a")
    monkeypatch.setattr(comparing, "_digest", lambda *_: None)
    summary = await sync("s/", checksum=True)
    assert (summary.files, summary.failed) == (1, 0)


async def test_many_files_are_compared_page_by_page(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.files.listing.GROUP_ENTRIES", 50)
    monkeypatch.setattr("fsmux.files.comparing.BATCH_FILES", 30)
    for number in range(700):
        fill(sync.source / "s", f"{number % 7}/{number:04d}")
    await sync("s/")
    for number in range(0, 700, 3):
        (sync.target / f"{number % 7}/{number:04d}").write_bytes(b"?" * len(f"{number % 7}/{number:04d}"))
    summary = await sync("s/", checksum=True)
    assert (summary.files, summary.skipped) == (234, 466)
    assert inventory(sync.target) == inventory(sync.source / "s")


async def test_with_both_what_is_newer_is_not_even_read(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sync.source / "s", "a", "b")
    fill(sync.target, "a", "b")
    (sync.target / "a").write_bytes(b"A")
    age(sync.target / "a", 1)
    summary = await sync("s/", checksum=True, update=True)
    assert (summary.files, sync.skipped) == (0, {"a": "newer at the destination", "b": "up to date"})


async def test_a_server_that_makes_no_digests_is_told(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sync.source / "s", "a")
    fill(sync.target, "a")
    monkeypatch.setattr("fsmux.moving.attempt.SYNC_FEATURE", "no such thing")
    with pytest.raises(Unsupported, match="both sides need this release"):
        await sync("s/", checksum=True)


async def test_comparing_can_be_called_off_within_a_file(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (sync.source / "s", sync.target):
        root.mkdir(exist_ok=True)
        (root / "large").write_bytes(bytes(8 * MIB))
    pieces = comparing.ranges.pieces
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def endless(sys: Any, fd: int, offset: int, length: int, poll: Any) -> Iterator[memoryview]:
        token.run_sync_soon(begun.set)
        while True:
            yield from pieces(sys, fd, offset, length, poll)

    monkeypatch.setattr(comparing.ranges, "pieces", endless)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(sync, "s/", checksum=True))
        await begun.wait()
        nursery.cancel_scope.cancel()
    await sync.side.idle()


# ---- times ---------------------------------------------------------------------------------------------------------


async def test_what_is_newer_there_is_left_alone_and_that_is_said(sync: Sync) -> None:
    source = fill(sync.source / "s", "newer", "older", "same", "d/newer", "link")
    (source / "large").write_bytes(content(3 * SMALL_FILE))
    for name in ("newer", "older", "same", "d/newer", "large"):
        fill(sync.target, name)
        (sync.target / name).write_bytes(b"there")
        os.utime(sync.target / name, ns=(1, (source / name).stat().st_mtime_ns))
    (sync.target / "link").symlink_to("newer")  # whatever its time, it is no file
    for name in ("newer", "d/newer", "large"):
        age(sync.target / name, 1e-9)
    age(sync.target / "older", -1e-9)
    (sync.target / "newer").chmod(0o600)
    dry = await sync("s/", update=True, dry_run=True)
    sent = {path for action, path in sync.would if action == "send"}
    real = await sync("s/", update=True)
    assert sent == {"older", "same", "link"}
    assert dry.files == real.files == 3
    assert sync.skipped == dict.fromkeys(("newer", "d/newer", "large"), "newer at the destination")
    assert (sync.target / "newer").read_bytes() == b"there"
    assert (sync.target / "newer").stat().st_mode & 0o777 == 0o600
    assert (sync.target / "same").read_bytes() == b"same"


async def test_a_single_file_that_is_newer_there_is_left_alone(sync: Sync) -> None:
    fill(sync.source, "a")
    fill(sync.target, "a")
    (sync.target / "a").write_bytes(b"mine")
    summary = await sync("a", update=True)
    assert (summary.files, sync.skipped) == (0, {"a": "newer at the destination"})


# ---- what a peer may ask for ---------------------------------------------------------------------------------------


def files(*names: bytes, size: int = 1, directory: tuple[bytes, ...] = ()) -> Group:
    count = len(names)
    return Group(directory, list(names), [size] * count, [0] * count, [REGULAR] * count)


async def ask(side: Side, *groups: Group) -> list[bytes | None]:
    async with side.client.connection.open_stream(Digest((), groups), end=True) as stream:
        found: list[bytes | None] = []
        while (answer := await stream.receive()) is not None:
            assert isinstance(answer, Digests)
            found += answer.digests
        return found


async def test_digests_stay_below_the_root_and_tell_nothing_of_anything_else(side: Side, tmp_path: Path) -> None:
    fill(tmp_path / "outside", "f")
    fill(side.served, "a", ".fsmux/f", "d/b")
    (side.served / "link").symlink_to("a")
    (side.served / "away").symlink_to(tmp_path / "outside")
    os.mkfifo(side.served / "pipe")
    found = await ask(
        side, files(b"a", b"link", b"pipe", b"d", b"none"), files(b"a", size=2), files(b"f", directory=(b"away",)),
        files(b"f", directory=(b".fsmux",)), files(b".fsmux"), files(b"f", directory=(b"no",)),
    )  # fmt: skip
    assert [one is not None for one in found] == [True] + [False] * 9


@pytest.mark.parametrize("group", [Group((b"d",)), Group((), [b"a"], [1], [0], [0o040755])])
async def test_what_is_no_file_cannot_be_asked_for(side: Side, group: Group) -> None:
    with pytest.raises(FsmuxError):
        await ask(side, group)


async def test_a_digest_is_followed_by_digests_only(side: Side) -> None:
    fill(side.served, "a")
    async with side.client.connection.open_stream(Digest((), (files(b"a"),))) as stream:
        await stream.send(Look((), ((),)))
        await stream.expect_message(Digests)
        with pytest.raises(FsmuxError):
            await stream.receive()
