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
    FsmuxError,
    InternalError,
    PeerShutdown,
    ProtocolError,
    Unsupported,
    VersionMismatch,
    from_code,
)
from fsmux.mux.outbox import Outbox
from fsmux.mux.reader import Reader
from fsmux.mux.service import serving
from fsmux.mux.table import StreamTable
from fsmux.mux.writer import Writer
from fsmux.wire.frames import PACE_FEATURE, VERSION, Cmd, Frame, Header
from fsmux.wire.messages import Auth, Credit, Goaway, Hello, Pace, Ping, Pong, decode, encode
from fsmux.wire.state import ConnectionPhase, Role, legal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fsmux.mux.stream import Stream
    from fsmux.mux.transport import Transport
    from fsmux.wire.messages import Message

logger = logging.getLogger("fsmux.mux")

ACTIVE_PING_SECONDS = 2.0
"""Seconds between two measurements of the round trip while data arrives: credit windows are tuned by it."""

BUSY_BYTES = 64 * limits.KIB
"""Bytes between two such measurements below which nothing is worth tuning; pings themselves are a few dozen."""


KEEPALIVES = 3
"""A peer that is to show signs of life is asked for one so many times sooner: answers may be slow."""


class Handshake(Protocol):
    """Proves who the peers are, over AUTH messages. Returns what the connection shall call its user."""

    def __call__(self, connection: Connection) -> Awaitable[Any]: ...


