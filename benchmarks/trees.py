"""The bars for trees of small files, side by side with the rsync daemon in one run (``make bench-trees``).

Whole processes from start to exit over loopback, ``--durability none`` and rsync without ``--fsync`` but for the group
``durable``; after each run both trees are compared byte by byte and attribute by attribute.  Groups:

* ``many``: 100,000 files of 1 KiB in 1,000 directories; ``few``: 10,000 files of 4 KiB in 100;
* ``again``: a second run over the 100,000, nothing changed;
* ``mixed``: 6,000 files of 32 bytes to 2 MiB, evenly by their logarithms, 1.1 GB; ``touched``: a second run over them,
  of which nothing but the times changed;
* ``source``: the standard library and the packages of this interpreter;
* ``durable``: 10,000 files of 4 KiB with ``--durability batch`` on a disk, against ``rsync --fsync``;
* ``memory``: 1,000,000 entries, empty files;
* ``edited``: what is sent of 1 GiB of which one byte was changed in place, and of 100 GiB with 10 MiB of data in it.

A link with distance is measured by :mod:`benchmarks.wan`'s tools, which need root.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import Fsmux, Rsync
from benchmarks.harness import GIB, MIB, Bar, conditions, console, remove, report_bars, write_json
from benchmarks.processes import FSMUX, Failed, environment, file_system, fsmux_server, scratch
from fsmux.limits import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from benchmarks.harness import Contender, Sample

ROUNDS = 5
DIRECTIONS = ("down", "up")
MANY = (100_000, 1024, 1000)
FEW = (10_000, 4096, 100)
"""Files, bytes of each, directories."""
MIXED = (6_000, 5, 21, 100)
"""Files, logarithms of the least and the most bytes, directories."""
TOUCHED_NS = 10**18
ENTRIES = 1_000_000
MEMORY = 200 * MIB
RATE = 70_000
"""Files a second, without start-up."""
NEEDED = 3 * GIB


@dataclass(slots=True)
class Run:
    """Where it works, how much it does, and what it has found."""

    place: Path
    rounds: int
    scale: float
    out: Console
    bars: list[Bar] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    def bar(self, name: str, measured: str, wanted: str, met: bool) -> None:
        self.bars.append(Bar(name, measured, wanted, met))
        self.out.print(f"  {name}: {measured} ({wanted})", highlight=False)


def tree(path: Path, files: int, size: int, directories: int) -> Path:
    """Random files, evenly spread."""
    path.mkdir()
    for number in range(directories):
        (path / f"{number:04d}").mkdir()
    for number in range(files):
        (path / f"{number % directories:04d}/{number:07d}").write_bytes(os.urandom(size))
    return path


def mixed_tree(path: Path, files: int, least: int, most: int, directories: int) -> Path:
    """Random files of sizes that are spread over some orders of magnitude, the same ones each time."""
    path = tree(path, 0, 0, directories)
    sizes = random.Random(files)
    for number in range(files):
        data = os.urandom(int(2 ** sizes.uniform(least, most)))
        (path / f"{number % directories:04d}/{number:07d}").write_bytes(data)
    return path


def leave(target: Path) -> None:
    """Change nothing."""


def touch(target: Path) -> None:
    """Give all files another time."""
    for path in target.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(TOUCHED_NS, TOUCHED_NS))


def moved(contender: Contender, direction: str, source: Path, target: Path) -> Sample:
    return (contender.down if direction == "down" else contender.up)(source, target)


def compete(
    run: Run, title: str, source: Path, pair: tuple[Contender, Contender], *,
    again: Callable[[Path], None] | None = None,
) -> None:  # fmt: skip
    """Ours and theirs by turns; with ``again`` a second run is measured over what that makes of the first."""
    most = {"many": 0.7, "durable": 0.2}.get(title, 1.0)
    target = run.place / "received"
    for direction in DIRECTIONS:
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(run.rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                if title == "durable":
                    # Nothing is deleted meanwhile: for one to six minutes after that, making a file on ext4 costs a
                    # millisecond more, because it steps over each inode that was freed of late.
                    target = run.place / f"received-{direction}-{number}-{which}"
                remove(target)
                sample = moved(pair[which], direction, source, target)
                if again is not None:
                    again(target)
                    sample = moved(pair[which], direction, source, target)
                compare(source, target)
                seconds[which].append(sample.seconds)
        remove(target)
        ours, theirs = map(statistics.median, seconds)
        run.found[f"{title} {direction}"] = dict(zip((pair[0].name, pair[1].name), seconds, strict=True))
        measured = f"{ours / theirs:.2f}: {ours:.2f} and {theirs:.2f} s"
        run.bar(f"{title} {direction}, time ÷ {pair[1].name}", measured, f"at most {most:g}", ours <= most * theirs)
        if title == "many":
            files = int(MANY[0] * run.scale)
            rate = files / max(ours - start_up(run, direction), 1e-3)
            wanted = f"at least {RATE:,}"
            run.bar(f"{title} {direction}, files/s without start-up", f"{rate:,.0f}", wanted, rate >= RATE)


def start_up(run: Run, direction: str) -> float:
    """Seconds of a transfer of one empty file in a directory."""
    source, target = tree(run.place / "one", 1, 0, 1), run.place / "received"
    found = []
    for _ in range(run.rounds):
        remove(target)
        found.append(moved(Fsmux(), direction, source, target).seconds)
    remove(target)
    remove(source)
    return statistics.median(found)


def compare(source: Path, target: Path) -> None:
    """Contents, modes, times and links; raises Failed."""
    words = ["rsync", "-nai", "--delete", "--omit-dir-times", "-c", f"{source}/", f"{target}/"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    differing = [line for line in done.stdout.splitlines() if not line.endswith(" ./")]
    if differing:
        raise Failed(f"{target} differs from {source}: {differing[0]}")


def many(run: Run) -> None:
    files, size, directories = MANY
    source = tree(run.place / "many", int(files * run.scale), size, int(directories * run.scale) or 1)
    compete(run, "many", source, (Fsmux(), Rsync(run.place)))
    remove(source)


def few(run: Run) -> None:
    source = tree(run.place / "few", int(FEW[0] * run.scale), *FEW[1:])
    compete(run, "few", source, (Fsmux(), Rsync(run.place)))
    remove(source)


def again(run: Run) -> None:
    files, size, directories = MANY
    source = tree(run.place / "again", int(files * run.scale), size, int(directories * run.scale) or 1)
    compete(run, "again", source, (Fsmux(), Rsync(run.place)), again=leave)
    remove(source)


def mixed(run: Run, title: str = "mixed", *, again: Callable[[Path], None] | None = None) -> None:
    source = mixed_tree(run.place / title, int(MIXED[0] * run.scale), *MIXED[1:])
    compete(run, title, source, (Fsmux(), Rsync(run.place)), again=again)
    remove(source)


def touched(run: Run) -> None:
    mixed(run, "touched", again=touch)


def source(run: Run) -> None:
    copy = run.place / "source"
    for name in ("stdlib", "purelib"):
        subprocess.run(["cp", "-a", f"{sysconfig.get_path(name)}/.", copy], check=True)
    compete(run, "source", copy, (Fsmux(), Rsync(run.place)))
    remove(copy)


class Durable(Fsmux):
    """fsmux as it is without options."""

    def __init__(self) -> None:
        super().__init__("--durability", "batch", name="fsmux")


class Synced(Rsync):
    """rsync that syncs each file."""

    name = "rsync --fsync"
    options = ("--fsync",)


def durable(run: Run) -> None:
    """On a disk, if there is one."""
    with tempfile.TemporaryDirectory(prefix="fsmux-bench-", dir="/var/tmp") as directory:
        place = Path(directory)
        if file_system(place) == "tmpfs":
            run.out.print("durable is left out: /var/tmp is no disk")
            return
        source = tree(place / "durable", int(FEW[0] * run.scale), *FEW[1:])
        apart = Run(place, run.rounds, run.scale, run.out, run.bars, run.found)
        compete(apart, "durable", source, (Durable(), Synced(place)))


def memory(run: Run) -> None:
    source = tree(run.place / "memory", int(ENTRIES * run.scale), 0, int(1000 * run.scale) or 1)
    target = run.place / "received"
    for direction in DIRECTIONS:
        sample = moved(Fsmux(), direction, source, target)
        remove(target)
        peaks = f"client {sample.client_peak / MIB:.0f} MiB, server {sample.server_peak / MIB:.0f} MiB"
        met = max(sample.client_peak, sample.server_peak) <= MEMORY
        run.bar(f"memory {direction}, {sample.seconds:.1f} s", peaks, f"at most {MEMORY // MIB} MiB", met)
    remove(source)


def edited(run: Run) -> None:
    """Bytes sent, by the summary of the command."""
    for direction in DIRECTIONS:
        here, served = run.place / "here", run.place / "served"
        here.mkdir()
        served.mkdir()
        near, far = (served, here) if direction == "down" else (here, served)
        size, apparent = int(GIB * run.scale), int(100 * GIB * run.scale)
        places = [number * (apparent // 10) // MIB * MIB for number in range(10)]
        with (near / "image").open("wb") as file:
            for start in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - start)))
        with (near / "sparse").open("wb") as file:
            file.truncate(apparent)
            for place in places:
                os.pwrite(file.fileno(), os.urandom(MIB), place)
        with fsmux_server(served) as server:
            _sent(server.address, direction, "image", here)
            with (near / "image").open("r+b") as file:
                file.seek(size // 2)
                byte = file.read(1)[0]
                file.seek(size // 2)
                file.write(bytes([byte ^ 1]))
            most = CHUNK_SIZE + 64 * 1024
            sent = _sent(server.address, direction, "image", here)
            run.bar(f"edited {direction}, sent for one byte", f"{sent:,}", f"at most {most:,}", sent <= most)
            most = 10 * MIB + 64 * 1024
            sent = _sent(server.address, direction, "sparse", here)
            run.bar(f"edited {direction}, sent for 10 MiB among holes", f"{sent:,}", f"at most {most:,}", sent <= most)
        room = (far / "sparse").stat().st_blocks * 512
        run.bar(f"edited {direction}, room of it", f"{room:,}", f"at most {most:,}", room <= most)
        subprocess.run(["cmp", near / "image", far / "image"], check=True)
        with (near / "sparse").open("rb") as one, (far / "sparse").open("rb") as other:
            for place in places:
                if os.pread(one.fileno(), MIB, place) != os.pread(other.fileno(), MIB, place):
                    raise Failed(f"{far / 'sparse'} differs at {place}")
        remove(here)
        remove(served)


def _sent(address: str, direction: str, name: str, here: Path) -> int:
    url = f"fsmux://{address}/{name}"
    pair = [url, f"{here}/"] if direction == "down" else [str(here / name), url]
    done = subprocess.run(
        [*FSMUX, "transfer", "--json", *pair],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(json.loads(done.stdout.splitlines()[-1])["bytes_sent"])


GROUPS: dict[str, Callable[[Run], None]] = {
    "many": many, "few": few, "again": again, "mixed": mixed, "touched": touched, "source": source,
    "durable": durable, "memory": memory, "edited": edited,
}  # fmt: skip


def main() -> int:
    """See ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trees", description="Measure the bars for trees.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each ({ROUNDS})")
    parser.add_argument("--scale", type=float, default=1.0, help="files of everything times this; below 1 to try it")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    given = parser.parse_args()
    chosen = given.groups or list(GROUPS)
    if unknown := set(chosen) - set(GROUPS):
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    out = console()
    if shutil.which("rsync") is None:
        out.print("[bold red]rsync is not installed[/]")
        return 1
    try:
        with scratch(NEEDED) as place:
            run = Run(place, given.rounds, given.scale, out)
            surroundings = conditions(place, file_system(place))
            for name in chosen:
                out.print(f"[bold]{name}[/]")
                GROUPS[name](run)
    except (Failed, subprocess.CalledProcessError) as exc:
        out.print(f"[bold red]{exc}[/]")
        return 1
    out.print(", ".join(f"{name} {value}" for name, value in surroundings.items()))
    met = report_bars(run.bars, out)
    if given.json:
        write_json(given.json, {"conditions": surroundings, "bars": run.bars, "results": run.found})
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
