"""Who a peer is: SCRAM-SHA-256 over a shared token, the tokens themselves, and the users of a server.

Theory: the token never crosses the wire.  Each side proves that it knows it (RFC 5802, 7677), and a server keeps only
keys from which the token cannot be had.  An exchange is four AUTH messages; both sides of it are step objects that
take and return :class:`~fsmux.wire.messages.Auth` and do no I/O, so that any connection can drive them:

    client                               server
    ClientAuth.begin()  --- client-first --->  ServerExchange.step()
    ClientAuth.step()   <-- server-first ----
                        --- client-final --->  ServerExchange.step()  -> User
    ClientAuth.step()   <-- server-final ----  (done)

A name that no user has takes the same path: it gets a salt that is as stable as a real one, keys that nothing fits,
and the same sentence at the same step, so that names cannot be tried out.

Iterations: SCRAM stretches passwords that people choose.  A token carries at least 128 random bits, which no search
exhausts at any cost per guess, so the smallest count that the RFC allows (4096) is used.  Measured, a handshake costs
the client 1.1 ms of CPU and the server, which stores the stretched keys, 0.1 ms.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from fsmux.errors import AuthError, UsageError
from fsmux.importing import without_package
from fsmux.records import printable
from fsmux.wire.messages import Auth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 4096

MAX_ITERATIONS: Final = 100_000
"""What a client lets a server make it compute: some 25 ms; scramp alone would allow ten million (seconds)."""

DEFAULT_USER: Final = "fsmux"
"""The name of the only user of a server that was given one token, and of a client that named nobody."""

TOKEN_BYTES: Final = 24
"""Random bytes of a new token: 192 bits, 32 characters."""

MIN_TOKEN: Final = 16
"""Characters. Shorter tokens were made up by somebody and could be guessed from a recorded handshake."""

_MAX_TOKEN: Final = 1024
_MAX_USERS_FILE: Final = 4 * 1024 * 1024
_MAX_NAME: Final = 128
_NAMES: Final = f"1 to {_MAX_NAME} printable characters are expected"
_SALT: Final = 16
_REFUSED: Final = "the user name or the token is not the one that this server knows; check FSMUX_TOKEN or --token-file"


class Keys(Struct, frozen=True):
    """What a server stores of a token.  ``str()`` is the form of the users file, the one that PostgreSQL uses, too."""

    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def from_token(cls, name: str, token: str) -> Keys:
        """The same token gives the same keys, so that a restarted server does not tell real users by new salts.

        Raises :class:`UsageError` if ``name`` cannot be one: nobody could be let in by such keys.
        """
        if not _is_name(name):
            raise UsageError(f"{printable(name)!r} is not a user name: {_NAMES}")
        salt = hashlib.pbkdf2_hmac("sha256", token.encode(), b"fsmux salt " + name.encode(), ITERATIONS)[:_SALT]
        try:
            info = _scramp().ScramMechanism(MECHANISM).make_auth_info(token, iteration_count=ITERATIONS, salt=salt)
        except _scramp().ScramException:
            raise AuthError("the token holds characters that SCRAM does not allow") from None
        return cls(salt, info[1], info[2])

    @classmethod
    def parse(cls, text: str) -> Keys:
        """The inverse of ``str()``; raises ValueError for anything else."""
        try:
            _, parameters, keys = text.split("$")
            fields = (*parameters.split(":")[1:], *keys.split(":"))
            found = cls(*(base64.b64decode(part, validate=True) for part in fields))
        except (ValueError, TypeError):
            raise ValueError("not the form of a stored key") from None
        if str(found) != text or [len(found.salt), len(found.stored_key), len(found.server_key)] != [_SALT, 32, 32]:
            raise ValueError("not a stored key of this mechanism and iteration count")
        return found

    def __repr__(self) -> str:
        return f"Keys(salt={self.salt!r})"  # and not the keys

    def __str__(self) -> str:
        salt, stored, server = (base64.b64encode(b).decode() for b in (self.salt, self.stored_key, self.server_key))
        return f"{MECHANISM}${ITERATIONS}:{salt}${stored}:{server}"


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _MAX_NAME and name.isprintable()


class User(Struct, frozen=True):
    """Somebody that a server knows.  ``root`` takes the place of the server's own root, if it is given."""

    name: str
    keys: Keys
    read_only: bool = False
    root: str | None = None


def single_user(token: str) -> dict[str, User]:
    """The users of a server that was given just one token."""
    return {DEFAULT_USER: User(DEFAULT_USER, Keys.from_token(DEFAULT_USER, token))}


def _scramp() -> Any:
    """The library, when the first exchange begins: it costs some ms, and a client without a token never needs it.

    Its package asks the installation for its version when it is imported, which costs 10 ms more, and what reads
    certificates, for bindings to channels that are not used here, 6 ms (measured), and OpenSSL as much.
    """
    return without_package("scramp.core", "asn1crypto", "asn1crypto.x509", "ssl")


