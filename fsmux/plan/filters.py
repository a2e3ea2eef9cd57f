"""Which names take part: ordered ``--exclude`` and ``--include`` rules with rsync's pattern language.

Theory: the first rule that matches a name decides, and a name that no rule matches takes part.  A directory that is
left out is never entered, so nothing inside of it can be let in again by a later rule.

A pattern is matched against the path below the source as ``/a/b/c``:

* ``/`` at its start ties it to the top; otherwise it may match after any slash;
* ``/`` at its end makes it match directories only; a final ``/***`` matches the directory and all that is in it;
* ``*`` and ``?`` stop at slashes, ``**`` does not; ``[a-z]``, ``[!a-z]`` and ``[[:digit:]]`` are one byte each;
* ``\\`` takes the next character literally, if the pattern has any of ``*?[``, and is an ordinary one otherwise.

Names are bytes and so are patterns; one non-ASCII character is several bytes to ``?``.
"""

from __future__ import annotations

import os
import re
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from fsmux.errors import UsageError
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsmux.records import Parts

_POSIX = {
    b"alnum": rb"0-9A-Za-z", b"alpha": rb"A-Za-z", b"blank": rb" \t", b"cntrl": rb"\x00-\x1f\x7f", b"digit": rb"0-9",
    b"graph": rb"!-~", b"lower": rb"a-z", b"print": rb" -~", b"punct": rb"!-\x2f:-@\x5b-\x60{-~",
    b"space": rb" \t\n\r\f\v", b"upper": rb"A-Z", b"xdigit": rb"0-9A-Fa-f",
}  # fmt: skip
_CLASS = re.compile(rb"\[([!^]?)((?:\]|\[:[a-z]+:\]|\\.|[^\]\\])(?:\[:[a-z]+:\]|\\.|[^\]\\])*)\]", re.DOTALL)
_MEMBER = re.compile(rb"\[:([a-z]+):\]|\\(.)|(.)", re.DOTALL)


class Rule(Struct, frozen=True):
    """``include`` or leave out what ``pattern`` matches."""

    include: bool
    pattern: str


class Filters:
    """Compiled rules, in order.  Raises :class:`UsageError` for a pattern that means nothing."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._compiled = [(rule.include, *_compile(rule.pattern)) for rule in self.rules]
        self._base = b""
        self._directory = lru_cache(maxsize=4096)(self._admits_directory)

    def below(self, base: Parts) -> Filters:
        """The same rules for names that are told relative to ``base``."""
        found = copy(self)
        found._base = b"".join(b"/" + name for name in base)
        found._directory = lru_cache(maxsize=4096)(found._admits_directory)
        return found

    def __bool__(self) -> bool:
        return bool(self.rules)

    def keeps(self, parts: Parts, is_directory: bool) -> bool:
        """Whether the rules let this name in, given that the directories above it are: what a walk asks."""
        if not self._compiled:
            return True
        path = self._base + b"/" + b"/".join(parts) if parts else self._base
        named = path + b"/" if is_directory else path
        for include, directories_only, with_slash, regex in self._compiled:
            if (is_directory or not directories_only) and regex.fullmatch(named if with_slash else path):
                return include
        return True

    def admits(self, parts: Parts, is_directory: bool) -> bool:
        """Whether this name and every directory above it are let in: for listings that were not pruned."""
        return not self._compiled or (self._directory(parts[:-1]) and self.keeps(parts, is_directory))

    def _admits_directory(self, parts: Parts) -> bool:
        return all(self.keeps(parts[:depth], True) for depth in range(1, len(parts) + 1))


def _compile(text: str) -> tuple[bool, bool, re.Pattern[bytes]]:
    """Whether it is for directories only, whether these are to have a slash behind their names, and what they match."""
    pattern = os.fsencode(text)
    body = pattern.rstrip(b"/") if pattern.endswith(b"/") else pattern
    if not body or b"\0" in body:
        raise UsageError(f"{printable(text)!r} is not a pattern")
    if body.startswith(b"/"):
        start, body = rb"/", body.lstrip(b"/")
    else:
        # A leading ** stands for any directories, none at all included, so it brings its own slash or needs none.
        start = rb"" if body.startswith(b"**") else rb"(?:.*/)"
    end = rb""
    if body.endswith(b"/***"):
        body, end = body[:-4], rb"/.*"  # a directory itself is told with a slash
    literal = not any(char in body for char in b"*?[")
    inner = re.escape(body) if literal else _translate(text, body)
    return pattern.endswith(b"/"), bool(end), re.compile(start + inner + end, re.DOTALL)


def _translate(text: str, glob: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(glob):
        char = glob[at : at + 1]
        if char == b"*":
            stars = len(glob[at:]) - len(glob[at:].lstrip(b"*"))
            out += rb".*" if stars > 1 else rb"[^/]*"
            at += stars
        elif char == b"?":
            out += rb"[^/]"
            at += 1
        elif char == b"[":
            match = _CLASS.match(glob, at)
            if match is None:
                raise UsageError(f"{printable(text)!r} is not a pattern: its [ is never closed; write \\[ for it")
            out += _translate_class(text, match)
            at = match.end()
        else:
            skip = 1 if char == b"\\" and at + 1 < len(glob) else 0
            out += re.escape(glob[at + skip : at + skip + 1])
            at += skip + 1
    return bytes(out)


def _translate_class(text: str, match: re.Match[bytes]) -> bytes:
    members = bytearray()
    for name, escaped, plain in _MEMBER.findall(match[2]):
        if name and name not in _POSIX:
            raise UsageError(f"{printable(text)!r} is not a pattern: there is no class [:{printable(name)}:]")
        if name:
            members += _POSIX[name]
        elif plain == b"-":
            members += plain
        else:
            members += b"\\x%02x" % (escaped or plain)[0]
    try:
        # The look-ahead keeps a class from matching a slash, negated or not.
        out = rb"(?!/)[" + (b"^" if match[1] else b"") + bytes(members) + b"]"
        re.compile(out)
    except re.error:
        raise UsageError(f"{printable(text)!r} is not a pattern: a range in it goes backwards") from None
    return out
