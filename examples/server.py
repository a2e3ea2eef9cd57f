"""A server in a program of your own, and what it reports: ``python examples/server.py /srv/files``."""

import sys
from functools import partial

import trio

import fsmux


async def main(root: str) -> None:
    token = fsmux.make_token()
    serve = partial(fsmux.serve, root, listen="127.0.0.1:0", token=token, write=True, observer=print)
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(serve)
        print(f"FSMUX_TOKEN={token} fsmux ls fsmux://{listening.addresses[0]}/", flush=True)


trio.run(main, *sys.argv[1:])
