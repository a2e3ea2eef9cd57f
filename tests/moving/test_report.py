"""What is told of a transfer that takes several attempts: each thing once, and nothing is forgotten."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from fsmux import events
from fsmux.columns import Group
from fsmux.errors import AccessError, StorageError
from fsmux.moving.report import Report
from fsmux.plan.plan import plan
from fsmux.transfer.session import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.moving.account import Account
    from fsmux.records import Parts

FILE = stat.S_IFREG | 0o644
SMALL = 100


class Told:
    """An observer with a report in front of it."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.report = Report(self.events.append)
        self.account = self.report.account(0)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def group(directory: Parts, names: Sequence[bytes], *, size: int = 5, mtime: int = 7, more: bool = False) -> Group:
    count = len(names)
    return Group(directory, list(names), [size] * count, [mtime] * count, [FILE] * count, more=more)


def step(account: Account, source: Group, existing: Group | None = None) -> list[bytes]:
    """Plan a group as a transfer does: the names that are to be moved now."""
    moved: list[bytes] = []
    for part in account.parted(source):
        found = plan(part, existing, small=SMALL, again=account.owed(part.directory))
        account.take(part, found)
        moved += found.make.names if found.make is not None else []
        moved += [large.name for large in found.large]
    return moved


def done(account: Account, directory: Parts, names: Sequence[bytes], size: int = 5) -> None:
    account.packed(events.FilesDone(directory, names, [size] * len(names), [0] * len(names), True))


def test_what_was_moved_before_the_connection_was_lost_is_not_skipped_afterwards() -> None:
    told, source = Told(), group((), [b"a", b"b", b"c"])
    assert step(told.account, source, group((), [b"c"])) == [b"a", b"b"]
    done(told.account, (), [b"a"])
    assert step(told.account, source, group((), [b"a", b"c"])) == [b"b"]
    done(told.account, (), [b"b"])
    total = told.report.sum_up()
    assert (total.files, total.skipped, total.bytes, total.bytes_sent) == (2, 1, 10, 10)
    assert told.report.found_files == 2
    assert [event.names for event in told.of(events.FilesSkipped)] == [[b"c"]]


def test_what_may_stand_and_was_not_heard_of_is_moved_again_and_told_once() -> None:
    told, source = Told(), group((), [b"a", b"b"])
    step(told.account, source)
    assert step(told.account, source, source) == [b"a", b"b"], "both stand, and nobody has said so"
    done(told.account, (), [b"a", b"b"])
    assert step(told.account, source, source) == []
    assert (told.report.files, told.report.skipped, told.report.found_files) == (2, 0, 2)


def test_the_next_attempt_goes_beyond_what_the_last_one_saw() -> None:
    told = Told()
    step(told.account, group((), [b"a", b"b"], more=True))
    done(told.account, (), [b"a", b"b"])
    whole = group((), [b"a", b"b", b"c", b"d"])
    assert step(told.account, whole, group((), [b"a", b"b", b"d"])) == [b"c"]
    assert (told.report.found_files, told.report.skipped) == (3, 1)
    assert step(told.account, group((b"sub",), [b"e"])) == [b"e"]
    assert step(told.account, group((b"sub",), [b"e"])) == [b"e"]
    assert told.report.found_files == 4


def test_a_directory_with_nothing_in_it_is_no_reason_to_begin_anew() -> None:
    told = Told()
    for _ in range(2):
        step(told.account, group((), []))
        step(told.account, group((b"a",), [b"x"]), group((b"a",), [b"x"]))
        step(told.account, group((b"b",), []))
    assert told.report.skipped == 1


def test_a_failure_is_told_once_and_forgotten_if_it_works_later() -> None:
    told, source = Told(), group((), [b"a", b"b"])
    for _ in range(2):
        step(told.account, source)
        for name in (b"a", b"b"):
            told.account.fail((name,), AccessError("no"))
    assert (told.report.failed, len(told.of(events.FileFailed))) == (2, 2)
    step(told.account, source)
    done(told.account, (), [b"b"])
    assert (told.report.failed, told.report.files) == (1, 1)


def test_sources_have_accounts_of_their_own() -> None:
    told = Told()
    for number in (0, 1):
        step(told.report.account(number), group((), [b"same"]))
    assert told.report.found_files == 2
    done(told.report.account(0), (), [b"same"])
    assert told.report.account(1).owed(()) == {b"same"}


def test_plan_and_mapping_are_told_once() -> None:
    told = Told()
    for _ in range(2):
        told.report.mapped(["a -> b"])
        told.report.planned()
    assert len(told.of(events.MappedTo)) == len(told.of(events.Planned)) == 1


