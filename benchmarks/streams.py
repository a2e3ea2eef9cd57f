"""How the streams of one connection share it: what small requests wait beside them, and whether equal ones stay equal.

* :func:`waits_under_load`: ``stat`` every 20 ms while a tree is downloaded with so many streams over the same
  connection; for a single large file, and for long links, see :mod:`benchmarks.wan`.
* :func:`fairness`: equal files are downloaded at once, each with a request of its own, over one connection; the bytes
  that each stream moved between the moment when the last one began to move and the moment when the first one had
  ended (or the time is over) go into Jain's index, which is 1 for equal shares and 1/n if one has everything.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from benchmarks.harness import random_file, remove
from benchmarks.processes import TOKEN, Failed, fsmux_server
from fsmux.client import connect
from fsmux.events import Event, FileDone, FileFailed, FileProgress
from fsmux.records import Durability

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ASK_SECONDS = 0.02
PIECE = 256 * 1024
"""Chunk size for fairness: what a stream has moved is told by the chunk, so small ones blur the shares less."""


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index of what each got."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def waits_under_load(place: Path, source: Path, streams: int, seconds: float) -> list[float]:
    """Seconds that each ``stat`` took while the tree ``source`` was downloaded again and again by so many streams."""
    with fsmux_server(source.parent, "--durability", "none", write=False) as server:
        return trio.run(_ask, server.address, source.name, place / "under-load", streams, seconds)


async def _ask(address: str, name: str, target: Path, streams: int, seconds: float) -> list[float]:
    waits: list[float] = []
    left = seconds
    async with connect(f"fsmux://{address}", token=TOKEN) as client:

        async def ask() -> None:
            while True:
                started = time.perf_counter()
                await client.stat(name)
                waits.append(time.perf_counter() - started)
                await trio.sleep(ASK_SECONDS)

        while left > 0:
            with trio.move_on_after(left):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask)
                    started = time.perf_counter()
                    await client.download(name, target, streams=streams, durability=Durability.NONE)
                    nursery.cancel_scope.cancel()
            left -= time.perf_counter() - started
            await trio.to_thread.run_sync(remove, target)
    return waits


def fairness(place: Path, streams: int, size: int, seconds: float) -> list[float]:
    """Bytes that each of so many equal streams moved while all of them were at work."""
    served = place / "equal"
    served.mkdir()
    (place / "equal-received").mkdir()
    first = random_file(served / "0", size)
    for number in range(1, streams):
        (served / str(number)).hardlink_to(first)
    try:
        with fsmux_server(served, "--durability", "none", write=False) as server:
            return trio.run(_share, server.address, place / "equal-received", streams, seconds)
    finally:
        remove(served)
        remove(place / "equal-received")


async def _share(address: str, target: Path, streams: int, seconds: float) -> list[float]:
    moved = [0] * streams
    before: list[int] = []
    shares: list[float] = []
    over = trio.Event()

    def end() -> None:
        if before and not over.is_set():
            shares.extend(now - then for now, then in zip(moved, before, strict=True))
        over.set()

    async with connect(f"fsmux://{address}", token=TOKEN) as client:

        async def download(number: int) -> None:
            def look(event: Event) -> None:
                if isinstance(event, FileProgress):
                    moved[number] += event.bytes
                    if not before and all(moved):
                        before.extend(moved)
                elif isinstance(event, FileDone | FileFailed):
                    end()

            await client.download(
                str(number), target / str(number), observer=look, chunk_size=PIECE, durability=Durability.NONE
            )

        async with trio.open_nursery() as nursery:
            for number in range(streams):
                nursery.start_soon(download, number)
            with trio.move_on_after(seconds):
                await over.wait()
            end()
            nursery.cancel_scope.cancel()
    if not any(shares):
        raise Failed(f"{streams} streams had no time in common")
    return shares
