"""The rate limit: its arithmetic over all schedules, and on a connection with a clock of its own."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fsmux.errors import Unsupported
from fsmux.mux.buffers import Data
from fsmux.mux.outbox import Outbox
from fsmux.mux.queued import SendQueue
from fsmux.mux.throttle import BURST_SECONDS, CLOCK_SECONDS, PORTION_SECONDS, Throttle
from fsmux.wire.credit import SendCredit
from fsmux.wire.frames import PACE_FEATURE, Cmd, Frame
from fsmux.wire.messages import Ok, Open

from . import kit
from .kit import HELLO, connected

if TYPE_CHECKING:
    from trio.testing import MockClock

PLENTY = 1 << 40
RATES = st.integers(1, 10**10)
PACING = replace(HELLO, features=(PACE_FEATURE,))


@given(RATES, st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 1)), max_size=60))
def test_no_stretch_of_time_holds_more_than_the_rate_and_one_burst(rate: int, steps: list[tuple[float, float]]) -> None:
    throttle = Throttle(rate, 100.0)
    times = list(accumulate((pause for pause, _ in steps), initial=100.0))[1:]
    used = []
    for now, (_, share) in zip(times, steps, strict=True):
        taken = throttle.take(now)
        unused = int(taken * share)
        throttle.give_back(unused)
        used.append(taken - unused)
    burst = max(rate * (BURST_SECONDS + CLOCK_SECONDS), 1)
    for first in range(len(times)):
        total = 0
        for last in range(first, len(times)):
            total += used[last]
            assert total <= (rate * (times[last] - times[first]) + burst) * (1 + 1e-9) + 1


@given(RATES, st.lists(st.floats(0.001, BURST_SECONDS - PORTION_SECONDS), min_size=1, max_size=300))
@example(12, [0.0625] * 7)
@example(20, [0.0749] * 300)
def test_who_comes_often_enough_loses_nothing(rate: int, pauses: list[float]) -> None:
    throttle = Throttle(rate, 0.0)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        taken += throttle.take(now)
    assert (
        rate * now * (1 - 1e-9) - max(rate * PORTION_SECONDS, 1) - 1
        <= taken
        <= rate * (now + CLOCK_SECONDS) * (1 + 1e-9) + 1
    )


@given(RATES, st.floats(0, 1e6), st.floats(0, 0.2))
def test_the_next_portion_is_there_when_it_was_said(rate: int, start: float, pause: float) -> None:
    throttle = Throttle(rate, start)
    throttle.take(start + pause)
    ready = throttle.ready_at(start + pause)
    assert throttle.take(ready + 1e-6 + 1e-9 * ready) > 0


def test_what_was_used_beyond_the_portion_is_waited_for() -> None:
    throttle = Throttle(1000, 0.0)
    taken = throttle.take(0.1)
    throttle.give_back(-900)
    assert (taken, throttle.take(0.9)) == (100, 0)
    assert throttle.ready_at(0.9) == pytest.approx(1.025)


def test_a_new_rate_starts_without_savings_and_a_rate_of_nothing_is_refused() -> None:
    throttle = Throttle(1000, 0.0)
    throttle.limit(10, 50.0)
    assert throttle.take(50.0) == 0
    with pytest.raises(ValueError, match="0 bytes"):
        throttle.limit(0, 51.0)


# ---- in the outbox ---------------------------------------------------------------------------------------------------


def sent(box: Outbox) -> list[tuple[int, int]]:
    """Command and length of all frames that go out now."""
    frames = []
    while (batch := box.next()) is not None:
        payload = batch.payload
        length = len(payload) if payload is not None else 0
        frames.append((Cmd.DATA if length else -1, length))
    return frames


def test_the_allowance_bounds_data_and_nothing_else() -> None:
    box, queue = Outbox(PLENTY, lambda: None, lambda: None), SendQueue(1, SendCredit(PLENTY), lambda: None)
    box.allowance = 1000
    box.data(queue, Cmd.DATA, memoryview(bytes(1500)))
    box.message_later(queue, Cmd.CHUNK, bytes)
    assert sent(box) == [(Cmd.DATA, 1000)]
    assert box.held
    assert box.has_bulk
    assert not box.idle
    box.urgent(Frame(Cmd.PING, 0, b""))
    assert not box.held
    assert sent(box) == [(-1, 0)]
    box.allowance = 500
    assert sent(box) == [(Cmd.DATA, 500), (-1, 0)]  # the trailer needs no allowance
    assert box.idle
    assert box.allowance == 0


def test_a_message_in_a_queue_passes_the_data_of_others_that_wait_for_the_rate() -> None:
    box = Outbox(PLENTY, lambda: None, lambda: None)
    one, two = (SendQueue(number, SendCredit(PLENTY), lambda: None) for number in (1, 3))
    box.allowance = 0
    box.data(one, Cmd.DATA, memoryview(bytes(10)))
    box.message_later(two, Cmd.CHUNK, bytes)
    assert not box.held
    assert sent(box) == [(-1, 0)]
    assert box.held


# ---- on a connection -------------------------------------------------------------------------------------------------


@pytest.fixture
def virtual_clock(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time that passes only when everything waits, and costs none; so there may be more of it."""
    monkeypatch.setattr(kit, "DEADLINE", 60.0)
    return autojump_clock


