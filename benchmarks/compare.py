"""Compare fsmux with the raw loop and with the other tools that are installed (``make bench``).

One large file and a tree of small files, both directions, by interleaved runs; prints tables and writes JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.contenders import Fsmux, RawLoop, installed
from benchmarks.harness import (
    GIB,
    Contender,
    Result,
    compete,
    conditions,
    console,
    random_file,
    random_tree,
    remove,
    table,
    write_json,
)
from benchmarks.processes import file_system, scratch


def main() -> None:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--size", type=float, default=4.0, help="GiB of the large file (4)")
    parser.add_argument("--files", type=int, default=10_000, help="files of 4 KiB in the tree (10000)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool (5)")
    parser.add_argument(
        "--only", default="", help="leave out the tools whose name does not contain one of these, comma"
    )
    parser.add_argument("--json", type=Path, help="write every run to this file")
    options = parser.parse_args()
    out = console()
    size = int(options.size * GIB)
    with scratch(2 * size + options.files * 16_384 + 2**26) as place:
        tools, missing = installed(place)
        for sentence in missing:
            out.print(sentence)
        wanted = [word for word in options.only.split(",") if word]

        def chosen(contenders: list[Contender]) -> list[Contender]:
            return [one for one in contenders if not wanted or any(word in one.name for word in wanted)]

        data = place / "data"
        data.mkdir()
        found: dict[str, list[Result]] = {}
        loops: list[Contender] = [RawLoop(place), RawLoop(place, "--overlap"), RawLoop(place, "--crc")]
        if size:
            source = random_file(data / "large", size)
            for direction in ("down", "up"):
                results = compete(chosen([Fsmux(), *loops, *tools]), direction, source, place, options.rounds, out)
                out.print(table(f"one file of {options.size:g} GiB, {direction}", results, results[0].name))
                found[f"large {direction}"] = results
            remove(source)
        if options.files:
            source = random_tree(data / "small", options.files, 4096)
            for direction in ("down", "up"):
                results = compete(chosen([Fsmux(), *tools]), direction, source, place, options.rounds, out)
                out.print(table(f"{options.files} files of 4 KiB, {direction}", results, results[0].name))
                found[f"small {direction}"] = results
        surroundings = conditions(place, file_system(place))
        out.print("nothing is made durable by anyone;", ", ".join(f"{k} {v}" for k, v in surroundings.items()))
        if options.json:
            write_json(options.json, {"conditions": surroundings, "results": found})


if __name__ == "__main__":
    main()
