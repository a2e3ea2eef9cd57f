"""What distance does to a transfer: a long fat link against iperf3, small requests under load, the first byte.

* ``latency``: ``stat`` every 20 ms while one download fills the same connection, on loopback and on 100 Mbit/s, 50 ms.
* ``throughput``: 150 MB at 200 Mbit/s and 100 ms against ``iperf3 -n`` for as many bytes, by turns; both leave the
  choice of congestion control to the same setting, or both take BBR where the kernel has it.
* ``lossy``: the same with one packet in a thousand lost, ``-j 8`` against ``iperf3 -P 8``.
* ``tree``: 10,000 files of 4 KiB at 200 Mbit/s and 100 ms, whole processes, against the time that the bytes alone need.
* ``first byte``: a fresh file of 1 KiB at 100 ms on an open connection, from the call to the first byte.

The links are made here (:mod:`benchmarks.link`) and need root; without it those bars are left out, and it says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.harness import MIB, Bar, console, random_file, random_tree, remove, report_bars, verify, write_json
from benchmarks.link import ADDRESSES, Link, link, why_not
from benchmarks.processes import FSMUX, Failed, Process, Server, environment, fsmux_server, scratch
from fsmux.client import connect
from fsmux.events import Event, FileProgress, FileStarted
from fsmux.records import Durability

if TYPE_CHECKING:
    from rich.console import Console

SIZE = 150_000_000
ROUNDS = 5
LOCAL_SIZE = 4096 * MIB
ASK_EVERY = 0.02
ASK_SECONDS = 6.0
LOSS = 0.001
LANES = 8
TREE = (10_000, 4096)
"""Files, bytes of each."""
FILES_PER_DIRECTORY = 100
SMALL = 1024
SMALL_FILES = 20
PORT = 9000


# ---- what runs at the client's end --------------------------------------------------------------------------------


async def ask_under_load(address: str, place: Path) -> dict[str, Any]:
    """Seconds that each ``stat`` took while a download was under way, and before it."""
    quiet: list[float] = []
    waits: list[float] = []
    async with connect(f"fsmux://{address}", token=os.environ["FSMUX_TOKEN"]) as client:

        async def ask(into: list[float]) -> None:
            started = time.perf_counter()
            await client.stat("large")
            into.append(time.perf_counter() - started)

        for _ in range(20):
            await ask(quiet)

        async def load() -> None:
            number = 0
            while True:
                number += 1
                await client.download("large", place / f"got-{number}", durability=Durability.NONE)
                (place / f"got-{number}").unlink()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await trio.sleep(1.0)
            until = trio.current_time() + ASK_SECONDS
            while trio.current_time() < until:
                nursery.start_soon(ask, waits)
                await trio.sleep(ASK_EVERY)
            nursery.cancel_scope.cancel()
        return {"quiet": quiet, "waits": waits}


async def fetch_once(address: str, place: Path) -> dict[str, Any]:
    """Seconds of one download over an open connection, and where they went."""
    marks: dict[str, float] = {}

    def look(event: Event) -> None:
        now = time.perf_counter() - started
        if isinstance(event, FileStarted):
            marks.setdefault("offered", now)
        elif isinstance(event, FileProgress):
            marks.setdefault("first", now)
            marks["last"] = now

    async with connect(f"fsmux://{address}", token=os.environ["FSMUX_TOKEN"]) as client:
        started = time.perf_counter()
        summary = await client.download("large", place / "got", observer=look, durability=Durability.NONE)
        seconds = time.perf_counter() - started
    (place / "got").unlink()
    return {"seconds": seconds, "bytes": summary.bytes_sent, **marks}


async def first_bytes(address: str, place: Path) -> dict[str, Any]:
    """Seconds to the first byte and to the end, for each of some small files that the client has never seen."""
    first: list[float] = []
    whole: list[float] = []
    async with connect(f"fsmux://{address}", token=os.environ["FSMUX_TOKEN"]) as client:
        await client.connection.ping()
        rtt = await client.connection.ping()
        for number in range(SMALL_FILES):
            came: list[float] = []

            def look(event: Event, came: list[float] = came) -> None:
                if isinstance(event, FileProgress):
                    came.append(time.perf_counter())

            started = time.perf_counter()
            await client.download(f"small-{number}", place / f"small-{number}", observer=look)
            whole.append(time.perf_counter() - started)
            first.append(came[0] - started)
            (place / f"small-{number}").unlink()
    return {"rtt": rtt, "first": first, "whole": whole}


PROBES = {"latency": ask_under_load, "throughput": fetch_once, "first": first_bytes}


def probe(name: str, address: str, place: Path, at: Link | None = None) -> dict[str, Any]:
    """Run one of :data:`PROBES` in a process of its own, at the client's end of the link if there is one."""
    words = [sys.executable, "-m", "benchmarks.wan", "--probe", name, address, str(place)]
    process = Process(at.at(1, words) if at else words, environment=environment())
    process.check(300.0)
    found: dict[str, Any] = json.loads(process.output)
    return found


