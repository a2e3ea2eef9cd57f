from __future__ import annotations

import random
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zlib_ng.zlib_ng import crc32

from fsmux import limits
from fsmux.errors import Damaged, ProtocolError, VersionMismatch
from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import (
    HEADER,
    HEADER_SIZE,
    MAGIC,
    SEAL_SIZE,
    Cmd,
    FileSpan,
    Flags,
    Frame,
    Header,
    decode_header,
    encode,
    encode_header,
    fold,
    header_crc,
)
from tests.sim.flips import BLIND

from .helpers import frames

if TYPE_CHECKING:
    from collections.abc import Iterable


def test_header_layout() -> None:
    head = encode_header(Cmd.DATA, 0x01020304, 0x05060708, Flags.END_STREAM)
    assert HEADER_SIZE == len(head) == 18
    assert head[:16].hex() == "46534d58010100370102030405060708"


def test_checksum_is_folded_crc32_of_header_and_payload() -> None:
    payload = b"some message"
    head, _ = encode(Frame(Cmd.STAT, 7, payload))
    crc = zlib.crc32(head[:16] + b"\0\0" + payload)
    assert int.from_bytes(head[16:], "big") == (crc >> 16) ^ (crc & 0xFFFF)


def test_checksum_of_data_leaves_the_payload_out() -> None:
    assert encode(Frame(Cmd.DATA, 7, b"abc"))[0] == encode(Frame(Cmd.DATA, 7, b"xyz"))[0]
    assert encode(Frame(Cmd.STAT, 7, b"abc"))[0] != encode(Frame(Cmd.STAT, 7, b"xyz"))[0]


@given(frames)
def test_round_trip(frame: Frame) -> None:
    head, payload = encode(frame)
    assert payload is frame.payload
    header = decode_header(head)
    assert header[:4] == (frame.flags, frame.cmd, frame.stream_id, frame.length)
    crc = header_crc(head)
    if frame.cmd != Cmd.DATA:
        crc = crc32(bytes(payload), crc)  # type: ignore[arg-type]
    assert fold(crc) == header.checksum


def test_payload_passes_through_untouched() -> None:
    span = FileSpan(object(), 5, 1000)
    head, payload = encode(Frame(Cmd.DATA, 3, span, Flags.END_STREAM))
    assert payload is span
    assert decode_header(head)[:4] == (1, Cmd.DATA, 3, 1000)
    pieces = (memoryview(b"ab"), memoryview(b"c"))
    head, payload = encode(Frame(Cmd.DATA, 3, pieces))
    assert payload is pieces
    assert decode_header(head).length == 3


def test_pieces_have_the_checksum_of_the_whole() -> None:
    pieces = (memoryview(b"ab"), memoryview(b"c"))
    assert encode(Frame(Cmd.ENTRIES, 3, pieces))[0] == encode(Frame(Cmd.ENTRIES, 3, b"abc"))[0]


def test_frame_says_whether_it_is_the_last() -> None:
    assert Frame(Cmd.OK, 1, flags=Flags.END_STREAM).end
    assert not Frame(Cmd.OK, 1).end


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Cmd.STAT, 1, FileSpan(None, 0, 5)),
        Frame(Cmd.DATA, 2**32, b""),
        Frame(Cmd.DATA, -1, b""),
        Frame(2**16, 1, b""),
        Frame(Cmd.OK, 1, b"", 256),
    ],
)
def test_what_is_no_frame_is_not_encoded(frame: Frame) -> None:
    with pytest.raises(ValueError, match=r"frame|span"):
        encode(frame)


def test_every_flipped_bit_of_a_data_header_is_noticed() -> None:
    good = encode_header(Cmd.DATA, 7, 4096)
    before = decode_header(good)
    for bit in range(8 * HEADER_SIZE):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            header = decode_header(bad)
        except ProtocolError:
            continue
        # Only a flip in the command gets here: then the checksum is compared once the payload is in.
        assert header.cmd != before.cmd
        assert fold(header_crc(bytes(bad))) != header.checksum


@pytest.mark.parametrize("flags", [4, 5, 0x80, 0xFF])
def test_reserved_flags(flags: int) -> None:
    with pytest.raises(ProtocolError, match="reserved flags"):
        decode_header(encode_header(Cmd.STAT, 1, 0, flags))
    with pytest.raises(ProtocolError, match="reserved flags"):
        decode_header(encode_header(Cmd.DATA, 1, 0, flags))


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 9, "TLS"),
        (b"\x15\x03\x03\x00\x02\x02\x46" + b"x" * 11, "TLS"),
        (b"@RSYNCD: 31.0 sha512", "rsync"),
        (b"PRI * HTTP/2.0\r\n\r\nSM", "HTTP/2"),
        (b"\0" * 18, "began with"),
    ],
)
def test_other_protocols_are_named(start: bytes, name: str) -> None:
    with pytest.raises(VersionMismatch, match="does not speak fsmux") as info:
        decode_header(start[:18])
    assert name in str(info.value)


