"""Movers that take turns over one case, medians with ranges, and the table and records made of them.

Theory: a shared machine drifts by a third within minutes.  So the movers take turns, each round in another order, and
only ratios of medians of the same rounds are believed.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rich.table import Table

from fsmux.cli.measure.specimens import extent, remove, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fsmux.cli.measure.processes import Usage

MIB = 2**20
GIB = 2**30


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
    def rate(self) -> float:
        """Bytes a second."""
        return self.bytes / self.seconds

    @property
    def files_rate(self) -> float:
        """Files a second."""
        return self.files / self.seconds

    @property
    def cpu(self) -> float:
        """CPU seconds of both sides together."""
        return statistics.median(sample.client_cpu + sample.server_cpu for sample in self.samples)

    @property
    def cpu_of_sides(self) -> tuple[float, float]:
        """CPU seconds of client and server."""
        sides = [(sample.client_cpu, sample.server_cpu) for sample in self.samples]
        return statistics.median(client for client, _ in sides), statistics.median(server for _, server in sides)

    @property
    def peaks(self) -> tuple[int, int]:
        """Bytes: the most that client and server ever held."""
        return max(sample.client_peak for sample in self.samples), max(sample.server_peak for sample in self.samples)

    @property
    def peak(self) -> int:
        """Bytes: the most that either side ever held."""
        return max(self.peaks)

    def record(self) -> dict[str, Any]:
        """For JSON: what was computed, and every run."""
        client_cpu, server_cpu = self.cpu_of_sides
        client_peak, server_peak = self.peaks
        return {
            "name": self.name,
            "bytes": self.bytes,
            "files": self.files,
            "seconds": self.seconds,
            "seconds_range": self.range,
            "bytes_per_second": self.rate,
            "files_per_second": self.files_rate,
            "cpu_seconds_per_gib": self.cpu / (self.bytes / GIB),
            "client_cpu_seconds": client_cpu,
            "server_cpu_seconds": server_cpu,
            "client_peak_bytes": client_peak,
            "server_peak_bytes": server_peak,
            "samples": [asdict(sample) for sample in self.samples],
        }


def compete(
    contenders: Sequence[Contender],
    direction: str,
    source: Path,
    scratch: Path,
    rounds: int,
    say: Callable[[str], None],
    *,
    until: float | None = None,
) -> list[Result]:
    """Let the contenders move ``source`` by turns, and check every time that all of it arrived.

    After ``until`` on the monotonic clock no further round begins; one round takes place in any case.
    """
    size, files = extent(source)
    results = {contender.name: Result(contender.name, size, files) for contender in contenders}
    for round_number in range(rounds):
        if round_number and until is not None and time.monotonic() >= until:
            break
        shift = round_number % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            target = scratch / "received"
            move = contender.down if direction == "down" else contender.up
            try:
                sample = move(source, target)
                verify(source, target)
            finally:
                remove(target)
            results[contender.name].samples.append(sample)
            say(f"  {direction} {contender.name}: {sample.seconds:.2f} s")
    return list(results.values())


def table(title: str, results: Sequence[Result], baseline: str | None = None) -> Table:
    """Medians with ranges, and ratios of time to the fastest and to the result named ``baseline``."""
    best = min(result.seconds for result in results)
    base = next((result.seconds for result in results if result.name == baseline), None)
    rounds = min(len(result.samples) for result in results)
    made = Table(title=f"{title} ({rounds} round{'s' * (rounds != 1)})", title_justify="left")
    made.add_column("")
    columns = ["seconds", "range", "MB/s", "files/s", "CPU s/GiB\nclient + server", "peak MiB\nclient, server"]
    for column in [*columns, "time ÷\nbest", *[f"time ÷\n{baseline}"] * (base is not None)]:
        made.add_column(column, justify="right")
    for result in sorted(results, key=lambda result: result.seconds):
        low, high = result.range
        amount = result.bytes / GIB
        client_cpu, server_cpu = result.cpu_of_sides
        client_peak, server_peak = result.peaks
        made.add_row(
            result.name,
            f"{result.seconds:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{result.rate / 1e6:.0f}",
            f"{result.files_rate:.0f}" if result.files > 1 else "",
            f"{client_cpu / amount:.2f} + {server_cpu / amount:.2f}",
            f"{client_peak / MIB:.0f}, {server_peak / MIB:.0f}",
            f"{result.seconds / best:.2f}",
            *[f"{result.seconds / base:.2f}"] * (base is not None) if base else (),
        )
    return made
