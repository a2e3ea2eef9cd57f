"""A hostile server that sends a tree by itself: nothing of it stands that no listing could have had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fsmux import handlers, tree_handlers
from fsmux.columns import DIRECTORY, REGULAR, SYMLINK, Act, Group
from fsmux.errors import FsmuxError, ProtocolError
from fsmux.events import FileFailed
from fsmux.limits import MEDIUM_FILE
from fsmux.records import Durability
from fsmux.wire.messages import Ok, Pack, Walk

from .kit import facing
from .test_trees import files, make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .kit import Side


@pytest.fixture
async def memory(served: Path, there: Path) -> AsyncIterator[Side]:
    async with facing("memory", served, there) as side:
        yield side


def listed(*names: bytes, mode: int = REGULAR | 0o644, size: int = MEDIUM_FILE + 1, **columns: Any) -> Group:
    count = len(names)
    return Group((), list(names), [size] * count, [0] * count, [mode] * count, act=Act.LIST, **columns)


def folders(*names: bytes) -> Group:
    count = len(names)
    return Group((), list(names), [0] * count, [0] * count, [DIRECTORY | 0o755] * count, crcs=[0] * count, more=True)


def link(name: bytes, target: bytes) -> Group:
    return Group((), [name], [0], [0], [SYMLINK | 0o777], [target], crcs=[0], more=True)


@pytest.mark.parametrize(
    ("groups", "data"),
    [
        ([files(b"a", directory=(b"never",))], b"x"),
        ([files(b"a", data=b"", directory=(b"never",))], b""),
        ([folders(b"d"), files(b"a", directory=(b"d", b"deeper"))], b"x"),
        ([link(b"d", b"/tmp"), files(b"evil", directory=(b"d",))], b"x"),
        ([listed(b"d"), files(b"a", directory=(b"d",))], b"x"),
        ([files(b"a", data=b"x" * 5)], b"x"),
        ([files(b"a")], b"x" * 5),
        ([msgspec.structs.replace(files(b"a"), act=Act.REMOVE)], b""),
        ([msgspec.structs.replace(files(b"a"), shared={0: b"k" * 16})], b"x"),
        ([listed(b"d", mode=DIRECTORY | 0o755, size=0)], b""),
        ([listed(b"d", mode=SYMLINK | 0o777, size=0)], b""),
        ([Group((), crcs=[1], as_asked=True)], b"x"),
        ([Group((), [], [0], [0], [DIRECTORY | 0o755])], b""),
    ],
    ids=[
        "no such directory", "an empty file nowhere", "none within it", "through a link",
        "a file as a directory", "too little", "too much",
        "a removal", "a shared file", "a directory told of", "a link told of", "as asked", "itself",
    ],
)  # fmt: skip
async def test_a_server_that_gives_what_does_not_belong_there(
    memory: Side, monkeypatch: pytest.MonkeyPatch, groups: list[Group], data: bytes
) -> None:
    side = memory
    make(side.served / "file")

    async def lie(context: Any, stream: Any, request: Any) -> None:
        assert request.pack_bytes
        await stream.send(Pack(0, tuple(msgspec.structs.replace(group) for group in groups)))
        await stream.send_data(data)
        await stream.send(Ok(), end=True)

    monkeypatch.setitem(handlers.HANDLERS, Walk, lie)
    with pytest.raises(FsmuxError):
        await side.client.download("file", side.there, observer=side.observe)
    assert not list(side.there.rglob("evil"))
    assert not [path for path in side.there.rglob("*") if path.is_file() and not path.match("*/.fsmux/*")]


async def test_large_files_that_are_not_there_fail_alone(memory: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    side = memory
    make(side.served / "file")

    async def lie(context: Any, stream: Any, request: Any) -> None:
        await stream.send(Pack(0, (msgspec.structs.replace(files(b"a"), more=True), listed(b"b", b"c"))))
        await stream.send_data(b"x")
        await stream.send(Ok(), end=True)

    monkeypatch.setitem(handlers.HANDLERS, Walk, lie)
    summary = await side.client.download("file", side.there, observer=side.observe)
    assert (summary.files, summary.failed) == (1, 2)
    assert sorted(event.path for event in side.of(FileFailed)) == ["b", "c"]
    assert (side.there / "file/a").read_bytes() == b"x"


async def test_who_sends_packs_to_be_stored_tells_of_nothing_else(memory: Side) -> None:
    async with memory.client.connection.open_stream(tree_handlers.Store((), Durability.NONE)) as stream:
        await stream.send(Pack(1, (listed(b"a"),)))
        with pytest.raises(ProtocolError, match="nobody asked for"):
            await stream.receive()


@pytest.mark.parametrize("number", [1, 2, 3], ids=["one that came by itself", "one that was answered", "none"])
async def test_a_pack_that_is_answered_once_more(memory: Side, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    side = memory
    make(side.served / "file")

    async def walk(context: Any, stream: Any, request: Any) -> None:
        twin = listed(b"00", size=1, shared={0: b"k" * 16})
        await stream.send(Pack(0, (msgspec.structs.replace(files(b"a", data=b"x" * 3000), more=True), twin)))
        await stream.send_data(b"x" * 3000)
        await stream.send(Ok(), end=True)

    async def fetch(context: Any, stream: Any, request: Any) -> None:
        stream.expect(None)
        ask = await stream.receive()
        assert ask.number == 2
        for answer, data in ((2, b"x"), (number, b"y" * (3000 if number == 1 else 1))):
            name = b"a" if answer == 1 else b"00"
            await stream.send(Pack(answer, (files(name, data=data),)))
            await stream.send_data(data)
        await stream.receive()

    monkeypatch.setitem(handlers.HANDLERS, Walk, walk)
    monkeypatch.setitem(handlers.HANDLERS, tree_handlers.Fetch, fetch)
    with pytest.raises(ProtocolError, match="something else than it was asked for"):
        await side.client.download("file", side.there, observer=side.observe)
    assert not [path for path in side.there.rglob("*") if path.is_file() and b"y" in path.read_bytes()]
