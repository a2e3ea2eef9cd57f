"""A link with a delay and a rate between two network namespaces, for wide-area behaviour on one machine.

Theory: either end is a namespace with one TUN device and an address of its own.  What leaves one device is read by a
process that holds both, waits in a queue for its turn on the line and for the delay, and is written to the other.  The
queue holds two round trips' worth of bytes and then drops, as a router would.  It may lose packets besides, and damage
what is in them in a way that TCP cannot notice, as hosts and middleboxes do.  Nothing outside takes part: the
namespaces are made here, have no other devices, and are gone with the block.  It needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ADDRESSES = ("198.18.77.1", "198.18.77.2")
"""Of the server's and of the client's end; the range is set aside for measurements (RFC 2544)."""

MTU = 1500
PACKET_ROOM = 2048
READ_AT_ONCE = 32
TCP = 6
WORTH_DAMAGE = 512
"""Bytes of a payload from which on it may be damaged. Smaller ones are greetings, which may then look like those of
another protocol, and rightly end all."""

QUEUE_ROUND_TRIPS = 2.0
_TUNSETIFF, _TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
_COUNT = struct.Struct("<Q")


def why_not() -> str | None:
    """Why such a link cannot be made here; None if it can."""
    if sys.platform != "linux":
        return "it needs Linux"
    if os.geteuid() != 0:
        return "it needs root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    return None if shutil.which("ip") else "it needs iproute2 (ip)"


@dataclass(frozen=True, slots=True)
class Link:
    """A link that stands. Commands run at its ends through :meth:`at`."""

    names: tuple[str, str]
    counter: int
    """A descriptor of what the carrier counts in."""

    @property
    def damaged(self) -> int:
        """Packets that have been damaged until now."""
        return _COUNT.unpack(os.pread(self.counter, _COUNT.size, 0))[0]  # type: ignore[no-any-return]

    def at(self, end: int, words: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command line that runs ``words`` at the server's (0) or the client's (1) end."""
        return ["ip", "netns", "exec", self.names[end], *[os.fspath(word) for word in words]]


@contextlib.contextmanager
def link(rtt: float, rate: float, loss: float = 0.0, damage: float = 0.0, seed: int = 1) -> Iterator[Link]:
    """A link of ``rtt`` seconds there and back and ``rate`` bits per second each way, for the block.

    These parts of all packets are lost, and damaged; the latter at random but evenly, so that the same bytes, sent
    again and again, do not meet it each time.
    """
    names = (f"fsmux-{os.getpid()}-a", f"fsmux-{os.getpid()}-b")
    with contextlib.ExitStack() as stack:
        devices = []
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            devices.append(_open_device(name, address))
            stack.callback(os.close, devices[-1])
        counter = os.memfd_create("damaged packets", os.MFD_CLOEXEC)
        stack.callback(os.close, counter)
        os.pwrite(counter, _COUNT.pack(0), 0)
        words = map(str, (*devices, counter, rtt / 2, rate / 8, loss, damage, seed))
        carrier = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.link", *words],
            pass_fds=(*devices, counter), cwd=Path(__file__).parents[1],
        )  # fmt: skip
        try:
            yield Link(names, counter)
        finally:
            carrier.terminate()
            carrier.wait()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _open_device(namespace: str, address: str) -> int:
    """A TUN device that this process holds, inside the namespace, up and with its address."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        name = namespace[-2:].replace("-", "t") + str(os.getpid())
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _TUN_WITHOUT_HEADER))
        _ip("link", "set", name, "netns", namespace)
        inside = ("-n", namespace)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{address}/30", "dev", name)
        _ip(*inside, "link", "set", name, "mtu", str(MTU), "txqueuelen", "5000", "up")
    except BaseException:
        os.close(device)
        raise
    return device


# ---- the process that carries packets -----------------------------------------------------------------------------


@dataclass(slots=True)
class Line:
    """One direction: pure arithmetic of what leaves when. Bytes per second, seconds."""

    delay: float
    rate: float
    loss: float
    damage: float
    chance: random.Random
    free_at: float = 0.0
    damaged: int = 0
    spare: int = 0
    """Packets before the next one that is damaged."""
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.spare = self._gap()

    def _gap(self) -> int:
        return round(self.chance.uniform(0.5, 1.5) / self.damage) if self.damage else 0

    def enter(self, packet: bytes, now: float) -> None:
        """A packet comes to the line: it is lost, dropped because the queue is full, or on its way."""
        start = max(self.free_at, now)
        if start - now > QUEUE_ROUND_TRIPS * 2 * self.delay or (self.loss and self.chance.random() < self.loss):
            return
        self.spare -= 1
        if self.damage and self.spare <= 0 and (found := damaged(packet, self.chance)) != packet:
            packet = found
            self.damaged += 1
            self.spare = self._gap()
        self.free_at = start + len(packet) / self.rate
        self.under_way.append((self.free_at + self.delay, packet))

    @property
    def next_at(self) -> float:
        """When something arrives next."""
        return self.under_way[0][0] if self.under_way else float("inf")


def damaged(packet: bytes, chance: random.Random) -> bytes:
    """The packet with two words of what TCP carries in it exchanged: its checksum, a sum of all words, stays right."""
    if packet[0] >> 4 != 4 or packet[9] != TCP:
        return packet
    header = (packet[0] & 15) * 4
    payload = header + (packet[header + 12] >> 4) * 4
    if len(packet) - payload < WORTH_DAMAGE:
        return packet
    mixed = bytearray(packet)
    one, other = (payload + 2 * at for at in chance.sample(range((len(packet) - payload) // 2), 2))
    mixed[one : one + 2], mixed[other : other + 2] = mixed[other : other + 2], mixed[one : one + 2]
    return bytes(mixed)


def carry(devices: Sequence[int], lines: Sequence[Line], counter: int) -> None:
    """Carry packets between the two devices for ever."""
    ways = [(devices[0], devices[1], lines[0]), (devices[1], devices[0], lines[1])]
    told = 0
    while True:
        now = time.monotonic()
        for _, target, line in ways:
            while line.next_at <= now:
                with contextlib.suppress(OSError):  # its queue is full: dropped
                    os.write(target, line.under_way.popleft()[1])
        wait = min(line.next_at for line in lines) - time.monotonic()
        readable, _, _ = select.select(devices, [], [], min(max(wait, 0.0), 1.0))
        now = time.monotonic()
        for source, _, line in ways:
            if source in readable:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(READ_AT_ONCE):
                        line.enter(os.read(source, PACKET_ROOM), now)
        if (count := sum(line.damaged for line in lines)) != told:
            told = count
            os.pwrite(counter, _COUNT.pack(told), 0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description="Started by link() only.")
    parser.add_argument("devices", type=int, nargs=2)
    parser.add_argument("counter", type=int)
    for name in ("delay", "rate", "loss", "damage"):
        parser.add_argument(name, type=float)
    parser.add_argument("seed", type=int)
    given = parser.parse_args()
    chances = [random.Random(f"{given.seed} {way}") for way in ("there", "back")]
    lines = [Line(given.delay, given.rate, given.loss, given.damage, chance) for chance in chances]
    carry(given.devices, lines, given.counter)


if __name__ == "__main__":
    main()
