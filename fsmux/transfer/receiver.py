"""The half of a transfer that lacks the file.

Theory: hear the offer, say what is missing, and put what comes where it belongs.  Bytes go to the partial file before
they are known to be right; the manifest records a chunk only when it is whole and its CRC-32 is the sender's, and the
final name appears only when all are.

A file may come on several streams, of several connections (:class:`Receiving`): one sink, one assembly, and an intake
for each stream.  The receiver *pulls*: it asks whichever stream has little to deliver for the next piece of what is
missing, so a slow connection takes less, and what a lost one owed goes to the others.  None of them is special; the
last one that leaves suspends the sink.

Whatever ends a session early, the partial file and its journal stay, so that the next attempt goes on from there.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from fsmux.errors import FsmuxError, IntegrityError, InternalError, RefusedError, StreamReset
from fsmux.events import ChunkHealed, FileStarted
from fsmux.limits import MAX_ATTEMPTS
from fsmux.records import Extent
from fsmux.transfer.assembly import Assembly
from fsmux.transfer.disk import poll
from fsmux.transfer.intake import Intake
from fsmux.transfer.ranges import MAX_PIECE, Pool, merged, piece_size, subtract, within
from fsmux.transfer.session import STREAM_LOST, Outcome, Report
from fsmux.wire.messages import Fault, Offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.files.chunks import ChunkMap
    from fsmux.files.sink import Sink
    from fsmux.mux.stream import Stream
    from fsmux.transfer.assembly import Verdict
    from fsmux.transfer.disk import Disk
    from fsmux.wire.messages import Finish


class Receiving:
    """One file that is received; what the intakes of its streams share.

    ``open_sink`` (blocking, run in a thread) makes the sink for the offer.  If it is ``joint``, several streams may
    take part, about ``streams`` of them.
    """

    sink: Sink
    assembly: Assembly
    map: ChunkMap

    def __init__(
        self, open_sink: Callable[[Offer], Sink], disk: Disk, report: Report, *, streams: int = 1, joint: bool = False
    ) -> None:
        self.disk = disk
        self.joint = joint
        self.resumed = 0
        self.ended = False
        """Whether the last stream has left, or is leaving; nobody may join any more."""
        self.closed = trio.Event()
        self.outcome: Outcome | None = None
        self._open_sink = open_sink
        self._report = report
        self._streams = streams
        self._offer: Offer | None = None
        self._opened = False
        self._beginning = trio.Lock()
        self._known = trio.Event()  # what is to come is known, or never will be
        self._present = 0
        self._intakes: list[Intake] = []
        self._pool = Pool()
        self._most = MAX_PIECE
        self._received = 0
        self._error: FsmuxError | None = None
        self._whole_crc: int | None = None
        self._syncing = trio.Lock()  # no commit beside a checkpoint, no checkpoint beside another

    async def receive_on(self, stream: Stream, offer: Offer | None = None) -> Outcome:
        """Take part with ``stream``, on which the peer makes its offer next or has made it, until the file stands.

        The caller sends nothing on the stream afterwards but may end it.  Cancellation, like any error, leaves what
        this stream still owes to the others, if there are any; else it suspends the sink: what was verified is kept.

        Raises:
            IntegrityError: a chunk arrived damaged three times, or the whole file is not what the sender said.
            FsmuxError: whatever the sender, the disk or the connection failed with.
        """
        self._present += 1
        intake: Intake | None = None
        try:
            offer = offer or await self._next_offer(stream)
            intake = Intake(stream, offer, self)
            with intake.scope:
                await self._begin(intake, offer)
                await intake.run()
            if self.outcome is None:
                raise self._error or InternalError("a transfer ended without an outcome")
            with suppress(*STREAM_LOST):  # the file stands, whether the peer still hears of it or not
                await stream.send(self.outcome.committed())
            return self.outcome
        except STREAM_LOST:
            raise
        except Exception as exc:
            self._fail(exc)
            raise
        finally:
            self._present -= 1
            self._leave(intake)
            if not self._present:
                await self._close()

    async def to_come(self) -> int:
        """Bytes that were missing once that was known; 0 if the session ended before."""
        await self._known.wait()
        if self.ended:
            return 0
        return self._pool.bytes + sum(intake.promised for intake in self._intakes)

    def give_up(self) -> None:
        """End all streams, of which their sender knows nothing any more; what was received is kept."""
        self._fail(StreamReset("the sender has begun this file anew"))

    def nothing_came(self) -> None:
        """A stream could not be had. Who waits to hear what is to come does so in vain if it was to be the first."""
        if not self._present and self._offer is None:
            self.ended = True
            self._known.set()
            self.closed.set()

    def alone(self) -> None:
        """No other stream will join after all."""
        self._streams = 1

    # ---- beginning and ending --------------------------------------------------------------------------------------

    async def _next_offer(self, stream: Stream) -> Offer:
        try:
            offer: Offer = await stream.expect_message(Offer)
        except FsmuxError as exc:
            if self._offer is None or isinstance(exc, STREAM_LOST):
                raise
            raise StreamReset(str(exc)) from exc  # the other streams have their file open and can do without this one
        return offer

    async def _begin(self, intake: Intake, offer: Offer) -> None:
        """Open the file with the first stream, or join it; if that is lost meanwhile, the next takes its place."""
        mine, first = (offer.identity, offer.chunk_size), self._offer or offer
        if mine != (first.identity, first.chunk_size):
            raise StreamReset("another version of the file is offered on this stream than on the first one")
        if self._offer is not None and (offer.eager or first.eager):
            raise RefusedError("an eager file comes on one stream")
        self._offer = first
        async with self._beginning:
            if self._error is not None:
                raise self._error
            self._intakes.append(intake)
            if not self._known.is_set():
                await self._open(intake, offer)
            if self.joint:
                self.deal()
                if intake.finished:
                    intake.ask(more=False)
            self._known.set()

    async def _open(self, intake: Intake, offer: Offer) -> None:
        have = False
        if not self._opened:
            self.sink = await self.disk.when_free(self._open_sink, offer)
            self._opened = True
            self.map = self.sink.manifest.map
            self.assembly = Assembly(self.map)
            self.resumed = self.sink.manifest.bytes_held
            self.joint = self.joint and not offer.eager
            self._most = max(MAX_PIECE, MAX_PIECE * self.map.size // max(self.map.size - offer.holes, MAX_PIECE))
            self._report.observer(FileStarted(self._report.name, offer.identity.size, self.resumed))
            have = not (offer.eager or self.sink.manifest.complete) and self.sink.basis is not None
        missing = self.sink.manifest.missing()
        if not self.joint:
            await intake.ask_all(missing, have=have)
        elif have:
            intake.ask(more=True, have=True)
        if have:
            await intake.compare()
        if self.joint:
            self._pool = Pool()
            self._pool.put(subtract(self.sink.manifest.missing(), self.assembly.begun()))

    def _fail(self, error: BaseException) -> None:
        """The whole file fails, on all streams."""
        if self.outcome is None and self._error is None:
            self._error = error if isinstance(error, FsmuxError) else StreamReset("the transfer was cancelled")
        self._known.set()
        self._release()

    def _release(self, but: Intake | None = None) -> None:
        for intake in self._intakes:
            if intake is not but:
                intake.scope.cancel()

    async def _close(self) -> None:
        self.ended = True
        self._known.set()
        if self._opened and not self.sink.ended:
            with trio.CancelScope(shield=True):  # bounded by one checkpoint of the journal
                await self.disk.meta(self.sink.suspend)
        self.closed.set()

    async def committed(self, intake: Intake) -> bool:
        """Whether the file stands; commits it if all of it is here. What the disk did not keep ``intake`` asks for."""
        if self._complete and await self._proven(intake):
            with trio.CancelScope(shield=True):  # once begun it is not left halfway; bounded by one commit
                async with self._syncing:
                    if self.outcome is None and self._error is None:
                        await self._commit()
            self._release()
        return self.outcome is not None

    async def _proven(self, intake: Intake) -> bool:
        """Whether the device gives back what was written to it, if that is to be seen."""
        if not self.sink.verify:
            return True
        async with self._syncing:
            if self.outcome is not None or self._error is not None or self.sink.proven:
                return True
            if not self._complete:  # somebody else has looked meanwhile
                return False
            wrong = await self.disk.read(self.sink.read_back, poll)
        for index, found in wrong.items():
            attempt = self.assembly.failed(index)
            if attempt >= MAX_ATTEMPTS:
                raise IntegrityError(
                    f"{self._report.name}: the disk gave back other bytes than were written to it, {attempt} times, "
                    f"in chunk {index}; check the disk"
                )
            self._report.observer(ChunkHealed(self._report.name, index, attempt))
            intake.ask_again(index, found or 0)
        return not wrong

    @property
    def _complete(self) -> bool:
        """All chunks are here, and everybody who sent some has said that the source is still the same."""
        return (
            self.sink.manifest.complete
            and any(intake.finished for intake in self._intakes)
            and all(intake.finished or not intake.vouches for intake in self._intakes)
        )

    async def _commit(self) -> None:
        assert self._offer is not None
        identity = self._offer.identity
        crc, durable = await self.disk.meta(self._check_and_commit, self._offer)
        error = self.sink.refused
        refused = None if error is None else Fault(error.code, str(error))
        self.outcome = Outcome(identity.size, self._received, self.resumed, crc, durable, refused)

    def _check_and_commit(self, offer: Offer) -> tuple[int, bool]:
        """The CRC-32 of the whole file, which stands now, and whether that is durable. Blocks."""
        crc = self.sink.manifest.crc32()
        if self._whole_crc is not None and self._whole_crc != crc:
            raise IntegrityError(
                f"{self._report.name}: the whole file came to {crc:08x}, its sender says {self._whole_crc:08x}; "
                "run it again with --no-resume"
            )
        return crc, self.sink.commit(offer.mode, offer.identity.mtime_ns)

    # ---- what intakes tell -----------------------------------------------------------------------------------------

    def holds(self, index: int) -> bool:
        return self.sink.manifest.holds(index)

    def passed(self, count: int) -> None:
        self._received += count
        self._report.progress(count)

    def skipped(self, count: int) -> None:
        self._report.skipped(count)

    def stated(self, finish: Finish) -> None:
        if finish.crc32 is not None:
            self._whole_crc = finish.crc32

    async def keep(self, extent: Extent) -> None:
        """Take over a range of an earlier version."""
        crc = await self.disk.read(self.sink.copy_from_basis, extent, poll)
        self.resumed += extent.length
        self._report.reused(extent.length)
        self.assembly.add(extent.offset, extent.length, crc)
        verdict = self.assembly.trust(extent.offset // self.map.chunk_size)
        if verdict is not None:
            self.sink.received(verdict.index, verdict.found)

    def settled(self, verdict: Verdict) -> bool:
        """A chunk is whole. False if it is to be asked for again; raises if that was done often enough."""
        if verdict.right:
            self.sink.received(verdict.index, verdict.found)
            return True
        attempt = self.assembly.failed(verdict.index)
        if attempt >= MAX_ATTEMPTS:
            raise IntegrityError(
                f"{self._report.name}: chunk {verdict.index} arrived damaged {attempt} times "
                f"(CRC-32 {verdict.found:08x}, expected {verdict.expected:08x}); check the network and the disks"
            )
        self._report.observer(ChunkHealed(self._report.name, verdict.index, attempt))
        return False

    async def checkpoint(self) -> None:
        """Let what was recorded survive a power failure, if it is time."""
        if self.sink.checkpoint_due() and not self._syncing.locked():
            async with self._syncing:
                await self.disk.meta(self.sink.checkpoint)

    # ---- dealing out -----------------------------------------------------------------------------------------------

    def deal(self) -> None:
        """Ask every stream that has less than two pieces to deliver for another, the least busy first."""
        if not self.joint:
            return
        live = sorted((intake for intake in self._intakes if intake.stream.error is None), key=_promised)
        streams = max(len(live), self._streams)
        asked = True
        while self._pool.bytes and asked:
            asked = False
            for intake in live:
                size = piece_size(self._pool.bytes, intake.received, self._received, streams, self._most)
                if self._pool.bytes and intake.promised <= size:
                    asked = self._ask(intake, self._pool.take(size)) or asked
        if not self._pool.bytes:
            for intake in live:
                if intake.open_ended:
                    self._ask(intake)

    def _ask(self, intake: Intake, *pieces: Extent) -> bool:
        """Ask for a piece, or say that this was all. False if the stream is over: its task will find out."""
        while intake.owed and all(map(self.holds, self.map.chunks_of(intake.owed[0]))):
            intake.owed.popleft()
        try:
            intake.ask(*pieces, more=bool(self._pool.bytes))
        except FsmuxError:
            self._pool.put(pieces)
            return False
        return True

    def _leave(self, intake: Intake | None) -> None:
        """A stream is over: what it owes goes to the others."""
        if intake is None or intake not in self._intakes:
            return
        self._intakes.remove(intake)
        if not self.joint or self.outcome is not None or self._error is not None:
            return
        elsewhere = merged([*self._pool.extents(), *(piece for other in self._intakes for piece in other.owed)])
        for piece in merged(intake.owed):
            for offset, length in self.assembly.split(piece):
                left = self._left_behind(Extent(offset, length), elsewhere)
                self._pool.put(left)
                elsewhere = merged([*elsewhere, *left])
        self.deal()
        if self._intakes and intake.vouches and not intake.finished:
            # What it brought may be newer than what the others have vouched for, or are just about to.
            other = self._intakes[0]
            other.vouches = True
            if not other.open_ended:  # else it is going to be asked
                with suppress(FsmuxError):
                    other.ask(more=False)

    def _left_behind(self, part: Extent, elsewhere: list[Extent]) -> list[Extent]:
        """What of ``part``, within one chunk, has to be asked for again."""
        index = part.offset // self.map.chunk_size
        if self.holds(index):
            return []
        lacking = subtract(self.assembly.gaps(part), elsewhere)
        whole = self.map.extent(index)
        if not lacking and self.assembly.orphaned(index) and not within(whole, elsewhere):
            self.assembly.drop(index)  # all of it is here, but its checksum would have come on the stream that is lost
            return [whole]
        return lacking


def _promised(intake: Intake) -> int:
    return intake.promised