# ---- the exchange -------------------------------------------------------------------------------------------------


class ServerAuth:
    """Makes exchanges for the users of a server.  Without users nobody is asked who he is."""

    def __init__(self, users: Mapping[str, User]) -> None:
        self._users = dict(users)
        # From the keys, not from chance: the salt of a name that is unknown must survive a restart as real ones do.
        known = sorted(user.keys.server_key for user in self._users.values())
        self._secret = hashlib.sha256(b"fsmux unknown users" + b"".join(known)).digest()

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """For HELLO; empty if no authentication is asked for."""
        return (MECHANISM,) if self._users else ()

    def start(self) -> ServerExchange:
        return ServerExchange(self)

    def lookup(self, name: str) -> tuple[User | None, Keys]:
        """The user, and keys to check a proof against: for an unknown name such that no proof holds."""
        salt, key = (hmac.digest(self._secret, part + name.encode(), "sha256") for part in (b"salt ", b"key "))
        user = self._users.get(name)
        return user, user.keys if user else Keys(salt[:_SALT], key, salt)


class ServerExchange:
    """One peer's authentication, the server's side: two steps, the second of which names the user or raises."""

    def __init__(self, auth: ServerAuth) -> None:
        self._auth = auth
        self._user: User | None = None
        self._scram = _scramp().ScramMechanism(MECHANISM).make_server(self._keys)
        self._steps = 0

    def _keys(self, name: str) -> tuple[bytes, bytes, bytes, int]:
        self._user, keys = self._auth.lookup(name)
        return keys.salt, keys.stored_key, keys.server_key, ITERATIONS

    def step(self, message: Auth) -> tuple[Auth, User | None]:
        """The answer to ``message``, and who the peer is once that is proved.  Raises :class:`AuthError`, for good."""
        self._steps += 1
        try:
            if self._steps == 1:
                if message.mechanism != MECHANISM:
                    raise AuthError(f"this server authenticates by {MECHANISM} only")
                self._scram.set_client_first(_text(message.data))
                return _auth(self._scram.get_server_first()), None
            self._scram.set_client_final(_text(message.data))
            final = self._scram.get_server_final()
        except AuthError:
            self._steps = 9  # past every legal step: an exchange that failed stays failed
            raise
        except _scramp().ScramException:
            self._steps = 9
            raise AuthError(_REFUSED) from None
        if self._user is None or self._steps != 2:
            raise AuthError(_REFUSED)
        return _auth(final, done=True), self._user


class ClientAuth:
    """The client's side of one authentication."""

    def __init__(self, user: str, token: str | None) -> None:
        self._name = user or DEFAULT_USER
        self._token = token
        self._scram: Any = None
        self._final = False

    def get_ready(self) -> None:
        """Import now what :meth:`first` would wait for."""
        if self._token is not None:
            _scramp()

    def first(self) -> Auth | None:
        """The first message, which is good whatever the server says; None without a token."""
        if self._token is None:
            return None
        try:
            self._scram = _scramp().ScramClient([MECHANISM], self._name, self._token)
            return _auth(self._scram.get_client_first(), mechanism=MECHANISM)
        except _scramp().ScramException:
            raise AuthError("the user name or the token holds characters that SCRAM does not allow") from None

    def wanted(self, mechanisms: Sequence[str]) -> bool:
        """Whether the server asks for authentication, given what its HELLO offers.

        Raises :class:`AuthError` if no token is at hand, and also if there is one but the server does not want it:
        whoever was given a token expects to talk to a server that knows it, too.
        """
        if not mechanisms:
            if self._token is None:
                return False
            raise AuthError(
                "the server asks for no token, so it cannot prove that it is the right one; "
                "to go on without, unset FSMUX_TOKEN and leave --token-file out"
            )
        if self._token is None:
            raise AuthError("the server asks for a token; set FSMUX_TOKEN or name a file with --token-file")
        if MECHANISM not in mechanisms:
            raise AuthError(f"the server does not offer {MECHANISM}, the only mechanism of this version")
        return True

    def step(self, message: Auth) -> Auth | None:
        """The next message, or None once the server, too, has proved that it knows the token.

        Raises :class:`AuthError` if it has not.
        """
        if self._scram is None:
            raise AuthError("the server answered before it was asked")
        try:
            if not self._final:
                if message.done:
                    raise AuthError("the server ended the authentication without proving that it knows the token")
                self._scram.set_server_first(_text(message.data))
                if int(self._scram.iterations) > MAX_ITERATIONS:
                    raise AuthError("the server asks for more computation than a token needs")
                self._final = True
                return _auth(self._scram.get_client_final())
            self._scram.set_server_final(_text(message.data))
        except _scramp().ScramException:
            raise AuthError("the server could not prove that it knows the token") from None
        if not message.done:
            raise AuthError("the server did not end the authentication where it has to end")
        return None


