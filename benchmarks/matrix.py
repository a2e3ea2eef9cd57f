"""The whole matrix: stream counts, connections, file sizes, both directions, against raw loops and other tools.

Four sweeps, each by interleaved runs whose result is compared byte by byte afterwards:

* ``streams``: a tree of as many files as there are streams at most, over one connection, with 1 to 1024 streams;
* ``connections``: the same tree, and one large file, over 1 to 8 connections;
* ``sizes``: equal files of 4 KiB to 4 GiB, as many as make the bytes of one point;
* ``latency``: what ``stat`` takes on a connection that carries a download with 1 to 1024 streams.

Time is bounded: each point has its share of ``--minutes`` and begins no further round after it; a table says how many
rounds it has.  ``--plots DIR`` draws three charts there: throughput over streams, waits under load, files a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.contenders import Fsmux, RawLoop, installed
from benchmarks.harness import (
    GIB,
    MIB,
    Contender,
    Result,
    compete,
    conditions,
    console,
    random_file,
    random_tree,
    remove,
    table,
    write_json,
)
from benchmarks.plot import Bars, Line, Point, bar_chart, line_chart
from benchmarks.processes import Failed, file_system, scratch
from benchmarks.streams import waits_under_load
from benchmarks.wan import percentile
from fsmux.limits import MEDIUM_FILE
from fsmux.units import format_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

STREAMS = (1, 4, 16, 64, 256, 1024)
CONNECTIONS = (1, 2, 4, 8)
DIRECTIONS = ("down", "up")
SWEEPS = ("streams", "connections", "sizes", "latency")
KIB = 1024
SHOWN = ("raw loop crc", "raw loop overlap crc", "rsync daemon", "nginx + curl", "globus-url-copy")
"""Who is drawn beside fsmux; the tables have everybody."""

FEW_STREAMS = "16"
"""Where streams are not what is varied: the default of fsmux."""

LEAST_SIZE = MEDIUM_FILE + 256 * KIB
"""Bytes of a file for a stream."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the points are, and how long the whole may take."""

    sizes: tuple[int, ...]
    total: int
    """Bytes of one point, unless a single file has more."""
    most_files: int
    rounds: int
    minutes: float
    ask_seconds: float


FULL = Scale((4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, 4 * GIB), GIB, 10_000, 5, 55.0, 6.0)
QUICK = Scale((4 * KIB, MIB, 128 * MIB), 128 * MIB, 1000, 3, 3.0, 1.5)


@dataclass(slots=True)
class Found:
    """All results, by what was varied; ``waits`` in seconds by streams."""

    cases: dict[str, list[Result]] = field(default_factory=dict)
    waits: dict[int, list[float]] = field(default_factory=dict)


