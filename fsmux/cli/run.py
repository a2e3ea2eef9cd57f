"""From a coroutine to an exit code: signals, errors, and the thread that draws.

Theory: there is one way out of a command.  Whatever happens inside is an int (the command knows its exit code), a
:class:`FsmuxError` (one sentence, the code of its class), a signal (130 or 143, after everything inside has had its
chance to save its state), or a bug (1, and how to see more).  A second signal does not wait: what is on the disk then
is what a power cut would have left, which a later run can go on from as well.
"""

from __future__ import annotations

import errno
import gc
import io
import math
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from fsmux.cli.wording import DEBUG, NORMAL
from fsmux.errors import OUT_OF_RESOURCES, ExitCode, FsmuxError, from_os_error
from fsmux.importing import without_parts
from fsmux.limits import GC_RUNNING, GC_STARTING, SWITCH_SECONDS
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from _typeshed import ReadableBuffer

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

TICK_SECONDS: Final = 0.2
"""Between two drawings: smooth enough for a bar, and a few ms of drawing each cost the transfer little."""

ECHO_SECONDS: Final = 0.5
"""For so long the same signal counts as the first one: ``timeout`` and service managers send it to a process and, at
once, to its group; nobody presses a key twice as fast."""

UNFINISHED: Final = -1

PIPE_CLOSED: Final = 128 + signal.SIGPIPE
"""What a shell sees of a program whose reader has gone (``fsmux ls … | head``)."""


class Reporter(Protocol):
    """Whoever shows what goes on.  None of it but ``tick`` and ``close`` may block."""

    def tick(self) -> None:
        """Write what is queued, draw what is shown."""

    def say(self, text: str) -> None:
        """Queue a line for stderr."""

    def fail(self, error: FsmuxError) -> None:
        """The whole ended with ``error``."""

    def hush(self) -> None:
        """Whoever was to read the output has gone: no more words."""

    def close(self) -> None:
        """The last words."""


_CANNOT_TAKE: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
"""What a disk says.  Of files that are read and written it comes as a typed error, or with their name."""


class Stderr(io.TextIOWrapper):
    """stderr as logs and displays need it: what cannot be written there is dropped and counted, and ends nothing.

    Whatever was asked for is on stdout, and whoever cannot have that is told so.
    """

    def __init__(self, number: int, encoding: str) -> None:
        self._file = _Dropping(number, "w", closefd=False)
        super().__init__(io.BufferedWriter(self._file), encoding, "backslashreplace", line_buffering=True)

    @property
    def lost(self) -> int:
        """Lines that were dropped."""
        return self._file.lost


class _Dropping(io.FileIO):
    lost = 0
    _torn = False
    """Whether a line stands there without its end, because a disk had no room for that."""

    _inside = False

    def write(self, data: ReadableBuffer) -> int:
        content = bytes(data)
        try:
            if self._torn:
                super().write(b"\n")
                self._torn = self._inside = False
            written: int | None = super().write(content)
        except OSError:
            written = None
        if written is None:  # as it also is if nobody reads, and whoever shares the pipe has made it not wait
            self.lost += content.count(b"\n")
            self._torn = self._inside
            return len(content)
        self._inside = not content[:written].endswith(b"\n")
        return written


def secure_stderr() -> None:
    """Have a :class:`Stderr` where the interpreter's own one is."""
    if (given := sys.__stderr__) is not None and sys.stderr is given:
        sys.stderr = Stderr(given.fileno(), given.encoding)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors themselves, without the groups that nurseries put around them."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def culprit(error: BaseException) -> BaseException:
    """The one to be reported: a bug before anything else, so that it is not hidden by what it caused."""
    found = list(leaves(error))
    return next((leaf for leaf in found if not isinstance(leaf, FsmuxError)), found[0])


