"""What events add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux import events
from fsmux.cli.tally import RATE_SECONDS, Tally, exit_code
from fsmux.errors import ErrorCode, ExitCode


def feed(*sequence: events.Event) -> Tally:
    tally = Tally(0.0)
    for event in sequence:
        tally(event)
    return tally


def test_a_file_on_its_way_and_done() -> None:
    tally = feed(events.Planned(2, 30, 1, 5), events.FileStarted("a", 20, 8), events.FileProgress("a", 4))
    assert (tally.done_bytes, tally.active["a"].done, tally.files) == (12, 12, 0)
    tally(events.FileDone("a", 20, 12, 8, "00000000", True))
    assert (tally.done_bytes, tally.active, tally.files, tally.sent, tally.resumed) == (20, {}, 1, 12, 8)


def test_what_is_reused_is_done_and_has_not_moved() -> None:
    tally = feed(events.Planned(1, 20, 0, 0), events.FileStarted("a", 20, 5), events.FileReused("a", 10))
    assert (tally.done_bytes, tally.active["a"].done) == (15, 15)
    assert tally.total(1.0).bytes_sent == 0


def test_a_file_that_was_never_announced_counts_just_the_same() -> None:
    assert feed(events.FileDone("a", 20, 20, 0, "00000000", True)).done_bytes == 20


def test_what_failed_is_not_done_and_a_second_attempt_is_not_counted_twice() -> None:
    tally = feed(events.FileStarted("a", 20, 8), events.FileProgress("a", 4), events.FileStarted("a", 20, 12))
    assert tally.done_bytes == 12
    tally(events.FileFailed("a", "IO", "no", False))
    assert (tally.done_bytes, tally.failed, tally.failures) == (0, 1, {"IO"})


def test_while_scanning_nobody_knows_the_end() -> None:
    tally = feed(events.Scanning(3, 100), events.FileProgress("a", 10))
    assert tally.remaining(1.0) is None
    tally(events.Planned(3, 100, 0, 0))
    assert tally.remaining(2.0) == pytest.approx(90 / 5)


def test_the_rate_is_that_of_late() -> None:
    tally = feed(events.Planned(1, 10**9, 0, 0))
    for second in range(1, 21):
        tally(events.FileProgress("a", 100 if second <= 5 else 10))
        rate = tally.rate(float(second))
    assert rate == pytest.approx(10, rel=0.01)
    assert tally.rate(20 + 3 * RATE_SECONDS) < 10


def test_nothing_moved_is_a_rate_of_zero_and_no_eta() -> None:
    tally = feed(events.Planned(1, 10, 0, 0))
    assert tally.rate(0.0) == 0
    assert tally.remaining(5.0) is None


def test_the_jobs_own_summary_wins() -> None:
    summary = events.Summary(1, 2, 3, 4, 5, 6, 7, 8.0)
    assert feed(summary).total(9.0) is summary
    assert feed(events.FileProgress("a", 5)).total(9.0) == events.Summary(0, 0, 5, 0, 0, 0, 0, 9.0)


def test_there_is_something_to_sum_up_only_once_something_happened() -> None:
    assert not feed(events.Scanning(1, 1)).moved_on
    assert feed(events.Planned(0, 0, 0, 0)).moved_on


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("spdf"), st.integers(0, 100)), max_size=40))
def test_no_order_of_events_breaks_it(steps: list[tuple[str, str, int]]) -> None:
    tally = Tally(0.0)
    for path, step, number in steps:
        match step:
            case "s":
                tally(events.FileStarted(path, 100, number))
            case "p":
                tally(events.FileProgress(path, number))
            case "d":
                tally(events.FileDone(path, number, number, 0, "", True))
            case "f":
                tally(events.FileFailed(path, "IO", "", False))
    assert tally.rate(1.0) >= 0
    assert len(tally.active) <= 3


@pytest.mark.parametrize(
    ("failures", "code"),
    [
        (set(), ExitCode.OK),
        ({"NO_SPACE"}, ExitCode.SPACE),
        ({"NOT_FOUND", "SOURCE_CHANGED"}, ExitCode.SOURCE),
        ({"PERMISSION", "BAD_NAME"}, ExitCode.ACCESS),
        ({"INTEGRITY"}, ExitCode.INTEGRITY),
        ({"IS_A_DIRECTORY"}, ExitCode.SOME_FAILED),
        ({"NO_SPACE", "NOT_FOUND"}, ExitCode.SOME_FAILED),
        ({"from the future"}, ExitCode.SOME_FAILED),
    ],
)
def test_exit_codes(failures: set[str], code: ExitCode) -> None:
    assert exit_code(failures) is code
    apart = code in (ExitCode.SPACE, ExitCode.ACCESS)
    assert exit_code(failures, others=True) is (ExitCode.SOME_FAILED if apart else code)


def test_no_failure_ends_with_success() -> None:
    for code in ErrorCode:
        assert exit_code({code.name}) != ExitCode.OK
