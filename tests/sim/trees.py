"""Trees in a simulated world: moved as a whole, in packs, with their larger files beside them on the same connection.

Theory: what moves a tree is what ships, from the scan to the last directory; only the plan that finds out what the
sources are is left out, because it asks the real file system.  A tree is new to its target or finds earlier versions of
some files there, which only their bytes may tell from the new ones (``--checksum``).  Each file that the client is told
to be durable goes on record at once, so that whatever dies later is held to it.  Names that the target has alone go
(``--delete``) when all the rest stands and not before; what a filter protects, and what is outside, never does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from fsmux.events import (
    REMOVE,
    ChunkHealed,
    FileDone,
    FileFailed,
    FilesDone,
    FileSkipped,
    FilesLinked,
    FilesSkipped,
    NamesChanged,
)
from fsmux.moving.attempt import Item
from fsmux.moving.report import Report
from fsmux.moving.transfer import Transfer
from fsmux.plan.filters import Filters, Rule
from fsmux.records import printable
from fsmux.sites import LocalSite, RemoteSite
from fsmux.transfer.session import Run
from tests.sim.crash import Wrong, files_of
from tests.sim.device import LINK

if TYPE_CHECKING:
    import random

    from fsmux.client import Client
    from fsmux.events import Event
    from fsmux.job import Options
    from fsmux.lanes import Lanes
    from fsmux.records import Parts
    from tests.sim.device import Device
    from tests.sim.world import World

SMALL: Final = 16 * 1024
"""In place of the 256 KiB up to which files travel in packs."""

MEDIUM: Final = 24 * 1024
"""In place of the 2 MiB up to which they do where nothing stands in their place."""

PACK: Final = 32 * 1024
"""In place of the 1 MiB of a pack: a tree takes several."""

COUNTS: Final = (1, 1, 4, 4, 4, 4, 15, 15, 15, 15, 40, 200)
"""Files of a tree."""

SIZES: Final = (0, 1, 300, 300, 5_000, 15_000, 20_000, 30_000)
SPARE: Final = Filters([Rule(False, "spared")])
MANY: Final = 20
"""Files of a tree from which on all are tiny."""


@dataclass(slots=True)
class Grove:
    """A tree that is to be moved: contents by name, with ``top`` before them; those of links begin with ``LINK``."""

    top: bytes
    files: dict[Parts, bytes]
    up: bool
    before: dict[Parts, bytes] = field(default_factory=dict)
    """What stands at the target in the beginning."""
    further: dict[Parts, Parts] = field(default_factory=dict)
    """Files that are further names of others, by hard links."""
    checksum: bool = False
    """Whether bytes are compared; then some of what stood there has the size and time of the new one, too."""
    delete: bool = False
    extra: dict[Parts, bytes] = field(default_factory=dict)
    """What the target has alone, and is to be removed."""
    spared: dict[Parts, bytes] = field(default_factory=dict)
    """What it has alone and keeps."""
    done: bool = False

    @classmethod
    def drawn(cls, top: bytes, content: bytes, rng: random.Random) -> Grove:
        count = rng.choice(COUNTS)
        directories: list[Parts] = [(top,), (top, b"dir"), (top, b"dir", b"below"), (top, b"other")]
        files: dict[Parts, bytes] = {}
        before: dict[Parts, bytes] = {}
        checksum = rng.random() < 0.3
        for number in range(count):
            size = rng.randrange(100) if count > MANY else rng.choice(SIZES)
            start = rng.randrange(len(content) - size)
            name = (*rng.choice(directories), b"%03d" % number)
            data = files[name] = content[start : start + size]
            if rng.random() < (0.4 if checksum else 0.1):
                before[name] = rng.choice([data, data[:-1] + b"!"]) if checksum and data else content[:77]
        further: dict[Parts, Parts] = {}
        if rng.random() < 0.4:
            for number in range(rng.randint(1, 3)):
                name = (*rng.choice(directories), b"again %d" % number)
                further[name] = rng.choice([name for name in files if name not in further])
                files[name] = files[further[name]]
        if rng.random() < 0.5:
            files[*rng.choice(directories), b"link"] = LINK + b"nowhere"
        grove = cls(top, files, rng.random() < 0.5, before, further, checksum)
        if rng.random() < 0.5:
            grove.delete = True
            places = [*directories, (top, b"old"), (top, b"old", b"er")]
            for number in range(rng.randint(1, 4)):
                grove.extra[*rng.choice(places), b"extra %d" % number] = content[:99]
            grove.spared = {(top, b"spared"): content[:50], (top + b" beside",): content[:60]}
        return grove

    def check_going(self, target: Device) -> None:
        """Nothing goes before all the rest stands."""
        found = files_of(target.root)
        if not self.extra.keys() <= found.keys():
            for name, data in self.files.items():
                if name not in found or found[name].shown != data:
                    raise Wrong(f"{name}: does not stand yet, and something was removed already")


async def move(world: World, grove: Grove, client: Client, lanes: Lanes, site: LocalSite, options: Options) -> None:
    """One attempt at a tree; raises what ended it."""
    target = world.server if grove.up else world.client
    life = target.process
    names = {printable(name[1:]): name for name in grove.files}
    told: set[Parts] = set()

    def stands(name: Parts, durable: bool) -> None:
        if not durable:
            world.bugs.append(f"{printable(name)}: not durable, although asked to be")
        elif grove.up or target.process is life:  # what a client was told that has died meanwhile nobody knows
            target.ledger.durable[name] = len(target.ledger.possible[name]) - 1
        told.add(name)

    def observe(event: Event) -> None:
        match event:
            case FilesDone(directory, entries, _, _, durable):
                world.note(f"{len(entries)} files of {printable(grove.top)} moved")
                world.packed += len(entries)
                for name in entries:
                    stands((grove.top, *directory, name), durable)
            case FileDone(path=path, durable=durable):
                stands(names[path], durable)
            case FilesSkipped(directory, entries):
                told.update((grove.top, *directory, name) for name in entries)
            case FilesLinked(directory, entries):
                world.linked += len(entries)
                for name in entries:
                    stands((grove.top, *directory, name), True)
            case NamesChanged(action, directory, entries):
                world.removed += len(entries) if action == REMOVE else 0
                told.update((grove.top, *directory, name) for name in entries)  # whose bytes were found equal
            case FileSkipped(path=path):
                told.add(names[path])
            case FileFailed(path, code, message):
                world.note(f"{path}: {code}: {message}")
                if code == "INTERNAL":
                    world.bugs.append(f"{path}: {message}")
            case ChunkHealed():
                world.healed += 1

    options = replace(options, checksum=grove.checksum, delete=grove.delete, filters=SPARE)
    transfer = Transfer(client, options, report := Report(observe), Run())
    transfer._attempt.lanes = lanes
    remote, parts = RemoteSite(client), (grove.top,)
    source, goal = (site, remote) if grove.up else (remote, site)
    top = await source.stat(parts)
    item = Item(source, parts, goal, parts, top, printable(grove.top), report.account(0), parts, 0, parts, False)
    await transfer._move([item])
    if report.failed or (target.process is not life and not grove.up):
        return
    regular = {name for name, data in grove.files.items() if not data.startswith(LINK)}
    if missing := regular - told:
        world.bugs.append(f"nothing was said of {sorted(missing)}")
    # What an attempt that failed has left to stand is up to date, though nobody has called it durable.
    ledger = target.ledger
    grove.done = not world.troubled or all(
        name in ledger.durable and ledger.possible[name][ledger.durable[name]] == grove.files[name] for name in regular
    )
