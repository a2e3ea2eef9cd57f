"""``fsmux demo``: a real tree up and down over one connection on this machine, with a kill in the middle.

Theory: what convinces is what a user would do.  So nothing here reaches into the program: a server and clients are
started as commands, the client is ended by ``kill -9`` when the server has written half of the bytes, and the same
command is given again.  What it reports comes from ``--json``, and every byte is compared at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fsmux.units import format_bytes, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

RANDOM_BYTES = 256 * 2**20
STREAMS = 64
MARK = ".fsmux-demo"
"""A file that says whose a directory is."""

START_SECONDS = 30.0
POLL_SECONDS = 0.001
_COMMAND = (sys.executable, "-m", "fsmux")
_BLOCK = 2**20


class DemoFailed(Exception):
    """The demonstration did not show what it should; the text says what."""


def run(work_dir: Path | None) -> int:
    """Run it in ``work_dir``, or in a new temporary directory, and return the exit code. What it made stays there."""
    place = Path(tempfile.mkdtemp(prefix="fsmux-demo-")) if work_dir is None else work_dir.absolute()
    try:
        _claim(place)
        _demonstrate(place)
    except DemoFailed as failure:
        print(f"fsmux demo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fsmux demo: what it made is in {place}; to tidy up: rm -r {shlex.quote(str(place))}", file=sys.stderr)
        raise
    return 0


def _claim(place: Path) -> None:
    """Make it our own, so that nothing of anybody else's is removed in it, nor with it."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not (place / MARK).exists() and any(place.iterdir()):
            raise DemoFailed(f"{place} has something else in it; name a directory that is empty or not there yet")
        (place / MARK).touch()
    except OSError as error:
        raise DemoFailed(f"{place}: {(error.strerror or 'it cannot be used').lower()}") from None


