"""The walk, over trees that are dictionaries."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.columns import REGULAR, Group
from fsmux.errors import AccessError, StorageError
from fsmux.limits import MAX_NAME, MAX_PATH_BYTES
from fsmux.plan.walk import AHEAD, AHEAD_STEP, DIRECTORY_COST, STATE_DIRECTORY, Ahead, batches, kept, preorder, walk
from fsmux.records import Attrs, Kind

from .trees import DIRECTORY, FILE, UNREADABLE, Tree, flatten, lister, scanner, trees

if TYPE_CHECKING:
    from collections.abc import Iterator


@given(trees, st.integers(1, 5), st.integers(1, 5))
def test_everything_is_listed_once_and_parents_come_first(tree: Tree, scan_page: int, page: int) -> None:
    pages = list(walk(scanner(tree, scan_page), page_size=page))
    found = [item for page_ in pages for item in page_]
    assert sorted((item.parts, item.attrs) for item in found) == sorted(flatten(tree), key=lambda item: item[0])
    seen = {()}
    for item in found:
        assert item.parts[:-1] in seen
        seen.add(item.parts)
    assert all(pages), "no page is empty"
    assert all(len(page_) <= page for page_ in pages)


def test_a_walk_may_start_anywhere_and_reports_relative_names() -> None:
    scan = scanner({b"a": {b"b": {b"c": FILE}}})
    assert [item.parts for page in walk(scan, (b"a", b"b")) for item in page] == [(b"c",)]


def test_an_unreadable_directory_is_one_failed_entry() -> None:
    found = [item for page in walk(scanner({b"a": UNREADABLE, b"b": {b"c": FILE}})) for item in page]
    assert [(item.parts, item.error) for item in found if item.error] == [((b"a",), UNREADABLE)]
    assert ((b"a",), DIRECTORY) in [(item.parts, item.attrs) for item in found]
    assert (b"b", b"c") in [item.parts for item in found]


def test_an_unreadable_top_is_the_callers_error() -> None:
    with pytest.raises(AccessError):
        list(walk(scanner({b"a": UNREADABLE}), (b"a",)))


def test_what_is_not_kept_is_not_entered() -> None:
    entered = []

    def scan(parts: Any) -> Any:
        entered.append(parts)
        return scanner({b"a": {b"x": FILE}, b"b": {b"x": FILE}})(parts)

    found = [item.parts for page in walk(scan, keep=lambda parts, directory: parts[0] != b"a") for item in page]
    assert found == [(b"b",), (b"b", b"x")]
    assert entered == [(), (b"b",)]


def test_the_receivers_own_state_is_nobodys_content() -> None:
    tree = {STATE_DIRECTORY: {b"1.part": FILE}, b"a": {STATE_DIRECTORY: {}}}
    assert [item.parts for page in walk(scanner(tree)) for item in page] == [(b"a",)]


def test_a_bottomless_tree_ends_with_an_error() -> None:
    def scan(parts: Any) -> Any:
        yield [(b"loop", Attrs(Kind.DIRECTORY))]

    items = [item for page in walk(scan) for item in page]
    assert len(items) <= 257
    assert isinstance(items[-1].error, StorageError)


def test_only_one_directory_is_open_at_a_time() -> None:
    open_now = 0

    def scan(parts: Any) -> Any:
        nonlocal open_now
        open_now += 1
        assert open_now == 1
        try:
            yield [(b"a", DIRECTORY), (b"b", FILE)] if len(parts) < 4 else [(b"f", FILE)]
        finally:
            open_now -= 1

    assert sum(map(len, walk(scan, page_size=1))) == 9


# ---- in groups ------------------------------------------------------------------------------------------------------


@given(trees, st.integers(1, 5))
def test_groups_come_in_preorder_with_everything_once(tree: Tree, page: int) -> None:
    groups = list(preorder(lister(tree, page)))
    found = [(*group.directory, name) for group in groups for name in group.names]
    assert sorted(found) == sorted(parts for parts, _ in flatten(tree))
    directories = [group.directory for group in groups]
    assert directories == sorted(directories)
    for group, after in pairwise([*groups, None]):
        assert group is not None
        assert group.more == (after is not None and after.directory == group.directory)
        assert group.names == sorted(group.names)


def test_an_unreadable_directory_is_a_group_with_an_error() -> None:
    groups = list(preorder(lister({b"a": UNREADABLE, b"b": {b"c": FILE}})))
    assert [(group.directory, group.error) for group in groups] == [
        ((), None), ((b"a",), UNREADABLE), ((b"b",), None),
    ]  # fmt: skip
    with pytest.raises(AccessError):
        list(preorder(lister({b"a": UNREADABLE}), (b"a",)))


def test_a_bottomless_tree_of_groups_ends_with_an_error() -> None:
    def groups(parts: Any) -> Any:
        yield from lister({b"loop": {}})(())

    found = list(preorder(groups))
    assert len(found) <= 257
    assert isinstance(found[-1].error, StorageError)


@pytest.mark.parametrize("top", [(), (b"top",)], ids=["all", "below"])
def test_names_whose_paths_cannot_be_said_are_left_out_and_told_of(top: tuple[bytes, ...]) -> None:
    deep = (*[b"d" * MAX_NAME] * 15, b"d" * 100)
    room = MAX_PATH_BYTES - len(b"/".join((*top, *deep))) - 1
    inside: Tree = {b"a": FILE, b"b" * room: FILE, b"c" * (room + 1): FILE, b"d" * (room + 1): {b"x": FILE}, b"e": {}}
    tree = inside
    for name in reversed((*top, *deep)):
        tree = {name: tree, b"z": FILE}
    fits = {(*deep[:depth], b"z") for depth in range(16)} | {deep[: depth + 1] for depth in range(16)}
    fits |= {(*deep, name) for name in (b"a", b"b" * room, b"e")}
    listed = [item for page in walk(scanner(tree), top) for item in page]
    groups = list(preorder(lister(tree, 2), top))
    assert {item.parts for item in listed if item.error is None} == fits
    assert {(*group.directory, name) for group in groups for name in group.names} == fits
    for found in ([(item.parts, item.error) for item in listed], [(group.directory, group.error) for group in groups]):
        ((parts, error),) = [one for one in found if one[1] is not None]
        assert parts == deep
        assert str(error).startswith("2 names in it make paths of more than 4095 bytes")
    for group, after in pairwise(groups):
        assert group.more == (after.directory == group.directory)


@given(trees)
def test_what_is_left_out_of_a_group_takes_its_target_with_it(tree: Tree) -> None:
    for group in preorder(lister(tree, 3)):
        some = kept(group, lambda parts, directory: parts[-1] != b"a")
        assert some.names == [name for name in group.names if name != b"a"]
        assert (some.more, some.directory) == (group.more, group.directory)
        texts = group.link_targets()
        assert some.targets == [texts[index] for index in sorted(texts) if group.names[index] != b"a"]


@given(trees, st.integers(1, 40))
def test_batches_hold_what_is_worth_a_hop(tree: Tree, entries: int) -> None:
    made = list(batches(preorder(lister(tree)), entries))
    assert [group.directory for batch in made for group in batch] == [
        group.directory for group in preorder(lister(tree))
    ]
    for batch in made[:-1]:
        cost = [len(group) + DIRECTORY_COST for group in batch]
        assert sum(cost) >= entries > sum(cost[:-1])


@given(trees, st.lists(st.booleans(), max_size=30))
def test_what_is_read_ahead_comes_in_its_order_and_is_counted(tree: Tree, reads_on: list[bool]) -> None:
    files = [attrs for _, attrs in flatten(tree) if attrs.kind is Kind.FILE]
    ahead = Ahead(preorder(lister(tree)))
    found = []
    steps = iter(reads_on)
    for group in ahead:
        found.append(group)
        if next(steps, False):
            ahead.read_on()
            assert ahead.ended or sum(len(group) + DIRECTORY_COST for group in ahead._waiting) >= AHEAD_STEP
    assert found == list(preorder(lister(tree)))
    assert ahead.ended
    assert (ahead.files, ahead.bytes) == (len(files), sum(attrs.size for attrs in files))


def test_no_more_than_a_part_of_a_tree_is_read_ahead() -> None:
    read = 0

    def groups() -> Iterator[Group]:
        nonlocal read
        for number in range(100):
            read += 1
            names = [b"%03d" % index for index in range(700)]
            yield Group((b"%d" % number,), names, [1] * 700, [0] * 700, [REGULAR] * 700)

    ahead = Ahead(groups())
    one_by_one = iter(ahead)
    next(one_by_one)
    assert read == 1
    ahead.read_on()
    each = 700 + DIRECTORY_COST
    assert AHEAD_STEP <= (read - 1) * each < AHEAD_STEP + each
    for _ in range(100):
        ahead.read_on()
    assert AHEAD <= (read - 1) * each < AHEAD + each
    assert not ahead.may_read
    assert (ahead.files, ahead.bytes, ahead.ended) == (700 * read, 700 * read, False)
    next(one_by_one)
    ahead.read_on()
    assert AHEAD <= (read - 2) * each < AHEAD + each


def test_a_file_with_several_names_counts_once() -> None:
    """As what is to be sent of it does; each of its names is a file."""
    group = Group((), [b"a", b"b", b"c"], [5, 5, 7], [0] * 3, [REGULAR] * 3, shared={0: b"k" * 16, 1: b"k" * 16})
    ahead = Ahead(iter([group, Group((b"d",), [b"e"], [5], [0], [REGULAR], shared={0: b"k" * 16})]))
    assert len(list(ahead)) == 2
    assert (ahead.files, ahead.bytes) == (4, 12)