# ---- what is measured ---------------------------------------------------------------------------------------------


def far_server(place: Path, at: Link) -> Server:
    """A server at the server's end of the link."""
    port_file = place / "port"
    port_file.unlink(missing_ok=True)
    words: list[str | Path] = [
        *FSMUX, "serve", place / "data", "--write", "--listen", f"{ADDRESSES[0]}:{PORT}", "--plaintext", "-q",
        "--port-file", port_file,
    ]  # fmt: skip
    return Server(at.at(0, words), port_file, environment=environment())


def percentile(values: list[float], part: float) -> float:
    """The value that ``part`` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def latency_bar(name: str, found: list[dict[str, Any]], most: float, wanted: str) -> Bar:
    worst = statistics.median(percentile(one["waits"], 0.99) for one in found)
    middle = statistics.median(statistics.median(one["waits"]) for one in found)
    count = sum(len(one["waits"]) for one in found)
    measured = f"p99 {1000 * worst:.1f} ms, median {1000 * middle:.1f} ms, of {count}"
    return Bar(f"stat during a download, {name}", measured, wanted, worst <= most)


def iperf(at: Link, streams: int = 1, size: int = SIZE) -> tuple[float, float]:
    """Bits per second of as many bytes in the same direction, and the seconds of the whole process."""
    words = ["-c", ADDRESSES[0], "-R", "-P", str(streams), "-n", str(size), "--json", *_pinned()]
    server = Process(at.at(0, ["iperf3", "-s", "-1", "-B", ADDRESSES[0]]))
    try:
        for _ in range(100):
            client = Process(at.at(1, ["iperf3", *words]))
            status, usage = client.wait(300.0)
            if status == 0:
                break
            if server.ended(0.05):
                raise Failed(f"iperf3 does not serve: {client.output}")
    finally:
        server.stop()
    return float(json.loads(client.output)["end"]["sum_received"]["bits_per_second"]), usage.seconds


def _pinned() -> list[str]:
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return ["-C", "bbr"] if "bbr" in available else []


@dataclass(slots=True)
class Found:
    """All figures, for the JSON file."""

    figures: dict[str, Any]
    bars: list[Bar]


def measure_loopback(found: Found, place: Path, rounds: int) -> None:
    large = random_file(place / "data" / "large", LOCAL_SIZE)
    with fsmux_server(place / "data") as server:
        runs = [probe("latency", server.address, place) for _ in range(rounds)]
    large.unlink()
    found.figures["latency on loopback"] = runs
    found.bars.append(latency_bar("loopback", runs, 0.010, "p99 at most 10 ms"))


def measure_latency(found: Found, place: Path, rounds: int) -> None:
    large = random_file(place / "data" / "large", SIZE)
    rtt = 0.050
    with link(rtt, 100e6) as far, far_server(place, far):
        runs = [probe("latency", f"{ADDRESSES[0]}:{PORT}", place, far) for _ in range(rounds)]
    large.unlink()
    found.figures["latency at 100 Mbit/s, 50 ms"] = runs
    found.bars.append(latency_bar("100 Mbit/s, 50 ms", runs, rtt + 0.060, "p99 at most RTT + 60 ms"))


def measure_throughput(found: Found, place: Path, rounds: int) -> None:
    if shutil.which("iperf3") is None:
        found.bars.append(Bar("150 MB at 200 Mbit/s, 100 ms", "skipped: there is no iperf3", "0.95 of iperf3", True))
        return
    large = random_file(place / "data" / "large", SIZE)
    address = f"{ADDRESSES[0]}:{PORT}"
    ours, theirs, whole, their_whole = [], [], [], []
    with link(0.100, 200e6) as far, far_server(place, far):
        for _ in range(rounds):
            ours.append(probe("throughput", address, place, far))
            bits, seconds = iperf(far)
            theirs.append(bits)
            their_whole.append(seconds)
            words = [*FSMUX, "transfer", "-q", "--durability", "none", f"fsmux://{address}/large", str(place / "got")]
            whole.append(Process(far.at(1, words), environment=environment()).check().seconds)
            (place / "got").unlink()
    large.unlink()
    found.figures["throughput"] = {"fsmux": ours, "iperf3": theirs, "process": whole, "iperf3 process": their_whole}
    rates = [8 * one["bytes"] / one["seconds"] for one in ours]
    found.bars += _beside_iperf("150 MB at 200 Mbit/s, 100 ms", "iperf3", rates, theirs, whole, their_whole)


def _beside_iperf(
    name: str, tool: str, ours: list[float], theirs: list[float], whole: list[float], their_whole: list[float]
) -> list[Bar]:
    """Bits per second while bytes travel, and seconds of whole processes."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    measured = f"{mine / 1e6:.0f} of {other / 1e6:.0f} Mbit/s, {mine / other:.3f}"
    rate = Bar(name, measured, f"0.95 of {tool}", mine >= 0.95 * other)
    mine, other = statistics.median(whole), statistics.median(their_whole)
    measured = f"{mine:.2f} and {other:.2f} s, {other / mine:.3f}"
    return [rate, Bar(f"{name}, whole processes", measured, f"0.95 of {tool}", other >= 0.95 * mine)]


