"""Upload several directories at once over one connection: ``python examples/upload.py fsmux://localhost a b c``."""

import os
import sys

import trio

import fsmux


async def main(url: str, *sources: str) -> None:
    async with fsmux.connect(url, token=os.environ.get("FSMUX_TOKEN")) as client, trio.open_nursery() as nursery:
        for source in sources:
            nursery.start_soon(upload, client, source)


async def upload(client: fsmux.Client, source: str) -> None:
    summary = await client.upload(source, "/", chunk_size=1024 * 1024)
    print(f"{source}: {summary.files} files, {summary.bytes_sent} bytes sent, {summary.failed} failed")


trio.run(main, *sys.argv[1:])