class Matrix:
    """One run of the chosen sweeps in one scratch directory."""

    def __init__(self, place: Path, scale: Scale, streams: list[int], connections: list[int], out: Console) -> None:
        self.found = Found()
        self._place = place
        self._data = place / "data"
        self._data.mkdir()
        self._scale = scale
        self._streams = streams
        self._connections = connections
        self._out = out
        self._loops: list[Contender] = [
            RawLoop(place, *flags) for flags in ((), ("--overlap",), ("--crc",), ("--overlap", "--crc"))
        ]
        self._tools, missing = installed(place)
        for sentence in missing:
            out.print(sentence)

    def run(self, sweeps: list[str]) -> None:
        """Each sweep with its share of the time; what one does not use goes to those after it."""
        ends = time.monotonic() + 60 * self._scale.minutes
        for number, sweep in enumerate(sweeps):
            left = ends - time.monotonic()
            getattr(self, sweep)(time.monotonic() + left / (len(sweeps) - number))

    def streams(self, until: float) -> None:
        """Stream counts on one connection."""
        source = self._many()
        ours = [Fsmux("--streams", str(count)) for count in self._streams]
        points = [(f"{direction} by streams", direction) for direction in DIRECTIONS]
        for (title, direction), end in portions(points, until):
            self._case(title, direction, [*ours, *self._loops, *self._tools], source, end)
        remove(source)

    def connections(self, until: float) -> None:
        """Several connections: a tree, and one file that is spread over them."""
        large = random_file(self._data / "large", self._scale.total)
        ours = [Fsmux("--streams", FEW_STREAMS, "-j", str(count)) for count in self._connections]
        many = self._many()
        points = [(source, direction) for source in (many, large) for direction in DIRECTIONS]
        for (source, direction), end in portions(points, until):
            title = f"{direction} by connections, {'one file' if source == large else 'many files'}"
            self._case(title, direction, [*ours, RawLoop(self._place, "--crc")], source, end)
        remove(large)
        remove(many)

    def sizes(self, until: float) -> None:
        """Sizes of files, largest last."""
        points = [(size, direction) for size in self._scale.sizes for direction in DIRECTIONS]
        weights = [max(self._scale.total, size) for size, _ in points]
        source = self._data
        for (size, direction), end in portions(points, until, weights):
            if direction == DIRECTIONS[0]:
                source = self._of_size(size)
            contenders = [Fsmux("--streams", FEW_STREAMS), *self._loops, *self._tools]
            self._case(size_title(direction, size), direction, contenders, source, end)
            if direction == DIRECTIONS[-1]:
                remove(source)

    def latency(self, until: float) -> None:
        """Small requests beside bulk data; it takes the time that it takes, which is little."""
        source = self._many()
        for count in self._streams:
            self.found.waits[count] = waits_under_load(self._place, source, count, self._scale.ask_seconds)
        remove(source)
        made = Table(title="stat on a connection that carries a download", title_justify="left")
        for column in ("streams", "asked", "median ms", "p99 ms", "worst ms"):
            made.add_column(column, justify="right")
        for count, waits in self.found.waits.items():
            figures = (statistics.median(waits), percentile(waits, 0.99), max(waits))
            made.add_row(str(count), str(len(waits)), *(f"{1000 * figure:.1f}" for figure in figures))
        self._out.print(made)

    def _many(self) -> Path:
        """A tree with a file for each stream, none of them so small that it would travel in a pack."""
        files = max(self._streams)
        return random_tree(self._data / "many", files, max(self._scale.total // files, LEAST_SIZE))

    def _of_size(self, size: int) -> Path:
        files = max(1, min(self._scale.total // size, self._scale.most_files))
        if files == 1:
            return random_file(self._data / "one", size)
        return random_tree(self._data / "some", files, size)

    def _case(self, title: str, direction: str, contenders: list[Contender], source: Path, until: float) -> None:
        results = compete(contenders, direction, source, self._place, self._scale.rounds, self._out, until=until)
        self.found.cases[title] = results
        self._out.print(table(title, results, "raw loop crc"))


def portions(points: list[Any], until: float, weights: list[int] | None = None) -> Iterator[tuple[Any, float]]:
    """Each point with the time until which it may begin rounds; what one leaves goes to the others."""
    weights = weights or [1] * len(points)
    for number, point in enumerate(points):
        now = time.monotonic()
        yield point, now + max(0.0, until - now) * weights[number] / sum(weights[number:])


def _size_text(size: int) -> str:
    text = format_exact(size)
    return f"{text.rstrip('KMGTiB')} {text.lstrip('0123456789')}"


def size_title(direction: str, size: int) -> str:
    return f"{direction}, files of {_size_text(size)}"


def plots(found: Found, scale: Scale, streams: list[int]) -> dict[str, str]:
    """The charts for which there are figures, by the name of the file."""
    made = {}
    if any(f"{direction} by streams" in found.cases for direction in DIRECTIONS):
        made["throughput.svg"] = _throughput(found, streams)
    if found.waits:
        made["latency.svg"] = _latency(found.waits)
    smallest = [found.cases.get(size_title(direction, scale.sizes[0])) for direction in DIRECTIONS]
    if all(smallest):
        made["files.svg"] = _files(_size_text(scale.sizes[0]), [results or [] for results in smallest])
    return made


def _throughput(found: Found, streams: list[int]) -> str:
    lines, others = [], []
    for direction in DIRECTIONS:
        results = {result.name: result for result in found.cases[f"{direction} by streams"]}
        ours = [(count, results[f"fsmux --streams {count}"]) for count in streams]
        lines.append(Line(f"fsmux, {direction}", [_point(count, result) for count, result in ours]))
        for name in (name for name in SHOWN if name in results and direction == "down"):
            ends = [_point(count, results[name]) for count in (streams[0], streams[-1])]
            others.append(Line(f"{name}, {direction}", ends, dashed=True))
    return line_chart("Throughput of one connection, loopback, in memory", "streams", "MB/s", [*lines, *others])


def _point(x: float, result: Result) -> Point:
    fastest, slowest = result.range
    return Point(x, result.rate / 1e6, result.bytes / slowest / 1e6, result.bytes / fastest / 1e6)


def _latency(waits: dict[int, list[float]]) -> str:
    def line(name: str, figure: Callable[[list[float]], float]) -> Line:
        points = [(count, 1000 * figure(found)) for count, found in waits.items()]
        return Line(name, [Point(count, value, value, value) for count, value in points])

    lines = [line("99 % wait less", lambda found: percentile(found, 0.99)), line("median", statistics.median)]
    return line_chart("stat beside a download on the same connection, loopback", "streams", "milliseconds", lines)


def _files(size: str, directions: list[list[Result]]) -> str:
    names = [result.name for result in sorted(directions[0], key=lambda result: result.seconds)]
    series = []
    for direction, results in zip(DIRECTIONS, directions, strict=True):
        by_name = {result.name: result for result in results}
        values = [
            (result.files_rate, result.files / result.range[1], result.files / result.range[0])
            for result in (by_name[name] for name in names)
        ]
        series.append(Bars(direction, values))
    return bar_chart(f"Files of {size}, loopback, in memory", "files per second", names, series)


def _numbers(text: str) -> list[int]:
    return sorted({int(word) for word in text.split(",")})


def main() -> int:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description="Compare fsmux with everything.")
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=f"of {', '.join(SWEEPS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="about 3 minutes: fewer, smaller points")
    parser.add_argument("--streams", type=_numbers, default=list(STREAMS), help="stream counts, comma")
    parser.add_argument("--connections", type=_numbers, default=list(CONNECTIONS), help="connection counts, comma")
    parser.add_argument("--rounds", type=int, help="runs of each at most (5; quick: 3)")
    parser.add_argument("--minutes", type=float, help="no further round begins after this (55; quick: 3)")
    parser.add_argument("--total", type=int, help="MiB of one point (1024; quick: 128)")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the charts into this directory")
    given = parser.parse_args()
    sweeps = given.sweeps or list(SWEEPS)
    if unknown := set(sweeps) - set(SWEEPS):
        parser.error(f"there is no sweep {', '.join(sorted(unknown))}")
    base = QUICK if given.quick else FULL
    total = given.total * MIB if given.total else base.total
    sizes = tuple(size for size in base.sizes if size <= total or not given.total)
    scale = Scale(
        sizes, total, base.most_files, given.rounds or base.rounds, given.minutes or base.minutes, base.ask_seconds
    )
    out = console()
    started = time.monotonic()
    needed = 2 * max(*scale.sizes, 2 * scale.total, LEAST_SIZE * max(given.streams)) + GIB // 4
    try:
        with scratch(needed) as place:
            surroundings = conditions(place, file_system(place))
            out.print(", ".join(f"{name} {value}" for name, value in surroundings.items()))
            matrix = Matrix(place, scale, given.streams, given.connections, out)
            matrix.run(sweeps)
    except Failed as exc:
        out.print(f"[bold red]{exc}[/]")
        return 1
    out.print(
        f"all that was received is byte-exact; {(time.monotonic() - started) / 60:.1f} minutes, "
        f"load {os.getloadavg()[0]:.1f} at the end; of tools that fork for a connection, memory is the parent's alone"
    )
    found = matrix.found
    if given.json:
        write_json(given.json, {"conditions": surroundings, "cases": found.cases, "waits": found.waits})
    if given.plots:
        given.plots.mkdir(parents=True, exist_ok=True)
        for name, text in plots(found, scale, given.streams).items():
            (given.plots / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
