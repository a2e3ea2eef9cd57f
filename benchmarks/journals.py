"""What a receiver that was killed had put on record: the chunks that must not be sent again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fsmux.files.journal import parse

if TYPE_CHECKING:
    from pathlib import Path


def recorded_bytes(directory: Path) -> int:
    """Bytes of all unfinished files below the top of ``directory`` that their journals say have been received."""
    total = 0
    for path in (directory / ".fsmux").glob("*.journal"):
        with contextlib.suppress(FileNotFoundError):  # it was finished just now
            log = parse(path.read_bytes())
            if log is not None:
                size, step = log.header.identity.size, log.header.chunk_size
                total += sum(min(step, size - index * step) for index in log.held)
    return total
