"""The streams of one connection: which exist, where their frames go, and what their peer may still send.

Theory: one object owns the table, and with it the count of open streams, the buffers and the credit, so that they
cannot drift apart.  It is called by the connection's reader, frame by frame, and by the streams themselves; all of it
is synchronous.  A stream knows this table and not the connection.

A stream counts as open until it is over in both directions, all of it was sent, and whoever works for it has left.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import trio

from fsmux import limits
from fsmux.errors import ErrorCode, FlowControlError, FsmuxError, ProtocolError, RefusedError, from_code
from fsmux.mux.buffers import BufferPool, Data
from fsmux.mux.pour import POUR_MIN, Pour
from fsmux.mux.queued import SendQueue
from fsmux.mux.sizing import FrameSizer
from fsmux.mux.standing import ASKED_SECONDS
from fsmux.mux.stream import Charged, Stream, Waiting
from fsmux.records import Extent
from fsmux.wire.credit import CreditBudget, EagerBudget, SendCredit
from fsmux.wire.frames import CREDITED, SESSION, Cmd, Flags, Frame, Header
from fsmux.wire.messages import COMMANDS, Error, Hello, Message, Reset, Span, decode, encode
from fsmux.wire.state import Role, first_id, opened_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsmux.mux.outbox import Outbox

MAX_STRAY_FRAMES = 10_000
"""Frames for streams that are over already, beyond which a peer is not late but hostile: all that the receive budget
lets be on its way is a thousand frames of DATA and what belongs to them."""

STRAY_FRAMES_PER_SECOND = 2_000
"""How many more there may be in the long run: streams may be cancelled all day."""


class StreamTable:
    """For the event loop only, but for :meth:`run_soon` and :meth:`file_was_short`."""

    def __init__(self, role: Role, outbox: Outbox, max_streams: int, is_near: Callable[[], bool]) -> None:
        self.outbox = outbox
        self.rtt: float | None = None
        self.refusing = False
        """Whether this side said GOAWAY: the peer opens nothing any more."""
        self.role = role
        self._max_streams = max_streams
        self._peer_max_streams = 0
        self._peer_initial_credit = 0
        self.peer_features: frozenset[str] = frozenset()
        self._token = trio.lowlevel.current_trio_token()
        self._streams: dict[int, Stream] = {}
        self._next_id = first_id(role)
        self._highest_peer_id = 0
        self._peer_streams = 0
        self._stray = 0.0
        self._strayed_at = 0.0
        self._unread = 0
        self._pool = BufferPool()
        self._placed: Data | None = None
        self._is_near = is_near
        self._narrow_until = -math.inf
        self._budget = CreditBudget(limits.RECEIVE_BUDGET, limits.MIN_WINDOW, limits.MAX_WINDOW)
        self._sizer = FrameSizer(self._budget, limits.FRAME_SECONDS)
        self._eager = EagerBudget(limits.EAGER_CREDIT)
        self._eager_taken: dict[int, int] = {}
        self._accept_in, self.accepted = trio.open_memory_channel[Stream](limits.MAX_STREAMS)

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def slabs(self) -> int:
        return self._pool.allocated

    def greet(self, hello: Hello) -> None:
        """Take what the peer allows."""
        self._peer_max_streams = hello.max_streams
        self._peer_initial_credit = hello.initial_credit
        self.peer_features = frozenset(hello.features)

    def open(self, first: Message, *, end: bool) -> Stream:
        """For :meth:`Connection.open_stream`."""
        if len(self._streams) - self._peer_streams >= self._peer_max_streams:
            raise RefusedError(f"the peer allows {self._peer_max_streams} streams at once")
        if not self.outbox.takes_requests:
            raise RefusedError("more is asked at once than the connection takes; wait for some answers")
        payload = encode(first)  # before the id is taken: a message that cannot be encoded opens nothing
        stream = self._add_stream(self._next_id)
        self._next_id += 2
        flags = Flags.END_STREAM if end else 0
        self.outbox.message(stream.queue, Frame(first.CMD, stream.id, payload, flags))
        stream.local_ended = end
        return stream

    def extend(self, grants: Iterable[tuple[int, int]]) -> None:
        """The peer granted credit, as (stream, absolute limit)."""
        for stream_id, limit in grants:
            stream = self._streams.get(stream_id)
            if stream is not None:
                self.outbox.extend(stream.queue, limit)

    def fail(self, error: FsmuxError) -> None:
        """The connection is over: every stream ends with ``error``, and no more come."""
        for stream in list(self._streams.values()):
            stream.fail(error)
        self._accept_in.close()

    def close(self) -> None:
        """Nothing arrives any more: no buffers are kept for it."""
        self._placed = None
        self._pool.close()

    # ---- for streams -----------------------------------------------------------------------------------------------

    def run_soon(self, fn: Callable[[], None]) -> None:
        """Run ``fn`` in the event loop; may be called from any thread."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(fn)

    def expect(self, stream: Stream, remaining: int | None) -> None:
        stream.receive_credit.expect(remaining)
        if not stream.in_budget and not stream.remote_ended:
            stream.in_budget = True
            self._budget.add(stream.id, stream.receive_credit)
        self._grant()

    def consumed(self, stream: Stream, data: Data) -> None:
        length = data.length
        if not data.released:
            self._pool.release(data)
            self.consumed_bytes(stream, length)

    def consumed_bytes(self, stream: Stream, count: int) -> None:
        now = trio.current_time()
        self._budget.widest = limits.ASKED_WINDOW if now < self._narrow_until else limits.MAX_WINDOW
        self._sizer.moved(count, now)
        stream.receive_credit.on_consumed(count, now, self.rtt)
        if stream.in_budget:
            self._grant()

    def read(self, size: int) -> None:
        """A message without credit was taken off its stream's queue."""
        self._unread -= size

    def settle(self, stream: Stream) -> None:
        """Forget the stream if it is over in both directions, sent out, and nobody works for it any more."""
        if stream.remote_ended and stream.in_budget:
            stream.in_budget = False
            self._budget.remove(stream.id)
            self._release_eager(stream.id)
            self._grant()
        if not (stream.local_ended and stream.remote_ended):
            return
        # For the peer the early bytes ceased to count with the frame that ended the stream, so for us they must, too.
        self._release_eager(stream.id)
        if stream.left and not stream.queue.items and stream.id in self._streams:
            del self._streams[stream.id]
            self.outbox.finish(stream.queue)
            if opened_by(stream.id) is not self.role:
                self._peer_streams -= 1

    def _grant(self) -> None:
        for stream_id, limit in self._budget.pump():
            self._release_eager(stream_id)
            self.outbox.grant(stream_id, limit)

    def _release_eager(self, stream_id: int) -> None:
        taken = self._eager_taken.pop(stream_id, 0)
        if taken:
            self._eager.release(taken)

    def _add_stream(self, stream_id: int) -> Stream:
        queue = SendQueue(stream_id, SendCredit(self._peer_initial_credit), _nothing)
        stream = Stream(self, stream_id, queue)
        queue.on_room = stream.on_room
        self._streams[stream_id] = stream
        return stream

    # ---- what arrives ----------------------------------------------------------------------------------------------

    def place(self, header: Header) -> list[memoryview] | None:
        """Where a DATA payload is to be received; None to drop it."""
        stream = self._streams.get(header.stream_id)
        if stream is None or stream.left or stream.remote_ended:
            return None
        try:
            self._charge(stream, header.length)
            places = stream.locate(header.length)
        except FsmuxError as exc:
            stream.reset(exc.code, str(exc))
            return None
        self._placed = data = self._pool.place(header.length, places)
        return data.views

    def pour(self, header: Header, least: int = POUR_MIN) -> Pour | None:
        """How a DATA payload gets straight to the disk; None if it does not, and :meth:`place` is to be asked.

        It does not if it has less than ``least`` bytes.

        May be asked in the reader's thread while the event loop works: what is changed here, nobody but the reader
        changes.
        """
        stream = self._streams.get(header.stream_id)
        if stream is None or stream.left or stream.remote_ended:
            return None
        if header.length < least:
            return None
        credit, outlet = stream.receive_credit, stream.outlet
        if outlet is None or not credit.announced or credit.received + header.length > credit.granted:
            return None
        offset = stream.may_locate(header.length)
        if offset is None or not outlet.takes(offset, header.length):
            return None
        credit.on_received(header.length)
        stream.locate(header.length)
        return Pour(stream, offset, header.length, outlet)

    def begin_span(self, frame: Frame) -> bool:
        """Take a SPAN, in the reader's thread as well. False if it is not in order, and to be dispatched as usual."""
        stream = self._streams.get(frame.stream_id)
        if stream is None or stream.left or stream.remote_ended or frame.flags:
            return False
        try:
            span = decode(frame.cmd, frame.said())
            assert isinstance(span, Span)
            if span.speaks:
                return False  # of which the stream's owner is to hear
            stream.begin_span(span)
        except FsmuxError:
            return False
        return True

    def poured(self, pour: Pour) -> list[memoryview] | None:
        """A payload was poured as far as it goes: its stream hears of that, and what is left goes where this says."""
        stream = pour.stream
        data = Data(pour.done, [], places=(Extent(pour.offset, pour.done),), pour=pour)
        if stream.left or stream.remote_ended or not stream.deliver(data):
            self.consumed(stream, data)
            return None
        if not pour.left or pour.error is not None:
            return None
        self._placed = rest = self._pool.place(pour.left, (Extent(pour.offset + pour.done, pour.left),))
        return rest.views

    def _charge(self, stream: Stream, size: int) -> None:
        credit = stream.receive_credit
        credit.on_received(size)
        if not credit.announced:
            if not self._eager.take(size):
                raise FlowControlError("more early data than allowed over all streams")
            self._eager_taken[stream.id] = self._eager_taken.get(stream.id, 0) + size

    def dispatch(self, frame: Frame) -> None:
        """Hand a frame to its stream. Raises :class:`ProtocolError` if no correct peer sends it."""
        stream = self._streams.get(frame.stream_id)
        if frame.cmd != Cmd.DATA and frame.cmd != Cmd.RESET and frame.cmd not in COMMANDS:
            self._on_unknown(stream, frame)
            if stream is not None and frame.flags & Flags.END_STREAM and not stream.remote_ended:
                stream.deliver_end()
            return
        if stream is None:
            stream = self._new_peer_stream(frame)
        data, self._placed = (self._placed, None) if frame.cmd == Cmd.DATA else (None, self._placed)
        if frame.cmd == Cmd.RESET and stream is not None and stream.error is None:  # its sender may have ended its half
            fault = decode(frame.cmd, frame.said())
            assert isinstance(fault, Reset)
            stream.fail(from_code(fault.code, fault.text or "the peer cancelled the transfer"))
            return
        if stream is None or stream.left or stream.remote_ended:
            self._on_stray(stream, frame, data)
            return
        if frame.cmd == Cmd.DATA:
            if data is not None and not stream.deliver(data):
                self.consumed(stream, data)
                stream.reset(ErrorCode.FLOW_CONTROL, "more frames than anybody reads")
                return
        else:
            self._on_message(stream, frame)
        if frame.flags & Flags.END_STREAM and not stream.remote_ended:
            stream.deliver_end()

    def _on_message(self, stream: Stream, frame: Frame) -> None:
        if self._budget.outstanding and not stream.in_budget and frame.cmd not in SESSION and self._is_near():
            # A request or an answer beside what is received in bulk, and the next one would wait behind that.
            self._narrow_until = trio.current_time() + ASKED_SECONDS
        try:
            message = decode(frame.cmd, frame.said())
            if frame.cmd in CREDITED:
                self._charge(stream, frame.length)
            elif isinstance(message, Span):
                stream.begin_span(message)
                if not message.speaks:
                    return
        except FsmuxError as exc:
            stream.reset(exc.code, str(exc))
            return
        if frame.cmd in CREDITED:
            delivered = stream.deliver(Charged(message, frame.length))
        else:
            size = frame.length + limits.MESSAGE_COST
            delivered = self._unread + size <= limits.MAX_UNREAD and stream.deliver(Waiting(message, size))
            self._unread += size * delivered
        if not delivered:
            stream.reset(ErrorCode.FLOW_CONTROL, "more frames than anybody reads")

    def _new_peer_stream(self, frame: Frame) -> Stream | None:
        stream_id = frame.stream_id
        if opened_by(stream_id) is self.role:
            if stream_id >= self._next_id:
                raise ProtocolError(f"stream {stream_id} was never opened")
            return None
        if stream_id <= self._highest_peer_id:
            return None
        if frame.cmd == Cmd.DATA:
            raise ProtocolError(f"stream {stream_id} begins with DATA")
        self._highest_peer_id = stream_id
        if frame.cmd == Cmd.RESET:  # it overtook the message that was to open the stream
            return None
        if self.refusing or self._peer_streams >= self._max_streams:
            code, text = ErrorCode.REFUSED, "too many streams at once"
            if self.refusing:
                code, text = ErrorCode.SHUTDOWN, "going away"
            self.outbox.urgent(Frame(Cmd.RESET, stream_id, encode(Reset(code, text))))
            return None
        stream = self._add_stream(stream_id)
        self._peer_streams += 1
        try:
            self._accept_in.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError):
            stream.reset(ErrorCode.REFUSED, "too many streams at once")
            stream.close()
        return stream

    def _on_unknown(self, stream: Stream | None, frame: Frame) -> None:
        """A command of a later version: it fails on its own stream, and the connection lives."""
        if stream is None and opened_by(frame.stream_id) is not self.role and frame.stream_id > self._highest_peer_id:
            self._highest_peer_id = frame.stream_id
        error = Error(ErrorCode.UNSUPPORTED, f"this peer does not know command {frame.cmd}")
        if stream is None:
            self.outbox.urgent(Frame(Cmd.ERROR, frame.stream_id, encode(error), Flags.END_STREAM))
        elif not stream.local_ended:
            stream.send_nowait(error, end=True)

    def _on_stray(self, stream: Stream | None, frame: Frame, data: Data | None) -> None:
        """A frame for a stream that is over here: the peer may not have known. Its END or RESET ends the stream."""
        if data is not None:
            self._pool.release(data)
        if stream is not None and not stream.remote_ended:
            if frame.cmd == Cmd.RESET or frame.flags & Flags.END_STREAM:
                stream.deliver_end()
            return
        now = trio.current_time()
        self._stray = max(self._stray - (now - self._strayed_at) * STRAY_FRAMES_PER_SECOND, 0) + 1
        self._strayed_at = now
        if self._stray > MAX_STRAY_FRAMES:
            raise ProtocolError("too many frames for streams that are over")

    def file_was_short(self, stream_id: int, error: OSError | None) -> None:
        """A span's file ended early, or could not be read, and zeros filled its frame: the stream cannot go on.

        From any thread.
        """
        if error is None:
            code, text = ErrorCode.SOURCE_CHANGED, "the file became shorter while it was being sent"
        else:
            code, text = ErrorCode.IO, f"the file cannot be read: {(error.strerror or 'unknown').lower()}"

        def reset() -> None:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.reset(code, text)

        self.run_soon(reset)


def _nothing() -> None:
    pass
