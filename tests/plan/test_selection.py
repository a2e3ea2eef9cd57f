"""The names that ``--files-from`` gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import UsageError
from fsmux.plan.selection import Selection, select, split_names


def test_lines_and_what_is_none() -> None:
    assert split_names(b"a\n\nb/c\r\n#x\n;y\n a\nlast", nul=False) == [b"a", b"b/c", b" a", b"last"]
    assert split_names(b"a\nb\0\0#x\0", nul=True) == [b"a\nb", b"#x"]
    assert split_names(b"", nul=False) == []


def test_names_are_taken_below_the_source_whatever_they_look_like() -> None:
    assert list(select([b"/a//b/./c/", b"./d", b"a/b"]).named()) == [(b"a", b"b"), (b"d",)]


@pytest.mark.parametrize("name", [b"..", b"a/../b", b"/../etc/passwd", b"x" * 256, b"a/" * 256, b"n\0o"])
def test_what_leads_out_or_is_no_name_is_refused(name: bytes) -> None:
    with pytest.raises(UsageError, match="--files-from, name 2: "):
        select([b"fine", name])


def test_a_dot_is_everything() -> None:
    assert select([b"a/b", b".", b"c"]).whole


paths = st.lists(st.sampled_from([b"a", b"b", b"a-", b"c"]), min_size=1, max_size=4).map(tuple)


@given(st.lists(paths, max_size=12))
def test_any_order_comes_to_the_same(given_paths: list[tuple[bytes, ...]]) -> None:
    one, other = Selection(), Selection()
    for parts in given_paths:
        one.add(parts)
    for parts in reversed(given_paths):
        other.add(parts)
    assert one == other
    kept = {parts for parts in given_paths if not any(parts[:depth] in given_paths for depth in range(len(parts)))}
    assert list(one.named()) == sorted(kept)
    inner = list(one.inner())
    assert inner == sorted(inner)
    assert set(inner) == {()} | {parts[:depth] for parts in kept for depth in range(len(parts))}
