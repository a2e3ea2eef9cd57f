"""The Trio API of a client: each request, names as texts and bytes, random access, many tasks on one client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
import typer

from fsmux import limits
from fsmux.auth import ClientAuth
from fsmux.cli.app import app
from fsmux.client import ASKED_AT_ONCE, connect, parts_of
from fsmux.errors import (
    AccessError,
    ConnectFailed,
    ConnectionLost,
    Exists,
    FsmuxError,
    IntegrityError,
    IsADirectory,
    NotADirectory,
    NotFound,
    UsageError,
)
from fsmux.job import Options
from fsmux.limits import MAX_CHUNK_SIZE, MAX_FILES_AT_ONCE, MAX_LANES, MIN_CHUNK_SIZE
from fsmux.plan.filters import Filters
from fsmux.plan.selection import select
from fsmux.records import Attrs, Durability, Kept, Kind
from tests.transfer.kit import CHUNK, Side, content, damaging_pair, facing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fsmux.client import Client
    from fsmux.wire.messages import Entry


@pytest.fixture(params=["tcp", "unix", "memory"])
async def side(request: pytest.FixtureRequest, served: Path, there: Path) -> AsyncIterator[Side]:
    """A client of a server, over every kind of transport."""
    async with facing(request.param, served, there) as found:
        yield found


@pytest.fixture
def client(side: Side) -> Client:
    return side.client


async def test_more_questions_at_once_than_there_may_be_streams(
    served: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for their turn, in whatever number of tasks they are asked."""
    monkeypatch.setattr(limits, "MAX_STREAMS", most := 2 * ASKED_AT_ONCE)
    (served / "file").write_bytes(b"12345")
    sizes: list[int] = []
    async with facing("tcp", served, there) as side:

        async def ask() -> None:
            sizes.append((await side.client.stat("file")).size)

        async with trio.open_nursery() as nursery:
            for _ in range(most + 1):
                nursery.start_soon(ask)
    assert sizes == [5] * (most + 1)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("", ()),
        ("/", ()),
        (".", ()),
        ("a", (b"a",)),
        ("/a//b/./c/", (b"a", b"b", b"c")),
        ("..", (b"..",)),
        ("gr\u00fcn", ("gr\u00fcn".encode(),)),
        (os.fsdecode(b"not-\xff"), (b"not-\xff",)),
        ((b"a/b",), (b"a/b",)),
    ],
)
def test_paths_as_texts(path: str, parts: tuple[bytes, ...]) -> None:
    assert parts_of(path) == parts


async def test_names_that_cannot_be_are_refused_before_anything_is_sent(client: Client) -> None:
    for path in ("..", "a/../b", (b"a/b",), (b"",), (b"x" * 256,), ("x/" * 300), (b"a\0b",)):
        with pytest.raises(FsmuxError):
            await client.stat(path)
    assert (await client.stat()).kind is Kind.DIRECTORY


async def test_stat_follows_links_unless_told_not_to(client: Client, served: Path) -> None:
    (served / "file").write_bytes(b"12345")
    (served / "link").symlink_to("file")
    assert (await client.stat("link")).size == 5
    link = await client.stat("link", follow=False)
    assert (link.kind, link.link_target) == (Kind.SYMLINK, b"file")


async def test_directories(client: Client, served: Path) -> None:
    await client.mkdir("a/b/c", parents=True)
    await client.mkdir("a/b/c", parents=True)
    with pytest.raises(Exists):
        await client.mkdir("a/b")
    with pytest.raises(NotFound):
        await client.mkdir("x/y")
    await client.rename("a/b", "moved")
    assert (served / "moved" / "c").is_dir()
    await client.remove("moved", recursive=True)
    await client.remove("a")
    assert list(served.iterdir()) == []


async def test_renaming_replaces_only_if_meant(client: Client, served: Path) -> None:
    (served / "one").write_bytes(b"1")
    (served / "two").write_bytes(b"2")
    with pytest.raises(Exists):
        await client.rename("one", "two")
    await client.rename("one", "two", replace=True)
    assert [(path.name, path.read_bytes()) for path in served.iterdir()] == [("two", b"1")]


async def test_links_and_attributes(client: Client, served: Path) -> None:
    await client.symlink("link", b"somewhere/else")
    assert os.readlink(served / "link") == "somewhere/else"
    (served / "file").write_bytes(b"")
    await client.set_attrs("file", Attrs(Kind.FILE, mtime_ns=123_456_789, mode=0o640))
    facts = (served / "file").stat()
    assert (facts.st_mtime_ns, facts.st_mode & 0o777) == (123_456_789, 0o640)


