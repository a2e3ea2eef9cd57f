"""The text of a manifest: whatever is written is read back, and whatever else comes is an error with its line."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from fsmux.errors import ExitCode
from fsmux.files.digestfile import (
    DIGEST_SIZE,
    MAX_LINE,
    ManifestError,
    Reader,
    Record,
    Writer,
    chunks_of,
    encode,
    make_record,
    quote,
    unquote,
)
from fsmux.files.names import is_reserved
from fsmux.limits import CHUNK_SIZE, MAX_NAME, MAX_PATH_BYTES, MIB, MIN_CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

components = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"\0", b"_").replace(b"/", b"_"))
    .filter(lambda name: name not in (b".", b"..") and not is_reserved(name))
)
paths = st.lists(components, min_size=1, max_size=4).map(tuple)
digests = st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE)


@st.composite
def records(draw: st.DrawFn) -> Record:
    size = draw(st.integers(0, 5 * MIN_CHUNK_SIZE))
    count = chunks_of(size, MIN_CHUNK_SIZE).count
    made = draw(st.lists(digests, min_size=count, max_size=count))
    mtime = draw(st.integers(-(2**63), 2**63 - 1))
    return make_record(draw(paths), size, mtime, draw(st.integers(0, 2**32 - 1)), made)


def written(records: Iterable[Record], chunk_size: int = MIN_CHUNK_SIZE) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, chunk_size)
    for record in records:
        writer.add(record)
    writer.close()
    return file.getvalue()


def sealed(body: bytes, files: int = 1, size: int = 1) -> bytes:
    """A body with the end that makes it look whole."""
    return body + f"end {files} {size} {xxhash.xxh3_128_hexdigest(body)}\n".encode()


def read(text: bytes) -> list[Record]:
    return list(Reader(io.BytesIO(text), "m"))


HEADER = b"fsmux-manifest 1 xxh3-128 65536\n"
LINE = encode(Record((b"a",), 1, 2, 3, bytes(16)))


@given(st.lists(records(), max_size=6, unique_by=lambda record: b"/".join(record.parts)))
def test_what_is_written_is_read_back(several: list[Record]) -> None:
    reader = Reader(io.BytesIO(written(several)), "m")
    assert (reader.files, reader.bytes) == (len(several), sum(record.size for record in several))
    assert list(reader) == several
    assert reader.chunk_size == MIN_CHUNK_SIZE


@given(st.binary(min_size=1, max_size=40))
@example(bytes(range(1, 256)))
@example(b"%41")
@example("grün-文字 \u2028\u202e".encode())
@example(b" leading and trailing ")
def test_every_byte_of_a_name_comes_back_from_one_printable_line(path: bytes) -> None:
    line = quote(path)
    assert unquote(line) == path
    assert line.decode().isprintable()


def test_names_that_can_be_read_stay_readable() -> None:
    assert quote("fotos/Zürich 100 m.jpg".encode()) == "fotos/Zürich 100 m.jpg".encode()
    assert quote(b"a\nb%\xff") == b"a%0Ab%25%FF"


def test_the_format_is_what_its_description_says() -> None:
    """docs/MANIFEST.md, as bytes."""
    data = bytes(MIN_CHUNK_SIZE + 1)
    chunks = [xxhash.xxh3_128_digest(data[:MIN_CHUNK_SIZE]), xxhash.xxh3_128_digest(b"\0")]
    text = written([make_record((b"d", b"z"), len(data), -5, 0xABC, chunks), make_record((b"e",), 0, 7, 0, [])])
    lines = text.split(b"\n")
    assert lines[0] == b"fsmux-manifest 1 xxh3-128 65536"
    assert lines[1] == f"{xxhash.xxh3_128_hexdigest(b''.join(chunks))} 00000abc 65537 -5 d/z".encode()
    assert lines[2:4] == [b" " + chunk.hex().encode() for chunk in chunks]
    assert lines[4] == f"{xxhash.xxh3_128_hexdigest(b'')} 00000000 0 7 e".encode()
    body = b"\n".join(lines[:5]) + b"\n"
    assert lines[5] == f"end 2 65537 {xxhash.xxh3_128_hexdigest(body)}".encode()
    assert lines[6:] == [b""]


def test_a_file_of_one_chunk_has_the_digest_of_its_bytes() -> None:
    record = make_record((b"a",), 3, 0, 0, [xxhash.xxh3_128_digest(b"abc")])
    assert (record.digest, record.chunks) == (xxhash.xxh3_128_digest(b"abc"), b"")
    assert record.chunk(0) == record.digest


@given(st.lists(records(), min_size=1, max_size=3, unique_by=lambda record: b"/".join(record.parts)), st.data())
def test_one_that_was_cut_or_has_rotted_is_never_believed(several: list[Record], data: st.DataObject) -> None:
    text = bytearray(written(several))
    if data.draw(st.booleans()):
        del text[data.draw(st.integers(0, len(text) - 1)) :]
    else:
        text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ManifestError):
        read(bytes(text))


@given(st.binary(max_size=300))
def test_garbage_is_an_error_and_nothing_else(text: bytes) -> None:
    with pytest.raises(ManifestError):
        read(text)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_hostile_lines_are_errors_with_their_number(lines: list[bytes]) -> None:
    body = HEADER + b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    if not lines:
        assert read(sealed(body, 0, 0)) == []
        return
    with pytest.raises(ManifestError, match=r"\Am, line ") as caught:
        read(sealed(body, 0, 0))
    assert 1 <= caught.value.line <= len(lines) + 2


@pytest.mark.parametrize(
    ("body", "line", "files"),
    [
        (b"", 1, 0),
        (b"hello\n", 1, 0),
        (b"fsmux-manifest 2 xxh3-128 65536\n", 1, 0),
        (b"fsmux-manifest 1 md5 65536\n", 1, 0),
        (b"fsmux-manifest 1 xxh3-128 0\n", 1, 0),
        (b"fsmux-manifest 1 xxh3-128 65537\n", 1, 0),
        (b"fsmux-manifest 1 xxh3-128 999999999\n", 1, 0),
        (HEADER + b"\n", 2, 0),
        (HEADER + b" " + b"0" * 32 + b"\n", 2, 0),
        (HEADER + LINE + LINE, 3, 2),
        (HEADER + LINE.replace(b" a\n", b" ../a\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" /etc/passwd\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" .fsmux/x\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" a%2F..%2Fb/..\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" a%00\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" a%\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" a%4g\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" \n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" " + b"n" * (MAX_NAME + 1) + b"\n"), 2, 1),
        (HEADER + LINE.replace(b" a\n", b" " + b"n" * MAX_LINE + b"\n"), 2, 1),
        (HEADER + LINE.replace(b" 1 2 ", b" 9999999999999999999 2 "), 2, 1),
        (HEADER + LINE.replace(b" 1 2 ", b" 1 9999999999999999999 "), 2, 1),
        (HEADER + LINE.replace(b" 1 2 ", b" -1 2 "), 2, 1),
        (HEADER + LINE.replace(b" 1 2 ", b" 4611686018427387904 2 "), 2, 1),
        (HEADER + LINE.replace(b" 1 2 ", b" 1000000000000 2 "), 3, 1),
        (HEADER + LINE.replace(b" 1 2 ", b" 65537 2 ") + b" " + b"0" * 32 + b"\n", 4, 1),
        (HEADER + LINE.replace(b" 1 2 ", b" 65537 2 ") + 2 * (b" " + b"0" * 32 + b"\n"), 5, 1),
        (HEADER + LINE + b" " + b"0" * 32 + b"\n", 3, 1),
        (HEADER + LINE, 3, 2),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(body: bytes, line: int, files: int) -> None:
    with pytest.raises(ManifestError) as caught:
        read(sealed(body, files))
    assert caught.value.line == line
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_line_may_be_as_long_as_the_longest_path_escaped() -> None:
    parts = (b"\xff" * 127,) * 32
    assert len(b"/".join(parts)) == MAX_PATH_BYTES
    record = Record(parts, 2**40, -(2**63), 2**32 - 1, bytes(16))
    assert len(encode(record).split(b"\n")[0]) < MAX_LINE


def test_chunks_grow_with_the_file_as_they_do_in_a_transfer() -> None:
    assert chunks_of(10 * MIB, CHUNK_SIZE).count == 3
    assert chunks_of(2**43, CHUNK_SIZE).chunk_size == 2 * CHUNK_SIZE


def test_the_example_in_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs/MANIFEST.md").read_bytes().split(b"```\n")[1]
    zeros, note = read(text)
    assert (zeros.parts, note.parts) == ((b"photos", b"holiday.tif"), (b"photos", b"note\n2.txt"))
    assert zeros.crc32 == zlib.crc32(bytes(zeros.size))
    assert zeros.chunk(0) == zeros.chunk(1) == xxhash.xxh3_128_digest(bytes(CHUNK_SIZE))
    assert (note.crc32, note.digest) == (zlib.crc32(b"abc"), xxhash.xxh3_128_digest(b"abc"))
