"""Files read in bulk for their digests, by as many threads as there are: many small ones at a time, big ones in runs.

Theory: a thread is worth asking for some tens of MiB, or for some hundreds of small files; both are a :class:`Task`.
What a run of a big file came to is a :class:`Portion`, and portions of one version of a file make the file.  A chunk
that the device will not give is a chunk without a digest, not the end of the file: the others are still worth knowing.
Blocking; ``poll`` is called between pieces and may raise.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from fsmux.errors import FsmuxError, SourceChanged
from fsmux.files import ranges
from fsmux.files.chunks import ChunkMap, combine_all
from fsmux.files.digestfile import Record, make_record
from fsmux.files.naming import named
from fsmux.limits import MIB
from fsmux.records import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from fsmux.files.ranges import Poll
    from fsmux.files.root import Root
    from fsmux.records import Parts

RUN_BYTES: Final = 64 * MIB
"""Bytes that one thread reads at a time: some 10 ms, beside which a hop to it does not show."""

BATCH_FILES: Final = 500
"""Small files that one thread reads at a time: about 10 ms, too."""


class Wanted(NamedTuple):
    """A file to be read, as chunks of ``map``."""

    parts: Parts
    map: ChunkMap


class Task(NamedTuple):
    """What one thread does at a time: whole files, or the chunks ``first`` to before ``stop`` of one file."""

    files: Sequence[Wanted]
    first: int = 0
    stop: int | None = None

    @property
    def bytes(self) -> int:
        if self.stop is not None:
            return self.files[0].map.run(self.first, self.stop).length
        return sum(wanted.map.size for wanted in self.files)


class Version(NamedTuple):
    """What ``fstat`` said of a file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Portion(Struct):
    """What some chunks of a file came to: CRC-32 and XXH3-128, or None for one that cannot be read whole."""

    version: Version
    chunks: list[tuple[int, bytes] | None]


def tasks(files: Iterable[Wanted], *, cut: bool = True) -> Iterator[Task]:
    """Files as tasks, in their order; big ones are several, if they may be cut."""
    batch: list[Wanted] = []
    size = 0
    for wanted in files:
        chunks = wanted.map
        if cut and chunks.size > RUN_BYTES:
            if batch:
                yield Task(batch)
                batch, size = [], 0
            step = max(RUN_BYTES // chunks.chunk_size, 1)
            for first in range(0, chunks.count, step):
                yield Task([wanted], first, min(first + step, chunks.count))
            continue
        batch.append(wanted)
        size += chunks.size
        if size >= RUN_BYTES or len(batch) >= BATCH_FILES:
            yield Task(batch)
            batch, size = [], 0
    if batch:
        yield Task(batch)


def read(root: Root, task: Task, *, from_device: bool, poll: Poll | None = None) -> list[Portion | FsmuxError]:
    """What each file of a task came to, or why it could not be opened.

    ``from_device``: what the page cache holds of a file is dropped first, if it is clean: a disk that has forgotten
    its bytes must not be vouched for by memory that has not.
    """
    found: list[Portion | FsmuxError] = []
    for wanted in task.files:
        try:
            found.append(_read_portion(root, wanted, task, from_device, poll))
        except FsmuxError as error:
            found.append(error)
    return found


def _read_portion(root: Root, wanted: Wanted, task: Task, from_device: bool, poll: Poll | None) -> Portion:
    lease, before = root.open_regular(wanted.parts, links=False)
    sys, chunks = root.sys, wanted.map
    try:
        with named(wanted.parts), lease as fd:
            if from_device and not task.first:
                sys.drop_cache(fd)
            portion = Portion(_version(before), [])
            for index in range(task.first, chunks.count if task.stop is None else task.stop):
                known = None
                with suppress(ranges.ShortFile, OSError):
                    known = ranges.crc32_and_digest(sys, fd, *chunks.extent(index), poll)
                portion.chunks.append(known)
            if _version(sys.fstat(fd)) != portion.version:
                raise SourceChanged(f"{printable(wanted.parts)}: it changed while it was being read")
    finally:
        lease.close()
    return portion


def _version(facts: os.stat_result) -> Version:
    return Version(facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


def joined(parts: Parts, portions: Sequence[Portion | FsmuxError]) -> Portion:
    """The portions of a whole file as one.  Raises the error that one of them is, or that they do not fit together."""
    version: Version | None = None
    chunks: list[tuple[int, bytes] | None] = []
    for portion in portions:
        if isinstance(portion, FsmuxError):
            raise portion
        if version not in (None, portion.version):
            raise SourceChanged(f"{printable(parts)}: it changed while it was being read")
        version = portion.version
        chunks += portion.chunks
    assert version is not None
    return Portion(version, chunks)


def record_of(wanted: Wanted, portion: Portion) -> Record:
    """The record of a file that was read whole.  Raises :class:`SourceChanged` if it was not what it was listed as."""
    known = [chunk for chunk in portion.chunks if chunk is not None]
    if len(known) < wanted.map.count or portion.version.size != wanted.map.size:
        raise SourceChanged(f"{printable(wanted.parts)}: not all of it could be read, or its size has changed")
    crc = combine_all((crc, wanted.map.length(index)) for index, (crc, _) in enumerate(known))
    version = portion.version
    return make_record(wanted.parts, version.size, version.mtime_ns, crc, (digest for _, digest in known))


def read_record(root: Root, wanted: Wanted, poll: Poll | None = None) -> Record:
    """Read one file whole."""
    task = Task([wanted])
    return record_of(wanted, joined(wanted.parts, read(root, task, from_device=False, poll=poll)))


def sha256(root: Root, task: Task, *, poll: Poll | None = None) -> list[str | FsmuxError]:
    """The SHA-256 of each file of a task, or why it could not be read."""
    found: list[str | FsmuxError] = []
    for wanted in task.files:
        try:
            found.append(_sha256(root, wanted.parts, poll))
        except FsmuxError as error:
            found.append(error)
    return found


def _sha256(root: Root, parts: Parts, poll: Poll | None) -> str:
    state = hashlib.sha256()
    lease, before = root.open_regular(parts, links=False)
    try:
        with named(parts), lease as fd:
            with suppress(ranges.ShortFile):
                for piece in ranges.pieces(root.sys, fd, 0, before.st_size, poll):
                    state.update(piece)
            if _version(root.sys.fstat(fd)) != _version(before):
                raise SourceChanged(f"{printable(parts)}: it changed while it was being read")
    finally:
        lease.close()
    return state.hexdigest()
