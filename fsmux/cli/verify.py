"""``fsmux verify``: a tree on this machine against its manifest; manifests of existing trees; SHA-256 sums of them."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fsmux import events
from fsmux.cli import manifests
from fsmux.cli.render import JSON_SECONDS, choose_painter, progress_object
from fsmux.cli.run import execute
from fsmux.cli.tally import Tally, exit_code
from fsmux.cli.wording import NORMAL, as_object, count_files, error_object, json_line, sentence
from fsmux.errors import ExitCode, FsmuxError, UsageError
from fsmux.files.digestfile import Writer
from fsmux.files.root import Root
from fsmux.limits import CHUNK_SIZE
from fsmux.records import printable
from fsmux.units import format_bytes, format_duration, format_rate

if TYPE_CHECKING:
    from fsmux.checking import Check
    from fsmux.cli.render import Painter
    from fsmux.records import Parts


class VerifyOptions(Struct, frozen=True):
    """What was typed, in the order of the command's options."""

    path: str
    manifest: str | None
    extra: bool
    create: str | None
    sha256: bool
    json: bool
    progress: str
    verbosity: int


class Shown:
    """The observer of a check: lines and bars on stderr, JSON on stdout."""

    def __init__(self, painter: Painter, *, verbosity: int, json: bool) -> None:
        self.tally = Tally(time.monotonic())
        self.last_line = ""
        self.last_object: dict[str, Any] = {}
        self._painter = painter
        self._verbosity = verbosity
        self._json = json
        self._lines: deque[str] = deque()
        self._data: deque[bytes] = deque()
        self._next_progress = self.tally.started + JSON_SECONDS

    def __call__(self, event: events.Event) -> None:
        self.tally(event)
        if isinstance(event, events.FileStarted | events.FileDone | events.FilesDone):
            return
        if (said := sentence(event)) and said[0] <= self._verbosity:
            self._lines.append(said[1])
        if self._json and (content := as_object(event)):
            self.put(json_line(content).encode())

    def put(self, line: bytes) -> None:
        """Queue a line for stdout."""
        self._data.append(line + b"\n")

    def tick(self) -> None:
        now = time.monotonic()
        self._flush()
        if self._json and now >= self._next_progress:
            self._next_progress = now + JSON_SECONDS
            self.put(json_line(progress_object(self.tally, now)).encode())
        self._painter.paint(self.tally, now)

    def _flush(self) -> None:
        while self._lines:
            self._painter.line(self._lines.popleft())
        if self._data:
            while self._data:
                sys.stdout.buffer.write(self._data.popleft())
            sys.stdout.buffer.flush()

    def say(self, text: str) -> None:
        self._lines.append(text)

    def fail(self, error: FsmuxError) -> None:
        self.say(f"fsmux: {printable(str(error))}")
        if self._json:
            self.put(json_line(error_object(error.code.name, "", str(error), error.retryable)).encode())

    def hush(self) -> None:
        self.last_line, self.last_object = "", {}
        self._data.clear()

    def close(self) -> None:
        if self._json and self.last_object:
            self.put(json_line(self.last_object).encode())
        self._flush()
        self._painter.stop()
        if self.last_line and self._verbosity >= NORMAL:
            self._painter.line(self.last_line)

    def seconds(self) -> float:
        return time.monotonic() - self.tally.started


def run(options: VerifyOptions) -> int:
    if sum((options.manifest is not None or options.extra, options.create is not None, options.sha256)) > 1:
        raise UsageError("choose one of --manifest (with or without --extra), --create and --sha256")
    if options.sha256 and options.json:
        raise UsageError("--sha256 prints lines of its own; choose one of it and --json")
    shown = show(options.progress, options.verbosity, json=options.json)
    command = sums if options.sha256 else check if options.create is None else create

    async def main() -> int:
        return await command(options, shown)

    return execute(main, options.verbosity, reporter=shown)


def show(progress: str, verbosity: int, *, json: bool) -> Shown:
    painter = choose_painter(
        progress, sys.stderr, time.monotonic(),
        quiet=verbosity < 0, json=json, dry_run=False, dumb=os.environ.get("TERM", "dumb") == "dumb",
    )  # fmt: skip
    return Shown(painter, verbosity=verbosity, json=json)