class Connection:
    """A connection that has been greeted and authenticated. Made by :func:`open_connection` only."""

    def __init__(
        self, transport: Transport, role: Role, hello: Hello, handshake: Handshake | None, first: Auth | None,
        patience: float,
    ) -> None:  # fmt: skip
        self.transport = transport
        self.role = role
        self.hello = hello
        self.peer_hello: Hello = Hello()
        self.user: Any = None
        self.failure: FsmuxError | None = None
        self.outbox = Outbox(limits.INITIAL_CREDIT, lambda: self._writer.wake(), self._on_overflow)
        self._handshake = handshake
        self._first = first
        self._patience = patience
        self._phase = ConnectionPhase.GREETING
        self._greeted = trio.Event()
        self._opened = trio.Event()
        self._table = StreamTable(role, self.outbox, hello.max_streams, lambda: transport.near)
        self._reader = Reader(transport, self._table, self._max_payload, self._dispatch, self._on_heard)
        self._writer = Writer(transport, self.outbox, self._table.file_was_short)
        self._peer_leaving = False
        self._service = trio.CancelScope()
        self._auth_in, self._auth_out = trio.open_memory_channel[Auth](4)
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
        return self._table.open(first, end=end)

    async def accept(self) -> Stream | None:
        """The next stream that the peer opened; None when the connection is over. Cancellable, loses nothing."""
        try:
            return await self._table.accepted.receive()
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
        if self.failure is None and not self._table.refusing:
            self._table.refusing = True
            self.outbox.urgent(Frame(Cmd.GOAWAY, 0, encode(Goaway(0, ""))))

    def limit_sending(self, rate: int | None) -> None:
        """Send at most ``rate`` bytes under credit per second over all streams; None: as many as possible."""
        self._writer.limit(rate)

    def limit_receiving(self, rate: int | None) -> None:
        """Have the peer send at most so many. Raises :class:`Unsupported` if it cannot."""
        if PACE_FEATURE not in self.peer_hello.features:
            raise Unsupported("the peer cannot limit the rate at which it sends; both sides need this release of fsmux")
        if self.failure is None:
            self.outbox.urgent(Frame(Cmd.PACE, 0, encode(Pace(rate or 0))))

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip, as last measured; None before that."""
        return self._table.rtt

    @property
    def orderly(self) -> bool:
        """Whether one of the two sides said GOAWAY, so that the end of the connection is no loss."""
        return self._table.refusing or self._peer_leaving

    @property
    def open_streams(self) -> int:
        """Streams whose work has not ended, whoever opened them."""
        return len(self._table)

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
        if self._first is not None:
            self.outbox.urgent(Frame(Cmd.AUTH, 0, encode(self._first)))
        await self._greeted.wait()
        if self.failure is not None and (self._first is None or self._phase is ConnectionPhase.GREETING):
            raise self.failure  # otherwise the handshake may know better why: the peer wanted no first step
        if self._handshake is not None:
            self.user = await self._handshake(self)
            self._phase = ConnectionPhase.OPEN
        self._opened.set()

    # ---- what arrives ----------------------------------------------------------------------------------------------

    def _on_heard(self, count: int, alive: bool) -> None:
        if alive:
            self._heard = trio.current_time()
        self._received_bytes += count

    def _max_payload(self, header: Header) -> int:
        if self._phase is not ConnectionPhase.OPEN:
            return limits.MAX_PREAUTH_PAYLOAD
        return limits.MAX_DATA_PAYLOAD if header.cmd == Cmd.DATA else limits.MAX_CONTROL_PAYLOAD

    def _dispatch(self, frame: Frame) -> None:
        if not legal(self._phase, frame.cmd, frame.stream_id):
            raise ProtocolError(f"command {frame.cmd} is not allowed now")
        if frame.stream_id == 0:
            self._on_connection_frame(frame)
        else:
            self._table.dispatch(frame)

    def _on_connection_frame(self, frame: Frame) -> None:
        message = decode(frame.cmd, frame.said())
        match message:
            case Credit(grants=grants):
                self._table.extend(grants)
            case Ping(token=token):
                self.outbox.urgent(Frame(Cmd.PONG, 0, encode(Pong(token))))
            case Pong(token=token):
                waiting = self._pings.pop(token, None)
                if waiting is not None:
                    rtt = trio.current_time() - waiting[0]
                    self._table.rtt = rtt if self.rtt is None else min(rtt, self.rtt * 1.1)
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
        self._table.greet(hello)
        self.outbox.set_eager_credit(hello.eager_credit)
        # Here and not in the greeting task: the peer's next frame may be behind this one in the same buffer.
        authenticating = self._handshake is not None and (self.role is Role.SERVER or hello.mechanisms)
        self._phase = ConnectionPhase.AUTHENTICATING if authenticating else ConnectionPhase.OPEN
        self._greeted.set()

    # ---- services --------------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        measured = -BUSY_BYTES
        taken, moved = 0, trio.current_time()
        quiet = min(limits.KEEPALIVE_SECONDS, self._patience / KEEPALIVES)
        await self._opened.wait()
        while True:
            now = trio.current_time()
            if not self._writer.sending or self.transport.sent != taken:
                taken, moved = self.transport.sent, now
            elif now - moved >= self._patience:  # whoever talks and never listens would hold what is queued for ever
                raise ConnectionLost(f"the peer has taken nothing for {now - moved:.0f} s")
            silent = now - self._heard
            if silent >= self._patience:
                raise ConnectionLost(f"the peer has been silent for {silent:.0f} s")
            if silent >= quiet or self._received_bytes - measured >= BUSY_BYTES:
                with trio.move_on_after(self._patience - silent) as waiting:
                    await self.ping()
                measured = self._received_bytes
                if waiting.cancelled_caught:
                    continue
            await trio.sleep(min(ACTIVE_PING_SECONDS, quiet))

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

        return [guarded(task) for task in (self._reader.run, self._writer.run, self._keep_alive)]

    # ---- the end ---------------------------------------------------------------------------------------------------

    def _on_overflow(self) -> None:
        # Later, because whoever had something to say is in the midst of its work.
        self._table.run_soon(lambda: self._fail(ConnectionLost("the peer does not read what it is sent")))

    def _fail(self, error: FsmuxError) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if not isinstance(error, ConnectionLost) and self._phase is not ConnectionPhase.CLOSED:
            self.outbox.urgent(Frame(Cmd.GOAWAY, 0, encode(Goaway(error.code, str(error)[:1000]))))
        self._table.fail(error)
        self._auth_in.close()
        self._greeted.set()
        self._writer.stop()
        for _, event in self._pings.values():
            event.set()
        self._service.cancel()

    async def _finish(self, seconds: float) -> None:
        """Say goodbye, let what is queued leave, and stop the services, all within ``seconds``."""
        with trio.move_on_after(seconds, shield=True), contextlib.suppress(FsmuxError):
            if self.failure is None:
                self.goaway()
                await self._writer.flush()
            elif not isinstance(self.failure, ConnectionLost):
                await self._writer.pump()  # the GOAWAY that says why
        self._phase = ConnectionPhase.CLOSED
        self._fail(ConnectionLost("the connection was closed here"))


@asynccontextmanager
async def open_connection(
    transport: Transport,
    role: Role,
    hello: Hello,
    handshake: Handshake | None = None,
    *,
    first: Auth | None = None,
    patience: float = limits.DEAD_SECONDS,
) -> AsyncIterator[Connection]:
    """Greet, authenticate and serve a connection for as long as the block runs; owns ``transport`` and closes it.

    Leaving the block says GOAWAY, gives queued frames ``DRAIN_SECONDS`` to leave, and closes the socket; streams that
    are still open are ended with :class:`ConnectionLost`.  Errors of the block come out as they are, never in a group.

    ``first`` is a SASL step that goes right behind HELLO, which saves a round trip.
    ``patience`` is how many seconds the peer may be silent before the connection counts as lost.

    Raises:
        ConnectionLost, ProtocolError, VersionMismatch, AuthError: the greeting or the handshake failed, or took longer
            than ``HANDSHAKE_SECONDS``, or than patience.
    """
    connection = Connection(transport, role, hello, handshake, first, patience)
    greeting = min(limits.HANDSHAKE_SECONDS, patience)
    try:
        async with serving(connection._service, *connection._services()):
            try:
                try:
                    with trio.fail_after(greeting):
                        await connection._greet()
                except trio.TooSlowError:
                    raise ConnectionLost(f"the peer did not greet within {greeting:g} s") from None
                except FsmuxError as exc:
                    connection._fail(exc)
                    raise
                yield connection
            except BaseException:
                await connection._finish(limits.HURRY_SECONDS)  # whoever presses Ctrl-C waits for nobody's network
                raise
            await connection._finish(limits.DRAIN_SECONDS)
    finally:
        connection._table.close()
        await transport.aclose()
