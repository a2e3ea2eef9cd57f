"""Command lines: what is parsed, where values come from, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fsmux import events
from fsmux._version import __version__
from fsmux.cli import app
from fsmux.errors import ConnectionLost, ExitCode
from fsmux.plan.filters import Rule
from fsmux.records import Durability
from fsmux.urls import Local, Remote

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.events import Observer
    from fsmux.job import Job

TOKEN = "0123456789abcdefghij"


def call(*args: str) -> int:
    """Run a command line; its exit code."""
    with pytest.raises(SystemExit) as caught:
        app.main(list(args))
    code = caught.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs that would have been run."""
    seen: list[Job] = []

    async def run(job: Job, observer: Observer) -> events.Summary:
        seen.append(job)
        summary = events.Summary(0, 0, 0, 0, 0, 0, 0, 1.0)
        observer(summary)
        return summary

    monkeypatch.setattr("fsmux.job.run", run)
    return seen


def test_the_defaults_of_a_transfer(jobs: list[Job]) -> None:
    assert call("transfer", "a", "b/", "host:c") == 0
    (job,) = jobs
    assert job.sources == (Local("a"), Local("b", trailing_slash=True))
    assert job.destination == Remote("fsmux", "", "host", path_parts=(b"c",))
    assert job.token is None
    options = job.options
    assert (options.streams, options.chunk_size, options.resume, options.dry_run) == (16, 4 << 20, True, False)
    assert options.connections == 1
    assert not options.verify
    assert options.durability is Durability.BATCH
    assert (job.timeout, job.retries) == (None, None)
    assert not options.filters


