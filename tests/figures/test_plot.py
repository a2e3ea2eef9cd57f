"""Charts: round figures on the axes, everything within the picture, text that is escaped, XML that parses."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plot import WIDTH, Bars, Line, Point, bar_chart, line_chart, number, ticks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("highest", "marks"),
    [
        (0, [0, 1]),
        (5, [0, 1, 2, 3, 4, 5]),
        (9.3, [0, 2, 4, 6, 8, 10]),
        (1000, [0, 200, 400, 600, 800, 1000]),
        (0.012, [0, 0.0025, 0.005, 0.0075, 0.01, 0.0125]),
    ],
)
def test_ticks(highest: float, marks: list[float]) -> None:
    assert ticks(highest) == pytest.approx(marks)


@given(st.floats(1e-6, 1e12))
def test_ticks_reach_the_highest_and_not_much_further(highest: float) -> None:
    marks = ticks(highest)
    assert marks[0] == 0
    assert marks[-1] >= highest * (1 - 1e-6)
    assert marks[-2] < highest
    assert 3 <= len(marks) <= 7


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.0125, "0.0125"), (12.5, "12.5"), (2500, "2,500")])
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def coordinates(root: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for element in root.iter() for name in names if name in element.attrib]


values = st.just(0.0) | st.floats(1e-6, 1e9)


@given(st.lists(st.tuples(st.sampled_from([1, 4, 16, 1024]), values, values), min_size=1, max_size=9))
def test_lines_stay_within_the_picture(figures: list[tuple[int, float, float]]) -> None:
    points = [Point(x, min(pair), min(pair), max(pair)) for x, *pair in figures]
    root = ElementTree.fromstring(line_chart("t", "x", "y", [Line("a", points), Line("b", points, dashed=True)]))
    height = float(root.attrib["height"])
    assert all(-1 <= x <= WIDTH for x in coordinates(root, "x1", "x2", "cx"))
    assert all(-1 <= y <= height for y in coordinates(root, "y1", "y2", "cy"))


@given(st.lists(st.one_of(st.none(), st.tuples(values, values)), min_size=1, max_size=9))
def test_bars_stay_within_the_picture(figures: list[tuple[float, float] | None]) -> None:
    given = [None if pair is None else (min(pair), min(pair), max(pair)) for pair in figures]
    names = [str(index) for index in range(len(given))]
    root = ElementTree.fromstring(bar_chart("t", "x", names, [Bars("a", given), Bars("b", given)]))
    height = float(root.attrib["height"])
    assert all(0 <= x <= WIDTH for x in coordinates(root, "x1", "x2"))
    assert all(0 <= y <= height for y in coordinates(root, "y1", "y2"))
    drawn = [element for element in root.iter(f"{SVG}rect") if element.attrib.get("x")]
    assert len(drawn) == 2 + 2 * sum(value is not None for value in given)


def test_names_are_escaped() -> None:
    text = line_chart("<a> & b", "x", "y", [Line('"<script>"', [Point(1, 1, 1, 1)])])
    assert "<script>" not in text
    root = ElementTree.fromstring(text)
    assert '"<script>"' in [element.text for element in root.iter(f"{SVG}text")]


def test_nothing_measured_is_still_a_picture() -> None:
    ElementTree.fromstring(line_chart("t", "x", "y", []))
    ElementTree.fromstring(bar_chart("t", "x", [], []))
