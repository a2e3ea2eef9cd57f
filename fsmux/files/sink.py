"""One file to be written: received in any order, checked, recorded, and made visible whole.

Theory: a sink is a *place* in the reserved directory (a part, and for more than one chunk a journal, which a shorter
file gets when its session ends early) and the manifest of what the place holds.  ``write`` and ``received`` are
separate on purpose: bytes are recorded when whoever knows their checksum has found them right.  The final name appears
by one rename, when all chunks are recorded; with durability asked for, after the part was synced, and the directory is
synced before ``commit`` returns True.

After a failed sync of the part no later sync can be believed (the kernel drops the pages and calls them clean), so the
sink is *poisoned*: its claims are taken back, and only a new session, which reads everything again, may go on.

Threads: ``write`` and ``received`` may be called from several at once; what ends a sink is called by one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from zlib_ng import zlib_ng

from fsmux.columns import time_of
from fsmux.errors import Busy, FsmuxError, InternalError, StorageError
from fsmux.files import commit, ranges
from fsmux.files import resume as places
from fsmux.files.basis import BEGUN_LEAST, Basis, pieces_of_final, pieces_of_part
from fsmux.files.holes import Layout, clear
from fsmux.files.journal import Type, stamp_of
from fsmux.files.naming import named
from fsmux.limits import INITIAL_CREDIT, MIB
from fsmux.records import EVERYTHING, Durability, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fsmux.files.basis import Known
    from fsmux.files.passing import ChunkDigests
    from fsmux.files.ranges import Poll
    from fsmux.files.resume import Place
    from fsmux.files.root import Root
    from fsmux.files.state import Pin
    from fsmux.records import Attrs, Extent, Identity, Kept, Parts

CHECKPOINT_SECONDS: Final = 5.0
"""Seconds of transfer that a power failure may cost."""

CHECKPOINT_BYTES: Final = 256 * MIB
"""Bytes after which a checkpoint is made sooner, so that none of them has much to write."""


class Sink:
    """A file being received.  Made by :func:`.open_sink`; ended by ``commit``, ``suspend`` or ``discard``.

    ``place``, ``pin``, ``mode``, ``kept``, ``attrs`` and the methods named in :mod:`.commit` are for this package only.
    """

    def __init__(
        self,
        root: Root,
        parts: Parts,
        place: Place,
        pin: Pin,
        mode: int,
        durability: Durability,
        clock: Callable[[], float],
        *,
        kept: Kept = EVERYTHING,
        attrs: Attrs | None = None,
        final: Parts,
        verify: bool,
    ) -> None:
        self.parts = parts
        self.manifest = place.manifest
        self.durability = durability
        self.kept = kept
        self.attrs = attrs
        self.refused: FsmuxError | None = None
        """Why a file that was committed has not all of the extended attributes that it was to have, if so."""
        self.verify = verify
        self.root = root
        self.sys = root.sys
        self.place = place
        self.pin = pin
        self.mode = mode
        self._clock = clock
        self._final = final  # a finished file that ranges may be taken from
        self._basis: Basis | None = None
        self._basis_known = False
        self._mutex = threading.Lock()  # manifest and counters; held for some bytecodes
        self._changing = threading.Lock()  # take-over and checkpoints; held during system calls
        self._dirty = 0
        self._written = 0
        self._checkpointed = clock()
        self.proven = False
        """Whether the device gave back all that was written, and nothing was written since."""
        self.watch: ChunkDigests | None = None
        """Told of what is written, if a manifest is made."""
        self.poisoned = False
        self._worthless = False
        self.ended = False

    @property
    def identity(self) -> Identity:
        return self.manifest.identity

    @property
    def name(self) -> str:
        return printable(self.parts)

    # ---- receiving -----------------------------------------------------------------------------------------------

    def write(self, views: Sequence[memoryview], offset: int) -> int:
        """Write ``views``, one behind the other, from ``offset`` on; the CRC-32 of these bytes.

        This records nothing: call :meth:`received` for chunks that are whole and right.  Records that wait are handed
        to the kernel on the way, since this is the thread for it.
        """
        crc = size = 0
        for view in views:
            crc = zlib_ng.crc32(view, crc)
            size += len(view)
        self._check_range(offset, size)
        if self.place.header is not None:
            self.take_over()
        with named(self.parts), self.place.part.hold() as fd:
            ranges.write_all(self.sys, fd, views, offset)
        with self._mutex:
            self._dirty += size
            self._written += size
            self.proven = False
        if self.watch is not None:
            self.watch.wrote(views, offset)
        self.flush_records()
        return crc

    def clear(self, holes: Sequence[Extent]) -> None:
        """Make these ranges holes, whatever the part has there. Like :meth:`write`, this records nothing."""
        for hole in holes:
            self._check_range(*hole)
        if self.place.header is not None:
            self.take_over()
        with named(self.parts), self.place.part.hold() as fd:
            for hole in holes:
                clear(self.sys, fd, hole, self.manifest.identity.size)
        if self.watch is not None:
            for hole in holes:
                self.watch.cleared(hole)

    def _check_range(self, offset: int, size: int) -> None:
        """Nothing is written outside the file, nor over a chunk that the journal may have called durable."""
        if offset < 0 or offset + size > self.manifest.identity.size:
            raise InternalError(f"{self.name}: {size} bytes at {offset} are outside the file")
        if size:
            chunk_size = self.manifest.map.chunk_size
            for index in range(offset // chunk_size, (offset + size - 1) // chunk_size + 1):
                if self.manifest.holds(index):
                    raise InternalError(f"{self.name}: chunk {index} is here already")
        if self.poisoned:
            raise self.lost()

    def received(self, index: int, crc: int) -> None:
        """Record that a chunk is whole and has the CRC-32 that its sender says.

        Never blocks for long: the record is buffered until the next ``write``, ``flush_records`` or checkpoint.
        """
        if self.ended:
            raise Busy(f"{self.name}: this session has ended")
        if self.place.header is not None:
            self.take_over()
        if self.watch is not None:
            self.watch.settled(index, crc)
        with self._mutex:
            new = self.manifest.add(index, crc)
            if new and self.place.journal is not None:
                self.place.journal.append(Type.RECEIVED, index, crc)

    def flush_records(self) -> None:
        """Hand buffered records to the kernel in one write, so that they outlive the process."""
        journal = self.place.journal
        if journal is not None and journal.pending and self.place.header is None:
            with named(self.parts):
                journal.flush()

    # ---- reusing -------------------------------------------------------------------------------------------------

    @property
    def basis(self) -> Basis | None:
        """An earlier version to take ranges from, if there is one with anything in it.  Opened when first asked for."""
        if not self._basis_known:
            self._basis_known = True
            self._basis = self._find_basis()
        return self._basis

    def _find_basis(self) -> Basis | None:
        if self.ended or self.manifest.complete:
            return None
        pieces = [*self.place.begun]
        if self.place.old is not None:
            pieces += pieces_of_part(self.place.old, self.manifest)
        final = layout = None
        if self._final:
            with suppress(FsmuxError):  # whatever is wrong with it, it is no help
                final, facts = self.root.open_regular(self._final, links=False)
                layout = Layout(self.sys, facts)
                pieces += pieces_of_final(facts.st_size, self.manifest, pieces)
        if not pieces:
            if final is not None:
                final.close()
            return None
        pieces.sort()
        return Basis(self.sys, self.name, self.place.part, final, pieces, self.manifest, layout)

    def basis_digests(self, poll: Poll | None = None) -> Iterator[Known]:
        """Ranges of the basis with their digests, in order, each within one chunk."""
        if self.basis is not None:
            yield from self.basis.digests(poll)

    def copy_from_basis(self, extent: Extent, poll: Poll | None = None) -> int:
        """Bring one or more adjacent ranges of ``basis_digests`` to their place in the part; their CRC-32."""
        if self.basis is None:
            raise InternalError(f"{self.name}: there is no earlier version to reuse")
        self._check_range(*extent)
        if self.place.header is not None:
            self.take_over()
        with named(self.parts):
            crc = self.basis.reuse(extent, poll)
        with self._mutex:
            self._dirty += extent.length
            self.proven = False
        return crc

    def take_over(self) -> None:
        """From here on the place belongs to the new version."""
        with self._changing, named(self.parts):
            if self.place.header is not None:
                places.take_over(self.sys, self.pin.state, self.place)

    # ---- surviving -----------------------------------------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Whether enough was written since the last checkpoint, by bytes or by time."""
        if self.durability == Durability.NONE or self.place.journal is None or not self._dirty:
            return False
        return self._dirty >= CHECKPOINT_BYTES or self._clock() - self._checkpointed >= CHECKPOINT_SECONDS

    def checkpoint(self) -> None:
        """Make what was recorded until now survive a power failure.  Others may write meanwhile."""
        journal = self.place.journal
        if journal is None or self.place.header is not None:
            return
        with named(self.parts), self._changing:
            if self.poisoned:
                raise self.lost()
            with self._mutex:
                covered, dirty = journal.count, self._dirty
            journal.flush()
            if self.durability == Durability.NONE:
                return
            with self.place.part.hold() as fd:
                stamp = stamp_of(self.sys.fstat(fd))  # before the sync: what is written meanwhile is not covered
            self.sync_part()
            # Only now: DURABLE must never be on the disk before what it speaks of.
            journal.append(Type.DURABLE, covered, stamp)
            journal.flush()
            journal.sync()
            with self._mutex:
                self._dirty -= dirty
            self._checkpointed = self._clock()

    def sync_part(self, *, whole: bool = False) -> None:
        """Sync the part, its attributes too if ``whole``; :class:`StorageError`, once and for all, if it fails."""
        try:
            with self.place.part.hold() as fd:
                if whole:
                    self.sys.fsync(fd)
                else:
                    self.sys.fdatasync(fd)
        except OSError as error:
            self.poison()
            raise self.lost() from error

    def poison(self) -> None:
        """A sync failed: whatever was written may be lost, whatever later syncs say."""
        self.poisoned = True
        if self.place.journal is not None:
            try:
                places.revoke(self.pin.state, self.place.journal, self.place.journal_name)
            except OSError:
                self._worthless = True

    def lost(self) -> StorageError:
        return StorageError(f"{self.name}: the disk could not keep what was written; run it again to check and go on")

    # ---- ending --------------------------------------------------------------------------------------------------

    def read_back(self, poll: Poll | None = None) -> dict[int, int | None]:
        """Compare what the device has with what was recorded; chunks that it does not have are no longer held.

        The result has for each of them the CRC-32 that was found, None for one that cannot be read.
        """
        with named(self.parts):
            return commit.read_back(self, poll)

    def commit(self, mode: int | None = None, mtime_ns: int | None = None) -> bool:
        """Give the complete file its final name.  True if it is on stable storage, name and all.

        On an error before the rename the sink is as it was, to be suspended.  On one after it the file is there and
        whole, only not known to be durable.
        """
        return commit.commit(self, mode, mtime_ns)

    def suspend(self) -> None:
        """End the session and keep what was received, for another one.  Nothing happens after the end."""
        if self.ended:
            return
        with suppress(FsmuxError):
            if self.poisoned or not self.checkpoint_wanted():
                self.flush_records()
            else:
                self.checkpoint()
        self.end(keep=True)

    def checkpoint_wanted(self) -> bool:
        """Whether a checkpoint would make anything more durable than it is."""
        return bool(self._dirty) and self.durability != Durability.NONE

    def close(self) -> None:
        """As :meth:`suspend`, without waiting for the disk."""
        if self.ended:
            return
        with suppress(FsmuxError):
            self.flush_records()
        self.end(keep=True)

    def discard(self) -> None:
        """End the session and remove what was received."""
        self.end(keep=False)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end(self, *, keep: bool) -> None:
        with self._mutex:
            if self.ended:
                return
            self.ended = True
        place = self.place
        if not (keep and self._keep()):
            # The journal last, because it is locked: without it, another session may have begun a part of that name.
            for name in (place.part_name, place.journal_name):
                if name:
                    with suppress(OSError):
                        self.pin.state.unlink(name)
        if self._basis is not None:
            self._basis.close()
        # The lock ends last: a thread that is still writing must not meet the next session's writes.
        place.part.close(after=self._release)

    def _keep(self) -> bool:
        """Whether there is anything to keep, which a later session will find; for shorter files none looks."""
        place, something = self.place, self._written >= BEGUN_LEAST
        if place.journal is not None:
            something = something or bool(self.manifest.chunks_held or place.header or place.begun)
            return something and not self._worthless
        if something and place.owner is not None and not self.poisoned and self.identity.size > INITIAL_CREDIT:
            with suppress(OSError, FsmuxError):
                if not self._stands():
                    places.keep_single(self.sys, self.pin.state, place, self.parts)
                    return True
        return False

    def _stands(self) -> bool:
        """Whether another session has brought the very version meanwhile."""
        facts = self.root.existing(self.parts)
        return facts is not None and (facts.st_size, time_of(facts)) == (self.identity.size, self.identity.mtime_ns)

    def _release(self) -> None:
        if self.place.journal is not None:
            self.place.journal.close()
        self.pin.release()
