"""Bytes in any portions to whole frames, copying DATA at most once.

Strategy: the decoder owns one read-ahead buffer and says with :meth:`Decoder.buffers` where it wants the next bytes.
Between payloads that is the read-ahead buffer alone.  Inside a payload, the rest of that payload's own memory comes
first and the read-ahead buffer second, so that one ``recvmsg_into`` fills the end of a payload in place and fetches
the headers behind it as well.  Only payload bytes that arrived together with their header are copied.

Rule 1: a length is checked against its limit before any memory is set aside for it.
Rule 2: how the bytes were cut up makes no difference to the frames.  Hence a fault behind good frames is raised only
when those have been handed out.
Rule 3: a large DATA payload need not pass through here at all.  From ``defer`` bytes on nobody is asked where it goes;
the decoder stops behind its header, :attr:`Decoder.undecided`, and whoever uses it says :meth:`Decoder.put`, or takes
the payload's bytes off the wire itself, if they are more than ``READ_AHEAD``, and accounts for them with
:meth:`Decoder.took`.

Rule 4: after a fault there is no way back; every call raises it again.
Rule 5: a header that its checksum does not vouch for yet says nothing about the peer.  What is wrong with one is
:class:`Damaged`, which another connection may cure; only DATA, whose header has the checksum to itself, and whoever
never spoke this protocol are told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from fsmux.errors import Damaged, FsmuxError, ProtocolError, VersionMismatch
from fsmux.wire.frames import (
    HEADER_SIZE,
    MAGIC_BYTES,
    SEAL_SIZE,
    Buffer,
    Cmd,
    Flags,
    Frame,
    Header,
    decode_header,
    header_crc,
    not_fsmux,
    open_message,
    sealed_rightly,
)

READ_AHEAD: Final = 64 * 1024
"""Bytes. Holds over a thousand small frames per system call, and bounds what is copied of a DATA frame."""

Placer: TypeAlias = Callable[[Header], Sequence[memoryview] | None]
"""Asked for the memory of a DATA payload that is not empty: views of exactly ``header.length`` bytes together, or None
to have it dropped, in which case its frame comes with the payload ``()`` once it is over."""

NEVER: Final = 2**32
"""More bytes than any payload has."""

_DATA: Final = int(Cmd.DATA)
_SEALED: Final = int(Flags.SEALED)


class Decoder:
    """Incremental frame decoder for one direction of one connection.

    ``max_payload`` is asked with every header for the most bytes such a frame may have now, and may raise an error of
    its own.  ``place`` chooses where DATA goes; without it DATA goes to fresh memory.  ``defer`` may change meanwhile.
    """

    def __init__(
        self, max_payload: Callable[[Header], int], place: Placer | None = None, *, defer: int = NEVER
    ) -> None:
        self._max_payload = max_payload
        self._place = place
        self._buffer = memoryview(bytearray(READ_AHEAD))
        self._have = 0  # bytes of an incomplete header at the start of the buffer; 0 inside a payload
        self._header: Header | None = None  # of the payload being received
        self._crc = 0
        self._left = 0  # bytes of that payload still to come
        self._views: tuple[memoryview, ...] = ()  # where that payload goes
        self._rest: list[memoryview] = []  # what of it is unfilled; empty if the payload is dropped
        self._error: Exception | None = None
        self._spoken = False  # whether the peer has shown that it speaks this protocol
        self.defer = defer
        self.undecided: Header | None = None
        """The header of a payload of which nobody has said yet where it goes."""
        self._unparsed = (0, 0)  # where in the buffer that payload begins, and the end of what has arrived

    @property
    def mid_frame(self) -> bool:
        """Whether the end of input now would cut a frame in two."""
        return self._have > 0 or self._header is not None

    @property
    def in_data(self) -> bool:
        """Whether a payload of DATA is being received."""
        return self._header is not None and self._header.cmd == _DATA

    def buffers(self) -> list[memoryview]:
        """Where the next bytes are to be put, in this order.  Never empty, and no view is."""
        if self._error is not None:
            raise self._error
        return [*self._rest, self._buffer[self._have :]]

    def advance(self, n: int) -> Iterator[Frame]:
        """The frames that are whole now that ``n`` bytes were put into :meth:`buffers`.

        To be exhausted before anything else is asked of the decoder.  A frame is handed out before the header behind
        it is looked at, so that acting on it may change what the next one may be and where its payload goes.
        """
        if self._error is not None:
            raise self._error
        if n > READ_AHEAD - self._have + (self._left if self._rest else 0):
            raise ValueError(f"advance by more than the buffers hold ({n} bytes)")
        return self._guarded(self._advance(n))

    @property
    def early(self) -> memoryview:
        """What of the undecided payload has arrived already; good until it was put or taken."""
        start, end = self._unparsed
        return self._buffer[start : min(end, start + self._left)]

    def put(self, views: Sequence[memoryview] | None) -> Iterator[Frame]:
        """The undecided payload, or what of it was not taken, goes to ``views`` (None: nowhere); as :meth:`advance`."""
        self.undecided = None
        self._views = tuple(views or ())
        self._rest = [view for view in self._views if len(view)]
        (start, end), self._unparsed = self._unparsed, (0, 0)
        return self._guarded(self._parse(start, end))

    def took(self, n: int) -> Frame | None:
        """Account for ``n`` bytes of the undecided payload, :attr:`early` before all; its frame if it is whole now."""
        self._unparsed = (0, 0)
        self._left -= n
        if self._left:
            return None
        self.undecided = None
        return self._finish()

    def feed(self, data: Buffer) -> list[Frame]:
        """The frames that are whole now that ``data`` has arrived; ``advance`` for bytes that are at hand."""
        source = memoryview(data)
        frames: list[Frame] = []
        done = 0
        while True:
            start = done
            if self._error is not None and frames:
                return frames
            for view in self.buffers():
                piece = source[done : done + len(view)]
                view[: len(piece)] = piece
                done += len(piece)
            if done == start:
                return frames
            try:
                frames.extend(self.advance(done - start))
            except Exception:
                if not frames:
                    raise

    def _advance(self, n: int) -> Iterator[Frame]:
        if self._rest:
            filled = min(n, self._left)
            frame = self._filled(filled)
            if frame is not None:
                yield frame
            n -= filled
        if n:
            end, self._have = self._have + n, 0
            yield from self._parse(0, end)

    def _guarded(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        try:
            yield from frames
        except Exception as error:
            self._error = error
            raise

    def _filled(self, n: int) -> Frame | None:
        """Account for ``n`` bytes that now stand in the payload's own memory; its frame if that was all."""
        self._left -= n
        rest, skip = self._rest, n
        while skip:
            first = rest[0]
            if skip < len(first):
                rest[0] = first[skip:]
                break
            skip -= len(first)
            del rest[0]
        return None if self._left else self._finish()

    def _parse(self, position: int, end: int) -> Iterator[Frame]:
        """Go through what is in the read-ahead buffer from ``position`` to ``end``."""
        buffer = self._buffer
        while position < end:
            if self._header is not None:
                taken = min(end - position, self._left)
                frame = self._take(buffer[position : position + taken])
                position += taken
                if frame is not None:
                    yield frame
                continue
            body = position + HEADER_SIZE
            if body > end:
                if end - position >= 4 and buffer[position : position + 4] != MAGIC_BYTES:
                    raise self._foreign(not_fsmux(buffer[position:end]))  # its greeting may be shorter than a header
                self._have = end - position
                buffer[: self._have] = buffer[position:end]
                return
            head = buffer[position:body]
            try:
                header = decode_header(head)
            except VersionMismatch as error:
                raise self._foreign(error) from None
            _, cmd, stream_id, length, _ = header
            if length > (most := self._max_payload(header)) + (header.flags & _SEALED and SEAL_SIZE):
                text = f"command {cmd} on stream {stream_id} has {length} bytes where {most} are allowed"
                raise ProtocolError(text) if cmd == _DATA else Damaged(f"{text}; it may have been damaged on its way")
            position = body
            if cmd != _DATA and not sealed_rightly(header):
                text = (
                    f"command {cmd} on stream {stream_id} has {length} bytes, and is sealed or not as none of those is"
                )
                raise Damaged(f"{text}; it may have been damaged on its way")
            if cmd == _DATA:
                if length >= max(self.defer, 1):
                    self._begin(header, 0, ())
                    self.undecided = header
                    self._unparsed = (position, end)
                    return
                if length:
                    self._begin_data(header)
                else:
                    yield Frame(_DATA, stream_id, (), header.flags)
                continue
            crc = header_crc(head)
            if length <= end - body:  # the common case: a whole message, nothing to keep
                position += length
                yield self._message(header, crc, bytes(buffer[body:position]))
            else:
                self._begin(header, crc, (memoryview(bytearray(length)),))

    def _foreign(self, error: FsmuxError) -> FsmuxError:
        """What it means that a frame begins with another magic or version: one that spoke this protocol still does."""
        return Damaged("a frame begins wrong; it was damaged on its way") if self._spoken else error

    def _begin_data(self, header: Header) -> None:
        length = header.length
        if self._place is None:
            self._begin(header, 0, (memoryview(bytearray(length)),))
        else:
            views = tuple(self._place(header) or ())
            if views and sum(map(len, views)) != length:
                raise ValueError(f"{sum(map(len, views))} bytes were set aside for a payload of {length}")
            self._begin(header, 0, views)

    def _begin(self, header: Header, crc: int, views: tuple[memoryview, ...]) -> None:
        self._header = header
        self._crc = crc
        self._left = header.length
        self._views = views
        self._rest = [view for view in views if len(view)]

    def _take(self, data: memoryview) -> Frame | None:
        """Move payload bytes from the read-ahead buffer to where they belong; the frame if those were the last."""
        n = len(data)
        if not self._rest:  # dropped
            self._left -= n
            return None if self._left else self._finish()
        done = 0
        for view in self._rest:
            piece = data[done : min(done + len(view), n)]
            view[: len(piece)] = piece
            done += len(piece)
            if done == n:
                break
        return self._filled(n)

    def _finish(self) -> Frame:
        header, views = self._header, self._views
        assert header is not None
        self._header, self._views, self._rest = None, (), []
        if header.cmd == _DATA:
            return Frame(_DATA, header.stream_id, views, header.flags)
        return self._message(header, self._crc, bytes(views[0]))

    def _message(self, header: Header, crc: int, payload: bytes) -> Frame:
        frame = open_message(header, crc, payload)
        if frame is None:
            raise Damaged(f"command {header.cmd} on stream {header.stream_id} is damaged (its checksum is wrong)")
        self._spoken = True
        return frame
