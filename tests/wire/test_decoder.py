"""The decoder must not care how its bytes are cut, where DATA is placed, or what a peer makes up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import Damaged, FlowControlError, ProtocolError, VersionMismatch
from fsmux.wire.decoder import READ_AHEAD, Decoder
from fsmux.wire.frames import MAGIC_BYTES, Cmd, Flags, Frame, Header, encode_header

from .helpers import LIMIT, frames, limit, plain, run, run_in_place, split, three_ways, wire

many_frames = st.lists(frames, max_size=8)

CASES = [
    Frame(Cmd.PING, 0, b"12345678"),
    Frame(Cmd.OK, 3, b"", Flags.END_STREAM),
    Frame(Cmd.DATA, 5, b""),
    Frame(Cmd.DATA, 5, b"", Flags.END_STREAM),
    Frame(Cmd.DATA, 5, b"x"),
    Frame(Cmd.DATA, 5, bytes(range(256)) * 4),
    Frame(Cmd.ENTRIES, 7, b"y" * 1000),
    Frame(999, 9, b"not known here"),
    Frame(Cmd.DATA, 2**32 - 1, MAGIC_BYTES * 5),
]


@pytest.mark.parametrize("frame", CASES, ids=lambda frame: f"{frame.cmd}-{frame.length}")
def test_table_whole_bytewise_and_with_tail(frame: Frame) -> None:
    assert three_ways(wire(frame)) == ([plain(frame)], None, False)


def test_all_cases_in_a_row() -> None:
    assert three_ways(wire(*CASES)) == ([plain(frame) for frame in CASES], None, False)


@pytest.mark.parametrize("size", [READ_AHEAD - 18, READ_AHEAD - 17, READ_AHEAD, READ_AHEAD + 1, 3 * READ_AHEAD + 5])
@pytest.mark.parametrize("cmd", [Cmd.ENTRIES, Cmd.DATA])
def test_payloads_around_and_beyond_the_read_ahead(cmd: Cmd, size: int) -> None:
    frame = Frame(cmd, 1, bytes(i % 251 for i in range(size)))
    expected = ([plain(frame), plain(CASES[0])], None, False)
    data = wire(frame, CASES[0])
    assert run([data]) == expected
    assert run([data[i : i + 1000] for i in range(0, len(data), 1000)]) == expected
    assert run_in_place(data, [], Decoder(limit)) == expected


@given(many_frames, st.lists(st.integers(0, 800), max_size=12))
def test_random_splits(frames: list[Frame], cuts: list[int]) -> None:
    data = wire(*frames)
    assert run(split(data, cuts)) == ([plain(frame) for frame in frames], None, False)


@given(many_frames)
def test_three_ways_for_any_frames(frames: list[Frame]) -> None:
    assert three_ways(wire(*frames)) == ([plain(frame) for frame in frames], None, False)


@given(many_frames, st.lists(st.integers(1, 300)), st.lists(st.integers(1, 50), min_size=1))
def test_placed_in_any_pieces_and_filled_in_any_portions(
    frames: list[Frame], sizes: list[int], pieces: list[int]
) -> None:
    given_out: list[list[memoryview]] = []

    def place(header: Header) -> list[memoryview]:
        assert header.cmd == Cmd.DATA
        assert header.length
        whole, views, at = memoryview(bytearray(header.length)), [], 0
        for piece in pieces:
            views.append(whole[at : at + piece])  # some of them empty
            at += piece
        views.append(whole[at:])
        given_out.append(views)
        return views

    decoder = Decoder(limit, place)
    assert run_in_place(wire(*frames), sizes, decoder) == ([plain(frame) for frame in frames], None, False)
    assert [b"".join(views) for views in given_out] == [f.payload for f in frames if f.cmd == Cmd.DATA and f.length]


@given(many_frames, st.lists(st.integers(1, 300)))
def test_dropped_data_is_received_and_gone(frames: list[Frame], sizes: list[int]) -> None:
    expected = [
        Frame(frame.cmd, frame.stream_id, b"", frame.flags) if frame.cmd == Cmd.DATA else plain(frame)
        for frame in frames
    ]
    assert run_in_place(wire(*frames), sizes, Decoder(limit, lambda header: None)) == (expected, None, False)


def test_data_is_received_into_the_memory_it_was_given() -> None:
    memory = bytearray(3000)
    decoder = Decoder(limit, lambda header: [memoryview(memory)[:1000], memoryview(memory)[1000 : header.length]])
    assert decoder.feed(encode_header(Cmd.DATA, 1, 2500) + b"a" * 10) == []
    first, second, read_ahead = decoder.buffers()
    assert (len(first), len(second), len(read_ahead)) == (990, 1500, READ_AHEAD)
    assert decoder.mid_frame
    first[:] = b"b" * 990
    second[:] = b"c" * 1500
    ping = wire(Frame(Cmd.PING, 0, b"p"))
    read_ahead[: len(ping)] = ping
    data, control = decoder.advance(990 + 1500 + len(ping))
    assert memory == b"a" * 10 + b"b" * 990 + b"c" * 1500 + bytes(500)
    assert isinstance(data.payload, tuple)
    assert data.length == 2500
    assert all(view.obj is memory for view in data.payload)
    assert control.payload == b"p"
    assert not decoder.mid_frame


@pytest.mark.parametrize("cut", range(1, 26))
def test_end_inside_a_frame(cut: int) -> None:
    assert run([wire(Frame(Cmd.PING, 0, b"12345678"))[:cut]]) == ([], None, True)


def test_end_between_frames() -> None:
    decoder = Decoder(limit)
    assert not decoder.mid_frame
    decoder.feed(wire(*CASES))
    assert not decoder.mid_frame


# ---- faults -----------------------------------------------------------------------------------------------------

GOOD = wire(Frame(Cmd.PING, 0, b"12345678"))


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (damaged(GOOD, 20), Damaged),
        (damaged(GOOD, 17), Damaged),
        (damaged(GOOD, 9), Damaged),
        (damaged(wire(Frame(Cmd.DATA, 1, b"abc")), 10), Damaged),
        (damaged(GOOD, 0), Damaged),
        (damaged(GOOD, 4), Damaged),
        (b"FSMA" + bytes(14), VersionMismatch),
        (b"SSH-2.0\r\n", VersionMismatch),
        (b"FSMX\2" + bytes(13), VersionMismatch),
        (encode_header(Cmd.STAT, 1, LIMIT + 1, 0), Damaged),
        (encode_header(Cmd.STAT, 1, 1, 2), Damaged),
        (encode_header(Cmd.DATA, 1, 1, 2), ProtocolError),
        (encode_header(Cmd.DATA, 1, 2**32 - 1, 0), ProtocolError),
    ],
)
def test_faults_come_after_the_good_frames_and_stay(bad: bytes, error: type[Exception]) -> None:
    for prefix in (b"", GOOD, GOOD * 3):
        told = Damaged if prefix and error is VersionMismatch else error  # who spoke this protocol has not changed it
        expected = ([plain(Frame(Cmd.PING, 0, b"12345678"))] * (len(prefix) // len(GOOD)), told, False)
        assert three_ways(prefix + bad + GOOD) == expected
    decoder = Decoder(limit)
    assert run([bad], decoder)[1] is error
    for refuse in (decoder.buffers, lambda: decoder.advance(1), lambda: decoder.feed(GOOD)):
        with pytest.raises(error):
            refuse()


def test_a_foreign_greeting_shorter_than_a_header_is_told_at_once() -> None:
    with pytest.raises(VersionMismatch, match="SSH"):
        Decoder(limit).feed(b"SSH-")


@pytest.mark.parametrize("cmd", [Cmd.DATA, Cmd.STAT, 999])
@pytest.mark.parametrize("most", [0, 1, 4096])
def test_length_is_judged_before_any_memory_is_set_aside(cmd: int, most: int) -> None:
    placed = []

    def place(header: Header) -> list[memoryview]:
        placed.append(header)
        return [memoryview(bytearray(header.length))]

    for length in (most + 1, 2**31, 2**32 - 1):
        with pytest.raises(ProtocolError, match=f"{length} bytes where {most} are allowed"):
            Decoder(lambda header: most, place).feed(encode_header(cmd, 1, length))
    assert not placed
    assert run([wire(Frame(cmd, 1, b"x" * most))], Decoder(lambda header: most))[0][0].length == most


def test_limit_and_placer_may_refuse() -> None:
    def refuse(header: Header) -> int:
        raise FlowControlError("no credit")

    for decoder in (Decoder(refuse), Decoder(limit, refuse)):  # type: ignore[arg-type]
        assert run([wire(Frame(Cmd.DATA, 1, b"abc"))], decoder) == ([], FlowControlError, False)


@pytest.mark.parametrize("size", [2, 4])
def test_placer_must_give_exactly_as_many_bytes(size: int) -> None:
    decoder = Decoder(limit, lambda header: [memoryview(bytearray(size))])
    with pytest.raises(ValueError, match="set aside"):
        decoder.feed(wire(Frame(Cmd.DATA, 1, b"abc")))


def test_advance_beyond_the_buffers() -> None:
    with pytest.raises(ValueError, match="more than the buffers hold"):
        Decoder(limit).advance(READ_AHEAD + 1)


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_the_typed_error(data: bytes) -> None:
    _, error, _ = three_ways(data)
    assert error is None or issubclass(error, ProtocolError)


@given(many_frames.filter(bool), st.integers(0, 10_000), st.integers(1, 255), st.lists(st.integers(0, 800), max_size=5))
def test_any_damaged_byte_gives_frames_or_the_typed_error(
    frames: list[Frame], at: int, flip: int, cuts: list[int]
) -> None:
    data = bytearray(wire(*frames))
    data[at % len(data)] ^= flip
    whole, error, cut = run([bytes(data)])
    assert error is None or issubclass(error, ProtocolError)
    assert run(split(bytes(data), cuts)) == (whole, error, cut)
    if error is None and not cut:  # the damage can only have been inside a DATA payload
        assert [frame for frame in whole if frame.cmd != Cmd.DATA] == [
            plain(frame) for frame in frames if frame.cmd != Cmd.DATA
        ]
