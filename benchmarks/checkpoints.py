"""What checkpoints cost an upload: ``--durability batch`` beside ``none``, by turns (``make bench-checkpoints``).

One large file to a file system in memory, where a sync has nothing to wait for: what is left is what the journal, its
syncs and the order that they ask for cost themselves.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.contenders import Fsmux
from benchmarks.harness import GIB, MIB, Bar, compete, conditions, console, random_file, report_bars, write_json
from benchmarks.processes import file_system, scratch

COST = 0.02
"""Of the time of an upload that is not made durable."""


def main() -> None:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("--size", type=float, default=4.0, help="GiB of the file (4)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    options = parser.parse_args()
    out, size = console(), int(options.size * GIB)
    with scratch(2 * size + 64 * MIB) as place:
        (place / "data").mkdir()
        source = random_file(place / "data/large", size)
        none, batch = compete([Fsmux(), Fsmux("--durability", "batch")], "up", source, place, options.rounds, out)
        surroundings = conditions(place, file_system(place))
    pairs = [ours.seconds / theirs.seconds - 1 for ours, theirs in zip(batch.samples, none.samples, strict=True)]
    cost = statistics.median(pairs)
    measured = f"{cost:+.1%} ({', '.join(f'{one:+.1%}' for one in pairs)})"
    met = report_bars([Bar("upload with checkpoints, time", measured, f"at most {COST:+.0%}", cost <= COST)], out)
    out.print(", ".join(f"{key} {value}" for key, value in surroundings.items()))
    if options.json:
        write_json(options.json, {"conditions": surroundings, "results": [none, batch]})
    raise SystemExit(not met)


if __name__ == "__main__":
    main()