def test_a_source_that_is_one_file() -> None:
    told = Told()
    assert told.account.take_itself(9)
    assert told.account.owed(())
    assert not told.account.take_itself(9)
    told.account.journey(())
    told.account.done((), Outcome(9, 9, 0, 1, True))
    assert not told.account.owed(())
    assert (told.report.found_files, told.report.files) == (1, 1)


def test_bytes_of_a_file_over_three_attempts() -> None:
    told = Told()
    for held, sent in ((10, 50), (40, 30), (60, 40)):
        journey = told.account.journey((b"f",))
        assert journey.begun == (held > 10)
        journey(events.FileStarted("f", 100, held))
        journey(events.FileProgress("f", sent))
    told.account.done((b"f",), Outcome(100, 40, 60, 1, True))
    (event,) = told.of(events.FileDone)
    assert (event.bytes, event.bytes_sent, event.bytes_resumed) == (100, 120, 10)
    assert told.report.sum_up().bytes_sent == 120


def test_what_was_reused_counts_as_there_before() -> None:
    told = Told()
    journey = told.account.journey(())
    journey(events.FileStarted("f", 100, 0))
    journey(events.FileReused("f", 30))
    journey(events.FileProgress("f", 20))
    journey(events.FileStarted("f", 100, 50))
    journey(events.FileProgress("f", 50))
    told.account.done((), Outcome(100, 50, 50, 1, True))
    (event,) = told.of(events.FileDone)
    assert (event.bytes_sent, event.bytes_resumed) == (70, 30)


def test_what_a_lost_session_has_brought_is_progress_and_did_not_come_before() -> None:
    """Of a chunk that was not whole, so that its receiver looks for it, and finds more each time."""
    told = Told()
    journey = told.account.journey(())
    for session, (found, sent) in enumerate(((0, 40), (40, 30), (60, 40))):
        journey(events.FileStarted("f", 100, 0))
        journey(events.FileReused("f", found))
        assert told.report.progress == session
        journey(events.FileProgress("f", sent))
    told.account.done((), Outcome(100, 40, 60, 1, True))
    (event,) = told.of(events.FileDone)
    assert (event.bytes_sent, event.bytes_resumed) == (110, 0)


def test_progress_is_what_the_destination_has_for_certain() -> None:
    told = Told()
    journey = told.account.journey(())
    journey(events.FileStarted("f", 100, 20))
    journey(events.FileProgress("f", 50))
    assert told.report.progress == 0, "it has left, and whether it has arrived nobody knows"
    journey(events.FileStarted("f", 100, 20))
    assert told.report.progress == 0
    journey(events.FileStarted("f", 100, 40))
    assert told.report.progress == 1
    told.account.fail((), StorageError("no"))
    assert told.report.progress == 1
    done(told.account, (), [b"other"])
    assert told.report.progress == 2


NAMES = [bytes([letter]) for letter in b"abcdef"]


@given(st.data())
def test_however_often_it_is_cut_short_the_sums_are_right(data: st.DataObject) -> None:
    """Attempts of any length over a tree, of which any part was up to date before."""
    directories: list[Parts] = [(), (b"d",), (b"d", b"e"), (b"f",)]
    tree = {(place, name) for place in directories for name in data.draw(st.sets(st.sampled_from(NAMES)))}
    before = {one for one in sorted(tree) if data.draw(st.booleans())}
    standing, told = set(before), Told()
    for attempt in range(data.draw(st.integers(1, 4))):
        left = data.draw(st.integers(0, 12))
        finished = True
        for place in directories:
            names = sorted(name for where, name in tree if where == place)
            cut = data.draw(st.integers(0, len(names)))
            for page, more in ((names[:cut], True), (names[cut:], False)):
                there = sorted(name for where, name in standing if where == place)
                moved = step(told.account, group(place, page, more=more), group(place, there))
                arriving, left = moved[:left], max(left - len(moved), 0)
                heard = arriving[: data.draw(st.integers(0, len(arriving)))] if attempt < 3 else arriving
                standing |= {(place, name) for name in arriving}
                if heard:
                    done(told.account, place, heard)
                finished = finished and heard == moved
            if not finished:
                break
    for place in directories:
        names = sorted(name for where, name in tree if where == place)
        there = sorted(name for where, name in standing if where == place)
        moved = step(told.account, group(place, names), group(place, there))
        if moved:
            done(told.account, place, moved)
    seen = [(event.directory, name) for event in told.of(events.FilesDone) for name in event.names]
    assert sorted(seen) == sorted(tree - before)
    assert told.report.found_files == len(tree - before)
    assert told.report.skipped == len(before)
    assert not any(told.account.owed(place) for place in directories)
