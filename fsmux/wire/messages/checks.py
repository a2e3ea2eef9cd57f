"""The rules that a value from a peer must keep, one function each.

Theory: every function takes a raw value and the name of its field, and returns the value in the form that the records
use, or raises :class:`ProtocolError` with that name.  Bounds come from ``limits.py``; what is bounded here only keeps
one message from being absurd, and whether a well-formed value makes sense *now* is for the session to say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fsmux.columns import xattrs_size
from fsmux.errors import ProtocolError
from fsmux.limits import (
    MAX_CHUNK_SIZE,
    MAX_CHUNKS,
    MAX_FILE_SIZE,
    MAX_NAME,
    MAX_PATH_BYTES,
    MAX_PATH_PARTS,
    MAX_XATTRS,
    MIN_CHUNK_SIZE,
)
from fsmux.records import Durability, Extent, Kind, Namespaces, Parts, Xattrs, are_plain, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fsmux.wire._pb2 import fsmux_pb2 as pb

MAX_TEXT: Final = 1024
"""Characters of a text for a person."""

MAX_BRIEF: Final = 400
"""Characters of such a text where there may be many in one message."""

MAX_TOKEN: Final = 64
"""Characters of a feature or a SASL mechanism."""

MAX_TOKENS: Final = 64
"""Features or mechanisms in one HELLO."""

MAX_RANGES: Final = 800
"""Extents in one message: so many of at most 24 bytes fit one frame. More of them are paged."""

MAX_HAVES: Final = 400
"""Ranges with digests in one message, of at most 42 bytes; more of them are paged."""

MAX_TAG: Final = 64
"""Bytes of the opaque version tag of a source."""

DIGEST_SIZE: Final = 16
"""Bytes of an XXH3-128."""

JOIN_SIZE: Final = 16
"""Bytes of the id that the requests of one run share: nobody can guess another's."""

MAX_JOINED: Final = 1024
"""Streams on which one file may come."""

