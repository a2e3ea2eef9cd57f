"""What a person may write where a file is to be named: a remote, a local path, or ``-``.

Theory: one rule decides what an argument is, and it looks at the text alone, never at the disk, so that a command
means the same in every directory.

* ``-`` is stdin or stdout.
* ``SCHEME://…`` is a URL.  In a URL, and only there, ``%XX`` stands for one byte, in the path as well as in the user
  and the socket, so that every name a disk can hold can be written; ``?`` and ``#`` mean themselves.
* A colon before the first slash makes the short form ``[USER@]HOST:PATH``, whose path is taken as it stands.
* Everything else is local; ``./a:b`` is how a local name with a colon is written.

Remote paths are relative to what the server serves, so a leading slash changes nothing; empty and ``.`` components
vanish, and ``..`` is refused rather than guessed about.  ``str()`` of any of these objects gives text that parses to
an equal object.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from fsmux.errors import UsageError
from fsmux.limits import MAX_NAME, MAX_PATH_BYTES, MAX_PATH_PARTS
from fsmux.records import printable

if TYPE_CHECKING:
    from fsmux.records import Parts

NAMELESS: Final = "an empty argument names no file; write . for the current directory"

DEFAULT_PORT: Final = 9000
TCP: Final = "fsmux"
TLS: Final = "fsmuxs"
UNIX: Final = "fsmux+unix"

MAX_SOCKET_PATH: Final = 107
"""Bytes of the path of a Unix socket: sun_path without its terminator."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SHORT = re.compile(r"((?:[^/@:\[\]]*@)?(?:\[[^\]/]*\]|[^/:\[\]@]*)):(.*)", re.DOTALL)
_HOST = re.compile(r"[^\W_](?:[\w.-]*[^\W_])?\.?")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$'()*,;=+")


class Remote(Struct, frozen=True):
    """A path on a server.  ``host`` and ``port`` are used by ``fsmux://``, ``socket_path`` by ``fsmux+unix://``."""

    scheme: str = TCP
    user: str = ""
    host: str = ""
    port: int = DEFAULT_PORT
    socket_path: str = ""
    path_parts: Parts = ()
    trailing_slash: bool = False

    @property
    def is_contents(self) -> bool:
        """Whether, as a source, it means what is inside the directory, and not the directory by its name."""
        return self.trailing_slash or not self.path_parts

    @property
    def server(self) -> Remote:
        """The same server and user, without a path: equal for two remotes that one connection can serve."""
        return replace(self, path_parts=(), trailing_slash=False)

    def join(self, parts: Parts) -> Remote:
        return replace(self, path_parts=self.path_parts + parts, trailing_slash=False)

    def __str__(self) -> str:
        user = f"{_quote(os.fsencode(self.user))}@" if self.user else ""
        path = "/".join(map(_quote, self.path_parts)) + ("/" if self.trailing_slash and self.path_parts else "")
        if self.scheme == UNIX:
            socket = "/".join(_quote(part) for part in os.fsencode(self.socket_path).split(b"/"))
            return f"{UNIX}://{user}{socket}:/{path}"
        host = f"[{self.host.replace('%', '%25', 1)}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"{self.scheme}://{user}{host}{port}/{path}"


class Local(Struct, frozen=True):
    """A path on this machine, as it was written but for slashes at its end."""

    path: str
    trailing_slash: bool = False

    @property
    def is_contents(self) -> bool:
        """As for :class:`Remote`; ``.``, ``..`` and ``/`` have no name that could be copied."""
        return self.trailing_slash or self.path.rpartition("/")[2] in ("", ".", "..")

    def __str__(self) -> str:
        slash = "/" if self.trailing_slash and not self.path.endswith("/") else ""
        explicit = "./" if self.path == "-" or _looks_remote(self.path) else ""
        return f"{explicit}{self.path}{slash}"


class Stdio(Struct, frozen=True):
    """Standard input as a source, standard output as a destination."""

    def __str__(self) -> str:
        return "-"


Endpoint: TypeAlias = Remote | Local | Stdio


