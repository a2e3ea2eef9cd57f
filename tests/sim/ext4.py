"""A real ext4 that loses power after every write it makes, and what must be found on it then.

Theory: an ext4 lies on a loop device on a file that logs what is written to it (:mod:`tests.sim.blocklog`).  Files and
trees are received there by the code that ships, with real system calls; whatever is acknowledged is noted with the
length of the log at that moment.  Afterwards the image is put together again up to each entry of the log, in order, and
mounted, as after a power cut at that moment.  Disks may also write in another order between two flushes: some states
have only some of the writes since the last one.  What must hold is what :mod:`tests.sim.crash` asks for.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fsmux.files.root import Root
from fsmux.records import Durability, Extent
from fsmux.transfer.assembly import Assembly
from tests.sim.blocklog import Written, read_log
from tests.sim.crash import CHUNK, RESERVED, Ledger, Wrong, fill, reuse, start, write
from tests.sim.device import FOLDER, LINK
from tests.sim.packs import GOING, HUNDREDS, OTHER_TREE, TREE, unpack
from tests.sim.teller import DEEP, FIRST, HOLED, NAME, SECOND, SHORTER, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fsmux.files.sink import Sink
    from fsmux.records import Parts

IMAGE_BYTES: Final = 24 * 1024 * 1024
MKFS: Final = ("mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0")
SECONDS: Final = 60.0
"""Longest that mounting or unmounting may take."""

MAY_GO: Final = -1
"""In place of a version: the name may be there or not."""

GONE: Final = -2
"""The same: it was removed for good."""

REORDERED: Final = 3
"""One moment in so many is looked at with some of the writes since the last flush missing, too."""


def missing() -> str:
    """What is not there that the rig needs; empty if all is."""
    if os.geteuid() != 0:
        return "only root may mount"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            return f"there is no {device}"
    for tool in ("mkfs.ext4", "losetup", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not any(line.split()[-1] == "ext4" for line in Path("/proc/filesystems").read_text().splitlines()):
        return "the kernel has no ext4"
    return ""


@dataclass
class Noting(Ledger):
    """A ledger that knows when each thing was promised, by the length of the log."""

    log: Path = Path()
    promises: list[tuple[int, Parts, int]] = field(default_factory=list)
    """When, which name, and the first version that may stand there from then on; or one of those below."""

    def committed(self, name: Parts, durable: bool) -> None:
        super().committed(name, durable)
        if durable:
            self._promise(name, self.durable[name])

    def committing(self, name: Parts, data: bytes, durability: Durability) -> None:
        if name in self.gone:
            self._promise(name, MAY_GO)
        super().committing(name, data, durability)

    def removing(self, name: Parts) -> set[Parts]:
        found = super().removing(name)
        for one in found:
            self._promise(one, MAY_GO)
        return found

    def removed(self, names: Iterable[Parts]) -> None:
        names = set(names)
        super().removed(names)
        for name in names:
            self._promise(name, GONE)

    def _promise(self, name: Parts, version: int) -> None:
        self.promises.append((self.log.stat().st_size, name, version))


def _run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=SECONDS).stdout.strip()


@contextmanager
def _mounted(device: str | Path, where: Path, *options: str) -> Iterator[None]:
    _run("mount", *options, device, where)
    try:
        yield
    finally:
        _run("umount", where)


@contextmanager
def logged(place: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 whose writes are logged, mounted for the block: where, and its log."""
    image, file, log, where = (place / name for name in ("image", "file", "log", "mounted"))
    file.touch()
    where.mkdir()
    words = (sys.executable, "-m", "tests.sim.blocklog", image, file, log)
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != b"ready\n":
                raise OSError("the log of blocks did not start")
            try:
                device = _run("losetup", "--find", "--show", file)
                try:
                    with _mounted(device, where):
                        yield where, log
                finally:
                    _run("losetup", "--detach", device)
            finally:
                _run("umount", file)
            server.wait(SECONDS)
        finally:
            server.kill()


def _session(root: Root, ledger: Ledger, name: Parts, data: bytes, durability: Durability, chunks: int) -> None:
    """Receive a file, with a checkpoint after some chunks."""
    with start(root, name, data, durability) as sink:
        ledger.unfinished[name] = data
        kept = reuse(sink, data)
        fill(sink, data, range(chunks), kept)
        sink.checkpoint()
        fill(sink, data, kept=kept)
        ledger.committing(name, data, durability)
        ledger.committed(name, sink.commit())


def receive(root: Root, ledger: Ledger) -> None:
    """What is done while the log runs."""
    _session(root, ledger, NAME, FIRST, Durability.BATCH, 2)
    unpack(root, ledger, TREE, Durability.BATCH, together=9)
    _session(root, ledger, DEEP, SMALL, Durability.FILE, 0)
    _session(root, ledger, NAME, SECOND, Durability.BATCH, 1)
    unpack(root, ledger, OTHER_TREE, Durability.BATCH, doomed=GOING)
    unpack(root, ledger, TREE, Durability.FILE, doomed=[(b"new", b"four")])
    _session(root, ledger, NAME, HOLED, Durability.BATCH, 1)
    with start(root, (b"part",), FIRST, Durability.BATCH) as sink:
        ledger.unfinished[b"part",] = FIRST
        fill(sink, FIRST, [0, 2])
        sink.checkpoint()
        fill(sink, FIRST, [1])
        write(sink, FIRST, Extent(3 * CHUNK, 700), Assembly(sink.manifest.map))
        sink.suspend()
    unpack(root, ledger, HUNDREDS, Durability.BATCH, together=2)
    _session(root, ledger, (b"part",), FIRST, Durability.BATCH, 0)
    _session(root, ledger, NAME, SHORTER, Durability.BATCH, 1)


