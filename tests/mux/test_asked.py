"""Who receives in bulk and is asked something beside it has less sent ahead, so that answers do not wait behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from fsmux.limits import ASKED_WINDOW, INITIAL_WINDOW, MIB
from fsmux.mux.buffers import Data
from fsmux.mux.standing import ASKED_SECONDS
from fsmux.mux.transport import StreamTransport
from fsmux.wire.messages import Get, Ok

from .kit import answer_ok, ask, connected, serve, transports

if TYPE_CHECKING:
    from fsmux.mux.stream import Stream


class Near(StreamTransport):
    """In memory, and known to be near."""

    near = True


async def move(count: int, source: Stream, target: Stream) -> int:
    """Send so many MiB, one at a time; which window the receiver seems to have, who grants by quarters of it."""
    for _ in range(count):
        await source.send_data(bytes(MIB))
        arrived = 0
        while arrived < MIB:
            item = await target.receive()
            assert isinstance(item, Data)
            arrived += item.length
            target.consumed(item)
    await wait_all_tasks_blocked()
    available = source.queue.credit.available
    return next(window for window in (ASKED_WINDOW, INITIAL_WINDOW) if 3 * window / 4 < available <= window)


@pytest.mark.parametrize(
    ("transport", "asked"), [(Near, ASKED_WINDOW), (StreamTransport, INITIAL_WINDOW)], ids=["near", "unknown"]
)
@pytest.mark.parametrize("down", [True, False])
async def test_less_is_granted_ahead_while_somebody_asks(
    transport: type[StreamTransport], asked: int, down: bool, autojump_clock: MockClock
) -> None:
    left, right = memory_stream_pair()
    async with connected("memory", pair=(transport(left), transport(right))) as (client, server):
        mine = client.open_stream(Get((b"x",)) if down else Ok())
        async with mine:
            theirs = await server.accept()
            assert theirs is not None
            await theirs.receive()
            source, target = (theirs, mine) if down else (mine, theirs)
            async with theirs, trio.open_nursery() as nursery:
                nursery.start_soon(serve, server, answer_ok)
                target.expect(None)
                assert await move(4, source, target) == INITIAL_WINDOW
                await ask(client)
                assert await move(INITIAL_WINDOW // MIB, source, target) == asked
                await trio.sleep(ASKED_SECONDS - 0.1)
                assert await move(8, source, target) == asked
                await ask(client)
                await trio.sleep(ASKED_SECONDS - 0.1)
                assert await move(8, source, target) == asked
                await trio.sleep(0.2)
                if asked < INITIAL_WINDOW:
                    assert await move(1, source, target) == INITIAL_WINDOW  # at once
                assert await move(4, source, target) == INITIAL_WINDOW
                nursery.cancel_scope.cancel()


async def test_a_file_alone_is_no_reason(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    async with connected("memory", pair=(Near(left), Near(right))) as (client, server):
        mine = client.open_stream(Get((b"x",)))
        async with mine:
            theirs = await server.accept()
            assert theirs is not None
            async with theirs:
                await theirs.receive()
                await theirs.send(Ok())
                await mine.receive()
                mine.expect(None)
                await theirs.send(Ok())
                assert isinstance(await mine.receive(), Ok)
                assert await move(4, theirs, mine) == INITIAL_WINDOW


async def test_another_file_is_no_reason_either(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    pair = (Near(left), Near(right))
    async with connected("memory", pair=pair) as (client, server), client.open_stream(Ok()) as mine:
        theirs = await server.accept()
        assert theirs is not None
        async with theirs:
            await theirs.receive()
            theirs.expect(None)
            assert await move(4, mine, theirs) == INITIAL_WINDOW
            async with client.open_stream(Get((b"y",))):
                another = await server.accept()
                assert another is not None
                async with another:
                    assert isinstance(await another.receive(), Get)
                    assert await move(INITIAL_WINDOW // MIB, mine, theirs) == INITIAL_WINDOW


async def test_who_is_near(kind: str) -> None:
    near, far = transports(kind)
    assert near.near is far.near is (kind == "tcp")
    await near.aclose()
    assert not near.near
    await far.aclose()
