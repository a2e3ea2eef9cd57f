"""What many streams on one connection cost, and whether one that nobody reads slows the others.

* ``idle``: 10,000 files are opened over one connection and left alone; the growth of the resident memory of the client
  and of the server, each a process of its own, is divided by their number.
* ``stalled``: 99 readers, and now and then a hundredth that asks for data and never takes it, on the same connection;
  the joint throughput of the 99 with and without it, by turns, and what ``stat`` takes meanwhile.

The server is ``fsmux serve``; the client is this process, through the Trio interface.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from benchmarks.harness import MIB, Bar, console, random_file, report_bars
from benchmarks.processes import TOKEN, Server, fsmux_server, scratch
from fsmux.client import connect
from fsmux.records import Attrs
from fsmux.wire.messages import Open, Read

STREAMS = 10_000
READERS = 99
READ = 1 * MIB
SIZE = 256 * MIB
SECONDS = 2.0
ROUNDS = 3
SPARE_DESCRIPTORS = 256


@dataclass(frozen=True, slots=True)
class Idle:
    """Bytes of resident memory that one idle stream costs on either side."""

    streams: int
    client: float
    server: float

    def bars(self) -> list[Bar]:
        measured = (
            f"client {self.client / 1024:.1f} KiB, server {self.server / 1024:.1f} KiB, of {self.streams} streams"
        )
        met = max(self.client, self.server) <= 8192 and self.streams >= STREAMS
        return [Bar("idle streams, memory of each", measured, f"{STREAMS} streams, at most 8 KiB", met)]


@dataclass(frozen=True, slots=True)
class Stalled:
    """Bytes a second of the readers together, and seconds that ``stat`` took, with one stalled and without."""

    without: float
    with_one: float
    stat_median: float
    stat_worst: float

    def bars(self) -> list[Bar]:
        kept = self.with_one / self.without
        rates = f"{self.with_one / 1e6:.0f} of {self.without / 1e6:.0f} MB/s, {100 * kept:.0f} %"
        times = f"worst {1000 * self.stat_worst:.0f} ms, median {1000 * self.stat_median:.0f} ms"
        return [
            Bar("99 readers beside one that stalls", rates, "at least 90 %", kept >= 0.9),
            Bar("stat meanwhile", times, "within 100 ms", self.stat_worst <= 0.1),
        ]


def resident(pid: int | str = "self") -> int:
    """Bytes that a process holds now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def allow_descriptors() -> int:
    """Raise the limit on open files for this process and its children; returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def idle(server: Server, streams: int) -> Idle:
    """Open so many files over one connection and measure."""
    async with connect(f"fsmux://{server.address}", token=TOKEN) as client, AsyncExitStack() as opened:
        for _ in range(100):  # what the first of anything costs is not the streams'
            async with client.open("data"):
                pass
        gc.collect()
        pid = server.process.pid
        own, other = resident(), resident(pid)
        for _ in range(streams):
            await opened.enter_async_context(client.open("data"))
        gc.collect()
        await client.stat("data")  # and all of them still work
        found = Idle(streams, (resident() - own) / streams, (resident(pid) - other) / streams)
    return found


async def stalled(server: Server) -> Stalled:
    """Throughput of the readers with one stalled and without, by turns."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    waits: list[float] = []
    async with connect(f"fsmux://{server.address}", token=TOKEN) as client:
        for round_number in range(2 * ROUNDS):
            with_one = round_number % 2 == 1
            moved = 0

            async def read(number: int) -> None:
                nonlocal moved
                async with client.open("data") as file:
                    offset = number * READ % SIZE
                    while True:
                        data = await file.pread(READ, offset)
                        moved += len(data)  # not in one line: += would read the sum before it waits
                        offset = (offset + READ) % SIZE

            async def ask() -> None:
                while True:
                    started = time.perf_counter()
                    await client.stat("data")
                    waits.append(time.perf_counter() - started)
                    await trio.sleep(0.02)

            async def stall(task_status: trio.TaskStatus[None]) -> None:
                async with client.connection.open_stream(Open((b"data",), False, False, False)) as stream:
                    await stream.expect_message(Attrs)
                    stream.expect(SIZE)
                    await stream.send(Read(0, SIZE))
                    task_status.started()
                    await trio.sleep_forever()

            async with trio.open_nursery() as nursery:
                if with_one:
                    await nursery.start(stall)
                for number in range(READERS):
                    nursery.start_soon(read, number)
                await trio.sleep(SECONDS / 4)
                nursery.start_soon(ask)
                started, before = time.perf_counter(), moved
                await trio.sleep(SECONDS)
                rates[with_one].append((moved - before) / (time.perf_counter() - started))
                nursery.cancel_scope.cancel()
    return Stalled(
        statistics.median(rates[False]), statistics.median(rates[True]), statistics.median(waits), max(waits)
    )


def measure(streams: int = STREAMS) -> tuple[Idle, Stalled]:
    """Both measurements, each against a server of its own."""
    streams = min(streams, allow_descriptors() - SPARE_DESCRIPTORS)
    with scratch(2 * SIZE) as place:
        random_file(place / "data", SIZE)
        with fsmux_server(place) as server:
            quiet = trio.run(idle, server, streams)
        with fsmux_server(place) as server:
            busy = trio.run(stalled, server)
    return quiet, busy


def main() -> int:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mux", description="Idle and stalled streams.")
    parser.add_argument("--streams", type=int, default=STREAMS, help=f"idle streams ({STREAMS})")
    quiet, busy = measure(parser.parse_args().streams)
    return 0 if report_bars([*quiet.bars(), *busy.bars()], console()) else 1


if __name__ == "__main__":
    sys.exit(main())
