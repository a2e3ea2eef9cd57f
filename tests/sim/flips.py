"""One bit of a recorded conversation is turned over, and has to be found.

Theory: a decoder knows nothing of earlier frames, so what a flip does to a conversation is seen at the frame that it is
in.  The shipped decoder gets that frame, damaged, and what follows it; it must refuse it, or wait for bytes that do not
come, which silence ends.  DATA has no checksum of its own; there the shipped bookkeeping gets the damaged range, and
must find the chunk wrong.  That takes microseconds, so that every bit can be tried.  :func:`replay` is the whole thing:
the conversation is held again, the bit flips on its way, and what stands in the end must be right.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from zlib_ng.zlib_ng import crc32

from fsmux.errors import FsmuxError
from fsmux.files.chunks import ChunkMap
from fsmux.limits import MAX_CONTROL_PAYLOAD, MAX_DATA_PAYLOAD, MAX_UNSEALED_PAYLOAD, MIB
from fsmux.transfer.assembly import Assembly
from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import HEADER, HEADER_SIZE, Cmd, Frame, Header, encode
from fsmux.wire.messages import Chunk, Span, decode
from tests.sim.crash import CHUNK, Wrong
from tests.sim.machine import Mix
from tests.sim.network import Weather
from tests.sim.world import World, episode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIZE: Final = MIB
CONTENT: Final = random.Random(11).randbytes(SIZE)
FOLLOWING: Final = 2 * MAX_UNSEALED_PAYLOAD
"""Bytes after a damaged frame that the decoder may take for a part of it; those of a sealed one are long themselves."""

BLIND: Final = (21_504, 31_479)
"""Bytes before the end of a frame at which the header's checksum overlooks a flipped bit."""


class _Frame(NamedTuple):
    """A frame of the recording: its bytes, and for DATA where in the file its payload belongs."""

    start: int
    end: int
    cmd: int
    offset: int


def _calm(world: World, weather: Weather) -> None:
    world.mix = Mix(0.0, 0.0, 0)
    world.forecast = [weather]
    world.add_task(b"file", CONTENT, up=True)


def record() -> tuple[bytes, bytes]:
    """What client and server say to each other over one upload, greeting and goodbye included."""
    seen: list[World] = []

    def prepare(world: World) -> None:
        seen.append(world)
        _calm(world, Weather())

    episode(1, prepare)
    (link,) = seen[0].links
    return bytes(link.near.outgoing.said), bytes(link.far.outgoing.said)


def long_message() -> bytes:
    """A message that is sealed, as the indexes of packs are."""
    header, payload = encode(Frame(Cmd.LISTED, 1, CONTENT[: MAX_CONTROL_PAYLOAD - 1000]))
    assert isinstance(payload, bytes)
    return header + payload


def replay(byte: int, bit: int, *, back: bool) -> int:
    """Hold the conversation again with one bit turned over; how often a chunk was healed or the client tried again."""
    report = episode(1, partial(_calm, weather=Weather(flip=byte, bit=bit, back=back)))
    return report.healed + report.tries - 1


def _limit(header: Header) -> int:
    return MAX_DATA_PAYLOAD if header.cmd == Cmd.DATA else MAX_CONTROL_PAYLOAD


class Recording:
    """One direction of the conversation, and what becomes of it when a bit is wrong."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self._map = ChunkMap(SIZE, CHUNK)
        self._frames: list[_Frame] = []
        self._expected: dict[int, int] = {}
        at = position = 0
        while at < len(said):
            _, _, _, cmd, _, length, _ = HEADER.unpack_from(said, at)
            end = at + HEADER_SIZE + length
            self._frames.append(_Frame(at, end, cmd, position))
            if cmd == Cmd.DATA:
                position += length
            elif cmd in (Cmd.SPAN, Cmd.CHUNK):
                message = decode(cmd, said[at + HEADER_SIZE : end])
                if isinstance(message, Span):
                    position = message.offset
                elif isinstance(message, Chunk):
                    self._expected[message.index] = message.crc32
            at = end
        self._starts = [frame.start for frame in self._frames]

    @property
    def bits(self) -> int:
        return 8 * len(self.said)

    def small_frames(self) -> list[tuple[int, int]]:
        """Where all is but the payloads of DATA."""
        return [
            (frame.start, frame.start + HEADER_SIZE if frame.cmd == Cmd.DATA else frame.end) for frame in self._frames
        ]

    def flip(self, number: int) -> bool:
        """Turn one bit over: whether that is noticed at once, or when more comes or fails to come.

        Raises :class:`Wrong` if it never is.
        """
        byte, bit = divmod(number, 8)
        frame = self._frames[bisect_right(self._starts, byte) - 1]
        if frame.cmd == Cmd.DATA and byte >= frame.start + HEADER_SIZE:
            self._flip_data(frame, byte, bit)
            return True
        within = HEADER_SIZE + (frame.end - frame.start - HEADER_SIZE) // 2
        return all([self._noticed(frame, byte, bit, cut) for cut in {0, within}])

    def _noticed(self, frame: _Frame, byte: int, bit: int, cut: int) -> bool:
        """The same of a frame that comes in two pieces, if ``cut`` is inside of it."""
        for following in (0, FOLLOWING):
            damaged = bytearray(self.said[frame.start : frame.end + following])
            damaged[byte - frame.start] ^= 1 << bit
            decoder = Decoder(_limit)
            try:
                found = [frame for piece in (damaged[:cut], damaged[cut:]) if piece for frame in decoder.feed(piece)]
            except FsmuxError:
                return not following
            if found:
                raise Wrong(f"bit {bit} of byte {byte}, in command {frame.cmd} at {frame.start}, is not noticed")
        return False

    def _flip_data(self, frame: _Frame, byte: int, bit: int) -> None:
        """Everything of the chunk is right but this bit."""
        at = frame.offset + byte - frame.start - HEADER_SIZE
        extent = self._map.extent(at // CHUNK)
        start = max(extent.offset, frame.offset)
        end = min(extent.end, frame.offset + frame.end - frame.start - HEADER_SIZE)
        first = frame.start + HEADER_SIZE + start - frame.offset
        damaged = bytearray(self.said[first : first + end - start])
        damaged[at - start] ^= 1 << bit
        assembly = Assembly(self._map)
        index = at // CHUNK
        verdict = assembly.expect(index, self._expected[index])
        for offset, stop, crc in (
            (extent.offset, start, crc32(CONTENT[extent.offset : start])),
            (start, end, crc32(damaged)),
            (end, extent.end, crc32(CONTENT[end : extent.end])),
        ):
            if stop > offset:
                verdict = assembly.add(offset, stop - offset, crc)
        if verdict is None or verdict.right:
            raise Wrong(f"bit {bit} of byte {byte}, in DATA for {at}, is not noticed")


def flip_all(recording: Recording, numbers: Iterable[int], tell: Callable[[int], None] = lambda count: None) -> int:
    """Flip these bits, one after the other; how many there were."""
    count = 0
    for count, number in enumerate(numbers, start=1):
        recording.flip(number)
        if not count % 1_000_000:
            tell(count)
    return count
