"""The Trio API of a client: one connection, and everything that can be asked for over it.

Theory: each request is a stream of its own, so any number of tasks may use one client at once.  What a method waits
for may be cancelled; the server is told at once and the connection goes on.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
from msgspec.structs import replace

from fsmux import events, job
from fsmux.auth import ClientAuth
from fsmux.errors import ConnectFailed, UsageError
from fsmux.greeting import hello, prove_to_server
from fsmux.limits import CONNECT_SECONDS, DEAD_SECONDS, MAX_FILE_SIZE, MIN_WINDOW
from fsmux.mux.connection import Connection, open_connection
from fsmux.mux.service import serving
from fsmux.mux.transport import dial_tcp, dial_unix
from fsmux.records import Attrs, Durability, Parts, printable
from fsmux.transfer.digests import DigestCache
from fsmux.transfer.disk import Disk, open_disk
from fsmux.urls import Remote, parse_remote
from fsmux.wire.messages import (
    Close,
    Entries,
    Entry,
    List,
    Mkdir,
    Ok,
    Open,
    Remove,
    Rename,
    SetAttrs,
    Stat,
    Symlink,
)
from fsmux.wire.state import Role

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from fsmux.events import Observer, Summary
    from fsmux.mux.stream import Stream
    from fsmux.remote_file import RemoteFile

MOMENT = 0.001
"""Seconds in which a server on this machine has answered a call. One that is further away leaves the time to import
what the greeting needs: as much as a round trip, and at most 20 ms."""

ASKED_AT_ONCE: Final = 1024
"""Requests of one client that are on their way at once; others wait for their turn. A server takes 16,384, and what all
else of the connection has to say finds room beside so many. At 100 ms it is 10,000 answers a second, which is more than
one client can take."""

LISTED_AHEAD: Final = MIN_WINDOW
"""Bytes of a listing that come before anybody reads them. One that is read slowly keeps so much, not a whole window,
from everything else; at 100 ms it is 10 MB/s of names."""

TREES_AT_ONCE: Final = 4
"""Trees that one client moves at once; others wait for their turn, single files do not. Each has three streams of which
nobody knows how much is still to come: their credit, a window each, has to leave some of ``RECEIVE_BUDGET`` to the
files that such a tree waits for. With 50 trees of a few MiB at once nothing was left, and none of them ended."""

FILLED_KNOWN: Final = 4096
"""Directories of this machine that a client remembers to have filled, some hundred bytes each."""


@asynccontextmanager
async def connect(
    url: str | Remote,
    *,
    token: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109  # of one phase, where a caller's scope would bound all
) -> AsyncIterator[Client]:
    """A connection to the server of ``url`` (``fsmux://HOST:PORT``, ``fsmux+unix:///SOCKET``) for the block.

    ``token`` proves who the user of the URL is.  ``timeout`` is how many seconds connecting may take, and the server be
    silent afterwards, before the connection counts as lost; without it these are ``CONNECT_SECONDS`` and
    ``DEAD_SECONDS``.  Leaving the block closes the connection; requests still under way in other tasks end with
    :class:`ConnectionLost`.

    Raises:
        UsageError, ConnectFailed, VersionMismatch, AuthError: the URL is none, nobody answers, it is not an fsmux
            server of this version, or the token is not right.
    """
    if not isinstance(url, str | Remote):
        raise UsageError(f"the URL of a server is expected, and not {printable(repr(url))[:100]}")
    if token is not None and not isinstance(token, str):
        raise UsageError("a token is a text")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"timeout: seconds above zero are expected, and not {timeout}")
    remote = parse_remote(url) if isinstance(url, str) else url
    if isinstance(url, str) and remote.path_parts:
        raise UsageError(f"{printable(url)}: a connection is to a server; say the path where something is done with it")
    async with open_disk() as disk, _dial(remote, token, timeout) as connection:
        yield Client(connection, remote, disk, lambda: _dial(remote, token, timeout))


@asynccontextmanager
async def _dial(
    remote: Remote,
    token: str | None,
    timeout: float | None,  # noqa: ASYNC109  # of one phase
) -> AsyncIterator[Connection]:
    auth = ClientAuth(remote.user, token)

    async def authenticate(connection: Connection) -> None:
        await prove_to_server(connection, auth)

    limit = CONNECT_SECONDS if timeout is None else timeout
    try:
        with trio.fail_after(limit):
            async with serving(trio.CancelScope(), partial(_get_ready, auth)):
                if remote.socket_path:
                    transport = await dial_unix(remote.socket_path)
                else:
                    transport = await dial_tcp(remote.host, remote.port)
    except trio.TooSlowError:
        raise ConnectFailed(f"{remote.server}: no answer within {limit:g} s") from None
    patience = DEAD_SECONDS if timeout is None else timeout
    opening = open_connection(transport, Role.CLIENT, hello(), authenticate, first=auth.first(), patience=patience)
    async with opening as connection:
        yield connection


async def _get_ready(auth: ClientAuth) -> None:
    """Do what takes a while and needs no server, unless one is so near that it answers first."""
    await trio.sleep(MOMENT)
    auth.get_ready()


class Client:
    """What can be asked of a server. Made by :func:`connect`.

    Paths are texts relative to what the server serves (``docs/a.txt``), or tuples of bytes for names that are no text.
    Every method raises the typed error that the server answers with, or the connection's.
    """

    def __init__(
        self,
        connection: Connection,
        remote: Remote,
        disk: Disk,
        dial: Callable[[], AbstractAsyncContextManager[Connection]],
    ) -> None:
        self.connection = connection
        self.dial = dial  # another connection to the same server, as the same user
        self.remote = remote
        self.disk = disk
        self.digests = DigestCache()
        self.trees = trio.CapacityLimiter(TREES_AT_ONCE)
        self._filled: set[str] = set()
        self._asking = trio.CapacityLimiter(ASKED_AT_ONCE)

    def first_into(self, directory: str) -> bool:
        """Whether nothing has come into a directory of this machine yet: then what others left there may be in the way.

        Of thousands of files that come at once each would look at what is unfinished of all others: half of 3,000 were
        there after a minute, and all after 14 s with this.
        """
        if len(self._filled) >= FILLED_KNOWN:
            self._filled.clear()
        first = directory not in self._filled
        self._filled.add(directory)
        return first

    async def stat(self, path: str | Parts = (), *, follow: bool = True) -> Attrs:
        """Kind, size, time and mode of what stands at ``path``; of the link itself unless ``follow``."""
        result: Attrs = await self._ask(Stat(parts_of(path), follow), Attrs)
        return result

    @asynccontextmanager
    async def list(self, path: str | Parts = (), *, recursive: bool = False) -> AsyncIterator[AsyncIterator[Entry]]:
        """The entries of a directory, streamed: ``async with client.list("docs") as entries: async for e in entries``.

        An entry's path is relative to the listed directory; one that could not be read carries a fault.
        """
        async with self.pages(path, recursive=recursive) as pages, aclosing(_entries(pages)) as entries:
            yield entries

    @asynccontextmanager
    async def pages(
        self, path: str | Parts = (), *, recursive: bool = False
    ) -> AsyncIterator[AsyncIterator[tuple[Entry, ...]]]:
        """The same, as pages of entries, the way they come."""
        opening = self.connection.open_stream(List(parts_of(path), recursive), end=True)
        async with opening as stream, aclosing(_pages(stream)) as found:
            yield found

    async def mkdir(self, path: str | Parts, *, parents: bool = False, mode: int = 0o777) -> None:
        """Make a directory; with ``parents`` those above it too, and one that exists is fine."""
        await self._ask(Mkdir(parts_of(path), parents, mode), Ok)

    async def check_write(self, directory: str | Parts = ()) -> None:
        """Raise what writing into ``directory``, which stands, would be refused with; nothing is changed."""
        await self.mkdir(directory, parents=True)

    async def rename(self, source: str | Parts, target: str | Parts, *, replace: bool = False) -> None:
        """Give something another name; what has that name is replaced only with ``replace``."""
        await self._ask(Rename(parts_of(source), parts_of(target), replace), Ok)

    async def remove(self, path: str | Parts, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty directory; with ``recursive`` all that is in it."""
        await self._ask(Remove(parts_of(path), recursive), Ok)

    async def symlink(
        self, path: str | Parts, target: bytes, attrs: Attrs | None = None, *,
        durability: Durability = Durability.BATCH,
    ) -> None:  # fmt: skip
        """Make a symbolic link, replacing a file or link that has the name."""
        await self._ask(Symlink(parts_of(path), target, attrs, durability), Ok)

    async def set_attrs(
        self, path: str | Parts, attrs: Attrs, *, durability: Durability = Durability.BATCH, found_ns: int = 0
    ) -> None:
        """Set mode and modification time; zero leaves one alone.

        What has another modification time now than ``found_ns``, if that is not 0, is left as it is: :class:`Busy`.
        """
        await self._ask(SetAttrs(parts_of(path), attrs, durability, found_ns), Ok)

    @asynccontextmanager
    async def open(
        self, path: str | Parts, *, write: bool = False, create: bool = False, truncate: bool = False
    ) -> AsyncIterator[RemoteFile]:
        """Random access to a file, for the block. Writes go to the file itself, in place.

        ``create`` makes it if it is missing, and ``truncate`` empties it first; each of them implies ``write``.

        Raises:
            NotFound, AccessError, ...: what the server answers with, on opening it or in a call later.
        """
        from fsmux.remote_file import RemoteFile  # which most who connect have no use for

        async with self.connection.open_stream(Open(parts_of(path), write, create, truncate)) as stream:
            attrs = await stream.expect_message(Attrs)
            file = RemoteFile(stream, attrs.size)
            yield file
            if not (stream.local_ended or stream.remote_ended):  # an error that the block has dealt with ended it, too
                await stream.send(Close(False))
                await stream.expect_message(Ok)

    async def download(
        self,
        path: str | Parts,
        destination: str | os.PathLike[str],
        *,
        observer: Observer = events.ignore,
        **options: Any,
    ) -> Summary:
        """Copy a file or a whole directory from the server, resuming what an earlier attempt left.

        ``options`` are fields of :class:`fsmux.job.Options`.  ``docs/`` means what is in ``docs``.  Single files that
        fail are reported to ``observer`` and counted in the summary's ``failed``; they do not stop the others, and if
        the only file fails, that is so as well.  Of several trees at once some wait for others
        (``TREES_AT_ONCE``).  ``observer`` hears of small files of a tree by the dozen
        (:class:`fsmux.events.FilesDone` and the like, of which ``each()`` has single events).

        It is one attempt.  Cancelled or cut off, it keeps what has arrived, and the same call goes on from there.

        Raises:
            UsageError: an option or a path that cannot be.
            NotFound, AccessError, ...: a tree cannot be had, or not be made.
            ConnectionLost, PeerShutdown: the connection ended.
        """
        return await job.download(self, self._place(path), destination, job.Options(**options), observer)

    async def upload(
        self, source: str | os.PathLike[str], path: str | Parts, *, observer: Observer = events.ignore, **options: Any
    ) -> Summary:
        """Copy a file or a whole directory to the server; otherwise like :meth:`download`."""
        return await job.upload(self, source, self._place(path), job.Options(**options), observer)

    def _place(self, path: str | Parts) -> Remote:
        place = self.remote.server.join(parts_of(path))
        return replace(place, trailing_slash=True) if isinstance(path, str) and path.endswith("/") else place

    @contextmanager
    def limited(self, rate: int | None) -> Iterator[None]:
        """Move at most ``rate`` bytes per second each way while the block runs; None: no limit.

        It holds for everything that is done over this client meanwhile; of several limits the latest counts.
        """
        if rate is None:
            yield
            return
        if not 0 < rate <= MAX_FILE_SIZE:
            raise UsageError(f"rate: 1 to {MAX_FILE_SIZE} bytes per second are expected, and not {rate}")
        self.connection.limit_receiving(rate)
        self.connection.limit_sending(rate)
        try:
            yield
        finally:
            self.connection.limit_receiving(None)
            self.connection.limit_sending(None)

    async def _ask(self, request: Any, answer: type[Any]) -> Any:
        async with self._asking, self.connection.open_stream(request, end=True) as stream:
            return await stream.expect_message(answer)


async def _pages(stream: Stream) -> AsyncGenerator[tuple[Entry, ...], None]:
    stream.expect(LISTED_AHEAD)
    while not isinstance(page := await stream.expect_message(Entries, Ok), Ok):
        stream.expect(LISTED_AHEAD)
        yield page.entries


async def _entries(pages: AsyncIterator[tuple[Entry, ...]]) -> AsyncGenerator[Entry, None]:
    async for page in pages:
        for entry in page:
            yield entry


def parts_of(path: str | Parts) -> Parts:
    """A path as components; leading and double slashes and ``.`` vanish. Raises :class:`UsageError`."""
    if isinstance(path, tuple) and all(isinstance(part, bytes) for part in path):
        return path
    if not isinstance(path, str):
        shown = printable(repr(path))[:100]
        raise UsageError(f"a path at the server is a text, or a tuple of bytes by component, and not {shown}")
    return tuple(part for part in path.encode("utf-8", "surrogateescape").split(b"/") if part not in (b"", b"."))
