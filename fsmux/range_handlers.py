"""What a server does with ranges of bytes: those that are written to a handle, and those that a new file comes in.

Theory: a range is taken whole and checked before any of it is written, in one hop to a thread for both.  While that
runs the next ranges arrive, because a file that is being created has its credit for as long as it grows.  One of them
that was damaged on its way is asked for again, and those behind it come again with it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from fsmux.errors import IntegrityError, NetworkError, ProtocolError
from fsmux.files.growing import Growing
from fsmux.limits import MAX_ATTEMPTS, MAX_DATA_PAYLOAD
from fsmux.mux.buffers import Data
from fsmux.records import Attrs, Kind, printable
from fsmux.wire.messages import Again, Close, Committed, Create, Ok, Write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fsmux.context import Context
    from fsmux.mux.stream import Stream
    from fsmux.transfer.growths import Key


async def take_data(stream: Stream, request: Write, taken: list[Data]) -> list[memoryview]:
    """The bytes that follow a WRITE. Whatever happens, what is in ``taken`` is to be handed to ``consumed``."""
    if request.length > MAX_DATA_PAYLOAD:
        raise ProtocolError(f"WRITE of {request.length} bytes; the most is {MAX_DATA_PAYLOAD}")
    have = 0
    while have < request.length:
        data = await stream.receive()
        if not isinstance(data, Data):
            raise ProtocolError("WRITE was not followed by its data")
        taken.append(data)
        have += data.length
    if have > request.length:
        raise ProtocolError("more data than WRITE announced")
    return [view for data in taken for view in data.views]


async def create(context: Context, stream: Stream, request: Create) -> None:
    """A file of unknown length. It stands when its CLOSE has come; if the stream ends otherwise nothing is left.

    Of a run that has lost its connection it is kept for a while, for the next attempt.
    """
    context.check_write()
    growths, key = context.growths, (context.owner, request.path, request.join)
    growths.arrive(key)
    try:
        await context.for_run(request, partial(_create, context, stream, request, key))
    finally:
        if (left := growths.leave(key)) is not None:
            with trio.CancelScope(shield=True):  # one unlink
                await context.disk.meta(left.discard)


async def _create(context: Context, stream: Stream, request: Create, key: Key) -> None:
    growths = context.growths

    def begin() -> Growing:
        context.kept.keep()
        durability = max(context.durability, request.durability)
        return Growing(context.root, request.path, request.mode, durability, verify=request.verify)

    if request.join and (done := growths.committed(key)) is not None:
        await stream.send(done, end=True)
        return
    growing = growths.take(key)
    if growing is None:
        growing = await context.disk.meta(begin)
    try:
        await stream.send(Attrs(Kind.FILE, growing.size))
        done = await _grow(context, stream, growing, request)
        if done is not None:
            if request.join:
                growths.remember(key, done)
            await stream.send(done, end=True)
    except NetworkError:
        if request.join and not growing.committed:
            await growths.linger()
        raise
    finally:
        latest = context.attempts.latest((context.owner, request.join))
        if request.join and latest > request.attempt and growths.wanted(key) and not growing.committed:
            growths.hand_over(key, growing)
        else:
            with trio.CancelScope(shield=True):  # one unlink
                await context.disk.meta(growing.discard)


async def _grow(context: Context, stream: Stream, growing: Growing, request: Create) -> Committed | None:
    """Take what comes until the file stands, or its sender gives it up."""
    stream.expect(None)
    damaged = 0  # times that the next range has come and was not right
    while True:
        match message := await stream.receive():
            case Write() if damaged and message.offset > growing.size:
                await _taken(stream, message, _dropped)
            case Write():
                found = await _taken(stream, message, partial(_append, context, growing, message))
                if found == message.crc32:
                    damaged = 0
                    await stream.send(Ok())
                    continue
                damaged += 1
                if damaged == MAX_ATTEMPTS or not request.again:
                    times = f"{damaged} times " if request.again else ""
                    raise IntegrityError(
                        f"{printable(request.path)}: the range at {message.offset} arrived damaged {times}"
                        f"(CRC-32 {found:08x}, expected {message.crc32:08x}); check the network"
                    )
                await stream.send(Again(0, found))
            case Close() if damaged:
                pass  # it was sent before its sender heard that, and comes again
            case Close():
                durable = await context.disk.meta(growing.commit)
                return Committed(growing.crc32, durable)
            case None:
                return None
            case _:
                if isinstance(message, Data):
                    stream.consumed(message)
                raise ProtocolError(f"a file that is created cannot be asked for {type(message).__name__}")


async def _taken(stream: Stream, request: Write, use: Callable[[list[memoryview]], Awaitable[int]]) -> int:
    """What ``use`` makes of the bytes that follow a WRITE."""
    taken: list[Data] = []
    try:
        return await use(await take_data(stream, request, taken))
    finally:
        for data in taken:
            stream.consumed(data)


async def _append(context: Context, growing: Growing, request: Write, views: list[memoryview]) -> int:
    with trio.CancelScope(shield=True):  # the buffers are the thread's until it is done: one write of 4 MiB
        found = await context.disk.store(growing.append, views, request.offset, request.crc32)
    return found


async def _dropped(views: list[memoryview]) -> int:
    """Behind a range that is asked for again: it comes again, too."""
    return 0
