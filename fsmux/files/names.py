"""Which names a peer may say at all.

Theory: a path is a tuple of components, never a string.  A component is what a directory can hold under one name, so
``..``, ``/`` and the empty name are not components.  Names are never changed (no normalisation): what was checked is
what is opened.  Only the *comparison* with the reserved name folds, because a file system may fold: case (ext4 with
casefold, vfat), compatibility forms, invisible code points (HFS+), trailing dots and spaces and the 8.3 alias (vfat).
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from fsmux.errors import BadName
from fsmux.limits import MAX_NAME, MAX_PATH_BYTES, MAX_PATH_PARTS
from fsmux.records import are_plain, printable

if TYPE_CHECKING:
    from fsmux.records import Parts

RESERVED: Final = b".fsmux"
"""The directory of unfinished files, at the top of each file system that is written to."""

_CORE: Final = b"fsmux"
_ALIAS: Final = re.compile(r"\.?fsmux(?:~\d+)?(?::.*)?", re.DOTALL)


def is_reserved(name: bytes) -> bool:
    """Whether some file system could take ``name`` for the reserved one."""
    if name.isascii():
        if _CORE not in name.lower():
            return False
        text = name.decode("ascii")
    else:
        text = unicodedata.normalize("NFKC", name.decode("utf-8", "surrogateescape"))
        text = "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Mn", "Cc", "Cn", "Me"))
        text = unicodedata.normalize("NFKC", text.casefold())
    text = text.lower().rstrip(". ")
    if not _ALIAS.fullmatch(text):
        return False
    return text != "fsmux"  # without the dot and without an alias it is an ordinary name


def check(parts: Parts) -> None:
    """Raise :class:`BadName` unless every component can be a name and none is reserved."""
    if are_plain(parts) and (joined := b"/".join(parts)).isascii() and _CORE not in joined.lower():
        return
    if len(parts) > MAX_PATH_PARTS:
        raise BadName(f"{printable(parts[0])}/…: the path has more than {MAX_PATH_PARTS} components")
    total = -1
    for name in parts:
        size = len(name)
        total += size + 1
        if not 0 < size <= MAX_NAME or name == b".." or name == b"." or b"/" in name or b"\0" in name:
            raise BadName(f"{printable(name[:MAX_NAME])!r} cannot be the name of a file")
        if (_CORE in name.lower() or not name.isascii()) and is_reserved(name):
            raise BadName(f"{printable(parts)}: the name {RESERVED.decode()} is reserved")
    if total > MAX_PATH_BYTES:
        raise BadName(f"{printable(parts[0])}/…: the path is longer than {MAX_PATH_BYTES} bytes")


def visible(found: list[bytes], joined: bytes) -> list[bytes]:
    """The names in ``found``, which are ``joined`` too, that are not reserved."""
    if joined.isascii() and _CORE not in joined.lower():
        return found
    return [name for name in found if not is_reserved(name)]


def mistakable(found: list[bytes], joined: bytes) -> list[bytes]:
    """Those that are somebody's own and cannot be said all the same."""
    if joined.isascii() and _CORE not in joined.lower():
        return []
    return [name for name in found if name != RESERVED and is_reserved(name)]


def check_in(directory: Parts, found: list[bytes]) -> None:
    """What :func:`check` would say of each name in ``directory``, which was checked itself."""
    joined = b"/".join(found)
    room = MAX_PATH_BYTES - sum(map(len, directory)) - len(directory)
    if (
        joined.count(b"/") == len(found) - 1
        and not (b"" in found or b"." in found or b".." in found or b"\0" in joined)
        and max(map(len, found)) <= min(MAX_NAME, room)
        and len(directory) < MAX_PATH_PARTS
        and len(visible(found, joined)) == len(found)
    ):
        return
    for name in found:
        check((*directory, name))
