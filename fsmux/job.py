"""A whole transfer as a caller says it: several sources to one destination, and how.

What is done about it is in :mod:`fsmux.moving`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsmux.errors import UsageError
from fsmux.limits import CHUNK_SIZE, CONNECT_SECONDS
from fsmux.moving.transfer import Transfer
from fsmux.plan.filters import Filters
from fsmux.records import Durability, Parts
from fsmux.urls import Local, Remote

if TYPE_CHECKING:
    from fsmux.client import Client
    from fsmux.events import Observer, Summary

STREAMS = 16
"""Files on their way at once. Enough to hide a round trip per file, few enough that each moves at a useful rate."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to transfer. ``chunk_size`` in bytes; ``filters`` decide which names take part.

    ``streams`` files are on their way at once, over so many ``connections`` to the server; a big file goes over all of
    them. ``bwlimit`` is the most bytes of files per second that may travel, over all streams together.
    """

    streams: int = STREAMS
    connections: int = 1
    chunk_size: int = CHUNK_SIZE
    resume: bool = True
    durability: Durability = Durability.BATCH
    dry_run: bool = False
    filters: Filters = field(default_factory=Filters)
    bwlimit: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A transfer as a command line says it: sources and destination, exactly one side of them remote."""

    sources: tuple[Local | Remote, ...]
    destination: Local | Remote
    token: str | None = None
    timeout: float = CONNECT_SECONDS
    options: Options = field(default_factory=Options)


async def run(job: Job, observer: Observer) -> Summary:
    """Connect, transfer, and return what it came to; events go to ``observer`` on the way.

    Raises:
        UsageError: the sides do not fit together.
        FsmuxError: the whole cannot go on (no connection, a source that is missing, a destination that cannot be).
            What single files failed with is reported by events only.
    """
    from fsmux.client import connect

    remotes = [place for place in (*job.sources, job.destination) if isinstance(place, Remote)]
    if not remotes:
        raise UsageError("one side must be remote: write HOST:PATH or fsmux://HOST/PATH for it")
    downloading = not isinstance(job.destination, Remote)
    if len(remotes) != (len(job.sources) if downloading else 1):
        raise UsageError("sources must be all on this machine or all on one server, and the other side opposite")
    if len({remote.server for remote in remotes}) > 1:
        raise UsageError("all sources must be on the same server; transfer them one server after the other")
    async with connect(remotes[0], token=job.token, timeout=job.timeout) as client:
        return await Transfer(client, job.options, observer).run(job.sources, job.destination)


async def download(
    client: Client, path: Parts, destination: str | os.PathLike[str], options: Options, observer: Observer
) -> Summary:
    """For :meth:`Client.download`."""
    source = client.remote.server.join(path)
    return await Transfer(client, options, observer).run((source,), _local(destination))


async def upload(
    client: Client, source: str | os.PathLike[str], path: Parts, options: Options, observer: Observer
) -> Summary:
    """For :meth:`Client.upload`."""
    destination = client.remote.server.join(path)
    return await Transfer(client, options, observer).run((_local(source),), destination)


def _local(path: str | os.PathLike[str]) -> Local:
    text = os.fspath(path)
    return Local(text.rstrip("/") or "/", text.endswith("/"))