def _demonstrate(place: Path) -> None:
    source, served, back = place / "tree", place / "served", place / "back"
    for directory in (source, served, back):
        shutil.rmtree(directory, ignore_errors=True)
    _say(f"making a tree in {place}: CPython's standard library and {format_bytes(RANDOM_BYTES)} of random data")
    files, size = _make_tree(source)
    served.mkdir()
    token = secrets.token_urlsafe(24)
    with _server(served, place, token) as (server, address):
        up = ["transfer", "--streams", str(STREAMS), f"{source}/", f"fsmux://{address}/tree"]
        _say(f"uploading {files:,} files, {format_bytes(size)}, over one connection with {STREAMS} sessions at once")
        written = _killed_half_way(up, token, server.pid, size // 2)
        _say(f"killed it (kill -9) when the server had written {format_bytes(written)}; now the same command again")
        resumed = _transfer(up, token)
        _say("downloading it into another directory")
        down = ["transfer", "--streams", str(STREAMS), f"fsmux://{address}/tree/", f"{back}"]
        fetched = _transfer(down, token)
    _say("comparing every byte")
    for copy in (served / "tree", back):
        _compare(source, copy)
    if not resumed["bytes_resumed"] or resumed["bytes_sent"] + resumed["bytes_resumed"] > size:
        raise DemoFailed(f"the second upload resumed nothing, or sent too much: {resumed}")
    _report(files, size, resumed, fetched)
    _suggest(source, served, back)


def _make_tree(target: Path) -> tuple[int, int]:
    library = sysconfig.get_path("stdlib")
    leave_out = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__")
    shutil.copytree(library, target, symlinks=True, ignore=leave_out)
    with (target / "random.bin").open("wb") as file:
        for _ in range(RANDOM_BYTES // _BLOCK):
            file.write(os.urandom(_BLOCK))
    sizes = [os.lstat(path).st_size for path, kind in _inventory(target).values() if stat.S_ISREG(kind)]
    return len(sizes), sum(sizes)


@contextlib.contextmanager
def _server(root: Path, place: Path, token: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port_file = place / "port"
    port_file.unlink(missing_ok=True)
    command = [*_COMMAND, "serve", str(root), "--write", "--listen", "127.0.0.1:0", "--port-file", str(port_file), "-q"]
    with subprocess.Popen(command, env={**os.environ, "FSMUX_TOKEN": token}) as server:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (address := _text_of(port_file)):
                if _ended(server, 0.01) or time.monotonic() > deadline:
                    raise DemoFailed("the server did not start")
            yield server, address
        finally:
            server.terminate()


def _text_of(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    return ""


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long for the end of a process."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return True
    return False


def _client(words: list[str], token: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*_COMMAND, *words, "--json"], env={**os.environ, "FSMUX_TOKEN": token}, stdout=output)


def _killed_half_way(words: list[str], token: str, server: int, enough: int) -> int:
    """Start a transfer and kill it when the server has written ``enough`` bytes; returns how many it had."""
    before = _bytes_written(server)
    with tempfile.TemporaryFile() as output, _client(words, token, output) as client:
        while (written := _bytes_written(server) - before) < enough:
            if _ended(client, POLL_SECONDS):
                raise DemoFailed(f"the upload ended, with exit code {client.returncode}, before it could be killed")
        client.kill()
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[J\x1b[?25h")  # what a killed program cannot: clear its bars, show the cursor again
        sys.stderr.flush()
    return written


def _bytes_written(pid: int) -> int:
    """What a process has written until now, in bytes, as Linux counts it."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["wchar"])


def _transfer(words: list[str], token: str) -> dict[str, Any]:
    """Run a transfer to its end; returns its summary."""
    with tempfile.TemporaryFile() as output:
        with _client(words, token, output) as client:
            status = client.wait()
        output.seek(0)
        last: dict[str, Any] = json.loads(output.read().splitlines()[-1]) if status == 0 else {}
    if status:
        raise DemoFailed(f"a transfer ended with exit code {status}; what it said is above")
    return last


def _inventory(root: Path) -> dict[str, tuple[Path, int]]:
    """Everything beneath a directory, by its name there, with its mode and kind."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            found[str(path.relative_to(root))] = path, path.lstat().st_mode
    return found


def _compare(left: Path, right: Path) -> None:
    """Raise unless two trees hold the same names, kinds, modes, times and bytes."""
    one, other = _inventory(left), _inventory(right)
    if differing := one.keys() ^ other.keys():
        raise DemoFailed(f"{left} and {right} differ in {len(differing)} names, such as {min(differing)}")
    for name, (path, mode) in one.items():
        copy, copied_mode = other[name]
        if mode != copied_mode:
            raise DemoFailed(f"{copy} has mode {copied_mode:o}, {path} has {mode:o}")
        if stat.S_ISLNK(mode):
            same = path.readlink() == copy.readlink()
        else:
            same = path.stat().st_mtime_ns == copy.stat().st_mtime_ns and (path.is_dir() or _same_bytes(path, copy))
        if not same:
            raise DemoFailed(f"{copy} differs from {path}")


def _same_bytes(left: Path, right: Path) -> bool:
    with left.open("rb") as one, right.open("rb") as other:
        while True:
            block = one.read(_BLOCK)
            if block != other.read(_BLOCK):
                return False
            if not block:
                return True


def _report(files: int, size: int, resumed: dict[str, Any], fetched: dict[str, Any]) -> None:
    print()
    print(f"{files:,} files, {format_bytes(size)}: the same in all three places, byte for byte, with modes and times")
    rows = [("upload, after the kill", resumed), ("download", fetched)]
    for name, one in rows:
        rate = format_rate(one["bytes_sent"] / one["seconds"])
        print(
            f"  {name:22}  sent {format_bytes(one['bytes_sent'])}, resumed {format_bytes(one['bytes_resumed'])}, "
            f"skipped {one['skipped']:,} files, {one['seconds']:.2f} s, {rate}"
        )


def _suggest(source: Path, served: Path, back: Path) -> None:
    found = shutil.which("fsmux", path=os.path.dirname(sys.executable))
    command = shlex.quote(found) if found else f"{shlex.quote(sys.executable)} -m fsmux"
    served_at, tree, other = (shlex.quote(str(path)) for path in (served, source, back.with_name("again")))
    print()
    print("Now yourself, in two terminals:")
    print("  export FSMUX_TOKEN=" + secrets.token_urlsafe(24) + "    # in both")
    print(f"  {command} serve {served_at} --write")
    print()
    print(f"  {command} ls fsmux://127.0.0.1/")
    print(f"  {command} transfer {tree}/ fsmux://127.0.0.1/mine")
    print(f"  {command} transfer fsmux://127.0.0.1/mine/ {other}")
    print(f"To tidy up: rm -r {shlex.quote(str(served.parent))}")


def _say(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
