"""Many file sessions over one connection: fast, resumable, verified.

    async with fsmux.connect("fsmux://host:9000", token=token) as client:
        await client.upload("photos", "backup")

General layout; imports go downwards only, and a test sees to it:

    cli/                                                     typer and rich, their only importers
    server  handlers  auth  greeting  │  client  job  moving  sites  lanes      what the two sides do for their users
    transfer/     sender and receiver of one file, used by both sides
    mux/          streams over one connection; the first layer with Trio, and the only one with sockets
    wire/         the protocol as values, without I/O   │  files/   the disk, blocking   │  plan/   pure decisions
    events  limits  records  urls  units
    errors

The names below are the public ones.  They are imported when they are first used, so that ``fsmux --version`` does not
pay for Trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsmux._version import __version__

if TYPE_CHECKING:
    from fsmux import errors, events
    from fsmux.auth import User, make_token, read_token_file, read_users_file
    from fsmux.client import Client, connect
    from fsmux.errors import FsmuxError
    from fsmux.events import Summary
    from fsmux.job import Job, Options
    from fsmux.plan.filters import Filters, Rule
    from fsmux.records import Attrs, Durability, Kept, Kind, Namespaces
    from fsmux.remote_file import RemoteFile
    from fsmux.server import Listening, serve
    from fsmux.wire.messages import Entry

_HOMES = {
    "Attrs": "fsmux.records",
    "Client": "fsmux.client",
    "Durability": "fsmux.records",
    "Entry": "fsmux.wire.messages",
    "Filters": "fsmux.plan.filters",
    "FsmuxError": "fsmux.errors",
    "Job": "fsmux.job",
    "Kept": "fsmux.records",
    "Kind": "fsmux.records",
    "Listening": "fsmux.server",
    "Namespaces": "fsmux.records",
    "Options": "fsmux.job",
    "RemoteFile": "fsmux.remote_file",
    "Rule": "fsmux.plan.filters",
    "Summary": "fsmux.events",
    "User": "fsmux.auth",
    "connect": "fsmux.client",
    "make_token": "fsmux.auth",
    "read_token_file": "fsmux.auth",
    "read_users_file": "fsmux.auth",
    "serve": "fsmux.server",
}

__all__ = [
    "Attrs", "Client", "Durability", "Entry", "Filters", "FsmuxError", "Job", "Kept", "Kind", "Listening",
    "Namespaces", "Options", "RemoteFile", "Rule", "Summary", "User", "__version__", "connect", "errors", "events",
    "make_token", "read_token_file", "read_users_file", "serve",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("errors", "events"):
        return import_module(f"fsmux.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fsmux' has no attribute {name!r}")
    return getattr(import_module(home), name)
