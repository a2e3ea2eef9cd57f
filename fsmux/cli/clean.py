"""``fsmux clean``: what interrupted transfers have left in a directory, shown and removed."""

from __future__ import annotations

import sys
from typing import Any

from msgspec import Struct

from fsmux.cli.options import parsed
from fsmux.cli.wording import count_files, json_line
from fsmux.errors import UsageError
from fsmux.files import leftovers
from fsmux.files.leftovers import ABANDONED_SECONDS, Leftover
from fsmux.files.root import Root
from fsmux.records import printable
from fsmux.units import format_bytes, format_duration

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class CleanOptions(Struct, frozen=True):
    """What was typed, in the order of the command's options."""

    directory: str
    dry_run: bool
    all: bool
    older_than: str | None
    json: bool
    verbosity: int


def run(options: CleanOptions) -> int:
    if options.all and options.older_than is not None:
        raise UsageError("choose one of --all and --older-than")
    limit = None if options.older_than is None else parsed("--older-than", parse_age, options.older_than)
    if options.all:
        limit = float("-inf")  # also what will have been changed tomorrow, if a clock was wrong
    removed = freed = 0
    with Root.open(options.directory) as root:
        now_ns = root.sys.now_ns()
        for leftover in leftovers.find(root):
            age = leftover.age(now_ns)
            least = limit if limit is not None else float("-inf") if leftover.loose else ABANDONED_SECONDS
            if leftovers.in_use(root, leftover):
                done = "in use"
            elif age < least:
                done = "kept"
            elif options.dry_run:
                done = "would be removed"
            else:
                done = "removed" if leftovers.remove(root, leftover) else "in use"
            if done in ("removed", "would be removed"):
                removed += 1
                freed += leftover.disk
            print(_object(leftover, age, done) if options.json else _line(leftover, age, done))
    sys.stdout.flush()
    if options.verbosity >= 0:
        would = "would be " if options.dry_run else ""
        print(f"fsmux: {count_files(removed)} {would}removed, {format_bytes(freed)}", file=sys.stderr)
    return 0


def parse_age(text: str) -> float:
    """Seconds from ``90s``, ``12h``, ``3d``, ``2w``; raises :class:`UsageError` for anything else."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if not number.isascii() or not number.isdecimal() or len(number) > 9 or unit not in _UNITS:
        raise UsageError(f"{printable(text)!r} is not an age: write a number with s, m, h, d or w, as 12h or 3d")
    return float(int(number) * _UNITS[unit])


def _line(leftover: Leftover, age: float, done: str) -> str:
    name = printable(leftover.parts) if leftover.parts else "(unknown)"
    held = f"{format_bytes(leftover.held)} of {format_bytes(leftover.size)}" if leftover.parts else "a temporary file"
    if leftover.loose:
        held = f"temporary, {count_files(len(leftover.names) - 1)}"
    return f"{name}: {held}, {format_bytes(leftover.disk)} on disk, {format_duration(age)} old: {done}"


def _object(leftover: Leftover, age: float, done: str) -> str:
    content: dict[str, Any] = {
        "event": "leftover",
        "path": b"/".join(leftover.parts).decode("utf-8", "surrogateescape"),
        "bytes": leftover.size,
        "bytes_held": leftover.held,
        "bytes_on_disk": leftover.disk,
        "age_seconds": round(age, 3),
        "state": done,
    }
    return json_line(content)
