"""A server: listeners, and for each connection its greeting, its streams and its end.

The nursery tree, outermost first: connections, each with a nursery of its own for its streams; inside of them the
listeners, which are cancelled first when the server stops.  Nothing of it is stored or returned.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from fsmux import events
from fsmux.auth import ServerAuth, User, check_token, single_user
from fsmux.context import Context, StateKeeper
from fsmux.errors import OUT_OF_RESOURCES, FsmuxError, RefusedError, UsageError
from fsmux.files.root import Root
from fsmux.greeting import hello, prove_to_client
from fsmux.handlers import dispatch
from fsmux.mux.connection import Connection, open_connection
from fsmux.mux.transport import accepted
from fsmux.records import Durability
from fsmux.transfer.attempts import Attempts
from fsmux.transfer.desk import Desk
from fsmux.transfer.digests import DigestCache
from fsmux.transfer.disk import Disk, open_disk
from fsmux.transfer.growths import Growths
from fsmux.urls import Listen, check_listen, parse_listen
from fsmux.wire.state import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from fsmux.events import Observer

logger = logging.getLogger("fsmux.server")

MAX_CONNECTIONS = 1024
"""Connections at once. More are closed as they come, well before descriptors run out."""

MAX_STRANGERS = 256
"""Connections at once that have not said who they are. With one more the oldest of them is closed, so that no crowd
that says nothing keeps others out: whoever knows the token has said so within a round trip or two."""

SHORT_SECONDS = 0.1
"""Seconds until the system is asked again that has no room for one more connection."""

BACKLOG = 512
"""Connections that the kernel may hold before they are accepted."""


class Listening(Struct, frozen=True):
    """Where a server accepts connections: texts that ``fsmux`` takes after ``fsmux://``, or ``unix:PATH``."""

    addresses: tuple[str, ...]


