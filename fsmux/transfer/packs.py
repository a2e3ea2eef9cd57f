"""Packs of small files: the two halves of moving them, the same for upload and download.

Theory: one stream carries any number of packs, several of them on their way at once, so a file costs no round trip, no
task and no message of its own.  Whoever has the files reads a pack in one thread hop and sends its index and then the
contents; whoever lacks them gathers the contents, checks and writes them in one hop, and says how each pack went.
Credit bounds what is in buffers, the number of packs that the client has under way bounds everything else.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from fsmux.errors import FsmuxError, ProtocolError
from fsmux.files.contents import Contents
from fsmux.mux.buffers import Data
from fsmux.wire.messages import Pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

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


class _Arrived(NamedTuple):
    """A pack that is to be written, and the payloads that its contents are in, as far as they are."""

    pack: Pack
    contents: Contents
    held: list[Data]


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
    filled, waiting = trio.open_memory_channel[_Arrived](WAITING)
    failure: FsmuxError | None = None

    async def write() -> None:
        nonlocal failure
        try:
            await _write(waiting, stream, unpacker, disk, done)
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
                            _give_back(stream, [pack])
                            raise ProtocolError(f"expected a pack, got {type(pack).__name__}")
                        arrived = await _arrived(stream, check(pack))
                        try:
                            await filled.send(arrived)
                        except BaseException:
                            _give_back(stream, arrived.held)
                            raise
            except FsmuxError as exc:
                failure = exc
                nursery.cancel_scope.cancel()
    finally:
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                _give_back(stream, waiting.receive_nowait().held)
        with trio.CancelScope(shield=True):  # bounded by removing what was not committed
            await disk.meta(unpacker.close)
    if failure is not None:
        raise failure


async def _arrived(stream: Stream, pack: Pack) -> _Arrived:
    """A pack with its contents, which stay in the buffers they came in.

    What credit for the rest may depend on is taken out at once.
    """
    pieces: list[memoryview] = []
    held: list[Data] = []
    size, credit = pack.size, stream.receive_credit
    try:
        while size:
            data = await stream.receive()
            if not isinstance(data, Data) or data.length > size:
                _give_back(stream, [data])
                raise ProtocolError("a pack was not followed by its contents")
            size -= data.length
            if size <= credit.granted - credit.received:
                pieces += data.views
                held.append(data)
            else:
                pieces.append(memoryview(bytes(data)))
                stream.consumed(data)
    except BaseException:
        _give_back(stream, held)
        raise
    return _Arrived(pack, Contents(pieces), held)


def _give_back(stream: Stream, items: Iterable[object]) -> None:
    """Payloads that somebody is through with."""
    for item in items:
        if isinstance(item, Data):
            stream.consumed(item)


async def _write(
    waiting: trio.MemoryReceiveChannel[_Arrived],
    stream: Stream,
    unpacker: Unpacker,
    disk: Disk,
    done: Callable[[Pack, list[Failure]], Awaitable[None]],
) -> None:
    """Write what comes, and commit together what has come together."""
    async for arrived in waiting:
        pack = arrived.pack
        if WRITERS == 1 and not unpacker.commits_together:
            try:
                check = trio.from_thread.check_cancelled
                failures = await disk.store(_stand, unpacker, pack, arrived.contents, check)
            finally:
                _give_back(stream, arrived.held)
            await done(pack, failures)
            continue
        together = [pack]
        await _fill(stream, unpacker, disk, arrived)
        while unpacker.commits_together and len(together) < COMMITTED_TOGETHER:
            try:
                arrived = waiting.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            together.append(arrived.pack)
            await _fill(stream, unpacker, disk, arrived)
        failures = await disk.meta(unpacker.commit, trio.from_thread.check_cancelled)
        for pack in together:
            await done(pack, [failure for failure in failures if failure.pack == pack.number])


def _stand(unpacker: Unpacker, pack: Pack, contents: Contents, poll: Poll) -> list[Failure]:
    """Have one pack stand, all in one hop; what failed of it."""
    for share in unpacker.begin(pack.number, pack.groups, 1):
        unpacker.fill(share, contents)
    return unpacker.commit(poll)


async def _fill(stream: Stream, unpacker: Unpacker, disk: Disk, arrived: _Arrived) -> None:
    """Write one pack, in as many threads as may write at once."""
    pack, contents, held = arrived
    try:
        shares = await disk.meta(unpacker.begin, pack.number, pack.groups, WRITERS)
        if len(shares) == 1:
            await disk.store(unpacker.fill, shares[0], contents)
            return
        async with trio.open_nursery() as nursery:
            for share in shares:
                nursery.start_soon(disk.store, unpacker.fill, share, contents)
    finally:
        _give_back(stream, held)
