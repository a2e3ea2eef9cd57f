"""What the two halves of a transfer share: what one is about, how it ended, and who is told.

A *session* is one file's transfer.  It lives on a stream, and its state on the receiving side's disk outlives both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsmux.events import FileProgress, ignore

if TYPE_CHECKING:
    from fsmux.events import Observer


@dataclass(frozen=True, slots=True)
class Report:
    """Who is told of a session's progress, and by what name."""

    name: str
    observer: Observer = ignore

    def progress(self, count: int) -> None:
        if count:
            self.observer(FileProgress(self.name, count))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended well.  Bytes: of the file, over the wire in this run, held by the receiver before it."""

    bytes: int
    bytes_sent: int
    bytes_resumed: int
    crc32: int
    durable: bool