async def serve(
    root: str | os.PathLike[str],
    *,
    listen: str = "127.0.0.1:9000",
    token: str | None = None,
    users: Mapping[str, User] | None = None,
    write: bool = False,
    plaintext: bool = False,
    durability: Durability = Durability.BATCH,
    observer: Observer = events.ignore,
    task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the directory ``root`` until cancelled; ``task_status.started`` gets a :class:`Listening`.

    Whoever proves to know ``token`` is served, or whoever is in ``users``; with neither, everybody who can connect is.
    Writing is refused unless ``write``, and listening beyond this machine unless ``plaintext``.  Cancellation ends open
    transfers; what they received is kept for resuming.

    Raises:
        UsageError: ``listen`` is no address, or it cannot or must not be listened on.
        NotFound, NotADirectory, AccessError: ``root`` is not a directory that can be opened.
    """
    if token is not None and users is not None:
        raise UsageError("give a server a token or users, not both")
    if token is not None:
        check_token(token, "token")
    if not isinstance(durability, Durability):
        raise UsageError("durability: Durability.NONE, Durability.BATCH or Durability.FILE is expected")
    address = parse_listen(listen)
    check_listen(address, plaintext=plaintext)
    if users is not None and not users:
        raise UsageError("a server with an empty set of users would let nobody in; leave users out to let everybody in")
    known = single_user(token) if token is not None else dict(users or {})
    server = _Server(ServerAuth(known), write, durability, observer)
    with contextlib.ExitStack() as roots:
        server.root = roots.enter_context(Root.open(root))
        server.roots = {
            user.root: roots.enter_context(Root.open(user.root)) for user in known.values() if user.root is not None
        }
        async with open_disk() as disk, _listening(address) as listeners:
            server.disk = disk
            async with trio.open_nursery() as connections:
                for listener in listeners:
                    connections.start_soon(server.accept_from, listener, connections)
                task_status.started(Listening(tuple(map(_address_of, listeners))))


class _Server:
    root: Root
    roots: Mapping[str, Root]
    disk: Disk

    def __init__(self, auth: ServerAuth, write: bool, durability: Durability, observer: Observer) -> None:
        self._auth = auth
        self._write = write
        self._durability = durability
        self._observer = observer
        self._digests = DigestCache()
        self._desk = Desk()
        self._attempts = Attempts()
        self._growths = Growths()
        self._connections = 0
        self._strangers: OrderedDict[trio.CancelScope, None] = OrderedDict()

    async def accept_from(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        short = False
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in OUT_OF_RESOURCES:
                    raise
                if not short:  # once, and not as often as somebody knocks
                    self._observer(events.Warned("", f"nobody else can come in: {(exc.strerror or '').lower()}"))
                short = True
                await trio.sleep(SHORT_SECONDS)
            else:
                short = False
                connections.start_soon(self._serve_connection, stream)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        transport = accepted(stream)
        peer, started, reason, user = transport.peer, time.monotonic(), "", ""
        self._observer(events.ConnectionOpened(peer))
        self._connections += 1
        try:
            if self._connections > MAX_CONNECTIONS:
                await transport.aclose()
                raise RefusedError(f"this server takes {MAX_CONNECTIONS} connections at once")
            mechanisms = self._auth.mechanisms
            greeting = hello(mechanisms, read_only=not self._write)
            handshake = self._authenticate if mechanisms else None
            with self._stranger() as known:
                async with open_connection(transport, Role.SERVER, greeting, handshake) as connection:
                    known()
                    user = connection.user.name if connection.user else ""
                    self._observer(events.Authenticated(peer, user))
                    await self._serve_streams(connection)
                    if connection.failure is not None and not connection.orderly:
                        reason = str(connection.failure)
        except FsmuxError as exc:
            reason = str(exc)
        except Exception as exc:  # a bug ends its own connection and not the server
            logger.exception("a connection failed unexpectedly (%s)", peer)
            reason = f"the connection failed unexpectedly: {exc!r}"
        finally:
            self._connections -= 1
            self._observer(events.ConnectionClosed(peer, user, time.monotonic() - started, reason))

    @contextlib.contextmanager
    def _stranger(self) -> Iterator[Callable[[], None]]:
        """A connection that has yet to say who it is: if there are many of them, the oldest has to go.

        Raises:
            RefusedError: this one had to.
        """
        with trio.CancelScope() as scope:
            self._strangers[scope] = None
            if len(self._strangers) > MAX_STRANGERS:
                oldest, _ = self._strangers.popitem(last=False)
                oldest.cancel()
            try:
                yield lambda: self._strangers.pop(scope, None)
            finally:
                self._strangers.pop(scope, None)
        if scope.cancelled_caught:
            raise RefusedError("it did not say who it is while others wanted to come in")

    async def _authenticate(self, connection: Connection) -> User:
        return await prove_to_client(connection, self._auth)

    def _refusal(self, user: User | None) -> str | None:
        """Why a user may not write, to be said behind that he may not; None if he may."""
        if not self._write:
            return "; it is read-only unless started with --write"
        return ": its users file lets this user read only" if user is not None and user.read_only else None

    async def _serve_streams(self, connection: Connection) -> None:
        user: User | None = connection.user
        root = self.roots[user.root] if user is not None and user.root is not None else self.root
        kept = StateKeeper(root)
        context = Context(
            root=root,
            disk=self.disk,
            digests=self._digests,
            owner=b"user " + user.name.encode() if user is not None else b"anybody",
            refusal=self._refusal(user),
            durability=self._durability,
            peer=connection.transport.peer,
            observer=self._observer,
            kept=kept,
            desk=self._desk,
            attempts=self._attempts,
            growths=self._growths,
        )
        try:
            async with trio.open_nursery() as streams:
                while (stream := await connection.accept()) is not None:
                    streams.start_soon(dispatch, stream, context)
        finally:
            with trio.CancelScope(shield=True):  # one rmdir
                await self.disk.meta(kept.release)


@contextlib.asynccontextmanager
async def _listening(address: Listen) -> AsyncIterator[list[trio.SocketListener]]:
    """Listeners for the block. A Unix socket that nobody serves any more is replaced; it is removed at the end."""
    try:
        listeners = [_listen_unix(address.socket_path)] if address.socket_path else await _listen_tcp(address)
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise UsageError(f"cannot listen on {address}: {reason}; choose another address with --listen") from exc
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()
        if address.socket_path:
            with contextlib.suppress(OSError):
                os.unlink(address.socket_path)


async def _listen_tcp(address: Listen) -> list[trio.SocketListener]:
    return await trio.open_tcp_listeners(address.port, host=address.host, backlog=BACKLOG)


def _listen_unix(path: str) -> trio.SocketListener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError:
            if not _stale(path):
                raise
            os.unlink(path)
            sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _stale(path: str) -> bool:
    """Whether ``path`` is a socket that nobody listens on."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _address_of(listener: trio.SocketListener) -> str:
    name = listener.socket.getsockname()
    if isinstance(name, tuple):
        return str(Listen(name[0], name[1]))
    return f"unix:{os.fsdecode(name)}"
