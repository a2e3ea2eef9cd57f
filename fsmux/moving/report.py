"""What a transfer tells: events by the names that a person knows, and the counts of its summary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsmux import events
from fsmux.events import FileDone, FileFailed, FilesDone, FileSkipped, FilesSkipped, Planned, Scanning, Summary
from fsmux.records import printable

if TYPE_CHECKING:
    from fsmux.columns import Group
    from fsmux.errors import FsmuxError
    from fsmux.events import Observer
    from fsmux.records import Parts
    from fsmux.transfer.session import Outcome


class Report:
    """The counts of one transfer; an observer too, for whatever else happens in it."""

    def __init__(self, observer: Observer) -> None:
        self._tell = observer
        self._started = time.monotonic()
        self.files = self.bytes = self.sent = self.resumed = self.skipped = self.failed = self.retries = 0
        self.found_files = self.found_bytes = self.skipped_bytes = 0

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.ChunkHealed | events.Retrying):
            self.retries += 1
        self._tell(event)

    # ---- the scan ------------------------------------------------------------------------------------------------

    def found(self, files: int, size: int) -> None:
        """So many more are to be sent."""
        self.found_files += files
        self.found_bytes += size

    def scanning(self) -> None:
        self._tell(Scanning(self.found_files, self.found_bytes))

    def planned(self) -> None:
        self._tell(Planned(self.found_files, self.found_bytes, self.skipped, self.skipped_bytes))

    def current(self, group: Group) -> None:
        """These are up to date."""
        event = FilesSkipped(group.directory, group.names, group.sizes, "up to date")
        self.skipped += len(group)
        self.skipped_bytes += event.bytes
        self._tell(event)

    def skip(self, name: str, size: int, reason: str, *, warn: bool = False) -> None:
        self.skipped += 1
        self.skipped_bytes += size
        self._tell(FileSkipped(name, size, reason))
        if warn:
            self._tell(events.Warned(name, f"skipped: {reason}"))

    # ---- what became of it ---------------------------------------------------------------------------------------

    def done(self, name: str, outcome: Outcome) -> None:
        """A file came by a session of its own."""
        self.files += 1
        self.bytes += outcome.bytes
        self.sent += outcome.bytes_sent
        self.resumed += outcome.bytes_resumed
        digest = f"{outcome.crc32:08x}"
        self._tell(FileDone(name, outcome.bytes, outcome.bytes_sent, outcome.bytes_resumed, digest, outcome.durable))

    def packed(self, event: FilesDone) -> None:
        """Files came in a pack."""
        size = event.bytes
        self.files += len(event.names)
        self.bytes += size
        self.sent += size
        self._tell(event)

    def would(self, action: str, name: str, size: int = 0) -> None:
        self._tell(events.WouldDo(action, name, size))

    def fail(self, name: str, parts: Parts, error: FsmuxError) -> None:
        self.failed += 1
        text = str(error) if parts else str(error).removeprefix(".: ")  # the source itself has a name in the event
        self._tell(FileFailed(name, error.code.name, text, error.retryable))

    def sum_up(self) -> Summary:
        summary = Summary(
            files=self.files,
            bytes=self.bytes,
            bytes_sent=self.sent,
            bytes_resumed=self.resumed,
            skipped=self.skipped,
            failed=self.failed,
            retries=self.retries,
            seconds=time.monotonic() - self._started,
        )
        self._tell(summary)
        return summary


def name_of(parts: Parts, label: str) -> str:
    """What a person calls a file: its path below the source that was named, which ``label`` is."""
    return printable(parts) if parts else printable(label.rstrip("/").rpartition("/")[2] or label)
