"""Restart the server again and again during one command, which must not mind (``make torture``).

One ``fsmux transfer`` runs; whenever the receiver has another part of the whole, the server is ended, by ``kill -9``
and SIGTERM in turn, and started again on the same port.  What is checked in the end:

* the command ends with 0, by itself, and everything arrived byte for byte;
* each file is told of once, the summary adds up, and nothing counts as skipped;
* what was on record when the server ended is not sent again: every attempt goes on from there, and no more than a
  window for each restart is sent beyond the size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from benchmarks.harness import GIB, MIB, console, extent, random_file, random_tree, verify
from benchmarks.journals import recorded_bytes
from benchmarks.processes import Failed, Server, fsmux, fsmux_server, scratch
from fsmux.limits import KIB, MAX_WINDOW

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
PORTS = range(20_000, 30_000)
"""Where systems give out no ports by themselves, so that nobody takes ours while the server is away."""

STEP_SECONDS = 120.0
"""Longest wait for the next part of the whole."""


@dataclass(slots=True)
class Restarted:
    """What became of one command."""

    seconds: float
    summary: dict[str, Any]
    recorded: list[int] = field(default_factory=list)
    """Bytes on record whenever the server had ended."""
    resumed: list[int] = field(default_factory=list)
    """Bytes that each attempt at a file found there, but for the first one."""
    complaints: list[str] = field(default_factory=list)


class Restarts:
    """A server that comes and goes, on a port of its own, and a client's directory beside what it serves."""

    def __init__(self, place: Path, durability: str = "batch") -> None:
        self.served, self.own = place / "served", place / "own"
        self._durability = durability
        for directory in (self.served, self.own):
            directory.mkdir(parents=True)
        self.address = f"127.0.0.1:{_free_port()}"
        self._server = self._serve()

    def _serve(self) -> Server:
        return fsmux_server(self.served, "--listen", self.address, "--durability", self._durability)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.process.stop()

    def restart(self, number: int) -> None:
        """End the server by this signal, and start it again."""
        self._server.process.stop(number)
        self._server = self._serve()

    def run(self, direction: str, name: str, restarts: int, *options: str) -> Restarted:
        """Transfer ``name`` up or down, and restart the server so often on the way."""
        source, into = (self.own, self.served) if direction == "up" else (self.served, self.own)
        url = f"fsmux://{self.address}/"
        pair = (self.own / name, f"{url}copy") if direction == "up" else (f"{url}{name}", self.own / "copy")
        whole, files = extent(source / name)
        single = (source / name).is_file()
        target = into / "copy" if single else into / "copy" / name
        arrived = partial(recorded_bytes, into) if single else partial(_bytes_below, target)
        client = fsmux("transfer", "--json", "--durability", self._durability, *options, *pair)
        recorded = []
        before = -1
        for number in range(1, restarts + 1):
            limit = time.monotonic() + STEP_SECONDS
            # What stands may grow by two thirds at once, and each restart is to be met by an attempt of its own, which
            # has come as far as to bring something: until then it may only be about to connect.
            while arrived() <= max(before, number * whole // (restarts + 1)):
                if client.ended(0.002) or time.monotonic() > limit:
                    client.stop(signal.SIGKILL)
                    raise Failed(f"restart {number} was not reached:\n{client.errors}{client.output[-2000:]}")
            self._server.process.stop(SIGNALS[number % 2])
            recorded.append(recorded_bytes(into))
            self._server = self._serve()
            before = arrived()
        status, usage = client.wait(STEP_SECONDS)
        if status:
            raise Failed(f"{client} ended with {status}:\n{client.errors}")
        verify(source / name, target)
        events = [json.loads(line) for line in client.output.splitlines()]
        found = Restarted(usage.seconds, events[-1], recorded)
        self._judge(found, events, whole, files, restarts, single=single)
        if left := [path.name for path in into.glob(".fsmux/*") if path.suffix != ".tmp"]:
            found.complaints.append(f"left over: {left}")  # temporary files of a killed server are swept away later
        return found

    def _judge(
        self, found: Restarted, events: Sequence[dict[str, Any]], whole: int, files: int, restarts: int, *, single: bool
    ) -> None:
        complain, summary = found.complaints.append, found.summary
        done = [event["path"] for event in events if event["event"] == "file_done"]
        if len(done) != files or len(set(done)) != files:
            complain(f"{len(done)} files were told of, {len(set(done))} of them different, for {files}")
        if (summary["files"], summary["bytes"], summary["skipped"], summary["failed"]) != (files, whole, 0, 0):
            complain(f"the summary does not add up to {files} files and {whole} bytes: {summary}")
        if summary["retries"] < restarts:
            complain(f"{summary['retries']} retries for {restarts} restarts")
        if summary["bytes_sent"] + summary["bytes_resumed"] < whole:
            complain(f"fewer bytes were sent than there are: {summary}")
        if summary["bytes_sent"] > whole + restarts * MAX_WINDOW:
            complain(f"{summary['bytes_sent'] - whole} bytes were sent again")
        if single:
            found.resumed = [event["bytes_resumed"] for event in events if event["event"] == "file_start"][1:]
            for before, after in zip(found.recorded, found.resumed, strict=False):
                if after < before:
                    complain(f"{before} bytes were on record, and the next attempt found {after}")


def _free_port() -> int:
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.choice(PORTS)))
            return int(probe.getsockname()[1])


def _bytes_below(path: Path) -> int:
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(directory, name)).st_size
    return total


def main() -> int:
    """See ``--help``."""
    description = "Restart the server during an upload, a download and trees of small files."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restarts", description=description)
    parser.add_argument("--restarts", type=int, default=20, help="during each file; trees have half as many (20)")
    parser.add_argument("--size", type=int, default=GIB // MIB, help="MiB of the file (1024)")
    parser.add_argument("--files", type=int, default=20_000, help="of 4 KiB in the tree (20000)")
    parser.add_argument("--durability", default="batch", choices=["none", "batch", "file"])
    options = parser.parse_args()
    out = console()
    bad = 0
    for what in ("file", "tree"):
        for direction in ("up", "down"):
            size = options.size * MIB if what == "file" else options.files * 8 * KIB
            with scratch(2 * size + 64 * MIB) as place, Restarts(place, options.durability) as restarts:
                source = (restarts.own if direction == "up" else restarts.served) / what
                count, rate = options.restarts, "300M"
                if what == "file":
                    random_file(source, size)
                else:
                    random_tree(source, options.files, 4 * KIB)
                    count, rate = max(count // 2, 1), "8M"
                found = restarts.run(direction, what, count, "--bwlimit", rate)
            whole, sent = found.summary["bytes"], found.summary["bytes_sent"]
            verdict = "; ".join(found.complaints) or "exit 0, byte-exact, told once"
            bad += bool(found.complaints)
            out.print(
                f"  {what} {direction}, {whole / MIB:.0f} MiB, {count} restarts, {found.summary['retries']} retries, "
                f"{(sent - whole) / MIB:.1f} MiB sent beyond, {found.seconds:.0f} s: {verdict}",
                style="bold red" if found.complaints else "",
                highlight=False,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
