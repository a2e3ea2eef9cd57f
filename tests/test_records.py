from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.records import Attrs, Extent, Kind, printable
from fsmux.wire.frames import Cmd


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ((), "."),
        ((b"a", b"b.txt"), "a/b.txt"),
        (b"plain", "plain"),
        ("plain", "plain"),
        ("größe".encode(), "größe"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"two\nlines\r", "two\\x0alines\\x0d"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\x9b31m", "\\x9b31m"),
        ("\U000e0001", "\\U000e0001"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_printable(name: tuple[bytes, ...] | bytes | str, shown: str) -> None:
    assert printable(name) == shown


def test_printable_leaves_nothing_that_a_terminal_acts_on() -> None:
    shown = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert not {unicodedata.category(char) for char in set(shown)} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.one_of(st.text(), st.binary(), st.lists(st.binary(min_size=1)).map(tuple)))
def test_printable_is_idempotent_and_always_encodable(name: tuple[bytes, ...] | bytes | str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode()
    assert printable(shown) == shown


def test_extent() -> None:
    assert Extent(3, 4).end == 7
    assert Extent(3, 4) == (3, 4)


def test_attrs_know_their_command() -> None:
    assert Attrs.CMD == Cmd.ATTRS
    assert Attrs(Kind.FILE) == Attrs(Kind.FILE, 0, 0, 0, b"")
