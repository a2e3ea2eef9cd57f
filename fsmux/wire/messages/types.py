"""One frozen record per message about files; ``schema/PROTOCOL.md`` says when each may be sent.

The records hold values that are fit to use: names are tuples of bytes, ranges are extents, enumerations are
enumerations.  A record made by hand is checked when it is encoded as far as a mistake could reach the peer as a
protocol error; a record that :func:`~fsmux.wire.messages.decode` made has been checked in every field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

from msgspec import Struct

from fsmux.records import EVERYTHING, Attrs, Durability, Extent, Identity, Kept, Namespaces, Parts
from fsmux.wire.frames import Cmd
from fsmux.wire.messages.connection import Auth, Credit, Error, Fault, Goaway, Hello, Pace, Ping, Pong, Reset

if TYPE_CHECKING:
    from fsmux.columns import Group

# ---- names and attributes ---------------------------------------------------------------------------------------


class Stat(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.STAT
    path: Parts
    follow: bool = False
    owner: bool = False
    xattrs: Namespaces = Namespaces.NONE


class List(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.LIST
    path: Parts
    recursive: bool = False


class Entry(Struct, frozen=True):
    """One name of a listing, relative to the listed directory, with its attributes or why they cannot be had."""

    path: Parts
    attrs: Attrs | None = None
    fault: Fault | None = None


class Entries(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.ENTRIES
    entries: tuple[Entry, ...] = ()


class Mkdir(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.MKDIR
    path: Parts
    parents: bool = False
    mode: int = 0o777


class Rename(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.RENAME
    source: Parts
    target: Parts
    replace: bool = False


class Remove(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.REMOVE
    path: Parts
    recursive: bool = False


class SetAttrs(Struct, frozen=True):
    """Set the times and the mode of what stands under a name, if it has the time ``found_ns`` now, or that is 0."""

    CMD: ClassVar[Cmd] = Cmd.SETATTRS
    path: Parts
    attrs: Attrs
    durability: Durability = Durability.BATCH
    found_ns: int = 0


class Symlink(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.SYMLINK
    path: Parts
    target: bytes
    attrs: Attrs | None = None
    durability: Durability = Durability.BATCH


class Ok(Struct, frozen=True):
    """The request succeeded."""

    CMD: ClassVar[Cmd] = Cmd.OK


# ---- random access: the stream is the handle --------------------------------------------------------------------


class Open(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.OPEN
    path: Parts
    write: bool = False
    create: bool = False
    truncate: bool = False


class Read(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.READ
    offset: int
    length: int


class ReadDone(Struct, frozen=True):
    """So many bytes were read (fewer than asked for: the file ended), with this CRC-32."""

    CMD: ClassVar[Cmd] = Cmd.READ_DONE
    length: int
    crc32: int


class Write(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.WRITE
    offset: int
    length: int
    crc32: int


class Close(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.CLOSE
    sync: bool = False


class Create(Struct, frozen=True):
    """A file of unknown length follows in WRITEs; with CLOSE it gets its name."""

    CMD: ClassVar[Cmd] = Cmd.CREATE
    path: Parts
    mode: int = 0o644
    durability: Durability = Durability.BATCH
    verify: bool = False
    join: bytes = b""
    attempt: int = 0
    again: bool = False
    """Whether a WRITE that arrives damaged may be asked for again."""


# ---- bulk transfer ----------------------------------------------------------------------------------------------


class Get(Struct, frozen=True):
    """Please offer this file; ``fresh`` if nothing of it is here."""

    CMD: ClassVar[Cmd] = Cmd.GET
    path: Parts
    fresh: bool = False
    chunk_size: int = 0


class Put(Struct, frozen=True):
    """A file for this name will be offered next; ``join`` is shared by all requests of one run, in all its attempts."""

    CMD: ClassVar[Cmd] = Cmd.PUT
    path: Parts
    no_resume: bool = False
    durability: Durability = Durability.BATCH
    join: bytes = b""
    streams: int = 0
    attempt: int = 0
    verify: bool = False
    like: Parts = ()
    kept: Kept = EVERYTHING
    attrs: Attrs | None = None
    """The owner and extended attributes that it is to have before it gets its name."""


class Offer(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.OFFER
    identity: Identity
    mode: int
    chunk_size: int
    eager: bool = False
    holes: int = 0
    """Bytes of the file that take no room at the sender, more or less."""


class Want(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.WANT
    missing: tuple[Extent, ...] = ()
    whole: bool = False
    have: bool = False
    more: bool = False
    held: int = 0


class Have(NamedTuple):
    """A range of an earlier version and its XXH3-128."""

    offset: int
    length: int
    digest: bytes


class Haves(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.HAVES
    ranges: tuple[Have, ...] = ()
    more: bool = False


class Keep(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.KEEP
    ranges: tuple[Extent, ...] = ()
    more: bool = False


class Span(Struct, frozen=True):
    """The DATA that follows belongs here, until the length is used up; or to ``ranges``, one behind the other.

    Of ``holes``, which are zeros, none follows.
    """

    CMD: ClassVar[Cmd] = Cmd.SPAN
    offset: int = 0
    length: int = 0
    ranges: tuple[Extent, ...] = ()
    holes: tuple[Extent, ...] = ()
    chunks: tuple[Chunk, ...] = ()

    @property
    def speaks(self) -> bool:
        """Whether it says more than where DATA belongs."""
        return bool(self.holes or self.chunks)


class Chunk(Struct, frozen=True):
    """All bytes of a chunk were sent; this is what they must come to."""

    CMD: ClassVar[Cmd] = Cmd.CHUNK
    index: int
    crc32: int


class Again(Struct, frozen=True):
    """A chunk arrived damaged (``found`` is what it came to): please send it again."""

    CMD: ClassVar[Cmd] = Cmd.AGAIN
    index: int
    found: int


class Finish(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.FINISH
    chunks: int
    crc32: int | None = None


class Committed(Struct, frozen=True):
    """The file stands whole under its name; this is its CRC-32."""

    CMD: ClassVar[Cmd] = Cmd.COMMITTED
    crc32: int
    durable: bool
    bytes_resumed: int = 0
    refused: Fault | None = None
    """Why it has not all of the extended attributes that it was to have, if so."""


# ---- trees ------------------------------------------------------------------------------------------------------


class Store(Struct, frozen=True):
    """Packs of what is to stand under this path come next."""

    CMD: ClassVar[Cmd] = Cmd.STORE
    path: Parts
    durability: Durability = Durability.BATCH
    join: bytes = b""
    attempt: int = 0
    verify: bool = False
    kept: Kept = EVERYTHING


class Fetch(Struct, frozen=True):
    """What stands under this path will be asked for."""

    CMD: ClassVar[Cmd] = Cmd.FETCH
    path: Parts


class Ask(Struct, frozen=True):
    """Please send these entries as pack ``number``."""

    CMD: ClassVar[Cmd] = Cmd.ASK
    number: int
    groups: tuple[Group, ...]


class Pack(Struct, frozen=True):
    """The index of a pack; the contents of its regular files follow as DATA, one behind the other.

    Of a tree that comes by itself it says how many regular files, with how many bytes, are known of until now, and
    whether these are all.
    """

    CMD: ClassVar[Cmd] = Cmd.PACK
    number: int
    groups: tuple[Group, ...]
    files: int = 0
    bytes: int = 0
    all_known: bool = False

    @property
    def size(self) -> int:
        """Bytes of contents that follow."""
        return sum([group.contents for group in self.groups])


class Failed(NamedTuple):
    """What became of one entry of a pack: the numbers of its group and of itself in it, and why it failed, or, if it
    ``stands``, what could not be kept of it.
    """

    group: int
    entry: int
    fault: Fault
    stands: bool = False


class Packed(Struct, frozen=True):
    """All of pack ``number`` stands, but for what failed."""

    CMD: ClassVar[Cmd] = Cmd.PACKED
    number: int
    failed: tuple[Failed, ...] = ()
    durable: bool = False


class Walk(Struct, frozen=True):
    """List the whole tree at this path, directories before what is in them.

    With ``pack_bytes`` it comes in packs of about so many bytes, with the contents of files of up to ``medium``.
    """

    CMD: ClassVar[Cmd] = Cmd.WALK
    path: Parts
    owners: bool = False
    xattrs: Namespaces = Namespaces.NONE
    pack_bytes: int = 0
    medium: int = 0


class Look(Struct, frozen=True):
    """List these directories, which are relative to the path of the first such message."""

    CMD: ClassVar[Cmd] = Cmd.LOOK
    path: Parts = ()
    directories: tuple[Parts, ...] = ()
    owners: bool = False
    xattrs: Namespaces = Namespaces.NONE


class Listed(Struct, frozen=True):
    CMD: ClassVar[Cmd] = Cmd.LISTED
    groups: tuple[Group, ...] = ()


class Digest(Struct, frozen=True):
    """Read these files, which have these sizes; they are relative to the path of the first such message."""

    CMD: ClassVar[Cmd] = Cmd.DIGEST
    path: Parts = ()
    groups: tuple[Group, ...] = ()


class Digests(Struct, frozen=True):
    """XXH3-128 of the next files that were asked for; None of one that cannot be read, or has another size."""

    CMD: ClassVar[Cmd] = Cmd.DIGESTS
    digests: tuple[bytes | None, ...] = ()


Message: TypeAlias = (
    Hello | Auth | Ping | Pong | Pace | Credit | Reset | Goaway | Error
    | Stat | List | Entries | Attrs | Mkdir | Rename | Remove | SetAttrs | Symlink | Ok
    | Open | Read | ReadDone | Write | Close | Create
    | Get | Put | Offer | Want | Haves | Keep | Span | Chunk | Again | Finish | Committed
    | Store | Fetch | Ask | Pack | Packed | Walk | Look | Listed | Digest | Digests
)  # fmt: skip
"""Whatever :func:`~fsmux.wire.messages.encode` takes. ``Attrs`` of records.py is the message ATTRS as it stands."""
