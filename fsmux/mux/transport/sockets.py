"""A TCP or Unix-domain socket as a transport: threads that send files and receive them, and the tuning of TCP.

Theory: control frames are sent from the event loop, while bulk data leaves by ``os.sendfile`` in a worker thread that
pulls frame after frame, so that one hop moves several MiB and urgent frames still pass between two frames.  A frame
once begun is finished: cancellation is looked at between frames, and where it has to act inside one (the peer stopped
reading and the connection is being torn down) the connection is broken afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, TypeVar

import trio

from fsmux.errors import ConnectionLost
from fsmux.files import ranges
from fsmux.files.syscalls import real as syscalls
from fsmux.limits import FRAME_SECONDS, MIB, MIN_FRAME, NOTSENT_LOWAT
from fsmux.mux.pour import UNIT
from fsmux.mux.sizing import FrameSizer
from fsmux.mux.standing import StandingQueue
from fsmux.mux.transport.base import OnShort, Transport, lost
from fsmux.wire.frames import FileSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsmux.mux.outbox import Batch, Outbox
    from fsmux.mux.pour import Pour

T = TypeVar("T")

POLL_MS = 100
"""Milliseconds a sending thread waits for room before it looks whether it was cancelled."""

CANCEL_CHECK_SECONDS = 0.02
"""Seconds between two looks of a busy sending thread at whether it was cancelled."""

READ_PIECE = 1 * MIB
"""Bytes read from a file at once where sendfile cannot be used."""

RCVLOWAT = 512 * 1024
"""Bytes. Inside a large frame the reader is woken for this much at a time (SO_RCVLOWAT): 2 GiB downloaded then take 8 %
less of both sides' processor time than with a wake-up for every segment (measured). Only what the frame still lacks is
ever waited for, so nothing can be held up that could have been handed out."""

MEASURED_STEP = 1 * MIB
"""Bytes read for their checksum before they are sent: a quarter of what the socket's own queue holds."""

IDLE_MS = 2
"""Milliseconds that the reader's thread waits for a next frame before it leaves waiting to the event loop. A thread
that comes back costs 0.1 ms, and one that waits keeps nobody else waiting."""

POUR_SECONDS = 1.0
"""Seconds after which a thread that receives a payload lets the connection know that its peer is alive."""

MIN_LOWAT = 128 * 1024
"""Bytes. Half of it is refilled in 1 ms at 1 Gbit/s, which a woken thread manages."""

CONGESTION_CONTROL = b"bbr"
"""What TCP is asked to decide by how much to have under way. BBR goes by the rate at which data arrives; CUBIC and Reno
take every lost packet for a full link, so that at 100 ms and 0.1 % loss they are left with 5 Mbit/s. Each side's choice
holds for what it sends. Where the kernel lacks BBR or does not allow it, its own choice stays. The sizes of the
socket's buffers are the kernel's choice always: naming one (SO_SNDBUF, SO_RCVBUF) would stop it from growing them."""

