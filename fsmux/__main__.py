"""The entry of the command, which answers what is asked most often before it imports anything."""

from __future__ import annotations

import gc
import os
import sys

INTERRUPTED = 130


def main() -> None:
    try:
        _main()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def _main() -> None:
    try:
        _run(sys.argv[1:])
    except SystemExit as leaving:
        _leave(leaving.code)
        raise
    except OSError as error:
        sys.exit(_unwritable(error))
    finally:
        gc.freeze()  # the interpreter's end would look for cycles among all that is about to go: 0.03 s (measured)


def _run(args: list[str]) -> None:
    """Run a command line; leaves by SystemExit."""
    if args == ["--version"]:
        from fsmux._version import __version__

        print(f"fsmux {__version__}")
        sys.exit(0)
    _leave_at_once_if_interrupted()
    _fill_closed_streams()
    from fsmux.limits import GC_STARTING

    gc.set_threshold(GC_STARTING)
    from fsmux.cli.app import main as run
    from fsmux.cli.run import secure_stderr

    secure_stderr()
    run(args)


def _leave_at_once_if_interrupted() -> None:
    """Until a command begins (:func:`fsmux.cli.run.guard`): nothing has been done, so there is nothing to say either.

    An exception would not do: what is called back in the middle of an import can only print it.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not if it is ignored, as behind nohup
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def _fill_closed_streams() -> None:
    """Have something behind standard streams that were closed (``2>&-``), and their numbers taken.

    Otherwise the next files to be opened would have these numbers, and whoever writes to stderr would write into them.
    ``sys.__stdin__`` and the like still say that there is none.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            nothing = open(os.open(os.devnull, os.O_RDWR), mode, closefd=False)  # noqa: SIM115  # to the very end
            setattr(sys, name, nothing)


def _leave(code: object) -> None:
    """End the process here, and leave its memory to the kernel: taking all objects apart takes 5 ms (measured).

    Returns if there is more to be done than that: an exit code that is a text, streams that are closed, or somebody who
    watches the interpreter and has his say at its end.
    """
    if isinstance(code, int) and sys.getprofile() is None and sys.gettrace() is None:
        try:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        except OSError as error:
            code = _unwritable(error)
        except ValueError:
            return
        os._exit(code)


def _unwritable(error: OSError) -> int:
    """Say that output cannot be written, or whatever else nobody else has; the exit code for it."""
    from fsmux.cli.run import report, secure_stderr

    secure_stderr()
    return report(error, 0)


if __name__ == "__main__":
    main()
