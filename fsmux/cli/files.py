"""``fsmux ls``, ``stat``, ``rm``, ``mkdir`` and ``mv``: one request each, and its answer on stdout."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from fsmux.cli.options import find_token
from fsmux.cli.run import execute
from fsmux.cli.wording import error_object, json_line
from fsmux.errors import ExitCode, FsmuxError, UsageError, from_code
from fsmux.records import Attrs, Kind, printable
from fsmux.units import format_bytes
from fsmux.urls import Remote, parse_remote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import typer

    from fsmux.client import Client
    from fsmux.records import Parts
    from fsmux.wire.messages import Entry

SORTED_UP_TO: Final = 10_000
"""Entries that ``ls`` sorts.  A larger directory is printed as it comes, in constant memory."""


class Target(Struct, frozen=True):
    """Which remote a command is about, and how to get there."""

    remote: Remote
    token: str | None
    timeout: float | None
    verbosity: int

    def connect(self) -> AbstractAsyncContextManager[Client]:
        from fsmux.client import connect

        return connect(self.remote, token=self.token, timeout=self.timeout)

    def ask(self, request: Callable[[Client], Awaitable[int | None]], *, json: bool = False) -> int:
        """Connect, make one request, and return the exit code.  With ``json`` what fails is an object, too."""

        async def main() -> int:
            async with self.connect() as client:
                return await request(client) or 0

        return execute(main, self.verbosity, json=json)


def target(ctx: typer.Context, url: str, timeout: float | None, token_file: str | None, verbosity: int) -> Target:
    return Target(parse_remote(url), find_token(ctx, token_file), timeout, verbosity)


def ls(where: Target, long: bool, recursive: bool, json: bool) -> int:
    """A directory's entries; of anything else, the thing itself."""
    show = _json_entry if json else _long_line if long else _name_line
    failures: list[FsmuxError] = []

    def emit(entries: list[Entry]) -> None:
        for entry in entries:
            if entry.attrs is not None:
                print(show(entry.path, entry.attrs))
            if entry.fault is not None:
                error = from_code(entry.fault.code, f"{printable(entry.path)}: {printable(entry.fault.text)}")
                failures.append(error)
                print(f"fsmux: {error}", file=sys.stderr)
                if json:
                    print(json_line(error_object(error.code.name, _text(b"/".join(entry.path)), str(error), False)))

    async def main(client: Client) -> int:
        parts = where.remote.path_parts
        attrs = await client.stat(parts)
        if attrs.kind is not Kind.DIRECTORY:
            print(show(parts[-1:], attrs))
            return 0
        head: list[Entry] = []
        async with client.list(parts, recursive=recursive) as entries:
            async for entry in entries:
                head.append(entry)
                if len(head) == SORTED_UP_TO:
                    emit(head)
                    head = []
                    async for late in entries:
                        emit([late])
        emit(sorted(head, key=lambda entry: entry.path))
        sys.stdout.flush()
        codes = {error.exit_code for error in failures}
        return codes.pop() if len(codes) == 1 else ExitCode.SOME_FAILED if codes else ExitCode.OK

    return where.ask(main, json=json)


def stat(where: Target, json: bool) -> int:
    async def main(client: Client) -> None:
        parts = where.remote.path_parts
        attrs = await client.stat(parts, follow=False)
        print(_json_entry(parts, attrs) if json else _description(parts, attrs))

    return where.ask(main, json=json)


def rm(where: Target, recursive: bool) -> int:
    parts = _named(where.remote)
    return where.ask(lambda client: client.remove(parts, recursive=recursive))


def mkdir(where: Target, parents: bool) -> int:
    parts = _named(where.remote)
    return where.ask(lambda client: client.mkdir(parts, parents=parents))


def mv(where: Target, new: str, force: bool) -> int:
    remote = parse_remote(new)
    if remote.server != where.remote.server:
        raise UsageError("both names must be on the same server; use fsmux transfer to copy between places")
    old_parts, new_parts = _named(where.remote), _named(remote)
    return where.ask(lambda client: client.rename(old_parts, new_parts, replace=force))


def _named(remote: Remote) -> Parts:
    if not remote.path_parts:
        raise UsageError(f"{remote} is what the server serves itself; name something inside of it")
    return remote.path_parts


# ---- one entry ------------------------------------------------------------------------------------------------------


def _name_line(parts: Parts, attrs: Attrs) -> str:
    return printable(parts) + ("/" if attrs.kind is Kind.DIRECTORY else "")


def _long_line(parts: Parts, attrs: Attrs) -> str:
    stamp = _stamp(attrs.mtime_ns)[:16]
    return f"{_mode(attrs)}  {format_bytes(attrs.size):>9}  {stamp}  {_name_line(parts, attrs)}{_arrow(attrs)}"


def _description(parts: Parts, attrs: Attrs) -> str:
    lines = [
        f"path:     {printable(parts)}{_arrow(attrs)}",
        f"kind:     {attrs.kind.name.lower()}",
        f"size:     {attrs.size} ({format_bytes(attrs.size)})",
        f"modified: {_stamp(attrs.mtime_ns)}.{attrs.mtime_ns % 10**9:09} UTC",
        f"mode:     {attrs.mode:04o} ({_mode(attrs)})",
    ]
    return "\n".join(lines)


def _json_entry(parts: Parts, attrs: Attrs) -> str:
    content: dict[str, Any] = {
        "event": "entry",
        "path": _text(b"/".join(parts)),
        "kind": attrs.kind.name.lower(),
        "bytes": attrs.size,
        "mtime_ns": attrs.mtime_ns,
        "mode": f"{attrs.mode:04o}",
    }
    if attrs.kind is Kind.SYMLINK:
        content["target"] = _text(attrs.link_target)
    return json_line(content)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _arrow(attrs: Attrs) -> str:
    return f" -> {printable(attrs.link_target)}" if attrs.kind is Kind.SYMLINK else ""


def _mode(attrs: Attrs) -> str:
    kind = {Kind.FILE: "-", Kind.DIRECTORY: "d", Kind.SYMLINK: "l", Kind.SPECIAL: "?"}[attrs.kind]
    return kind + "".join(char if attrs.mode >> (8 - at) & 1 else "-" for at, char in enumerate("rwxrwxrwx"))


def _stamp(mtime_ns: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(mtime_ns // 10**9))
    except (OverflowError, ValueError, OSError):  # a peer may claim any time, also after the end of the calendar
        return f"{mtime_ns // 10**9} s since 1970"
