"""SCRAM-SHA-256 (RFC 5802, 7677) without channel binding: the texts of its four messages, and the proofs in them.

    Client                                  Server
    first()   ------ client-first ------>   first()
    final()   <----- server-first ------
              ------ client-final ------>   final()
    check()   <----- server-final ------

Theory: an exchange is two objects, each of which is asked in this order and once; whoever drives them sees to that.
They take and return texts and know neither a connection nor who the users are.  What is not exactly of the form that
the RFC gives it, and what does not fit what was said before, is a ValueError; what is behind the attributes of a
message is an extension, not understood, and part of what the proofs cover, as the RFC wants it.

It stands here because the library for it (scramp, which the tests hold this against) brings X.509 and half of ``email``
along: 18 ms for every command that has a token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MECHANISM: Final = "SCRAM-SHA-256"

MIN_ITERATIONS: Final = 4096
"""The smallest count that RFC 7677 allows."""

MIN_SALT: Final = 12
"""Bytes of salt that a client stretches a password with."""

NONCE: Final = 24
"""Random bytes that each side adds to the nonce."""

_HASH: Final = "sha256"


def stored(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """What a server keeps of a password: the key to check a client's proof with, and the one for its own.

    Raises ValueError for a password with characters that SASLprep prohibits.
    """
    client_key, server_key = _keys(prepare(password), salt, iterations)
    return hashlib.sha256(client_key).digest(), server_key


class Client:
    """The side that proves first.  ValueError: a name or a password that SASLprep prohibits."""

    def __init__(self, name: str, password: str, nonce: str | None = None) -> None:
        self._nonce = nonce or secrets.token_urlsafe(NONCE)
        self._password = prepare(password)
        self._bare = f"n={_escaped(_filled(prepare(name)))},r={self._nonce}"
        self._proof = b""  # of the server

    def first(self) -> str:
        return f"n,,{self._bare}"

    def final(self, server_first: str, max_iterations: int) -> str:
        """The proof.  Raises OverflowError instead of stretching the password more than ``max_iterations`` times."""
        nonce, salt_text, count = _values(server_first, "r", "s", "i")
        salt = b64decode(salt_text, validate=True)
        if not count.isascii() or not count.isdigit() or count[0] == "0":
            raise ValueError("the number of iterations is none")
        iterations = int(count)
        if not (_is_nonce(nonce) and nonce.startswith(self._nonce) and len(nonce) > len(self._nonce)):
            raise ValueError("the nonce is not the client's with something behind it")
        if len(salt) < MIN_SALT or iterations < MIN_ITERATIONS:
            raise ValueError("the salt is too short, or the iterations are too few")
        if iterations > max_iterations:
            raise OverflowError("more iterations than were allowed")
        client_key, server_key = _keys(self._password, salt, iterations)
        unproved = f"c={_base64(b'n,,')},r={nonce}"
        said = f"{self._bare},{server_first},{unproved}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), said, _HASH)
        self._proof = hmac.digest(server_key, said, _HASH)
        return f"{unproved},p={_base64(_xor(client_key, signature))}"

    def check(self, server_final: str) -> None:
        """Return if the server knows the password's keys, too."""
        (proof,) = _values(server_final, "v")
        if not self._proof or not hmac.compare_digest(b64decode(proof, validate=True), self._proof):
            raise ValueError("the server's proof is wrong")


class Server:
    """The side that answers.  ``lookup`` returns the salt of a name and the two keys that are stored for it."""

    def __init__(
        self, lookup: Callable[[str], tuple[bytes, bytes, bytes]], iterations: int, nonce: str | None = None
    ) -> None:
        self._lookup = lookup
        self._iterations = iterations
        self._own_nonce = nonce or secrets.token_urlsafe(NONCE)
        self._nonce = self._header = self._opening = ""
        self._stored_key = self._server_key = b""

    def first(self, client_first: str) -> str:
        flag, _, rest = client_first.partition(",")
        authzid, comma, bare = rest.partition(",")
        if flag not in ("n", "y") or authzid or not comma:  # y: the client could bind channels and sees that we cannot
            raise ValueError("no channel is bound, and nobody acts for somebody else")
        name, nonce = _values(bare, "n", "r")
        if not _is_nonce(nonce):
            raise ValueError("the nonce is none")
        salt, self._stored_key, self._server_key = self._lookup(_filled(prepare(_unescaped(name))))
        self._header = _base64(f"{flag},,".encode())
        self._nonce = nonce + self._own_nonce
        answer = f"r={self._nonce},s={_base64(salt)},i={self._iterations}"
        self._opening = f"{bare},{answer}"
        return answer

    def final(self, client_final: str) -> str:
        """The server's own proof, once the client's is right."""
        unproved, _, proof = client_final.rpartition(",p=")
        header, nonce = _values(unproved, "c", "r")
        if header != self._header or nonce != self._nonce:
            raise ValueError("this belongs to another exchange")
        said = f"{self._opening},{unproved}".encode()
        signature = hmac.digest(self._stored_key, said, _HASH)
        client_key = _xor(b64decode(proof, validate=True), signature)
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._stored_key):
            raise ValueError("the client's proof is wrong")
        return f"v={_base64(hmac.digest(self._server_key, said, _HASH))}"


def prepare(text: str) -> str:
    """SASLprep (RFC 4013): the same for texts that look the same.  Raises ValueError for what it prohibits."""
    if text.isascii() and text.isprintable():
        return text
    import stringprep as tables
    from unicodedata import ucd_3_2_0

    mapped = "".join([" " if tables.in_table_c12(c) else c for c in text if not tables.in_table_b1(c)])
    text = ucd_3_2_0.normalize("NFKC", mapped)
    prohibited = (
        tables.in_table_a1, tables.in_table_c12, tables.in_table_c21_c22, tables.in_table_c3, tables.in_table_c4,
        tables.in_table_c5, tables.in_table_c6, tables.in_table_c7, tables.in_table_c8, tables.in_table_c9,
    )  # fmt: skip
    if any([table(c) for c in text for table in prohibited]):
        raise ValueError("a character that SASLprep prohibits")
    from_right = [tables.in_table_d1(c) for c in text]
    if any(from_right) and (not (from_right[0] and from_right[-1]) or any(map(tables.in_table_d2, text))):
        raise ValueError("a mixture of directions that SASLprep prohibits")
    return text


def _keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """The client's key and the server's."""
    salted = hashlib.pbkdf2_hmac(_HASH, password.encode(), salt, iterations)
    return hmac.digest(salted, b"Client Key", _HASH), hmac.digest(salted, b"Server Key", _HASH)


def _values(message: str, *names: str) -> list[str]:
    """The values of the attributes that a message has to begin with, each once; what follows are extensions."""
    attributes = message.split(",")
    found = [attribute[2:] for name, attribute in zip(names, attributes, strict=False) if attribute[:2] == f"{name}="]
    if len(found) < len(names) or not all(found):
        raise ValueError("the message has not the attributes that it must have")
    for extension in attributes[len(names) :]:
        name, equals, value = extension.partition("=")
        if len(name) != 1 or not name.isalpha() or name in "amnrcsipve" or not equals or not value:
            raise ValueError("an attribute out of its place, or an extension that must be understood")
    return found


def _escaped(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def _unescaped(name: str) -> str:
    plain = name.replace("=2C", ",").replace("=3D", "=")
    if _escaped(plain) != name:
        raise ValueError("an = that escapes nothing")
    return plain


def _filled(name: str) -> str:
    if not name:
        raise ValueError("a name is empty")
    return name


def _is_nonce(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes([a ^ b for a, b in zip(one, other, strict=True)])
