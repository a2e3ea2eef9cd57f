from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import BadName
from fsmux.files import names
from fsmux.limits import MAX_NAME, MAX_PATH_BYTES, MAX_PATH_PARTS

SPELLINGS = [
    ".fsmux", ".FSMUX", ".Fsmux", ".fsmux.", ".fsmux ", ".fsmux. .", "fsmux~1", "FSMUX~1", ".fsmux~2", ".fsmux:stream",
    ".\uff46\uff53\uff4d\uff55\uff58", "\uff0efsmux", ".fs\u200bmux", "\u200d.fsmux",
    ".fsmux\ufeff", ".f\u017fmux", ".f\u00adsmux", ".\u24d5\u24e2\u24dc\u24e4\u24e7",
    ".fsmux\u0301", ".fsmux::$DATA",
]  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_no_spelling_reaches_the_reserved_directory(name: str) -> None:
    for parts in ((name.encode(),), (b"a", name.encode()), (name.encode(), b"b")):
        with pytest.raises(BadName):
            names.check(parts)


@pytest.mark.parametrize(
    "name", ["fsmux", ".fsmuxrc", "x.fsmux", ".fsmux.bak", "fsmux~", "…", "ﬁ", "a b", "-rf", "\\", "..."]
)
def test_ordinary_names_stay_ordinary(name: str) -> None:
    names.check((name.encode(),))


@pytest.mark.parametrize(
    "parts",
    [
        (b"",), (b".",), (b"..",), (b"a", b"..", b"b"), (b"/",), (b"a/b",), (b"/etc",), (b"a\0b",), (b"\0",),
        (b"x" * (MAX_NAME + 1),), (b"a",) * (MAX_PATH_PARTS + 1), (b"x" * 255,) * (MAX_PATH_BYTES // 256 + 2),
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(BadName) as caught:
        names.check(parts)
    assert len(str(caught.value)) < 1100


def test_the_longest_that_fit() -> None:
    names.check((b"x" * MAX_NAME,))
    names.check((b"a",) * MAX_PATH_PARTS)
    names.check((b"x" * 255,) * 16)


@given(st.lists(st.binary(max_size=300), max_size=5).map(tuple))
def test_any_bytes_are_a_name_or_a_typed_error(parts: tuple[bytes, ...]) -> None:
    try:
        names.check(parts)
    except BadName:
        return
    joined = b"/".join(parts)
    assert b"\0" not in joined
    assert joined.split(b"/") == list(parts) or not parts
    assert b".." not in parts
