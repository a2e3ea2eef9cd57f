"""Feeding a decoder in every manner there is, and strategies for what is fed."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import MAX_STREAM_ID, Cmd, Frame, Header, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LIMIT = 300_000

BIG = 2**62
"""The largest size and offset that there may be."""

Outcome = tuple[list[Frame], type[Exception] | None, bool]


def limit(header: Header) -> int:
    return LIMIT


def wire(*frames: Frame) -> bytes:
    """The bytes of frames whose payloads are bytes."""
    return b"".join(head + bytes(payload) for head, payload in map(encode, frames))  # type: ignore[arg-type]


def plain(frame: Frame) -> Frame:
    """A frame with its payload as bytes, to compare."""
    payload = frame.payload
    whole = b"".join(payload) if isinstance(payload, tuple) else payload
    return Frame(int(frame.cmd), frame.stream_id, whole, int(frame.flags))


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def run(pieces: Sequence[bytes], decoder: Decoder | None = None) -> Outcome:
    """What comes of these pieces: the frames, the type of the error if any, whether a frame was cut."""
    decoder = decoder or Decoder(limit)
    frames: list[Frame] = []
    try:
        for piece in [*pieces, b""]:
            frames += map(plain, decoder.feed(piece))
            decoder.buffers()
    except Exception as error:
        return frames, type(error), False
    return frames, None, decoder.mid_frame


def run_in_place(data: bytes, sizes: Iterable[int], decoder: Decoder) -> Outcome:
    """The same through ``buffers`` and ``advance``, as a socket would fill them."""
    frames: list[Frame] = []
    done = 0
    sizes = iter(sizes)
    try:
        while True:
            views = decoder.buffers()
            assert views
            assert all(len(view) for view in views)
            if done == len(data):
                return frames, None, decoder.mid_frame
            n = min(next(sizes, LIMIT), sum(map(len, views)), len(data) - done)
            left = data[done : done + n]
            for view in views:
                view[: len(left[: len(view)])] = left[: len(view)]
                left = left[len(view) :]
            frames += map(plain, decoder.advance(n))
            done += n
    except Exception as error:
        return frames, type(error), False


def three_ways(data: bytes) -> Outcome:
    """Decode whole, byte by byte, and with another frame behind; all must agree."""
    whole = run([data])
    bytewise = run([data[i : i + 1] for i in range(len(data))])
    assert bytewise == whole
    if whole[1] is None and not whole[2]:
        tail = Frame(Cmd.PING, 0, b"tail")
        assert run([data + wire(tail)]) == ([*whole[0], plain(tail)], None, False)
    return whole


commands = st.one_of(st.sampled_from(list(Cmd)), st.just(Cmd.DATA), st.integers(0, 2**16 - 1)).map(int)
stream_ids = st.one_of(st.integers(0, 10), st.integers(0, MAX_STREAM_ID))
frames = st.builds(Frame, commands, stream_ids, st.binary(max_size=100), st.sampled_from([0, 1]))