class Listen(Struct, frozen=True):
    """Where a server accepts connections: a host and port (0 picks one), or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    socket_path: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect.  A host name other than ``localhost`` counts as reachable."""
        if self.socket_path or self.host.lower() == "localhost":
            return True
        import ipaddress

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.socket_path:
            return f"unix:{self.socket_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Endpoint:
    """What ``text`` names.  Raises :class:`UsageError`, whose sentence says what to write instead."""
    if text == "-":
        return Stdio()
    if not text:
        raise UsageError(NAMELESS)
    _check_text(text)
    if _looks_remote(text):
        return parse_remote(text)
    stripped = text.rstrip("/")
    return Local(stripped or "/", trailing_slash=text != stripped)


def parse_remote(text: str) -> Remote:
    """The remote that ``text`` names.  Raises :class:`UsageError`, for local paths as well."""
    _check_text(text)
    if match := _URL.fullmatch(text):
        return _parse_url(text, match[1].lower(), match[2])
    match = _SHORT.fullmatch(text)
    if match is None:
        raise UsageError(f"{printable(text)} names no server: write fsmux://HOST[:PORT]/PATH or HOST:PATH")
    user, host, port = _authority(text, match[1], "")
    parts, slash = _path(text, os.fsencode(match[2]), escapes=False)
    return Remote(TCP, user, host, port, path_parts=parts, trailing_slash=slash)


def check_listen(address: Listen, *, plaintext: bool, option: str = "plaintext=True") -> None:
    """Raise :class:`UsageError` if others could read along there and nobody has allowed it, as ``option`` does."""
    if not address.is_loopback and not plaintext:
        raise UsageError(
            f"{address} can be reached from other machines and nothing would be encrypted; "
            f"add {option} if you trust the network, or listen on 127.0.0.1 behind a tunnel"
        )


def parse_listen(text: str) -> Listen:
    """The address in ``HOST:PORT`` or ``unix:PATH``.  Raises :class:`UsageError`."""
    _check_text(text)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        _check_socket_path(text, path)
        return Listen(socket_path=path)
    address, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535:
        raise UsageError(f"{printable(text)} is no address to listen on: write HOST:PORT or unix:PATH")
    return Listen(_host(text, address), int(port))


def _check_text(text: str) -> None:
    if "\0" in text:
        raise UsageError(f"{printable(text)}: a name cannot contain a NUL byte")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise UsageError(f"{printable(text)}: this text is not a name in the encoding of this system") from None


def _looks_remote(text: str) -> bool:
    return _URL.fullmatch(text) is not None or ":" in text.partition("/")[0]


def _parse_url(text: str, scheme: str, rest: str) -> Remote:
    if scheme == TLS:
        raise UsageError("fsmuxs:// (TLS) is not available in this version; use fsmux:// inside a tunnel you trust")
    if scheme == UNIX:
        return _parse_unix(text, rest)
    if scheme != TCP:
        raise UsageError(
            f"{printable(text)}: fsmux does not speak {scheme}://; write fsmux://HOST[:PORT]/PATH, "
            "or ./ in front of a local name"
        )
    authority, _, path = rest.partition("/")
    bare = authority.rpartition("@")[2]
    if bare.count(":") > 1 and not bare.startswith("["):
        raise UsageError(f"{printable(text)}: an IPv6 address stands in brackets, as [{printable(bare)}]")
    address, colon, port = authority.rpartition(":")
    if not colon or "]" in port or "@" in port:
        address, port = authority, ""
    elif not port:
        raise UsageError(f"{printable(text)}: a port must follow the colon behind the host")
    user, host, number = _authority(text, address, port)
    parts, slash = _path(text, os.fsencode(path), escapes=True)
    return Remote(TCP, _decode_user(text, user), host, number, path_parts=parts, trailing_slash=slash)


def _parse_unix(text: str, rest: str) -> Remote:
    authority, slash, tail = rest.partition("/")
    user, at, nothing = authority.rpartition("@")
    if nothing or (authority and not at) or not slash:
        raise UsageError(f"{printable(text)}: write {UNIX}:///SOCKET:/PATH with an absolute SOCKET")
    socket, colon, path = f"/{tail}".partition(":")
    if colon and path and not path.startswith("/"):
        raise UsageError(f"{printable(text)}: a slash must follow the colon behind the socket (write a : in it as %3A)")
    socket_path = os.fsdecode(_unescape(text, os.fsencode(socket)))
    _check_socket_path(text, socket_path)
    _check_user(text, user)
    parts, trailing = _path(text, os.fsencode(path), escapes=True)
    return Remote(
        UNIX, _decode_user(text, user), port=0, socket_path=socket_path, path_parts=parts, trailing_slash=trailing
    )


