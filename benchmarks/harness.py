"""What benchmarks share beyond the measuring kit of ``fsmux bench``: conditions, bars, consoles, JSON.

Runs, results and specimens are those of :mod:`fsmux.cli.measure`, and can be imported from here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fsmux.cli.measure import runs
from fsmux.cli.measure.runs import GIB, MIB, Contender, Result, Sample, table
from fsmux.cli.measure.specimens import extent, random_file, random_tree, remove, same_bytes, verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "GIB", "MIB", "Bar", "Contender", "Result", "Sample", "compete", "conditions", "console", "extent", "random_file",
    "random_tree", "remove", "report_bars", "same_bytes", "table", "verify", "write_json",
]  # fmt: skip

TOOLS = {
    "rsync": ["rsync", "--version"],
    "nginx": ["nginx", "-v"],
    "curl": ["curl", "--version"],
    "ssh": ["ssh", "-V"],
    "xrdcp": ["xrdcp", "--version"],
    "globus-url-copy": ["globus-url-copy", "-version"],
}
"""Of other projects, and how each says which version it is."""

VERSION_WORDS = 3
"""Of what a tool says about its version: behind them come builds, protocols and libraries."""


def compete(
    contenders: Sequence[Contender],
    direction: str,
    source: Path,
    scratch: Path,
    rounds: int,
    console: Console,
    *,
    until: float | None = None,
) -> list[Result]:
    """:func:`fsmux.cli.measure.runs.compete`, telling a console about every run."""

    def say(text: str) -> None:
        console.print(text, style="dim", highlight=False)

    return runs.compete(contenders, direction, source, scratch, rounds, say, until=until)


def conditions(place: Path, file_system: str) -> dict[str, Any]:
    """What the figures depend on, for whoever reads them later."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "durability": "none: nobody waits for the disk",
        "tools": _versions(),
        "load_before": os.getloadavg()[0],
        "file_system": file_system,
        "cache": "warm: sources were just written",
        "network": "loopback",
        "commit": _commit(),
        "free_bytes": shutil.disk_usage(place).free,
    }


def _versions() -> dict[str, str]:
    """The first line that each tool says about its version, wherever it says it."""
    found = {}
    for name, words in TOOLS.items():
        if program := shutil.which(words[0]):
            done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False, timeout=10)
            lines = (done.stdout + done.stderr).strip().splitlines()
            found[name] = " ".join(lines[0].split()[:VERSION_WORDS]) if lines else "unknown"
    return found


def _commit() -> str:
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that the project promises, and what was measured."""

    name: str
    measured: str
    wanted: str
    met: bool


def report_bars(bars: Sequence[Bar], console: Console) -> bool:
    """Print them; True if all are met."""
    made = Table(title="Bars", title_justify="left")
    for column in ("bar", "measured", "wanted", ""):
        made.add_column(column)
    for bar in bars:
        made.add_row(bar.name, bar.measured, bar.wanted, "[green]met[/]" if bar.met else "[bold red]missed[/]")
    console.print(made)
    return all(bar.met for bar in bars)


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Write results; dataclasses in them become objects."""
    path.write_text(json.dumps(found, indent=1, default=_plain) + "\n")


def _plain(item: Any) -> Any:
    return item.record() if isinstance(item, Result) else asdict(item)


def console() -> Console:
    """Where reports go: wide enough for the tables where stdout is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=140)
