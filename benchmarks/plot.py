"""Charts as SVG, without a dependency: lines over a logarithmic axis, and grouped horizontal bars.

Theory: a chart for a README is a title, axes that can be read, a handful of series and their ranges.  That is less to
write than to configure, the text stays text, and the same figures always give the same file.  Colours are those of
Okabe and Ito, which people who see few colours can tell apart; the background is light, whatever is around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b4c9a", "#555555")
WIDTH = 820
_LINE_HEIGHT = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 230, 48, 56
_BAR, _GAP = 15, 14
_NAMES = 170
_CHARACTER = 7


@dataclass(frozen=True, slots=True)
class Point:
    """A median with its range."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """One series; a dashed one is what others are compared with."""

    name: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """One series of a bar chart: a value with its range for each group, None where there is none."""

    name: str
    values: Sequence[tuple[float, float, float] | None]
    """Median, lowest, highest."""


def ticks(highest: float, about: int = 5) -> list[float]:
    """Round numbers from zero to the first one that is not below ``highest``."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)]


def number(value: float) -> str:
    """A figure of an axis, without digits that say nothing."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def line_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], *, x_text: Callable[[float], str] = number
) -> str:
    """Lines over a logarithmic x axis with a tick at every x that occurs; y begins at zero."""
    xs = sorted({point.x for line in lines for point in line.points})
    marks = ticks(max((point.high for line in lines for point in line.points), default=0.0))
    inner, height = WIDTH - _LEFT - _RIGHT, _LINE_HEIGHT - _TOP - _BOTTOM
    low, span = math.log2(xs[0]) if xs else 0.0, math.log2(xs[-1] / xs[0]) if len(xs) > 1 else 0.0

    def across(x: float) -> float:
        return _LEFT + inner * ((math.log2(x) - low) / span if span else 0.5)

    def down(y: float) -> float:
        return _TOP + height * (1 - y / marks[-1])

    parts = [_text(_LEFT, 24, title, size=16, bold=True)]
    for mark in marks:
        parts.append(_stroke(_LEFT, down(mark), _LEFT + inner, down(mark), "#dddddd"))
        parts.append(_text(_LEFT - 8, down(mark) + 4, number(mark), anchor="end"))
    for x in xs:
        parts.append(_stroke(across(x), _TOP + height, across(x), _TOP + height + 5, "#333333"))
        parts.append(_text(across(x), _TOP + height + 20, x_text(x), anchor="middle"))
    parts.append(_stroke(_LEFT, _TOP + height, _LEFT + inner, _TOP + height, "#333333"))
    parts.append(_text(_LEFT + inner / 2, _LINE_HEIGHT - 12, x_label, anchor="middle"))
    parts.append(_text(16, _TOP + height / 2, y_label, anchor="middle", turned=True))
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        path = " ".join(f"{across(point.x):.1f},{down(point.y):.1f}" for point in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for point in line.points:
            at = across(point.x)
            if not line.dashed:
                parts.append(_stroke(at, down(point.low), at, down(point.high), colour))
                parts.append(f'<circle cx="{at:.1f}" cy="{down(point.y):.1f}" r="3.5" fill="{colour}"/>')
        key = _TOP + 10 + 20 * index
        parts.append(_stroke(_LEFT + inner + 14, key, _LEFT + inner + 38, key, colour, 2, dash))
        parts.append(_text(_LEFT + inner + 44, key + 4, line.name))
    return _svg(title, _LINE_HEIGHT, parts)


def bar_chart(title: str, x_label: str, groups: Sequence[str], series: Sequence[Bars]) -> str:
    """Horizontal bars, in groups, each with its value behind it."""
    values = [value for bars in series for value in bars.values if value is not None]
    marks = ticks(max((high for _, _, high in values), default=0.0))
    inner = WIDTH - _NAMES - 90
    group = len(series) * _BAR + _GAP
    top = _TOP + 22
    height = len(groups) * group

    def across(value: float) -> float:
        return _NAMES + inner * value / marks[-1]

    parts = [_text(_CHARACTER, 24, title, size=16, bold=True)]
    key: float = _NAMES
    for index, bars in enumerate(series):
        parts.append(f'<rect x="{key:.1f}" y="38" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>')
        parts.append(_text(key + 18, 48, bars.name))
        key += 40 + _CHARACTER * len(bars.name)
    for mark in marks:
        parts.append(_stroke(across(mark), top, across(mark), top + height, "#dddddd"))
        parts.append(_text(across(mark), top + height + 18, number(mark), anchor="middle"))
    for row, name in enumerate(groups):
        y = top + row * group + _GAP / 2
        parts.append(_text(_NAMES - 8, y + len(series) * _BAR / 2 + 4, name, anchor="end"))
        for index, bars in enumerate(series):
            if (found := bars.values[row]) is None:
                continue
            value, low, high = found
            at = y + index * _BAR
            colour = COLOURS[index % len(COLOURS)]
            wide = across(value) - _NAMES
            parts.append(f'<rect x="{_NAMES}" y="{at:.1f}" width="{wide:.1f}" height="{_BAR - 2}" fill="{colour}"/>')
            parts.append(_stroke(across(low), at + _BAR / 2 - 1, across(high), at + _BAR / 2 - 1, "#333333"))
            parts.append(_text(across(high) + 6, at + _BAR - 3, number(value), size=11))
    parts.append(_stroke(_NAMES, top, _NAMES, top + height, "#333333"))
    parts.append(_text(_NAMES + inner / 2, top + height + 40, x_label, anchor="middle"))
    return _svg(title, top + height + 54, parts)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="system-ui, sans-serif">\n<title>{escape(title)}</title>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1, dash: str = "") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dash}/>'


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", bold: bool = False, turned: bool = False
) -> str:
    more = ' font-weight="bold"' * bold + f' transform="rotate(-90 {x:.1f} {y:.1f})"' * turned
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="#222222"{more}>{escape(text)}</text>'
