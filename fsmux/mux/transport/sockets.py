"""A TCP or Unix-domain socket as a transport: threads that send files and receive them.

Theory: control frames are sent from the event loop, while bulk data leaves by ``os.sendfile`` in a worker thread that
pulls frame after frame, so that one hop moves several MiB and urgent frames still pass between two frames.  Bytes that
have to be read for their checksum are sent from where they were read.  A frame once begun is finished: cancellation is
looked at between frames, and where it has to act inside one (the peer stopped reading and the connection is being torn
down) the connection is broken afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, TypeVar

import trio

from fsmux.errors import ConnectionLost
from fsmux.files import ranges
from fsmux.files.syscalls import real as syscalls
from fsmux.limits import FRAME_SECONDS, MIB, MIN_FRAME
from fsmux.mux.pour import UNIT
from fsmux.mux.sizing import FrameSizer
from fsmux.mux.transport.base import OnShort, Transport, lost
from fsmux.mux.transport.tuning import Tuning
from fsmux.wire.frames import FileSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsmux.mux.outbox import Outbox
    from fsmux.mux.pour import Pour
    from fsmux.mux.queued import Batch

T = TypeVar("T")

POLL_MS = 100
"""Milliseconds a sending thread waits for room before it looks whether it was cancelled."""

CANCEL_CHECK_SECONDS = 0.02
"""Seconds between two looks of a busy sending thread at whether it was cancelled."""

LINGER_SECONDS = FRAME_SECONDS
"""Seconds that a sending thread which has sent all it may waits for more, which as a rule is credit for the next frame.
A thread that comes back costs 0.1 ms, and one that waits keeps nobody else waiting."""

READ_PIECE = 1 * MIB
"""Bytes read from a file at once where its bytes pass through a buffer: a quarter of what the socket's own queue holds.
2 GiB with checksums on both sides took 1.06, 1.03 and 1.10 s with 256 KiB, 1 and 4 MiB (measured)."""

POUR_SECONDS = 1.0
"""Seconds after which a thread that receives a payload lets the connection know that its peer is alive."""

ZEROS = bytes(64 * 1024)

FILE_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.ENXIO, errno.EBADMSG, errno.EISDIR})
"""What ``sendfile`` fails with when it is the file that cannot be read; anything else is the connection's."""

HAVE_SENDFILE = sys.platform == "linux"


class _Unreadable(Exception):
    """The file failed after ``sent`` bytes of a span; the connection is as it should be."""

    def __init__(self, sent: int, error: OSError) -> None:
        self.sent = sent
        self.error = error


