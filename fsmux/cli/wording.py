"""Events as sentences for a person and as objects for a program.

Every text that may come from a peer passes through :func:`~fsmux.records.printable` here, once, whoever made it.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any, Final

from fsmux import events
from fsmux.records import printable
from fsmux.units import format_bytes, format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 1
"""``v`` of every JSON object.  Fields are added without a new number; one that changes its meaning makes a new one."""

ERROR, NORMAL, VERBOSE, DEBUG = -1, 0, 1, 2
"""At which verbosity (``-q`` is -1, each ``-v`` adds one) a line is shown."""

_PAST: Final = {
    events.MAKE_DIRECTORY: "made directory", events.MAKE_LINK: "made link", events.ADJUST: "set attributes of",
    events.REMOVE: "removed",
}  # fmt: skip

SHOWN_CHUNKS: Final = 8
"""Damaged ranges that a line names; ``--json`` names all."""


def sentence(event: events.Event) -> tuple[int, str] | None:
    """A line for stderr and the verbosity that it needs, or None for what only changes numbers."""
    match event:
        case events.FileFailed(path, _, message):
            return ERROR, f"fsmux: {_naming(path, message)}"
        case events.Warned(path, message):
            return NORMAL, f"fsmux: warning: {_naming(path, message)}"
        case events.FileSkipped(path, _, reason):  # if it is a surprise, Warned says so, too
            return DEBUG, f"{printable(path)}: {printable(reason)}"
        case events.Retrying(path, attempt, delay, message):
            again = f"trying again in {format_duration(delay)} (attempt {attempt})"
            return NORMAL, f"fsmux: {_naming(path, message)}; {again}"
        case events.ChunkHealed(path, index, attempt):
            return VERBOSE, f"{printable(path)}: chunk {index} arrived damaged and was sent again (attempt {attempt})"
        case events.FileDamaged(path, _, chunks, reason):
            where = ", ".join(f"{chunk.offset}+{chunk.length}" for chunk in chunks[:SHOWN_CHUNKS])
            more = ", …" if len(chunks) > SHOWN_CHUNKS else ""
            return ERROR, f"fsmux: {printable(path)}: DAMAGED: {reason}{f' (at {where}{more})' if chunks else ''}"
        case events.FileMissing(path):
            return ERROR, f"fsmux: {printable(path)}: MISSING"
        case events.FileExtra(path):
            return ERROR, f"fsmux: {printable(path)}: not in the manifest"
        case events.FileRepaired(path, size, sent):
            return NORMAL, f"fsmux: {printable(path)}: repaired, {format_bytes(sent)} of {format_bytes(size)} fetched"
        case events.ManifestWritten(path, files, size, read):
            text = f"{printable(path)}: {count_files(files)}, {format_bytes(size)}"
            note = f"; {format_bytes(read)} of them were read for it beside the transfer" if read else ""
            return NORMAL, f"fsmux: {text}{note}"
        case events.Changed(action, path):
            return VERBOSE, f"{_PAST[action]} {printable(path)}"
        case events.FileDone(path, _, _, resumed):
            note = f" ({format_bytes(resumed)} resumed)" if resumed else ""
            return VERBOSE, f"{printable(path)}{note}"
        case events.FileCopied(path, source):
            return VERBOSE, f"{printable(path)} (copied there from {printable(source)})"
        case events.FileLinked(path):
            return VERBOSE, f"{printable(path)} (linked)"
    return None


def summary_line(total: events.Summary) -> str:
    """The last line."""
    failed = f", {total.failed} FAILED" if total.failed else ""
    deleted = f", deleted {total.deleted}" if total.deleted else ""
    copied = f", copied there {total.copied}" if total.copied else ""
    rate = total.bytes_sent / total.seconds if total.seconds > 0 else 0.0
    return (
        f"{count_files(total.files)}, {format_bytes(total.bytes)}{failed}: sent {format_bytes(total.bytes_sent)}, "
        f"skipped {total.skipped}{deleted}{copied}, resumed {format_bytes(total.bytes_resumed)}, "
        f"retries {total.retries}, {format_duration(total.seconds)}, {format_rate(rate)}"
    )


def dry_run_line(files: int, size: int, skipped: int, deleted: int = 0) -> str:
    gone = f", {deleted} removed" if deleted else ""
    what = f"{count_files(files)}, {format_bytes(size)}; {skipped} skipped{gone}"
    return f"would transfer {what} (dry run: nothing was done)"


def count_files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def as_object(event: events.Event) -> dict[str, Any] | None:
    """The JSON object that the contract of ``--json`` names, or None for what it does not show."""
    match event:
        case events.MappedTo(text):
            return {"event": "mapping", "text": text}
        case events.WouldDo(action, path, size):
            return {"event": "would_do", "action": action, "path": path, "bytes": size}
        case events.Changed(action, path):
            return {"event": "changed", "action": action, "path": path}
        case events.Planned(files, size, skipped, skipped_bytes):
            return {"event": "plan", "files": files, "bytes": size, "skipped": skipped, "skipped_bytes": skipped_bytes}
        case events.FileStarted(path, size, resumed):
            return {"event": "file_start", "path": path, "bytes": size, "bytes_resumed": resumed}
        case events.FileDone(path, size, sent, resumed, digest, durable):
            return {
                "event": "file_done", "path": path, "bytes": size, "bytes_sent": sent, "bytes_resumed": resumed,
                "digest": digest, "durable": durable,
            }  # fmt: skip
        case events.FileLinked(path):
            return {"event": "file_linked", "path": path}
        case events.FileCopied(path, source, size):
            return {"event": "file_copied", "path": path, "from": source, "bytes": size}
        case events.FileDamaged(path, size, chunks, reason):
            ranges = [{"offset": chunk.offset, "length": chunk.length} for chunk in chunks]
            return {"event": "damaged", "path": path, "bytes": size, "chunks": ranges, "message": reason}
        case events.FileMissing(path, size):
            return {"event": "missing", "path": path, "bytes": size}
        case events.FileExtra(path, size):
            return {"event": "extra", "path": path, "bytes": size}
        case events.FileRepaired(path, size, sent):
            return {"event": "repaired", "path": path, "bytes": size, "bytes_sent": sent}
        case events.ManifestWritten(path, files, size, read):
            return {"event": "manifest", "path": path, "files": files, "bytes": size, "bytes_read": read}
        case events.FileSkipped(path, size, reason):
            return {"event": "file_skipped", "path": path, "bytes": size, "reason": reason}
        case events.ChunkHealed(path, index, attempt):
            message = f"chunk {index} arrived damaged"
            return {"event": "retry", "path": path, "attempt": attempt, "delay": 0.0, "message": message}
        case events.Retrying(path, attempt, delay, message):
            return {"event": "retry", "path": path, "attempt": attempt, "delay": delay, "message": message}
        case events.FileFailed(path, code, message, retryable):
            return error_object(code, path, message, retryable)
        case events.Warned(path, message):
            return {"event": "warning", "path": path, "message": message}
        case events.Summary(files, size, sent, resumed, skipped, failed, retries, seconds, deleted, copied):
            return {
                "event": "summary", "files": files, "bytes": size, "bytes_sent": sent, "bytes_resumed": resumed,
                "skipped": skipped, "failed": failed, "retries": retries, "seconds": round(seconds, 6),
                "deleted": deleted, "copied": copied,
            }  # fmt: skip
    return None


def error_object(code: str, path: str, message: str, retryable: bool) -> dict[str, Any]:
    return {"event": "error", "code": code, "path": path, "message": message, "retryable": retryable}


def json_line(content: dict[str, Any]) -> str:
    """One line of printable ASCII, whatever the strings hold; a byte that was not UTF-8 is a lone surrogate."""
    import json

    ordered = {"event": content["event"], "v": VERSION} | content
    return json.dumps(ordered, separators=(",", ":")).replace("\x7f", "\\u007f")


def shell_line(words: Iterable[str]) -> str:
    """A command to be pasted into a shell, which gets these words, whatever bytes they are made of."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_verbatim(word)}'" for word in words)


def _verbatim(word: str) -> str:
    found = (char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char)) for char in word)
    return "".join(f"\\{text}" if text in ("\\", "'") else text for text in found)


def _naming(path: str, message: str) -> str:
    path, message = printable(path), printable(message)
    return message if not path or f"{path}:" in message else f"{path}: {message}"