LOOK_SECONDS = 0.01
"""Seconds between two looks of a sending thread at how TCP is doing; one costs 3 µs."""

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
        self._unit = memoryview(b"")
        self._broken = False
        self._rcvlowat = 1
        self._tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        self._sizer: FrameSizer | None = None
        self._standing = StandingQueue()
        self._looked = 0.0
        self._pace: int | None = None
        sock.setblocking(False)
        if self._tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _prefer_congestion_control(sock)
            self._set_lowat(NOTSENT_LOWAT // 4)

    def _set_lowat(self, size: int) -> None:
        if self._tcp and sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def _set_rcvlowat(self, certain: int) -> None:
        """Have the kernel wake the reader only for a useful amount, of which ``certain`` bytes must still come."""
        lowat = min(certain, RCVLOWAT) if certain >= MIN_FRAME else 1
        if lowat != self._rcvlowat and self._tcp:
            self._rcvlowat = lowat
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowat)

    async def receive_into(self, buffers: Sequence[memoryview]) -> int:
        while True:
            try:
                if len(buffers) == 1:
                    return self._sock.recv_into(buffers[0])
                return self._sock.recvmsg_into(buffers)[0]
            except BlockingIOError:
                pass
            except OSError as exc:
                raise lost(exc) from exc
            self._set_rcvlowat(sum(map(len, buffers[:-1])))
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except (trio.ClosedResourceError, OSError) as exc:
                raise ConnectionLost("the connection was closed") from exc

    async def in_reader_thread(self, fn: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(fn, limiter=self._reader_limiter)

    def receive_now(self, buffers: Sequence[memoryview]) -> int:
        self._set_rcvlowat(0)
        if not self._incoming(IDLE_MS):
            return 0
        try:
            count = self._sock.recvmsg_into(buffers)[0]
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise lost(exc) from exc
        if not count:
            raise ConnectionLost("the peer closed the connection")
        return count

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
            self._set_rcvlowat(len(unit) - have)
            if not self._incoming(POLL_MS):
                trio.from_thread.check_cancelled()
                continue
            have += self._receive_some(unit[have:])
            if have == len(unit):
                pour.take(unit)
                have = 0
        if have:
            pour.take(self._unit[:have])

    def _incoming(self, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        return bool(poll.poll(milliseconds))

    def _receive_some(self, view: memoryview) -> int:
        """Bytes received in a thread; 0 if there are none after all."""
        try:
            got = self._sock.recv_into(view)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise lost(exc) from exc
        if not got:
            raise ConnectionLost("the peer closed the connection inside a frame")
        return got

    async def pump(self, outbox: Outbox, on_short: OnShort) -> None:
        if self._broken:
            raise ConnectionLost("the connection broke inside a frame")
        if not outbox.has_bulk:
            batch = outbox.next(bulk=False)
            if batch is not None:
                await self._send_control(batch.prefix)
            return
        if self._sizer is None:
            self._sizer = FrameSizer(outbox, FRAME_SECONDS)
            if self._tcp:
                # TCP begins slowly: at 100 ms the first 256 KiB take four round trips, and once they are begun as one
                # frame nothing passes them.
                outbox.frame_size = MIN_FRAME
        sizer = self._sizer
        await trio.to_thread.run_sync(self._pump_in_thread, outbox, sizer, on_short, limiter=self._limiter)

    async def _send_control(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                try:
                    count = self._sock.send(view)
                    self.sent += count
                    view = view[count:]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
        except OSError as exc:
            self._broken = True
            raise lost(exc) from exc
        except BaseException:
            self._broken = True
            raise

    def _pump_in_thread(self, outbox: Outbox, sizer: FrameSizer, on_short: OnShort) -> None:
        checked = time.monotonic()
        sizer.resume(checked)
        while (batch := outbox.next()) is not None:
            try:
                size = self._send_batch(batch, on_short)
            except OSError as exc:
                self._broken = True
                raise lost(exc) from exc
            except BaseException:
                self._broken = True
                raise
            finally:
                batch.release()
            if batch.queue is not None:
                batch.queue.sent()
            now = time.monotonic()
            if now - self._looked > LOOK_SECONDS:
                self._looked = now
                self._keep_queue_short(now, outbox.messages)
            if sizer.sent(size, now):
                self._set_lowat(min(max(2 * outbox.frame_size, MIN_LOWAT), NOTSENT_LOWAT))
            if now - checked > CANCEL_CHECK_SECONDS:
                checked = now
                trio.from_thread.check_cancelled()
        sizer.pause(time.monotonic())

    def _keep_queue_short(self, now: float, messages: int) -> None:
        """Have the kernel pace so that small frames get through; see :mod:`.standing`."""
        if not self._tcp or not HAVE_SENDFILE:
            return
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        if len(info) < _TCP_INFO.size:  # a kernel before 4.9
            return
        rtt, least, rate = _TCP_INFO.unpack(info)
        pace = self._standing.pace(now, messages, rtt / 1e6, least / 1e6, rate)
        if pace != self._pace:
            self._pace = pace
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("@L", pace or _UNPACED))

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

        With a meter it goes step by step: a step is read for its CRC-32 and then sent by the kernel out of the page
        cache, where it is warm now. In this thread and not in another, because two would wait for the interpreter's
        lock after every call; the socket's own queue keeps the link busy meanwhile.
        """
        if span.meter is None:
            return self._send_file(fd, span.offset, span.length)
        done = 0
        while done < span.length:
            step = min(MEASURED_STEP, span.length - done)
            try:
                with contextlib.suppress(ranges.ShortFile):
                    for piece in ranges.pieces(syscalls, fd, span.offset + done, step):
                        span.meter.update(piece)
                sent = self._send_file(fd, span.offset + done, step)
            except _Unreadable as exc:
                exc.sent += done
                raise
            except OSError as exc:
                if exc.errno not in FILE_ERRORS:
                    raise
                raise _Unreadable(done, exc) from exc
            done += sent
            if sent < step:
                break
        return done

    def _send_file(self, fd: int, offset: int, count: int) -> int:
        """Send ``count`` bytes of a file; fewer if the file ends before that."""
        if not HAVE_SENDFILE:
            return self._read_and_send(fd, offset, count)
        out = self._sock.fileno()
        done = 0
        while done < count:
            try:
                sent = os.sendfile(out, fd, offset + done, count - done)
            except BlockingIOError:
                self._wait_room()
                continue
            except OSError as exc:
                if exc.errno in (errno.EINVAL, errno.ENOSYS) and not done:  # a file system without it
                    return self._read_and_send(fd, offset, count)
                if exc.errno in FILE_ERRORS:
                    raise _Unreadable(done, exc) from exc
                raise
            if sent == 0:
                break
            done += sent
            self.sent += sent
        return done

    def _read_and_send(self, fd: int, offset: int, count: int) -> int:
        done = 0
        buffer = memoryview(bytearray(min(count, READ_PIECE)))
        while done < count:
            try:
                got = syscalls.preadv(fd, (buffer[: min(len(buffer), count - done)],), offset + done)
            except OSError as exc:
                raise _Unreadable(done, exc) from exc
            if got == 0:
                break
            self._send_bytes(buffer[:got], 0)
            done += got
        return done

    def _wait_room(self) -> None:
        """Wait in the sending thread until the socket takes bytes; raises ``trio.Cancelled`` on teardown."""
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLOUT)
        while not poll.poll(POLL_MS):
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
            self._unit = memoryview(b"")  # whatever else holds on to a connection that has ended


_MORE = getattr(socket, "MSG_MORE", 0)
_SO_MAX_PACING_RATE = 47
_UNPACED = 2 ** (8 * struct.calcsize("@L")) - 1
_TCP_INFO = struct.Struct("=68xI76xI8xQ")
"""tcpi_rtt and tcpi_min_rtt in microseconds, tcpi_delivery_rate in bytes per second."""


def _prefer_congestion_control(sock: socket.socket) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)


def _length(payload: FileSpan | memoryview) -> int:
    return payload.length if isinstance(payload, FileSpan) else payload.nbytes