@pytest.mark.parametrize("rate", [10_000, 3_000_000, 250_000_000])
async def test_the_rate_is_exact_smooth_and_shared_fairly(virtual_clock: MockClock, rate: int) -> None:
    streams, seconds = 5, 10.0
    arrived: list[tuple[float, int]] = []
    shares: Counter[int] = Counter()
    waits: list[float] = []
    async with connected("memory", client=PACING, server=PACING) as (client, server):

        async def send() -> None:
            stream = await server.accept()
            assert stream is not None
            async with stream:
                await stream.receive()
                piece = bytes(max(rate // 100, 100))
                while True:
                    await stream.send_data(piece)

        async def take(number: int) -> None:
            async with client.open_stream(Open((b"x",), False, False, False)) as stream:
                stream.expect(None)
                while True:
                    item = await stream.receive()
                    assert isinstance(item, Data)
                    arrived.append((trio.current_time(), item.length))
                    shares[number] += item.length
                    stream.consumed(item)

        async def ask() -> None:
            while True:
                waits.append(await client.ping())
                await trio.sleep(0.05)

        client.limit_receiving(rate)
        await client.ping()
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(streams):
                nursery.start_soon(send)
                nursery.start_soon(take, number)
            nursery.start_soon(ask)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()
    total = sum(size for _, size in arrived)
    assert total == pytest.approx(rate * seconds, rel=0.03)
    assert max(waits) < 0.001  # control frames pass
    assert min(shares.values()) > 0.8 * max(shares.values())
    windows: Counter[int] = Counter()
    for moment, size in arrived:
        windows[int((moment - started) * 10)] += size
    assert max(windows.values()) <= 2 * 0.1 * rate + 1  # a tenth of a second, and one burst


async def test_the_limit_can_be_lifted_while_data_waits(virtual_clock: MockClock) -> None:
    async with connected("memory", client=PACING, server=PACING) as (client, server):
        client.limit_sending(10)
        async with client.open_stream(Ok()) as stream:
            accepted = await server.accept()
            assert accepted is not None
            async with accepted:
                await accepted.receive()
                await stream.send_data(bytes(100_000))
                with trio.move_on_after(5):
                    await stream.drained()
                assert stream.queue.queued
                client.limit_sending(None)
                before = trio.current_time()
                await stream.drained()
                assert trio.current_time() == before


async def test_a_peer_that_cannot_limit_itself_is_not_asked_to() -> None:
    async with connected("memory", client=PACING) as (client, _):
        with pytest.raises(Unsupported, match="cannot limit"):
            client.limit_receiving(1000)
        assert client.failure is None
