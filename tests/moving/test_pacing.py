"""How large packs are, by what the link carries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.limits import KIB, MEDIUM_FILE, MIB, PACK_BYTES, PACKS_AHEAD, SMALL_FILE
from fsmux.moving.pacing import FAR_FILE, FIRST_AHEAD, FIRST_FAR, FIRST_NEAR, LEAST_PACK, PACK_SECONDS, Pace


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
        carried(pace, rate, 5.0)
        assert pace.pack_bytes == pytest.approx(max(rate * PACK_SECONDS, LEAST_PACK), rel=0.01)
        assert pace.medium == max(pace.pack_bytes, SMALL_FILE)


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