def states(before: Path, log: list[Written], rng: random.Random, every: int) -> Iterator[tuple[Path, int, str]]:
    """The image after every so many entries of the log, when that was, and what it is; good until the next."""
    image = before.with_name("now")
    shutil.copyfile(before, image)
    flushed = 0
    for number, entry in enumerate(log):
        if entry.flush:
            flushed = number
        else:
            _apply(image, [entry])
        if number % every:
            continue
        copy = before.with_name("copy")
        shutil.copyfile(image, copy)
        yield copy, entry.end, f"entry {number}"
        if not rng.randrange(REORDERED) and number > flushed + 1:
            some = {one for one in range(flushed, number + 1) if rng.random() < 0.5}
            shutil.copyfile(before, copy)
            _apply(copy, [one for at, one in enumerate(log[: number + 1]) if at < flushed or at in some])
            yield copy, log[flushed].end, f"entry {number}, of those from {flushed} on {sorted(some)}"


def _apply(image: Path, entries: list[Written]) -> None:
    with image.open("r+b", buffering=0) as file:
        for entry in entries:
            if not entry.flush:
                os.pwrite(file.fileno(), entry.data, entry.offset)


def check(top: Path, ledger: Noting, moment: int) -> None:
    """Everything that was promised until ``moment`` is there, and nothing partial."""
    found = {name: _shown(path) for name, path in _files(top) if name in ledger.possible or not path.is_dir()}
    promised: dict[Parts, int] = {}
    for when, name, version in ledger.promises:
        if when <= moment:
            promised[name] = version
    for name, data in found.items():
        first = promised.get(name, 0)
        if data not in ledger.possible.get(name, [])[max(first, 0) :]:
            raise Wrong(f"{name}: not a whole version, or one that was replaced durably")
        if first == GONE:
            raise Wrong(f"{name}: was removed durably and is back")
    for name in promised.keys() - found.keys():
        if promised[name] >= 0:
            raise Wrong(f"{name}: was committed as durable and is gone")


def _shown(path: Path) -> bytes:
    if path.is_symlink():
        return LINK + os.fsencode(os.readlink(path))
    return FOLDER if path.is_dir() else path.read_bytes()


def _files(top: Path) -> Iterator[tuple[Parts, Path]]:
    for directory, directories, names in os.walk(top):
        with suppress(ValueError):
            directories.remove(RESERVED.decode())
        for name in names + directories:
            path = Path(directory, name)
            yield tuple(os.fsencode(path.relative_to(top)).split(b"/")), path


def go_on(top: Path, ledger: Noting, rng: random.Random) -> None:
    """A session goes on with what is there, claims nothing that is not, and can be finished."""
    name, data = rng.choice([(NAME, FIRST), (NAME, SECOND), (NAME, HOLED), ((b"part",), FIRST)])
    with Root.open(top) as root, start(root, name, data, Durability.BATCH) as sink:
        _check_held(sink, data)
        fill(sink, data)
        ledger.committing(name, data, Durability.BATCH)
        if not sink.commit() or top.joinpath(os.fsdecode(name[0])).read_bytes() != data:
            raise Wrong(f"{name}: cannot be finished")


def _check_held(sink: Sink, data: bytes) -> None:
    with sink.place.part.hold() as fd:
        for index in sink.manifest.indices():
            extent = sink.manifest.map.extent(index)
            if os.pread(fd, extent.length, extent.offset) != data[extent.offset : extent.end]:
                raise Wrong(f"{sink.name}: chunk {index} is held, and is not on the device")


def power_cuts(
    place: Path, seed: int = 1, every: int = 1, tell: Callable[[int], None] = lambda count: None
) -> tuple[int, int]:
    """Look at the disk after every so many entries of its log; how many states that were, and the entries of the log.

    Raises :class:`Wrong` with a note of which it was.
    """
    before, again = place / "before", place / "again"
    again.mkdir()
    with before.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run(*MKFS, before)
    shutil.copyfile(before, place / "image")
    with logged(place) as (where, path):
        ledger = Noting(log=path)
        with Root.open(where) as root:
            receive(root, ledger)
    log = list(read_log(path))
    rng = random.Random(seed)
    count = 0
    for image, moment, what in states(before, log, rng, every):
        try:
            with _mounted(image, again, "-o", "loop"):
                check(again, ledger, moment)
                go_on(again, Noting(possible={name: found.copy() for name, found in ledger.possible.items()}), rng)
        except Exception as error:
            error.add_note(f"after {what} of {len(log)}, seed {seed}")
            raise
        count += 1
        if not count % 100:
            tell(count)
    return count, len(log)
