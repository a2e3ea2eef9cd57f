"""Manifests of trees as text: what each file came to, so that it can be checked, and repaired, years later.

Theory: one record per file, with an XXH3-128 per chunk, so that damage is found where it is.  The digest of a whole
file is made of the digests of its chunks, in order; chunks arrive in any order, and their digests are there when the
transfer ends, without a second read.  (A file of at most one chunk has just the digest of its bytes.)  XXH3-128 tells
accidents, not forgeries: against somebody who means it there is ``fsmux verify --sha256``.

The text ends with its own totals and digest: a manifest that was cut or has rotted itself must not accuse good files.
Whoever reads one checks everything, because it may have come from anywhere: no count is believed before that many
lines were there, no name may leave the tree.  ``docs/MANIFEST.md`` describes the format for others.  Pure, but for
reading the file it is given.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import xxhash

from fsmux.errors import FsmuxError, UsageError
from fsmux.files import names
from fsmux.files.chunks import ChunkMap, effective_chunk_size
from fsmux.limits import MAX_CHUNK_SIZE, MAX_CHUNKS, MAX_PATH_BYTES, MIB, MIN_CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from fsmux.records import Parts

NAME: Final = b"fsmux-manifest"
VERSION: Final = 1
ALGORITHM: Final = b"xxh3-128"

DIGEST_SIZE: Final = 16
"""Bytes of an XXH3-128."""

MAX_LINE: Final = 3 * MAX_PATH_BYTES + 128
"""Bytes: the longest path with every byte escaped, and the fields before it."""

_HEADER: Final = re.compile(rb"fsmux-manifest (\d{1,9}) (\S{1,64})(?: (\d{1,9}))?(?: .*)?\n")
_RECORD: Final = re.compile(rb"([0-9a-f]{32}) ([0-9a-f]{8}) (\d{1,19}) (-?\d{1,19}) (.+)\n", re.DOTALL)
_CHUNK: Final = re.compile(rb" ([0-9a-f]{32})\n")
_END: Final = re.compile(rb"end (\d{1,19}) (\d{1,30}) ([0-9a-f]{32})\n")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_BLOCK: Final = 1 * MIB


class ManifestError(UsageError):
    """The text is no manifest, or a damaged one.  ``line`` is where, counted from 1; 0 if it is the whole."""

    def __init__(self, name: str, line: int, text: str) -> None:
        super().__init__(f"{name}, line {line}: {text}" if line else f"{name}: {text}")
        self.line = line


class Record(NamedTuple):
    """One file: ``digest`` of the whole, ``chunks`` the digests of its chunks joined, if it has more than one."""

    parts: Parts
    size: int
    mtime_ns: int
    crc32: int
    digest: bytes
    chunks: bytes = b""

    def chunk(self, index: int) -> bytes:
        """The digest of a chunk."""
        if not self.chunks:
            return self.digest
        return self.chunks[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]


def chunks_of(size: int, chunk_size: int) -> ChunkMap:
    """How a manifest with ``chunk_size`` cuts a file: its chunks grow with it, as in a transfer."""
    return ChunkMap(size, effective_chunk_size(size, chunk_size))


def make_record(parts: Parts, size: int, mtime_ns: int, crc32: int, digests: Iterable[bytes]) -> Record:
    """The record of a file whose chunks have these digests, in order."""
    joined = b"".join(digests)
    if len(joined) > DIGEST_SIZE:
        return Record(parts, size, mtime_ns, crc32, xxhash.xxh3_128_digest(joined), joined)
    return Record(parts, size, mtime_ns, crc32, joined or xxhash.xxh3_128_digest(b""))


# ---- names -----------------------------------------------------------------------------------------------------------


def quote(path: bytes) -> bytes:
    """A path for a line: whatever is not printable, not UTF-8, or a percent sign becomes %XX, byte by byte."""
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable() and "%" not in text:
        return path
    return b"".join(map(_quote_char, text))


def _quote_char(char: str) -> bytes:
    raw = char.encode("utf-8", "surrogateescape")
    return raw if char.isprintable() and char != "%" else b"".join(b"%%%02X" % byte for byte in raw)


def unquote(text: bytes) -> bytes:
    """The path that :func:`quote` was given.  Raises :class:`ValueError` for a percent sign that escapes nothing."""
    return _ESCAPE.sub(_unquote_match, text) if b"%" in text else text


def _unquote_match(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        raise ValueError("a percent sign is not followed by two hexadecimal digits")
    return bytes.fromhex(found[1].decode())


# ---- writing ---------------------------------------------------------------------------------------------------------


def encode(record: Record) -> bytes:
    """The lines of a record."""
    path = quote(b"/".join(record.parts))
    head = f"{record.digest.hex()} {record.crc32:08x} {record.size} {record.mtime_ns} ".encode()
    if not record.chunks:
        return b"%b%b\n" % (head, path)
    chunks = record.chunks
    lines = [f" {chunks[at : at + DIGEST_SIZE].hex()}\n" for at in range(0, len(chunks), DIGEST_SIZE)]
    return b"%b%b\n%b" % (head, path, "".join(lines).encode())


class Writer:
    """Writes a manifest: a header, records in any order, and by :meth:`close` the line that makes it whole."""

    def __init__(self, file: IO[bytes], chunk_size: int) -> None:
        self.files = self.bytes = 0
        self._file = file
        self._check = xxhash.xxh3_128()
        self._write(b"%b %d %b %d\n" % (NAME, VERSION, ALGORITHM, chunk_size))

    def _write(self, data: bytes) -> None:
        self._check.update(data)
        self._file.write(data)

    def add(self, record: Record) -> None:
        self.encoded(encode(record), 1, record.size)

    def encoded(self, lines: bytes, files: int, size: int) -> None:
        """So many files, as :func:`encode` has them."""
        self.files += files
        self.bytes += size
        self._write(lines)

    def close(self) -> None:
        """Write the end.  The file stays open."""
        self._file.write(f"end {self.files} {self.bytes} {self._check.hexdigest()}\n".encode())


# ---- reading ---------------------------------------------------------------------------------------------------------


class Reader:
    """The records of a manifest, one at a time, checked.  ``files`` and ``bytes`` are its totals, known at once.

    Takes a file that can be read twice: it is looked at whole before the first record is believed.  ``name`` is what
    errors call it.

    Raises:
        ManifestError: it is no manifest, of another version, cut, damaged, or says what cannot be.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._line = 1
        self.paths: set[bytes] = set()
        """The paths that were read until now."""
        self.chunk_size = self._read_header()
        self.files, self.bytes = self._read_end()

    def _read_header(self) -> int:
        line = self._file.readline(MAX_LINE)
        found = _HEADER.fullmatch(line)
        if found is None:
            raise self._wrong(f"this is not a manifest: it does not begin with {NAME.decode()!r}")
        if int(found[1]) != VERSION:
            raise self._wrong(f"a manifest of version {int(found[1])}; this release reads version {VERSION}")
        if found[2] != ALGORITHM:
            raise self._wrong(f"this release knows no digests but {ALGORITHM.decode()}")
        size = int(found[3] or 0)
        if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
            raise self._wrong(f"a chunk size of {size} bytes is none")
        return size

    def _read_end(self) -> tuple[int, int]:
        """Check the whole against its last line; the totals there."""
        file = self._file
        begin = file.tell()
        size = file.seek(0, 2)
        file.seek(max(size - 128, 0))
        tail = file.read(128)
        last = tail[tail[:-1].rfind(b"\n") + 1 :]
        found = _END.fullmatch(last)
        if found is None:
            raise ManifestError(
                self._name, 0, "it is cut: its last line does not say that this is the end; make it anew"
            )
        check = xxhash.xxh3_128()
        file.seek(0)
        left = size - len(last)
        while left and (block := file.read(min(_BLOCK, left))):
            check.update(block)
            left -= len(block)
        if left or check.hexdigest().encode() != found[3]:
            raise ManifestError(
                self._name, 0, "it was changed or damaged since it was written (its own digest is wrong)"
            )
        file.seek(begin)
        return int(found[1]), int(found[2])

    def __iter__(self) -> Iterator[Record]:
        size = 0
        line = self._next_line()
        while _END.fullmatch(line) is None:
            record = self._record(line)
            line = self._next_line()
            if (chunks := chunks_of(record.size, self.chunk_size)).count > 1:
                record, line = self._with_chunks(record, chunks.count, line)
            size += record.size
            yield record
        if (len(self.paths), size) != (self.files, self.bytes):
            raise self._wrong("the totals at the end are not those of the records")

    def _next_line(self) -> bytes:
        self._line += 1
        line = self._file.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise self._wrong("this line is too long" if len(line) == MAX_LINE else "it ends early")
        return line

    def _record(self, line: bytes) -> Record:
        found = _RECORD.fullmatch(line)
        if found is None:
            raise self._wrong("this is no record of a file")
        size, mtime_ns = int(found[3]), int(found[4])
        if size > MAX_CHUNKS * MAX_CHUNK_SIZE or not -(2**63) <= mtime_ns < 2**63:
            raise self._wrong("no file has such a size or time")
        try:
            path = unquote(found[5])
            parts = tuple(path.split(b"/"))
            names.check(parts)
        except (ValueError, FsmuxError) as error:
            raise self._wrong(str(error)) from None
        if path in self.paths:
            raise self._wrong("this file has a record already")
        self.paths.add(path)
        return Record(parts, size, mtime_ns, int(found[2], 16), bytes.fromhex(found[1].decode()))

    def _with_chunks(self, record: Record, count: int, line: bytes) -> tuple[Record, bytes]:
        """The record with ``count`` digests, which begin at ``line``; and the line behind them."""
        digests = bytearray()
        for _ in range(count):
            if (found := _CHUNK.fullmatch(line)) is None:
                have = len(digests) // DIGEST_SIZE
                raise self._wrong(f"a file of {record.size} bytes has {count} chunks, and this is no digest of one"
                                  f" (there were {have})")  # fmt: skip
            digests += bytes.fromhex(found[1].decode())
            line = self._next_line()
        if xxhash.xxh3_128_digest(digests) != record.digest:
            raise self._wrong("the digests of the chunks above do not make that of their file")
        return record._replace(chunks=bytes(digests)), line

    def _wrong(self, text: str) -> ManifestError:
        return ManifestError(self._name, self._line, text)
