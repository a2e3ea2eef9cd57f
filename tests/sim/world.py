"""A client, a server, their disks and the network between them, with whatever a seed has in store for them.

Theory.  A :class:`World` is one episode.  The seed draws files and trees to be up- and downloaded, and a *fault mix*:
links that are cut, stalled or flip a bit, calls that fail, and machines that are killed or lose power at some system
call.  Client and server are the code that ships, over simulated system calls and links.  Whoever dies is started again
on what is left; the client tries until all its files stand.  After some tries nothing goes wrong any more, and then all
must come to its end within a bounded (virtual) time.

What is checked: no name ever shows anything but the whole content, whatever dies; what a client was told to be durable
is there after every later power cut; only typed errors come out, and no request fails as a bug; connections that end
well have all their credit back; nothing stays open; and in the end every file is where it belongs.
"""

from __future__ import annotations

import hashlib
import random
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import trio

from fsmux.auth import ServerAuth
from fsmux.backoff import Backoff
from fsmux.client import connect
from fsmux.errors import ConnectFailed, ErrorCode, FsmuxError, InternalError
from fsmux.events import ChunkHealed, RequestFailed
from fsmux.files.root import Root
from fsmux.greeting import hello
from fsmux.job import Options
from fsmux.lanes import open_lanes
from fsmux.mux.connection import open_connection
from fsmux.mux.transport import StreamTransport
from fsmux.records import Durability
from fsmux.server import _Server
from fsmux.sites import LocalSite
from fsmux.transfer.disk import open_disk
from fsmux.wire.state import Role
from tests.mux.kit import check_clean
from tests.sim.choices import Chooser
from tests.sim.crash import CHUNK, Wrong, check_names, files_of
from tests.sim.device import BLOCK
from tests.sim.machine import Machine, Mix
from tests.sim.network import Link, Weather
from tests.sim.scheduler import Scheduler, simulate
from tests.sim.syscalls import FIRST_FD
from tests.sim.trees import MEDIUM, PACK, SMALL, Grove, move

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fsmux.client import Client
    from fsmux.lanes import Lanes
    from fsmux.mux.connection import Connection
    from fsmux.mux.transport import Transport
    from fsmux.records import Parts
    from tests.sim.syscalls import SimSyscalls

TROUBLED_TRIES: Final = 4
"""Tries of the client after which nothing goes wrong any more."""

MOST_TRIES: Final = 12
"""Tries after which all files must stand. Peace may begin in the middle of one, and a lost write may fail the next."""

MOST_SECONDS: Final = 3_600.0
"""Virtual seconds that an episode may take: a try ends after 45 s of silence at the latest, on a slow link."""

CONTENT: Final = random.Random(7).randbytes(4 * CHUNK)
SIZES: Final = (0, 1, 5_000, CHUNK, CHUNK + 1, 2 * CHUNK + 777)
TREES: Final = 0.25
"""Of episodes: there is a tree, too."""

HOLED: Final = 0.2
"""Of files with some blocks: all is a hole, but for both ends."""

SPREAD_BYTES: Final = CHUNK
"""In place of the 32 MiB above which a file goes over several connections."""


@dataclass(slots=True)
class _Task:
    """A file that is to be moved."""

    name: Parts
    data: bytes
    up: bool
    done: bool = False


@dataclass(slots=True)
class Report:
    """What became of an episode."""

    seed: int
    trace: str
    seconds: float
    events: int
    died: int
    healed: int
    failures: int
    tries: int
    packed: int
    linked: int
    removed: int
    holes: int


