"""The log of a server: its events as lines on stderr, for people or for programs."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Final, TextIO

from msgspec.structs import asdict

from fsmux import events
from fsmux.cli.run import Stderr
from fsmux.cli.wording import NORMAL, VERBOSE, sentence
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsmux.errors import FsmuxError

MAX_QUEUED: Final = 10_000
"""Lines that may wait for a stderr that nobody reads; then the oldest are lost rather than memory."""


class Log:
    """An observer that queues lines; see :class:`fsmux.cli.run.Reporter` for who writes them."""

    def __init__(
        self, err: TextIO, verbosity: int, *, json: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._err = err
        self._verbosity = verbosity
        self._json = json
        self._clock = clock
        self._lines: deque[str] = deque(maxlen=MAX_QUEUED)
        self._told = 0

    def __call__(self, event: events.Event) -> None:
        level, text = _entry(event)
        if not text or level > self._verbosity:
            return
        stamp = _timestamp(self._clock())
        if self._json:
            fields = {name: printable(value) if isinstance(value, str) else value for name, value in _fields(event)}
            self._lines.append(json.dumps({"time": stamp, "event": _snake(type(event).__name__)} | fields))
        else:
            self._lines.append(f"{stamp} {text}")

    def say(self, text: str) -> None:
        if self._json:
            text = json.dumps({"time": _timestamp(self._clock()), "event": "message", "text": text.strip()})
        self._lines.append(text)

    def fail(self, error: FsmuxError) -> None:
        self.say(f"fsmux: {printable(str(error))}")

    def tick(self) -> None:
        if not self._lines:
            return
        before = self._lost
        while self._lines:
            self._err.write(self._lines.popleft() + "\n")
        self._err.flush()
        if self._told < before == self._lost:
            self.say(f"fsmux: {before - self._told:,} lines of this log are missing: they could not be written")
            self._told = before

    @property
    def _lost(self) -> int:
        return self._err.lost if isinstance(self._err, Stderr) else 0

    def hush(self) -> None:
        """Nothing of a log is for whoever reads stdout."""

    def close(self) -> None:
        self.tick()


def _entry(event: events.Event) -> tuple[int, str]:
    match event:
        case events.ConnectionOpened(peer):
            return VERBOSE, f"{printable(peer)} connected"
        case events.Authenticated(peer, user):
            return NORMAL, f"{printable(peer)} is {printable(user) or 'let in without a name'}"
        case events.ConnectionClosed(peer, _, seconds, reason):
            why = f": {printable(reason)}" if reason else ""
            return NORMAL, f"{printable(peer)} left after {seconds:.1f} s{why}"
        case events.RequestFailed(peer, request, code, message):
            return VERBOSE, f"{printable(peer)} {printable(request)}: {code}: {printable(message)}"
    level, text = sentence(event) or (NORMAL, "")
    return level, text


def _fields(event: events.Event) -> list[tuple[str, object]]:
    return list(asdict(event).items())


def _timestamp(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")
