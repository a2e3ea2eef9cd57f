"""One frozen record per message that a connection needs, whatever its streams are for.

Theory: two peers greet, prove who they are, bound each other, show that they are alive, and say that something has
failed.  None of it depends on what is moved; all that does is in :mod:`.types`.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from fsmux.wire.frames import Cmd


class Hello(Struct, frozen=True):
    """The first message of either side: what it speaks, what it allows its peer."""

    CMD: ClassVar[Cmd] = Cmd.HELLO
    min_version: int = 1
    max_version: int = 1
    features: tuple[str, ...] = ()
    agent: str = ""
    max_streams: int = 0
    initial_credit: int = 0
    eager_credit: int = 0
    mechanisms: tuple[str, ...] = ()
    read_only: bool = False


class Auth(Struct, frozen=True):
    """One step of a SASL exchange."""

    CMD: ClassVar[Cmd] = Cmd.AUTH
    mechanism: str = ""
    data: bytes = b""
    done: bool = False


class Ping(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.PING
    token: int = 0


class Pong(Struct, frozen=True):
    """The answer to a ping, with its token."""

    CMD: ClassVar[Cmd] = Cmd.PONG
    token: int = 0


class Pace(Struct, frozen=True):
    """How many credited bytes per second its receiver may send; 0: as many as it can."""

    CMD: ClassVar[Cmd] = Cmd.PACE
    rate: int = 0


class Credit(Struct, frozen=True):
    """For each stream named, the sum of credited bytes that its peer may have sent since it was opened."""

    CMD: ClassVar[Cmd] = Cmd.CREDIT
    grants: tuple[tuple[int, int], ...] = ()


class Fault(Struct, frozen=True):
    """A failure: an :class:`~fsmux.errors.ErrorCode`, known here or not, and a sentence for a person."""

    code: int
    text: str = ""


class Reset(Fault, frozen=True):
    """The stream ends here and now, in both directions."""

    CMD: ClassVar[Cmd] = Cmd.RESET


class Goaway(Fault, frozen=True):
    """No new streams; the connection ends when the open ones have."""

    CMD: ClassVar[Cmd] = Cmd.GOAWAY


class Error(Fault, frozen=True):
    """The answer to a request that failed."""

    CMD: ClassVar[Cmd] = Cmd.ERROR