def test_other_version_is_told_before_its_checksum_is_judged() -> None:
    head = HEADER.pack(MAGIC, 2, 0, Cmd.DATA, 0, 0, 0)
    with pytest.raises(VersionMismatch, match="version 2"):
        decode_header(head)


@given(st.binary(min_size=18, max_size=18))
def test_any_18_bytes_give_a_header_or_the_typed_error(head: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(decode_header(head), Header)


@given(st.binary(min_size=13, max_size=13))
def test_any_header_with_the_right_start_gives_a_header_or_the_typed_error(rest: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(decode_header(b"FSMX\1" + rest), Header)


# ---- single bits ------------------------------------------------------------------------------------------------


def overlooked(distances: Iterable[int]) -> set[int]:
    """Bytes before the end of a frame, of these, at which a flipped bit goes unnoticed.

    A CRC is linear: what a flip does to it depends on how far from the end it is, and on nothing else.
    """
    found = set()
    for distance in distances:
        after = bytes(distance - 1)
        right = crc32(bytes(distance))
        for bit in range(8):
            if not fold(crc32(after, crc32(bytes((1 << bit,)))) ^ right):
                found.add(distance)
    return found


def test_no_bit_of_a_message_that_is_not_sealed_can_flip_unnoticed() -> None:
    assert not overlooked(range(1, limits.MAX_UNSEALED_PAYLOAD + HEADER_SIZE + 1))


def test_where_a_bit_could() -> None:
    assert overlooked(range(21_495, 21_510)) | overlooked(range(31_470, 31_485)) == set(BLIND)


LENGTHS = (limits.MAX_UNSEALED_PAYLOAD, limits.MAX_UNSEALED_PAYLOAD + 1, limits.MAX_CONTROL_PAYLOAD)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_long_message_is_sealed_and_no_other(length: int) -> None:
    frame = Frame(Cmd.PACK, 1, random.Random(4).randbytes(length), Flags.END_STREAM)
    head, payload = encode(frame)
    header = decode_header(head)
    sealed = length > limits.MAX_UNSEALED_PAYLOAD
    assert header.length == len(payload) == length + SEAL_SIZE * sealed
    assert header.flags == Flags.END_STREAM | Flags.SEALED * sealed
    assert isinstance(payload, bytes)
    for cut in (0, 10, 18, 30_000, len(payload)):
        decoder = Decoder(lambda header: limits.MAX_CONTROL_PAYLOAD)
        whole = head + payload
        assert decoder.feed(whole[:cut]) + decoder.feed(whole[cut:]) == [frame]


@pytest.mark.parametrize("length", [0, 100, limits.MAX_UNSEALED_PAYLOAD])
def test_sealing_a_short_message_is_damage(length: int) -> None:
    payload = bytes(length + SEAL_SIZE)
    with pytest.raises(Damaged, match="sealed or not"):
        Decoder(lambda header: limits.MAX_CONTROL_PAYLOAD).feed(
            encode_header(Cmd.PACK, 1, len(payload), Flags.SEALED, payload)
        )


def test_a_long_message_without_a_seal_is_damage() -> None:
    payload = bytes(limits.MAX_UNSEALED_PAYLOAD + 1)
    with pytest.raises(Damaged, match="sealed or not"):
        Decoder(lambda header: limits.MAX_CONTROL_PAYLOAD).feed(encode_header(Cmd.PACK, 1, len(payload), 0, payload))


def test_data_is_not_sealed() -> None:
    with pytest.raises(ProtocolError, match="reserved flags"):
        decode_header(encode_header(Cmd.DATA, 1, 30_000, Flags.SEALED))


@pytest.mark.parametrize("length", LENGTHS)
def test_each_bit_of_a_long_message_is_seen_by_the_decoder(length: int) -> None:
    head, payload = encode(Frame(Cmd.PACK, 1, random.Random(3).randbytes(length)))
    assert isinstance(payload, bytes)
    frame = bytearray(head + payload)
    blind = [8 * (len(frame) - distance) + bit for distance in BLIND if distance < length for bit in range(8)]
    bits = [*range(8 * HEADER_SIZE), *blind, *range(8 * HEADER_SIZE, 8 * len(frame), 97)]
    for bit in bits:
        frame[bit // 8] ^= 1 << bit % 8
        decoder = Decoder(lambda header: limits.MAX_CONTROL_PAYLOAD)
        with suppress(Damaged):
            assert not decoder.feed(frame), bit  # it waits for what a longer frame would have
        frame[bit // 8] ^= 1 << bit % 8
    assert len(Decoder(lambda header: limits.MAX_CONTROL_PAYLOAD).feed(frame)) == 1
