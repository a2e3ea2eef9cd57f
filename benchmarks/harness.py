"""Interleaved runs of contenders over one case, medians with ranges, and the table and JSON made of them.

Theory: a shared machine drifts by a third within minutes.  So the contenders take turns, each round in another order,
and only ratios of medians of the same rounds are believed.  What was received is compared with what was sent after
every run, outside the measured time, because a fast wrong answer is not fast.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.processes import Usage

MIB = 2**20
GIB = 2**30
_BLOCK = 4 * MIB


class Contender(Protocol):
    """Something that can move a file or a tree between two directories, by whole processes."""

    name: str

    def down(self, source: Path, target: Path) -> Sample:
        """Move ``source`` from the side that serves to ``target``, which does not exist."""

    def up(self, source: Path, target: Path) -> Sample:
        """Move ``source`` from the side that asks to ``target``, which does not exist."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: what the asking process and the serving process cost."""

    seconds: float
    client_cpu: float
    server_cpu: float
    client_peak: int
    server_peak: int

    @classmethod
    def of(cls, client: Usage, server: Usage) -> Sample:
        return cls(client.seconds, client.cpu, server.cpu, client.peak, server.peak)


@dataclass(slots=True)
class Result:
    """All runs of one contender over one case."""

    name: str
    bytes: int
    files: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def range(self) -> tuple[float, float]:
        seconds = [sample.seconds for sample in self.samples]
        return min(seconds), max(seconds)

    @property
    def cpu(self) -> float:
        """CPU seconds of both sides together."""
        return statistics.median(sample.client_cpu + sample.server_cpu for sample in self.samples)

    @property
    def peak(self) -> int:
        """Bytes: the most that either side ever held."""
        return max(max(sample.client_peak, sample.server_peak) for sample in self.samples)


def compete(
    contenders: Sequence[Contender], direction: str, source: Path, scratch: Path, rounds: int, console: Console
) -> list[Result]:
    """Let the contenders move ``source`` by turns, and check every time that all of it arrived."""
    size, files = extent(source)
    results = {contender.name: Result(contender.name, size, files) for contender in contenders}
    for round_number in range(rounds):
        shift = round_number % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            target = scratch / "received"
            move = contender.down if direction == "down" else contender.up
            sample = move(source, target)
            verify(source, target)
            remove(target)
            results[contender.name].samples.append(sample)
            console.print(f"  {direction} {contender.name}: {sample.seconds:.2f} s", style="dim", highlight=False)
    return list(results.values())


def extent(path: Path) -> tuple[int, int]:
    """Bytes and files of a file or a tree."""
    if path.is_file():
        return path.stat().st_size, 1
    sizes = [found.stat().st_size for found in path.rglob("*") if found.is_file()]
    return sum(sizes), len(sizes)


def verify(source: Path, target: Path) -> None:
    """Every file of ``source`` stands under ``target`` byte for byte, and nothing else does."""
    if source.is_file():
        pairs = [(source, target)]
    else:
        names = sorted(found.relative_to(source) for found in source.rglob("*") if found.is_file())
        others = sorted(found.relative_to(target) for found in target.rglob("*") if found.is_file())
        if names != others:
            raise AssertionError(f"{target} has {len(others)} files, {source} has {len(names)}, or other names")
        pairs = [(source / name, target / name) for name in names]
    for left, right in pairs:
        if not same_bytes(left, right):
            raise AssertionError(f"{right} differs from {left}")


def same_bytes(left: Path, right: Path) -> bool:
    """Whether two files hold the same bytes; unlike ``filecmp`` it remembers nothing, and it reads large blocks."""
    with left.open("rb", buffering=0) as one, right.open("rb", buffering=0) as other:
        if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
            return False
        while block := one.read(_BLOCK):
            rest = len(block)
            while rest:
                part = other.read(rest)
                if not part or block[len(block) - rest : len(block) - rest + len(part)] != part:
                    return False
                rest -= len(part)
    return True


def remove(path: Path) -> None:
    """Remove a file or a tree, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def random_file(path: Path, size: int) -> Path:
    """Make a file of random bytes: nothing compresses it, and no two chunks are alike."""
    with path.open("wb", buffering=0) as file:
        while size:
            size -= file.write(os.urandom(min(size, _BLOCK)))
    return path


def random_tree(path: Path, files: int, size: int, per_directory: int = 1000) -> Path:
    """Make a tree of ``files`` files of ``size`` random bytes."""
    path.mkdir()
    for number in range(files):
        if number % per_directory == 0:
            directory = path / f"{number // per_directory:04d}"
            directory.mkdir()
        (directory / f"{number:06d}").write_bytes(os.urandom(size))
    return path


def table(title: str, results: Sequence[Result], baseline: str) -> Table:
    """Medians with ranges, and ratios of time to the result named ``baseline``."""
    base = next(result.seconds for result in results if result.name == baseline)
    made = Table(title=title, title_justify="left")
    for column, justify in (
        ("", "left"), ("seconds", "right"), ("range", "right"), ("MB/s", "right"), ("files/s", "right"),
        ("CPU s/GiB", "right"), ("peak MiB", "right"), (f"time ÷ {baseline}", "right"),
    ):  # fmt: skip
        made.add_column(column, justify="right" if justify == "right" else "left")
    for result in sorted(results, key=lambda result: result.seconds):
        low, high = result.range
        made.add_row(
            result.name,
            f"{result.seconds:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{result.bytes / result.seconds / 1e6:.0f}",
            f"{result.files / result.seconds:.0f}" if result.files > 1 else "",
            f"{result.cpu / (result.bytes / GIB):.2f}",
            f"{result.peak / MIB:.0f}",
            f"{result.seconds / base:.2f}",
        )
    return made


def conditions(place: Path, file_system: str) -> dict[str, Any]:
    """What the figures depend on, for whoever reads them later."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "file_system": file_system,
        "cache": "warm: sources were just written",
        "network": "loopback",
        "commit": _commit(),
        "free_bytes": shutil.disk_usage(place).free,
    }


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
    path.write_text(json.dumps(found, indent=1, default=lambda item: asdict(item)) + "\n")


def console() -> Console:
    """Where reports go: wide enough for the tables where stdout is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=140)