async def test_a_large_listing_comes_whole_however_slowly_it_is_read(client: Client, served: Path) -> None:
    names = {f"{index:0200}" for index in range(3000)}  # far more bytes than the first credit
    for name in names:
        (served / name).touch()
    async with client.list() as entries:
        found = set()
        async for entry in entries:
            found.add(entry.path[0].decode())
            if len(found) % 500 == 0:
                await client.connection.ping()
    assert found == names


async def test_a_listing_may_be_left_early(client: Client, served: Path) -> None:
    for index in range(3000):
        (served / f"{index:0200}").touch()
    for _ in range(5):
        async with client.list() as entries:
            async for _ in entries:
                break
    assert (await client.stat()).kind is Kind.DIRECTORY  # and nothing is left, which leaving the fixture checks


async def test_listing_what_is_below(client: Client, served: Path) -> None:
    (served / "a" / "b").mkdir(parents=True)
    (served / "a" / "b" / "file").write_bytes(b"x")
    (served / "link").symlink_to("a")
    async with client.list(recursive=True) as entries:
        found = {entry.path: entry.attrs.kind async for entry in entries if entry.attrs}
    assert found == {
        (b"a",): Kind.DIRECTORY,
        (b"a", b"b"): Kind.DIRECTORY,
        (b"a", b"b", b"file"): Kind.FILE,
        (b"link",): Kind.SYMLINK,
    }
    for path, error in (("nowhere", NotFound), ("a/b/file", NotADirectory)):
        with pytest.raises(error):
            await listed(client, path)


async def listed(client: Client, path: str) -> list[Entry]:
    async with client.list(path) as entries:
        return [entry async for entry in entries]


async def test_random_access(client: Client, served: Path) -> None:
    async with client.open("file", create=True) as file:
        assert file.size == 0
        assert await file.pwrite(b"hello", 5) == 5
        assert await file.pread(100, 0) == b"\0\0\0\0\0hello"
        assert await file.pwrite(memoryview(bytearray(b"HE")), 5) == 2
        await file.close(sync=True)
    assert (served / "file").read_bytes() == b"\0\0\0\0\0HEllo"
    async with client.open("file") as file:
        assert file.size == 10
        assert await file.pread(3, 5) == b"HEl"
        with pytest.raises(AccessError):
            await file.pwrite(b"x", 0)
    async with client.open("file", truncate=True) as file:
        assert file.size == 0
    with pytest.raises(NotFound):
        async with client.open("nowhere"):
            pass
    (served / "directory").mkdir()
    with pytest.raises(IsADirectory):
        async with client.open("directory"):
            pass


async def test_random_access_in_large_pieces(client: Client, served: Path) -> None:
    data = content(9 * 2**20 + 3)
    async with client.open("file", create=True) as file:
        assert await file.pwrite(data, 1) == len(data)
        assert await file.pread(len(data) + 10, 1) == data
    assert (served / "file").read_bytes() == b"\0" + data


async def test_errors_of_the_block_leave_the_client_usable(client: Client, served: Path) -> None:
    (served / "file").write_bytes(b"x")
    with pytest.raises(ZeroDivisionError):
        async with client.open("file"):
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with client.list():
            raise ZeroDivisionError
    assert (await client.stat("file")).size == 1


async def test_many_tasks_on_one_client(client: Client, served: Path) -> None:
    async with trio.open_nursery() as nursery:
        for index in range(100):

            async def work(index: int = index) -> None:
                name = f"file{index}"
                data = content(1000 + 37 * index, seed=index)
                async with client.open(name, create=True) as file:
                    await file.pwrite(data, 0)
                    assert await file.pread(len(data), 0) == data
                assert (await client.stat(name)).size == len(data)

            nursery.start_soon(work)
    assert len(list(served.iterdir())) == 100


async def test_what_arrives_damaged_is_not_handed_out(served: Path, there: Path) -> None:
    (served / "file").write_bytes(content(CHUNK))
    async with facing("memory", served, there, pair=damaging_pair(lambda index, length: 7)) as side:
        async with side.client.open("file", write=True) as file:
            with pytest.raises(IntegrityError, match="damaged"):
                await file.pread(CHUNK, 0)
        with pytest.raises(IntegrityError, match="nothing was written"):
            async with side.client.open("file", write=True) as file:
                await file.pwrite(b"damaged on its way", 0)
    assert (served / "file").read_bytes() == content(CHUNK)


