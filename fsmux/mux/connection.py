"""One connection: a reader task, a writer task, a keepalive, and the table of streams between them.

Theory.  The reader is the demultiplexer: it fills buffers, decodes frames and hands each to its stream with
``send_nowait``.  It awaits neither a stream nor the writer, so no stream can stop another and two peers cannot
deadlock.  The writer empties the outbox.  Both are service tasks: they live in a nursery that is created and left
inside :func:`open_connection`, and they outlive its users.

Failure has one shape: :meth:`Connection._fail` records the first error, hands it to every stream and to every waiting
task, and stops the services.  Nothing is raised into anybody's nursery; users meet the error in the stream operation
that they are in or do next.
"""

from __future__ import annotations

import contextlib
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio

from fsmux import limits
from fsmux.errors import (
    ConnectionLost,
    ErrorCode,
    FlowControlError,
    FsmuxError,
    InternalError,
    PeerShutdown,
    ProtocolError,
    RefusedError,
    Unsupported,
    VersionMismatch,
    from_code,
)
from fsmux.mux.buffers import BufferPool, Data
from fsmux.mux.outbox import Outbox, SendQueue
from fsmux.mux.service import serving
from fsmux.mux.stream import Charged, Stream
from fsmux.mux.throttle import Throttle
from fsmux.wire.credit import CreditBudget, EagerBudget, SendCredit
from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import CREDITED, PACE_FEATURE, VERSION, Cmd, Flags, Frame, Header
from fsmux.wire.messages import (
    COMMANDS,
    Auth,
    Credit,
    Error,
    Goaway,
    Hello,
    Message,
    Pace,
    Ping,
    Pong,
    Reset,
    decode,
    encode,
)
from fsmux.wire.state import ConnectionPhase, Role, first_id, legal, opened_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fsmux.mux.transport import Transport

logger = logging.getLogger("fsmux.mux")

MAX_STRAY_FRAMES = 10_000
"""Frames for streams that are over already, beyond which a peer is not late but hostile."""

READ_CHECKPOINT = 1 * limits.MIB
"""Bytes the reader takes in before it lets other tasks run, when there is always more."""

ACTIVE_PING_SECONDS = 2.0
"""Seconds between two measurements of the round trip while data arrives: credit windows are tuned by it."""

BUSY_BYTES = 64 * limits.KIB
"""Bytes between two such measurements below which nothing is worth tuning; pings themselves are a few dozen."""

FRAME_COST = 4 * limits.KIB
"""Bytes that a frame counts as, beside its own, when the reader decides to let other tasks run."""


class Handshake(Protocol):
    """Proves who the peers are, over AUTH messages. Returns what the connection shall call its user."""

    def __call__(self, connection: Connection) -> Awaitable[Any]: ...


