"""What the plan decides about the entries of a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fsmux.columns import DIRECTORY as DIR
from fsmux.columns import KIND_BITS, REGULAR, SYMLINK, Act, Group
from fsmux.errors import Exists, IsADirectory, NotADirectory
from fsmux.plan.judging import Facts, Verdict, in_the_way, judge
from fsmux.plan.plan import Entered, Large, Plan, plan, unasked

from .trees import DIRECTORY, FILE, LINK, OTHER, SPECIAL, Tree, grouped, leaves, names

if TYPE_CHECKING:
    from fsmux.records import Attrs, Parts

SMALL = 100


@pytest.mark.parametrize(
    ("source", "existing", "verdict"),
    [
        (FILE, None, Verdict.SEND),
        (FILE, OTHER, Verdict.SEND),
        (FILE, replace(FILE, mtime_ns=FILE.mtime_ns + 1), Verdict.SEND),
        (FILE, FILE, Verdict.CURRENT),
        (FILE, replace(FILE, mode=0o600), Verdict.ADJUST),
        (FILE, LINK, Verdict.SEND),
        (FILE, SPECIAL, Verdict.SEND),
        (LINK, None, Verdict.MAKE),
        (LINK, replace(LINK, mtime_ns=9), Verdict.MAKE),
        (LINK, replace(LINK, link_target=b"b"), Verdict.MAKE),
        (LINK, FILE, Verdict.MAKE),
        (DIRECTORY, None, Verdict.MAKE),
        (DIRECTORY, replace(DIRECTORY, mode=0o700), Verdict.CURRENT),
        (SPECIAL, None, Verdict.SPECIAL),
        (SPECIAL, FILE, Verdict.SPECIAL),
        (FILE, DIRECTORY, Verdict.DIRECTORY_IN_THE_WAY),
        (LINK, DIRECTORY, Verdict.DIRECTORY_IN_THE_WAY),
        (DIRECTORY, FILE, Verdict.FILE_IN_THE_WAY),
        (DIRECTORY, LINK, Verdict.FILE_IN_THE_WAY),
        (DIRECTORY, SPECIAL, Verdict.FILE_IN_THE_WAY),
    ],
)
def test_one_name(source: Attrs, existing: Attrs | None, verdict: Verdict) -> None:
    there = None if existing is None else Facts.of(existing)
    assert judge(Facts.of(source), there) is verdict
    found = plan(group(x=source), None if existing is None else group(x=existing), small=SMALL)
    assert bool(found.failed) is (verdict in (Verdict.FILE_IN_THE_WAY, Verdict.DIRECTORY_IN_THE_WAY))
    assert bool(found.special) is (verdict is Verdict.SPECIAL)
    assert (found.make is not None) is (verdict in (Verdict.MAKE, Verdict.SEND))
    assert (found.adjust is not None) is (verdict is Verdict.ADJUST)


def group(**entries: Attrs) -> Group:
    ordered = dict(sorted(entries.items()))
    (found, *_) = grouped({name.encode(): attrs for name, attrs in ordered.items()})
    return found


def test_what_is_in_the_way_is_named() -> None:
    assert isinstance(in_the_way(Verdict.FILE_IN_THE_WAY, (b"x",)), NotADirectory)
    assert isinstance(in_the_way(Verdict.DIRECTORY_IN_THE_WAY, (b"x",)), IsADirectory)
    assert str(in_the_way(Verdict.FILE_IN_THE_WAY, (b"d", b"x"))).startswith("d/x: ")


def test_where_nothing_stands_everything_is_made_as_it_is() -> None:
    source = group(a=FILE, d=DIRECTORY, l=LINK)
    found = plan(source, None, small=SMALL)
    assert found == Plan(source, 1, enter={b"d": Entered(7, DIR | 0o755, True, True)})
    assert found.make is source
    assert plan(group(a=FILE), Group(()), small=SMALL).files == 1


def test_where_all_is_equal_nothing_is_done() -> None:
    source = group(a=FILE, b=OTHER)
    assert plan(source, group(a=FILE, b=OTHER), small=SMALL) == Plan(current=source)
    with_others = group(a=FILE, b=OTHER, c=FILE)
    assert plan(source, with_others, small=SMALL) == Plan(current=source)


def test_large_files_are_apart_and_it_is_known_whether_they_are_fresh() -> None:
    big = replace(FILE, size=SMALL + 1)
    found = plan(group(a=big, b=FILE, c=big), group(c=OTHER), small=SMALL)
    assert found.large == [Large(b"a", SMALL + 1, True), Large(b"c", SMALL + 1, False)]
    assert found.make is not None
    assert found.make.names == [b"b"]
    assert found.files == 1


def test_where_nothing_stands_medium_files_are_not_large() -> None:
    medium, big = replace(FILE, size=2 * SMALL), replace(FILE, size=2 * SMALL + 1)
    alone = plan(group(a=medium), None, small=SMALL, medium=2 * SMALL)
    assert (alone.large, alone.files) == ([], 1)
    found = plan(group(a=big, b=medium, c=medium), group(c=OTHER), small=SMALL, medium=2 * SMALL)
    assert found.large == [Large(b"a", 2 * SMALL + 1, True), Large(b"c", 2 * SMALL, False)]
    assert found.make is not None
    assert found.make.names == [b"b"]


def test_a_directory_that_is_there_is_entered_and_differs_or_not() -> None:
    same = plan(group(d=DIRECTORY), group(d=DIRECTORY), small=SMALL)
    assert same.enter == {b"d": Entered(7, DIR | 0o755, False, False)}
    other = plan(group(d=DIRECTORY), group(d=replace(DIRECTORY, mode=0o700)), small=SMALL)
    assert other.enter == {b"d": Entered(7, DIR | 0o755, False, True)}
    assert same.make is other.make is None


def test_a_directory_that_failed_is_not_entered() -> None:
    found = plan(group(d=DIRECTORY), group(d=FILE), small=SMALL)
    assert not found.enter
    assert found.blocked == [b"d"]


def test_another_notion_of_up_to_date() -> None:
    found = plan(group(x=FILE), group(x=OTHER), small=SMALL, equal={b"x": True}, by_bytes=True)
    assert found.adjust is not None
    assert (found.adjust.names, found.adjust.act, found.adjust.sizes) == ([b"x"], Act.ADJUST, [0])


def test_two_sources_in_one_place_share_directories_and_nothing_else() -> None:
    claimed: dict[Parts, bool] = {}
    first = plan(group(d=DIRECTORY, f=FILE, s=SPECIAL), None, small=SMALL, claimed=claimed)
    second = plan(group(d=DIRECTORY, f=DIRECTORY, s=FILE), None, small=SMALL, claimed=claimed)
    assert not first.failed
    assert [(name, type(error)) for name, error in second.failed] == [(b"f", Exists)]
    assert second.enter == {b"d": Entered(7, DIR | 0o755, False, True)}
    assert second.make is not None
    assert second.make.names == [b"s"]


flat: st.SearchStrategy[Tree] = st.dictionaries(names, st.one_of(leaves, st.just({})), max_size=5)


def columns(one: Group) -> dict[bytes, Any]:
    texts = one.link_targets()
    rows = zip(one.names, one.sizes, one.mtimes, one.modes, strict=True)
    return {name: (*rest, texts.get(index)) for index, (name, *rest) in enumerate(rows)}


@given(flat, flat, st.booleans())
def test_carried_out_the_plan_makes_both_sides_equal_and_a_second_one_has_nothing_to_do(
    old: Tree, new: Tree, missing: bool
) -> None:
    source, existing = grouped(new)[0], None if missing else grouped(old)[0]
    found = plan(source, existing, small=5)
    there = {} if existing is None else columns(existing)
    wanted = columns(source)
    for part in (found.make, found.adjust):
        there |= {name: wanted[name] for name in (part.names if part else ())}
    there |= {large.name: wanted[large.name] for large in found.large}
    there |= {name: wanted[name] for name in found.enter}
    failed = {name for name, _ in found.failed}
    for name, row in wanted.items():
        kind = row[2] & KIND_BITS
        if name not in failed and kind in (REGULAR, DIR, SYMLINK):
            assert there[name][0::2] == row[0::2]
    done = [name for part in (found.make, found.adjust, found.current) if part for name in part.names]
    spoken = sorted([*done, *found.special, *failed, *(large.name for large in found.large)])
    assert spoken == sorted(set(wanted) - {name for name, entered in found.enter.items() if not entered.made})


@given(flat, flat, st.sampled_from(["missing", "the same", "another"]))
def test_a_whole_group_is_planned_as_its_names_would_be_one_by_one(old: Tree, new: Tree, there: str) -> None:
    source = grouped(new)[0]
    source.more = False
    existing = {"missing": None, "the same": grouped(new)[0], "another": grouped(old)[0]}[there]
    found, one_by_one = (plan(source, existing, small=5, claimed=nobody) for nobody in (None, {}))
    # Errors are not equal to one another.
    assert [str(error) for _, error in found.failed] == [str(error) for _, error in one_by_one.failed]
    found.failed = one_by_one.failed
    assert found == one_by_one


@given(flat, st.booleans(), st.sets(st.integers(0, 4)))
def test_what_comes_unasked_is_what_a_plan_would_have_made_as_it_is(new: Tree, more: bool, twins: set[int]) -> None:
    """And all of the group is in it, in its order."""
    source = grouped(new)[0]
    source.more = more
    source.shared = {
        index: b"k" * 16 for index, mode in enumerate(source.modes) if index in twins and mode & KIND_BITS == REGULAR
    }
    wanted, names = columns(source), list(source.names)
    parts = list(unasked(source, 5))
    assert [name for part in parts for name in part.names] == names
    assert {name: row for part in parts for name, row in columns(part).items()} == wanted
    assert all(part.more for part in parts[:-1])
    assert not parts or parts[-1].more is more
    for part in parts:
        if part.act is Act.MAKE and part.names:
            found = plan(part, None, small=1, medium=5, shared={})
            assert found.make is part
            assert [found.large, found.special, found.failed, found.further] == [[], [], [], []]
        for index, mode in enumerate(part.modes):
            needs_a_plan = (
                mode & KIND_BITS not in (REGULAR, DIR, SYMLINK) or part.sizes[index] > 5 or index in part.shared
            )
            assert needs_a_plan is (part.act is Act.LIST)


def test_why_a_directory_cannot_be_read_is_told_with_what_comes_unasked() -> None:
    error = Exists("no")
    (part,) = unasked(Group((b"d",), error=error), 5)
    assert (part.act, part.error, part.directory) == (Act.LIST, error, (b"d",))
