"""Start a process, learn when it listens, and what it cost: seconds, CPU seconds, peak memory.

Theory: what counts is what a user pays, so a whole process is measured from start to exit.  CPU seconds come from
``wait4``, which is exact; of a server that lives on they are read from ``/proc`` before and after, to 10 ms.  Peak
memory is the kernel's own high-water mark (``VmHWM``), sampled until the process ends, because ``ru_maxrss`` of a child
starts at what its parent held.  Processes are ended by their own pid, never by name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SAMPLE_SECONDS = 0.02
START_SECONDS = 30.0
END_SECONDS = 20.0
TOKEN = secrets.token_urlsafe(32)
"""Of every server that is started from here: known to this process and to those that it starts."""

FSMUX = (sys.executable, "-m", "fsmux")
_TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A process that should have worked did not; the text says which and what it printed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process cost. ``peak`` is in bytes."""

    seconds: float
    cpu: float
    peak: int


class Process:
    """A running process with its output in a file, so that no pipe can fill up and stop it."""

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.argv = [os.fspath(word) for word in argv]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by wait
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by wait
        self._peak = 0
        self._started = time.perf_counter()
        self._process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
        )
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self.output = self.errors = ""

    def errors_until_now(self) -> str:
        """What it has written to stderr while it still runs."""
        return _so_far(self._errors)

    def output_until_now(self) -> str:
        """What it has written to stdout while it still runs."""
        return _so_far(self._output)

    def ended(self, seconds: float) -> bool:
        """Wait so long for the end. The process stays to be waited for."""
        self._peak = max(self._peak, peak_memory(self.pid))
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def wait(self, deadline: float = 3600.0) -> tuple[int, Usage]:
        """Wait for the end: the exit status (negative for a signal) and the cost. ``output`` and ``errors`` are set."""
        limit = time.monotonic() + deadline
        try:
            while not self.ended(SAMPLE_SECONDS):
                if time.monotonic() > limit:
                    raise Failed(f"{self} was still running after {deadline:.0f} s")
        except BaseException as error:  # an interrupt, too, must not leave it behind
            self.send_signal(signal.SIGKILL)
            self._collect()
            if isinstance(error, Failed):
                raise Failed(f"{error}; it said:\n{self.errors}{self.output}") from None
            raise
        return self._collect()

    def _collect(self) -> tuple[int, Usage]:
        seconds = time.perf_counter() - self._started
        _, status, rusage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for behind its back
        os.close(self._pidfd)
        self.output, self.errors = _text(self._output), _text(self._errors)
        return self._process.returncode, Usage(seconds, rusage.ru_utime + rusage.ru_stime, self._peak)

    def check(self, deadline: float = 3600.0) -> Usage:
        """Like :meth:`wait`, but a failure is an exception that holds what the process said."""
        status, usage = self.wait(deadline)
        if status:
            raise Failed(f"{self} ended with {status}:\n{self.errors}{self.output}")
        return usage

    def send_signal(self, number: int) -> None:
        """Send a signal to this process alone; it cannot hit a stranger that got the same pid."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def stop(self, number: int = signal.SIGTERM) -> Usage:
        """End it and wait for that."""
        self.send_signal(number)
        if not self.ended(END_SECONDS):
            self.send_signal(signal.SIGKILL)
        return self.wait(END_SECONDS)[1]

    def __str__(self) -> str:
        return " ".join(self.argv)


def _so_far(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


def _text(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")


def peak_memory(pid: int) -> int:
    """Bytes: the most that the process ever held; 0 once it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def forget_peak(pid: int) -> None:
    """Start the high-water mark of a living process anew at what it holds now."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a living process: all its threads, those that have ended, and children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK


class Server:
    """A server that says where it listens in a port file; measured between :meth:`mark` and :meth:`usage`."""

    def __init__(self, argv: Sequence[str | os.PathLike[str]], port_file: Path, **options: Mapping[str, str]) -> None:
        self.process = Process(argv, environment=options.get("environment"))
        self.address = self._listening(port_file)
        self.mark()

    def _listening(self, port_file: Path) -> str:
        limit = time.monotonic() + START_SECONDS
        while not self.process.ended(0.002):
            with contextlib.suppress(FileNotFoundError):
                if text := port_file.read_text().strip():
                    return text
            if time.monotonic() > limit:
                self.process.stop(signal.SIGKILL)
                raise Failed(f"{self.process} did not listen within {START_SECONDS:.0f} s:\n{self.process.errors}")
        status, _ = self.process.wait()
        raise Failed(f"{self.process} ended with {status} before it listened:\n{self.process.errors}")

    def mark(self) -> None:
        """Measure from here on."""
        forget_peak(self.process.pid)
        self._cpu = cpu_seconds(self.process.pid)
        self._since = time.perf_counter()

    def usage(self) -> Usage:
        """What it cost since the mark."""
        cpu = cpu_seconds(self.process.pid) - self._cpu
        return Usage(time.perf_counter() - self._since, cpu, peak_memory(self.process.pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()


def fsmux_server(root: Path, *options: str, write: bool = True) -> Server:
    """``fsmux serve ROOT --write`` on a port of its choice; clients need ``FSMUX_TOKEN`` to be :data:`TOKEN`."""
    with tempfile.TemporaryDirectory() as directory:
        port_file = Path(directory) / "port"
        words: list[str | Path] = [*FSMUX, "serve", root, "--listen", "127.0.0.1:0", "--port-file", port_file, "-q"]
        return Server([*words, *["--write"] * write, *options], port_file, environment=environment())


def environment() -> dict[str, str]:
    """What fsmux processes of a measurement have in their environment.

    Compiled modules may be kept, as an installed package has them: compiling them anew takes 0.09 s of every start.
    """
    return {"FSMUX_TOKEN": TOKEN, "PYTHONDONTWRITEBYTECODE": ""}


def fsmux(*words: str | os.PathLike[str]) -> Process:
    """A command of fsmux as a whole process."""
    return Process([*FSMUX, *words], environment=environment())


def file_system(path: Path) -> str:
    """The type of the file system that holds ``path``, as the kernel names it."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, type_, *_ = line.split()
        if (os.fspath(path) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, type_
    return kind
