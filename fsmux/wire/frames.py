"""One frame to bytes, one header from bytes.

Theory: a frame is an 18-byte header and a payload, and the two part as early as possible.  A payload may be a
:class:`FileSpan`, which stands for bytes that are still in their file: it passes through :func:`encode` untouched, and
the transport, not this module, has the kernel send them.  That is why a DATA frame's checksum covers its header alone
(the chunk's CRC-32 covers the bytes), while every other frame's covers header and payload.

A header has room for 16 bits of checksum, which find any single flipped bit of a short frame, but not of a long one.
So a long message is *sealed*: a whole CRC-32 goes behind it.

A header that does not check out ends the connection: where the next frame begins is not known any more.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct
from zlib_ng.zlib_ng import crc32

from fsmux.errors import Damaged, ProtocolError, VersionMismatch
from fsmux.limits import MAX_UNSEALED_PAYLOAD

MAGIC: Final = 0x46534D58  # "FSMX"
VERSION: Final = 1

PACE_FEATURE: Final = "pace"
"""What the HELLO of a peer that understands PACE has among its features."""

JOIN_FEATURE: Final = "join"
"""Who names it in its HELLO takes part in files that come on several streams."""

PACKS_FEATURE: Final = "packs"
"""Who names it in its HELLO moves the small files of a tree in packs."""

LINKS_FEATURE: Final = "links"
"""Who names it in its HELLO knows which files have several names, and makes hard links."""

SYNC_FEATURE: Final = "sync"
"""Who names it in its HELLO removes names by packs, and makes digests of files where they are."""

HOLES_FEATURE: Final = "holes"
"""Who names it in its HELLO understands a SPAN that says where a file has holes."""

KEPT_FEATURE: Final = "kept"
"""Who names it in its HELLO lets the client choose what is kept of files beside their bytes."""

OWNERS_FEATURE: Final = "owners"
"""Who names it in its HELLO says whose things are when it is asked."""

CHOWN_FEATURE: Final = "chown"
"""Who names it in its HELLO may set owners, too."""

XATTRS_FEATURE: Final = "xattrs"
"""Who names it in its HELLO says what extended attributes there are when it is asked, and sets them."""

GIVEN_FEATURE: Final = "given"
"""Who names it in its HELLO gives a file of PUT its owner and extended attributes before it gets its name."""

BRIEF_FEATURE: Final = "brief"
"""Who names it in its HELLO lets a PACK leave out what is as it was asked for."""

FINISH_FEATURE: Final = "finish"
"""Who names it in its HELLO finishes directories with the packs that fill them, if a group says so."""

UNASKED_FEATURE: Final = "unasked"
"""Who names it in its HELLO sends the small files of a tree with its listing, if it is told that none of them is there.
"""

HEADER: Final = struct.Struct(">IBBHIIH")
"""Magic u32 · Version u8 · Flags u8 · Cmd u16 · StreamID u32 · PayloadLen u32 · Checksum u16, big-endian."""

HEADER_SIZE: Final = HEADER.size
MAX_STREAM_ID: Final = 2**32 - 1
_CHECKED: Final = HEADER_SIZE - 2  # the checksum comes last and counts as zero in its own calculation
_NO_CHECKSUM: Final = b"\0\0"
MAGIC_BYTES: Final = MAGIC.to_bytes(4, "big")
_HEADER_ZEROED: Final = struct.Struct(">IBBHIIxx")
_CHECKSUM: Final = struct.Struct(">H")


class Cmd(IntEnum):
    """What a frame is.  Numbers are never reused."""

    HELLO = 1
    AUTH = 2
    PING = 3
    PONG = 4
    CREDIT = 5
    RESET = 6
    GOAWAY = 7
    PACE = 8

    STAT = 16
    LIST = 17
    OPEN = 18
    READ = 19
    WRITE = 20
    CLOSE = 21
    MKDIR = 22
    RENAME = 23
    REMOVE = 24
    SETATTRS = 25
    SYMLINK = 26
    CREATE = 27

    ATTRS = 32
    ENTRIES = 33
    READ_DONE = 34
    OK = 35
    ERROR = 36

    GET = 48
    PUT = 49
    OFFER = 50
    WANT = 51
    HAVES = 52
    KEEP = 53
    SPAN = 54
    DATA = 55
    CHUNK = 56
    AGAIN = 57
    FINISH = 58
    COMMITTED = 59

    PACK = 60
    PACKED = 61
    STORE = 62
    FETCH = 63
    ASK = 64
    WALK = 65
    LOOK = 66
    LISTED = 67
    DIGEST = 68
    DIGESTS = 69


class Flags(IntFlag):
    """``END_STREAM``: the sender has nothing more to say on this stream.  ``SEALED``: a CRC-32 follows the message and
    counts as payload; that is so for every message that is too long without, and for no other.  Sealing is the codec's
    own affair: frames that are encoded or have been decoded know nothing of it.  All other bits are reserved and zero.
    """

    END_STREAM = 1
    SEALED = 2


CREDITED: Final = frozenset({Cmd.DATA, Cmd.ENTRIES, Cmd.PACK, Cmd.ASK, Cmd.LISTED, Cmd.DIGESTS})
"""Commands whose payload counts against the stream's credit."""

