"""All rigs at full size, and a table of what they came to (``make torture``)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.sim import ext4, mutants
from tests.sim.flips import Recording, flip_all, long_message, record
from tests.sim.stories import explore
from tests.sim.sweep import FAULTS, OPERATIONS, sweep
from tests.sim.world import episodes

if TYPE_CHECKING:
    from collections.abc import Callable

STATES: Final = 500_000
SAMPLES: Final = 30
SEEDS: Final = 50_000
EVERY: Final = 1_000
"""Episodes between two signs of life."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the table."""

    name: str
    bar: str
    measured: str
    met: bool


def _crash_states(size: float, seed: int) -> Bar:
    wanted = round(STATES * size)
    crashes = kills = 0
    for _, explorer in explore(wanted, seed, SAMPLES):
        crashes += explorer.crashes
        kills += explorer.kills
    return Bar(
        "crash states checked, 0 wrong", f"{wanted:,}", f"{crashes:,} power cuts, {kills:,} kills",
        crashes + kills >= wanted,
    )  # fmt: skip


def _failing_calls(size: float, seed: int) -> Bar:
    failed = sum(1 for operation in OPERATIONS for fault in FAULTS.values() for _ in sweep(operation, fault))
    shown = f"{failed:,} calls failed, in {len(OPERATIONS)} operations"
    return Bar("N-th system call fails, each N", f"all, {len(FAULTS)} faults", shown, failed > 0)


def _seeds(size: float, seed: int) -> Bar:
    wanted = round(SEEDS * size)
    done = died = healed = failures = packed = 0
    for report in episodes(seed, wanted):
        done += 1
        died += report.died
        healed += report.healed
        failures += report.failures
        packed += report.packed
        if not done % EVERY:
            print(f"  {done:,} seeds", flush=True)
    shown = f"{done:,}: {died:,} deaths, {failures:,} failed calls, {healed:,} healed chunks, {packed:,} packed"
    return Bar("seeds of the whole, each twice", f"{wanted:,}", shown, done == wanted)


def _flips(size: float, seed: int) -> Bar:
    recordings = [Recording(said) for said in (*record(), long_message())]
    step = round(1 / size)
    wanted = sum(len(range(0, recording.bits, step)) for recording in recordings)
    done = sum(flip_all(recording, range(0, recording.bits, step)) for recording in recordings)
    every = "every bit" if step == 1 else f"one bit in {step}"
    return Bar("single-bit flips of 1 MiB found", every, f"{done:,}", done == wanted)


def _ext4(size: float, seed: int) -> Bar:
    name, bar = "power cuts on an ext4", "each write"
    if lacks := ext4.missing():
        return Bar(name, bar, f"skipped: {lacks}", True)
    with tempfile.TemporaryDirectory() as place:
        found, entries = ext4.power_cuts(Path(place), seed, round(1 / size))
    return Bar(name, bar, f"{found:,} states of a log of {entries:,}", found >= entries * size)


def _mutants(size: float, seed: int) -> Bar:
    survived = mutants.main([])
    counted = sum(not mutant.progress for mutant in mutants.MUTANTS)
    return Bar("mutants killed", "100 %", f"{counted - survived} of {counted}", not survived)


RIGS: Final[dict[str, Callable[[float, int], Bar]]] = {
    "states": _crash_states,
    "calls": _failing_calls,
    "seeds": _seeds,
    "flips": _flips,
    "ext4": _ext4,
    "mutants": _mutants,
}


def main() -> int:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.torture", description="All simulations at full size.")
    parser.add_argument("rigs", nargs="*", metavar="RIG", help=f"which of {', '.join(RIGS)}; all if none is named")
    parser.add_argument("--size", type=float, default=1.0, help="this part of the full size")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    options = parser.parse_args()
    unknown = set(options.rigs) - RIGS.keys()
    if unknown or not 0 < options.size <= 1:
        parser.error(f"no such rig: {', '.join(sorted(unknown))}" if unknown else "a size is above 0 and at most 1")
    found = []
    for name in options.rigs or RIGS:
        started = time.monotonic()
        print(f"{name} …", flush=True)
        found.append((RIGS[name](options.size, options.seed), time.monotonic() - started))
    print(f"\n{'what':34}{'bar':>16}  {'measured':64}{'seconds':>8}")
    for bar, seconds in found:
        print(f"{bar.name:34}{bar.bar:>16}  {bar.measured:64}{seconds:8.0f}  {'met' if bar.met else 'MISSED'}")
    return 0 if all(bar.met for bar, _ in found) else 1


if __name__ == "__main__":
    sys.exit(main())
