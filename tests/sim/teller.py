"""Who tells a story: one simulated disk, and processes on it one after the other.

Each of their system calls is explored (see :mod:`tests.sim.crash`).
"""

from __future__ import annotations

import random
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import StorageError
from fsmux.files.root import Root
from fsmux.records import Durability
from tests.sim.choices import Chooser
from tests.sim.crash import ATTEMPTS, CHUNK, RESERVED, Explorer, Ledger, Wrong, fill, reuse, start, write
from tests.sim.device import BLOCK, Device
from tests.sim.packs import unpack
from tests.sim.syscalls import SimSyscalls, no_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from fsmux.files.sink import Sink
    from fsmux.records import Extent, Parts
    from tests.sim.packs import Tree

NAME: Final = (b"file",)
DEEP: Final = (b"new", b"dir", b"file")
FIRST: Final = random.Random(1).randbytes(3 * CHUNK + 777)
SECOND: Final = FIRST[:CHUNK] + random.Random(2).randbytes(CHUNK) + FIRST[2 * CHUNK :] + b"and more"
SHORTER: Final = FIRST[: CHUNK + 99]
HOLED: Final = FIRST[:CHUNK] + bytes(CHUNK + BLOCK) + FIRST[CHUNK : CHUNK + BLOCK] + bytes(2 * BLOCK + 777)
SMALL: Final = random.Random(3).randbytes(4000)
OTHER_SMALL: Final = random.Random(4).randbytes(5000)
VERSIONS: Final = (FIRST, SECOND, SHORTER, HOLED, SMALL, OTHER_SMALL, b"")


class Teller:
    """One disk and whatever happens on it."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.device = Device()
        self.ledger = Ledger()
        self.fault: Callable[[str], int] = no_fault
        self.processes: list[SimSyscalls] = []
        self.looks = 1
        """One system call in so many is looked at."""

    def look(self) -> None:
        self.explorer.look(self.device, self.ledger)

    @contextmanager
    def process(self) -> Iterator[Root]:
        """A process that has the root open; every call of it is explored. It may fail, but leaves nothing open."""
        try:
            with self._process() as root:
                yield root
        finally:
            if self.processes[-1].descriptors:
                raise Wrong(f"{len(self.processes[-1].descriptors)} descriptors are left")

    @contextmanager
    def _process(self) -> Iterator[Root]:
        device = self.device
        process = SimSyscalls(device, len(self.processes), fault=self.fault)
        self.processes.append(process)

        def watch(call: str) -> None:
            if device is self.device and (call == "syncfs" or not process.calls % self.looks):
                self.look()

        process.watch = watch
        with Root.open("", sys=process) as root:
            yield root
        if device is self.device:
            self.look()

    def begin(
        self, root: Root, name: Parts, data: bytes, durability: Durability = Durability.BATCH, *, resume: bool = True
    ) -> Sink:
        sink = start(root, name, data, durability, resume=resume)
        former = self.ledger.unfinished.get(name, data)
        if former != data:
            self.ledger.former.setdefault(name, []).append(former)
        self.ledger.unfinished[name] = data
        return sink

    def commit(self, sink: Sink, data: bytes) -> None:
        self.ledger.committing(sink.parts, data, sink.durability)
        self.ledger.committed(sink.parts, sink.commit())

    def receive(
        self,
        name: Parts,
        data: bytes,
        durability: Durability = Durability.BATCH,
        *,
        chunks: Iterable[int] | None = None,
        begun: Iterable[Extent] = (),
        checkpoint: bool = False,
        resume: bool = True,
        end: str = "commit",
    ) -> None:
        """A session of a process of its own, which ends in one of several ways; ``kill`` is the worst.

        These chunks come whole, then these ranges of others.
        """
        with self.process() as root:
            sink = self.begin(root, name, data, durability, resume=resume)
            try:
                kept = reuse(sink, data)
                fill(sink, data, chunks, kept)
                for extent in begun:
                    if not sink.manifest.holds(extent.offset // CHUNK):
                        for gap in kept.gaps(extent):
                            write(sink, data, gap, kept)
                if checkpoint:
                    sink.checkpoint()
                    fill(sink, data, kept=kept)
                if end == "commit":
                    fill(sink, data, kept=kept)
                    self.commit(sink, data)
                elif end == "kill":
                    sink.flush_records()
                    self.look()
                    self.device = self.device.fork()
                elif end == "discard":
                    sink.discard()
                elif end == "suspend":
                    sink.suspend()
            finally:
                sink.close()

    def unpack(
        self,
        tree: Tree,
        durability: Durability = Durability.BATCH,
        *,
        together: int = 1,
        filled: Callable[[], None] = lambda: None,
        standing: bool = False,
        doomed: Collection[Parts] = (),
    ) -> None:
        """A process of its own receives a tree in packs; raises the first thing that failed."""
        self.ledger.trees, self.ledger.doomed = dict(tree), frozenset(doomed)
        with self.process() as root:
            failures = unpack(
                root, self.ledger, tree, durability, together=together, filled=filled,
                standing=standing, doomed=doomed,
            )  # fmt: skip
        if failures:
            raise failures[0].error
        self.ledger.trees, self.ledger.doomed = {}, frozenset()

    def receive_at_last(self, name: Parts, data: bytes) -> None:
        """As often as it takes, when writes were lost."""
        for _ in range(ATTEMPTS):
            with suppress(StorageError):
                self.receive(name, data)
                return
        raise Wrong(f"{name}: still not received")

    def power_cut(self, rng: random.Random) -> None:
        """Go on with what one power cut leaves."""
        data, names = rng.choice([(0.0, 0.0), (0.5, 0.5), (0.1, 0.9), (0.9, 0.1), (1.0, 1.0)])
        self.device = self.device.crash(Chooser(rng, data, names))
        self.ledger = self.ledger.after_power_cut()

    def tamper(self) -> None:
        """Somebody else writes to whatever is unfinished."""
        state = self.device.root.entries.get(RESERVED)
        for name, inode in state.entries.items() if state is not None else ():
            if name.endswith(b".part"):
                self.device.write(inode, b"not from us", 5)
                self.device.sync(inode, whole=True)

    def lose_writes(self, *, told: bool) -> None:
        """The device refuses what is dirty; ``told``: some other program's sync gets to hear of it."""
        for inode in list(self.device.numbers.values()):
            if inode.is_file and inode.pending:
                self.device.fail_writeback(inode)
                if told:
                    inode.reported = inode.failures
                    self.device.reported = self.device.failures
