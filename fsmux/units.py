"""Sizes, rates and durations: what a person types, and what a person reads.

Theory: input knows both families of prefixes, as the command line promises (K M G T are powers of 1000, Ki Mi Gi Ti
powers of 1024; a final ``B`` and, for rates, ``/s`` are decoration).  Output is always in powers of 1024 with the
unit written out, so that a number on the screen can be typed back and means the same.
"""

from __future__ import annotations

import re

from fsmux.errors import UsageError
from fsmux.records import printable

_FACTORS: dict[str, int] = {"": 1} | {
    letter + suffix: base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("", 1000), ("i", 1024))
}
_QUANTITY = re.compile(r"(\d{1,19})(?:\.(\d{1,9}))?\s*([kmgt]i?)?b?", re.ASCII | re.IGNORECASE)
_NAMES = ("B", "KiB", "MiB", "GiB", "TiB")


def parse_size(text: str) -> int:
    """Bytes from ``65536``, ``4MiB``, ``1.5G``; raises :class:`UsageError` for anything else.

    A fraction is allowed with a prefix and is rounded down to whole bytes.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or (match[2] and not match[3]):
        raise UsageError(f"{printable(text)!r} is not a size: write bytes, or a number with K M G or Ki Mi Gi, as 4MiB")
    whole, fraction, prefix = match.groups(default="")
    factor = _FACTORS[prefix.lower()]
    return int(whole) * factor + int(fraction.ljust(9, "0")) * factor // 10**9


def parse_rate(text: str) -> int:
    """Bytes per second from ``10M``, ``1.5MiB/s``; raises :class:`UsageError` for anything else, and for zero."""
    stripped = text.strip()
    try:
        rate = parse_size(stripped[:-2] if stripped.lower().endswith("/s") else stripped)
    except UsageError:
        rate = 0
    if rate == 0:
        raise UsageError(f"{printable(text)!r} is not a rate: write bytes per second, with K M G or Ki Mi Gi, as 10MiB")
    return rate


def format_bytes(count: float) -> str:
    """``count`` bytes in three significant digits: ``999 B``, ``1.50 KiB``, ``12.3 GiB``."""
    value, index = float(max(count, 0)), 0
    while value >= 999.5 and index < len(_NAMES) - 1:  # 999.5 would be printed as 1000
        value /= 1024
        index += 1
    if index == 0 or value >= 99.95:
        return f"{value:.0f} {_NAMES[index]}"
    return f"{value:.1f} {_NAMES[index]}" if value >= 9.995 else f"{value:.2f} {_NAMES[index]}"


def format_exact(count: int) -> str:
    """``count`` bytes in the largest binary unit that divides it, as :func:`parse_size` reads it back exactly."""
    index = 0
    while count and count % 1024 == 0 and index < len(_NAMES) - 1:
        count //= 1024
        index += 1
    return f"{count}{_NAMES[index]}" if index else str(count)


def format_rate(bytes_per_second: float) -> str:
    return f"{format_bytes(bytes_per_second)}/s"


def format_duration(seconds: float) -> str:
    """``0.42 s``, ``12.3 s``, ``3:05`` (minutes), ``1:02:03`` (hours), ``2d 03:04`` (days)."""
    if seconds < 9.995:
        return f"{max(seconds, 0.0):.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
