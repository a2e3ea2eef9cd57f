"""What a transfer looks like while it runs: bars, plain lines, or JSON, from the same events.

Theory: a terminal can block (a paused one does, for as long as its owner likes) and a transfer must not.  So an event
only counts and queues lines; ``tick`` writes them and draws, and is called every now and then in a thread of its own
(see :mod:`fsmux.cli.run`).  ``close`` is called once, when the transfer is over, and writes the last words.

stdout gets JSON and the plan of a dry run; everything else goes to stderr.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TextIO, TypeAlias

from fsmux import events
from fsmux.cli.tally import Tally
from fsmux.cli.wording import (
    NORMAL,
    as_object,
    count_files,
    dry_run_line,
    error_object,
    json_line,
    sentence,
    summary_line,
)
from fsmux.records import printable
from fsmux.units import format_bytes, format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType
    from rich.live import Live

    from fsmux.errors import FsmuxError

LINE_SECONDS: Final = 5.0
"""Between two plain lines where there is no terminal."""

JSON_SECONDS: Final = 0.5
"""Between two ``progress`` objects."""

MAX_FILE_BARS: Final = 8
"""Files with a bar of their own; the others are counted.  A screen is not much higher, and eyes are not faster."""


_Many: TypeAlias = events.FilesDone | events.FilesLinked | events.FilesSkipped | events.NamesChanged
"""What is shown one by one."""


class Painter(Protocol):
    """Where lines and the state of things go."""

    def line(self, text: str) -> None:
        """Write one line that stays."""

    def paint(self, tally: Tally, now: float) -> None:
        """Show the state, if it is time for it."""

    def stop(self) -> None:
        """Take away what does not stay.  May be called twice."""


class Silent:
    """Lines only."""

    def __init__(self, err: TextIO) -> None:
        self._err = err

    def line(self, text: str) -> None:
        self._err.write(f"{text}\n")
        self._err.flush()

    def paint(self, tally: Tally, now: float) -> None:
        pass

    def stop(self) -> None:
        pass


class Plain(Silent):
    """A line every few seconds, for logs and for terminals that cannot do more."""

    def __init__(self, err: TextIO, now: float) -> None:
        super().__init__(err)
        self._next = now + LINE_SECONDS

    def paint(self, tally: Tally, now: float) -> None:
        tally.rate(now)  # keeps the samples coming
        if now >= self._next:
            self._next = now + LINE_SECONDS
            self.line(plain_line(tally, now))


class Bars:
    """One bar for the whole and one for each of a few files, below the lines that stay."""

    def __init__(self, err: TextIO, *, force: bool) -> None:
        from rich.console import Console

        # Rich looks at NO_COLOR and TERM itself.
        self._console = Console(file=err, force_terminal=True if force else None, highlight=False, markup=False)
        self._live: Live | None = None

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def paint(self, tally: Tally, now: float) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        room = max(self._console.height - 4, 1)
        self._live.update(bars(tally, now, limit=min(MAX_FILE_BARS, room)), refresh=True)

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def choose_painter(
    progress: str, err: TextIO, now: float, *, quiet: bool, json: bool, dry_run: bool, dumb: bool
) -> Painter:
    """The painter for ``--progress auto|always|never`` and the stderr at hand; ``dumb`` is what TERM says."""
    if quiet or dry_run or progress == "never":
        return Silent(err)
    if progress == "always" or (err.isatty() and not dumb):
        return Bars(err, force=progress == "always")
    return Silent(err) if json else Plain(err, now)


class Reporter:
    """The observer of a transfer."""

    def __init__(
        self,
        painter: Painter,
        out: TextIO,
        clock: Callable[[], float],
        *,
        verbosity: int = NORMAL,
        json: bool = False,
        dry_run: bool = False,
    ) -> None:
        self.tally = Tally(clock())
        self._painter = painter
        self._out = out
        self._clock = clock
        self._verbosity = verbosity
        self._json = json
        self._dry_run = dry_run
        self._lines: deque[str] = deque()
        self._data: deque[str] = deque()
        self._next_progress = clock() + JSON_SECONDS
        self._drawing = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        """Count, and queue what is to be said.  Never blocks, never raises."""
        self.tally(event)
        self._show(event)

    def _show(self, event: events.Event) -> None:
        if isinstance(event, _Many):
            self._show_each(event)
            return
        if (said := sentence(event)) and said[0] <= self._verbosity:
            self._lines.append(said[1])
        if self._json:
            # The summary is written by close(), last, and also if the job did not get as far as making one.
            if not isinstance(event, events.Summary) and (content := as_object(event)):
                self._data.append(json_line(content))
        elif isinstance(event, events.MappedTo):
            if self._dry_run:
                self._data.append(printable(event.text))
            elif self._verbosity > NORMAL:
                self._lines.append(printable(event.text))
        elif isinstance(event, events.WouldDo):
            self._data.append(f"would {event.action} {printable(event.path)}")

    def _show_each(self, event: _Many) -> None:
        """Where files are shown one by one, those that travelled together are, too."""
        if not self._json and self._verbosity <= NORMAL:
            return
        for one in event.each():
            if self._json and isinstance(one, events.FileDone):
                self._show(events.FileStarted(one.path, one.bytes, 0))
            self._show(one)

    def tick(self) -> None:
        """Write what is queued and draw.  May block as long as the terminal does; safe to call in any thread."""
        with self._drawing:
            now = self._clock()
            self._flush(now)
            self._painter.paint(self.tally, now)

    def say(self, text: str) -> None:
        """Queue one line for stderr."""
        self._lines.append(text)

    def fail(self, error: FsmuxError) -> None:
        """The transfer as a whole ended with ``error``."""
        self.say(f"fsmux: {printable(str(error))}")
        if self._json:
            self._data.append(json_line(error_object(error.code.name, "", str(error), error.retryable)))

    def hush(self) -> None:
        """Say nothing more but errors."""
        self._json, self._verbosity = False, min(self._verbosity, -1)
        self._data.clear()

    def close(self) -> None:
        """The last words: what is still queued, then the summary."""
        with self._drawing:
            now = self._clock()
            self._flush(now)
            self._painter.stop()
            total = self.tally.total(now)
            if self._json and (content := as_object(total)):
                if not self.tally.scanning:
                    self._out.write(json_line(progress_object(self.tally, now)) + "\n")
                self._out.write(json_line(content) + "\n")
                self._out.flush()
            if self._verbosity >= NORMAL and self.tally.moved_on:
                self._painter.line(self._last_line(total))

    def _last_line(self, total: events.Summary) -> str:
        if self._dry_run:
            return dry_run_line(self.tally.found_files, self.tally.found_bytes, total.skipped, total.deleted)
        return summary_line(total)

    def _flush(self, now: float) -> None:
        while self._lines:
            self._painter.line(self._lines.popleft())
        if self._json and now >= self._next_progress and self.tally.summary is None:
            self._next_progress = now + JSON_SECONDS
            self._data.append(json_line(progress_object(self.tally, now)))
        if self._data:
            while self._data:
                self._out.write(self._data.popleft() + "\n")
            self._out.flush()


def progress_object(tally: Tally, now: float) -> dict[str, object]:
    return {
        "event": "progress",
        "scanning": tally.scanning,
        "files_done": tally.files,
        "files": tally.found_files,
        "bytes_done": tally.done_bytes,
        "bytes": tally.found_bytes,
        "rate": round(tally.rate(now)),
        "active": len(tally.active),
    }


def plain_line(tally: Tally, now: float) -> str:
    """The whole in one line."""
    moved = f"{tally.files:,} of {count_files(tally.found_files)}, {_amount(tally)}, {format_rate(tally.rate(now))}"
    if tally.scanning:
        return f"scanning: {moved}"
    return f"{moved}, {_eta(tally, now)}"


def bars(tally: Tally, now: float, *, limit: int) -> RenderableType:
    """The picture: the total first, then the files that have been on their way the longest."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    active = list(tally.active.items())
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=16)
    for _ in range(3):
        grid.add_column(justify="right", no_wrap=True)
    head = "scanning" if tally.scanning else "total"
    total = None if tally.scanning else max(tally.found_bytes, 1)  # an unknown total pulses: filling up would lie
    grid.add_row(
        Text(f"{head}: {tally.files:,}/{count_files(tally.found_files)}", style="bold"),
        ProgressBar(total=total, completed=_within(tally), pulse=tally.scanning),
        _amount(tally),
        format_rate(tally.rate(now)),
        "" if tally.scanning else _eta(tally, now),
    )
    for path, file in active[:limit]:
        if file.done and not file.size:  # nobody knows how much comes out of a pipe
            grid.add_row(Text(printable(path)), ProgressBar(total=None, pulse=True), format_bytes(file.done), "", "")
            continue
        grid.add_row(
            Text(printable(path)),
            ProgressBar(total=max(file.size, 1), completed=min(file.done, file.size)),
            f"{format_bytes(min(file.done, file.size))} / {format_bytes(file.size)}",
            f"{100 * min(file.done, file.size) // max(file.size, 1)} %",
            "",
        )
    if len(active) > limit:
        grid.add_row(Text(f"and {count_files(len(active) - limit)} more", style="dim"))
    return grid


def _within(tally: Tally) -> int:
    return max(0, min(tally.done_bytes, tally.found_bytes))


def _amount(tally: Tally) -> str:
    found = format_bytes(tally.found_bytes)
    return f"{format_bytes(_within(tally))} / {'>= ' if tally.scanning else ''}{found}"


def _eta(tally: Tally, now: float) -> str:
    remaining = tally.remaining(now)
    if remaining is None:
        return "ETA ?"
    return f"ETA {format_duration(remaining)}" if remaining >= 60 else f"ETA {remaining:.0f} s"
