"""Patterns, as the manual of rsync explains them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import UsageError
from fsmux.plan.filters import Filters, Rule


def parts(path: str) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in path.rstrip("/").split("/"))


def excluded(pattern: str, path: str) -> bool:
    return not Filters([Rule(False, pattern)]).keeps(parts(path), path.endswith("/"))


@pytest.mark.parametrize(
    ("pattern", "matches", "does_not"),
    [
        ("foo", ["foo", "a/foo", "a/b/foo/"], ["foobar", "xfoo", "foo/a"]),
        ("/foo", ["foo", "foo/"], ["a/foo"]),
        ("foo/", ["foo/", "a/foo/"], ["foo", "a/foo"]),
        ("foo/bar", ["foo/bar", "a/foo/bar"], ["bar", "xfoo/bar", "foo/a/bar"]),
        ("/foo/bar", ["foo/bar"], ["a/foo/bar"]),
        ("*.o", ["a.o", "x/.o"], ["a.oo", "a.o/b"]),
        ("/*.o", ["a.o"], ["x/a.o"]),
        ("foo/*.o", ["foo/a.o", "x/foo/a.o"], ["foo/b/a.o"]),
        ("foo/**.o", ["foo/a.o", "x/foo/b/a.o"], ["a.o"]),
        ("/foo/**", ["foo/a", "foo/a/b"], ["foo", "foo/", "x/foo/a"]),
        ("/foo/***", ["foo/", "foo/a", "foo/a/b/"], ["x/foo/", "foobar"]),
        ("**/foo", ["foo", "a/foo", "a/b/foo"], ["afoo"]),
        ("a/**/b", ["a/x/b", "a/x/y/b", "q/a/x/b"], ["a/b"]),
        ("**", ["a", "a/b", "a/b/"], []),
        ("*", ["a", "a/b"], []),
        ("f?o", ["foo", "a/fxo"], ["fo", "f/o"]),
        ("f[a-c]o", ["fao", "fco"], ["fdo", "f-o"]),
        ("f[!a-c]o", ["fdo"], ["fao", "f/o"]),
        ("f[^a-c]o", ["fdo"], ["fao"]),
        ("f[]x]o", ["f]o", "fxo"], ["fao"]),
        ("f[a-]o", ["f-o", "fao"], ["fbo"]),
        ("f[[:digit:]x]o", ["f1o", "fxo"], ["f:o", "fdo"]),
        (r"f[\]]o", ["f]o"], ["fxo"]),
        (r"f\*o*", ["f*o", "f*ox"], ["fxo"]),
        (r"f\x", ["f\\x"], ["fx"]),
        ("a.b", ["a.b"], ["axb"]),
        ("(a|b)$", ["(a|b)$"], ["a"]),
        ("*\n", ["x\n"], ["x"]),
    ],
)
def test_patterns(pattern: str, matches: list[str], does_not: list[str]) -> None:
    assert [path for path in matches if not excluded(pattern, path)] == []
    assert [path for path in does_not if excluded(pattern, path)] == []


@pytest.mark.parametrize("pattern", ["", "/", "//", "a[", "a[]", "[[:none:]]", "[z-a]", "a\0"])
def test_patterns_that_mean_nothing_are_usage_errors(pattern: str) -> None:
    with pytest.raises(UsageError, match="not a pattern"):
        Filters([Rule(False, pattern)])


def test_the_first_rule_that_matches_decides() -> None:
    filters = Filters([Rule(True, "keep.o"), Rule(False, "*.o"), Rule(True, "x.o")])
    assert filters.keeps((b"a", b"keep.o"), False)
    assert not filters.keeps((b"x.o",), False)
    assert filters.keeps((b"other",), False)


def test_nothing_is_let_in_again_below_a_directory_that_is_out() -> None:
    filters = Filters([Rule(True, "keep"), Rule(False, "out/")])
    assert filters.keeps((b"out", b"keep"), False), "as a walk asks, which has pruned"
    assert not filters.admits((b"out", b"keep"), False)
    assert not filters.admits((b"x", b"out", b"y", b"keep"), False)
    assert filters.admits((b"out",), False), "a file of that name"
    assert filters.admits((b"in", b"keep"), False)


def test_without_rules_everything_takes_part() -> None:
    assert not Filters()
    assert Filters().admits((b"a",), True)
    assert Filters().keeps((b"a",), False)


@given(st.text("ab/*?[]!-^\\:.", max_size=12), st.lists(st.sampled_from([b"a", b"ab", b"-", b"]"]), min_size=1))
def test_any_pattern_is_a_rule_or_a_usage_error(pattern: str, path: list[bytes]) -> None:
    try:
        filters = Filters([Rule(False, pattern)])
    except UsageError as error:
        assert str(error).isprintable()  # noqa: PT017  (both outcomes are right)
    else:
        filters.admits(tuple(path), True)


@given(st.text("ab.", min_size=1, max_size=5), st.text("ab.", min_size=1, max_size=5))
def test_a_pattern_without_wildcards_matches_itself_only(pattern: str, name: str) -> None:
    assert excluded(pattern, name) is (pattern == name)


@given(st.lists(st.sampled_from(["*", "a", "b", "?"]), min_size=1, max_size=6), st.text("ab", min_size=1, max_size=6))
def test_stars_and_question_marks_as_in_a_regular_expression(glob: list[str], name: str) -> None:
    expected = re.fullmatch("".join({"*": ".*", "?": "."}.get(char, char) for char in glob), name) is not None
    assert excluded("".join(glob), name) is expected
