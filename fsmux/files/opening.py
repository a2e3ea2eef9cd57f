"""How the receiving of a file begins: whether it may have its name, and what an earlier session has left of it.

Theory: all that can refuse a file is asked before there is a :class:`~fsmux.files.sink.Sink`, so whoever has one can
write; and a refusal leaves nothing behind, neither a part nor the reserved directory.
"""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING, Final

from fsmux.errors import BadName, Busy, IsADirectory, NotRegular
from fsmux.files import names
from fsmux.files import resume as places
from fsmux.files.chunks import effective_chunk_size
from fsmux.files.journal import MAX_TAG
from fsmux.files.manifest import Manifest
from fsmux.files.naming import named
from fsmux.files.sink import Sink
from fsmux.limits import CHUNK_SIZE
from fsmux.records import EVERYTHING, Durability, printable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from fsmux.files.ranges import Poll
    from fsmux.files.resume import Place
    from fsmux.files.root import Root
    from fsmux.files.state import Pin
    from fsmux.records import Attrs, Identity, Kept, Parts


def open_sink(
    root: Root,
    parts: Parts,
    identity: Identity,
    mode: int = 0o644,
    chunk_size: int = CHUNK_SIZE,
    *,
    owner: bytes = b"",
    resume: bool = True,
    durability: Durability = Durability.BATCH,
    holes: int = 0,
    kept: Kept = EVERYTHING,
    attrs: Attrs | None = None,
    verify: bool = False,
    like: Parts = (),
    clock: Callable[[], float] = time.monotonic,
    poll: Poll | None = None,
) -> Sink:
    """Begin to receive ``parts``, or go on with what an earlier session of the same ``owner`` left of it.

    It gets the owner and the extended attributes of ``attrs`` before its name; None of them are left alone.
    Without ``resume`` what was left is thrown away.  With ``verify`` everything is read back from the device before it
    is committed.  ``like`` names another file that may have the same bytes: if nothing has the name, ranges are taken
    from that.  ``poll`` is called during long reads and may raise.
    So many bytes of the file are ``holes`` at its sender: for them no room is set aside.
    Nothing but a finished file ever has the final name.  A directory, pipe or device there is refused; a symbolic link
    will be replaced, not followed.  Whatever fails here leaves things as they were.
    """
    if len(identity.tag) > MAX_TAG:
        raise BadName(f"{printable(parts)}: the tag of its version is too long")
    manifest = Manifest(identity, effective_chunk_size(identity.size, chunk_size), holes)
    facts, pin = land_file(root, parts)
    place: Place | None = None
    with named(parts):
        try:
            single = manifest.map.count <= 1
            if not single or places.has_journal(root.sys, pin.state, parts, owner):
                try:
                    place = places.open_journaled(root.sys, pin.state, parts, manifest, owner, resume, poll)
                except Busy:
                    if not single:  # who has what is left of it does not keep others off a file of one chunk
                        raise
            if place is None:
                place = places.open_single(root.sys, pin.state, manifest, owner)
        except BaseException:
            pin.release()
            raise
    final = () if not resume else like if facts is None else parts
    return Sink(root, parts, place, pin, mode, durability, clock, kept=kept, attrs=attrs, final=final, verify=verify)


_REPLACEABLE: Final = frozenset((stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK))
"""What a file may take the name of. A device is mostly meant to be written to, and whoever can make one is root."""


def land_file(root: Root, parts: Parts) -> tuple[os.stat_result | None, Pin]:
    """What has the name now, and a pin for the directory where its successor is put together.

    Raises the typed error if the name cannot be that of a file, or what has it is not to be replaced by one.
    """
    names.check(parts)
    if not parts:
        raise IsADirectory(f"{printable(parts)}: is a directory")
    with named(parts):
        facts, pin = root.land(parts)
    if facts is None or stat.S_IFMT(facts.st_mode) in _REPLACEABLE:
        return facts, pin
    pin.release()
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectory(f"{printable(parts)}: is a directory")
    raise NotRegular(f"{printable(parts)}: is a device and will not be replaced")


def may_resume(root: Root, parts: Parts, owner: bytes = b"") -> bool:
    """Whether a session of ``owner`` may have left something of ``parts`` that :func:`open_sink` would go on with."""
    names.check(parts)
    with named(parts):
        _, pin = root.land(parts)
        try:
            return places.has_journal(root.sys, pin.state, parts, owner)
        finally:
            pin.release()
