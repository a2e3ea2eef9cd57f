"""A bit that flips on its way is found, wherever in a conversation it is."""

from __future__ import annotations

import random

import pytest

from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import HEADER_SIZE, Buffer, Cmd, Frame
from tests.sim.crash import Wrong
from tests.sim.flips import BLIND, SIZE, Recording, flip_all, long_message, record, replay
from tests.sim.network import CRUMBS

SAMPLE = 20_000
"""Flips that are tried in each run of the suite; ``make torture`` tries every bit."""

WHOLE = 100
"""Flips for which the whole conversation is held again."""


@pytest.fixture(scope="module")
def said() -> tuple[bytes, bytes]:
    return record()


def test_sampled_flips_are_found(said: tuple[bytes, bytes]) -> None:
    forth, back = map(Recording, said)
    assert forth.bits > 8 * SIZE
    rng = random.Random(5)
    assert flip_all(forth, (rng.randrange(forth.bits) for _ in range(SAMPLE))) == SAMPLE
    assert flip_all(back, range(back.bits)) == back.bits


def test_flips_in_frames_other_than_data_are_found(said: tuple[bytes, bytes]) -> None:
    """Sampling hardly meets them."""
    forth = Recording(said[0])
    bits = [8 * byte + bit for start, end in forth.small_frames() for byte in range(start, end) for bit in range(8)]
    assert flip_all(forth, bits) > 5_000


def test_flips_in_a_sealed_message_are_found() -> None:
    """Those in its header; those that the header's checksum cannot see, and a sample of all others."""
    long = Recording(long_message())
    blind = [8 * (len(long.said) - distance) + bit for distance in BLIND for bit in range(8)]
    assert flip_all(long, [*range(8 * HEADER_SIZE), *blind, *range(0, long.bits, 509)]) > 1_000


def test_the_rig_notices_what_nobody_else_does(said: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    class Gullible(Decoder):
        def feed(self, data: Buffer) -> list[Frame]:
            return [Frame(Cmd.PING, 0, bytes(data))]

    forth = Recording(said[0])
    monkeypatch.setattr("fsmux.transfer.assembly.Verdict.right", property(lambda verdict: True))
    monkeypatch.setattr("tests.sim.flips.Decoder", Gullible)
    for byte in (5, len(said[0]) // 2):
        with pytest.raises(Wrong, match="is not noticed"):
            forth.flip(8 * byte)


def test_whole_conversations_with_a_flip_end_well(said: tuple[bytes, bytes]) -> None:
    rng = random.Random(6)
    recordings = tuple(map(Recording, said))
    healed = 0
    for number in range(WHOLE):
        back = number % 4 == 0
        byte, bit = 0, 0
        while not recordings[back].flip(8 * byte + bit) or not byte:
            byte, bit = rng.randrange(CRUMBS if number % 2 else len(said[back])), rng.randrange(8)
        healed += replay(byte, bit, back=back)
    assert healed >= WHOLE // 2


def test_a_length_that_grew_on_its_way_ends_the_connection(said: tuple[bytes, bytes]) -> None:
    """The receiver waits for a payload that does not come, and gets what keeps the connection alive instead."""
    forth = Recording(said[0])
    waits = [8 * byte + bit for byte in range(CRUMBS) for bit in range(8) if not forth.flip(8 * byte + bit)]
    assert waits
    for number in waits:
        replay(number // 8, number % 8, back=False)
