"""The manifest, persisted: an append-only file of which any prefix is true.

Theory: a header binds the journal to one part (device and inode), one version of one source, one destination and one
owner.  Records of fixed size follow, each with a check that is seeded with the check before it, the first one with the
header's, which covers a random epoch.  So nothing can be cut out, exchanged or left over from an earlier life of the
same blocks; reading stops at the first record that does not fit and what precedes it stays good.

Two levels of claim.  RECEIVED says "bytes with this CRC were handed to the kernel": a hint, to be believed only after
reading them again.  DURABLE(n) says "a successful sync of the part came between record n - 1 and this one", so that
the chunks of the first n records need no reading, unless somebody has touched the part since: the record has a stamp of
its size and times in the place of the checksum.  INVALID takes one chunk back; REVOKE takes all DURABLE back.

    header   "FSMUXJ1\\n" · version u16 · tag length u16 · destination length u16 · 0 u16 · chunk size u32 · 0 u32
             · size u64 · mtime_ns i64 · device u64 · inode u64 · owner 16 · epoch 16 · tag · destination · check u64
    record   type u8 · 0 u24 · number u32 · value u32 · crc32 u32 · check u64                       (little-endian)
"""

from __future__ import annotations

import hashlib
import struct
import threading
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from xxhash import xxh3_64_intdigest, xxh32_intdigest

from fsmux.files import ranges
from fsmux.limits import MAX_CHUNK_SIZE, MAX_CHUNKS, MAX_FILE_SIZE, MAX_PATH_BYTES, MIN_CHUNK_SIZE
from fsmux.records import Identity

if TYPE_CHECKING:
    import os

    from fsmux.files.lease import Lease
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts

_MAGIC: Final = b"FSMUXJ1\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sHHHxxI4xQqQQ16s16s")
_CHECK: Final = struct.Struct("<Q")
_BODY: Final = struct.Struct("<B3xIII")
RECORD: Final = _BODY.size + _CHECK.size
MAX_TAG: Final = 64
_MAX_RECORDS: Final = 4 * MAX_CHUNKS
"""Far more than a session writes.  What a longer file says beyond is as good as cut off."""

MAX_HEADER: Final = _HEADER.size + MAX_TAG + MAX_PATH_BYTES + _CHECK.size
MAX_JOURNAL: Final = MAX_HEADER + RECORD * _MAX_RECORDS


_STAMP: Final = struct.Struct("<Qqq")


def stamp_of(facts: os.stat_result) -> int:
    """Size and times of a part in 32 bits: whoever writes to it changes them, and the ctime cannot be set back."""
    return xxh32_intdigest(_STAMP.pack(facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))


def journal_name(parts: Parts, owner: bytes) -> bytes:
    """What the journal of ``owner``'s file at ``parts`` is called in the reserved directory."""
    return identify(parts, owner)[2] + b".journal"


def identify(parts: Parts, owner: bytes) -> tuple[bytes, bytes, bytes]:
    """A destination and its owner as a journal names them, and the names of its files but for their endings."""
    where = b"\0".join(parts)
    whose = hashlib.blake2b(owner, digest_size=16).digest()
    return where, whose, hashlib.blake2b(whose + where, digest_size=16).hexdigest().encode()


class Type(IntEnum):
    RECEIVED = 1
    DURABLE = 2
    INVALID = 3
    REVOKE = 4