def measure_lossy(found: Found, place: Path, rounds: int) -> None:
    name = f"the same, {LOSS:.1%} lost, -j {LANES}"
    if shutil.which("iperf3") is None:
        found.bars.append(Bar(name, "skipped: there is no iperf3", f"0.95 of iperf3 -P {LANES}", True))
        return
    large = random_file(place / "data" / "large", SIZE)
    address = f"{ADDRESSES[0]}:{PORT}"
    words = [
        *FSMUX, "transfer", "--json", "-j", str(LANES), "--durability", "none", f"fsmux://{address}/large",
        str(place / "got"),
    ]  # fmt: skip
    ours, theirs, whole, their_whole = [], [], [], []
    with link(0.100, 200e6, LOSS) as far, far_server(place, far):
        for _ in range(rounds):
            done = Process(far.at(1, words), environment=environment())
            whole.append(done.check(300.0).seconds)
            ours.append(8 * SIZE / json.loads(done.output.splitlines()[-1])["seconds"])
            (place / "got").unlink()
            bits, seconds = iperf(far, LANES)
            theirs.append(bits)
            their_whole.append(seconds)
    large.unlink()
    found.figures["lossy"] = {"fsmux": ours, "iperf3": theirs, "process": whole, "iperf3 process": their_whole}
    found.bars += _beside_iperf(name, f"iperf3 -P {LANES}", ours, theirs, whole, their_whole)


