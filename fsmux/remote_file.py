"""Random access to a file on the server: ranges of bytes that are read and written in place.

Theory: a handle is a stream, on which one request follows another; each range is checked as a whole by its CRC-32
before anybody gets it.  A request that is given up halfway ends the handle.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from fsmux.errors import ErrorCode, IntegrityError, ProtocolError
from fsmux.files.chunks import crc32_of
from fsmux.limits import MAX_DATA_PAYLOAD, MIB
from fsmux.mux.buffers import Data
from fsmux.wire.messages import Close, Ok, Read, ReadDone, Write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsmux.mux.stream import Stream

READ_PIECE: Final = 16 * MIB
"""Bytes of one READ. Its answer is held in memory and checked as a whole before it is handed out."""


class RemoteFile:
    """An open file on the server. One task at a time may use it; open it twice for two."""

    def __init__(self, stream: Stream, size: int) -> None:
        self.size = size
        self._stream = stream

    async def pread(self, length: int, offset: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only where the file ends. Checked by CRC-32."""
        parts: list[bytes] = []
        while length > 0:
            piece = await self._read(min(length, READ_PIECE), offset)
            parts.append(piece)
            if len(piece) < min(length, READ_PIECE):
                break
            length -= len(piece)
            offset += len(piece)
        return b"".join(parts)

    async def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write all of ``data`` at ``offset`` and return how many bytes that were."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), MAX_DATA_PAYLOAD):
            piece = bytes(view[start : start + MAX_DATA_PAYLOAD])
            with self._whole_or_reset():
                await self._stream.send(Write(offset + start, len(piece), crc32_of([piece])))
                await self._stream.send_data(piece)
                await self._stream.expect_message(Ok)
        return len(view)

    async def close(self, *, sync: bool = False) -> None:
        """End the handle; with ``sync`` what was written is on stable storage first."""
        with self._whole_or_reset():
            await self._stream.send(Close(sync))
            await self._stream.expect_message(Ok)
        self._stream.end()

    @contextmanager
    def _whole_or_reset(self) -> Iterator[None]:
        """A request that is cancelled ends the handle: the rest of its answer would be taken for the next one's."""
        try:
            yield
        except trio.Cancelled:
            self._stream.reset(ErrorCode.CANCELLED)
            raise

    async def _read(self, length: int, offset: int) -> bytes:
        stream = self._stream
        pieces: list[bytes] = []
        have = 0
        with self._whole_or_reset():
            stream.expect(length)
            await stream.send(Read(offset, length))
            while isinstance(item := await stream.receive(), Data):
                pieces.append(bytes(item))
                have += item.length
                stream.consumed(item)
                if have > length:
                    stream.reset(ErrorCode.PROTOCOL)
                    raise ProtocolError(f"the server answers a READ of {length} bytes with more")
        if not isinstance(item, ReadDone) or item.length != have:
            raise ProtocolError("the server's answer to READ does not add up")
        found = crc32_of(pieces)
        if found != item.crc32:
            raise IntegrityError(f"the range at {offset} arrived damaged ({found:08x}, expected {item.crc32:08x})")
        return b"".join(pieces)
