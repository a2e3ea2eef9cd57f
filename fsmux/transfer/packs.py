"""Packs of small files: the two halves of moving them, the same for upload and download.

Theory: one stream carries any number of packs, several of them on their way at once, so a file costs no round trip, no
task and no message of its own.  Whoever has the files reads a pack in one thread hop and sends its index and then the
contents; whoever lacks them gathers the contents, checks and writes them in one hop, and says how each pack went.
Credit bounds what is in buffers, the number of packs that the client has under way bounds everything else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from fsmux.errors import FsmuxError, ProtocolError
from fsmux.mux.buffers import Data
from fsmux.wire.messages import Pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fsmux.columns import Group
    from fsmux.files.ranges import Poll
    from fsmux.files.root import Root
    from fsmux.files.terms import Failure
    from fsmux.files.unpacking import Unpacker
    from fsmux.mux.stream import Stream
    from fsmux.records import Parts
    from fsmux.transfer.disk import Disk

WAITING = 2
"""Packs that wait to be written: one is being filled from the socket meanwhile."""

WRITERS: Final = 2 if (os.cpu_count() or 1) > 2 else 1
"""Threads that write one pack. Both go through the reserved directory and wait for one another there: two take a fifth
less time than one, and a third more of the processors (100,000 files: 1.33 s and 2.3 CPU s, beside 1.67 s and 1.67).
That gains where one is idle; where the peer has it, 100,000 files up took 2.87 s with two threads, 2.58 with one."""

COMMITTED_TOGETHER = 16
"""Packs that share one commit at most: their files are on the disk already, and their sender waits to hear of them."""


async def send_pack(
    stream: Stream, disk: Disk, root: Root, base: Parts, number: int, groups: Sequence[Group],
    read: Callable[[Root, Parts, Sequence[Group]], bytes],
) -> Pack:  # fmt: skip
    """Read the files of a pack and send it; what was sent, with everything that was lost."""
    contents = await disk.pack(read, root, base, groups)
    pack = Pack(number, tuple(groups))
    await stream.send(pack)
    await stream.send_data(contents)
    return pack


async def receive_packs(
    stream: Stream,
    unpacker: Unpacker,
    disk: Disk,
    *,
    check: Callable[[Pack], Pack],
    done: Callable[[Pack, list[Failure]], Awaitable[None]],
) -> None:
    """Receive packs until the peer has ended its side, and have them written.

    ``check`` is asked what is to be done about each before it is taken, and raises if nobody wanted it.  ``done`` is
    told of each, in their order, when it stands, with what failed of it.  The unpacker is closed in any case.
    """
    stream.expect(None)
    filled, waiting = trio.open_memory_channel[tuple[Pack, bytes]](WAITING)
    failure: FsmuxError | None = None

    async def write() -> None:
        nonlocal failure
        try:
            await _write(waiting, unpacker, disk, done)
        except FsmuxError as exc:
            failure = exc
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            try:
                with filled:
                    while (pack := await stream.receive()) is not None:
                        if not isinstance(pack, Pack):
                            _give_back(stream, pack)
                            raise ProtocolError(f"expected a pack, got {type(pack).__name__}")
                        pack = check(pack)
                        await filled.send((pack, await _contents(stream, pack.size)))
            except FsmuxError as exc:
                failure = exc
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # bounded by removing what was not committed
            await disk.meta(unpacker.close)
    if failure is not None:
        raise failure


async def _contents(stream: Stream, size: int) -> bytes:
    """The contents of a pack, taken out of the buffers they came in."""
    pieces: list[bytes] = []
    while size:
        data = await stream.receive()
        if not isinstance(data, Data) or data.length > size:
            _give_back(stream, data)
            raise ProtocolError("a pack was not followed by its contents")
        pieces.append(bytes(data))
        size -= data.length
        stream.consumed(data)
    return b"".join(pieces) if len(pieces) != 1 else pieces[0]


def _give_back(stream: Stream, item: object) -> None:
    if isinstance(item, Data):
        stream.consumed(item)


async def _write(
    waiting: trio.MemoryReceiveChannel[tuple[Pack, bytes]],
    unpacker: Unpacker,
    disk: Disk,
    done: Callable[[Pack, list[Failure]], Awaitable[None]],
) -> None:
    """Write what comes, and commit together what has come together."""
    async for pack, contents in waiting:
        if WRITERS == 1 and not unpacker.commits_together:
            await done(pack, await disk.store(_stand, unpacker, pack, contents, trio.from_thread.check_cancelled))
            continue
        together = [pack]
        await _fill(unpacker, disk, pack, contents)
        while unpacker.commits_together and len(together) < COMMITTED_TOGETHER:
            try:
                pack, contents = waiting.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            await _fill(unpacker, disk, pack, contents)
            together.append(pack)
        failures = await disk.meta(unpacker.commit, trio.from_thread.check_cancelled)
        for pack in together:
            await done(pack, [failure for failure in failures if failure.pack == pack.number])


def _stand(unpacker: Unpacker, pack: Pack, contents: bytes, poll: Poll) -> list[Failure]:
    """Have one pack stand, all in one hop; what failed of it."""
    for share in unpacker.begin(pack.number, pack.groups, 1):
        unpacker.fill(share, memoryview(contents))
    return unpacker.commit(poll)


async def _fill(unpacker: Unpacker, disk: Disk, pack: Pack, contents: bytes) -> None:
    """Write one pack, in as many threads as may write at once."""
    shares = await disk.meta(unpacker.begin, pack.number, pack.groups, WRITERS)
    if len(shares) == 1:
        await disk.store(unpacker.fill, shares[0], memoryview(contents))
        return
    async with trio.open_nursery() as nursery:
        for share in shares:
            nursery.start_soon(disk.store, unpacker.fill, share, memoryview(contents))
