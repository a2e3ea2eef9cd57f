"""List a tree and read the first bytes of its files: ``python examples/list.py fsmux://localhost photos``."""

import os
import sys

import trio

import fsmux


async def main(url: str, path: str) -> None:
    async with (
        fsmux.connect(url, token=os.environ.get("FSMUX_TOKEN")) as client,
        client.list(path, recursive=True) as entries,
    ):
        async for entry in entries:
            name = b"/".join(entry.path).decode(errors="replace")
            if entry.attrs is not None and entry.attrs.kind is fsmux.Kind.FILE:
                async with client.open(f"{path}/{name}") as file:
                    print(name, entry.attrs.size, await file.pread(8, 0))


trio.run(main, *sys.argv[1:])
