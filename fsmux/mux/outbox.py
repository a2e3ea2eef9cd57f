"""Which frame goes out next: a pure decision, without I/O and without Trio.

Theory: three classes in strict order, looked at anew before every frame.  *Urgent*: credit, PING, RESET, GOAWAY; few
and small, because everything else depends on them.  *Messages*: requests and replies.  *Bulk*: DATA, served by deficit
round robin, so that streams share the link by bytes however large their frames are.  The first turn of a stream comes
before those of others, as with fq_codel (RFC 8290), so that a small file does not wait for a round of all large ones.
A stream is an ordered channel: a message that is sent behind unsent DATA of the same stream queues behind it, in the
stream's own queue.

The writer pulls frames from a worker thread while tasks push, hence the lock; every hold of it is a few microseconds.
A queue without credit leaves the ring and comes back when credit does, so the choice never scans blocked streams.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from fsmux.limits import MAX_DATA_PAYLOAD, MAX_QUEUED_CONTROL, MAX_QUEUED_PAYLOAD, MIB
from fsmux.mux.queued import Batch, Item, SendQueue, cut, in_memory, lease_of, let_go
from fsmux.wire.credit import EagerBudget
from fsmux.wire.frames import Cmd, FileSpan, Frame, encode
from fsmux.wire.messages import Credit
from fsmux.wire.messages import encode as encode_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.mux.queued import Payload

GRANTS_PER_FRAME = 1024
"""Grants in one CREDIT frame: at most 18 KiB, under the limit of a control payload."""

REQUESTS_SPARE = 2 * MIB
"""Bytes of room for control frames that requests leave to answers, grants and resets."""

CONTROL_BATCH = 64 * 1024
"""Bytes of small frames that go to the kernel together."""

START_FRAME = 256 * 1024
"""Bytes of a DATA frame until the link's rate is known: 20 ms at 100 Mbit/s, 2 ms at 1 Gbit/s."""


