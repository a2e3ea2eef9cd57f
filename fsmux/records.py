"""Values that the wire, the disk and the planner all speak of, and the one way to show a peer's name to a person.

Theory: ``wire/``, ``files/`` and ``plan/`` do not know one another, yet all three mean the same thing by an extent or
by the identity of a file.  Those few words live here, as plain immutable values without behaviour that could fail.
They say nothing about whether a value may be trusted: whoever takes one from a peer or from a disk checks it first.

Records are msgspec structs, here and in all that a command loads: making such a class takes 0.02 ms, a dataclass takes
0.6 ms of every start, and there are a hundred (measured: 0.06 s of 0.24).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeAlias

from msgspec import Struct

from fsmux.limits import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Collection

Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Extended attributes of a file, as names and values, in the order of the names."""

Parts: TypeAlias = tuple[bytes, ...]
"""A path as its components, relative to some root; the root itself is ``()``.  Names are bytes, as they are on disk."""

_NO_NAMES: Final = frozenset((b"", b".", b".."))


class Extent(NamedTuple):
    """A range of a file: ``length`` bytes from ``offset`` on."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first offset behind the range."""
        return self.offset + self.length


class Kind(IntEnum):
    """What stands under a name.  ``SPECIAL`` is whatever has no bytes to transfer: sockets, pipes, devices."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    SPECIAL = 4


class Durability(IntEnum):
    """When a receiver may say that a file is committed: at once, after a common sync, or after a sync of its own."""

    NONE = 1
    BATCH = 2
    FILE = 3


class Namespaces(IntEnum):
    """Which extended attributes are spoken of: none, those of users (``user.*``), or all that belong to no part of the
    kernel: neither ``system.*`` (access control lists) nor ``security.*``.
    """

    NONE = 0
    USER = 1
    ALL = 2


class Kept(Struct, frozen=True):
    """What a receiver keeps of a file beside its bytes: modification times, permission bits, user and group, extended
    attributes.
    """

    times: bool = True
    perms: bool = True
    owner: bool = False
    xattrs: Namespaces = Namespaces.NONE


EVERYTHING = Kept()
"""What is kept unless somebody says otherwise."""


class Identity(Struct, frozen=True):
    """Which version of a source some bytes came from.

    ``tag`` tells versions apart that size and time do not (the same second, a restored time).  It is made by the side
    that has the file and compared for equality by the other; nothing may be read into its bytes.
    """

    size: int
    mtime_ns: int
    tag: bytes


class Attrs(Struct, frozen=True):
    """What is known of a name without reading its bytes.  ``link_target`` is empty except for symbolic links.

    Without ``owner`` or ``xattrs`` these are not known, or are to be left alone.

    It is a message as it stands, so it carries the number of its command, which ``fsmux.wire.frames`` names ATTRS.
    """

    CMD: ClassVar[int] = 32
    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    link_target: bytes = b""
    owner: int | None = None
    xattrs: Xattrs | None = None


def are_plain(parts: Collection[bytes]) -> bool:
    """Whether these components of a path are names without a doubt: there are some, and together they are no longer
    than one name may be.  Of others each is to be looked at; of most paths this is all that takes time.
    """
    joined = b"/".join(parts)
    whole = len(joined) <= MAX_NAME and joined.count(b"/") == len(parts) - 1
    return whole and b"\0" not in joined and _NO_NAMES.isdisjoint(parts)


def printable(name: Parts | bytes | str) -> str:
    """``name`` as text that is safe to print on a terminal and to write into one line of a log.

    Whatever Unicode does not call printable (controls, escapes, line breaks, direction and zero-width marks, private
    and unassigned characters) and every byte that is not UTF-8 becomes a backslash escape.  Backslashes themselves
    stay, so that text which has been through here once comes out unchanged the second time.
    """
    if isinstance(name, tuple):
        name = b"/".join(name) or b"."
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(point: int) -> str:
    if 0xDC80 <= point <= 0xDCFF:  # a byte that was not UTF-8, as surrogateescape carries it
        point -= 0xDC00
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