class Header(Struct, frozen=True):
    """What a journal belongs to."""

    identity: Identity
    chunk_size: int
    device: int
    inode: int
    owner: bytes
    """Sixteen bytes that stand for whoever began it."""
    destination: bytes
    """Its components, with NUL between them."""
    epoch: bytes
    """Sixteen random bytes."""

    def encode(self) -> bytes:
        tag, where = self.identity.tag, self.destination
        body = _HEADER.pack(
            _MAGIC, _VERSION, len(tag), len(where), self.chunk_size, self.identity.size, self.identity.mtime_ns,
            self.device, self.inode, self.owner, self.epoch,
        )  # fmt: skip
        body += tag + where
        return body + _CHECK.pack(xxh3_64_intdigest(body))

    @classmethod
    def decode(cls, data: bytes | memoryview) -> tuple[Header, int] | None:
        """The header and its length; None for anything that is not a whole and sound one."""
        if len(data) < _HEADER.size:
            return None
        magic, version, tag_size, where_size, chunk_size, size, mtime_ns, device, inode, owner, epoch = (
            _HEADER.unpack_from(data)
        )
        end = _HEADER.size + tag_size + where_size
        if magic != _MAGIC or version != _VERSION or tag_size > MAX_TAG or where_size > MAX_PATH_BYTES:
            return None
        if len(data) < end + _CHECK.size or _CHECK.unpack_from(data, end)[0] != xxh3_64_intdigest(bytes(data[:end])):
            return None
        # The check could be right and the content still not ours (a planted file): every value is used as if hostile.
        if not (MIN_CHUNK_SIZE <= chunk_size <= MAX_CHUNK_SIZE and chunk_size & (chunk_size - 1) == 0):
            return None
        if size > MAX_FILE_SIZE or -(-size // chunk_size) > MAX_CHUNKS:
            return None
        split = _HEADER.size + tag_size
        identity = Identity(size, mtime_ns, bytes(data[_HEADER.size : split]))
        header = cls(identity, chunk_size, device, inode, owner, bytes(data[split:end]), epoch)
        return header, end + _CHECK.size


class Log(Struct):
    """What a journal says: the state after its longest sound prefix."""

    header: Header
    end: int
    """Bytes of that prefix."""
    chain: int
    """Check of its last record, the seed of the next."""
    count: int = 0
    """Records in it."""
    held: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Chunk → (crc32, number of its record)."""
    durable: int = 0
    """The first so many records were synced."""
    stamp: int = 0
    """What the part looked like then."""

    def is_durable(self, index: int) -> bool:
        return self.held[index][1] < self.durable


def parse(data: bytes | memoryview) -> Log | None:
    """Read a journal.  Any bytes at all give a log or None, and never an exception."""
    found = Header.decode(data)
    if found is None:
        return None
    header, end = found
    log = Log(header, end, _CHECK.unpack_from(data, end - _CHECK.size)[0])
    chunks = -(-header.identity.size // header.chunk_size)
    view = memoryview(data)
    while log.end + RECORD <= len(view) and log.count < _MAX_RECORDS:
        body = view[log.end : log.end + _BODY.size]
        kind, number, value, crc = _BODY.unpack(body)
        check = xxh3_64_intdigest(body, log.chain)
        if check != _CHECK.unpack_from(view, log.end + _BODY.size)[0] or number != log.count:
            break
        if kind == Type.RECEIVED and value < chunks:
            log.held[value] = (crc, number)
        elif kind == Type.INVALID and value < chunks:
            log.held.pop(value, None)
        elif kind == Type.DURABLE and value <= number:
            log.durable, log.stamp = max(log.durable, value), crc
        elif kind == Type.REVOKE:
            log.durable = 0
        else:
            break  # written by a later version, or forged; from here on nothing is understood
        log.chain = check
        log.end += RECORD
        log.count += 1
    return log


class Journal:
    """The open journal of one unfinished file.  Its owner holds the lock on it (:mod:`.lock`).

    Records are buffered; :meth:`flush` writes what there is with one system call at a known offset, so that a write
    that failed half-way is simply made again in the same place.  Thread-safe.
    """

    def __init__(self, sys: Syscalls, lease: Lease) -> None:
        self._sys = sys
        self._lease = lease
        self._buffer = bytearray()
        self._appending = threading.Lock()  # order of records; held for some bytecodes
        self._writing = threading.Lock()  # order of writes; held during the system call
        self._end = 0
        self._chain = 0
        self.count = 0

    def load(self) -> Log | None:
        """Read what is there.  To go on from it call :meth:`resume`, to forget it :meth:`reset`."""
        with self._lease.hold() as fd:
            size = min(self._sys.fstat(fd).st_size, MAX_JOURNAL)
            view = memoryview(bytearray(size))
            count = ranges.read_into(self._sys, fd, view, 0)
        self._end = size
        return parse(view[:count])

    def resume(self, log: Log) -> None:
        """Go on behind the sound prefix; the tail is cut, so that nothing of it can ever be read again."""
        with self._lease.hold() as fd:
            self._sys.ftruncate(fd, log.end)
        self._end, self._chain, self.count = log.end, log.chain, log.count

    def reset(self) -> None:
        """Empty it, for good: what it claims must not come back once the part holds something else."""
        with self._writing:
            if self._end:
                with self._lease.hold() as fd:
                    self._sys.ftruncate(fd, 0)
                    self._sys.fdatasync(fd)
            with self._appending:
                self._buffer.clear()
                self._end = self._chain = self.count = 0

    def begin(self, header: Header) -> None:
        """Write the header into an empty journal."""
        data = header.encode()
        with self._writing, self._appending:
            with self._lease.hold() as fd:
                ranges.write_all(self._sys, fd, (memoryview(data),), 0)
            self._end = len(data)
            self._chain = _CHECK.unpack_from(data, len(data) - _CHECK.size)[0]
            self.count = 0

    def append(self, kind: Type, value: int = 0, crc: int = 0) -> None:
        """Buffer a record."""
        with self._appending:
            body = _BODY.pack(kind, self.count, value, crc)
            self._chain = xxh3_64_intdigest(body, self._chain)
            self._buffer += body
            self._buffer += _CHECK.pack(self._chain)
            self.count += 1

    @property
    def pending(self) -> bool:
        return bool(self._buffer)

    def flush(self) -> None:
        """Hand all buffered records to the kernel, in one write."""
        if not self._buffer:
            return
        with self._writing:
            with self._appending:
                data = bytes(self._buffer)
            if not data:
                return
            with self._lease.hold() as fd:
                ranges.write_all(self._sys, fd, (memoryview(data),), self._end)
            with self._appending:
                del self._buffer[: len(data)]
                self._end += len(data)

    def sync(self) -> None:
        with self._lease.hold() as fd:
            self._sys.fdatasync(fd)

    def close(self) -> None:
        """Give up the descriptor and with it the lock."""
        self._lease.close()