async def check(options: VerifyOptions, shown: Shown) -> int:
    found = await check_path(options.path, options.manifest, shown, extra=options.extra)
    return verdict(found, shown)


async def check_path(path: str, manifest: str | None, shown: Shown, *, extra: bool = False) -> Check:
    """Compare ``path`` with its manifest."""
    from fsmux.checking import check_tree

    top, beneath, place = manifests.subject_of(path, manifest)
    with manifests.reading(place) as reader, Root.open(top) as root:
        aside = manifests.inside(place, top)
        return await check_tree(root, reader, shown, beneath=beneath, extra=extra, aside=aside)


def verdict(found: Check, shown: Shown, event: str = "summary") -> int:
    """Say what a check came to; the exit code."""
    damaged, missing = len(found.damaged) - found.missing, found.missing
    seconds = shown.seconds()
    counts = [
        f"{number:,} {what}"
        for number, what in (
            (damaged, "DAMAGED"), (missing, "MISSING"), (found.unreadable, "UNREADABLE"), (found.extra, "extra"),
        )
        if number
    ]  # fmt: skip
    shown.last_line = (
        f"{count_files(found.files)} checked, {format_bytes(found.bytes)}: {', '.join(counts) or 'all as recorded'}, "
        f"{format_duration(seconds)}, {format_rate(found.bytes / seconds if seconds else 0)}"
    )
    shown.last_object = {
        "event": event, "files": found.files, "bytes": found.bytes, "damaged": damaged, "missing": missing,
        "unreadable": found.unreadable, "extra": found.extra, "seconds": round(seconds, 6),
    }  # fmt: skip
    if damaged:
        return ExitCode.INTEGRITY
    if missing:
        return ExitCode.SOURCE
    if found.unreadable:
        return exit_code(shown.tally.failures)
    return ExitCode.SOME_FAILED if found.extra else ExitCode.OK


async def create(options: VerifyOptions, shown: Shown) -> int:
    """Write the manifest of an existing tree."""
    from fsmux.checking import write_tree

    assert options.create is not None
    top, beneath = manifests.tree_of(options.path)
    place = options.create
    manifests.check_replaceable(place)
    with Root.open(top) as root, manifests.replacing(place) as file:
        writer = Writer(file, CHUNK_SIZE)
        aside = manifests.inside(place, top)
        failed = await write_tree(root, writer, CHUNK_SIZE, shown, beneath=beneath, aside=aside)
        writer.close()
    return _read(writer.files, writer.bytes, failed, shown, f"{printable(place)}: ")


async def sums(options: VerifyOptions, shown: Shown) -> int:
    """Print what ``sha256sum`` would, for the files of a tree."""
    from fsmux.checking import sha256_tree

    top, beneath = manifests.tree_of(options.path)
    prefix = b"" if beneath and not os.path.dirname(options.path) else os.fsencode(top).rstrip(b"/") + b"/"
    files = 0

    def line(parts: Parts, digest: str) -> None:
        nonlocal files
        files += 1
        shown.put(sum_line(digest, prefix + b"/".join(parts)))

    with Root.open(top) as root:
        failed = await sha256_tree(root, line, shown, beneath=beneath)
    return _read(files, shown.tally.bytes, failed, shown, "")


def sum_line(digest: str, path: bytes) -> bytes:
    """As GNU sha256sum writes it: a backslash before the line says that some are escaped in the name."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"%b%b  %b" % (b"\\" if escaped != path else b"", digest.encode(), escaped)


def _read(files: int, size: int, failed: int, shown: Shown, what: str) -> int:
    seconds = shown.seconds()
    failures = f", {failed} FAILED" if failed else ""
    rate = format_rate(size / seconds if seconds else 0)
    shown.last_line = f"{what}{count_files(files)}, {format_bytes(size)}{failures}, {format_duration(seconds)}, {rate}"
    shown.last_object = {
        "event": "summary", "files": files, "bytes": size, "failed": failed, "seconds": round(seconds, 6),
    }  # fmt: skip
    return exit_code(shown.tally.failures)
