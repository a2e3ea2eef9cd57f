"""Download a file or a directory, with progress: ``python examples/download.py fsmux://localhost photos backup``."""

import os
import sys

import trio

import fsmux


def show(event: fsmux.events.Event) -> None:
    if isinstance(event, fsmux.events.FilesDone):  # small files come together
        print(*event.each(), sep="\n")
    elif isinstance(event, fsmux.events.FileDone | fsmux.events.FileFailed):
        print(event)


async def main(url: str, path: str, destination: str) -> None:
    async with fsmux.connect(url, token=os.environ.get("FSMUX_TOKEN")) as client:
        summary = await client.download(path, destination, observer=show)
    print(f"{summary.files} files, {summary.skipped} up to date, {summary.failed} failed")


trio.run(main, *sys.argv[1:])