SESSION: Final = frozenset(cmd for cmd in Cmd if Cmd.GET <= cmd <= Cmd.COMMITTED)
"""Commands of the session of one file: who sends them is there for the bytes, and not for a quick answer."""

_DATA: Final = int(Cmd.DATA)
_END: Final = int(Flags.END_STREAM)
_SEALED: Final = int(Flags.SEALED)
_SEAL: Final = struct.Struct(">I")
SEAL_SIZE: Final = _SEAL.size


class Meter:
    """A running CRC-32 of bytes in the order in which they are sent."""

    __slots__ = ("crc32",)

    def __init__(self) -> None:
        self.crc32 = 0

    def update(self, data: Buffer) -> None:
        self.crc32 = crc32(data, self.crc32)


class FileSpan(Struct, frozen=True):
    """``length`` bytes at ``offset`` of ``source``, which only the transport needs to understand.

    With a ``meter`` the transport also makes the CRC-32 of what it sends; slices of one span share the meter.
    """

    source: object
    offset: int
    length: int
    meter: Meter | None = None

    def __len__(self) -> int:
        return self.length


Payload: TypeAlias = bytes | memoryview | FileSpan | tuple[memoryview, ...]
Buffer: TypeAlias = bytes | bytearray | memoryview


class Frame(Struct):
    """A whole frame.  ``cmd`` is a plain number, because a command this version does not know is not an error."""

    cmd: int
    stream_id: int
    payload: Payload = b""
    flags: int = 0

    @property
    def length(self) -> int:
        """Bytes of payload."""
        payload = self.payload
        return sum(map(len, payload)) if isinstance(payload, tuple) else len(payload)

    def said(self) -> bytes:
        """The payload of a control frame, in one piece."""
        payload = self.payload
        return payload if isinstance(payload, bytes) else bytes(payload)  # type: ignore[arg-type]

    @property
    def end(self) -> bool:
        """Whether this is the last frame of its sender on its stream."""
        return bool(self.flags & _END)


class Header(NamedTuple):
    """The fields of a received header that vary."""

    flags: int
    cmd: int
    stream_id: int
    length: int
    checksum: int


def encode_header(cmd: int, stream_id: int, length: int, flags: int = 0, payload: Buffer | None = None) -> bytes:
    """The header of one frame.  ``payload`` is needed for its checksum, except for DATA, where it is not looked at."""
    try:
        head = _HEADER_ZEROED.pack(MAGIC, VERSION, flags, cmd, stream_id, length)
    except struct.error as error:
        raise ValueError(f"not a frame: command {cmd}, stream {stream_id}, {length} bytes, flags {flags}") from error
    crc = crc32(head)
    if payload and cmd != _DATA:
        crc = crc32(payload, crc)
    return head[:_CHECKED] + _CHECKSUM.pack(fold(crc))


def encode(frame: Frame) -> tuple[bytes, Payload]:
    """Header and payload of a frame; the payload is the very object that was passed in, unless it had to be sealed."""
    payload = frame.payload
    if frame.cmd == _DATA:
        return encode_header(_DATA, frame.stream_id, frame.length, frame.flags), payload
    if isinstance(payload, FileSpan):
        raise ValueError("only DATA may carry a file span: other payloads are part of the checksum")
    whole = b"".join(payload) if isinstance(payload, tuple) else payload
    if len(whole) > MAX_UNSEALED_PAYLOAD:
        return _seal(frame, whole)
    return encode_header(frame.cmd, frame.stream_id, len(whole), frame.flags, whole), payload


