"""The entry of the command, which answers what is asked most often before it imports anything."""

from __future__ import annotations

import sys


def main() -> None:
    args = sys.argv[1:]
    if args == ["--version"]:
        from fsmux._version import __version__

        print(f"fsmux {__version__}")
        return
    from fsmux.cli.app import main as run

    run(args)


if __name__ == "__main__":
    main()
