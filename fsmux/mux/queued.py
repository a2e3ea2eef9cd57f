"""What waits to be sent on a stream, and what the writer is given of it.

Theory: a stream's queue holds whole frames and payloads of any length; a payload becomes frames when its turn comes, as
large as the link and its credit allow just then.  A span of a file holds that file open for as long as it waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from fsmux.wire.frames import CREDITED, Cmd, FileSpan, Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.files.lease import Lease
    from fsmux.wire.credit import SendCredit

    Payload = FileSpan | memoryview


class Item(Struct):
    """One queued frame, or a payload that becomes several; ``done`` of its bytes went out already.

    ``make`` makes the payload when its turn has come.
    """

    cmd: int
    payload: Payload | bytes | tuple[memoryview, ...]
    flags: int
    length: int
    done: int = 0
    make: Callable[[], bytes] | None = None

    @property
    def credited(self) -> bool:
        return self.cmd in CREDITED


class SendQueue(Struct, eq=False):
    """What one stream has yet to send.  ``on_room`` is called (in whatever thread sends) when an item has left."""

    stream_id: int
    credit: SendCredit
    on_room: Callable[[], None]
    items: deque[Item] = field(default_factory=deque)
    deficit: int = 0
    in_ring: bool = False
    new: bool = True
    """Whether it has not had its first turn yet."""
    eager: bool = True
    eager_taken: int = 0
    closed: bool = False
    sending: bool = False
    sent_bytes: int = 0
    """Bytes of DATA that the writer has taken: without those that still wait, and those that were dropped."""

    @property
    def queued(self) -> int:
        return len(self.items)

    def sent(self) -> None:
        """The writer is done with what it took of this queue."""
        self.sending = False
        self.on_room()


class Batch(NamedTuple):
    """The next thing to write: whole control frames and the header of a DATA frame, then that frame's payload."""

    prefix: bytes
    payload: Payload | None
    queue: SendQueue | None
    fd: int = -1
    """The file of a span, held open for this batch; whoever took the batch calls :meth:`release` in the end."""

    def release(self) -> None:
        if self.payload is not None:
            let_go(self.payload)


def lease_of(span: FileSpan) -> Lease:
    """What holds the file of a span open."""
    lease: Lease = span.source  # type: ignore[assignment]
    return lease


def in_memory(item: Item) -> int:
    """Bytes that a payload of it holds until it was sent."""
    return item.length if isinstance(item.payload, memoryview) else 0


def let_go(payload: object) -> None:
    """Whoever held a payload, if that is a span, needs its file no more."""
    if isinstance(payload, FileSpan):
        lease_of(payload).__exit__(None, None, None)


def cut(queue: SendQueue, item: Item, size: int) -> Frame:
    """The next ``size`` bytes of an item, as a frame."""
    start = item.done
    item.done += size
    if item.cmd == Cmd.DATA:
        queue.sent_bytes += size
    flags = item.flags if item.done >= item.length else 0
    payload = item.payload
    if size != item.length:
        if isinstance(payload, FileSpan):
            payload = FileSpan(payload.source, payload.offset + start, size, payload.meter)
        elif not isinstance(payload, tuple):
            payload = payload[start : start + size]
    return Frame(item.cmd, queue.stream_id, payload, flags)