def _seal(frame: Frame, whole: Buffer) -> tuple[bytes, bytes]:
    flags, length = frame.flags | _SEALED, len(whole) + SEAL_SIZE
    crc = crc32(whole, header_crc(encode_header(frame.cmd, frame.stream_id, length, flags)))
    sealed = bytes(whole) + _SEAL.pack(crc)
    return encode_header(frame.cmd, frame.stream_id, length, flags, sealed), sealed


def sealed_rightly(header: Header) -> bool:
    """Whether a message is sealed if it is long, and only then: or one flipped bit could take the seal off."""
    sealed = header.flags & _SEALED
    return bool(sealed) == (header.length > MAX_UNSEALED_PAYLOAD + (sealed and SEAL_SIZE))


def open_message(header: Header, crc: int, payload: bytes) -> Frame | None:
    """The frame of a message that has arrived, or None if it is damaged; ``crc`` is that of its header."""
    flags, cmd, stream_id, _, checksum = header
    if flags & _SEALED:
        whole, payload = payload, payload[:-SEAL_SIZE]
        crc = crc32(payload, crc)
        if whole[-SEAL_SIZE:] != _SEAL.pack(crc):
            return None
        crc = crc32(whole[-SEAL_SIZE:], crc)
    elif payload:
        crc = crc32(payload, crc)
    return Frame(cmd, stream_id, payload, flags & _END) if fold(crc) == checksum else None


def fold(crc: int) -> int:
    """A CRC-32 as the 16 bits that a header has room for."""
    return (crc >> 16) ^ (crc & 0xFFFF)


def header_crc(head: Buffer) -> int:
    """The CRC-32 of 18 header bytes with the checksum taken as zero."""
    return crc32(_NO_CHECKSUM, crc32(head[:_CHECKED]))


def decode_header(head: Buffer) -> Header:
    """The header in the 18 bytes ``head``.

    The checksum of DATA is verified here.  That of every other command covers the payload too: :func:`open_message`.

    Raises :class:`VersionMismatch` for another protocol or version, :class:`Damaged` for what the network may have
    done, else :class:`ProtocolError`.
    """
    magic, version, flags, cmd, stream_id, length, checksum = HEADER.unpack(head)
    if magic != MAGIC:
        raise not_fsmux(head)
    if version != VERSION:  # before the checksum: another version may calculate it otherwise
        if (version ^ VERSION).bit_count() == 1:  # no two versions are one bit apart
            raise Damaged("a frame begins wrong; it was damaged on its way")
        raise VersionMismatch(f"the peer sends version {version} of the fsmux protocol; this side knows {VERSION}")
    if cmd == _DATA and fold(header_crc(head)) != checksum:
        raise Damaged(f"the header of a DATA frame on stream {stream_id} is damaged (its checksum is wrong)")
    if flags & ~(_END if cmd == _DATA else _END | _SEALED):
        text = f"command {cmd} on stream {stream_id} has reserved flags set ({flags:#04x})"
        raise ProtocolError(text) if cmd == _DATA else Damaged(f"{text}; it may have been damaged on its way")
    return Header(flags, cmd, stream_id, length, checksum)


_FOREIGN: Final = (
    (b"SSH-", "SSH"),
    (b"HTTP", "HTTP"),
    (b"GET ", "HTTP"),
    (b"POST", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"HEAD", "HTTP"),
    (b"OPTI", "HTTP"),
    (b"CONN", "HTTP"),
    (b"PRI ", "HTTP/2"),
    (b"\x16\x03", "TLS"),
    (b"\x15\x03", "TLS"),
    (b"@RSY", "rsync"),
    (b"220 ", "FTP or SMTP"),
    (b"220-", "FTP or SMTP"),
)


def not_fsmux(start: Buffer) -> ProtocolError:
    """The error for a peer whose bytes are not a frame, naming the protocol if those bytes give it away.

    No other protocol is one bit away from this one.
    """
    begin = bytes(start[:4])
    if (int.from_bytes(begin) ^ MAGIC).bit_count() == 1:
        return Damaged("a frame begins wrong; it was damaged on its way")
    for prefix, name in _FOREIGN:
        if begin.startswith(prefix):
            return VersionMismatch(f"the peer does not speak fsmux (this looks like {name})")
    return VersionMismatch(f"the peer does not speak fsmux (it began with {begin!r} instead of {MAGIC_BYTES!r})")
