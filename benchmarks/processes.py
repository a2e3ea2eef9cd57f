"""Where benchmarks work, beside what they share with ``fsmux bench``: starting, measuring and ending processes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fsmux.cli.measure.processes import (
    FSMUX,
    START_SECONDS,
    TOKEN,
    Failed,
    Process,
    Server,
    Usage,
    cpu_seconds,
    environment,
    file_system,
    fsmux,
    fsmux_server,
    peak_memory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "FSMUX", "START_SECONDS", "TOKEN", "Failed", "Process", "Server", "Usage", "cpu_seconds", "environment",
    "file_system", "fsmux", "fsmux_server", "peak_memory", "scratch",
]  # fmt: skip


@contextlib.contextmanager
def scratch(needed: int) -> Iterator[Path]:
    """A directory in memory (tmpfs) with so many bytes free, or on disk where there is none; gone afterwards."""
    for place in _memory_places():
        if os.access(place, os.W_OK) and _room(place) >= needed:
            break
    else:
        place = tempfile.gettempdir()
        if _room(place) < needed:
            raise Failed(f"neither a tmpfs nor {place} has {needed / 2**30:.1f} GiB free")
    with tempfile.TemporaryDirectory(prefix="fsmux-bench-", dir=place) as directory:
        yield Path(directory)


def _memory_places() -> list[str]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted((fields[1] for fields in mounts if fields[2] == "tmpfs"), key=_room, reverse=True)


def _room(place: str) -> int:
    try:
        found = os.statvfs(place)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