def report(error: BaseException, verbosity: int, reporter: Reporter | None = None, *, json: bool = False) -> int:
    """Say what went wrong, on stderr (and as JSON, if the reporter does that), and return the exit code.

    ``json``: there is no reporter yet, and it would.
    """
    leaf = culprit(error)
    if verbosity >= DEBUG:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(leaf, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(leaf, BrokenPipeError):
        _give_up_stdout(reporter)
        return PIPE_CLOSED
    if isinstance(leaf, OSError) and leaf.errno in _CANNOT_TAKE and leaf.filename is None:
        _give_up_stdout(reporter)
        leaf = from_os_error(leaf, "stdout")
    if isinstance(leaf, OSError) and leaf.errno in OUT_OF_RESOURCES:  # which may come up anywhere, an import included
        leaf = from_os_error(leaf, "this process")
    if not isinstance(leaf, FsmuxError):
        hint = "" if verbosity >= DEBUG else "; run it again with -vv to see where"
        wrapped = FsmuxError(f"unexpected {type(leaf).__name__}: {leaf}{hint}")
        return _say(wrapped, ExitCode.UNEXPECTED, reporter, json)
    return _say(leaf, leaf.exit_code, reporter, json)


def _give_up_stdout(reporter: Reporter | None) -> None:
    """Nothing more is written there; the interpreter would complain once more while it closes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if reporter is not None:
        reporter.hush()


def _say(error: FsmuxError, code: int, reporter: Reporter | None, json: bool) -> int:
    if reporter is not None:
        reporter.fail(error)
        return int(code)
    print(f"fsmux: {printable(str(error))}", file=sys.stderr)
    if json:
        from fsmux.cli.wording import error_object, json_line

        try:
            print(json_line(error_object(error.code.name, "", str(error), error.retryable)), flush=True)
        except OSError:  # it was said on stderr, and nobody reads this
            _give_up_stdout(None)
    return int(code)


def guard(command: Callable[[], int], verbosity: int, *, json: bool = False, blocking: bool = False) -> int:
    """Run a command.  With ``json`` what fails before it shows anything is an object on stdout, too.

    One that is ``blocking`` and does not come to :func:`execute` may be interrupted by an exception.
    """
    if blocking and has_process() and callable(signal.getsignal(signal.SIGINT)):  # see fsmux.__main__
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return command()
    except (Exception, KeyboardInterrupt) as error:
        return report(error, verbosity, json=json)


def has_process() -> bool:
    """Whether the process is this command's own: see :mod:`fsmux.__main__`."""
    return gc.get_threshold()[0] == GC_STARTING


def load_trio() -> None:
    """Import Trio without what it has for TLS, which nothing here uses: 7 % of a start (measured).

    To be called before anything that imports it.
    """
    if has_process():
        without_parts("trio", "trio._ssl", "trio._dtls", "trio._highlevel_ssl_helpers")


def settle() -> None:
    """Set the interpreter for what is to come: what has been imported stays, so no search for cycles shall look at it
    again, and threads that work side by side take turns.  And have as many descriptors as the process may: what limits
    it before is meant for programs that cannot have more than 1,024.
    """
    if has_process():
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        gc.freeze()
        gc.set_threshold(GC_RUNNING)
        sys.setswitchinterval(SWITCH_SECONDS)


def execute(
    command: Callable[[], Awaitable[int]],
    verbosity: int,
    *,
    reporter: Reporter | None = None,
    resume: str = "",
    json: bool = False,
) -> int:
    """Run an async command in a Trio loop of its own and return the exit code.

    ``reporter`` is ticked while it runs and closed at the end.  ``resume`` says how to go on after a signal.  ``json``
    is that of :func:`report`.
    """
    load_trio()
    import trio

    caught: list[signal.Signals] = []
    ended = False
    scope = trio.CancelScope()

    def early(number: int, frame: object) -> None:
        # Before anybody listens nothing has been done.  An exception could come up in the midst of an import, which not
        # all modules survive, and one that comes when all is done is handed out again by Trio as it stops listening.
        if not ended:
            os._exit(128 + number)

    async def watch(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            first = -math.inf
            async for number in signals:
                if caught == [number] and trio.current_time() - first < ECHO_SECONDS:
                    continue
                if caught:
                    os._exit(128 + number)
                first = trio.current_time()
                caught.append(signal.Signals(number))
                scope.cancel()

    async def main() -> int:
        nonlocal ended
        code = UNFINISHED
        async with trio.open_nursery() as outer:
            await outer.start(watch)  # outside of the scope, so that a second signal is heard while it unwinds
            try:
                with scope:
                    async with trio.open_nursery() as inner:
                        if reporter is not None:
                            inner.start_soon(draw, reporter)
                        code = await command()
                        inner.cancel_scope.cancel()
            finally:
                ended = True
            outer.cancel_scope.cancel()
        return code

    for number in SIGNALS if has_process() else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, early)
    settle()
    try:
        code = trio.run(main)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        code = UNFINISHED if caught else report(error, verbosity, reporter, json=json)
    ended = False
    if caught and code == UNFINISHED:  # and not a signal that came when all was done
        code = 128 + caught[0]
        if resume or verbosity >= NORMAL:
            _say_interrupted(caught[0], resume, reporter)
    if reporter is not None:
        try:
            reporter.close()
        except OSError as error:
            return report(error, verbosity)
    return code


def _say_interrupted(number: signal.Signals, resume: str, reporter: Reporter | None) -> None:
    text = f"fsmux: stopped by {number.name}"
    if resume:
        text += f"; {resume}"
    if reporter is None:
        print(text, file=sys.stderr)
    else:
        reporter.say(text)


async def draw(reporter: Reporter) -> None:
    """Tick for ever, in a thread, because a terminal may block; a tick that blocks is left behind on the way out."""
    import trio

    while True:
        await trio.sleep(TICK_SECONDS)
        await trio.to_thread.run_sync(reporter.tick, abandon_on_cancel=True)
