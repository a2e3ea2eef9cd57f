"""When what may be said: life cycles of streams and connections, as tables.

Theory: all rules are the same for both roles.  The role shows in two places only: the parity of the stream ids a side
may open, and which side of a conversation a command belongs to.  A stream's state is moved by *inputs*, of which a
frame is exactly one: a frame with END_STREAM is ``*_END`` whatever its command, a RESET is ``*_RESET``, any other frame
is a plain ``SEND`` or ``RECV``.

A pair that is not in the table is illegal, with one exception in its spirit: a closed stream swallows whatever still
arrives, because the peer may have sent it before it heard.  How much of that is tolerated is a question of budgets.

A stream may begin with RESET: the message that was to open it can have been overtaken, since RESET goes before
messages.  Its id counts as used.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import Final

from fsmux.errors import ProtocolError
from fsmux.wire.frames import Cmd


class Role(Enum):
    """The client made the connection, the server accepted it."""

    CLIENT = auto()
    SERVER = auto()

    @property
    def peer(self) -> Role:
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


def first_id(role: Role) -> int:
    """The first stream id that ``role`` opens; the next ones follow in steps of 2, and none is used twice."""
    return 1 if role is Role.CLIENT else 2


def opened_by(stream_id: int) -> Role:
    """The side that a stream id belongs to.  0 belongs to the connection itself, so it has no answer here."""
    if stream_id <= 0:
        raise ValueError("stream 0 is the connection itself")
    return Role.CLIENT if stream_id % 2 else Role.SERVER


# ---- streams ----------------------------------------------------------------------------------------------------


class StreamState(Enum):
    IDLE = auto()
    OPEN = auto()
    HALF_CLOSED_LOCAL = auto()
    HALF_CLOSED_REMOTE = auto()
    CLOSED = auto()


class StreamInput(Enum):
    SEND = auto()
    RECV = auto()
    SEND_END = auto()
    RECV_END = auto()
    SEND_RESET = auto()
    RECV_RESET = auto()


_IDLE, _OPEN, _CLOSED = StreamState.IDLE, StreamState.OPEN, StreamState.CLOSED
_LOCAL, _REMOTE = StreamState.HALF_CLOSED_LOCAL, StreamState.HALF_CLOSED_REMOTE

STREAM_TABLE: Final[dict[StreamState, dict[StreamInput, StreamState]]] = {
    _IDLE: {
        StreamInput.SEND: _OPEN,
        StreamInput.RECV: _OPEN,
        StreamInput.SEND_END: _LOCAL,
        StreamInput.RECV_END: _REMOTE,
        StreamInput.SEND_RESET: _CLOSED,
        StreamInput.RECV_RESET: _CLOSED,
    },
    _OPEN: {
        StreamInput.SEND: _OPEN,
        StreamInput.RECV: _OPEN,
        StreamInput.SEND_END: _LOCAL,
        StreamInput.RECV_END: _REMOTE,
        StreamInput.SEND_RESET: _CLOSED,
        StreamInput.RECV_RESET: _CLOSED,
    },
    _LOCAL: {  # this side said END_STREAM
        StreamInput.RECV: _LOCAL,
        StreamInput.RECV_END: _CLOSED,
        StreamInput.SEND_RESET: _CLOSED,
        StreamInput.RECV_RESET: _CLOSED,
    },
    _REMOTE: {  # the peer said END_STREAM
        StreamInput.SEND: _REMOTE,
        StreamInput.SEND_END: _CLOSED,
        StreamInput.SEND_RESET: _CLOSED,
        StreamInput.RECV_RESET: _CLOSED,
    },
    _CLOSED: {
        StreamInput.RECV: _CLOSED,
        StreamInput.RECV_END: _CLOSED,
        StreamInput.SEND_RESET: _CLOSED,  # changes nothing, so cleaning up needs no question
        StreamInput.RECV_RESET: _CLOSED,
    },
}


def next_state(state: StreamState, event: StreamInput) -> StreamState:
    """The state after ``event``.  Raises :class:`ProtocolError` if it may not happen in ``state``."""
    try:
        return STREAM_TABLE[state][event]
    except KeyError:
        raise ProtocolError(f"{event.name} on a stream that is {state.name}") from None


# ---- connections ------------------------------------------------------------------------------------------------


class ConnectionPhase(IntEnum):
    """Each direction of a connection goes through these in order; some may be skipped, none is entered again."""

    GREETING = 1
    AUTHENTICATING = 2
    OPEN = 3
    DRAINING = 4
    CLOSED = 5


CONNECTION_COMMANDS: Final = frozenset({Cmd.HELLO, Cmd.AUTH, Cmd.PING, Cmd.PONG, Cmd.CREDIT, Cmd.GOAWAY, Cmd.PACE})
"""Commands of stream 0, and of no other."""

_IN_CONVERSATION: Final = frozenset(
    {Cmd.RESET, Cmd.ERROR, Cmd.OFFER, Cmd.WANT, Cmd.HAVES, Cmd.KEEP, Cmd.SPAN, Cmd.DATA, Cmd.CHUNK, Cmd.AGAIN,
     Cmd.FINISH, Cmd.COMMITTED, Cmd.PACK}
)  # fmt: skip
OPENER_COMMANDS: Final = _IN_CONVERSATION | {
    Cmd.STAT, Cmd.LIST, Cmd.OPEN, Cmd.READ, Cmd.WRITE, Cmd.CLOSE, Cmd.MKDIR, Cmd.RENAME, Cmd.REMOVE, Cmd.SETATTRS,
    Cmd.SYMLINK, Cmd.CREATE, Cmd.GET, Cmd.PUT, Cmd.STORE, Cmd.FETCH, Cmd.ASK, Cmd.WALK, Cmd.LOOK, Cmd.DIGEST,
}  # fmt: skip
"""What the side that opened a stream may send on it: requests, and its half of a transfer."""

ANSWERER_COMMANDS: Final = _IN_CONVERSATION | {
    Cmd.ATTRS, Cmd.ENTRIES, Cmd.READ_DONE, Cmd.OK, Cmd.PACKED, Cmd.LISTED, Cmd.DIGESTS
}  # fmt: skip
"""What the other side may send on it: answers, and its half of a transfer."""

_KNOWN: Final = frozenset(Cmd)
_SETTLED: Final = frozenset({Cmd.PING, Cmd.PONG, Cmd.CREDIT, Cmd.GOAWAY, Cmd.PACE})
_ON_CONNECTION: Final[dict[ConnectionPhase, frozenset[Cmd]]] = {
    ConnectionPhase.GREETING: frozenset({Cmd.HELLO, Cmd.GOAWAY}),
    ConnectionPhase.AUTHENTICATING: frozenset({Cmd.AUTH, Cmd.GOAWAY}),
    ConnectionPhase.OPEN: _SETTLED,
    ConnectionPhase.DRAINING: _SETTLED,
    ConnectionPhase.CLOSED: frozenset(),
}


def legal(phase: ConnectionPhase, cmd: int, stream_id: int, sender: Role | None = None) -> bool:
    """Whether a frame may come now, by its header alone.

    With ``sender`` known, also whether that side may say this on this stream.  A command that is not known is legal on
    a stream of an open connection: it is answered with ERROR(UNSUPPORTED), and both sides live.
    """
    if stream_id == 0:
        return cmd in _ON_CONNECTION[phase]
    if phase is not ConnectionPhase.OPEN and phase is not ConnectionPhase.DRAINING:
        return False
    if cmd in CONNECTION_COMMANDS:
        return False
    if sender is None or cmd not in _KNOWN:
        return True
    return cmd in (OPENER_COMMANDS if opened_by(stream_id) is sender else ANSWERER_COMMANDS)
