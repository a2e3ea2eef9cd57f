"""The bars of the project, measured in a few minutes (``make bench-smoke``); ``--full`` takes more time for more.

Everything runs on this machine, over loopback, in memory (tmpfs) where there is one, with CRC on.  Ratios are of
medians of interleaved runs; whole processes are measured.  The exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks import kill9, mux
from benchmarks.contenders import Fsmux, RawLoop
from benchmarks.harness import (
    GIB,
    MIB,
    Bar,
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
from benchmarks.processes import TOKEN, Failed, file_system, fsmux, fsmux_server, scratch
from fsmux.client import connect

if TYPE_CHECKING:
    from rich.console import Console

    from fsmux.events import Event

ROUNDS = 3
SPEED_BYTES = 2 * GIB
MORE_BYTES = 8 * GIB
MEMORY_BAR = 150 * MIB
SESSIONS = 1000
SESSION_BYTES = MIB
"""Beyond the first credit of a stream, so that each session lives until its turn comes again."""
VERSION_RUNS = 9
VERSION_SECONDS = 0.150
SMOKE_KILLS = 6
FULL_KILLS = 50


def version() -> Bar:
    """How long the shortest command takes."""
    seconds = statistics.median(fsmux("--version").check().seconds for _ in range(VERSION_RUNS))
    wanted = f"within {1000 * VERSION_SECONDS:.0f} ms"
    return Bar("fsmux --version", f"{1000 * seconds:.0f} ms", wanted, seconds <= VERSION_SECONDS)


def speed(place: Path, rounds: int, out: Console, found: dict[str, list[Result]]) -> list[Bar]:
    """One large file both ways against the raw loop; also what memory that took."""
    bars = []
    source = random_file(place / "data" / "large", SPEED_BYTES)
    for direction in ("down", "up"):
        raw = RawLoop(place)
        results = compete([Fsmux(), raw, RawLoop(place, "--overlap")], direction, source, place, rounds, out)
        out.print(table(f"2 GiB {direction}", results, raw.name))
        found[f"2 GiB {direction}"] = results
        ours, base = results[0], results[1]
        share = base.seconds / ours.seconds
        bars.append(
            Bar(f"2 GiB {direction}, speed of the raw loop", f"{100 * share:.0f} %", "at least 50 %", share >= 0.5)
        )
        bars.append(
            Bar(
                f"2 GiB {direction}, memory of either side",
                f"{ours.peak / MIB:.0f} MiB",
                f"below {MEMORY_BAR // MIB} MiB",
                ours.peak < MEMORY_BAR,
            )
        )
    remove(source)
    return bars


def memory(place: Path, out: Console, found: dict[str, list[Result]]) -> list[Bar]:
    """Four times the bytes take no more memory."""
    bars = []
    source = random_file(place / "data" / "larger", MORE_BYTES)
    for direction in ("down", "up"):
        (ours,) = compete([Fsmux()], direction, source, place, 1, out)
        found[f"8 GiB {direction}"] = [ours]
        before = found[f"2 GiB {direction}"][0].peak
        bars.append(
            Bar(
                f"8 GiB {direction}, memory of either side",
                f"{ours.peak / MIB:.0f} MiB, {before / MIB:.0f} for 2 GiB",
                "no larger (10 % for chance)",
                ours.peak <= 1.1 * before,
            )
        )
    remove(source)
    return bars


def sessions(place: Path) -> list[Bar]:
    """A thousand files at once on one connection, both ways."""
    bars = []
    source = random_tree(place / "data" / "many", SESSIONS, SESSION_BYTES)
    target = place / "received"
    for direction in ("up", "down"):
        with fsmux_server(place if direction == "up" else source.parent, "--durability", "none") as server:
            started = time.perf_counter()
            at_once = trio.run(_move_at_once, server.address, direction, source, target)
            seconds = time.perf_counter() - started
        verify(source, target if direction == "up" else target / source.name)
        remove(target)
        measured = f"{at_once} at once, byte-exact, {seconds:.1f} s"
        bars.append(Bar(f"{SESSIONS} sessions, {direction}", measured, f"{SESSIONS} at once", at_once >= SESSIONS))
    remove(source)
    return bars


async def _move_at_once(address: str, direction: str, source: Path, target: Path) -> int:
    """Transfer over one connection; returns the most streams that it had open at the same time."""
    most = 0
    async with connect(f"fsmux://{address}", token=TOKEN) as client:

        def look(_: Event) -> None:
            nonlocal most
            most = max(most, client.connection.open_streams)

        if direction == "up":
            summary = await client.upload(f"{source}/", target.name, observer=look, streams=SESSIONS)
        else:
            summary = await client.download(source.name, target, observer=look, streams=SESSIONS)
    if summary.failed or summary.files != SESSIONS:
        raise Failed(f"not all of {SESSIONS} files arrived: {summary}")
    return most


def kills(count: int, out: Console) -> Bar:
    """Kills at random points, each followed by the same command."""
    found = kill9.torture(count, kill9.SIZE, int.from_bytes(os.urandom(4), "big"), "batch", out)
    good = sum(not kill.complaints for kill in found)
    measured = f"{good} of {count} byte-exact, nothing on record sent twice"
    return Bar("kill -9 at random points", measured, f"all {count}", good == count)


def main() -> int:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smoke", description="Measure the bars of the project.")
    parser.add_argument("--full", action="store_true", help="also 8 GiB, five rounds, and 50 kills")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    options = parser.parse_args()
    out = console()
    found: dict[str, list[Result]] = {}
    bars = [version()]
    with scratch(2 * (MORE_BYTES if options.full else SPEED_BYTES) + GIB) as place:
        surroundings = conditions(place, file_system(place))
        (place / "data").mkdir()
        bars += speed(place, 5 if options.full else ROUNDS, out, found)
        if options.full:
            bars += memory(place, out, found)
        bars += sessions(place)
    for measured in mux.measure():
        bars += measured.bars()
    bars.append(kills(FULL_KILLS if options.full else SMOKE_KILLS, out))
    out.print("durability none;", ", ".join(f"{name} {value}" for name, value in surroundings.items()))
    met = report_bars(bars, out)
    if options.json:
        write_json(options.json, {"conditions": surroundings, "bars": bars, "results": found})
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
