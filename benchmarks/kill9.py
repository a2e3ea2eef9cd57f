"""Kill client or server at random points of uploads and downloads, and run the same command again (``make torture``).

Each kill is a ``kill -9`` at a random byte of the conversation: a relay between the two forwards exactly so many bytes
and the victim dies there.  Then the same command is given again, and must end well with every byte in place.  What is
checked each time:

* nothing but the whole file ever stands under the final name, also right after the kill;
* what the receiver had put on record before it is not sent again: ``bytes_sent + bytes_resumed`` is the size, and
  ``bytes_resumed`` covers the record; the bytes that really passed the relay agree;
* nothing is left over beside the file.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.harness import MIB, console, random_file, remove, same_bytes
from benchmarks.journals import recorded_bytes
from benchmarks.processes import Process, Server, fsmux, fsmux_server, scratch
from benchmarks.relay import Direction, Relay

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

SIZE = 256 * MIB
OVERHEAD = 1 * MIB
"""Bytes of frames, handshake and checksums that a transfer needs at most beside its payload."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill and what became of it."""

    direction: Direction
    victim: str
    at: int
    recorded: int
    resumed: int
    sent: int
    wire: int
    complaints: tuple[str, ...]


class Torture:
    """One source, one server that is started again whenever it was killed, and a relay before it."""

    def __init__(self, place: Path, size: int, seed: int, durability: str) -> None:
        self._random = random.Random(seed)
        self._size = size
        self._durability = durability
        self._served = place / "served"
        self._own = place / "own"
        for directory in (self._served, self._own):
            directory.mkdir()
        self._source = random_file(self._own / "source", size)
        random_source = self._served / "source"
        random_source.hardlink_to(self._source)
        self._server = self._serve()
        self._relay = Relay(self._server.address)

    def _serve(self) -> Server:
        return fsmux_server(self._served, "--durability", self._durability)

    def __enter__(self) -> Torture:
        return self

    def __exit__(self, *_: object) -> None:
        self._relay.__exit__()
        self._server.process.stop()

    def kill(self) -> Kill:
        """One kill at a random point, and the same command again."""
        direction: Direction = self._random.choice(("up", "down"))
        victim = self._random.choice(("client", "server"))
        at = self._random.randrange(self._size)
        into = self._served if direction == "up" else self._own
        url = f"fsmux://{self._relay.address}/"
        pair = (self._source, url + "copy") if direction == "up" else (url + "source", into / "copy")
        words = ("transfer", "--json", "--retries", "0", "--durability", self._durability, *pair)
        complaints: list[str] = []
        self._interrupted(fsmux(*words), direction, victim, at)
        copy = into / "copy"
        if copy.exists() and not same_bytes(self._source, copy):
            complaints.append("a wrong file stood under the final name after the kill")
        recorded = recorded_bytes(into)
        before = len(self._relay.by_connection)
        again = fsmux(*words)
        status, _ = again.wait(120)
        wire = sum(counts[direction] for counts in self._relay.by_connection[before:])
        found: dict[str, Any] = json.loads(again.output.splitlines()[-1]) if again.output else {}
        sent, resumed = found.get("bytes_sent", 0), found.get("bytes_resumed", 0)
        if status:
            complaints.append(f"the second run ended with {status}: {again.errors.strip()}")
        elif not found["skipped"]:
            if sent + resumed != self._size:
                complaints.append(f"sent {sent} and resumed {resumed} do not add up to {self._size}")
            if resumed < recorded:
                complaints.append(f"{recorded} bytes were on record, and only {resumed} were resumed")
        if wire > sent + OVERHEAD:
            complaints.append(f"{wire} bytes passed, for {sent} that are said to have been sent")
        if not copy.exists() or not same_bytes(self._source, copy):
            complaints.append("the copy is not what was sent")
        if (into / ".fsmux").exists():
            complaints.append(f"left over: {sorted(path.name for path in (into / '.fsmux').iterdir())}")
        for path in (copy, into / ".fsmux"):
            remove(path)
        return Kill(direction, victim, at, recorded, resumed, sent, wire, tuple(complaints))

    def _interrupted(self, client: Process, direction: Direction, victim: str, at: int) -> None:
        self._relay.stop_after(direction, at)
        while not self._relay.reached.is_set() and not client.ended(0.002):
            pass
        (client if victim == "client" else self._server.process).send_signal(signal.SIGKILL)
        self._relay.go_on()
        client.wait(120)
        if victim == "server":
            self._server.process.wait()
            self._server = self._serve()
            self._relay.target = self._server.address


def torture(kills: int, size: int, seed: int, durability: str, out: Console) -> list[Kill]:
    """So many kills; every one is reported as it happens."""
    found = []
    with scratch(3 * size) as place, Torture(place, size, seed, durability) as run:
        for number in range(1, kills + 1):
            kill = run.kill()
            found.append(kill)
            verdict = "; ".join(kill.complaints) or "byte-exact"
            figures = ", ".join(
                f"{name} {getattr(kill, name) / MIB:.0f}" for name in ("at", "recorded", "resumed", "sent", "wire")
            )
            out.print(
                f"  {number:3} {kill.victim} killed, {kill.direction}load, MiB: {figures}: {verdict}",
                style="bold red" if kill.complaints else "dim",
                highlight=False,
            )
    return found


def main() -> int:
    """See ``--help``."""
    description = "Kill client or server at random points, and run the same command again."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill9", description=description)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--size", type=int, default=SIZE // MIB, help="MiB of the file (256)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the random points")
    parser.add_argument("--durability", default="batch", choices=["none", "batch", "file"])
    options = parser.parse_args()
    out = console()
    out.print(f"{options.kills} kills, seed {options.seed}")
    kills = torture(options.kills, options.size * MIB, options.seed, options.durability, out)
    bad = [kill for kill in kills if kill.complaints]
    resumed = sum(kill.resumed for kill in kills)
    out.print(
        f"{len(kills) - len(bad)} of {len(kills)} byte-exact and nothing sent twice; {resumed / MIB:.0f} MiB resumed"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