def _authority(text: str, address: str, port: str) -> tuple[str, str, int]:
    user, at, host = address.rpartition("@")
    if at and not user:
        raise UsageError(f"{printable(text)}: a user name must stand before the @")
    _check_user(text, user)
    if port and (not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 0 < int(port) < 65536):
        raise UsageError(f"{printable(text)}: {printable(port)} is not a port; ports are 1 to 65535")
    return user, _host(text, host), int(port or DEFAULT_PORT)


def _host(text: str, host: str) -> str:
    if not host:
        raise UsageError(f"{printable(text)} names no host; write ./ in front if it is a local name")
    if host.startswith("[") and host.endswith("]"):
        import ipaddress

        inner = host[1:-1].replace("%25", "%", 1)  # RFC 6874 writes the zone's % as %25
        try:
            address = ipaddress.IPv6Address(inner)
        except ValueError:
            raise UsageError(f"{printable(text)}: {printable(host)} is not an IPv6 address") from None
        return str(address)
    if ":" in host:
        raise UsageError(f"{printable(text)}: an IPv6 address stands in brackets, as [{printable(host)}]")
    if not _HOST.fullmatch(host):
        raise UsageError(f"{printable(text)}: {printable(host)} is not a host name")
    return host


def _check_user(text: str, user: str) -> None:
    if ":" in user:
        # Not echoed: what follows the colon is a secret.
        raise UsageError("a token does not belong on the command line; use FSMUX_TOKEN or --token-file")
    if not user.isprintable():
        raise UsageError(f"{printable(text)}: {printable(user)} is not a user name")


def _decode_user(text: str, user: str) -> str:
    decoded = os.fsdecode(_unescape(text, os.fsencode(user)))
    if not decoded.isprintable():
        raise UsageError(f"{printable(text)}: {printable(decoded)} is not a user name")
    return decoded


def _check_socket_path(text: str, path: str) -> None:
    size = len(os.fsencode(path))
    if not path or path.endswith("/") or "\0" in path:
        raise UsageError(f"{printable(text)} names no socket")
    if size > MAX_SOCKET_PATH:
        raise UsageError(f"{printable(text)}: a socket's path has at most {MAX_SOCKET_PATH} bytes, this one has {size}")


def _path(text: str, raw: bytes, *, escapes: bool) -> tuple[Parts, bool]:
    """Components, and whether the last of them is asked to be a directory."""
    names = raw.split(b"/")
    if escapes:  # after splitting, so that %2F is seen as a slash inside of a name
        names = [_unescape(text, name) for name in names]
    parts = tuple(name for name in names if name not in (b"", b"."))
    for name in parts:
        _check_name(text, name)
    if len(parts) > MAX_PATH_PARTS or sum(map(len, parts)) + len(parts) > MAX_PATH_BYTES:
        raise UsageError(f"{printable(text[:64])}…: the path is longer than {MAX_PATH_BYTES} bytes")
    return parts, bool(parts) and names[-1] in (b"", b".")


def _check_name(text: str, name: bytes) -> None:
    if name == b"..":
        raise UsageError(f"{printable(text)}: .. is not allowed in a remote path; write the path without it")
    if b"/" in name or b"\0" in name:
        raise UsageError(f"{printable(text)}: a name cannot contain a slash or a NUL byte, not even as %2F or %00")
    if len(name) > MAX_NAME:
        raise UsageError(f"{printable(name[:32])}…: a name has at most {MAX_NAME} bytes, this one has {len(name)}")


def _unescape(text: str, raw: bytes) -> bytes:
    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise UsageError(f"{printable(text)}: % is followed by two hexadecimal digits; write % itself as %25")
        return bytes([int(match[1], 16)])

    return _ESCAPE.sub(byte, raw)


def _quote(raw: bytes) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)