def test_verify_disk(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("transfer", "--verify", "disk", "a", "host:c") == 0
    assert jobs[0].options.verify
    assert call("transfer", "--verify", "everything", "a", "host:c") == ExitCode.USAGE
    assert len(jobs) == 1


def test_options_of_a_transfer(jobs: list[Job]) -> None:
    values = ["-j", "2", "--streams", "3", "--chunk-size", "1MiB", "--timeout", "2.5", "--durability", "file"]
    flags = ["--no-resume", "-n", "-q", "--progress", "never", "--retries", "7", *values]
    assert call("transfer", *flags, "host:a", ".") == 0
    (job,) = jobs
    options = job.options
    assert (options.streams, options.chunk_size, options.resume, options.dry_run) == (3, 1 << 20, False, True)
    assert options.connections == 2
    assert (job.timeout, job.retries, options.durability) == (2.5, 7, Durability.FILE)


def test_filters_keep_the_order_in_which_they_were_written(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMUX_INCLUDE", "not used, since one was typed")
    call("transfer", "--exclude=*.o", "--include", "keep/", "a", "--exclude", "*", "host:b")
    call("transfer", "--", "--exclude", "host:b")
    assert jobs[0].options.filters.rules == (Rule(False, "*.o"), Rule(True, "keep/"), Rule(False, "*"))
    assert jobs[1].sources == (Local("--exclude"),)


def test_flag_beats_environment_beats_configuration_beats_default(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    monkeypatch.setenv("FSMUX_CONFIG", str(config))
    config.write_text('streams = 5\n[transfer]\nno-resume = true\nexclude = ["x y", "*.o"]\n')
    call("transfer", "a", "host:")
    monkeypatch.setenv("FSMUX_STREAMS", "6")
    call("transfer", "a", "host:")
    call("transfer", "--streams", "7", "a", "host:")
    assert [job.options.streams for job in jobs] == [5, 6, 7]
    assert not jobs[0].options.resume
    assert jobs[0].options.filters.rules == (Rule(False, "x y"), Rule(False, "*.o"))


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_where_the_token_comes_from(jobs: list[Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    by_flag = private(tmp_path / "flag", f"flag-{TOKEN}")
    by_environment = private(tmp_path / "environment", f"environment-{TOKEN}")
    monkeypatch.setenv("FSMUX_CONFIG", private(tmp_path / "config.toml", f'token = "config-{TOKEN}"'))
    call("transfer", "a", "host:")
    monkeypatch.setenv("FSMUX_TOKEN_FILE", by_environment)
    call("transfer", "a", "host:")
    monkeypatch.setenv("FSMUX_TOKEN", f"token-{TOKEN}")
    call("transfer", "a", "host:")
    call("transfer", "--token-file", by_flag, "a", "host:")
    assert [(job.token or "").partition("-")[0] for job in jobs] == ["config", "environment", "token", "flag"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["transfer", "host:a"], 2, "at least one source"),
        (["transfer", "a", "fsmuxs://host/"], 2, "TLS"),
        (["transfer", "-", "host:a/"], 2, "add the name"),
        (["transfer", "-", "host:"], 2, "add the name"),
        (["transfer", "-", "a", "host:b"], 2, "only source"),
        (["transfer", "-", "b"], 2, "must be remote"),
        (["transfer", "-", "-"], 2, "must be remote"),
        (["transfer", "host:a", "host:b", "-"], 2, "only one file"),
        (["transfer", "host:a/", "-"], 2, "only a file"),
        (["transfer", "host:", "-"], 2, "only a file"),
        (["transfer", "a", "-"], 2, "must be remote"),
        (["transfer", "--manifest", "m", "host:a", "-"], 2, "manifest"),
        (["transfer", "--repair", "--manifest", "m", "-", "host:a"], 2, "repair"),
        (["transfer", "--verify", "disk", "host:a", "-"], 2, "about a disk"),
        (["transfer", "--delete", "-", "host:a"], 2, "--delete"),
        (["transfer", "--chunk-size", "3MiB", "a", "host:"], 2, "power of two"),
        (["transfer", "--chunk-size", "1KiB", "a", "host:"], 2, "64KiB"),
        (["transfer", "--chunk-size", "big", "a", "host:"], 2, "fsmux: --chunk-size: 'big' is not a size"),
        (["transfer", "--bwlimit", "fast", "a", "host:"], 2, "fsmux: --bwlimit: 'fast' is not a rate"),
        (["bench", "--size", "big"], 2, "fsmux: --size: 'big' is not a size"),
        (["clean", "--older-than", "old", "."], 2, "fsmux: --older-than: 'old' is not an age"),
        (["transfer", "--timeout", "long", "a", "host:"], 2, "--timeout"),
        (["transfer", "--exclude", "[", "a", "host:"], 2, "not a pattern"),
        (["transfer", "--streams", "0", "a", "host:"], 2, "--streams"),
        (["transfer", "--retries", "-1", "a", "host:"], 2, "--retries"),
        (["transfer", "--timeout", "nan", "a", "host:"], 2, "--timeout"),
        (["ls", "--timeout", "-nan", "host:"], 2, "--timeout"),
        (["bench", "--seconds", "nan"], 2, "--seconds"),
        (["transfer", "--progress", "perhaps", "a", "host:"], 2, "--progress"),
        (["transfer", "--token-file", "/nonexistent", "a", "host:"], 6, "no such file"),
        (["ls", "local/dir"], 2, "names no server"),
        (["rm", "host:"], 2, "inside of it"),
        (["mv", "host:a", "other:b"], 2, "same server"),
        (["serve", "--listen", "9000", "."], 2, "HOST:PORT"),
        (["serve", "--listen", "0.0.0.0:0", "."], 2, "--plaintext"),
        (["serve", "--no-auth", "--users", "x", "."], 2, "choose one"),
        (["serve", "--users", "/nonexistent", "."], 6, "no such file"),
        (["nonsense"], 2, "No such command"),
        (["transfer", "--nonsense"], 2, "No such option"),
    ],
)
def test_mistakes(args: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*args) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("source", ["environment", "configuration"])
def test_what_is_no_number_is_none_wherever_it_comes_from(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if source == "environment":
        monkeypatch.setenv("FSMUX_TIMEOUT", "nan")
    else:
        monkeypatch.setenv("FSMUX_CONFIG", private(tmp_path / "config.toml", "timeout = nan"))
    assert call("transfer", "a", "host:") == ExitCode.USAGE
    assert "timeout" in capsys.readouterr().err


def test_a_broken_configuration_is_a_usage_error_but_help_still_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FSMUX_CONFIG", private(tmp_path / "config.toml", "nonsense = 1"))
    assert call("transfer", "a", "host:") == 2
    assert "nonsense is no option" in capsys.readouterr().err
    assert call("transfer", "--help") == 0
    assert "--streams" in capsys.readouterr().out


def test_help_says_how_many_connections_a_pipe_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("transfer", "--help") == 0
    assert "What goes through - takes one connection" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("delete = []", "delete should be true or false"),
        ("streams = []", "streams should be a whole number"),
        ("timeout = []", "timeout should be a number"),
        ("manifest = true", "manifest should be text in quotes"),
        ("durability = 1", "durability should be one of none, batch, file"),
        ("include = [[]]", "include should be a list"),
        ("verbose = true", "verbose should be a whole number"),
    ],
)
def test_each_option_knows_what_it_takes_in_a_configuration(
    line: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FSMUX_CONFIG", private(tmp_path / "config.toml", line))
    assert call("transfer", "a", "host:") == ExitCode.USAGE
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"fsmux: {tmp_path}/config.toml: {says}")


def test_one_pattern_in_a_configuration_needs_no_list(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FSMUX_CONFIG", private(tmp_path / "config.toml", 'exclude = "*.o"\nverbose = 1\ntimeout = 3'))
    assert call("transfer", "a", "host:") == 0
    assert (jobs[0].options.filters.rules, jobs[0].timeout) == ((Rule(False, "*.o"),), 3.0)


def test_what_the_job_came_to_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: list[events.Event] = []

    async def run(job: Job, observer: Observer) -> events.Summary:
        for event in failures:
            observer(event)
        return events.Summary(0, 0, 0, 0, 0, len(failures), 0, 1.0)

    monkeypatch.setattr("fsmux.job.run", run)
    assert call("transfer", "a", "host:") == 0
    failures.append(events.FileFailed("a", "NO_SPACE", "a: full", False))
    assert call("transfer", "a", "host:") == ExitCode.SPACE
    failures.append(events.FileFailed("b", "BUSY", "b: busy", True))
    assert call("transfer", "a", "host:") == ExitCode.SOME_FAILED
    assert "fsmux: a: full\nfsmux: b: busy\n" in capsys.readouterr().err


def test_a_job_that_cannot_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(job: Job, observer: Observer) -> Any:
        raise ConnectionLost("host: the connection was lost")

    monkeypatch.setattr("fsmux.job.run", run)
    assert call("transfer", "a", "host:") == ExitCode.NETWORK
    assert capsys.readouterr().err == "fsmux: host: the connection was lost\n"


def test_a_new_token_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    from fsmux.auth import Keys

    assert call("token", "new") == 0
    assert len(capsys.readouterr().out) == 33
    assert call("token", "new", "--key", "alice") == 0
    token, key = capsys.readouterr().out.splitlines()
    assert Keys.from_token("alice", token) == Keys.parse(key)


IMPORTED = """
import sys; sys.argv = {argv!r}
from fsmux.__main__ import main
sys.setprofile(lambda *_: None)  # who watches the interpreter gets to see its end
try: main()
except SystemExit: pass
"""


@pytest.mark.parametrize(
    ("args", "absent"),
    [
        (["--version"], {"typer", "rich", "trio", "google", "fsmux.cli", "dataclasses"}),
        (["--help"], {"trio", "google", "rich.live", "fsmux.cli.render", "fsmux.auth"}),
        (["token", "new"], {"trio", "rich.live"}),
        (["transfer", "--help"], {"trio", "google", "rich.live"}),
        (["transfer", "a", "fsmuxs://x"], {"rich.live"}),
    ],
)
def test_a_command_does_not_import_what_it_does_not_need(args: list[str], absent: set[str]) -> None:
    script = IMPORTED.format(argv=["fsmux", *args]) + f"print('FOUND', sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "FOUND []"


@pytest.mark.parametrize(("args", "code"), [(["--help"], 0), (["transfer", "a", "b"], ExitCode.USAGE)])
def test_what_a_command_has_said_is_written_before_it_leaves_in_haste(args: list[str], code: int) -> None:
    """The process ends without the interpreter's own end; output that is buffered for a pipe is not lost with that."""
    done = subprocess.run([sys.executable, "-m", "fsmux", *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert ("Usage: fsmux" in done.stdout) == (code == 0)
    assert ("one side must be remote" in done.stderr) == (code != 0)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["transfer", "--help"], ["token", "new"], ["demo"]])
def test_output_that_cannot_be_written_is_no_success(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fsmux", *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    said = [line for line in done.stderr.splitlines() if "space" in line or "Error" in line]
    assert said == ["fsmux: stdout: no space left on the device; free some and run it again"]
    assert done.returncode == ExitCode.SPACE


def test_the_version() -> None:
    command = [sys.executable, "-m", "fsmux", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        == f"fsmux {__version__}\n"
    )
