"""What the plan decides, and in which order it says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from fsmux.errors import Exists, IsADirectory, NotADirectory
from fsmux.plan.plan import (
    AdjustFile,
    Fail,
    FinishDirectory,
    MakeDirectory,
    MakeSymlink,
    Skip,
    TransferFile,
    plan,
)
from fsmux.plan.walk import Listed
from fsmux.records import Attrs, Kind, Parts

from .trees import DIRECTORY, FILE, LINK, OTHER, SPECIAL, UNREADABLE, Tree, flatten, listing, trees


def one(source: Attrs, existing: Attrs | None) -> Any:
    actions = list(plan([Listed((b"x",), source)], {} if existing is None else {(b"x",): existing}))
    return actions[0] if actions else None


X = (b"x",)


@pytest.mark.parametrize(
    ("source", "existing", "action"),
    [
        (FILE, None, TransferFile(X, FILE)),
        (FILE, OTHER, TransferFile(X, FILE, OTHER)),
        (FILE, replace(FILE, mtime_ns=FILE.mtime_ns + 1), TransferFile(X, FILE, replace(FILE, mtime_ns=1_001))),
        (FILE, FILE, Skip(X, FILE, "up to date")),
        (FILE, replace(FILE, mode=0o600), AdjustFile(X, FILE)),
        (FILE, LINK, TransferFile(X, FILE, LINK)),
        (LINK, None, MakeSymlink(X, LINK)),
        (LINK, replace(LINK, mtime_ns=9), Skip(X, LINK, "up to date")),
        (LINK, replace(LINK, link_target=b"b"), MakeSymlink(X, LINK, replace=True)),
        (LINK, FILE, MakeSymlink(X, LINK, replace=True)),
        (DIRECTORY, None, MakeDirectory(X, DIRECTORY)),
        (DIRECTORY, DIRECTORY, None),
        (DIRECTORY, replace(DIRECTORY, mode=0o700), FinishDirectory(X, DIRECTORY)),
        (SPECIAL, None, Skip(X, SPECIAL, "special file", warn=True)),
        (SPECIAL, FILE, Skip(X, SPECIAL, "special file", warn=True)),
    ],
)
def test_one_entry(source: Attrs, existing: Attrs | None, action: Any) -> None:
    assert one(source, existing) == action


@pytest.mark.parametrize(
    ("source", "existing", "error"),
    [
        (FILE, DIRECTORY, IsADirectory),
        (LINK, DIRECTORY, IsADirectory),
        (DIRECTORY, FILE, NotADirectory),
        (DIRECTORY, LINK, NotADirectory),
        (DIRECTORY, SPECIAL, NotADirectory),
    ],
)
def test_what_stands_in_the_way_is_not_removed(source: Attrs, existing: Attrs, error: type[Exception]) -> None:
    action = one(source, existing)
    assert isinstance(action, Fail)
    assert isinstance(action.error, error)
    assert str(action.error).startswith("x: ")


def test_below_a_directory_that_failed_nothing_is_tried() -> None:
    source = listing({b"d": {b"e": {b"f": FILE}}, b"g": FILE})
    actions = list(plan(source, {(b"d",): FILE}))
    assert [type(action) for action in actions] == [Fail, TransferFile]


def test_an_unreadable_entry_is_a_failure_and_a_directory_made_before_is_finished() -> None:
    source = [Listed((b"d",), DIRECTORY), Listed((b"d",), None, UNREADABLE)]
    assert [type(action) for action in plan(source, {})] == [MakeDirectory, Fail, FinishDirectory]


def test_the_top_itself_may_take_part() -> None:
    actions = list(plan([Listed((), DIRECTORY), Listed((b"a",), FILE)], {}))
    assert actions == [MakeDirectory((), DIRECTORY), TransferFile((b"a",), FILE), FinishDirectory((), DIRECTORY)]
    assert list(plan([Listed((), DIRECTORY)], {(): DIRECTORY})) == []


def test_another_notion_of_up_to_date() -> None:
    actions = list(plan([Listed(X, FILE)], {X: OTHER}, up_to_date=lambda source, destination: True))
    assert actions == [AdjustFile(X, FILE)]


def test_two_sources_in_one_place_share_directories_and_nothing_else() -> None:
    claimed: dict[Parts, bool] = {}
    first = list(plan(listing({b"d": {b"a": FILE}, b"f": FILE, b"s": SPECIAL}), {}, claimed=claimed))
    second = list(plan(listing({b"d": {b"a": FILE, b"b": FILE}, b"f": {}, b"s": FILE}), {}, claimed=claimed))
    assert not any(isinstance(action, Fail) for action in first)
    failures = [action for action in second if isinstance(action, Fail)]
    assert [action.parts for action in failures] == [(b"d", b"a"), (b"f",)]
    assert all(isinstance(action.error, Exists) for action in failures)
    assert [action.parts for action in second if isinstance(action, TransferFile)] == [(b"d", b"b"), (b"s",)]
    assert not any(isinstance(action, MakeDirectory) for action in second)


def apply(actions: list[Any], tree: dict[Parts, Attrs]) -> None:
    """Carry the actions out on a listing, as strictly as a disk would."""
    for action in actions:
        match action:
            case MakeDirectory(parts, attrs):
                assert parts not in tree
                tree[parts] = replace(attrs, mtime_ns=-1, mode=0o700)
            case TransferFile(parts, attrs) | MakeSymlink(parts, attrs) | AdjustFile(parts, attrs):
                tree[parts] = attrs
            case FinishDirectory(parts, attrs):
                tree[parts] = attrs
                continue
            case _:
                continue
        for depth in range(1, len(action.parts)):
            assert tree[action.parts[:depth]].kind is Kind.DIRECTORY
        if len(action.parts) > 1 and not isinstance(action, AdjustFile):
            above = action.parts[:-1]
            tree[above] = replace(tree[above], mtime_ns=-2)


@given(trees, trees)
def test_carried_out_the_plan_makes_both_sides_equal_and_a_second_one_has_nothing_to_do(old: Tree, new: Tree) -> None:
    destination = dict(flatten(old))
    actions = list(plan(listing(new), destination))
    failed = {action.parts for action in actions if isinstance(action, Fail)}
    apply(actions, destination)
    for parts, attrs in flatten(new):
        blocked = any(parts[:depth] in failed for depth in range(1, len(parts) + 1))
        if not blocked and attrs.kind is not Kind.SPECIAL:
            assert destination[parts] == attrs
    again = [a for a in plan(listing(new), destination) if not isinstance(a, Skip | Fail)]
    assert again == []


@given(trees)
def test_every_entry_of_a_new_tree_gets_one_action_and_directories_end_deepest_first(tree: Tree) -> None:
    actions = list(plan(listing(tree), {}))
    finishing = [action.parts for action in actions if isinstance(action, FinishDirectory)]
    assert finishing == [a.parts for a in reversed(actions) if isinstance(a, MakeDirectory)]
    assert [a.parts for a in actions if not isinstance(a, FinishDirectory)] == [parts for parts, _ in flatten(tree)]