MAX_CREDIT: Final = 2**62
"""Bytes. Credit is an absolute offset in all that a stream ever carries."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}\Z")
_KINDS: Final = {int(kind): kind for kind in Kind}
_DURABILITIES: Final = {0: Durability.BATCH} | {int(level): level for level in Durability}
_NAMESPACES: Final = {int(level): level for level in Namespaces}
_DOTS: Final = (b".", b"..")


def why_not_parts(parts: Collection[bytes]) -> str | None:
    """Why these components cannot be a path, or None."""
    if are_plain(parts):
        return None
    if len(parts) > MAX_PATH_PARTS:
        return f"{len(parts)} components are more than {MAX_PATH_PARTS}"
    total = len(parts) - 1
    for part in parts:
        if not part or part in _DOTS:
            return f"{printable(part)!r} is not a name"
        if b"/" in part or b"\0" in part:
            return f"the name {printable(part)!r} holds a slash or a zero byte"
        if len(part) > MAX_NAME:
            return f"a name of {len(part)} bytes is longer than {MAX_NAME}"
        total += len(part)
    return f"{total} bytes are more than {MAX_PATH_BYTES}" if total > MAX_PATH_BYTES else None


def path(raw: pb.Path, field: str) -> Parts:
    parts = tuple(raw.parts)
    if (why := why_not_parts(parts)) is not None:
        raise ProtocolError(f"{field}: {why}")
    return parts


def link_target(raw: bytes, field: str) -> bytes:
    if len(raw) > MAX_PATH_BYTES or b"\0" in raw:
        raise ProtocolError(f"{field}: not the target of a symbolic link")
    return raw


def xattrs(raw: pb.Xattrs, field: str) -> Xattrs | None:
    if len(raw.names) != len(raw.values) or (raw.unknown and raw.names):
        raise ProtocolError(f"{field}: {len(raw.values)} values for {len(raw.names)} extended attributes")
    found = tuple(zip(raw.names, raw.values, strict=True))
    if xattrs_size(found) > MAX_XATTRS:
        raise ProtocolError(f"{field}: extended attributes of more than {MAX_XATTRS} bytes")
    last = b""
    for name, _ in found:
        if name <= last or len(name) > MAX_NAME or b"\0" in name:
            raise ProtocolError(f"{field}: {printable(name)!r} is no name of an extended attribute, or out of order")
        last = name
    return None if raw.unknown else found


def namespaces(value: int, field: str) -> Namespaces:
    if (found := _NAMESPACES.get(value)) is None:
        raise ProtocolError(f"{field}: {value} are no namespaces of extended attributes")
    return found


def at_most(value: int, most: int, field: str) -> int:
    if value > most:
        raise ProtocolError(f"{field}: {value} is more than {most}")
    return value


def size(value: int, field: str) -> int:
    return at_most(value, MAX_FILE_SIZE, field)


def extent(offset: int, length: int, field: str) -> Extent:
    if offset + length > MAX_FILE_SIZE:
        raise ProtocolError(f"{field}: {length} bytes at {offset} lie beyond the largest file")
    return Extent(offset, length)


def in_order(ranges: Iterable[pb.Extent | pb.Have], count: int, most: int, field: str) -> None:
    """Ranges are few enough, none is empty, and each begins where the one before ended or later."""
    if count > most:
        raise ProtocolError(f"{field}: {count} ranges are more than {most}")
    end = 0
    for item in ranges:
        if not item.length or item.offset < end:
            raise ProtocolError(f"{field}: ranges must not be empty, overlap or go backwards")
        end = item.offset + item.length
    size(end, field)


def extents(raw: Collection[pb.Extent], field: str) -> tuple[Extent, ...]:
    in_order(raw, len(raw), MAX_RANGES, field)
    return tuple([Extent(item.offset, item.length) for item in raw])


def join(raw: bytes, field: str) -> bytes:
    if raw and len(raw) != JOIN_SIZE:
        raise ProtocolError(f"{field}: {len(raw)} bytes are not {JOIN_SIZE}")
    return raw


def chunk_size(value: int, field: str) -> int:
    if value & (value - 1) or not MIN_CHUNK_SIZE <= value <= MAX_CHUNK_SIZE:
        raise ProtocolError(f"{field}: {value} is not a power of two from {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE}")
    return value


def chunk_index(value: int, field: str) -> int:
    return at_most(value, MAX_CHUNKS - 1, field)


def chunk_count(file_size: int, per_chunk: int, field: str) -> None:
    if file_size > MAX_CHUNKS * per_chunk:
        raise ProtocolError(f"{field}: {file_size} bytes are more than {MAX_CHUNKS} chunks of {per_chunk}")


def mode(value: int, field: str) -> int:
    """Permission bits. The set-id and sticky bits may be sent, as they are part of every stat, and are ignored."""
    return at_most(value, 0o7777, field) & 0o777


def kind(value: int, field: str) -> Kind:
    if (known := _KINDS.get(value)) is None:
        raise ProtocolError(f"{field}: {value} is not a kind of file")
    return known


def durability(value: int, field: str) -> Durability:
    if (known := _DURABILITIES.get(value)) is None:
        raise ProtocolError(f"{field}: {value} is not a level of durability")
    return known


def digest(value: bytes, field: str) -> bytes:
    if len(value) != DIGEST_SIZE:
        raise ProtocolError(f"{field}: a digest has {DIGEST_SIZE} bytes, not {len(value)}")
    return value


def blob(value: bytes, most: int, field: str) -> bytes:
    at_most(len(value), most, field)
    return value


def text(value: str, field: str) -> str:
    """Text for a person; it comes out safe to print."""
    at_most(len(value), MAX_TEXT, field)
    return printable(value)


def token(value: str, field: str) -> str:
    if not _TOKEN.match(value):
        raise ProtocolError(f"{field}: {printable(value[:MAX_TOKEN])!r} is not a name of this kind")
    return value


def tokens(values: Collection[str], field: str) -> tuple[str, ...]:
    at_most(len(values), MAX_TOKENS, field)
    return tuple([token(value, field) for value in values])
