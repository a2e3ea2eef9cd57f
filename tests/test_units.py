"""Sizes, rates and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import UsageError
from fsmux.units import format_bytes, format_duration, format_exact, format_rate, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("65536", 65536), ("1K", 1000), ("1Ki", 1024), ("4MiB", 4 << 20), ("4mib", 4 << 20),
        ("2GB", 2 * 10**9),
        ("1.5M", 1_500_000), ("0.5Ki", 512), (" 7 G ", 7 * 10**9), ("3TiB", 3 << 40), ("10B", 10),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5", "1e3", "4 MM", "4Mb/s", "\u0661", "1,5K", "9" * 30, "\x1b[1m"])
def test_what_is_no_size_is_refused_in_a_printable_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert str(caught.value).isprintable()


def test_rates() -> None:
    assert parse_rate("10M") == parse_rate("10MB/s") == 10_000_000
    for text in ("0", "fast", "-1"):
        with pytest.raises(UsageError, match="not a rate"):
            parse_rate(text)


@given(st.integers(0, 2**62))
def test_what_is_printed_exactly_is_read_back_exactly(size: int) -> None:
    assert parse_size(format_exact(size)) == size


@given(st.floats(0, 1e18))
def test_what_is_printed_for_people_is_within_half_a_percent(size: float) -> None:
    text = format_bytes(size)
    if not text.endswith(" B"):
        assert abs(parse_size(text) - size) <= size * 0.0051 + 1
    assert len(text) <= len("1023 KiB") or size > 999 * 2**40


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"), (10 * 2**20, "10.0 MiB"), (2**30, "1.00 GiB")],
)
def test_bytes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text
    assert format_rate(size) == text + "/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 s"), (0.424, "0.42 s"), (12.34, "12.3 s"), (59.97, "1:00"), (185, "3:05"), (3723, "1:02:03"),
     (183840, "2d 03:04")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