@dataclass(slots=True)
class World:
    """One episode."""

    scheduler: Scheduler
    seed: int
    rng: random.Random = field(init=False)
    mix: Mix = field(init=False)
    links: list[Link] = field(default_factory=list)
    processes: dict[int, SimSyscalls] = field(default_factory=dict)
    """All that were ever born; their descriptors are told apart by this number."""
    died: int = 0
    healed: int = 0
    failures: int = 0
    tries: int = 0
    packed: int = 0
    """Files that came in packs."""
    linked: int = 0
    """Further names that were made."""
    removed: int = 0
    """Names that were removed."""
    holes: int = 0
    """Holes that were made."""
    troubled: bool = True
    events: int = 0
    server: Machine = field(init=False)
    client: Machine = field(init=False)
    tasks: list[_Task] = field(default_factory=list)
    groves: list[Grove] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    verify: bool = False
    """Whether all is read back from the device before it counts."""
    forecast: list[Weather] = field(default_factory=list)
    """Of the first links, in place of what the seed would have drawn."""
    _trace: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    _listening: trio.MemorySendChannel[Transport] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _behind: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.mix = Mix.drawn(self.rng)
        self.server = Machine("server", self, 1)
        self.client = Machine("client", self, 2)

    def draw_tasks(self) -> None:
        for number in range(self.rng.randint(1, 3)):
            size = self.rng.choice(SIZES)
            start = self.rng.randrange(len(CONTENT) - size)
            data = CONTENT[start : start + size]
            if size > 4 * BLOCK and self.rng.random() < HOLED:
                data = data[:BLOCK] + bytes(size - 2 * BLOCK) + data[-BLOCK:]
            self.add_task(b"file%d" % number, data, up=self.rng.random() < 0.5)
        if self.rng.random() < TREES:
            self.add_grove(Grove.drawn(b"tree", CONTENT, self.rng))

    def add_task(self, name: bytes, data: bytes, *, up: bool) -> None:
        """Have a file moved from where it was always."""
        self.tasks.append(_Task((name,), data, up))
        source, target = (self.client, self.server) if up else (self.server, self.client)
        source.put((name,), data)
        target.ledger.possible[name,] = [data]

    def add_grove(self, grove: Grove) -> None:
        """Have a tree moved from where it was always to where parts of it were, perhaps in an earlier version."""
        self.groves.append(grove)
        source, target = (self.client, self.server) if grove.up else (self.server, self.client)
        for name, data in grove.files.items():
            if (first := grove.further.get(name)) is not None:
                source.link(first, name)
                continue
            time = source.put(name, data)
            if (before := grove.before.get(name)) is not None:
                alike = grove.checksum and before != data and len(before) == len(data)
                target.put(name, before, time if alike else None)
        for name, data in (grove.extra | grove.spared).items():
            target.put(name, data)
        for name in grove.extra:
            del target.ledger.durable[name]
        for name, data in grove.files.items():
            target.ledger.possible.setdefault(name, []).append(data)

    def next_number(self) -> int:
        """One that nothing else has."""
        return next(self._numbers)

    def check_going(self, machine: Machine) -> None:
        """What is to be removed there is, unless the rest stands."""
        for grove in self.groves:
            if machine is (self.server if grove.up else self.client) and not machine.lost_power:
                grove.check_going(machine.device)

    @property
    def done(self) -> bool:
        """Whether all that is to be moved has been."""
        return all(task.done for task in (*self.tasks, *self.groves))

    def note(self, what: str) -> None:
        """Add to what the run is recognised by."""
        self.events += 1
        self._trace.update(f"{self.scheduler.now():.9f} {what}\n".encode())

    # ---- the network -----------------------------------------------------------------------------------------------

    async def dial(self, path: str) -> Transport:
        await trio.sleep(self.rng.random() * 0.01)
        if self._listening is None:
            raise ConnectFailed("nobody is there")
        weather = self.forecast.pop(0) if self.forecast else Weather()
        if self.troubled and self.rng.random() < self.mix.link:
            where, weather.back = int(2 ** self.rng.uniform(4, 18)), self.rng.random() < 0.5
            match self.rng.randrange(3):
                case 0:
                    weather.cut = where
                case 1:
                    weather.flip, weather.bit = where, self.rng.randrange(8)
                case 2:
                    weather.stall, weather.stall_seconds = where, self.rng.uniform(0.1, 120.0)
        link = Link(self.rng, weather, self.note)
        self.links.append(link)
        try:
            await self._listening.send(StreamTransport(link.far))
        except trio.BrokenResourceError:
            raise ConnectFailed("nobody is there any more") from None
        return StreamTransport(link.near)

    # ---- the server ------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Lives, one after the other."""
        while True:
            process = self.server.born()
            with self.server.scope, suppress(FsmuxError):
                await self._serve_once(process)
            self._listening = None
            self._check_closed(process)
            await trio.sleep(self.rng.random())

    async def _serve_once(self, process: SimSyscalls) -> None:
        server = _Server(ServerAuth({}), True, Durability.BATCH, self._observe)
        send, receive = trio.open_memory_channel[Any](0)

        async def answer(transport: Transport) -> None:
            with suppress(FsmuxError):
                async with open_connection(transport, Role.SERVER, hello(read_only=False)) as connection:
                    self._behind.append(connection)
                    await server._serve_streams(connection)

        with Root.open("", sys=process) as root:
            async with open_disk() as disk, trio.open_nursery() as nursery:
                server.root, server.roots, server.disk = root, {}, disk
                self._listening = send
                async with receive:
                    async for transport in receive:
                        nursery.start_soon(answer, transport)

    def _observe(self, event: object) -> None:
        if isinstance(event, RequestFailed):
            self.note(f"server {event.request} {event.code} {event.message}")
            if event.code == ErrorCode.INTERNAL.name:
                self.bugs.append(f"{event.request}: {event.message}")
        if isinstance(event, ChunkHealed):
            self.healed += 1

    # ---- the client ------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Tries, until every file stands."""
        while not self.done:
            self.tries += 1
            self.troubled = self.tries <= TROUBLED_TRIES
            if self.tries > MOST_TRIES:
                left = [task.name for task in self.tasks if not task.done]
                left += [(grove.top,) for grove in self.groves if not grove.done]
                raise Wrong(f"{left}: not moved in {MOST_TRIES} tries")
            process = self.client.born()
            with self.client.scope:
                try:
                    await self._try(process)
                except FsmuxError as error:
                    self._judge(error)
            self._check_closed(process)
            await trio.sleep(self.rng.random())

    async def _try(self, process: SimSyscalls) -> None:
        connections = self.rng.choice([1, 1, 2])
        options = Options(
            chunk_size=CHUNK, connections=connections, durability=self.rng.choice([Durability.BATCH, Durability.FILE]),
            verify=self.verify,
        )  # fmt: skip
        self._behind.clear()
        with ExitStack() as stack:
            root = stack.enter_context(Root.open("", sys=process))
            async with connect("fsmux+unix:///anywhere") as client:
                async with open_lanes(client, connections, self._observe) as lanes:
                    await lanes.dialled()
                    site = LocalSite(client, lanes, root)
                    async with trio.open_nursery() as nursery:
                        for task in self.tasks:
                            if not task.done:
                                nursery.start_soon(self._move, site, task, options)
                        for grove in self.groves:
                            if not grove.done:
                                nursery.start_soon(self._move_grove, grove, client, lanes, site, options)
                if not self.troubled and connections == 1 and client.connection.failure is None:
                    await check_clean(client.connection, *self._behind)

    async def _move(self, site: LocalSite, task: _Task, options: Options) -> None:
        target = self.server if task.up else self.client
        fresh = self.rng.random() < 0.3 and task.name not in files_of(target.device.root)
        name = task.name[-1].decode()
        life = target.process
        try:
            if task.up:
                outcome = await site.push(task.name, task.name, name, self._observe, options, fresh=fresh)
            else:
                outcome = await site.fetch(
                    task.name, task.name, name, self._observe, options, fresh=fresh, size=len(task.data)
                )
        except FsmuxError as error:
            self._judge(error)
            return
        self.note(f"{name} moved")
        if target.process is not life and not task.up:
            return  # this client is dead, and what it was told nobody knows
        if not outcome.durable:
            raise Wrong(f"{name}: not durable, although asked to be")
        task.done = True
        target.ledger.durable[task.name] = 0

    async def _move_grove(self, grove: Grove, client: Client, lanes: Lanes, site: LocalSite, options: Options) -> None:
        try:
            await move(self, grove, client, lanes, site, options)
        except FsmuxError as error:
            self._judge(error)

    def _judge(self, error: FsmuxError) -> None:
        self.note(f"client {type(error).__name__} {error}")
        if isinstance(error, InternalError):
            self.bugs.append(str(error))

    def _check_closed(self, process: SimSyscalls) -> None:
        if process.descriptors:
            raise Wrong(f"{len(process.descriptors)} descriptors are left")
        if self.bugs:
            raise Wrong(f"failed as a bug: {self.bugs}")

    # ---- the whole -------------------------------------------------------------------------------------------------

    async def run(self) -> Report:
        with trio.fail_after(MOST_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.serve)
                await self.work()
                self.troubled = False
                nursery.cancel_scope.cancel()
        if self.bugs:
            raise Wrong(f"failed as a bug: {self.bugs}")
        for machine in (self.server, self.client):
            check_names(machine.device.crash(Chooser(self.rng, 0.0, 0.0)), machine.ledger.after_power_cut())
        for up, target in ((True, self.server), (False, self.client)):
            found = files_of(target.device.root)
            expected = {task.name: task.data for task in self.tasks if task.up == up}
            for grove in self.groves:
                expected |= grove.files if grove.up == up else {}
                if grove.up != up or target.lost_power or self.failures:
                    continue  # what went may be back, and of a directory that cannot be read nothing goes
                if left := grove.extra.keys() & found.keys():
                    raise Wrong(f"{sorted(left)}: was not removed")
            for name, data in expected.items():
                if name not in found or found[name].shown != data:
                    raise Wrong(f"{name}: is not where it belongs")
        return Report(
            self.seed, self._trace.hexdigest(), self.scheduler.now(), self.events,
            self.died, self.healed, self.failures, self.tries, self.packed, self.linked, self.removed, self.holes,
        )  # fmt: skip

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """What reads a span for the wire without a process that says whose it is."""
        return self.processes[fd // FIRST_FD].preadv(fd, buffers, offset)


def episode(seed: int, prepare: Callable[[World], None] = World.draw_tasks) -> Report:
    """Everything that ``seed`` stands for, once."""

    async def main(scheduler: Scheduler) -> Report:
        world = World(scheduler, seed)
        prepare(world)
        with (
            patch("fsmux.client.dial_unix", world.dial),
            patch("os.preadv", world.preadv),
            patch("fsmux.sites.SPREAD_BYTES", SPREAD_BYTES),
            patch("fsmux.lanes.Backoff", lambda: Backoff(chance=world.rng.random)),
            patch("fsmux.moving.tree.SMALL_FILE", SMALL),
            patch("fsmux.moving.attempt.SMALL_FILE", SMALL),
            patch("fsmux.moving.pacing.MEDIUM_FILE", MEDIUM),
            patch("fsmux.moving.pacing.PACK_BYTES", PACK),
            patch("fsmux.moving.pacing.FIRST_NEAR", PACK),
            patch("fsmux.moving.pacing.LEAST_PACK", PACK // 2),
            patch("fsmux.moving.pacing.SMALL_FILE", SMALL),
            patch("fsmux.files.whole.WORTH_A_DIRECTORY", 2),
        ):
            return await world.run()

    report: Report = simulate(seed, main)
    return report


def episodes(first: int, wanted: int, retold: int = 1) -> Iterator[Report]:
    """So many episodes, one of each ``retold`` told twice.  Raises what went wrong, with a note of the seed."""
    for seed in range(first, first + wanted):
        try:
            report = episode(seed)
            if not seed % retold and episode(seed).trace != report.trace:
                raise Wrong("the same seed came to something else")
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        yield report
