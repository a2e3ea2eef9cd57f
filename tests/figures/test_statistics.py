"""What benchmarks make of figures: shares, portions of time, bars, records."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.bars import GROUPS, Run
from benchmarks.harness import Bar, Result, Sample, console, write_json
from benchmarks.matrix import FULL, QUICK, Found, plots, portions, size_title
from benchmarks.streams import jain

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("shares", "index"), [([5, 5, 5, 5], 1.0), ([1, 0, 0, 0], 0.25), ([1, 3], 0.8), ([0, 0], 1.0), ([7], 1.0)]
)
def test_jain(shares: list[float], index: float) -> None:
    assert jain(shares) == pytest.approx(index)


def test_time_is_dealt_out_by_weight_and_what_is_left_goes_on() -> None:
    ends = time.monotonic() + 1000
    given = [(point, end - time.monotonic()) for point, end in portions(["a", "b", "c"], ends, [1, 1, 2])]
    assert [point for point, _ in given] == ["a", "b", "c"]
    assert [seconds for _, seconds in given] == pytest.approx([250, 1000 / 3, 1000], abs=1)


def test_time_that_is_over_is_over() -> None:
    assert all(end <= time.monotonic() for _, end in portions([1, 2], time.monotonic() - 5))


def result(name: str, seconds: float, files: int = 1) -> Result:
    return Result(name, 10**9, files, [Sample(seconds * factor, 0.1, 0.2, 1, 2) for factor in (0.9, 1.0, 1.2)])


def test_charts_are_drawn_of_what_was_measured() -> None:
    found = Found()
    assert plots(found, QUICK, [1, 16]) == {}
    for direction in ("down", "up"):
        results = [result("fsmux --streams 1", 2.0), result("fsmux --streams 16", 1.0), result("raw loop crc", 1.5)]
        found.cases[f"{direction} by streams"] = results
        found.cases[size_title(direction, QUICK.sizes[0])] = [result("fsmux", 1.0, 500), result("raw loop", 2.0, 500)]
    found.waits = {1: [0.001, 0.002], 16: [0.004]}
    made = plots(found, QUICK, [1, 16])
    assert set(made) == {"throughput.svg", "latency.svg", "files.svg"}
    assert "raw loop crc, down" in made["throughput.svg"]
    assert "4 KiB" in made["files.svg"]
    assert "99 %" in made["latency.svg"]


def test_the_full_matrix_goes_from_4_kib_to_4_gib() -> None:
    assert (FULL.sizes[0], FULL.sizes[-1]) == (4 << 10, 4 << 30)
    assert FULL.minutes < 60


def test_results_and_bars_become_json(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(path, {"bars": [Bar("a", "1", "2", True)], "cases": {"x": [result("fsmux", 2.0)]}, "waits": {1: [0.5]}})
    read = json.loads(path.read_text())
    assert read["bars"][0]["met"] is True
    assert read["cases"]["x"][0]["bytes_per_second"] == 5e8
    assert read["waits"] == {"1": [0.5]}


def test_memory_is_that_of_the_worst_side_of_all_runs(tmp_path: Path) -> None:
    run = Run(tmp_path, 1, 0.5, console())
    low = Result("a", 1, 1, [Sample(1, 1, 1, 10 << 20, 121 << 20)])
    run.memory_bar("x", [low])
    assert not run.bars[0].met
    assert run.bars[0].measured == "client 10 MiB, server 121 MiB"
    assert run.bytes(100) == 50
    assert "large" in GROUPS
