"""Control messages: frozen records here, protobuf on the wire, nothing untrusted in between.

Strategy: ``connection.py`` and ``types.py`` have the records, ``builders.py`` and ``readers.py`` turn them into
generated protobuf messages and back, ``backend.py`` says what these run on, ``checks.py`` holds the rules that every
value from a peer must keep, and ``pages.py`` cuts long lists into messages that fit a frame.  Nobody outside this
package sees a protobuf object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

import fsmux.wire.messages.backend  # noqa: F401  # before anything else of protobuf
from fsmux.errors import ProtocolError
from fsmux.limits import MAX_CONTROL_PAYLOAD
from fsmux.records import Attrs, Durability, Extent, Identity, Kind
from fsmux.wire.frames import Cmd
from fsmux.wire.messages.builders import BUILDERS
from fsmux.wire.messages.checks import JOIN_SIZE
from fsmux.wire.messages.connection import Auth, Credit, Error, Fault, Goaway, Hello, Pace, Ping, Pong, Reset
from fsmux.wire.messages.pages import pages
from fsmux.wire.messages.readers import READERS
from fsmux.wire.messages.types import (
    Again,
    Ask,
    Chunk,
    Close,
    Committed,
    Create,
    Digest,
    Digests,
    Entries,
    Entry,
    Failed,
    Fetch,
    Finish,
    Get,
    Have,
    Haves,
    Keep,
    List,
    Listed,
    Look,
    Message,
    Mkdir,
    Offer,
    Ok,
    Open,
    Pack,
    Packed,
    Put,
    Read,
    ReadDone,
    Remove,
    Rename,
    SetAttrs,
    Span,
    Stat,
    Store,
    Symlink,
    Walk,
    Want,
    Write,
)

if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "COMMANDS", "JOIN_SIZE", "Again", "Ask", "Attrs", "Auth", "Chunk", "Close", "Committed", "Create", "Credit",
    "Digest", "Digests", "Durability", "Entries", "Entry", "Error", "Extent", "Failed", "Fault", "Fetch", "Finish",
    "Get", "Goaway", "Have", "Haves", "Hello", "Identity", "Keep", "Kind", "List", "Listed", "Look", "Message",
    "Mkdir", "Offer", "Ok", "Open", "Pace", "Pack", "Packed", "Ping", "Pong", "Put", "Read", "ReadDone", "Remove",
    "Rename", "Reset", "SetAttrs", "Span", "Stat", "Store", "Symlink", "Walk", "Want", "Write", "decode", "encode",
    "pages",
]  # fmt: skip

COMMANDS: Final = frozenset(READERS)
"""Commands that carry a message this version knows: all but DATA."""


def encode(message: Message) -> bytes:
    """The payload of the frame that carries ``message``.

    Raises :class:`~fsmux.errors.BadName` for a path that no peer would take, ``ValueError`` for what does not fit a
    frame and for numbers that are out of range.
    """
    data = BUILDERS[type(message)](message).SerializeToString()
    if len(data) > MAX_CONTROL_PAYLOAD:
        name = type(message).__name__
        raise ValueError(f"{name} of {len(data)} bytes does not fit a frame; long lists go through pages()")
    return data


def decode(cmd: int, payload: bytes) -> Message:
    """The message in a payload, every field checked.  Raises :class:`~fsmux.errors.ProtocolError`, nothing else."""
    reader = READERS.get(cmd)
    if reader is None:
        raise ProtocolError(f"command {cmd} carries no message")
    parse, read = reader
    try:
        raw = parse(payload)
    except DecodeError:
        raise ProtocolError(f"{Cmd(cmd).name}: the payload is not such a message") from None
    return read(raw)
