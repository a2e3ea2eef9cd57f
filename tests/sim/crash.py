"""Power cuts and kills at every system call of a receiver, and what must hold after each of them.

Theory.  A *story* is a row of sessions that receive files, and of trees that come in packs, on one simulated disk.
Before every system call, and at the end, an :class:`Explorer` takes the disk as a ``kill -9`` would leave it and as
some power cuts would (all of them if there are few), and checks each such state:

* a final name shows the whole of a version that was complete before it was committed, or of one that stood before;
* what was committed as durable is there, or a later version is; unless it was to be removed, and then it stays away;
* a session that goes on claims to hold only chunks whose bytes are on the *device*, whatever the cache says;
* it can be finished, is durable then, and leaves nothing behind; and so can a tree.

A few of the recoveries are explored in the same way, because power may fail again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import xxhash
from zlib_ng.zlib_ng import crc32

from fsmux.errors import StorageError
from fsmux.files import leftovers
from fsmux.files.holes import zeros_crc
from fsmux.files.leftovers import ABANDONED_SECONDS
from fsmux.files.opening import open_sink
from fsmux.files.root import Root
from fsmux.files.state import GUARD, TEMPORARY
from fsmux.limits import MIN_HOLE
from fsmux.records import Durability, Extent, Identity
from fsmux.transfer.assembly import Assembly
from fsmux.transfer.ranges import subtract
from tests.sim.choices import Chooser, choosers
from tests.sim.device import BLOCK, is_zero
from tests.sim.packs import unpack
from tests.sim.syscalls import SimSyscalls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsmux.files.sink import Sink
    from fsmux.records import Parts
    from tests.sim.device import Device, Inode

CHUNK: Final = 64 * 1024
RESERVED: Final = b".fsmux"
ATTEMPTS: Final = 3
"""Sessions after which a file must stand, if writes were lost before them."""

AGAIN: Final = 40
"""One recovery in so many is explored, too."""

FEW: Final = 20
"""Files of a tree whose recovery is explored."""

PACKED_AGAIN: Final = 6
"""In one state of so many the trees are received once more."""


class Wrong(AssertionError):
    """A promise that was broken."""


@dataclass
class Ledger:
    """What clients know of the files on one disk."""

    possible: dict[Parts, list[bytes]] = field(default_factory=dict)
    """Versions that may stand under a name, the latest last."""
    durable: dict[Parts, int] = field(default_factory=dict)
    """By name the first of them that may stand there, since it was committed as durable."""
    loose: set[Parts] = field(default_factory=set)
    """Names whose last commit said that it is not durable; a power cut may leave anything there."""
    torn: set[Parts] = field(default_factory=set)
    """Those of them that a power cut has met."""
    unfinished: dict[Parts, bytes] = field(default_factory=dict)
    """Versions that are being received."""
    former: dict[Parts, list[bytes]] = field(default_factory=dict)
    """Versions that were begun before those; a client may come back to one."""
    trees: dict[Parts, bytes] = field(default_factory=dict)
    """What is being received in packs."""
    doomed: frozenset[Parts] = frozenset()
    """Names that are removed behind it, directories with all that is in them; nothing else may ever be gone."""
    gone: set[Parts] = field(default_factory=set)
    """What was removed durably."""

    def copy(self) -> Ledger:
        return Ledger(
            {name: versions.copy() for name, versions in self.possible.items()},
            self.durable.copy(),
            self.loose.copy(),
            self.torn.copy(),
            self.unfinished.copy(),
            self.former,
            self.trees.copy(),
            self.doomed,
            self.gone.copy(),
        )

    def after_power_cut(self) -> Ledger:
        found = self.copy()
        found.torn |= found.loose
        return found

    def committing(self, name: Parts, data: bytes, durability: Durability) -> None:
        self.possible.setdefault(name, []).append(data)
        self.gone.discard(name)
        if durability == Durability.NONE:
            self.loose.add(name)

    def committed(self, name: Parts, durable: bool) -> None:
        self.unfinished.pop(name, None)
        if durable:
            self.durable[name] = len(self.possible[name]) - 1
            self.loose.discard(name)
            self.torn.discard(name)

    def removing(self, name: Parts) -> set[Parts]:
        """From now on it need not be there, nor what is in it; all that."""
        found = {one for one in self.possible if one[: len(name)] == name}
        for one in found:
            self.durable.pop(one, None)
        return found

    def removed(self, names: Iterable[Parts]) -> None:
        """They must stay away until they come anew."""
        self.gone.update(names)


def identity(data: bytes) -> Identity:
    return Identity(len(data), 1_600_000_000_123_456_789, xxhash.xxh3_128_digest(data))


def start(root: Root, name: Parts, data: bytes, durability: Durability, *, resume: bool = True) -> Sink:
    holes = sum(extent.length for extent in zeros_in(data, Extent(0, len(data))))
    return open_sink(
        root, name, identity(data), 0o640, CHUNK, owner=b"me", resume=resume, durability=durability, holes=holes
    )


def zeros_in(data: bytes, extent: Extent) -> list[Extent]:
    """Which blocks of it are holes, as the conversation would say."""
    blocks = [Extent(at, min(BLOCK, extent.end - at)) for at in range(extent.offset, extent.end, BLOCK)]
    return [block for block in blocks if block.length >= MIN_HOLE and is_zero(data, block.offset, block.end)]


def reuse(sink: Sink, data: bytes) -> Assembly:
    """What the conversation does with what is there unvouched: take the ranges that are equal."""
    whole = []
    for known in sink.basis_digests():
        extent = Extent(known.offset, known.length)
        if xxhash.xxh3_128_digest(data[extent.offset : extent.end]) == known.digest:
            whole.append(extent)
    kept = Assembly(sink.manifest.map)
    for extent in whole:
        kept.add(*extent, sink.copy_from_basis(extent))
        verdict = kept.trust(extent.offset // CHUNK)
        if verdict is not None:
            sink.received(verdict.index, verdict.found)
    return kept


def fill(sink: Sink, data: bytes, chunks: Iterable[int] | None = None, kept: Assembly | None = None) -> None:
    """Write and record what is missing (of the chunks that are named); of a chunk under way what was not ``kept``."""
    kept = kept or Assembly(sink.manifest.map)
    for index in range(sink.manifest.map.count) if chunks is None else chunks:
        if not sink.manifest.holds(index):
            extent = sink.manifest.map.extent(index)
            crc = crc32(data[extent.offset : extent.end])
            if kept.expect(index, crc) is None:
                for gap in kept.gaps(extent):
                    write(sink, data, gap, kept)
            sink.received(index, crc)


def write(sink: Sink, data: bytes, extent: Extent, kept: Assembly) -> None:
    """Write a range of one chunk, its holes as holes, and see that what it comes to is right."""
    holes = zeros_in(data, extent)
    if holes:
        sink.clear(holes)
        for hole in holes:
            kept.add(*hole, zeros_crc(hole.length))
    for gap in subtract([extent], holes):
        verdict = kept.add(*gap, sink.write((memoryview(data)[gap.offset : gap.end],), gap.offset))
        if verdict is not None and not verdict.right:
            raise Wrong(f"{sink.name}: chunk {verdict.index} was put together of what does not belong together")


def files_of(top: Inode) -> dict[Parts, Inode]:
    """Everything visible that is not a directory with something in it, by name."""
    found: dict[Parts, Inode] = {}
    todo: list[tuple[Parts, Inode]] = [((), top)]
    while todo:
        parts, directory = todo.pop()
        for name, inode in directory.entries.items():
            if inode.is_directory:
                if name == RESERVED:
                    continue
                todo.append(((*parts, name), inode))
                if not inode.entries:
                    found[*parts, name] = inode
            else:
                found[*parts, name] = inode
    return found


class Explorer:
    """Looks at what crashes leave, and counts."""

    def __init__(self, seed: int, samples: int) -> None:
        self.rng = random.Random(seed)
        self.samples = samples
        self.crashes = 0
        self.kills = 0
        self.wrong = False
        """Whether something was found; then the rest of the story is not looked at."""
        self._looked = (0, 0)

    @property
    def states(self) -> int:
        return self.crashes + self.kills

    def look(self, device: Device, ledger: Ledger, *, samples: int | None = None, again: bool = True) -> None:
        """Check what a kill and some power cuts would leave now, unless nothing changed since the last look."""
        moment = (id(device), device.now_ns)
        if moment == self._looked or self.wrong:
            return
        self._looked = moment
        try:
            self.kills += 1
            self.check(device.fork(), ledger, again=again)
            for chooser in choosers(device.unsynced(), self.samples if samples is None else samples, self.rng):
                self.crashes += 1
                self.check(device.crash(chooser), ledger.after_power_cut(), again=again)
        except BaseException:
            self.wrong = True
            raise

    def check(self, device: Device, ledger: Ledger, *, again: bool = False) -> None:
        check_names(device, ledger)
        ledger = ledger.copy()
        for name, latest in list(ledger.unfinished.items()):
            data = self.rng.choice([latest, latest, *ledger.former.get(name, ())])
            self._recover(device, ledger, name, data, explore=again and not self.rng.randrange(AGAIN))
        if ledger.trees and not self.rng.randrange(PACKED_AGAIN):
            few = len(ledger.trees) <= FEW
            self._recover_trees(device, ledger, explore=again and few and not self.rng.randrange(AGAIN))

    def _recover_trees(self, device: Device, ledger: Ledger, *, explore: bool) -> None:
        process = SimSyscalls(device, self.rng.getrandbits(32))
        if explore:
            process.watch = lambda call: self.look(device, ledger, samples=2, again=False)
        with Root.open("", sys=process) as root:
            for _ in range(ATTEMPTS):
                together = self.rng.choice([1, 9])
                failures = unpack(root, ledger, ledger.trees, Durability.BATCH, together=together, doomed=ledger.doomed)
                if not failures:
                    break
            if failures:
                raise Wrong(f"a tree cannot be received: {failures[0].error}")
            leftovers.sweep_top(root)
            state = device.root.entries.get(RESERVED)
            if state is not None and any(name.endswith((TEMPORARY, GUARD)) for name in state.entries):
                raise Wrong(f"of use to nobody: {sorted(state.entries)}")
            if not ledger.unfinished:
                device.now_ns += round(2 * ABANDONED_SECONDS * 1e9)
                with root.keep_state():
                    pass
                if RESERVED in device.root.entries:
                    raise Wrong(f"left over: {sorted(device.root.entries[RESERVED].entries)}")
        if process.descriptors:
            raise Wrong(f"{len(process.descriptors)} descriptors are left of a tree")
        check_names(device.crash(Chooser(self.rng, 0.0, 0.0)), ledger.after_power_cut())

    def _recover(self, device: Device, ledger: Ledger, name: Parts, data: bytes, *, explore: bool) -> None:
        process = SimSyscalls(device, self.rng.getrandbits(32))
        if explore:
            process.watch = lambda call: self.look(device, ledger, samples=2, again=False)
        with Root.open("", sys=process) as root:
            for attempt in range(ATTEMPTS):
                try:
                    self._finish(process, root, ledger, name, data)
                    break
                except StorageError:  # lost writes come to light one after the other: of the part, of the journal
                    if attempt == ATTEMPTS - 1:
                        raise
        if process.descriptors:
            raise Wrong(f"{name}: {len(process.descriptors)} descriptors are left")
        check_names(device.crash(Chooser(self.rng, 0.0, 0.0)), ledger.after_power_cut())

    def _finish(self, process: SimSyscalls, root: Root, ledger: Ledger, name: Parts, data: bytes) -> None:
        with start(root, name, data, Durability.BATCH) as sink:
            place, part_name = sink.place, sink.place.part_name
            check_held(sink, process, data)
            kept = reuse(sink, data)
            check_held(sink, process, data, synced=False)
            fill(sink, data, kept=kept)
            ledger.committing(name, data, Durability.BATCH)
            if not sink.commit():
                raise Wrong(f"{name}: not durable, although asked to be")
            ledger.committed(name, True)
        state = process.device.root.entries.get(RESERVED)
        left = state.entries.keys() & {place.journal_name, part_name} if state is not None else ()
        if left:
            raise Wrong(f"{name}: left over: {sorted(left)}")


def check_names(device: Device, ledger: Ledger) -> None:
    found = files_of(device.root)
    if back := ledger.gone & found.keys() - ledger.torn:
        raise Wrong(f"{sorted(back)}: was removed durably and is back")
    for name, inode in found.items():
        if name in ledger.torn or (inode.is_directory and name not in ledger.possible):
            continue
        versions = ledger.possible.get(name, [])
        shown = inode.shown
        if not any(shown == data for data in versions[ledger.durable.get(name, 0) :]):
            stale = any(shown == data for data in versions)
            raise Wrong(f"{name}: {'a version that was replaced durably' if stale else 'not a whole version'}")
    for name in ledger.durable:
        if name not in found and name not in ledger.torn:
            raise Wrong(f"{name}: was committed as durable and is gone")


def check_held(sink: Sink, process: SimSyscalls, data: bytes, *, synced: bool = True) -> None:
    """What a session says that it holds is on the device; or in the cache, for what was not there before it."""
    with sink.place.part.hold() as fd:
        inode = process._file(fd).inode
        content = inode.stable if synced else inode.data
    for index in sink.manifest.indices():
        extent = sink.manifest.map.extent(index)
        if content[extent.offset : extent.end] != data[extent.offset : extent.end]:
            raise Wrong(f"{sink.name}: chunk {index} is held, and is not on the device")