class Outbox:
    """Frames waiting for the writer.  All methods are synchronous and may be called from any thread."""

    def __init__(self, eager_credit: int, wake: Callable[[], None], on_overflow: Callable[[], None]) -> None:
        self.frame_size = START_FRAME
        self.allowance: int | None = None
        """Credited bytes that may be taken before :attr:`held` says that a rate has to be waited for; None: any."""
        self._wake_writer = wake
        self._on_overflow = on_overflow
        """Told once that the peer reads so little that control frames find no room: the connection is to end."""
        self._overflowed = False
        self._lock = threading.Lock()
        self._pushed = threading.Condition(self._lock)
        self._waited_for = False  # whether a thread waits for something to send
        self._ending = False  # and that nothing more is worth waiting for
        self._eager = EagerBudget(eager_credit)
        self._eager_waiting: deque[SendQueue] = deque()
        self._grants: dict[int, tuple[int, int]] = {}  # by stream: the limit, and how many messages go before it
        self._urgent: deque[bytes] = deque()
        self._messages: deque[bytes] = deque()
        self._messages_pushed = 0
        self._messages_taken = 0
        self._control_bytes = 0
        self._held_bytes = 0  # of payloads that are in memory
        self._new: deque[SendQueue] = deque()  # those whose first turn it is
        self._ring: deque[SendQueue] = deque()  # the others

    # ---- pushing ---------------------------------------------------------------------------------------------------

    def set_eager_credit(self, total: int) -> None:
        """Take the peer's bound on early DATA from its HELLO; call before any stream is opened."""
        with self._lock:
            self._eager = EagerBudget(total)

    def urgent(self, frame: Frame) -> None:
        """Queue a control frame before everything else."""
        self._push(self._urgent, _whole(frame))

    def grant(self, stream_id: int, limit: int) -> None:
        """Queue credit; only the newest limit of a stream is ever sent.

        It goes after the messages that wait now: one of them may open the stream, and a peer ignores credit for a
        stream that it does not know.
        """
        with self._lock:
            _, after = self._grants.get(stream_id, (0, self._messages_pushed))
            self._grants[stream_id] = (limit, after)
        self._wake()

    def message(self, queue: SendQueue, frame: Frame) -> None:
        """Queue a control frame of a stream, behind whatever that stream has queued already."""
        with self._lock:
            behind = bool(queue.items)
            if behind:
                queue.items.append(Item(frame.cmd, frame.payload, frame.flags, frame.length))
                self._activate(queue)
        if behind:
            self._wake()
        else:
            self._push(self._messages, _whole(frame))

    def message_later(self, queue: SendQueue, cmd: int, make: Callable[[], bytes]) -> None:
        """Queue a control frame whose payload is made when all that its stream had queued before was taken.

        ``make`` is called once, by the writer, in whatever thread it runs; it must be quick and must not fail.
        """
        with self._lock:
            if queue.closed:
                return
            queue.items.append(Item(cmd, b"", 0, 0, make=make))
            self._activate(queue)
        self._wake()

    def data(self, queue: SendQueue, cmd: int, payload: Payload, flags: int = 0) -> None:
        """Queue a payload that credit governs; it is cut into frames as credit and fairness allow."""
        with self._lock:
            if queue.closed:
                return
            if isinstance(payload, FileSpan):
                lease_of(payload).__enter__()  # until it was sent or dropped, whatever its owner does meanwhile
            else:
                self._held_bytes += len(payload)
            queue.items.append(Item(cmd, payload, flags, len(payload)))
            self._activate(queue)
        self._wake()

    def hold_back(self) -> None:
        """Take nothing under credit until there is an :attr:`allowance` anew, if any of it may be taken now."""
        with self._lock:
            if self.allowance is None:
                self.allowance = 0

    def extend(self, queue: SendQueue, limit: int) -> None:
        """The peer granted ``queue`` credit up to the absolute offset ``limit``."""
        with self._lock:
            queue.credit.extend(limit)
            self._leave_eager(queue)
            if queue.items:
                self._activate(queue)
        self._wake()

    def drop(self, queue: SendQueue, last: Frame | None = None) -> None:
        """Forget what a stream has queued; nothing more of it is sent but ``last``, a control frame.

        That is queued in the same step: others may take the stream's share of the early DATA at once, and the peer has
        to hear before that it is free.
        """
        overflows = False
        with self._lock:
            queue.closed = True
            dropped = list(queue.items)
            queue.items.clear()
            self._held_bytes -= sum(map(in_memory, dropped))
            self._leave_eager(queue)
            if queue.in_ring:
                self._place(queue).remove(queue)
                queue.in_ring = False
            if last is not None:
                overflows = self._add(self._messages, _whole(last))
        for item in dropped:
            let_go(item.payload)
        queue.on_room()
        if last is not None:
            self._added(overflows)

    def finish(self, queue: SendQueue) -> None:
        """The stream is over on both sides: its early DATA is accounted for."""
        with self._lock:
            self._leave_eager(queue)

    # ---- pulling ---------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing can be sent now (streams that wait for credit count as nothing)."""
        return not (self._urgent or self._messages or self._grants or self.has_bulk)

    def wait(self, seconds: float) -> bool:
        """Wait in the writer's thread until something can be sent, but not longer; whether it can."""
        with self._pushed:
            if self.idle and not self._ending:
                self._waited_for = True
                self._pushed.wait(seconds)
                self._waited_for = False
            return not self.idle

    def end(self) -> None:
        """What is queued now is the last: from here on :meth:`wait` does not."""
        with self._pushed:
            self._ending = True
            self._pushed.notify()

    @property
    def has_bulk(self) -> bool:
        """Whether a stream has something to send under its credit."""
        return bool(self._ring or self._new)

    @property
    def messages(self) -> int:
        """How many requests and replies were queued to go before bulk."""
        return self._messages_pushed

    @property
    def crowded(self) -> bool:
        """Whether so much waits in memory that a stream which has something queued should add nothing."""
        return self._held_bytes > MAX_QUEUED_PAYLOAD

    @property
    def takes_requests(self) -> bool:
        """Whether there is room for another one, beside what else there may be to say."""
        return self._control_bytes <= MAX_QUEUED_CONTROL - REQUESTS_SPARE

    @property
    def held(self) -> bool:
        """Whether all that could be sent has to wait for more :attr:`allowance`."""
        with self._lock:
            return self.has_bulk and not (self._urgent or self._messages or self._grants) and self._turn() is None

    def next(self, *, bulk: bool = True) -> Batch | None:
        """Take the next thing to write, or None.  With ``bulk`` false only control frames are taken."""
        with self._lock:
            prefix = self._take_control()
            if not bulk or self._messages:  # what was too much for one batch may be what opens a stream in the ring
                return Batch(prefix, None, None) if prefix else None
            said: SendQueue | None = None  # the stream whose words are in the prefix
            while (queue := self._turn()) is not None:
                if said is not None and (queue is not said or len(prefix) >= CONTROL_BATCH):
                    break
                if queue.deficit <= 0:
                    queue.deficit += self.frame_size
                item = queue.items[0]
                if item.make is not None:
                    item.payload, item.make = item.make(), None
                    item.length = len(item.payload)
                size = self._allowed(queue, item)
                if size < 0:
                    self._place(queue).popleft()
                    queue.in_ring = False
                    continue
                frame = cut(queue, item, size)
                queue.deficit -= max(size, 1)
                if self.allowance is not None and item.credited:
                    self.allowance -= size
                queue.sending = True
                fd = lease_of(item.payload).share() if isinstance(item.payload, FileSpan) else -1
                if item.done >= item.length:
                    queue.items.popleft()
                    self._held_bytes -= in_memory(item)
                    let_go(item.payload)
                if not queue.items or queue.deficit <= 0:
                    self._place(queue).popleft()
                    queue.new = False
                    queue.in_ring = bool(queue.items)
                    if queue.in_ring:
                        self._ring.append(queue)
                    else:
                        queue.deficit = 0
                header, payload = encode(frame)
                if isinstance(payload, bytes):  # words of a stream go with what follows them on it, in one call
                    prefix += header + payload
                    said = queue
                    continue
                assert not isinstance(payload, tuple)  # only received payloads are
                return Batch(prefix + header, payload, queue, fd)
            return Batch(prefix, None, said) if prefix else None

    def _wake(self) -> None:
        if self._waited_for:
            with self._pushed:
                self._pushed.notify()
        self._wake_writer()

    def _push(self, lane: deque[bytes], frame: bytes) -> None:
        with self._lock:
            overflows = self._add(lane, frame)
        self._added(overflows)

    def _added(self, overflows: bool) -> None:
        if overflows:
            self._on_overflow()
        self._wake()

    # ---- inside the lock -------------------------------------------------------------------------------------------

    def _add(self, lane: deque[bytes], frame: bytes) -> bool:
        """Queue a frame; whether it is the first one that has no room.

        Such a one is dropped with all that follow, and nobody who queues has to care.
        """
        overflows = self._control_bytes + len(frame) > MAX_QUEUED_CONTROL and not self._overflowed
        self._overflowed = self._overflowed or overflows
        if not self._overflowed:
            self._control_bytes += len(frame)
            lane.append(frame)
            if lane is self._messages:
                self._messages_pushed += 1
        return overflows

    def _take_control(self) -> bytes:
        frames: list[bytes] = []
        size = 0
        for lane in (self._urgent, self._messages):
            while lane and size < CONTROL_BATCH:
                frame = lane.popleft()
                size += len(frame)
                frames.append(frame)
                if lane is self._messages:
                    self._messages_taken += 1
        self._control_bytes -= size
        grants: list[tuple[int, int]] = []
        for stream_id, (limit, after) in self._grants.items():  # in the order of ``after``
            if after > self._messages_taken or len(grants) == GRANTS_PER_FRAME:
                break
            grants.append((stream_id, limit))
        if grants:
            for stream_id, _ in grants:
                del self._grants[stream_id]
            frames.append(_whole(Frame(Cmd.CREDIT, 0, encode_message(Credit(tuple(grants))))))
        return b"".join(frames)

    def _activate(self, queue: SendQueue) -> None:
        if not queue.in_ring and not queue.closed:
            queue.in_ring = True
            self._place(queue).append(queue)

    def _place(self, queue: SendQueue) -> deque[SendQueue]:
        return self._new if queue.new else self._ring

    def _turn(self) -> SendQueue | None:
        """The queue whose turn it is; where the allowance is used up, one that needs none of it."""
        for ring in (self._new, self._ring):
            if ring and (self.allowance is None or self.allowance > 0):
                return ring[0]
            for position, queue in enumerate(ring):
                item = queue.items[0]
                if not item.credited or item.done >= item.length:
                    ring.rotate(-position)
                    return queue
        return None

    def _allowed(self, queue: SendQueue, item: Item) -> int:
        """Bytes of ``item`` that may go now; -1 if it has to wait for credit."""
        if not item.credited:
            return item.length
        rest = item.length - item.done
        if rest == 0:
            return 0
        whole = item.cmd != Cmd.DATA
        # Not less for a small deficit: what is short now would be short by a message's length in each frame after it,
        # and large files be received and written in crooked pieces (4 GiB down took 3.4 s with that, 3.3 without).
        # And a long payload that credit once cut short goes on with whole frames where the next one would have begun.
        size = rest if whole else min(rest, self.frame_size - item.done % self.frame_size, MAX_DATA_PAYLOAD)
        if self.allowance is not None and not whole:
            size = min(size, self.allowance)
        available = queue.credit.available
        if available < size:
            if whole or available <= 0:
                return -1
            size = available
        if queue.eager:
            if not self._eager.take(size):
                self._eager_waiting.append(queue)
                return -1
            queue.eager_taken += size
        queue.credit.spend(size)
        return size

    def _leave_eager(self, queue: SendQueue) -> None:
        if not queue.eager:
            return
        queue.eager = False
        if queue.eager_taken:
            self._eager.release(queue.eager_taken)
            queue.eager_taken = 0
        for _ in range(len(self._eager_waiting)):
            waiting = self._eager_waiting.popleft()
            if waiting.items:
                self._activate(waiting)


def _whole(frame: Frame) -> bytes:
    header, payload = encode(frame)
    assert isinstance(payload, bytes)
    return header + payload
