"""The manifest that a transfer keeps: what it brought, and what it found up to date.

Theory: a ledger speaks of the destination.  It begins with what an earlier manifest of it says, each file that comes
replaces its record, and what neither came nor was looked at keeps the one it had; so one manifest serves all transfers
to a place, and one that was interrupted has recorded what it did.  A file that is up to date keeps its record if that
has its size and time; else it is read, once, on the side that runs the transfer.  All of it is in memory, packed, about
200 bytes a file (measured), because it outlives connections and is written in the order of paths.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Act, Group
from fsmux.errors import FsmuxError, IntegrityError
from fsmux.events import Warned
from fsmux.files import reading
from fsmux.files.digestfile import DIGEST_SIZE, Record, chunks_of, make_record
from fsmux.files.passing import ChunkDigests, NotingUnpacker, PackDigests
from fsmux.files.reading import Wanted
from fsmux.limits import SMALL_FILE
from fsmux.records import printable
from fsmux.transfer.disk import poll

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from fsmux.events import Observer
    from fsmux.files.packing import Take
    from fsmux.files.root import Root
    from fsmux.plan.plan import Plan
    from fsmux.records import Durability, Kept, Parts
    from fsmux.transfer.disk import Disk

_SLASH: Final = ord("/")
_PACKED: Final = struct.Struct(f"<QqI{DIGEST_SIZE}s")


class Ledger:
    """Records of files by their paths below the destination.  For the event loop only."""

    def __init__(self, chunk_size: int, records: Iterable[Record] = ()) -> None:
        self.chunk_size = chunk_size
        self.changed = False
        """Whether it says anything else than when it was made."""
        self.bytes_read = 0
        """Bytes of files that were read for it, because they did not travel."""
        self._files: dict[bytes, bytes] = {}
        self._passing: dict[Parts, ChunkDigests] = {}
        self._sizes: set[int] = set()  # of large files; these and the next two may speak of what is gone
        self._by_version: dict[tuple[int, int], bytes] = {}
        self._by_digest: dict[tuple[int, bytes], bytes] = {}
        self._gone: set[bytes] = set()  # directories whose records are still to be dropped
        for record in records:
            self._put(record)

    def __len__(self) -> int:
        self._drop_gone()
        return len(self._files)

    def __iter__(self) -> Iterator[Record]:
        """The records in the order of their paths."""
        self._drop_gone()
        for path in sorted(self._files):
            packed = self._files[path]
            size, mtime_ns, crc32, digest = _PACKED.unpack_from(packed)
            yield Record(tuple(path.split(b"/")), size, mtime_ns, crc32, digest, packed[_PACKED.size :])

    def add(self, record: Record) -> None:
        self.changed = True
        self._drop_gone()
        self._put(record)

    def forget(self, parts: Parts, is_directory: bool) -> None:
        """A file, or a directory with all in it, was removed from the destination."""
        path = b"/".join(parts)
        if is_directory:
            self._gone.add(path)
        elif self._files.pop(path, None) is not None:
            self.changed = True

    def _drop_gone(self) -> None:
        """One pass over all records for any number of directories."""
        gone, self._gone = self._gone, set()
        if not gone:
            return
        for path in list(self._files):
            if any(path[:at] in gone for at, char in enumerate(path) if char == _SLASH):
                del self._files[path]
                self.changed = True

    def _put(self, record: Record) -> None:
        fixed = _PACKED.pack(record.size, record.mtime_ns, record.crc32, record.digest)
        path = b"/".join(record.parts)
        self._files[path] = fixed + record.chunks
        if record.size > SMALL_FILE:
            self._sizes.add(record.size)
            self._by_version[record.size, record.mtime_ns] = self._by_digest[record.size, record.digest] = path

    def linked(self, path: Parts, first: Parts) -> None:
        """A file is one more name of another one, and has its record."""
        if (packed := self._files.get(b"/".join(first))) is not None:
            self.changed = True
            self._files[b"/".join(path)] = packed

    def has(self, path: bytes, size: int, mtime_ns: int) -> bool:
        """Whether there is a record of this version of a file."""
        packed = self._files.get(path)
        return packed is not None and _PACKED.unpack_from(packed)[:2] == (size, mtime_ns)

    def has_size(self, size: int) -> bool:
        """Whether a large file of this size has, or had, a record."""
        return size in self._sizes

    def of_version(self, size: int, mtime_ns: int) -> Parts | None:
        """A large file with this size and time, as of some record of it."""
        return _split(self._by_version.get((size, mtime_ns)))

    def of_digest(self, size: int, digest: bytes) -> Parts | None:
        """A large file with this content, as of some record of it."""
        return _split(self._by_digest.get((size, digest)))

    # ---- what comes by a session of its own ------------------------------------------------------------------------

    def passing(self, path: Parts) -> ChunkDigests:
        """What is known of a file under way, over all attempts."""
        return self._passing.setdefault(path, ChunkDigests(self.chunk_size))

    async def passed(self, disk: Disk, root: Root, here: Parts, path: Parts, crc32: int, observer: Observer) -> None:
        """It stands, and came to ``crc32``; on this side its name is ``here``.

        Raises:
            IntegrityError: this side has other bytes than that one.
        """
        passing = self._passing.pop(path)
        try:
            record = await disk.read(passing.record, root, here, crc32, poll)
        except IntegrityError:
            raise
        except FsmuxError as error:
            observer(Warned(printable(path), f"it is not in the manifest: {error}"))
        else:
            self.bytes_read += passing.read
            self.add(record._replace(parts=path))

    # ---- what comes in packs -----------------------------------------------------------------------------------------

    def notes(self, disk: Disk, root: Root, here: Parts, base: Parts, observer: Observer) -> TreeNotes:
        """Of a tree whose files are below ``here`` on this machine, and ``base`` in the manifest."""
        return TreeNotes(self, disk, root, here, base, observer)

    # ---- what is up to date ----------------------------------------------------------------------------------------

    def unknown(self, base: Parts, group: Group, among: Container[bytes]) -> list[int]:
        """Those of the files of ``group`` with a name ``among`` these that have no record."""
        prefix = b"".join(name + b"/" for name in (*base, *group.directory))
        columns = zip(group.names, group.sizes, group.mtimes, group.modes, strict=True)
        return [
            index
            for index, (name, size, mtime, mode) in enumerate(columns)
            if mode & KIND_BITS == REGULAR and name in among and not self.has(prefix + name, size, mtime)
        ]

    async def read(self, disk: Disk, root: Root, here: Parts, base: Parts, files: Sequence[tuple[Parts, int]],
                   observer: Observer) -> None:  # fmt: skip
        """Read files of these sizes below ``here``; their records are below ``base``."""
        wanted = [Wanted(here + parts, chunks_of(size, self.chunk_size)) for parts, size in files]
        read = partial(reading.read, from_device=False, poll=poll)
        for task in reading.tasks(wanted, cut=False):
            for one, found in zip(task.files, await disk.read(read, root, task), strict=True):
                parts = base + one.parts[len(here) :]
                try:
                    self.add(reading.record_of(one, reading.joined(one.parts, [found]))._replace(parts=parts))
                    self.bytes_read += one.map.size
                except FsmuxError as error:
                    observer(Warned(printable(parts), f"it is not in the manifest: {error}"))


def _split(path: bytes | None) -> Parts | None:
    return None if path is None else tuple(path.split(b"/"))


class TreeNotes:
    """What one tree tells a ledger: its files are below ``here`` on this machine, and ``base`` in the manifest."""

    def __init__(self, ledger: Ledger, disk: Disk, root: Root, here: Parts, base: Parts, observer: Observer) -> None:
        self._ledger = ledger
        self._disk = disk
        self._root = root
        self._here = here
        self._base = base
        self._observer = observer
        self._packs = PackDigests(ledger.chunk_size)

    async def planned(self, group: Group, found: Plan) -> None:
        """What of a group is up to date is to have records, if these are files, and none otherwise."""
        for name in found.enter:
            self._ledger.forget((*self._base, *group.directory, name), False)
        if found.current is not None:
            self._no_files(found.current, ())
        names = {name for one in (found.current, found.adjust) if one is not None for name in one.names}
        if names and (unknown := self._ledger.unknown(self._base, group, names)):
            files = [((*group.directory, group.names[index]), group.sizes[index]) for index in unknown]
            await self._ledger.read(self._disk, self._root, self._here, self._base, files, self._observer)

    def reader(self, number: int) -> Callable[[Root, Parts, Sequence[Group], Take], memoryview]:
        """How to read a pack."""
        return partial(self._packs.read_pack, number)

    def unpacker(self, durability: Durability, kept: Kept, *, verify: bool) -> NotingUnpacker:
        """How to write packs."""
        return NotingUnpacker(self._root, self._here, durability, self._packs, kept, verify=verify)

    def stands(self, number: int, place: int, group: Group, failed: Container[int]) -> None:
        """A group of a pack stands, or is gone, but for what failed."""
        if group.act is Act.REMOVE:
            for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True)):
                if index not in failed:
                    self._ledger.forget((*self._base, *group.directory, name), mode & KIND_BITS == DIRECTORY)
        elif group.act is Act.MAKE:
            self._no_files(group, failed)
        directory = self._base + group.directory
        if group.act is Act.LINK:
            for index, first in enumerate(group.targets):
                if index not in failed:
                    self._ledger.linked((*directory, group.names[index]), (*self._base, first))
        elif group.act is Act.ADJUST:
            for index, name in enumerate(group.names):
                if index in failed:  # it may be another file than was read
                    self._ledger.forget((*directory, name), False)
        for index, digests in self._packs.take(number, place).items():
            if index not in failed:
                parts = (*directory, group.names[index])
                size, mtime, crc = group.sizes[index], group.mtimes[index], group.crcs[index]
                self._ledger.add(make_record(parts, size, mtime, crc, digests))

    def _no_files(self, group: Group, failed: Container[int]) -> None:
        """Where something else than a file stands, none does any more that has a record."""
        if group.itself or group.kinds <= {REGULAR}:
            return
        for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True)):
            if mode & KIND_BITS != REGULAR and index not in failed:
                self._ledger.forget((*self._base, *group.directory, name), False)
