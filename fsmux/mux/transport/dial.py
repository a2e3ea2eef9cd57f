"""Sockets that are connected: by dialling, or by a listener."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import trio

from fsmux.errors import ConnectFailed
from fsmux.mux.transport.sockets import SocketTransport

if TYPE_CHECKING:
    from fsmux.mux.transport.base import Transport


async def dial_tcp(host: str, port: int) -> Transport:
    """Connect to ``host:port``, trying all its addresses.

    However long that takes: it is for the caller to bound it.

    Raises:
        ConnectFailed: nobody answered, the name is unknown, or the port is closed.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as exc:
        raise ConnectFailed(f"{where}: cannot connect: {_reason(exc)}") from exc
    return SocketTransport(_detach(stream.socket), where)


def _reason(error: BaseException) -> str:
    """The operating system's words for why a connection could not be made, out of what Trio wraps around them."""
    while True:
        inner = error.__cause__
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        if inner is None:
            break
        error = inner
    if isinstance(error, socket.gaierror):
        return "the host name is unknown"
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return "connection refused; is a server running there? (fsmux serve)"
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else str(error)


async def dial_unix(path: str) -> Transport:
    """Connect to the Unix-domain socket at ``path``, like :func:`dial_tcp`. Raises :class:`ConnectFailed`."""
    try:
        stream = await trio.open_unix_socket(path)
    except (OSError, RuntimeError) as exc:
        raise ConnectFailed(f"{path}: cannot connect: {_reason(exc)}") from exc
    return SocketTransport(_detach(stream.socket), f"unix:{path}")


def _detach(sock: trio.socket.SocketType) -> socket.socket:
    """The plain socket behind Trio's: its wrapper checkpoints on every call and sets a small send buffer mark."""
    return socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())


def accepted(stream: trio.SocketStream) -> SocketTransport:
    """The transport of a connection that a :class:`trio.SocketListener` accepted."""
    sock = _detach(stream.socket)
    return SocketTransport(sock, _peer_name(sock))


def _peer_name(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return "unknown"
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"
