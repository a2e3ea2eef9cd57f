"""Any Trio byte stream (in memory, TLS) as a transport.  A span of a file is read in a thread and sent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from fsmux.errors import ConnectionLost
from fsmux.files import ranges
from fsmux.files.syscalls import real as syscalls
from fsmux.mux.transport.base import OnShort, Transport
from fsmux.wire.frames import FileSpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.mux.outbox import Outbox


class StreamTransport(Transport):
    """Any :class:`trio.abc.Stream`; owns it.  Spans are read in a worker thread, never sent by the kernel."""

    def __init__(self, stream: trio.abc.Stream, peer: str = "memory") -> None:
        self.peer = peer
        self._stream = stream
        self._limiter = trio.CapacityLimiter(1)

    async def receive_into(self, buffers: Sequence[memoryview]) -> int:
        try:
            data = await self._stream.receive_some(sum(len(buffer) for buffer in buffers))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("the connection was lost") from exc
        rest = memoryview(data)
        for buffer in buffers:
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            rest = rest[size:]
        return len(data)

    async def pump(self, outbox: Outbox, on_short: OnShort) -> None:
        batch = outbox.next()
        if batch is None:
            return
        with self._whole(batch):
            data: bytes | memoryview = batch.prefix
            if isinstance(batch.payload, FileSpan):
                read = partial(_read_span, batch.payload, batch.fd)
                content, short, error = await trio.to_thread.run_sync(read, limiter=self._limiter)
                data = batch.prefix + content
                if short and batch.queue is not None:
                    on_short(batch.queue.stream_id, error)
            elif batch.payload is not None:
                data = batch.prefix + batch.payload
            await self._stream.send_all(data)
            self.sent += len(data)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


def _read_span(span: FileSpan, fd: int) -> tuple[bytes, bool, OSError | None]:
    """The bytes, filled up with zeros if the file has less or cannot be read, and whether and why that was so."""
    buffer = bytearray(span.length)
    done, error = 0, None
    try:
        done = ranges.read_into(syscalls, fd, memoryview(buffer), span.offset)
    except OSError as exc:
        error = exc
    if span.meter is not None:
        span.meter.update(buffer)
    return bytes(buffer), done < span.length, error


def memory_pair() -> tuple[StreamTransport, StreamTransport]:
    """Two transports joined in memory, for tests and for embedding a server in the process that uses it."""
    from trio.testing import memory_stream_pair

    left, right = memory_stream_pair()
    return StreamTransport(left), StreamTransport(right)