class Connection:
    """A connection that has been greeted and authenticated. Made by :func:`open_connection` only."""

    def __init__(self, transport: Transport, role: Role, hello: Hello, handshake: Handshake | None) -> None:
        self.transport = transport
        self.role = role
        self.hello = hello
        self.peer_hello: Hello = Hello()
        self.user: Any = None
        self.rtt: float | None = None
        self.failure: FsmuxError | None = None
        self.outbox = Outbox(limits.INITIAL_CREDIT, self._wake_writer)
        self.throttle = Throttle()
        """What limits the bytes under credit that are sent here; connections of one session may share one."""
        self._token = trio.lowlevel.current_trio_token()
        self._handshake = handshake
        self._phase = ConnectionPhase.GREETING
        self._greeted = trio.Event()
        self._opened = trio.Event()
        self._streams: dict[int, Stream] = {}
        self._next_id = first_id(role)
        self._highest_peer_id = 0
        self._peer_streams = 0
        self._stray = 0
        self._pool = BufferPool()
        self._placed: Data | None = None
        self._decoder = Decoder(self._max_payload, self._place)
        self._budget = CreditBudget(limits.RECEIVE_BUDGET, limits.MIN_WINDOW, limits.MAX_WINDOW)
        self._eager = EagerBudget(limits.EAGER_CREDIT)
        self._eager_taken: dict[int, int] = {}
        self._peer_leaving = False
        self._leaving = False
        self._service = trio.CancelScope()
        self._sendable = trio.Event()
        self._sent_all = trio.Event()
        self._changed = trio.Event()
        self._auth_in, self._auth_out = trio.open_memory_channel[Auth](4)
        self._accept_in, self._accept_out = trio.open_memory_channel[Stream](limits.MAX_STREAMS)
        self._heard = trio.current_time()
        self._received_bytes = 0
        self._pings: dict[int, tuple[float, trio.Event]] = {}
        self._ping_token = 0

    def __repr__(self) -> str:
        return f"<Connection {self.role.name.lower()} with {self.transport.peer}>"

    # ---- for users -------------------------------------------------------------------------------------------------

    def open_stream(self, first: Message, *, end: bool = False) -> Stream:
        """A new stream, opened by its first message. Not a checkpoint.

        Both at once, because ids must reach the peer in the order in which they were given out.

        Raises:
            PeerShutdown: the peer said that it is going away.
            ConnectionLost: the connection is over.
            RefusedError: the peer would have more streams than it allows.
        """
        if self.failure is not None:
            raise self.failure
        if self._peer_leaving:
            raise PeerShutdown("the peer is going away")
        if len(self._streams) - self._peer_streams >= self.peer_hello.max_streams:
            raise RefusedError(f"the peer allows {self.peer_hello.max_streams} streams at once")
        payload = encode(first)  # before the id is taken: a message that cannot be encoded opens nothing
        stream = self._add_stream(self._next_id)
        self._next_id += 2
        flags = Flags.END_STREAM if end else 0
        self.outbox.message(stream.queue, Frame(first.CMD, stream.id, payload, flags))
        stream.local_ended = end
        return stream

    async def accept(self) -> Stream | None:
        """The next stream that the peer opened; None when the connection is over. Cancellable, loses nothing."""
        try:
            return await self._accept_out.receive()
        except trio.EndOfChannel:
            return None

    async def ping(self) -> float:
        """Seconds that the peer took to answer. Raises :class:`ConnectionLost` if it is lost meanwhile."""
        if self.failure is not None:
            raise self.failure
        self._ping_token += 1
        token = self._ping_token
        answered = trio.Event()
        self._pings[token] = (trio.current_time(), answered)
        self.outbox.urgent(Frame(Cmd.PING, 0, encode(Ping(token))))
        started = trio.current_time()
        try:
            await answered.wait()
        finally:
            self._pings.pop(token, None)
        if self.failure is not None:
            raise self.failure
        return trio.current_time() - started

    def goaway(self) -> None:
        """Tell the peer to open no further streams; those that are open go on."""
        if self.failure is None and not self._leaving:
            self._leaving = True
            self.outbox.urgent(Frame(Cmd.GOAWAY, 0, encode(Goaway(0, ""))))

    def limit_sending(self, rate: int | None) -> None:
        """Send at most ``rate`` bytes under credit per second over all streams; None: as many as possible."""
        self.throttle.limit(rate, trio.current_time())
        self._wake_writer()

    def limit_receiving(self, rate: int | None) -> None:
        """Have the peer send at most so many. Raises :class:`Unsupported` if it cannot."""
        if PACE_FEATURE not in self.peer_hello.features:
            raise Unsupported("the peer cannot limit the rate at which it sends; both sides need this release of fsmux")
        if self.failure is None:
            self.outbox.urgent(Frame(Cmd.PACE, 0, encode(Pace(rate or 0))))

    @property
    def orderly(self) -> bool:
        """Whether one of the two sides said GOAWAY, so that the end of the connection is no loss."""
        return self._leaving or self._peer_leaving

    @property
    def open_streams(self) -> int:
        """Streams whose work has not ended, whoever opened them."""
        return len(self._streams)

    async def wait_idle(self) -> None:
        """Return once no stream is open."""
        while self._streams and self.failure is None:
            await self._changed.wait()

    def statistics(self) -> dict[str, float | int | None]:
        """Figures for logs and tests: open streams, slabs of buffers, frame size, round trip in seconds."""
        return {
            "streams": len(self._streams),
            "slabs": self._pool.allocated,
            "frame_size": self.outbox.frame_size,
            "rtt": self.rtt,
            "received": self._received_bytes,
        }

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
        stream.receive_credit.on_consumed(count, trio.current_time(), self.rtt)
        if stream.in_budget:
            self._grant()

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
            self._changed.set()
            self._changed = trio.Event()

    def _grant(self) -> None:
        for stream_id, limit in self._budget.pump():
            self._release_eager(stream_id)
            self.outbox.grant(stream_id, limit)

    def _release_eager(self, stream_id: int) -> None:
        taken = self._eager_taken.pop(stream_id, 0)
        if taken:
            self._eager.release(taken)

    def _add_stream(self, stream_id: int) -> Stream:
        queue = SendQueue(stream_id, SendCredit(self.peer_hello.initial_credit), _nothing)
        stream = Stream(self, stream_id, queue)
        queue.on_room = stream.on_room
        self._streams[stream_id] = stream
        return stream

    # ---- handshake -------------------------------------------------------------------------------------------------

    async def send_auth(self, message: Auth) -> None:
        """Send one SASL step; the server's ``done`` opens the connection. For handshakes only."""
        self.outbox.urgent(Frame(Cmd.AUTH, 0, encode(message)))
        if message.done and self.role is Role.SERVER:
            self._phase = ConnectionPhase.OPEN  # before the peer can have read it and sent its first request
        await trio.lowlevel.checkpoint()

    async def receive_auth(self) -> Auth:
        """The peer's next SASL step. For handshakes only; raises what ended the connection meanwhile."""
        try:
            return await self._auth_out.receive()
        except trio.EndOfChannel:
            raise self.failure or ConnectionLost("the connection ended during authentication") from None

    async def _greet(self) -> None:
        self.outbox.urgent(Frame(Cmd.HELLO, 0, encode(self.hello)))
        await self._greeted.wait()
        if self.failure is not None:
            raise self.failure
        if self._handshake is not None:
            self.user = await self._handshake(self)
            self._phase = ConnectionPhase.OPEN
        self._opened.set()

    # ---- reader ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        since_checkpoint = 0
        receive, decoder = self.transport.receive_into, self._decoder
        while True:
            count = await receive(decoder.buffers())
            if count == 0:
                text = "the peer closed the connection" + (" inside a frame" if decoder.mid_frame else "")
                raise ConnectionLost(text)
            self._heard = trio.current_time()
            self._received_bytes += count
            for frame in decoder.advance(count):
                self._dispatch(frame)
                since_checkpoint += FRAME_COST
            since_checkpoint += count
            if since_checkpoint >= READ_CHECKPOINT:
                since_checkpoint = 0
                await trio.lowlevel.checkpoint()

    def _max_payload(self, header: Header) -> int:
        if not legal(self._phase, header.cmd, header.stream_id):
            raise ProtocolError(f"command {header.cmd} is not allowed now")
        if self._phase is not ConnectionPhase.OPEN:
            return limits.MAX_PREAUTH_PAYLOAD
        return limits.MAX_DATA_PAYLOAD if header.cmd == Cmd.DATA else limits.MAX_CONTROL_PAYLOAD

    def _place(self, header: Header) -> list[memoryview] | None:
        stream = self._streams.get(header.stream_id)
        if stream is None or stream.left or stream.remote_ended:
            return None
        try:
            self._charge(stream, header.length)
        except FlowControlError as exc:
            stream.reset(exc.code, str(exc))
            return None
        self._placed = data = self._pool.place(header.length)
        return data.views

    def _charge(self, stream: Stream, size: int) -> None:
        credit = stream.receive_credit
        credit.on_received(size)
        if not credit.announced:
            if not self._eager.take(size):
                raise FlowControlError("more early data than allowed over all streams")
            self._eager_taken[stream.id] = self._eager_taken.get(stream.id, 0) + size

    def _dispatch(self, frame: Frame) -> None:
        if frame.stream_id == 0:
            self._on_connection_frame(frame)
            return
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
            fault = decode(frame.cmd, _bytes(frame))
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
        try:
            message = decode(frame.cmd, _bytes(frame))
            if frame.cmd in CREDITED:
                self._charge(stream, frame.length)
        except FsmuxError as exc:
            stream.reset(exc.code, str(exc))
            return
        if not stream.deliver(Charged(message, frame.length) if frame.cmd in CREDITED else message):
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
        if self._leaving or self._peer_streams >= self.hello.max_streams:
            text = "going away" if self._leaving else "too many streams at once"
            self.outbox.urgent(Frame(Cmd.RESET, stream_id, encode(Reset(ErrorCode.REFUSED, text))))
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
        self._stray += 1
        if self._stray > MAX_STRAY_FRAMES:
            raise ProtocolError("too many frames for streams that are over")

    def _on_connection_frame(self, frame: Frame) -> None:
        message = decode(frame.cmd, _bytes(frame))
        match message:
            case Credit(grants=grants):
                for stream_id, limit in grants:
                    stream = self._streams.get(stream_id)
                    if stream is not None:
                        self.outbox.extend(stream.queue, limit)
            case Ping(token=token):
                self.outbox.urgent(Frame(Cmd.PONG, 0, encode(Pong(token))))
            case Pong(token=token):
                waiting = self._pings.pop(token, None)
                if waiting is not None:
                    rtt = trio.current_time() - waiting[0]
                    self.rtt = rtt if self.rtt is None else min(rtt, self.rtt * 1.1)
                    waiting[1].set()
            case Pace(rate=rate):
                self.limit_sending(rate or None)
            case Hello():
                self._on_hello(message)
            case Auth():
                if message.done and self.role is Role.CLIENT:
                    # The server goes on at once. Its own proof is still to be checked, before anything is asked of it.
                    self._phase = ConnectionPhase.OPEN
                try:
                    self._auth_in.send_nowait(message)
                except trio.WouldBlock:
                    raise ProtocolError("too many AUTH frames") from None
            case Goaway(code=code, text=text):
                if code:
                    raise from_code(code, text)
                self._peer_leaving = True
            case _:
                raise ProtocolError(f"command {frame.cmd} is not for the connection")

    def _on_hello(self, hello: Hello) -> None:
        if self._greeted.is_set():
            raise ProtocolError("a second HELLO")
        if not hello.min_version <= VERSION <= hello.max_version:
            raise VersionMismatch(
                f"the peer speaks versions {hello.min_version} to {hello.max_version} of the protocol, "
                f"this is version {VERSION}; use the same release of fsmux on both sides"
            )
        self.peer_hello = hello
        self.outbox.set_eager_credit(hello.eager_credit)
        # Here and not in the greeting task: the peer's next frame may be behind this one in the same buffer.
        authenticating = self._handshake is not None and (self.role is Role.SERVER or hello.mechanisms)
        self._phase = ConnectionPhase.AUTHENTICATING if authenticating else ConnectionPhase.OPEN
        self._greeted.set()

    # ---- writer and keepalive --------------------------------------------------------------------------------------

    def _wake_writer(self) -> None:
        if not self._sendable.is_set():
            self._sendable.set()

    async def _write(self) -> None:
        while True:
            if self.outbox.idle:
                self._sent_all.set()
                self._sendable = trio.Event()
                if self.outbox.idle:
                    await self._sendable.wait()
                if self.failure is not None:
                    return  # what is queued now is the GOAWAY that says why: for whoever ends the connection to send
                self._sent_all = trio.Event()
            if self.throttle.rate is None:
                self.outbox.allowance = None
                await self.transport.pump(self.outbox, self._on_short_span)
            else:
                await self._pump_at_rate()

    async def _pump_at_rate(self) -> None:
        """Send what the rate allows now, or wait until it allows something or there is something else to send."""
        outbox, throttle = self.outbox, self.throttle
        outbox.allowance = throttle.take(trio.current_time()) if outbox.has_bulk else 0
        try:
            if not outbox.held:
                await self.transport.pump(outbox, self._on_short_span)
                return
        finally:
            throttle.give_back(outbox.allowance)
            outbox.allowance = 0
        self._sendable = trio.Event()
        if outbox.held:
            with trio.move_on_at(throttle.ready_at(trio.current_time())):
                await self._sendable.wait()

    def _on_short_span(self, stream_id: int) -> None:
        def reset() -> None:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.reset(ErrorCode.SOURCE_CHANGED, "the file became shorter while it was being sent")

        self.run_soon(reset)

    async def _keep_alive(self) -> None:
        measured = -BUSY_BYTES
        await self._opened.wait()
        while True:
            silent = trio.current_time() - self._heard
            if silent >= limits.DEAD_SECONDS:
                raise ConnectionLost(f"the peer has been silent for {silent:.0f} s")
            if silent >= limits.KEEPALIVE_SECONDS or self._received_bytes - measured >= BUSY_BYTES:
                with trio.move_on_after(limits.DEAD_SECONDS - silent) as waiting:
                    await self.ping()
                measured = self._received_bytes
                if waiting.cancelled_caught:
                    continue
            await trio.sleep(ACTIVE_PING_SECONDS)

    def _services(self) -> list[Callable[[], Awaitable[None]]]:
        """The service tasks; whatever ends one ends the connection."""

        def guarded(task: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
            async def run() -> None:
                try:
                    await task()
                except FsmuxError as exc:
                    self._fail(exc)
                except Exception as exc:  # a bug ends its own connection and not the server
                    logger.exception("a connection failed unexpectedly (%s)", self.transport.peer)
                    self._fail(InternalError(f"the connection failed unexpectedly: {exc!r}"))

            return run

        return [guarded(task) for task in (self._read, self._write, self._keep_alive)]

    # ---- the end ---------------------------------------------------------------------------------------------------

    def _fail(self, error: FsmuxError) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if not isinstance(error, ConnectionLost) and self._phase is not ConnectionPhase.CLOSED:
            with contextlib.suppress(ConnectionLost):
                self.outbox.urgent(Frame(Cmd.GOAWAY, 0, encode(Goaway(error.code, str(error)[:1000]))))
        for stream in list(self._streams.values()):
            stream.fail(error)
        self._accept_in.close()
        self._auth_in.close()
        self._greeted.set()
        self._changed.set()
        self._sent_all.set()
        for _, event in self._pings.values():
            event.set()
        self._service.cancel()

    async def _finish(self, seconds: float) -> None:
        """Say goodbye, let what is queued leave, and stop the services, all within ``seconds``."""
        with trio.move_on_after(seconds, shield=True), contextlib.suppress(FsmuxError):
            if self.failure is None:
                self.goaway()
                while not (self.outbox.idle and self._sent_all.is_set()) and self.failure is None:
                    await self._sent_all.wait()
                    await trio.lowlevel.checkpoint()
            elif not isinstance(self.failure, ConnectionLost):
                await self.transport.pump(self.outbox, self._on_short_span)  # the GOAWAY that says why
        self._phase = ConnectionPhase.CLOSED
        self._fail(ConnectionLost("the connection was closed here"))


@asynccontextmanager
async def open_connection(
    transport: Transport, role: Role, hello: Hello, handshake: Handshake | None = None
) -> AsyncIterator[Connection]:
    """Greet, authenticate and serve a connection for as long as the block runs; owns ``transport`` and closes it.

    Leaving the block says GOAWAY, gives queued frames ``DRAIN_SECONDS`` to leave, and closes the socket; streams that
    are still open are ended with :class:`ConnectionLost`.  Errors of the block come out as they are, never in a group.

    Raises:
        ConnectionLost, ProtocolError, VersionMismatch, AuthError: the greeting or the handshake failed, or took longer
            than ``HANDSHAKE_SECONDS``.
    """
    connection = Connection(transport, role, hello, handshake)
    try:
        async with serving(connection._service, *connection._services()):
            try:
                try:
                    with trio.fail_after(limits.HANDSHAKE_SECONDS):
                        await connection._greet()
                except trio.TooSlowError:
                    raise ConnectionLost(f"the peer did not greet within {limits.HANDSHAKE_SECONDS:.0f} s") from None
                except FsmuxError as exc:
                    connection._fail(exc)
                    raise
                yield connection
            except BaseException:
                await connection._finish(limits.HURRY_SECONDS)  # whoever presses Ctrl-C waits for nobody's network
                raise
            await connection._finish(limits.DRAIN_SECONDS)
    finally:
        await transport.aclose()


def _bytes(frame: Frame) -> bytes:
    payload = frame.payload
    return payload if isinstance(payload, bytes) else bytes(payload)  # type: ignore[arg-type]


def _nothing() -> None:
    pass


__all__ = ["Connection", "Handshake", "Message", "open_connection"]
