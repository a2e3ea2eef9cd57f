"""A disk and the processes that live on it one after the other, each until a seed has it die."""

from __future__ import annotations

import errno
import os
import random
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from tests.sim.choices import Chooser
from tests.sim.crash import Ledger, check_names
from tests.sim.device import LINK, QUIET_LINUX, START_NS, TELLING_LINUX, Device
from tests.sim.syscalls import FIRST_FD, SHORT, SimSyscalls

if TYPE_CHECKING:
    from fsmux.records import Parts
    from tests.sim.world import World

ERRNOS: Final = (errno.EIO, errno.ENOSPC, errno.EINTR, errno.EDQUOT, errno.EFBIG, SHORT, SHORT)


@dataclass(slots=True)
class Mix:
    """How much of what goes wrong, drawn by the seed."""

    link: float
    """Of links: one is cut, stalls or flips a bit."""
    call: float
    """Of system calls: one fails."""
    deaths: int
    """Kills and power cuts of each machine, at most."""

    @classmethod
    def drawn(cls, rng: random.Random) -> Mix:
        return cls(rng.choice([0.0, 0.5, 0.9]), rng.choice([0.0, 0.0, 0.002, 0.02]), rng.choice([0, 0, 1, 2]))


class Machine:
    """A disk, and the process that runs on it now."""

    def __init__(self, name: str, world: World, number: int) -> None:
        self.name = name
        self.device = Device()
        self.device.linux = random.Random(f"{name} {world.seed}").choice([QUIET_LINUX, TELLING_LINUX])
        self.ledger = Ledger()
        self.process: SimSyscalls | None = None
        self.scope = trio.CancelScope()
        self._world = world
        self._number = number
        self._lives = 0
        self._deaths = world.mix.deaths
        self._dies_at = -1
        self.lost_power = False

    def born(self) -> SimSyscalls:
        """A new process, which may have its end before it."""
        world = self._world
        self._lives += 1
        self.scope = trio.CancelScope()
        self._dies_at = world.rng.randint(1, 100) if self._deaths and world.rng.random() < 0.7 else -1
        number = self._number + 2 * self._lives
        process = SimSyscalls(self.device, number, first=FIRST_FD * number)
        process.watch = partial(self._call, process)
        process.fault = partial(self._fault, process)
        self.process = world.processes[number] = process
        return process

    def _call(self, process: SimSyscalls, name: str) -> None:
        if self.process is not process:
            return  # a ghost, on a disk that is nobody's
        self._world.note(f"{self.name} {name}")
        if name in ("rename", "unlink", "rmdir"):
            check_names(self.device, self.ledger)
        if name in ("unlink", "rmdir"):
            self._world.check_going(self)
        self._world.holes += name == "punch"
        self._dies_at -= 1
        if self._dies_at == 0 and self._world.troubled:
            self._deaths -= 1
            self.die(power_cut=self._world.rng.random() < 0.5)

    def _fault(self, process: SimSyscalls, name: str) -> int:
        world = self._world
        if (
            self.process is not process
            or not world.troubled
            or not world.mix.call
            or world.rng.random() >= world.mix.call
        ):
            return 0
        number = world.rng.choice(ERRNOS)
        world.failures += 1
        world.note(f"{self.name} {name} fails with {number}")
        return number

    def die(self, *, power_cut: bool) -> None:
        """End the process here and now; the disk is what it leaves."""
        world = self._world
        world.note(f"{self.name} {'loses power' if power_cut else 'is killed'}")
        world.died += 1
        self.process = None
        if power_cut:
            self.lost_power = True
            self.device = self.device.crash(Chooser(world.rng, world.rng.random(), world.rng.random()))
            self.ledger = self.ledger.after_power_cut()
        else:
            self.device = self.device.fork()
        check_names(self.device, self.ledger)
        world.check_going(self)
        for link in world.links:
            link.cut()
        self.scope.cancel()

    def put(self, name: Parts, data: bytes, time: int | None = None) -> int:
        """A file or a link that was always there, with a time that no other one has anywhere, unless it is given."""
        process = SimSyscalls(self.device)
        time = START_NS - self._world.next_number() if time is None else time
        parent = self._make(process, name[:-1])
        if data.startswith(LINK):
            process.symlink(data.removeprefix(LINK), parent, name[-1])
            process.utime_link(parent, name[-1], time)
        else:
            fd = process.openat(parent, name[-1], os.O_RDWR | os.O_CREAT)
            process.pwrite(fd, data, 0)
            process.futime(fd, time)
        for fd in process.descriptors:
            process.close(fd)
        self.device.sync_all()
        self.ledger.possible[name] = [data]
        self.ledger.durable[name] = 0
        return time

    def link(self, first: Parts, name: Parts) -> None:
        """A further name of a file that was always there, too."""
        process = SimSyscalls(self.device)
        here, there = (self._make(process, one[:-1]) for one in (first, name))
        process.link(here, first[-1], there, name[-1])
        for fd in process.descriptors:
            process.close(fd)
        self.device.sync_all()
        self.ledger.possible[name] = self.ledger.possible[first]
        self.ledger.durable[name] = 0

    @staticmethod
    def _make(process: SimSyscalls, parts: Parts) -> int:
        """The directory, made if need be."""
        directory = process.open_root("")
        for part in parts:
            with suppress(FileExistsError):
                process.mkdir(directory, part, 0o755)
            directory = process.openat(directory, part, os.O_DIRECTORY)
        return directory