class SocketTransport(Transport):
    """A TCP or Unix-domain socket. Owns ``sock``, which must be connected; it is made non-blocking."""

    may_pour = True

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self._sock = sock
        self._limiter = trio.CapacityLimiter(1)  # the one thread that may send on this socket
        self._reader_limiter = trio.CapacityLimiter(1)
        self._unit = memoryview(b"")  # what is received in a thread
        self._piece = memoryview(b"")  # what is read and sent in one
        self._sizer: FrameSizer | None = None
        self._tuning = Tuning(sock)
        sock.setblocking(False)

    @property
    def least_rtt(self) -> float | None:
        return self._tuning.least_rtt

    async def receive_into(self, buffers: Sequence[memoryview]) -> int:
        while (count := self._receive(buffers)) is None:
            self._tuning.reading(sum(map(len, buffers[:-1])))
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except (trio.ClosedResourceError, OSError) as exc:
                raise ConnectionLost("the connection was closed") from exc
        return count

    def _receive(self, buffers: Sequence[memoryview]) -> int | None:
        """Bytes that were there: 0 at the end of the connection, None if it has none now."""
        try:
            if len(buffers) == 1:
                return self._sock.recv_into(buffers[0])
            return self._sock.recvmsg_into(buffers)[0]
        except BlockingIOError:
            return None
        except OSError as exc:
            raise lost(exc) from exc

    async def in_reader_thread(self, fn: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(fn, limiter=self._reader_limiter)

    def receive_now(self, buffers: Sequence[memoryview], milliseconds: int) -> int:
        self._tuning.reading(0)
        count = self._receive(buffers) if self._ready(select.POLLIN, milliseconds) else None
        if count == 0:
            raise ConnectionLost("the peer closed the connection")
        return count or 0

    def pour_now(self, pour: Pour, early: memoryview) -> None:
        trio.from_thread.check_cancelled()
        if not self._unit:
            self._unit = memoryview(bytearray(UNIT))
        while len(early) >= pour.room:
            early = early[pour.take(early[: pour.room]) :]
        have = len(early)
        self._unit[:have] = early
        ends = time.monotonic() + POUR_SECONDS
        while pour.going and time.monotonic() < ends:
            unit = self._unit[: pour.room]
            self._tuning.reading(len(unit) - have)
            if not self._ready(select.POLLIN, POLL_MS):
                trio.from_thread.check_cancelled()
                continue
            got = self._receive((unit[have:],))
            if got == 0:
                raise ConnectionLost("the peer closed the connection inside a frame")
            have += got or 0
            if have == len(unit):
                pour.take(unit)
                have = 0
        if have:
            pour.take(self._unit[:have])

    def _ready(self, event: int, milliseconds: int) -> bool:
        """Wait in a thread until the socket has or takes bytes, but not longer."""
        poll = select.poll()
        poll.register(self._sock.fileno(), event)
        return bool(poll.poll(milliseconds))

    async def pump(self, outbox: Outbox, on_short: OnShort) -> None:
        if not outbox.has_bulk:
            batch = outbox.next(bulk=False)
            if batch is not None:
                with self._whole(batch):
                    await self._send_control(batch.prefix)
            return
        if self._sizer is None:
            self._sizer = FrameSizer(outbox, FRAME_SECONDS)
            if self._tuning.tcp:
                # TCP begins slowly: at 100 ms the first 256 KiB take four round trips, and once they are begun as one
                # frame nothing passes them.
                outbox.frame_size = MIN_FRAME
        sizer = self._sizer
        await trio.to_thread.run_sync(self._pump_in_thread, outbox, sizer, on_short, limiter=self._limiter)

    async def _send_control(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                count = self._sock.send(view)
                self.sent += count
                view = view[count:]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    def _pump_in_thread(self, outbox: Outbox, sizer: FrameSizer, on_short: OnShort) -> None:
        checked = time.monotonic()
        sizer.resume(checked)
        while (batch := outbox.next()) is not None or self._linger(outbox, sizer):
            if batch is None:
                continue
            with self._whole(batch):
                size = self._send_batch(batch, on_short)
            now = time.monotonic()
            self._tuning.look(now, outbox.messages)
            if sizer.moved(size, now):
                self._tuning.sending(outbox.frame_size)
            if now - checked > CANCEL_CHECK_SECONDS:
                checked = now
                trio.from_thread.check_cancelled()
        sizer.pause(time.monotonic())

    @staticmethod
    def _linger(outbox: Outbox, sizer: FrameSizer) -> bool:
        """Wait in the sending thread for more to send; False if it is time to leave waiting to the event loop."""
        if outbox.allowance is not None:
            return False
        trio.from_thread.check_cancelled()
        sizer.pause(time.monotonic())
        more = outbox.wait(LINGER_SECONDS)
        sizer.resume(time.monotonic())
        return more

    def _send_batch(self, batch: Batch, on_short: OnShort) -> int:
        payload = batch.payload
        if payload is None:
            return self._send_bytes(memoryview(batch.prefix), 0)
        if isinstance(payload, FileSpan):
            self._send_bytes(memoryview(batch.prefix), _MORE)
            error: OSError | None = None
            try:
                sent = self._send_span(batch.fd, payload)
            except _Unreadable as exc:
                sent, error = exc.sent, exc.error
            if sent < payload.length:
                self._send_zeros(payload.length - sent)
                assert batch.queue is not None
                on_short(batch.queue.stream_id, error)
        else:
            self._send_bytes(memoryview(batch.prefix), _MORE)
            self._send_bytes(payload, 0)
        return len(batch.prefix) + _length(payload)

    def _send_bytes(self, view: memoryview, flags: int) -> int:
        size = len(view)
        while view:
            try:
                count = self._sock.send(view, flags)
                self.sent += count
                view = view[count:]
            except BlockingIOError:
                self._wait_room()
        return size

    def _send_zeros(self, count: int) -> None:
        while count:
            count -= self._send_bytes(memoryview(ZEROS)[: min(count, len(ZEROS))], 0)

    def _send_span(self, fd: int, span: FileSpan) -> int:
        """Send a span; fewer bytes if its file ends before that.

        One with a meter is read for its CRC-32 anyway, and sent from there.  To send it by sendfile instead, out of the
        page cache where it is warm now, saves this thread nothing and costs the receiver a fifth: 2 GiB took 1.29 s
        that way and 1.03 s this way, with 0.77 and 0.73 s of CPU here and 1.19 and 1.00 s there (measured, loopback).
        In this thread and not in another, because two would wait for the interpreter's lock after every call; the
        socket's own queue keeps the link busy meanwhile.
        """
        if span.meter is not None or not HAVE_SENDFILE:
            return self._read_and_send(fd, span)
        out = self._sock.fileno()
        done = 0
        while done < span.length:
            try:
                sent = os.sendfile(out, fd, span.offset + done, span.length - done)
            except BlockingIOError:
                self._wait_room()
                continue
            except OSError as exc:
                if exc.errno in (errno.EINVAL, errno.ENOSYS) and not done:  # a file system without it
                    return self._read_and_send(fd, span)
                if exc.errno in FILE_ERRORS:
                    raise _Unreadable(done, exc) from exc
                raise
            if sent == 0:
                break
            done += sent
            self.sent += sent
        return done

    def _read_and_send(self, fd: int, span: FileSpan) -> int:
        done = 0
        if not self._piece:
            self._piece = memoryview(bytearray(READ_PIECE))
        while done < span.length:
            piece = self._piece[: span.length - done]
            try:
                got = ranges.read_into(syscalls, fd, piece, span.offset + done)
            except OSError as exc:
                raise _Unreadable(done, exc) from exc
            if span.meter is not None:
                span.meter.update(piece[:got])
            done += self._send_bytes(piece[:got], 0)
            if got < len(piece):
                break
        return done

    def _wait_room(self) -> None:
        """Wait in the sending thread until the socket takes bytes; raises ``trio.Cancelled`` on teardown."""
        while not self._ready(select.POLLOUT, POLL_MS):
            trio.from_thread.check_cancelled()

    async def aclose(self) -> None:
        if self._sock.fileno() == -1:
            return
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that still waits for room
        try:
            with trio.CancelScope(shield=True):  # bounded: shutdown() made the thread's next call fail
                await self._limiter.acquire()
                self._limiter.release()
        finally:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
            self._unit = self._piece = memoryview(b"")  # whatever else holds on to a connection that has ended


_MORE = getattr(socket, "MSG_MORE", 0)


def _length(payload: FileSpan | memoryview) -> int:
    return payload.length if isinstance(payload, FileSpan) else payload.nbytes