async def test_a_lost_connection_ends_whatever_waits(served: Path, there: Path) -> None:
    (served / "file").write_bytes(content(CHUNK))
    async with facing("unix", served, there, check=False) as side, side.client.open("file") as file:
        await file.pread(10, 0)
        await side.behind[0].transport.aclose()
        while side.client.connection.failure is None:
            await trio.lowlevel.checkpoint()
        with pytest.raises(ConnectionLost):
            await file.pread(10, 0)
        with pytest.raises(ConnectionLost):
            await side.client.stat("file")


async def test_while_a_server_far_away_is_called_the_client_gets_ready_for_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready = trio.Event()

    async def dial(path: str) -> None:
        await ready.wait()
        raise ConnectFailed(f"{path} was called meanwhile")

    monkeypatch.setattr(ClientAuth, "get_ready", lambda _: ready.set())
    monkeypatch.setattr("fsmux.client.dial_unix", dial)
    with trio.fail_after(5), pytest.raises(ConnectFailed, match=r"^/far was called meanwhile$"):
        async with connect("fsmux+unix:///far", token="x" * 20):
            pass


# ---- options of transfers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("streams", 0, "a whole number from 1 to 4096"),
        ("streams", MAX_FILES_AT_ONCE + 1, "a whole number"),
        ("streams", "x", "a whole number"),
        ("streams", True, "a whole number"),
        ("streams", None, "a whole number"),
        ("connections", -3, "a whole number from 1 to 64"),
        ("connections", MAX_LANES + 1, "a whole number"),
        ("chunk_size", 3, "a whole number from 65536 to"),
        ("chunk_size", MIN_CHUNK_SIZE + 1, "a power of two from 65536 to"),
        ("chunk_size", 2 * MAX_CHUNK_SIZE, "a whole number"),
        ("bwlimit", -5, "a whole number from 1 to .*, or None,"),
        ("bwlimit", 0, "a whole number"),
        ("bwlimit", 1.5, "a whole number"),
        ("bwlimit", "10M", "a whole number"),
        ("durability", "none", r"Durability\.NONE, "),
        ("durability", 1, r"Durability\.NONE, "),
        ("durability", None, r"Durability\.NONE, "),
        ("verify", "disk", "True or False"),
        ("resume", 1, "True or False"),
        ("dry_run", None, "True or False"),
        ("checksum", "no", "True or False"),
        ("update", 0, "True or False"),
        ("delete", "\x1b", "True or False"),
        ("kept", {"times": False}, r"an object of fsmux\.records\.Kept"),
        ("filters", ["*.o"], r"an object of fsmux\.plan\.filters\.Filters"),
        ("selection", ["a"], r"an object of fsmux\.plan\.selection\.Selection, or None,"),
        ("manifest", "file", r"an object of fsmux\.moving\.ledger\.Ledger, or None,"),
        ("repair", [], r"an object of fsmux\.moving\.repair\.Repairs, or None,"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(option: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=rf"^{option}: {expected}.* is expected, not ") as caught:
        Options(**{option: value})
    assert str(caught.value).isprintable()


def test_every_option_is_checked() -> None:
    for option in Options.__struct_fields__:
        with pytest.raises(UsageError, match=f"^{option}: "):
            Options(**{option: object()})


def test_options_that_can_be() -> None:
    for size in (MIN_CHUNK_SIZE, MAX_CHUNK_SIZE):
        assert Options(MAX_FILES_AT_ONCE, MAX_LANES, size, bwlimit=1).chunk_size == size
    Options(1, durability=Durability.FILE, kept=Kept(False), filters=Filters(), selection=select([b"a"]))


def test_the_command_line_allows_the_same() -> None:
    command: Any = typer.main.get_command(app)
    params = {param.name: param for param in command.commands["transfer"].params}
    for option, most in (("streams", MAX_FILES_AT_ONCE), ("connections", MAX_LANES)):
        assert (params[option].type.min, params[option].type.max) == (1, most)


async def test_a_transfer_with_an_option_that_cannot_be_is_not_begun(client: Client, there: Path) -> None:
    with pytest.raises(UsageError, match=r"^streams: "):
        await client.download("", there / "copy", streams=0)
    with pytest.raises(UsageError, match=r"^durability: "):
        await client.upload(there, "copy", durability="none")
    assert not (there / "copy").exists()