def _auth(text: str, *, mechanism: str = "", done: bool = False) -> Auth:
    return Auth(mechanism=mechanism, data=text.encode(), done=done)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise AuthError("an authentication message was not text") from None


# ---- tokens and users on disk -------------------------------------------------------------------------------------


def make_token() -> str:
    """A new token: 192 random bits in characters that need no quoting anywhere."""
    while (token := secrets.token_urlsafe(TOKEN_BYTES)).startswith("-"):  # would look like an option
        pass
    return token


def check_token(token: str, where: str) -> str:
    """``token``, if it can be one; ``where`` it came from stands in the sentence of the :class:`AuthError`."""
    if not token or not token.isascii() or not token.isprintable() or " " in token or len(token) > _MAX_TOKEN:
        raise AuthError(f"{printable(where)} holds no token: one line without spaces is expected")
    if len(token) < MIN_TOKEN:
        raise AuthError(
            f"the token in {printable(where)} has fewer than {MIN_TOKEN} characters and could be guessed; "
            "make one with: fsmux token new"
        )
    return token


def read_token_file(path: str) -> str:
    """The token in a file that nobody else may read.  Blocking.  Raises :class:`AuthError`."""
    return check_token(read_private_file(path, "token file", _MAX_TOKEN + 2).decode("utf-8", "replace").strip(), path)


def read_private_file(path: str, what: str, limit: int) -> bytes:
    """A regular file's bytes, if it belongs to this user or root and nobody else may read it.  Blocking.

    A symbolic link as the last component is refused: somebody who may write to that directory could turn it.
    """
    name = f"{what} {printable(path)}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if os.path.islink(path):
            raise AuthError(f"{name} is a symbolic link; name the file itself") from None
        raise AuthError(f"{name} cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise AuthError(f"{name} is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise AuthError(f"{name} belongs to another user; make it your own")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise AuthError(f"{name} is open to others (mode {mode:03o}); run: chmod 600 {printable(path)}")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(fd)
    if len(content) > limit:
        raise AuthError(f"{name} is larger than {limit} bytes")
    return content


def read_users_file(path: str) -> dict[str, User]:
    """The users of a server.  Blocking.  Raises :class:`AuthError` with the name of what is wrong.

    The file is TOML and private, as a token file is:

        [users.alice]
        key = "SCRAM-SHA-256$4096:…"     # as printed by: fsmux token new --key alice
        read_only = true                 # default false: what the server allows
        root = "/srv/alice"              # default: the server's own root

        [users.bob]
        token_file = "bob.token"         # instead of key; relative to this file
    """
    import tomllib

    try:
        document = tomllib.loads(read_private_file(path, "users file", _MAX_USERS_FILE).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AuthError(f"users file {printable(path)} is not TOML: {printable(str(error))}") from None
    tables = document.pop("users", {})
    if document or not isinstance(tables, dict) or not tables:
        raise AuthError(f"users file {printable(path)} must hold tables [users.NAME] and nothing else")
    return {name: _user(path, name, table) for name, table in tables.items()}


def _user(path: str, name: str, table: object) -> User:
    where = f"users file {printable(path)}, user {printable(name)}"
    if not _is_name(name):
        raise AuthError(f"{where}: this is not a user name: {_NAMES}")
    if not isinstance(table, dict):
        raise AuthError(f"{where}: a table is expected")
    kinds = {"key": str, "token_file": str, "read_only": bool, "root": str}
    for option, value in table.items():
        if not isinstance(value, kinds.get(option, ())):  # a misspelt read_only must not open the door
            raise AuthError(f"{where}: {printable(option)} is no option of a user, or has a value of the wrong kind")
    if ("key" in table) == ("token_file" in table):
        raise AuthError(f"{where}: exactly one of key and token_file is needed")
    root = table.get("root")
    if root is not None:
        _check_root(root, where)
    if "key" in table:
        try:
            keys = Keys.parse(table["key"])
        except ValueError:
            raise AuthError(f"{where}: key is not one that `fsmux token new --key NAME` prints") from None
    else:
        keys = Keys.from_token(name, read_token_file(os.path.join(os.path.dirname(path), table["token_file"])))
    return User(name, keys, table.get("read_only", False), root)


def _check_root(root: str, where: str) -> None:
    """Now, where it is known whose root it is: who opens it knows neither user nor file."""
    if not os.path.isabs(root):
        raise AuthError(f"{where}: root must be an absolute path")
    try:
        is_directory = stat.S_ISDIR(os.stat(root).st_mode)
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise AuthError(f"{where}: root {printable(root)}: {reason}") from None
    if not is_directory:
        raise AuthError(f"{where}: root {printable(root)}: not a directory")
