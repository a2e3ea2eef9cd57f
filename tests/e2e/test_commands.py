"""The commands beside transfer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.processes import FSMUX, environment
from fsmux._version import __version__
from fsmux.errors import ExitCode

from .kit import DEADLINE, Url, good, make_tree, run, start, visible, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_version() -> None:
    assert good("--version").out == f"fsmux {__version__}\n"


def test_ls_lists_names_and_recursive_ls_paths(url: Url, served: Path) -> None:
    make_tree(served / "tree")
    names = good("ls", url("tree")).out.splitlines()
    assert {"plain.txt", ".hidden", "empty", "grün-文字"} <= {name.rstrip("/@") for name in names}
    assert "deep/er/still/one.bin" in good("ls", "-R", url("tree")).out.splitlines()
    assert re.search(r"rw-------.* 5 .*plain\.txt", good("ls", "-l", url("tree")).out)


def test_ls_of_an_empty_directory_is_empty(url: Url) -> None:
    assert good("ls", url()).out == ""


def test_ls_as_json_is_an_object_a_line(url: Url, served: Path) -> None:
    (served / "a").write_text("12345")
    (entry,) = map(json.loads, good("ls", "--json", url()).out.splitlines())
    assert (entry["path"], entry["bytes"]) == ("a", 5)


def test_stat_says_what_stands_there(url: Url, served: Path) -> None:
    (served / "a").write_text("12345")
    (served / "a").chmod(0o640)
    out = good("stat", url("a")).out
    assert "5" in out
    assert "640" in out or "rw-r-----" in out
    found = json.loads(good("stat", "--json", url("a")).out)
    assert (found["bytes"], found["mtime_ns"]) == (5, (served / "a").stat().st_mtime_ns)


def test_names_are_made_moved_and_removed(url: Url, served: Path) -> None:
    good("mkdir", "-p", url("one/two"))
    assert (served / "one/two").is_dir()
    (served / "one/two/file").write_text("x")
    good("mv", url("one"), url("other"))
    assert (served / "other/two/file").read_text() == "x"
    refused = run("rm", url("other"))
    assert refused.status == 3
    assert "other" in refused.sentence
    good("rm", "-r", url("other"))
    assert not (served / "other").exists()


def test_tokens_are_long_and_never_the_same() -> None:
    one, other = good("token", "new").out.strip(), good("token", "new").out.strip()
    assert one != other
    assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", one)


@pytest.mark.parametrize("words", [("serve",), ("transfer",), ("transfer", "--nonsense"), ("ls",), ("nonsense",)])
def test_a_wrong_command_line_ends_with_2(words: tuple[str, ...]) -> None:
    outcome = run(*words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_help_names_the_commands() -> None:
    out = good("--help").out
    for command in ("serve", "transfer", "ls", "stat", "token"):
        assert command in out


def test_version_imports_nothing_heavy() -> None:
    # The bar is 150 ms (benchmarks/smoke.py measures it); a machine that runs tests beside it gets ten times that.
    started = time.perf_counter()
    good("--version")
    assert time.perf_counter() - started < 1.5


def without(streams: str, *words: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """A command whose caller has closed some of its standard streams."""
    script = f'exec "$@" {streams}'
    return subprocess.run(
        ["bash", "-c", script, "-", *FSMUX, *words], capture_output=True, text=True, env=environment(), timeout=60
    )


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(url: Url, served: Path, tmp_path: Path, streams: str) -> None:
    (tmp_path / "file").write_bytes(b"bytes and nothing else")
    for name, words in (("json", ["--json"]), ("plain", [])):
        done = without(streams, "transfer", *words, tmp_path / "file", url(name))
        assert (done.returncode, "unexpected" in done.stdout + done.stderr) == (0, False), done
        assert (served / name).read_bytes() == b"bytes and nothing else"
    error = without(streams, "stat", url("missing"))
    assert error.returncode == run("stat", url("missing")).status
    assert ("missing" in error.stderr, error.stdout) == ("2>" not in streams, "")


def test_names_cannot_come_from_a_closed_stdin(url: Url, tmp_path: Path) -> None:
    done = without("<&-", "transfer", "--files-from", "-", tmp_path, url())
    assert done.returncode == ExitCode.USAGE
    assert "stdin is closed" in done.stderr


def test_a_dry_run_counts_what_would_come_out_of_a_pipe(url: Url) -> None:
    outcome = good("transfer", "-n", "-", url("new"))
    assert "would send new" in outcome.out
    assert outcome.err.startswith("would transfer 1 file, ")


# ---- interrupted before it has begun -------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(fifo: Path, process: subprocess.Popen[str]) -> Iterator[None]:
    """While a process waits for what comes out of a pipe, which is nothing."""
    held: list[int] = []

    def reached() -> bool:
        with contextlib.suppress(OSError):
            held.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(held) or process.poll() is not None

    wait_until(reached)
    try:
        yield
    finally:
        for number in held:
            os.close(number)


@pytest.mark.parametrize("where", ["typer", "callback", "configuration", "trio"])
def test_an_interrupt_while_a_command_is_loaded_is_silent(where: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    wait = f"open({str(fifo)!r}).read()"
    own = {"PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))}
    if where == "configuration":
        own["FSMUX_CONFIG"] = str(fifo)
    elif where == "callback":  # as the machinery of imports has some
        called = f"class Gone:\n    def __del__(self): {wait}\nGone()\nraise SystemExit(1)\n"
        (tmp_path / "typer.py").write_text(called)
    else:
        (tmp_path / f"{where}.py").write_text(wait)
    process = subprocess.Popen(
        [*FSMUX, "transfer", "a", "host:"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment(), **own}, text=True,
    )  # fmt: skip
    with reading(fifo, process):
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it came just before the call that waits
                process.wait(1)
        assert (*process.communicate(timeout=DEADLINE), process.returncode) == ("", "", 130)


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "-", *FSMUX, "token", "new"],
        stdout=subprocess.PIPE, env={**os.environ, "FSMUX_CONFIG": str(fifo)}, text=True,
    )  # fmt: skip
    with reading(fifo, process):
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


# ---- the command that goes on --------------------------------------------------------------------------------------


def interrupted(served: Path, *words: str | os.PathLike[str], names: bytes = b"") -> tuple[str, list[str]]:
    """What a transfer to a server says when it is interrupted in the middle, and the lines that follow."""
    with tempfile.TemporaryFile() as given:
        given.write(names)
        given.seek(0)
        process = subprocess.Popen(
            [*FSMUX, "transfer", "--bwlimit", "2M", *words],
            stdin=given, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment()},
        )  # fmt: skip
    wait_until(lambda: list(served.glob(".fsmux/*")) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    lines = process.communicate(timeout=DEADLINE)[1].splitlines()
    assert process.returncode == 130
    (first,) = (number for number, line in enumerate(lines) if "stopped by SIGINT" in line)
    return lines[first], lines[first + 1 :]


def test_the_command_that_goes_on_is_one_that_a_shell_takes(url: Url, served: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"it's \\ \x1b[2J\xff1\n") + "\u202egrün"
    content = os.urandom(3 << 20)
    (tmp_path / name).write_bytes(content)
    said, (line, *_) = interrupted(served, tmp_path / name, url("file"))
    assert said.endswith(", with FSMUX_TOKEN set as it was:")
    assert line.isprintable()
    found = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    own = {**os.environ, **environment(), "PATH": found}
    assert subprocess.run(["bash", "-c", line], env=own, capture_output=True, timeout=DEADLINE).returncode == 0
    assert (served / "file").read_bytes() == content


def test_no_command_goes_on_that_lacks_its_stdin(url: Url, served: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    said, lines = interrupted(served, "--files-from", "-", tmp_path, url(), names=b"file\n")
    assert said.endswith("given the same names again, the same command goes on from there")
    assert not [line for line in lines if "fsmux transfer" in line]


# ---- where nothing can be written ----------------------------------------------------------------------------------


@contextlib.contextmanager
def unwritable(kind: str) -> Iterator[int]:
    """A descriptor for writing that takes nothing."""
    if kind == "full":
        number = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, number = os.pipe()
        os.close(reader)
    try:
        yield number
    finally:
        os.close(number)


@contextlib.contextmanager
def server_with_log(
    served: Path, place: Path, log: int, *, most: int = -1
) -> Iterator[tuple[Url, subprocess.Popen[bytes]]]:
    """A server whose stderr is this descriptor, and which may write files of so many bytes."""
    port_file = place / "port-of-logging"
    process = subprocess.Popen(
        [*FSMUX, "serve", "-v", served, "--listen", "127.0.0.1:0", "--port-file", port_file],
        stderr=log, env={**os.environ, **environment()},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )  # fmt: skip
    try:
        wait_until(lambda: port_file.exists() or process.poll() is not None)
        assert process.poll() is None
        yield Url(port_file.read_text().strip()), process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["full", "left"])
def test_a_log_that_cannot_be_written_ends_no_server(served: Path, tmp_path: Path, kind: str) -> None:
    with unwritable(kind) as log, server_with_log(served, tmp_path, log) as (url, process):
        for _ in range(2):
            assert good("ls", url()).out == ""
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 128 + signal.SIGTERM


def test_a_log_goes_on_when_there_is_room_again_and_says_what_is_missing(served: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab") as file:
        file.write(b"-" * 2000 + b"\n")
    with log.open("ab") as file, server_with_log(served, tmp_path, file.fileno(), most=2100) as (url, _):
        good("ls", url())
        wait_until(lambda: log.stat().st_size == 2100)
        good("ls", url())
        os.truncate(log, 0)

        def told() -> bool:
            good("ls", url())
            return "lines of this log are missing" in log.read_text()

        wait_until(told)
    first, *lines = log.read_text().splitlines()
    assert first == "", "the end of the line that was torn"
    assert all(line.startswith(("fsmux: ", "20")) for line in lines)


@pytest.mark.parametrize("kind", ["full", "left"])
def test_what_cannot_be_shown_changes_no_exit_code(url: Url, served: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("content")
    with unwritable(kind) as err:
        for words, code in (
            (["transfer", "-v", tmp_path / "file", url("plain")], 0),
            (["transfer", "--progress", "always", tmp_path / "file", url("bars")], 0),
            (["transfer", tmp_path / "missing", url()], ExitCode.SOURCE),
            (["stat", url("missing")], ExitCode.SOURCE),
            (["transfer", "a"], ExitCode.USAGE),
            (["transfer", "--nonsense"], ExitCode.USAGE),
            (["nonsense"], ExitCode.USAGE),
        ):
            done = subprocess.run([*FSMUX, *words], stderr=err, env={**os.environ, **environment()}, timeout=DEADLINE)
            assert done.returncode == code, words
    assert (served / "plain").read_text() == (served / "bars").read_text() == "content"


def test_what_was_asked_for_has_to_be_written(url: Url, served: Path, tmp_path: Path) -> None:
    (served / "file").write_text("content")
    with unwritable("full") as out:
        for words in (
            ["ls", url()],
            ["transfer", "--json", url("file"), tmp_path],
            ["transfer", "-n", url("file"), "x"],
        ):
            done = subprocess.run([*FSMUX, *words], stdout=out, env={**os.environ, **environment()}, timeout=DEADLINE)
            assert done.returncode == ExitCode.SPACE, words


def test_a_demonstration_removes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine/served").mkdir(parents=True)
    (tmp_path / "mine/served/file").write_text("precious")
    outcome = run("demo", tmp_path / "mine")
    assert outcome.status == 1
    assert "something else" in outcome.err
    assert (tmp_path / "mine/served/file").read_text() == "precious"
    assert visible(tmp_path / "mine") == {"served", "served/file"}


def test_what_is_set_for_listings_does_not_remove_trees(url: Url, served: Path, tmp_path: Path) -> None:
    (served / "tree").mkdir()
    (served / "tree/file").write_text("precious")
    (tmp_path / "config.toml").write_text("recursive = true\n")
    for env in ({"FSMUX_RECURSIVE": "1"}, {"FSMUX_CONFIG": str(tmp_path / "config.toml")}):
        assert "tree/file" in run("ls", url(), env=env).out
        assert run("rm", url("tree"), env=env).status != 0
    assert (served / "tree/file").read_text() == "precious"
    assert run("rm", "-r", url("tree")).status == 0


def test_a_port_file_that_is_a_pipe_is_written_to(served: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "port")
    server = start("serve", served, "--listen", "127.0.0.1:0", "--port-file", tmp_path / "port")
    with (tmp_path / "port").open() as file:
        assert file.read().startswith("127.0.0.1:")
    server.stop()
    assert (tmp_path / "port").is_fifo()