def measure_tree(found: Found, place: Path, rounds: int) -> None:
    files, size = TREE
    source = random_tree(place / "data" / "tree", files, size, FILES_PER_DIRECTORY)
    address = f"{ADDRESSES[0]}:{PORT}"
    needed = 8 * files * size / 200e6
    up: list[float] = []
    down: list[float] = []
    theirs: list[float] = []
    with link(0.100, 200e6) as far, far_server(place, far):
        for _ in range(rounds):
            if shutil.which("iperf3"):
                theirs.append(iperf(far, size=files * size)[1])
            for taken, pair, target in (
                (down, (f"fsmux://{address}/tree/", str(place / "got")), place / "got"),
                (up, (f"{source}/", f"fsmux://{address}/put"), place / "data" / "put"),
            ):
                words = [*FSMUX, "transfer", "-q", "--durability", "none", *pair]
                taken.append(Process(far.at(1, words), environment=environment()).check(300.0).seconds)
                verify(source, target)
                remove(target)
    remove(source)
    found.figures["tree"] = {"down": down, "up": up, "iperf3 process": theirs, "needed": needed}
    for name, runs in (("down", down), ("up", up)):
        seconds = statistics.median(runs)
        measured = f"{seconds:.2f} s; the bytes alone {needed:.2f} s: {seconds / needed:.2f}"
        if theirs:
            measured += f"; iperf3 {statistics.median(theirs):.2f} s: {seconds / statistics.median(theirs):.2f}"
        wanted = "1.2 times the bytes alone"
        found.bars.append(Bar(f"{files:,} files at 100 ms, {name}", measured, wanted, seconds <= 1.2 * needed))


def measure_first_byte(found: Found, place: Path, rounds: int) -> None:
    for number in range(SMALL_FILES):
        random_file(place / "data" / f"small-{number}", SMALL)
    rtt = 0.100
    with link(rtt, 200e6) as far, far_server(place, far):
        runs = [probe("first", f"{ADDRESSES[0]}:{PORT}", place, far) for _ in range(rounds)]
    found.figures["first byte"] = runs
    first = statistics.median(statistics.median(one["first"]) for one in runs) / rtt
    whole = statistics.median(statistics.median(one["whole"]) for one in runs) / rtt
    measured = f"{first:.2f} RTT; durable and reported after {whole:.2f}"
    found.bars.append(Bar("first byte of a fresh 1 KiB file at 100 ms", measured, "1.2 RTT", first <= 1.2))


MEASUREMENTS = {
    "loopback": measure_loopback,
    "latency": measure_latency,
    "throughput": measure_throughput,
    "lossy": measure_lossy,
    "tree": measure_tree,
    "first": measure_first_byte,
}
WITHOUT_LINK = ("loopback",)


def measure(names: list[str], rounds: int, out: Console) -> Found:
    """All of it, or what is named."""
    found = Found({}, [])
    reason = why_not()
    with scratch(LOCAL_SIZE * 2) as place:
        (place / "data").mkdir()
        for name in names:
            if name not in WITHOUT_LINK and reason is not None:
                out.print(f"[yellow]skipped: {name} on a wide-area link: {reason}[/]")
                continue
            MEASUREMENTS[name](found, place, rounds)
    return found


def main() -> int:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wan", description="What distance does to a transfer.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each; medians are told ({ROUNDS})")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--probe", nargs=3, metavar=("NAME", "ADDRESS", "PLACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe is not None:
        name, address, place = given.probe
        json.dump(trio.run(PROBES[name], address, Path(place)), sys.stdout)
        return 0
    unknown = [name for name in given.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"there is no measurement {', '.join(unknown)}")
    out = console()
    try:
        found = measure(given.names or list(MEASUREMENTS), given.rounds, out)
    except (Failed, subprocess.CalledProcessError) as exc:
        out.print(f"[bold red]{exc}[/]")
        return 1
    if given.json is not None:
        write_json(given.json, {"figures": found.figures, "bars": found.bars, "processors": os.cpu_count()})
    return 0 if report_bars(found.bars, out) else 1


if __name__ == "__main__":
    sys.exit(main())
