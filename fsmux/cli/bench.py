"""``fsmux bench``: what this machine makes of fsmux, in half a minute, with nothing but what is installed.

A server and clients are started as commands, each anew for every run, and move a tree over loopback with few and with
many streams, beside a raw loop that has no protocol (:mod:`fsmux.cli.measure.rawloop`).  They take turns; what has
arrived is compared byte by byte; all of it happens in a temporary directory that is gone afterwards.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from fsmux._version import __version__
from fsmux.cli.measure.movers import Fsmux, RawLoop
from fsmux.cli.measure.processes import Failed, file_system
from fsmux.cli.measure.runs import compete, table
from fsmux.cli.measure.specimens import random_tree
from fsmux.cli.options import parsed
from fsmux.errors import FsmuxError, NoSpace, UsageError, from_os_error
from fsmux.records import printable
from fsmux.units import format_bytes, parse_size

if TYPE_CHECKING:
    from fsmux.cli.measure.runs import Contender, Result

STREAMS: Final = (1, 16, 64)
FILES: Final = 64
ROUNDS: Final = 5
"""At most: the time decides."""

BASELINE: Final = "raw loop"
SPARE_BYTES: Final = 16 * 2**20


class BenchOptions(Struct, frozen=True):
    """What was typed."""

    directory: str | None
    size: str
    seconds: float
    json: bool


def run(options: BenchOptions) -> int:
    """Measure, print, and return the exit code."""
    size = parsed("--size", parse_size, options.size)
    if size < FILES:
        raise UsageError(f"--size {options.size}: {FILES} files need at least as many bytes")
    parent = options.directory or tempfile.gettempdir()
    try:
        free = shutil.disk_usage(parent).free
        if free < 2 * size + SPARE_BYTES:
            needed = format_bytes(2 * size + SPARE_BYTES)
            raise NoSpace(f"{printable(parent)}: {needed} are needed, {format_bytes(free)} are free")
        # A server outlives a process that simply ends; the way out of an exception stops it.
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            with tempfile.TemporaryDirectory(prefix="fsmux-bench-", dir=parent) as place:
                conditions = _conditions(Path(place), size)
                results = _measure(Path(place), size, options.seconds)
        finally:
            signal.signal(signal.SIGTERM, before)
    except Failed as failure:
        raise FsmuxError(str(failure)) from None
    except OSError as error:
        raise from_os_error(error, printable(parent)) from None
    if options.json:
        records = {direction: [result.record() for result in found] for direction, found in results.items()}
        print(json.dumps({"event": "bench", "conditions": conditions, "results": records}))
    else:
        _show(conditions, results)
    return 0


def _measure(place: Path, size: int, seconds: float) -> dict[str, list[Result]]:
    ends = time.monotonic() + seconds
    data = place / "data"
    data.mkdir()
    source = random_tree(data / "tree", FILES, size // FILES)
    movers: list[Contender] = [RawLoop(place), *(Fsmux("--streams", str(count)) for count in STREAMS)]
    results = {}
    for left, direction in ((2, "down"), (1, "up")):
        now = time.monotonic()
        results[direction] = compete(movers, direction, source, place, ROUNDS, _say, until=now + (ends - now) / left)
    return results


def _say(text: str) -> None:
    """What goes on, for somebody who waits."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text.strip()}")
        sys.stderr.flush()


def _conditions(place: Path, size: int) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "fsmux": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "file_system": file_system(place),
        "network": "loopback",
        "measured": "whole processes from start to exit",
        "cache": "warm",
        "durability": "none",
        "checksum": "CRC-32 of every byte by fsmux, none by the raw loop",
        "files": FILES,
        "bytes": size // FILES * FILES,
    }


def _show(conditions: dict[str, Any], results: dict[str, list[Result]]) -> None:
    from rich.console import Console

    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    out = Console() if sys.stdout.isatty() else Console(width=120)
    for direction, found in results.items():
        out.print(table(f"{FILES} files, {format_bytes(found[0].bytes)}, {direction}", found, BASELINE))
    given = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in conditions.items())
    out.print(f"{given}. All that was received is byte-exact.", highlight=False)
