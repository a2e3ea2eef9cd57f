"""How long is waited, and how often."""

from __future__ import annotations

import pytest

from fsmux.backoff import FIRST_SECONDS, MOST_SECONDS, RETRIES, Backoff


def delays(backoff: Backoff, count: int) -> list[float | None]:
    return [backoff.failed(progressed=False) for _ in range(count)]


def test_delays_double_up_to_a_limit() -> None:
    found = delays(Backoff(10, lambda: 0.0), 10)
    assert found[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert found[-1] == MOST_SECONDS
    assert found == sorted(found)  # type: ignore[type-var]


def test_chance_takes_off_up_to_a_half() -> None:
    least = delays(Backoff(10, lambda: 1 - 2**-53), 10)
    most = delays(Backoff(10, lambda: 0.0), 10)
    for low, high in zip(least, most, strict=True):
        assert low is not None
        assert high is not None
        assert high / 2 <= low < high
    assert len({Backoff().failed(progressed=False) for _ in range(20)}) > 1, "clients do not come back together"


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_is_given_up_after_so_many_in_a_row(retries: int) -> None:
    backoff = Backoff(retries)
    assert None not in delays(backoff, retries)
    assert backoff.failed(progressed=False) is None


def test_an_attempt_that_brought_something_makes_the_next_one_the_first() -> None:
    backoff = Backoff(2, lambda: 0.0)
    delays(backoff, 2)
    assert backoff.failed(progressed=True) == FIRST_SECONDS
    assert backoff.failures == 1
    assert delays(backoff, 2) == [2 * FIRST_SECONDS, None]


def test_without_retries_progress_does_not_help() -> None:
    assert Backoff(0).failed(progressed=True) is None


def test_any_number_of_failures_can_be_counted() -> None:
    assert delays(Backoff(5000, lambda: 0.0), 5000)[-1] == MOST_SECONDS


def test_a_machine_has_time_to_restart() -> None:
    total = sum(delay or 0 for delay in delays(Backoff(RETRIES, lambda: 0.5), RETRIES))
    assert 60 < total < 300
