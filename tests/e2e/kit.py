"""What the end-to-end tests say often: run a command, read its outcome, make and compare trees."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import FSMUX, Process, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEADLINE = 30.0
POLL_SECONDS = 0.005
MIB = 2**20


@dataclass(frozen=True)
class Url:
    """Makes URLs of one server."""

    address: str

    def __call__(self, path: str = "") -> str:
        return f"fsmux://{self.address}/{path}"


@dataclass(frozen=True)
class Outcome:
    """A command that has ended."""

    status: int
    out: str
    err: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of a transfer with ``--json``, which is its last line."""
        assert self.events, self
        assert self.events[-1]["event"] == "summary", self
        return self.events[-1]

    @property
    def sentence(self) -> str:
        """The one line that says what went wrong; there may be notes beside it, but no second one and no traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("fsmux: ") and ": warning: " not in line]
        assert "Traceback" not in self.err, self.err
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("fsmux: ")


def start(*words: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Process:
    """Start a command of fsmux; it knows the server's token unless ``env`` says otherwise."""
    return Process([*FSMUX, *words], environment={**environment(), **(env or {})})


def finish(process: Process) -> Outcome:
    """Wait for the end of a command."""
    status, _ = process.wait(DEADLINE)
    events = [json.loads(line) for line in process.output.splitlines()] if "--json" in process.argv else []
    return Outcome(status, process.output, process.errors, events)


def run(*words: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Outcome:
    """Run a command to its end."""
    return finish(start(*words, env=env))


def good(*words: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Outcome:
    """Run a command that must succeed."""
    outcome = run(*words, env=env)
    assert outcome.status == 0, outcome.err
    return outcome


def wait_until(
    happened: Callable[[], object], *, during: Process | None = None, told: Callable[[], object] = str
) -> None:
    """Look until something is so that nobody tells of: what is on a disk, or what another process has written.

    That has to be before the command ends ``during`` which it is to happen; a failure ends it.  ``told`` is what a
    failure shows.
    """
    limit = time.monotonic() + DEADLINE
    while not happened():
        if time.monotonic() >= limit:
            shown = told()
            if during is not None:
                during.stop()  # left behind it would be found by the next tests, and they be to blame
            raise AssertionError(shown)
        if during is None:
            time.sleep(POLL_SECONDS)
        else:
            assert not during.ended(POLL_SECONDS), finish(during)


def wait_until_tidy(place: Path) -> None:
    """Until nothing unfinished is in what a server serves, which is when the last connection that wrote has ended.

    That may be after its client has: a server that lost a connection tidies up beside the one that came in its place,
    and no client waits for what its server does behind the last answer.
    """
    reserved = place / ".fsmux"
    wait_until(lambda: not reserved.exists(), told=lambda: list(reserved.rglob("*")))


def make_tree(root: Path) -> Path:
    """A tree with everything that is kept: modes, times, links, empty directories, and names of every kind."""
    (root / "deep/er/still").mkdir(parents=True)
    (root / "empty directory").mkdir()
    contents: dict[bytes, bytes] = {
        b"plain.txt": b"text\n",
        b"empty": b"",
        b".hidden": b"dot",
        b"with space and #?%41": b"odd",
        "grün-文字".encode(): b"unicode",
        b"not-utf8-\xff\xfe": b"bytes",
        b"new\nline": b"line",
        b"-n": b"looks like an option",
        b"deep/er/still/one.bin": os.urandom(70_000),
        b"deep/chunks.bin": os.urandom(9 * MIB + 17),
    }
    for name, content in contents.items():
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(content)
    (root / "plain.txt").chmod(0o600)
    (root / "deep/er/still/one.bin").chmod(0o755)
    os.utime(root / "plain.txt", ns=(1, 1_234_567_890_123_456_789))
    (root / "link").symlink_to("plain.txt")
    (root / "dangling").symlink_to("nowhere/at all")
    (root / "deep").chmod(0o750)
    os.utime(root / "deep", ns=(1, 1_000_000_000_000_000_001))
    return root


def inventory(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything beneath a directory with all that a transfer keeps."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            facts = path.lstat()
            if stat.S_ISLNK(facts.st_mode):
                kept: tuple[object, ...] = ("link", os.readlink(path))
            elif stat.S_ISDIR(facts.st_mode):
                kept = ("directory", stat.S_IMODE(facts.st_mode), facts.st_mtime_ns)
            else:
                kept = ("file", stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, path.read_bytes())
            found[str(path.relative_to(root))] = kept
    return found


def visible(root: Path) -> set[str]:
    """Names beneath a directory, without what fsmux keeps for resuming."""
    return {name for name in inventory(root) if not name.startswith(".fsmux")}
