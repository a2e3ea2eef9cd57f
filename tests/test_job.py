"""A job that loses its connections, at every point of it: all arrives, and is told and counted once."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
import trio

from fsmux import job
from fsmux.columns import Act
from fsmux.errors import ConnectFailed, ConnectionLost, Damaged, FsmuxError, PeerShutdown, ProtocolError, RefusedError
from fsmux.events import (
    REMOVE,
    FileDone,
    FileFailed,
    FilesDone,
    FileStarted,
    NamesChanged,
    Planned,
    Retrying,
    Summary,
    Warned,
)  # fmt: skip
from fsmux.files.leftovers import ABANDONED_SECONDS
from fsmux.files.root import Root
from fsmux.files.sink import Sink
from fsmux.files.syscalls import Syscalls
from fsmux.files.unpacking import Unpacker
from fsmux.job import Job, Options
from fsmux.limits import KIB, MIB
from fsmux.records import Durability, printable
from fsmux.urls import Local, Remote, parse_remote
from tests.files.test_leftovers import leave_unfinished, loose_file
from tests.transfer.kit import Side, content, descriptors, facing, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fsmux.events import Event

SERVER = "fsmux+unix:///anywhere:/"
CHUNK = 64 * KIB


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.backoff.FIRST_SECONDS", 0.0)


class Case:
    """A job in one direction, and its connections."""

    def __init__(self, side: Side, direction: str) -> None:
        self.side = side
        self.up = direction == "up"
        self.source, self.target = (side.there, side.served) if self.up else (side.served, side.there)

    def cut(self) -> None:
        """End all connections of the job, as if the cable were cut."""
        for connection in self.side.behind[1:]:
            connection._fail(ConnectionLost("the cable was cut"))

    async def run(self, name: str, to: str = "", retries: int | None = None, **options: Any) -> Summary:
        self.side.events.clear()
        own, remote = os.fspath(self.side.there), parse_remote(SERVER)
        label = name.rstrip("/")
        near = Local(f"{own}/{label if self.up else to}", name.endswith("/"))
        far: Remote = parse_remote(SERVER + (to if self.up else name))
        assert far.server == remote.server
        options = {"chunk_size": CHUNK, "durability": Durability.NONE, **options}
        places = ((near,), far) if self.up else ((far,), near)
        return await job.run(Job(*places, retries=retries, options=Options(**options)), self.side.observe)

    def told(self) -> list[str]:
        """Files that were told to be done."""
        names = [event.path for event in self.side.of(FileDone)]
        for event in self.side.of(FilesDone):
            names += [printable((*event.directory, name)) for name in event.names]
        return sorted(names)


@pytest.fixture
async def case(direction: str, served: Path, there: Path) -> AsyncIterator[Case]:
    async with facing("unix", served, there, check=False) as side:
        yield Case(side, direction)


def at(number: int, case: Case, kind: type[Event] | tuple[type[Event], ...] | None = None) -> Callable[[Event], None]:
    """Cuts at the ``number``-th event (of a kind), and not before that many again."""
    left = number

    def look(event: Event) -> None:
        nonlocal left
        if isinstance(event, Retrying | Summary) or (kind is not None and not isinstance(event, kind)):
            return
        left -= 1
        if left == 0:
            case.cut()

    return look


def make_tree(top: Path) -> dict[str, bytes]:
    """Small files, a directory of them, large ones, and a link."""
    files = {f"s{number}": content(100 + number, number) for number in range(5)}
    files |= {f"d/{number}": content(2000, 50 + number) for number in range(4)}
    files |= {"large": content(700 * KIB, 99), "d/large": content(300 * KIB, 98)}
    (top / "d").mkdir(parents=True)
    for name, data in files.items():
        (top / name).write_bytes(data)
    (top / "link").symlink_to("large")
    return files


# ---- cut anywhere --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 26))
async def test_a_tree_that_is_cut_at_any_event(case: Case, number: int) -> None:
    files = make_tree(case.source / "tree")
    (case.target / "copy").mkdir()
    for name in ("s0", "s3"):  # up to date before
        (case.target / "copy" / name).write_bytes(files[name])
        times = (case.source / "tree" / name).stat()
        os.utime(case.target / "copy" / name, ns=(times.st_atime_ns, times.st_mtime_ns))
    case.side.on_event = at(number, case)
    summary = await case.run("tree/", "copy")
    assert {name: (case.target / "copy" / name).read_bytes() for name in files} == files
    assert case.told() == sorted(files.keys() - {"s0", "s3"})
    size = sum(map(len, files.values())) - len(files["s0"]) - len(files["s3"])
    assert (summary.files, summary.skipped, summary.failed, summary.bytes) == (9, 2, 0, size)
    assert summary.bytes_sent + summary.bytes_resumed >= size
    assert summary.retries == len(case.side.of(Retrying)) <= 1
    (planned,) = case.side.of(Planned)
    assert (planned.files, planned.bytes, planned.skipped) == (9, size, 2)
    assert os.readlink(case.target / "copy/link") == "large"
    assert state_of(case.target) == set()


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("number", range(1, 10))
async def test_a_file_that_is_cut_again_and_again(case: Case, number: int, connections: int) -> None:
    data = content(3 * MIB)
    (case.source / "file").write_bytes(data)
    cuts = 0

    def look(event: Event) -> None:
        nonlocal cuts
        if isinstance(event, FileStarted):
            case.side.on_event = at_progress

    def at_progress(event: Event) -> None:
        nonlocal cuts
        cuts += 1
        if cuts % number == 0 and cuts < 12 * number:
            case.cut()
            case.side.on_event = look

    case.side.on_event = look
    summary = await case.run("file", "copy", retries=20, connections=connections)
    assert (case.target / "copy").read_bytes() == data
    assert case.told() == ["file"]
    assert (summary.files, summary.bytes, summary.skipped, summary.failed) == (1, len(data), 0, 0)
    (done,) = case.side.of(FileDone)
    assert (done.bytes_sent, done.bytes_resumed) == (summary.bytes_sent, summary.bytes_resumed)
    assert done.bytes_sent >= len(data)
    assert len(case.side.of(Planned)) == 1


async def test_several_sources_of_both_kinds(case: Case) -> None:
    if not case.up:
        pytest.skip("one source at a time there")
    first, second = case.source / "one", case.source / "two"
    make_tree(first)
    make_tree(second)
    (case.source / "single").write_bytes(content(300 * KIB))
    places = tuple(Local(os.fspath(case.source / name)) for name in ("one", "single", "two"))
    for number in range(1, 40, 3):
        case.side.events.clear()
        case.side.on_event = at(number, case)
        target = parse_remote(f"{SERVER}copy{number}/")
        options = Options(chunk_size=CHUNK, durability=Durability.NONE)
        summary = await job.run(Job(places, target, options=options), case.side.observe)
        assert (summary.files, summary.skipped, summary.failed) == (23, 0, 0)
        assert len(case.told()) == 23


async def test_nothing_stays_open(case: Case) -> None:
    make_tree(case.source / "tree")
    before = len(descriptors()) + 1  # a server keeps the root of what it has received open for the next one
    for number in range(3):
        case.side.on_event = at(4, case)
        await case.run("tree/", f"copy{number}")
        await case.side.idle()
        while len(descriptors()) > before:  # the server's ends of its connections are closed soon after ours
            await case.side.client.connection.ping()


# ---- committed, and nobody has heard of it -------------------------------------------------------------------------


async def test_a_file_whose_commit_was_never_heard_of_is_told_once(case: Case) -> None:
    data = content(MIB)
    (case.source / "file").write_bytes(data)
    commit, committed = Sink.commit, 0

    def commit_and_cut(sink: Sink, *args: Any) -> bool:
        nonlocal committed
        durable = commit(sink, *args)
        committed += 1
        if committed == 1:
            trio.from_thread.run_sync(case.cut)
        return durable

    with patch.object(Sink, "commit", commit_and_cut):
        summary = await case.run("file", "copy")
    assert (case.target / "copy").read_bytes() == data
    assert case.told() == ["file"]
    assert (summary.files, summary.skipped, summary.bytes_sent) == (1, 0, MIB)
    (done,) = case.side.of(FileDone)
    assert done.digest != "00000000"


async def test_packs_that_stand_and_were_not_heard_of_are_told_once(case: Case) -> None:
    files = make_tree(case.source / "tree")
    commit, cuts = Unpacker.commit, 0

    def commit_and_cut(unpacker: Unpacker, poll: Any = None) -> Any:
        nonlocal cuts
        failures = commit(unpacker, poll)
        cuts += 1
        if cuts == 1:
            trio.from_thread.run_sync(case.cut)
        return failures

    with patch.object(Unpacker, "commit", commit_and_cut):
        summary = await case.run("tree/", "copy")
    assert case.told() == sorted(files)
    assert (summary.files, summary.skipped, summary.failed) == (len(files), 0, 0)


def clutter(top: Path) -> set[str]:
    """What no source has."""
    names = {f"extra{number}" for number in range(3)} | {"d/extra", "d/other"}
    (top / "d").mkdir(parents=True, exist_ok=True)
    for name in names:
        (top / name).mkdir()
        (top / name / "inside").touch()
    return names


def removed(case: Case) -> list[str]:
    found = []
    for event in case.side.of(NamesChanged):
        found += [one.path for one in event.each() if one.action == REMOVE]
    return sorted(found)


@pytest.mark.parametrize("number", [*range(1, 25), 30, 40])
async def test_a_mirror_that_is_cut_at_any_event_removes_and_tells_once(case: Case, number: int) -> None:
    files = make_tree(case.source / "tree")
    names = clutter(case.target / "copy")
    case.side.on_event = at(number, case)
    summary = await case.run("tree/", "copy", delete=True)
    assert (summary.files, summary.deleted, summary.failed) == (len(files), 5, 0)
    assert removed(case) == sorted(names)
    assert not [name for name in names if (case.target / "copy" / name).exists()]


async def test_removals_that_were_done_and_not_heard_of_are_told_once(case: Case) -> None:
    make_tree(case.source / "tree")
    names = clutter(case.target / "copy")
    commit, cuts = Unpacker.commit, 0

    def commit_and_cut(unpacker: Unpacker, poll: Any = None) -> Any:
        nonlocal cuts
        removing = any(staged.group.act is Act.REMOVE for staged in unpacker._staged)
        failures = commit(unpacker, poll)
        if removing:
            cuts += 1
            if cuts == 1:
                trio.from_thread.run_sync(case.cut)
        return failures

    with patch.object(Unpacker, "commit", commit_and_cut):
        summary = await case.run("tree/", "copy", delete=True)
    assert summary.deleted == 5
    assert summary.retries == 1 or not case.up  # who has removed them here needs nobody to say so
    assert removed(case) == sorted(names)


# ---- what fails ----------------------------------------------------------------------------------------------------


async def test_a_file_that_fails_in_every_attempt_is_told_of_once(case: Case) -> None:
    files = make_tree(case.source / "tree")
    (case.target / "copy/large").mkdir(parents=True)
    (case.target / "copy/s1").mkdir()
    case.side.on_event = at(1, case, FileDone | FilesDone | FileStarted)  # type: ignore[arg-type]
    summary = await case.run("tree/", "copy")
    assert summary.retries == 1
    assert (summary.files, summary.failed) == (len(files) - 2, 2)
    assert sorted(event.path for event in case.side.of(FileFailed)) == ["large", "s1"]


async def test_a_server_that_goes_away_fails_no_file(case: Case) -> None:
    """It says so on each stream; the next connection finds another server."""
    files = make_tree(case.source / "tree")

    def look(event: Event) -> None:
        if isinstance(event, FileStarted):
            case.side.on_event = lambda event: None
            for stream in list(case.side.behind[-1]._table._streams.values()):
                stream.fail(PeerShutdown("it stops"))
                case.cut()

    case.side.on_event = look
    summary = await case.run("tree/", "copy")
    assert (summary.files, summary.failed) == (len(files), 0)
    assert not case.side.of(FileFailed)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionLost("x"), True),
        (PeerShutdown("x"), True),
        (ConnectFailed("x"), True),
        (Damaged("x"), True),
        (ProtocolError("x"), False),
        (RefusedError("x"), False),
    ],
)
async def test_what_is_met_by_another_attempt(case: Case, error: FsmuxError, again: bool) -> None:
    (case.source / "file").write_bytes(b"content")
    run, tries = job.Transfer.run, 0

    async def failing(transfer: job.Transfer, *places: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        await run(transfer, *places)

    with patch.object(job.Transfer, "run", failing):
        if again:
            assert (await case.run("file", "copy")).files == 1
        else:
            with pytest.raises(type(error), match=r"^x$"):
                await case.run("file", "copy")
    assert tries == 1 + again


async def test_attempts_that_bring_nothing_come_to_an_end(case: Case) -> None:
    """A file of one chunk cannot come in parts, and its connection never lives long enough."""
    (case.source / "file").write_bytes(content(3 * MIB))
    case.side.on_event = lambda event: case.cut() if isinstance(event, FileStarted) else None
    with pytest.raises(ConnectionLost, match="gave up after 3 further attempts"):
        await case.run("file", "copy", retries=3, chunk_size=4 * MIB)
    assert [event.attempt for event in case.side.of(Retrying)] == [1, 2, 3]
    assert not (case.target / "copy").exists()


async def test_the_first_connection(case: Case) -> None:
    (case.source / "file").write_bytes(b"content")
    refused = 0

    async def refuse(path: str) -> Any:
        nonlocal refused
        refused += 1
        raise ConnectFailed("nobody there")

    with patch("fsmux.client.dial_unix", refuse):
        with pytest.raises(ConnectFailed, match=r"^nobody there$"):
            await case.run("file", "copy")
        assert refused == 1
        with pytest.raises(ConnectFailed, match="gave up after 1 further attempt;"):
            await case.run("file", "copy", retries=1)
    assert refused == 3


async def test_a_rehearsal_is_not_repeated(case: Case) -> None:
    (case.source / "file").write_bytes(b"content")
    with patch.object(job.Transfer, "run", side_effect=ConnectionLost("x")), pytest.raises(ConnectionLost):
        await case.run("file", "copy", retries=5, dry_run=True)


async def test_while_it_waits_it_can_be_cancelled(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.backoff.FIRST_SECONDS", 1e6)
    (case.source / "file").write_bytes(content(MIB))
    with trio.CancelScope() as scope:

        def look(event: Event) -> None:
            if isinstance(event, FileStarted):
                case.cut()
            if isinstance(event, Retrying):
                assert event.delay >= 15
                scope.cancel()

        case.side.on_event = look
        await case.run("file", "copy")
    assert scope.cancelled_caught


async def test_further_connections_come_back_with_the_first(case: Case) -> None:
    (case.source / "file").write_bytes(content(2 * MIB))
    case.side.on_event = at(1, case, FileStarted)
    before = len(case.side.behind)
    await case.run("file", "copy", connections=3)
    assert len(case.side.behind) - before >= 6  # more if one came back while the first was not known to be lost
    assert all("connection less" in event.message for event in case.side.of(Warned))


# ---- a client's own transfers --------------------------------------------------------------------------------------


async def test_a_slash_at_the_end_of_a_remote_path_means_the_contents(served: Path, there: Path) -> None:
    (served / "d").mkdir()
    (served / "d/file").write_bytes(b"content")
    async with facing("unix", served, there) as side:
        await side.client.download("d/", there / "contents")
        await side.client.download("d", there / "named")
        await side.client.upload(there / "contents/file", "new/")
    assert (there / "contents/file").read_bytes() == b"content"
    assert (there / "named/d/file").read_bytes() == b"content"
    assert (served / "new/file").read_bytes() == b"content"


# ---- what others have left -----------------------------------------------------------------------------------------


async def test_a_transfer_sweeps_its_destination(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever side that is: temporary files of who lives no more at once, unfinished ones when their time is over."""
    (case.source / "file").write_bytes(b"content")
    with Root.open(case.target) as root:
        leave_unfinished(root)
    loose = loose_file(case.target)
    await case.run("file", "copy", dry_run=True)
    assert loose.exists()
    await case.run("file", "copy")
    assert not loose.exists()
    assert len(state_of(case.target)) == 2
    monkeypatch.setattr(Syscalls, "now_ns", lambda self: time.time_ns() + round(ABANDONED_SECONDS * 1e9))
    await case.run("file", "another")
    assert state_of(case.target) == set()
    assert (case.target / "another").read_bytes() == b"content"


async def test_a_client_sweeps_a_directory_of_its_own_once(served: Path, there: Path) -> None:
    """Otherwise each of a thousand files that come at once would look at the parts of all others."""
    (served / "file").write_bytes(b"content")
    (there / "elsewhere").mkdir()
    async with facing("unix", served, there) as side:
        for name, swept in (("copy", True), ("another", False), ("elsewhere/copy", True)):
            loose = loose_file((there / name).parent)
            await side.client.download("file", there / name)
            assert loose.exists() != swept
            assert (there / name).read_bytes() == b"content"
