"""A download asks for a file before it knows that it is one: right guesses come whole, wrong ones leave nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks.processes import TOKEN
from fsmux.client import Client, connect
from fsmux.events import Event, FileProgress
from fsmux.files.opening import may_resume, open_sink
from fsmux.files.root import Root
from fsmux.records import Identity
from fsmux.sites import OWNER

from .kit import DEADLINE, MIB, Url, inventory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def client(url: Url) -> AsyncIterator[Client]:
    with trio.fail_after(DEADLINE):
        async with connect(url(), token=TOKEN) as client:
            yield client


async def test_a_fresh_file_of_many_chunks_comes_without_being_asked_for_twice(
    client: Client, served: Path, there: Path
) -> None:
    (served / "big").write_bytes(os.urandom(9 * MIB))
    seen: list[int] = []
    open_stream = client.connection.open_stream

    def count(first: object, **more: bool) -> object:
        seen.append(1)
        return open_stream(first, **more)  # type: ignore[arg-type]

    client.connection.open_stream = count  # type: ignore[assignment,method-assign]
    summary = await client.download("big", there / "big")
    assert (summary.files, summary.bytes_sent) == (1, 9 * MIB)
    assert (there / "big").read_bytes() == (served / "big").read_bytes()
    assert len(seen) == 2  # STAT and GET


@pytest.mark.parametrize("kind", ["directory", "link", "nothing"])
async def test_what_turns_out_to_be_no_file_leaves_no_stream(
    client: Client, served: Path, there: Path, kind: str
) -> None:
    if kind == "directory":
        (served / "it").mkdir()
        (served / "it" / "file").write_bytes(b"content")
    elif kind == "link":
        (served / "target").write_bytes(bytes(MIB))
        (served / "it").symlink_to("target")
    if kind == "nothing":
        with pytest.raises(Exception, match="no such file"):
            await client.download("it", there / "it")
    else:
        await client.download("it", there / "it")
        assert (there / "it").is_symlink() == (kind == "link")
    while client.connection.open_streams:
        await client.connection.ping()
    assert not [name for name in inventory(there) if name.startswith(".fsmux")]


def _stop_beyond(size: int, scope: trio.CancelScope) -> Callable[[Event], None]:
    """An observer that cancels when more than so many bytes have come."""
    came = 0

    def look(event: Event) -> None:
        nonlocal came
        if isinstance(event, FileProgress):
            came += event.bytes
            if came > size:
                scope.cancel()

    return look


async def test_what_an_earlier_attempt_kept_is_not_sent_again(client: Client, served: Path, there: Path) -> None:
    (served / "big").write_bytes(os.urandom(40 * MIB))  # more than a window ahead of what has come
    with trio.CancelScope() as scope:
        await client.download("big", there / "big", chunk_size=MIB, observer=_stop_beyond(5 * MIB, scope))
    assert scope.cancelled_caught
    summary = await client.download("big", there / "big", chunk_size=MIB)
    assert summary.bytes_resumed > 0
    assert summary.bytes_resumed + summary.bytes_sent == 40 * MIB
    assert (there / "big").read_bytes() == (served / "big").read_bytes()


def test_whether_something_was_kept_is_known_without_opening_it(tmp_path: Path) -> None:
    identity = Identity(9 * MIB, 1, b"tag")
    with Root.open(tmp_path) as root:
        assert not may_resume(root, (b"big",), OWNER)
        sink = open_sink(root, (b"big",), identity, chunk_size=MIB, owner=OWNER)
        sink.received(0, sink.write([memoryview(bytes(MIB))], 0))
        sink.suspend()
        assert may_resume(root, (b"big",), OWNER)
        assert not may_resume(root, (b"big",), b"somebody else")
        assert not may_resume(root, (b"other",), OWNER)


async def test_what_is_kept_of_other_files_holds_no_file_up(
    client: Client, served: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted download has left something in the reserved directory of the destination."""
    (served / "big").write_bytes(os.urandom(9 * MIB))
    (served / "small").write_bytes(b"content")
    with trio.CancelScope() as scope:
        await client.download("big", there / "big", chunk_size=MIB, observer=_stop_beyond(5 * MIB, scope))
    assert scope.cancelled_caught
    assert (there / ".fsmux").is_dir()
    asked: list[tuple[str, int]] = []
    open_stream = client.connection.open_stream

    def note(first: object, **more: bool) -> object:
        asked.append((type(first).__name__, client.connection.open_streams))
        return open_stream(first, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(client.connection, "open_stream", note)
    await client.download("small", there / "small")
    assert (there / "small").read_bytes() == b"content"
    stat, get = asked
    assert (stat[0], get) == ("Stat", ("Get", stat[1] + 1))  # the file is asked for while STAT is unanswered
