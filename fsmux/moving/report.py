"""What a transfer tells: events by the names that a person knows, and the counts of its summary.

Theory: a transfer may take several attempts, each over connections of its own, and each begins its plan anew.  What an
earlier one has told must not be told again, nor counted twice, and nothing may be forgotten.  So the counts outlive the
attempts, and so does one :class:`.Account` for each source.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsmux import events
from fsmux.events import (
    FileDone,
    FileFailed,
    FilesDone,
    FileSkipped,
    FilesLinked,
    FilesSkipped,
    Planned,
    Scanning,
    Summary,
)
from fsmux.moving.account import Account

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsmux.errors import FsmuxError
    from fsmux.events import Observer
    from fsmux.moving.pacing import Pace


class Report:
    """The counts of one transfer; an observer too, for whatever else happens in it."""

    def __init__(self, observer: Observer) -> None:
        self._tell = observer
        self._started = time.monotonic()
        self.files = self.bytes = self.sent = self.resumed = self.skipped = self.failed = self.retries = 0
        self.found_files = self.found_bytes = self.skipped_bytes = self.deleted = self.copied = 0
        self.progress = 0
        """Grows with whatever the destination surely has and had not before."""
        self.pace: Pace | None = None
        """What its attempts have found out about the link, once there is one."""
        self._accounts: dict[int, Account] = {}
        self._mapped = self._planned = False
        self._foreseen: dict[Account, tuple[int, int]] = {}
        self._warned: set[tuple[str, str]] = set()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.FileProgress):
            self.sent += event.bytes
        elif isinstance(event, events.ChunkHealed | events.Retrying):
            self.retries += 1
        self._tell(event)

    def account(self, number: int, name: str = "") -> Account:
        """That of one source, by its number among them; ``name`` is what a person calls it."""
        return self._accounts.setdefault(number, Account(self, name))

    # ---- the scan ------------------------------------------------------------------------------------------------

    def mapped(self, texts: Iterable[str]) -> None:
        """Where each source goes."""
        if not self._mapped:
            self._mapped = True
            for text in texts:
                self._tell(events.MappedTo(text))

    def found(self, files: int, size: int) -> None:
        """So many more are to be sent."""
        self.found_files += files
        self.found_bytes += size

    def foresee(self, account: Account, files: int, size: int) -> None:
        """So many are going to be found of a source in all, at least."""
        self._foreseen[account] = files, size

    @property
    def _known(self) -> tuple[int, int]:
        files, size = self.found_files, self.found_bytes
        for account, (all_files, all_bytes) in self._foreseen.items():
            files += max(all_files - account.found_files, 0)
            size += max(all_bytes - account.found_bytes, 0)
        return files, size

    def scanning(self) -> None:
        self._tell(Scanning(*self._known))

    def planned(self) -> None:
        """All sources have been looked at; an attempt that follows finds nothing else."""
        if not self._planned:
            self._planned = True
            self._tell(Planned(*self._known, self.skipped, self.skipped_bytes))

    def left(self, event: FilesSkipped) -> None:
        """These are left as they are."""
        self.skipped += len(event.names)
        self.skipped_bytes += event.bytes
        self._tell(event)

    def skip(self, name: str, size: int, reason: str, *, warn: bool = False) -> None:
        self.skipped += 1
        self.skipped_bytes += size
        self._tell(FileSkipped(name, size, reason))
        if warn:
            self._tell(events.Warned(name, f"skipped: {reason}"))

    def warn_once(self, text: str, name: str = "") -> None:
        """Of all attempts, one says so."""
        if (name, text) not in self._warned:
            self._warned.add((name, text))
            self._tell(events.Warned(name, text))

    def would(self, action: str, name: str) -> None:
        self.deleted += action == events.REMOVE
        self._tell(events.WouldDo(action, name, 0))

    def would_send(self, name: str, size: int) -> None:
        self.files += 1
        self.bytes += size
        self._tell(events.WouldDo("send", name, size))

    def would_link(self, name: str) -> None:
        self.files += 1
        self.would("make hard link", name)

    # ---- what became of it ---------------------------------------------------------------------------------------

    def done(self, event: FileDone) -> None:
        """A file came by a session of its own; what was sent for it is counted already."""
        self.files += 1
        self.bytes += event.bytes
        self.resumed += event.bytes_resumed
        self.progress += 1
        self._tell(event)

    def packed(self, event: FilesDone) -> None:
        """Files came in a pack."""
        size = event.bytes
        self.files += len(event.names)
        self.bytes += size
        self.sent += size
        self.progress += 1
        self._tell(event)

    def linked(self, event: FilesLinked) -> None:
        """Files are further names of others: nothing of them was sent."""
        self.files += len(event.names)
        self.progress += 1
        self._tell(event)

    def changed(self, event: events.Changed | events.NamesChanged) -> None:
        """Something else than sending was done."""
        self.progress += 1
        if event.action == events.REMOVE:
            self.deleted += len(event.names) if isinstance(event, events.NamesChanged) else 1
        self._tell(event)

    def fail(self, name: str, text: str, error: FsmuxError) -> None:
        self.failed += 1
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
            deleted=self.deleted,
            copied=self.copied,
        )
        self._tell(summary)
        return summary
