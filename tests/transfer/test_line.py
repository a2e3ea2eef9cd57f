"""Packs that a thread writes one after the other, whatever becomes of who is to hear of it; and packs that are sent."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
from zlib_ng.zlib_ng import crc32

from fsmux.columns import REGULAR, Group
from fsmux.errors import InternalError
from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls
from fsmux.files.unpacking import Unpacker
from fsmux.limits import PACK_BYTES
from fsmux.mux.buffers import Data
from fsmux.records import Durability
from fsmux.transfer.disk import open_disk
from fsmux.transfer.packs import BUFFERS_KEPT, COMMITTED_TOGETHER, SYNCED_AHEAD, WAITING, PackSender, receive_packs
from fsmux.wire.messages import Pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fsmux.files.terms import Failure

    Done = Callable[[Pack, list[Failure]], Awaitable[None]]

LEVELS = [Durability.NONE, Durability.BATCH]
CONTENTS = os.urandom(300)


class Arriving:
    """A stream on which so many packs of three files come, each as soon as it is asked for."""

    def __init__(self, count: int) -> None:
        self.receive_credit = type("Credit", (), {"granted": 1 << 40, "received": 0})()
        self.taken = 0
        self.came = [threading.Event() for _ in range(count + 1)]
        """Of each pack, and of the end: what came before that was put."""
        self.held: list[Data] = []
        self._items = iter([item for number in range(count) for item in self._pack(number)])

    def _pack(self, number: int) -> list[object]:
        names = [b"%d-%d" % (number, index) for index in range(3)]
        crcs = [crc32(CONTENTS[start : start + 100]) for start in (0, 100, 200)]
        group = Group((), names, [100] * 3, [7] * 3, [REGULAR | 0o640] * 3, crcs=crcs)
        return [Pack(number, (group,)), Data(len(CONTENTS), [memoryview(CONTENTS)])]

    def expect(self, remaining: None) -> None:
        pass

    async def receive(self) -> object:
        await trio.lowlevel.checkpoint()
        item = next(self._items, None)
        if isinstance(item, Pack):
            self.came[self.taken].set()
            self.taken += 1
        elif isinstance(item, Data):
            self.held.append(item)
        else:
            self.came[-1].set()
        return item

    def consumed(self, data: Data) -> None:
        if data in self.held:
            self.held.remove(data)


async def receive(place: Path, stream: Any, level: Durability, done: Done, sys: Syscalls | None = None) -> None:
    with Root.open(place, sys=sys or Syscalls()) as root:
        async with open_disk() as disk:
            await receive_packs(stream, Unpacker(root, (), level), disk, check=lambda pack: pack, done=done)


@pytest.mark.parametrize("level", LEVELS)
async def test_each_pack_stands_when_it_is_told_of(tmp_path: Path, level: Durability) -> None:
    heard: list[int] = []

    async def done(pack: Pack, failures: list[Failure]) -> None:
        assert not failures
        assert all((tmp_path / os.fsdecode(name)).stat().st_size == 100 for name in pack.groups[0].names)
        heard.append(pack.number)

    stream = Arriving(50)
    await receive(tmp_path, stream, level, done)
    assert heard == list(range(50))
    assert not stream.held
    assert len(os.listdir(tmp_path)) == 150


@pytest.mark.parametrize("level", LEVELS)
async def test_who_hears_nothing_gets_rid_of_no_more_packs(
    tmp_path: Path, level: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def here(fn: Callable[[], object], **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return fn()

    async def done(pack: Pack, failures: list[Failure]) -> None:
        await trio.sleep_forever()

    # Without threads it is known when nothing goes on any more.
    monkeypatch.setattr(trio.to_thread, "run_sync", here)
    monkeypatch.setattr(trio.from_thread, "check_cancelled", lambda: None)
    stream = Arriving(500)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, tmp_path, stream, level, done)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert COMMITTED_TOGETHER < stream.taken <= 2 * COMMITTED_TOGETHER + WAITING + 2
        nursery.cancel_scope.cancel()
    assert not stream.held


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("last", [0, 1, 7, 8, 20])
@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_whatever_ends_it_nothing_is_kept(tmp_path: Path, level: Durability, last: int, how: str) -> None:
    async def done(pack: Pack, failures: list[Failure]) -> None:
        if pack.number == last:
            if how == "failed":
                raise InternalError("the end")
            scope.cancel()

    stream = Arriving(100)
    with trio.CancelScope() as scope:
        if how == "failed":
            with pytest.raises(InternalError, match="the end"):
                await receive(tmp_path, stream, level, done)
        else:
            await receive(tmp_path, stream, level, done)
    assert not stream.held
    assert ".fsmux" not in os.listdir(tmp_path)
    assert all(path.read_bytes() in CONTENTS for path in tmp_path.iterdir())


class Disks(Syscalls):
    """Has written half of a commit when the rest is there, and of that nothing before the first sync has begun.

    Of the syncs, ``failing`` fail, counted from 0.
    """

    def __init__(self, stream: Arriving, failing: set[int]) -> None:
        self.stream = stream
        self.failing = failing
        self.written = 0
        self.syncs = 0
        self.begun = threading.Event()

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        pack = self.written // 3
        assert self.stream.came[min(pack + 2, len(self.stream.came) - 1)].wait(20)
        assert pack < SYNCED_AHEAD or self.begun.wait(20), "it is not synced ahead"
        self.written += 1
        return super().pwrite(fd, data, offset)

    def syncfs(self, fd: int) -> None:
        number, self.syncs = self.syncs, self.syncs + 1
        self.begun.set()
        if number in self.failing:
            raise OSError(errno.EIO, "a write failed")

    def kernel(self) -> str:
        return "6.1"


@pytest.mark.parametrize("failing", [set(), {0}, {1}, {2}], ids=["none", "ahead", "before names", "behind names"])
async def test_half_of_a_commit_goes_to_the_disk_while_the_rest_is_written(tmp_path: Path, failing: set[int]) -> None:
    failed: list[int] = []

    async def done(pack: Pack, failures: list[Failure]) -> None:
        failed.extend(failure.pack for failure in failures)

    stream = Arriving(COMMITTED_TOGETHER)
    sys = Disks(stream, failing)
    with trio.fail_after(60):
        await receive(tmp_path, stream, Durability.BATCH, done, sys)
    assert sys.syncs == 3
    told = failing - {0}  # what fails ahead fails again for who relies on it
    assert failed == [number for number in range(COMMITTED_TOGETHER) for _ in range(3) if told]
    assert len(os.listdir(tmp_path)) == (0 if failing == {1} else 3 * COMMITTED_TOGETHER)


# ---- what packs are read into ---------------------------------------------------------------------------------------


class Sent:
    """A stream of which a test says how much has gone out."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.queued: list[memoryview] = []

    async def send(self, message: object) -> None:
        await trio.lowlevel.checkpoint()

    async def send_data(self, contents: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.queued.append(contents)


async def test_memory_is_used_again_when_what_was_in_it_is_surely_sent() -> None:
    stream = Sent()
    sender = PackSender(stream)  # type: ignore[arg-type]
    contents = [bytes([number]) * 1000 for number in range(4)]
    for number in range(3):
        view = sender.take(1001)
        view[:1000] = contents[number]
        await sender.send(Pack(number, ()), view[:1000])
    assert [bytes(view) for view in stream.queued] == contents[:3]
    stream.sent_bytes = 1000  # the last frame of the first pack may be on its way
    other = sender.take(1001)
    other[:1000] = contents[3]
    assert [bytes(view) for view in stream.queued] == contents[:3]
    stream.sent_bytes = 1001
    assert sender.take(1001).obj is stream.queued[0].obj
    assert sender.take(1001).obj is not stream.queued[0].obj, "it is being filled"


async def test_memory_that_is_too_small_or_was_forgotten_is_not_used_again() -> None:
    stream = Sent()
    sender = PackSender(stream)  # type: ignore[arg-type]
    views = [sender.take(1) for _ in range(2 * BUFFERS_KEPT)]
    assert len({id(view.obj) for view in views}) == len(views)
    await sender.send(Pack(0, ()), views[0][:1])
    await sender.send(Pack(1, ()), views[-1][:1])
    stream.sent_bytes = 10
    assert len(sender.take(2 * PACK_BYTES)) == 2 * PACK_BYTES
    assert sender.take(1).obj is views[-1].obj
    assert sender.take(1).obj not in [view.obj for view in views]
