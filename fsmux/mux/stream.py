"""One bidirectional, ordered, flow-controlled channel of a connection: what handlers and clients hold.

Theory: sending puts things into the connection's outbox and waits only for room there; receiving takes them from a
memory channel that the connection's reader fills with ``send_nowait``.  Credit is what guarantees that there is room:
bytes become credit again when they are handed to :meth:`Stream.consumed`, which callers do once they reached the disk.

A stream is used as a context manager.  However its scope is left, the peer is told, synchronously: END_STREAM after a
normal exit, RESET after an exception.  Nothing has to be awaited for that, so cancellation cannot prevent it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import trio

from fsmux.errors import ConnectionLost, ErrorCode, FsmuxError, ProtocolError, StreamReset, from_code
from fsmux.limits import INITIAL_CREDIT, INITIAL_WINDOW, MAX_DATA_PAYLOAD, STREAM_BACKLOG
from fsmux.mux.buffers import Data
from fsmux.records import Extent
from fsmux.wire.credit import ReceiveCredit
from fsmux.wire.frames import CREDITED, Cmd, FileSpan, Flags, Frame
from fsmux.wire.messages import Error, Message, Reset, Span, encode
from fsmux.wire.state import opened_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fsmux.mux.pour import Outlet
    from fsmux.mux.queued import SendQueue
    from fsmux.mux.table import StreamTable

SEND_BACKLOG = 8
"""Items a stream may have queued before ``send_data`` waits: four chunks and their trailers."""

FEW_QUEUED = SEND_BACKLOG // 2
"""Items that are left when whoever waits for room is woken: enough that the writer does not find the queue empty before
there is more, and so few that one wake-up is for two chunks."""


class Charged(NamedTuple):
    """A message that took ``size`` bytes of credit, which come back when it is received."""

    message: Message
    size: int


class Waiting(NamedTuple):
    """A message that needs no credit, and takes ``size`` of what may wait unread until it is received."""

    message: Message
    size: int


class Stream:
    """A stream. Made by :meth:`Connection.open_stream` and :meth:`Connection.accept` only; one task at a time receives.

    All waiting methods are cancellable and then have done nothing.  They raise the connection's or the peer's typed
    error once the stream is over.
    """

    __slots__ = (
        "_buffered",
        "_enough",
        "_in",
        "_out",
        "_ranges",
        "_room",
        "_span",
        "_table",
        "_waiting",
        "error",
        "id",
        "in_budget",
        "left",
        "local_ended",
        "outlet",
        "queue",
        "receive_credit",
        "remote_ended",
        "watch",
    )  # fmt: skip

    def __init__(self, table: StreamTable, stream_id: int, queue: SendQueue) -> None:
        self.id = stream_id
        self.queue = queue
        self.receive_credit = ReceiveCredit(INITIAL_CREDIT, INITIAL_WINDOW)
        self.in_budget = False
        self.local_ended = False
        self.remote_ended = False
        self.left = False
        self.watch: Callable[[], None] | None = None
        """Told, in the event loop, whenever more has gone out while somebody waits for that."""
        self.error: FsmuxError | None = None
        self.outlet: Outlet | None = None
        """What takes large payloads to where their SPAN says, if they need not be seen."""
        self._span: Extent | None = None  # what of it is still to come
        self._ranges: deque[Extent] = deque()  # and then these
        self._table = table
        self._waiting = False
        self._enough = 0  # items that may be left when whoever waits is woken
        self._room: trio.Event | None = None
        self._in: trio.MemorySendChannel[Waiting | Data | Charged]
        self._out: trio.MemoryReceiveChannel[Waiting | Data | Charged]
        self._in, self._out = trio.open_memory_channel(STREAM_BACKLOG)

    @property
    def peer_features(self) -> frozenset[str]:
        """What the peer speaks beyond version 1."""
        return self._table.peer_features

    def __repr__(self) -> str:
        return f"<Stream {self.id} of {self._table!r}>"

    # ---- sending ---------------------------------------------------------------------------------------------------

    def send_nowait(self, message: Message, *, end: bool = False) -> None:
        """Queue a message; with ``end`` it is the last thing sent on this stream."""
        self._check_open()
        payload = encode(message)
        if message.CMD in CREDITED:
            self._table.outbox.data(self.queue, message.CMD, memoryview(payload), _end(end))
        else:
            self._table.outbox.message(self.queue, Frame(message.CMD, self.id, payload, _end(end)))
        if end:
            self._end_sent()

    async def send(self, message: Message, *, end: bool = False) -> None:
        """Queue a message once there is room for one more payload on this stream. Always a checkpoint."""
        await self._wait_room()
        self.send_nowait(message, end=end)

    async def send_data(self, payload: FileSpan | bytes | memoryview) -> None:
        """Queue DATA once there is room for one more payload on this stream. Always a checkpoint.

        The payload must stay as it is until it was sent: a span's lease sees to that, bytes are immutable.
        """
        await self._wait_room()
        self._check_open()
        if not isinstance(payload, FileSpan):
            payload = memoryview(payload)
        if len(payload):
            self._table.outbox.data(self.queue, Cmd.DATA, payload)

    def send_later(self, cmd: Cmd, make: Callable[[], Message]) -> None:
        """Queue a message of command ``cmd`` that is made when all that was queued before it has been sent.

        ``make`` runs in the writer's thread. It must be quick and must not fail; not a checkpoint.
        """
        self._check_open()
        self._table.outbox.message_later(self.queue, cmd, lambda: encode(make()))

    async def drained(self) -> None:
        """Return once all that was queued is with the kernel. Always a checkpoint."""
        await self._wait_until(lambda: not (self.queue.queued or self.queue.sending), 0)
        self._raise_if_failed()

    def end(self) -> None:
        """Send END_STREAM behind everything that is queued. Not a checkpoint; the second call does nothing."""
        if not self.local_ended and self.error is None:
            frame = Frame(Cmd.DATA, self.id, b"", Flags.END_STREAM)
            self._table.outbox.message(self.queue, frame)
            self._end_sent()

    def reset(self, code: ErrorCode, text: str = "") -> None:
        """End the stream at once in both directions; the peer learns why. Not a checkpoint."""
        if self.error is None and not (self.local_ended and self.remote_ended):
            # RESET keeps its place among messages: it can overtake neither what opened this stream nor what opens
            # older ones.
            last = Frame(Cmd.RESET, self.id, encode(Reset(code, text)))
            self.fail(from_code(code, text) if text else StreamReset("the transfer was cancelled"), last)

    async def _wait_room(self) -> None:
        await self._wait_until(self._has_room, FEW_QUEUED)

    def _has_room(self) -> bool:
        # One that has nothing queued never waits for others: they may wait for credit for ever.
        queued = self.queue.queued
        return not queued or (queued < SEND_BACKLOG and not self._table.outbox.crowded)

    async def _wait_until(self, ready: Callable[[], bool], enough: int) -> None:
        self._enough = enough
        self._waiting = True  # before the look, because the queue empties in another thread
        while self.error is None and not ready():
            self._room = trio.Event()
            await self._room.wait()
        self._waiting = False
        await trio.lowlevel.checkpoint()

    def on_room(self) -> None:
        """Called by the writer, in whatever thread, when a queued payload has left."""
        if self._waiting:
            # Frames of the greatest size take less than 5 ms each, smaller ones about as long: who counts is told then.
            if self.queue.queued <= self._enough or self._table.outbox.frame_size < MAX_DATA_PAYLOAD:
                self._table.run_soon(self._wake)
        elif self.left and not self.queue.items:
            self._table.run_soon(self._wake)

    @property
    def sent_bytes(self) -> int:
        """Bytes of DATA that have gone out on this stream; what only waits for its turn is not among them."""
        return self.queue.sent_bytes

    def _wake(self) -> None:
        if self.watch is not None:
            self.watch()
        if self._room is not None:
            self._room.set()
        self._table.settle(self)

    def _check_open(self) -> None:
        if self.error is not None:
            raise self.error
        if self.local_ended:
            raise StreamReset("this side of the stream has ended already")

    def _end_sent(self) -> None:
        self.local_ended = True
        self._table.settle(self)

    # ---- receiving -------------------------------------------------------------------------------------------------

    async def receive(self) -> Message | Data | None:
        """The next message or DATA payload; None when the peer has ended its side. Always a checkpoint.

        A payload must be handed to :meth:`consumed`.  Raises the typed error that an ERROR message or RESET carries.
        """
        try:
            return self._checked(await self._out.receive())
        except trio.EndOfChannel:
            self._raise_if_failed()
            return None

    def receive_nowait(self) -> Message | Data | None:
        """Like :meth:`receive`, but raises ``trio.WouldBlock`` instead of waiting."""
        try:
            return self._checked(self._out.receive_nowait())
        except trio.EndOfChannel:
            self._raise_if_failed()
            return None

    async def expect_message(self, *kinds: type[Any]) -> Any:
        """The next message, which must be one of ``kinds``; anything else is the peer's protocol error."""
        item = await self.receive()
        if isinstance(item, kinds):
            return item
        if isinstance(item, Data):
            self.consumed(item)
        found = "the end of the stream" if item is None else type(item).__name__
        wanted = " or ".join(kind.__name__ for kind in kinds)
        text = f"expected {wanted}, got {found}"
        self.reset(ErrorCode.PROTOCOL, text)
        raise StreamReset(f"the peer broke the protocol: {text}")

    def expect(self, remaining: int | None) -> None:
        """Say how many bytes under credit are still to come (None: unknown), so that the budget grants as many."""
        self._table.expect(self, remaining)

    def consumed(self, data: Data) -> None:
        """A payload has reached where it belongs: its buffer is free and its bytes become credit. Not a checkpoint."""
        self._table.consumed(self, data)

    def _checked(self, item: Waiting | Data | Charged) -> Message | Data:
        if isinstance(item, Data):
            return item
        if isinstance(item, Charged):
            self._table.consumed_bytes(self, item.size)
            return item.message
        self._table.read(item.size)
        if isinstance(item.message, Error):
            raise from_code(item.message.code, item.message.text)
        return item.message

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            raise self.error

    # ---- called by the connection ----------------------------------------------------------------------------------

    def begin_span(self, span: Span) -> None:
        """DATA from here on belongs to this extent of a file."""
        if self._ranges or (self._span is not None and self._span.length):
            raise ProtocolError("a span began before the last one was full")
        self._span = Extent(span.offset, span.length)
        self._ranges.extend(span.ranges)

    def locate(self, length: int) -> tuple[Extent, ...]:
        """Where in a file the next ``length`` bytes of DATA belong; nowhere on a stream without spans."""
        span = self._span
        if span is None:
            return ()
        places: list[Extent] = []
        while length > span.length:
            if not self._ranges:
                raise ProtocolError("more data than its span has room for")
            if span.length:
                places.append(span)
            length -= span.length
            span = self._ranges.popleft()
        self._span = Extent(span.offset + length, span.length - length)
        return (*places, Extent(span.offset, length))

    def may_locate(self, length: int) -> int | None:
        """Where it would be if it is one place, else None; nothing is an error here."""
        span = self._span
        if span is not None and not span.length and self._ranges:
            span = self._ranges[0]
        return None if span is None or length > span.length else span.offset

    def deliver(self, item: Waiting | Data | Charged) -> bool:
        """Hand over what arrived. False if there is no room, which is the peer's fault, or nobody reads any more."""
        try:
            self._in.send_nowait(item)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    def deliver_end(self) -> None:
        self.remote_ended = True
        self._in.close()
        self._table.settle(self)

    def fail(self, error: FsmuxError, last: Frame | None = None) -> None:
        """End the stream both ways with ``error``; what waits unread or unsent is dropped, but for ``last``."""
        if self.error is None:
            self.error = error
        self.local_ended = self.remote_ended = True
        self._discard_unread()
        self._in.close()
        self._wake()
        self._table.outbox.drop(self.queue, last)
        self._table.settle(self)

    def _discard_unread(self) -> None:
        while True:
            try:
                item = self._out.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                return
            if isinstance(item, Data):
                self._table.consumed(self, item)
            elif isinstance(item, Waiting):
                self._table.read(item.size)

    # ---- scope -----------------------------------------------------------------------------------------------------

    def close(self, exc: BaseException | None = None) -> None:
        """Leave the stream: END_STREAM, or RESET with ``exc`` or before the answer has ended. Not a checkpoint.

        Twice is no more than once.
        """
        if self.left:
            return
        if exc is not None:
            if isinstance(exc, FsmuxError) and not isinstance(exc, ConnectionLost):
                self.reset(exc.code, str(exc))
            else:
                self.reset(ErrorCode.CANCELLED)
        elif self.local_ended and not self.remote_ended and opened_by(self.id) is self._table.role:
            self.reset(ErrorCode.CANCELLED)  # nobody wants the rest of the answer, and its sender would wait
        else:
            self.end()
        self.left = True
        self._discard_unread()
        self._out.close()
        self._table.settle(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close(exc)


def _end(end: bool) -> int:
    return Flags.END_STREAM if end else 0
