"""What the events of a transfer add up to: the numbers that bars, lines and JSON all show.

Theory: an observer is called in the middle of the transfer's work, so it may only count.  Whoever draws reads the
counts at its own pace, possibly from another thread; every field is replaced whole, never half-changed.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from fsmux import events
from fsmux.errors import ErrorCode, ExitCode, from_code

RATE_SECONDS: Final = 10.0
"""The window of the shown rate: long enough not to flicker, short enough to show that a link has got slower."""


class Active(Struct):
    """A file that is on its way."""

    size: int
    done: int


class Tally:
    """Counts events; also an observer that only counts."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.scanning = True
        self.found_files = 0
        self.found_bytes = 0
        self.files = 0
        self.bytes = 0
        self.done_bytes = 0
        self.sent = 0
        self.resumed = 0
        self.skipped = 0
        self.failed = 0
        self.deleted = 0
        self.copied = 0
        self.retries = 0
        self.active: dict[str, Active] = {}
        self.failures: set[str] = set()
        self.summary: events.Summary | None = None
        self._moved = 0
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.FileProgress(path, count):
                self._moved += count
                self.done_bytes += count
                if active := self.active.get(path):
                    active.done += count
            case events.FileReused(path, count) | events.FileHoles(path, count):
                self.done_bytes += count
                if active := self.active.get(path):
                    active.done += count
            case events.FileStarted(path, size, resumed):
                known = self.active.get(path)  # a second attempt, whose first one may be counted
                self.done_bytes += resumed - (known.done if known else 0)
                self.active[path] = Active(size, resumed)
            case events.FileDone(path, size, sent, resumed):
                known = self.active.pop(path, None)
                # What was reported on the way may miss, or count twice, what was reused or sent again.
                self.done_bytes += size - (known.done if known else 0)
                self.files += 1
                self.bytes += size
                self.sent += sent
                self.resumed += resumed
            case events.FilesDone(_, names):
                size = event.bytes
                self._moved += size
                self.done_bytes += size
                self.files += len(names)
                self.bytes += size
                self.sent += size
            case events.FilesLinked(_, names):
                self.files += len(names)
            case events.NamesChanged(events.REMOVE, _, names):
                self.deleted += len(names)
            case events.Changed(events.REMOVE):
                self.deleted += 1
            case events.FilesSkipped(_, names):
                self.skipped += len(names)
            case events.Scanning(files, count):
                self.found_files, self.found_bytes = files, count
            case events.Planned(files, count):
                self.scanning = False
                self.found_files, self.found_bytes = files, count
            case events.FileSkipped():
                self.skipped += 1
            case events.FileFailed(path, code):
                if known := self.active.pop(path, None):
                    self.done_bytes -= known.done
                self.failed += 1
                self.failures.add(code)
            case events.Retrying() | events.ChunkHealed():
                self.retries += 1
            case events.FileCopied():
                self.copied += 1
            case events.Summary():
                self.summary = event

    @property
    def moved_on(self) -> bool:
        """Whether there is anything to sum up: not if nobody could be reached, say."""
        return self.summary is not None or not self.scanning or self.failed > 0

    def rate(self, now: float) -> float:
        """Bytes per second of late; called whenever something is drawn."""
        samples = self._samples
        if now - samples[-1][0] >= RATE_SECONDS / 50:
            samples.append((now, self._moved))
        while len(samples) > 2 and samples[1][0] <= now - RATE_SECONDS:
            samples.popleft()
        then, moved = samples[0]
        return (self._moved - moved) / (now - then) if now > then else 0.0

    def remaining(self, now: float) -> float | None:
        """Seconds to go, or None as long as nobody can know."""
        rate = self.rate(now)
        left = self.found_bytes - self.done_bytes
        return max(left, 0) / rate if rate > 0 and not self.scanning else None

    def total(self, now: float) -> events.Summary:
        """The summary that the job made, or, if it did not get so far, the same from what was counted."""
        return self.summary or events.Summary(
            files=self.files,
            bytes=self.bytes,
            bytes_sent=self._moved,
            bytes_resumed=self.resumed,
            skipped=self.skipped,
            failed=self.failed,
            retries=self.retries,
            seconds=now - self.started,
            deleted=self.deleted,
            copied=self.copied,
        )


_OF_ONE: Final = frozenset((ExitCode.ACCESS, ExitCode.SPACE))
"""Reasons that say of a whole transfer what has to be changed; where others arrived, they are about a file or two."""


def exit_code(failures: set[str], *, others: bool = False) -> ExitCode:
    """What to tell the shell about the files that failed: their common reason if they have one, else "some failed".

    ``others``: there were some that did not fail.
    """
    codes = {from_code(ErrorCode[name], "").exit_code if name in ErrorCode.__members__ else None for name in failures}
    if not codes:
        return ExitCode.OK
    common = codes.pop() if len(codes) == 1 else None
    return ExitCode.SOME_FAILED if common is None or (others and common in _OF_ONE) else common
