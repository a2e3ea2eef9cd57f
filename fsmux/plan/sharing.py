"""Files that have several names: which name travels, and which ones are made of it.

Theory: the first name of a file that the plan meets is treated as any other; what stands under it at the destination
afterwards gets the further names.  So contents travel once, and what is kept in memory is one small record for each
file with several names, and none for any other.  Keys say which names belong together, on each side for itself: a
further name is up to date if at the destination it belongs to the same file as the first one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from fsmux.records import Parts, Xattrs


class SharedFile(Struct):
    """Its first name, and the key which that has at the destination, if it is up to date and has one."""

    first: Parts
    there: bytes | None


Shared: TypeAlias = "dict[bytes, SharedFile]"
"""All that were met in a tree, by the keys of the source."""


Standing: TypeAlias = "dict[bytes, tuple[object, bool]]"
"""By their keys there, the files with several names at the destination that are left to stand: what the first of these
names belongs to at the source, which is a key or a path, and whether something of it is to be set."""


def stands_for(standing: Standing, key: bytes, whose: object, adjusted: bool) -> bool:
    """Whether a file of the destination may stand for this one of the source.

    What is set of it is set under all of its names: so not if it stands for another one already and either differs.
    """
    first, before = standing.setdefault(key, (whose, adjusted))
    return first == whose or not (before or adjusted)


class Further(NamedTuple):
    """A further name of a file, which is to be linked to the first one, or sent if that cannot be."""

    name: bytes
    key: bytes
    size: int
    mtime: int
    mode: int
    fresh: bool
    owner: int | None = None
    xattrs: Xattrs | None = ()
