"""The one way out of a command: errors, signals, and the code that the shell gets."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
import trio

from fsmux.cli.run import culprit, execute, guard, report
from fsmux.errors import AccessError, ExitCode, FsmuxError, NoSpace, NotFound, StorageError


class Recorder:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ticks = 0
        self.closed = 0

    def tick(self) -> None:
        self.ticks += 1

    def say(self, text: str) -> None:
        self.said.append(text)

    def fail(self, error: FsmuxError) -> None:
        self.said.append(str(error))

    def hush(self) -> None:
        self.said.append("hush")

    def close(self) -> None:
        self.closed += 1


async def succeed() -> int:
    return 3


def test_a_command_ends_with_its_own_code() -> None:
    recorder = Recorder()
    assert execute(succeed, 0, reporter=recorder) == 3
    assert recorder.closed == 1
    assert recorder.said == []


@pytest.mark.parametrize("error", [NoSpace("disk: full"), AccessError("no"), NotFound("gone")])
def test_a_typed_error_is_one_sentence_and_its_code(error: FsmuxError, capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> int:
        raise error

    assert execute(fail, 0) == error.exit_code
    captured = capsys.readouterr()
    assert captured.err == f"fsmux: {error}\n"
    assert captured.out == ""


def test_a_bug_says_how_to_see_more_and_hides_nothing_with_vv(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> int:
        raise RuntimeError("oops\x1b")

    assert execute(fail, 1) == ExitCode.UNEXPECTED
    assert capsys.readouterr().err == "fsmux: unexpected RuntimeError: oops\\x1b; run it again with -vv to see where\n"
    assert execute(fail, 2) == ExitCode.UNEXPECTED
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_system_has_no_more_of_is_no_bug_wherever_it_comes_up(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> int:
        raise OSError(number, os.strerror(number), "some module that is imported late")

    assert execute(fail, 1) == StorageError.exit_code
    assert capsys.readouterr().err == f"fsmux: this process: {os.strerror(number).lower()}\n"


def test_groups_are_unwrapped_and_a_bug_goes_first() -> None:
    bug, known = RuntimeError("bug"), NotFound("x")
    assert culprit(ExceptionGroup("", [known, ExceptionGroup("", [bug])])) is bug
    assert culprit(ExceptionGroup("", [known])) is known


def test_the_reporter_is_ticked_while_the_command_runs() -> None:
    recorder = Recorder()

    async def wait() -> int:
        while not recorder.ticks:
            await trio.lowlevel.checkpoint()
        return 0

    assert execute(wait, 0, reporter=recorder) == 0
    assert recorder.ticks >= 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_command_save_its_state_and_names_the_way_back(number: int, code: int) -> None:
    recorder = Recorder()
    saved = []

    async def work() -> int:
        try:
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
        finally:
            saved.append(True)
        return 0

    assert execute(work, 0, reporter=recorder, resume="fsmux transfer a b") == code
    assert saved
    assert len(recorder.said) == 1
    assert "fsmux transfer a b" in recorder.said[0]
    assert signal.Signals(number).name in recorder.said[0]


def test_an_error_while_it_is_stopped_is_still_a_stop() -> None:
    async def work() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await trio.sleep_forever()
        finally:
            raise NotFound("while unwinding")

    assert execute(work, 0, reporter=Recorder()) == 143


def test_a_signal_that_comes_when_all_is_done_changes_nothing() -> None:
    async def work() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert execute(work, 0, reporter=Recorder()) == 0


def test_a_second_signal_does_not_wait() -> None:
    script = """
import os, signal, trio
from fsmux.cli.run import execute

async def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()

execute(work, 0)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 143


def test_a_reader_that_has_gone_is_no_bug() -> None:
    script = """
import sys
from fsmux.cli.run import execute

async def work():
    while True:
        print("x" * 10000, flush=True)

sys.exit(execute(work, 0))
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_blocking_commands_have_the_same_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise NotFound("here: nothing")

    assert guard(lambda: 7, 0) == 7
    assert guard(fail, 0) == ExitCode.SOURCE
    assert report(KeyboardInterrupt(), 0) == 130
    assert capsys.readouterr().err == "fsmux: here: nothing\n"
