"""fsmux and the raw loop, each moving a file or a tree between two processes on loopback.

``down``: the asking process gets what the serving process has; ``up``: it gives it away.  The server of fsmux is
started before the measured time begins, anew for every run, so that it remembers nothing of the run before; its cost
is the difference.  ``--durability none``, because no raw loop waits for a disk either.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fsmux.cli.measure.processes import Failed, Process, fsmux, fsmux_server
from fsmux.cli.measure.runs import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

RAW_LOOP = Path(__file__).with_name("rawloop.py")


class RawLoop:
    """``sendfile`` to ``recv_into`` and ``pwrite``, no protocol. See :mod:`fsmux.cli.measure.rawloop`."""

    def __init__(self, place: Path, *flags: str) -> None:
        self.name = " ".join(["raw loop", *(flag.removeprefix("--") for flag in flags)])
        self._place = place
        self._command: list[str | Path] = [sys.executable, "-P", RAW_LOOP]
        self._flags = flags

    def down(self, source: Path, target: Path) -> Sample:
        return self._run([source], [target, "--receive"])

    def up(self, source: Path, target: Path) -> Sample:
        return self._run([target, "--receive"], [source])

    def _run(self, served: Sequence[str | Path], asked: Sequence[str | Path]) -> Sample:
        port_file = self._place / "raw.port"
        port_file.unlink(missing_ok=True)
        server = Process([*self._command, "serve", served[0], port_file, *served[1:], *self._flags])
        while not port_file.exists():
            if server.ended(0.001):
                server.check()
                raise Failed(f"{server} ended before it listened")
        address = port_file.read_text().strip()
        client = Process([*self._command, "connect", asked[0], address, *asked[1:], *self._flags])
        try:
            usage = client.check()
        except BaseException:
            server.stop()
            raise
        return Sample.of(usage, server.check())


class Fsmux:
    """``fsmux transfer`` and ``fsmux serve``, CRC on."""

    def __init__(self, *options: str, name: str = "fsmux") -> None:
        self.name = " ".join([name, *options])
        self._options = options

    def down(self, source: Path, target: Path) -> Sample:
        with fsmux_server(source.parent, "--durability", "none") as server:
            url = f"fsmux://{server.address}/{contents_of(source.name, source)}"
            usage = self._transfer(url, target)
            return Sample.of(usage.check(), server.usage())

    def up(self, source: Path, target: Path) -> Sample:
        with fsmux_server(target.parent, "--durability", "none") as server:
            url = f"fsmux://{server.address}/{target.name}"
            usage = self._transfer(contents_of(os.fspath(source), source), url)
            return Sample.of(usage.check(), server.usage())

    def _transfer(self, source: str | Path, target: str | Path) -> Process:
        return fsmux("transfer", "-q", "--durability", "none", *self._options, source, target)


def contents_of(name: str, path: Path) -> str:
    """The name, with a slash behind it if it is a directory's: what is in it is meant."""
    return name + "/" * path.is_dir()
