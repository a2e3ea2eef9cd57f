"""What fsmux is compared with, each moving a file or a tree between two processes on loopback.

``down``: the asking process gets what the serving process has; ``up``: it gives it away.  Servers are started before
the measured time begins, and the cost of one run is the difference.  None of these tools makes anything durable
before it says that it is done, so fsmux runs with ``--durability none`` beside them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Sample
from benchmarks.processes import START_SECONDS, Failed, Process, Usage, cpu_seconds, peak_memory
from fsmux.cli.measure.movers import Fsmux, RawLoop, contents_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.harness import Contender

__all__ = ["Fsmux", "RawLoop", "installed"]


class _Daemon:
    """A server of another project on a port that was free a moment ago."""

    def __init__(self, argv: Sequence[str | Path], port: int) -> None:
        self.process = Process(argv)
        limit = time.monotonic() + START_SECONDS
        while not _answers(port):
            if self.process.ended(0.005) or time.monotonic() > limit:
                self.process.stop()
                raise Failed(f"{self.process} did not start:\n{self.process.errors}{self.process.output}")
        self._cpu = cpu_seconds(self.process.pid)
        self._since = time.perf_counter()

    def usage(self) -> Usage:
        pid = self.process.pid
        return Usage(time.perf_counter() - self._since, cpu_seconds(pid) - self._cpu, peak_memory(pid))

    def __enter__(self) -> _Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()


class Rsync:
    """rsync against its daemon: checks a whole-file MD5 or XXH128, does not verify what was written."""

    name = "rsync daemon"
    options: tuple[str, ...] = ()

    def __init__(self, place: Path) -> None:
        self._place = place

    def down(self, source: Path, target: Path) -> Sample:
        return self._run(source.parent, lambda url: [f"{url}{contents_of(source.name, source)}", target])

    def up(self, source: Path, target: Path) -> Sample:
        return self._run(target.parent, lambda url: [contents_of(os.fspath(source), source), f"{url}{target.name}"])

    def _run(self, root: Path, words: Callable[[str], list[str | Path]]) -> Sample:
        port = free_port()
        configuration = self._place / "rsyncd.conf"
        owner = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        configuration.write_text(f"use chroot = no\n{owner}[data]\npath = {root}\nread only = no\n")
        argv = [
            "rsync",
            "--daemon",
            "--no-detach",
            f"--config={configuration}",
            f"--port={port}",
            "--address=127.0.0.1",
        ]
        with _Daemon(argv, port) as daemon:
            usage = Process(["rsync", "-a", *self.options, *words(f"rsync://127.0.0.1:{port}/data/")]).check()
            time.sleep(0.05)  # its child for this connection has to be waited for before its cost is known
            return Sample.of(usage, daemon.usage())


class Nginx:
    """curl against nginx with sendfile (and PUT for uploads): checks nothing."""

    name = "nginx + curl"

    def __init__(self, place: Path) -> None:
        self._place = place

    def down(self, source: Path, target: Path) -> Sample:
        return self._run(source.parent, self._pairs(source, target, "output"))

    def up(self, source: Path, target: Path) -> Sample:
        return self._run(target.parent, self._pairs(source, target, "upload-file"))

    def _pairs(self, source: Path, target: Path, what: str) -> list[tuple[str, str]]:
        served, local = (source, target) if what == "output" else (target, source)
        names = [Path()] if source.is_file() else [p.relative_to(source) for p in source.rglob("*") if p.is_file()]
        return [(f"{served.name}/{name}" if name.name else served.name, f'{what} = "{local / name}"') for name in names]

    def _run(self, root: Path, pairs: list[tuple[str, str]]) -> Sample:
        port = free_port()
        home = self._place / "nginx"
        home.mkdir(exist_ok=True)
        body = root / "nginx-body"
        user = "user root;" if os.geteuid() == 0 else ""
        (home / "conf").write_text(
            f"{user} worker_processes 1; master_process off; daemon off; pid {home}/pid; error_log {home}/errors;\n"
            "events { worker_connections 256; }\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n"
            f"client_max_body_size 0; client_body_temp_path {body}; proxy_temp_path {home}/t1;\n"
            f"fastcgi_temp_path {home}/t2; uwsgi_temp_path {home}/t3; scgi_temp_path {home}/t4;\n"
            f"server {{ listen 127.0.0.1:{port}; root {root};\n"
            "location / { dav_methods PUT; create_full_put_path on; } } }\n"
        )
        urls = self._place / "urls"
        urls.write_text("".join(f'url = "http://127.0.0.1:{port}/{path}"\n{local}\n' for path, local in pairs))
        words: list[str | Path] = ["curl", "-sS", "--fail", "--create-dirs", "-K", urls]
        if len(pairs) > 1:
            words[1:1] = ["--parallel", "--parallel-max", "16"]
        with _Daemon(["nginx", "-c", home / "conf", "-p", home, "-e", home / "errors"], port) as daemon:
            usage = Process(words).check()
            sample = Sample.of(usage, daemon.usage())
        shutil.rmtree(body, ignore_errors=True)
        return sample


class Scp:
    """scp against an sshd of its own with AES-128-GCM: encrypts, so it is no like-for-like comparison."""

    name = "scp aes128-gcm"

    def __init__(self, place: Path) -> None:
        self._place = place
        for name in ("host", "user"):
            if not (place / name).exists():
                Process(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name]).check()

    def down(self, source: Path, target: Path) -> Sample:
        return self._run(lambda host: [f"{host}:{source}", target], source.is_dir())

    def up(self, source: Path, target: Path) -> Sample:
        return self._run(lambda host: [source, f"{host}:{target}"], source.is_dir())

    def _run(self, words: Callable[[str], list[str | Path]], tree: bool) -> Sample:
        port = free_port()
        configuration = self._place / "sshd.conf"
        configuration.write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {self._place}/host\nAuthorizedKeysFile {self._place}/user.pub\n"
            "StrictModes no\nPasswordAuthentication no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
            "Subsystem sftp internal-sftp\nCiphers aes128-gcm@openssh.com\n"
        )
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        options: list[str | Path] = ["-i", self._place / "user", "-P", str(port), "-c", "aes128-gcm@openssh.com", "-p"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        with _Daemon([sshd, "-D", "-e", "-f", configuration], port) as daemon:
            usage = Process(["scp", "-q", *options, *["-r"] * tree, *words("127.0.0.1")]).check()
            time.sleep(0.05)  # as with rsync
            return Sample.of(usage, daemon.usage())


class Xrootd:
    """xrdcp against xrootd: checks nothing unless asked to."""

    name = "xrdcp"

    def __init__(self, place: Path) -> None:
        self._place = place

    def down(self, source: Path, target: Path) -> Sample:
        words = self._words(source)
        return self._run(
            source.parent, target, source, lambda url, into: [*words, f"{url}{source.name}", f"{into}/{source.name}"]
        )

    def up(self, source: Path, target: Path) -> Sample:
        words = self._words(source)
        return self._run(
            target.parent, target, source, lambda url, into: [*words, source, f"{url}{into.name}/{source.name}"]
        )

    def _words(self, source: Path) -> list[str | Path]:
        return ["xrdcp", "-s", *["-r", "--parallel", "4"] * source.is_dir()]

    def _run(self, root: Path, target: Path, source: Path, words: Callable[[str, Path], list[str | Path]]) -> Sample:
        port = free_port()
        home, into = self._place / "xrootd", target.with_name("xrootd-received")
        for directory in (home, into):
            directory.mkdir(exist_ok=True)
        argv: list[str | Path] = ["xrootd"]
        if os.geteuid() == 0:  # it refuses to be root
            argv += ["-R", "nobody"]
            for directory in (self._place, home, into):
                directory.chmod(0o777)
        configuration = home / "conf"
        configuration.write_text(
            f"all.export /\noss.localroot {root}\nxrd.port {port}\nxrd.network nodnr\n"
            f"all.adminpath {home}\nall.pidpath {home}\n"
        )
        patience = {"XRD_CONNECTIONRETRY": "1", "XRD_CONNECTIONWINDOW": "5"}
        try:
            with _Daemon([*argv, "-c", configuration], port) as daemon:
                asked = words(f"root://127.0.0.1:{port}//", into)
                if source.is_dir():  # it copies a directory by its name into one that exists
                    asked[-1] = os.fspath(asked[-1]).removesuffix(source.name)
                usage = Process(asked, environment=patience).check()
                sample = Sample.of(usage, daemon.usage())
            (into / source.name).rename(target)
        finally:
            shutil.rmtree(into)
        return sample


class GridFtp:
    """globus-url-copy against its server, unencrypted: checks nothing."""

    name = "globus-url-copy"

    def __init__(self, place: Path) -> None:
        self._place = place

    def down(self, source: Path, target: Path) -> Sample:
        return self._run(source, lambda url: [f"{url}{_whole(source, source)}", f"file://{_whole(target, source)}"])

    def up(self, source: Path, target: Path) -> Sample:
        return self._run(source, lambda url: [f"file://{_whole(source, source)}", f"{url}{_whole(target, source)}"])

    def _run(self, source: Path, words: Callable[[str], list[str]]) -> Sample:
        port = free_port()
        argv = ["globus-gridftp-server", "-aa", "-control-interface", "127.0.0.1", "-data-interface", "127.0.0.1"]
        argv += ["-p", str(port), "-exec", shutil.which("globus-gridftp-server") or ""]
        if os.geteuid() == 0:
            argv += ["-anonymous-user", "root", "-allow-root"]
        asked = ["globus-url-copy", "-fast", *["-r", "-cd", "-cc", "16"] * source.is_dir()]
        with _Daemon(argv, port) as daemon:
            usage = Process([*asked, *words(f"ftp://127.0.0.1:{port}")]).check()
            time.sleep(0.05)  # as with rsync
            return Sample.of(usage, daemon.usage())


def _whole(path: Path, source: Path) -> str:
    return os.fspath(path) + "/" * source.is_dir()


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


PROGRAMS: dict[type[Rsync | Nginx | Scp | Xrootd | GridFtp], list[str]] = {
    Rsync: ["rsync"],
    Nginx: ["nginx", "curl"],
    Scp: ["scp", "ssh-keygen", "sshd"],
    Xrootd: ["xrdcp", "xrootd"],
    GridFtp: ["globus-url-copy", "globus-gridftp-server"],
}
"""What each of them needs to be installed."""


def installed(place: Path) -> tuple[list[Contender], list[str]]:
    """The other tools that work here, and a sentence for each one that does not."""
    found: list[Contender] = []
    missing = []
    for make, programs in PROGRAMS.items():
        absent = [f"{program} is not installed" for program in programs if shutil.which(program) is None]
        if make is Scp and os.geteuid() == 0 and not Path("/run/sshd").is_dir():
            absent.append("sshd, run by root, needs the directory /run/sshd")
        if absent:
            missing.append(f"{make.name} is left out: {', '.join(absent)}")
        else:
            found.append(make(place))
    return found, missing
