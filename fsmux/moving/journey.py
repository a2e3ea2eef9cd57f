"""One file's sessions in one run, and what they come to together.

Theory: a connection that is lost takes the session with it, and the next one goes on from what the destination has.  Of
that nobody knows how much came in this run but by what was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsmux import events
from fsmux.events import FileDone

if TYPE_CHECKING:
    from fsmux.moving.report import Report
    from fsmux.transfer.session import Outcome


class Journey:
    """One file's sessions, one after the other; observes them for the report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._starts = self._sent = self._resumed = 0
        self._before = 0  # of what was resumed, the part that surely came before this run
        self._found = self._most = 0  # what this session found at the destination, and the most that one did

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.FileProgress(_, count):
                self._sent += count
            case events.FileReused(_, count):
                self._resumed += count
                self._before += count if self._starts <= 1 else 0
                self._finds(self._found + count)
            case events.FileStarted(_, _, held):
                if not self._starts:
                    self._resumed = self._before = held
                self._starts += 1
                self._finds(held)
        self._report(event)

    def _finds(self, held: int) -> None:
        """So much of the file is there: if it is more than before, the session that was lost has brought something."""
        self._found = held
        if held > self._most:
            self._most = held
            self._report.progress += self._starts > 1

    @property
    def begun(self) -> bool:
        """Whether the destination has made a place for it, so that whatever is kept of it came in this run."""
        return self._starts > 0

    def ended(self, name: str, outcome: Outcome) -> FileDone:
        """What all of them came to."""
        resumed = outcome.bytes_resumed
        if self._starts > 1:  # what a later session found may have been sent by an earlier one
            resumed = min(self._resumed, max(outcome.bytes - self._sent, self._before))
        return FileDone(name, outcome.bytes, self._sent, resumed, f"{outcome.crc32:08x}", outcome.durable)
