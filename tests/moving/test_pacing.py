"""How large packs are, by what the link carries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from fsmux.columns import Group
from fsmux.errors import ConnectionLost
from fsmux.limits import KIB, MEDIUM_FILE, MIB, PACK_BYTES, PACKS_AHEAD, SMALL_FILE
from fsmux.moving.account import Account
from fsmux.moving.pacing import (
    FAR_FILE,
    FILE_SECONDS,
    FIRST_AHEAD,
    FIRST_FAR,
    FIRST_NEAR,
    LEAST_PACK,
    PACK_SECONDS,
    Pace,
)
from fsmux.moving.packs import Packs
from fsmux.moving.report import Report


def carried(pace: Pace, rate: float, seconds: float, *, entries: int = 0, now: float = 0.0) -> float:
    """Have packs of the size that is wanted go over a link, one behind the other; when that is done."""
    end = now + seconds
    while now < end:
        pace.resume(now)
        size = pace.pack_bytes
        now += size / rate
        pace.done(size, entries, now)
    return now


def test_packs_are_short_until_something_is_known() -> None:
    near, far = Pace(None, far=False), Pace(None, far=True)
    assert (near.pack_bytes, near.ahead, near.medium) == (FIRST_NEAR, FIRST_AHEAD, MEDIUM_FILE)
    assert (far.pack_bytes, far.ahead, far.medium) == (FIRST_FAR, PACKS_AHEAD, FAR_FILE), "what is far may be slow"


@pytest.mark.parametrize("rate", [100 * KIB, 400 * KIB, 1 * MIB, 3 * MIB])
def test_a_pack_takes_half_a_second_on_a_slow_link(rate: int) -> None:
    for pace in (Pace(rate, far=False), Pace(None, far=False)):
        carried(pace, rate, 15.0)
        assert pace.pack_bytes == pytest.approx(max(rate * PACK_SECONDS, LEAST_PACK), rel=0.01)
    assert Pace(rate, far=False).medium == min(max(int(rate * FILE_SECONDS), SMALL_FILE), MEDIUM_FILE)


def test_a_pack_that_is_lost_tells_of_the_link() -> None:
    """Or a link that never carries a pack before it breaks would carry nothing ever."""
    pace = Pace(None, far=False)
    pace.resume(5.0)
    pace.lost(4 * MIB, 13.0)
    assert pace.pack_bytes == 256 * KIB
    assert pace.medium == 1 * MIB
    pace.resume(20.0)
    pace.lost(256 * KIB, 20.1)
    assert pace.pack_bytes == 256 * KIB, "a link that breaks at once says nothing"
    pace.resume(30.0)
    pace.done(256 * KIB, 1, 30.01)
    assert (pace.pack_bytes, pace.medium) == (PACK_BYTES, 1 * MIB), "what sessions have kept in this run is asked for"


def test_a_fast_link_is_known_by_its_first_pack() -> None:
    pace = Pace(None, far=False)
    pace.resume(100.0)
    pace.done(FIRST_FAR, 10, 100.005)
    assert (pace.pack_bytes, pace.medium) == (PACK_BYTES, MEDIUM_FILE)


def test_a_link_that_changes() -> None:
    pace = Pace(None, far=False)
    now = carried(pace, 100 * MIB, 1.0)
    assert pace.pack_bytes == PACK_BYTES
    now = carried(pace, 200 * KIB, 30.0, now=now)
    assert pace.pack_bytes == pytest.approx(100 * KIB, rel=0.01)
    carried(pace, 100 * MIB, 1.0, now=now)
    assert pace.pack_bytes == PACK_BYTES


def test_time_in_which_nothing_was_under_way_does_not_count() -> None:
    pace = Pace(None, far=False)
    now = carried(pace, 100 * MIB, 1.0)
    pace.resume(now + 1000.0)
    pace.done(FIRST_FAR, 1, now + 1000.01)
    assert pace.pack_bytes == PACK_BYTES
    pace.resume(now + 2000.0)
    pace.resume(now + 2001.0)  # what was begun then has failed
    pace.done(300_000, 10, now + 2041.0)
    assert pace.pack_bytes == LEAST_PACK


def test_names_without_contents_do_not_make_a_link_slow() -> None:
    """A thousand directories in 50 ms."""
    pace = Pace(None, far=False)
    pace.resume(0.0)
    for number in range(1, 20):
        pace.done(0, 1000, 0.05 * number)
    assert pace.pack_bytes == PACK_BYTES


def test_syncs_that_take_long_do_not_make_packs_ever_shorter() -> None:
    """A disk that takes a second for a sync, which as many packs share as are under way."""
    pace = Pace(None, far=False)
    now = 0.0
    for _ in range(20):
        now += 1.0
        for _ in range(16):
            pace.done(pace.pack_bytes, 10, now)
    assert pace.pack_bytes == PACK_BYTES


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 1000), st.floats(0, 1e6))), st.booleans())
def test_whatever_happens_packs_have_a_size(packs: list[tuple[int, int, float]], far: bool) -> None:
    pace, now = Pace(None, far=far), 0.0
    for contents, entries, seconds in packs:
        now += seconds
        pace.done(contents, entries, now)
        assert LEAST_PACK <= pace.pack_bytes <= PACK_BYTES
        assert SMALL_FILE <= pace.medium <= (FAR_FILE if far else MEDIUM_FILE)


class _Breaking(Packs):
    """A carrier whose connection breaks while its first pack is under way."""

    async def _carry(self) -> None:
        async def carry(number: int, groups: list[Group]) -> None:
            assert (number, groups) == (1, GROUPS)

        await self._start(carry, GROUPS)
        await trio.sleep(8.0)
        raise ConnectionLost("it broke")


GROUPS = [Group((), [b"a", b"b"], [MIB, MIB], [0, 0], [0o100644, 0o100644])]


async def test_what_broke_is_told(autojump_clock: trio.testing.MockClock) -> None:
    pace = Pace(None, far=False)
    route: Any = SimpleNamespace(pace=pace)
    with pytest.raises(ConnectionLost):
        await _Breaking(route, Account(Report(lambda event: None))).run()
    assert (pace.pack_bytes, pace.medium) == (128 * KIB, 512 * KIB)
