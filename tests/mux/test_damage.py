"""What arrives cut off, with flipped bits, or by chance: whatever becomes of it is a typed error."""

from __future__ import annotations

import random

import trio

from fsmux.errors import ConnectionLost, ErrorCode, FsmuxError, ProtocolError
from fsmux.mux.connection import open_connection
from fsmux.wire.frames import Cmd, Flags, Frame
from fsmux.wire.messages import Credit, Error, Get, Goaway, Ok, Ping, Reset, Stat, encode
from fsmux.wire.state import Role

from .kit import DEADLINE, HELLO, UNKNOWN, as_bytes, half_raw


def recorded() -> bytes:
    """A client's session: a greeting, requests, an upload, a reset, credit, an unknown command, a farewell."""
    items = [
        as_bytes(HELLO),
        as_bytes(Stat((b"a", b"b")), 1, Flags.END_STREAM),
        as_bytes(Get((b"x",)), 3),
        as_bytes(Frame(Cmd.DATA, 3, b"some bytes")),
        as_bytes(Credit(((3, 1000),))),
        as_bytes(Frame(Cmd.DATA, 3, b"", Flags.END_STREAM)),
        as_bytes(Stat((b"c",)), 5),
        as_bytes(Reset(ErrorCode.CANCELLED, "no"), 5),
        as_bytes(Ping(7)),
        as_bytes(Frame(999, 7, b"?")),
        as_bytes(Error(ErrorCode.IO, "x"), 3),
        as_bytes(Goaway(0, "")),
    ]
    return b"".join(items)


async def replay(data: bytes, kind: str = "memory", *, whole: bool = True) -> FsmuxError | None:
    """Play these bytes to a server that answers everything, and end the stream. Whatever happens is a typed error."""
    transport, stream = half_raw(kind)
    with trio.fail_after(DEADLINE):
        try:
            async with trio.open_nursery() as nursery:

                async def play() -> None:
                    try:
                        await stream.send_all(data)
                        if isinstance(stream, trio.abc.HalfCloseableStream):
                            await stream.send_eof()
                        while await stream.receive_some(65536):
                            pass
                    except trio.BrokenResourceError:
                        pass

                nursery.start_soon(play)
                try:
                    async with open_connection(transport, Role.SERVER, HELLO) as connection:
                        while (incoming := await connection.accept()) is not None:
                            async with incoming:
                                try:
                                    await incoming.receive()
                                    await incoming.send(Ok(), end=True)
                                except FsmuxError:
                                    pass
                        return connection.failure
                except FsmuxError as exc:
                    return exc
        finally:
            await stream.aclose()


async def test_an_end_at_every_byte() -> None:
    data = recorded()
    for cut in range(len(data) + 1):
        assert isinstance(await replay(data[:cut]), ConnectionLost), cut


async def test_an_end_at_every_frame(kind: str) -> None:
    data = recorded()
    for cut in (0, 1, 17, 18, len(as_bytes(HELLO)), len(data) - 1, len(data)):
        assert isinstance(await replay(data[:cut], kind), ConnectionLost), cut


async def test_a_flipped_bit_anywhere() -> None:
    """Within DATA payloads nobody notices at this layer; anywhere else the connection ends, typed."""
    data = recorded()
    payload = data.index(b"some bytes")
    chooser = random.Random(4)
    for position in chooser.sample(range(len(data) * 8), 400):
        byte, bit = divmod(position, 8)
        damaged = bytearray(data)
        damaged[byte] ^= 1 << bit
        failure = await replay(bytes(damaged))
        assert isinstance(failure, FsmuxError)
        if not payload <= byte < payload + 10:
            assert isinstance(failure, ProtocolError | ConnectionLost), (byte, bit, failure)


async def test_random_bytes_behind_a_greeting() -> None:
    chooser = random.Random(5)
    for _ in range(100):
        failure = await replay(as_bytes(HELLO) + chooser.randbytes(200))
        assert isinstance(failure, ProtocolError | ConnectionLost)


async def test_random_well_formed_frames() -> None:
    """Any command with any small payload on any stream: a typed end, or none."""
    chooser = random.Random(6)
    commands = [*Cmd, *UNKNOWN]
    for _ in range(200):
        frames = [
            as_bytes(
                Frame(
                    int(chooser.choice(commands)),
                    chooser.choice((0, 0, 1, 1, 2, 3, 5)),
                    chooser.choice((b"", b"\x08\x01", chooser.randbytes(5), encode(Stat((b"x",))))),
                    chooser.choice((0, 0, 1)),
                )
            )
            for _ in range(12)
        ]
        assert isinstance(await replay(as_bytes(HELLO) + b"".join(frames)), FsmuxError)
