"""The bars for speed, side by side in one run: what is wanted, what was measured, met or missed (``make bench-bars``).

Each bar is a ratio of medians of interleaved runs of whole processes from start to exit, over loopback, in memory where
there is a tmpfs, with ``--durability none``, CRC on, nothing encrypted.  Groups of bars can be run by themselves:

* ``large``: one file of 4 GiB with one stream against raw loops and other tools, CPU seconds, memory;
* ``again``: the same file served twice by one server, which remembers its digests;
* ``streams``: 64 files of 16 MiB, and 1024 of 1 MiB, with few and with many streams;
* ``latency``, ``stalled``, ``fair``: what streams of one connection do to each other.

Links with distance and loss are measured by :mod:`benchmarks.wan`, which needs root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from benchmarks import mux, wan
from benchmarks.contenders import Fsmux, RawLoop, installed
from benchmarks.harness import (
    GIB,
    MIB,
    Bar,
    Contender,
    Result,
    compete,
    conditions,
    console,
    random_file,
    random_tree,
    remove,
    report_bars,
    table,
    verify,
    write_json,
)
from benchmarks.processes import Failed, file_system, fsmux, fsmux_server, scratch
from benchmarks.streams import fairness, jain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

ROUNDS = 5
LARGE = 4 * GIB
TREES = (
    (64, 16 * MIB, (1, 4, 16, 64, 256, 1024), {16: 0.95, 64: 0.95, 1024: 0.85}),
    (1024, MIB, (16, 64, 1024), {1024: 0.85}),
)
"""Files, bytes of each, stream counts to compare, and what share of the best throughput some of them must reach."""

SECOND_TIME = 0.5
MEMORY = 120 * MIB
KEPT = 0.97
EQUAL_STREAMS = 100
EQUAL_BYTES = 48 * MIB
EQUAL_SECONDS = 20.0
EQUAL = 0.98
TIMES = {
    "raw loop": 1.0,
    "raw loop overlap": 1.25,
    "rsync daemon": 0.7,
    "nginx + curl": 1.0,
    "globus-url-copy": 1.0,
}
"""Time of one large file at most, relative to each."""

CPU_OF = "raw loop crc"
CPU = 1.3


@dataclass(slots=True)
class Run:
    """Where it works, how much it does, and what it has found."""

    place: Path
    rounds: int
    scale: float
    out: Console
    bars: list[Bar] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """What is served or sent."""
        return self.place / "data"

    def bytes(self, size: int) -> int:
        """So many, on the scale of this run."""
        return max(1, int(size * self.scale))

    def bar(self, name: str, measured: str, wanted: str, met: bool) -> None:
        self.bars.append(Bar(name, measured, wanted, met))

    def compete(self, title: str, contenders: Sequence[Contender], direction: str, source: Path) -> dict[str, Result]:
        """All runs, with their table; by name."""
        results = compete(contenders, direction, source, self.place, self.rounds, self.out)
        self.out.print(table(f"{title}, {direction}", results))
        self.found[f"{title}, {direction}"] = results
        return {result.name: result for result in results}

    def memory_bar(self, title: str, results: Sequence[Result]) -> None:
        """Neither side ever held more."""
        client = max(result.peaks[0] for result in results)
        server = max(result.peaks[1] for result in results)
        self.bar(
            f"{title}, peak memory",
            f"client {client / MIB:.0f} MiB, server {server / MIB:.0f} MiB",
            f"at most {MEMORY // MIB} MiB",
            max(client, server) <= MEMORY,
        )


def large(run: Run) -> None:
    """One large file with one stream, against everything."""
    tools, missing = installed(run.place)
    for sentence in missing:
        run.out.print(sentence)
    loops = [RawLoop(run.place, *flags) for flags in ((), ("--overlap",), ("--crc",), ("--overlap", "--crc"))]
    others = [*loops, *(tool for tool in tools if tool.name in TIMES)]
    source = random_file(run.data / "large", run.bytes(LARGE))
    title = f"{source.stat().st_size / GIB:.3g} GiB"
    for direction in ("down", "up"):
        results = run.compete(title, [Fsmux("--streams", "1"), *others], direction, source)
        ours = results["fsmux --streams 1"]
        for name, most in TIMES.items():
            if name in results:
                ratio = ours.seconds / results[name].seconds
                run.bar(f"{title} {direction}, time ÷ {name}", f"{ratio:.2f}", f"at most {most:g}", ratio <= most)
        ratio = ours.cpu / results[CPU_OF].cpu
        per_gib = [result.cpu / (result.bytes / GIB) for result in (ours, results[CPU_OF])]
        measured = f"{ratio:.2f}: {per_gib[0]:.2f} and {per_gib[1]:.2f} s per GiB"
        run.bar(f"{title} {direction}, CPU ÷ {CPU_OF}", measured, f"at most {CPU:g}", ratio <= CPU)
        run.memory_bar(f"{title} {direction}", [ours])
    remove(source)


def again(run: Run) -> None:
    """The same file twice from one server: what it costs the server the second time."""
    source = random_file(run.data / "again", run.bytes(LARGE))
    target = run.place / "received"
    costs: list[list[float]] = [[], []]
    for _ in range(run.rounds):
        with fsmux_server(run.data, "--durability", "none") as server:
            for times in costs:
                server.mark()
                words = ["transfer", "-q", "--durability", "none", "--streams", "1"]
                fsmux(*words, f"fsmux://{server.address}/{source.name}", target).check()
                times.append(server.usage().cpu)
                verify(source, target)
                remove(target)
    first, second = map(statistics.median, costs)
    run.found["server CPU seconds, first and second time"] = costs
    ratio = second / first if first else 1.0
    run.bar(
        "served a second time, server CPU",
        f"{ratio:.2f}: {second:.2f} of {first:.2f} s",
        f"at most {SECOND_TIME:g} of the first",
        ratio <= SECOND_TIME,
    )
    remove(source)


def streams(run: Run) -> None:
    """Many files with few and with many streams."""
    for files, size, counts, shares in TREES:
        size = run.bytes(size)
        source = random_tree(run.data / "tree", files, size)
        title = f"{files} files of {size / MIB:.3g} MiB"
        for direction in ("down", "up"):
            ours = [Fsmux("--streams", str(count)) for count in counts]
            results = run.compete(title, ours, direction, source)
            best = min(result.seconds for result in results.values())
            for count, share in shares.items():
                reached = best / results[f"fsmux --streams {count}"].seconds
                name = f"{title} {direction}, {count} streams"
                run.bar(name, f"{reached:.2f} of the best", f"at least {share:g}", reached >= share)
            run.memory_bar(f"{title} {direction}", list(results.values()))
        remove(source)


def latency(run: Run) -> None:
    """Small requests beside a download, on loopback."""
    found = wan.Found({}, [])
    wan.measure_loopback(found, run.place, run.rounds)
    run.found.update(found.figures)
    run.bars += found.bars


def stalled(run: Run) -> None:
    """A stream that nobody reads."""
    mux.allow_descriptors()
    served = run.place / "stalled"
    served.mkdir()
    random_file(served / "data", mux.SIZE)
    with fsmux_server(served) as server:
        found = trio.run(mux.stalled, server)
    remove(served)
    kept = found.with_one / found.without
    measured = f"{100 * kept:.0f} %: {found.with_one / 1e6:.0f} of {found.without / 1e6:.0f} MB/s"
    run.bar("1 of 100 streams stalled, the others keep", measured, f"at least {100 * KEPT:.0f} %", kept >= KEPT)
    run.found["one of 100 streams stalled"] = found


def fair(run: Run) -> None:
    """Equal streams at once."""
    mux.allow_descriptors()
    size = run.bytes(EQUAL_BYTES)
    shares = [fairness(run.place, EQUAL_STREAMS, size, EQUAL_SECONDS) for _ in range(run.rounds)]
    index = statistics.median(map(jain, shares))
    lowest, highest = min(map(min, shares)), max(map(max, shares))
    measured = f"Jain index {index:.3f}; {lowest / MIB:.1f} to {highest / MIB:.1f} MiB each"
    run.bar(f"{EQUAL_STREAMS} equal streams", measured, f"at least {EQUAL:g}", index >= EQUAL)
    run.found["bytes of equal streams"] = shares


GROUPS: dict[str, Callable[[Run], None]] = {
    "large": large,
    "again": again,
    "streams": streams,
    "latency": latency,
    "stalled": stalled,
    "fair": fair,
}


def main() -> int:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bars", description="Measure the bars for speed.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each ({ROUNDS})")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="bytes of everything times this; below 1 to try it out"
    )
    parser.add_argument("--json", type=Path, help="write every run to this file")
    given = parser.parse_args()
    chosen = given.groups or list(GROUPS)
    if unknown := set(chosen) - set(GROUPS):
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    out = console()
    needed = int(2 * max(LARGE, EQUAL_STREAMS * EQUAL_BYTES) * given.scale) + GIB
    if "latency" in chosen:
        needed = max(needed, 2 * wan.LOCAL_SIZE)
    try:
        with scratch(needed) as place:
            run = Run(place, given.rounds, given.scale, out)
            run.data.mkdir()
            surroundings = conditions(place, file_system(place))
            for name in chosen:
                out.print(f"[bold]{name}[/]")
                GROUPS[name](run)
    except (Failed, subprocess.CalledProcessError) as exc:
        out.print(f"[bold red]{exc}[/]")
        return 1
    out.print(", ".join(f"{name} {value}" for name, value in surroundings.items()))
    out.print(f"load {os.getloadavg()[0]:.1f} at the end; bars for links with distance: python -m benchmarks.wan")
    met = report_bars(run.bars, out)
    if given.json:
        write_json(given.json, {"conditions": surroundings, "bars": run.bars, "results": run.found})
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
