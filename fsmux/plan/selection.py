"""The names that ``--files-from`` gives, as a tree.

Theory: names are relative to the source and may come in any order and any number of times; what matters is which of
them lie in which directory.  So they are kept as they will be looked for, directory by directory.  A name that is given
stands for all that is in it, if it turns out to be a directory; what lies on the way to a name is taken without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from fsmux.errors import UsageError
from fsmux.limits import MAX_NAME, MAX_PATH_BYTES, MAX_PATH_PARTS
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsmux.records import Parts


class Selection(Struct):
    """A name: itself and all in it if it is ``whole``, else just what is named ``below`` it."""

    whole: bool = False
    below: dict[bytes, Selection] = field(default_factory=dict)

    def add(self, parts: Parts) -> None:
        """One more name."""
        node = self
        for name in parts:
            if node.whole:
                return
            node = node.below.setdefault(name, Selection())
        node.whole = True
        node.below = {}

    def inner(self) -> Iterator[Parts]:
        """The directories that have to be looked into, in the order of a walk."""
        pending: list[tuple[Parts, Selection]] = [((), self)]
        while pending:
            parts, node = pending.pop()
            yield parts
            inner = [(name, child) for name, child in sorted(node.below.items(), reverse=True) if not child.whole]
            pending += [((*parts, name), child) for name, child in inner]

    def named(self) -> Iterator[Parts]:
        """The names that were given, relative to this one."""
        pending: list[tuple[Parts, Selection]] = [((), self)]
        while pending:
            parts, node = pending.pop()
            if node.whole:
                yield parts
            pending += [((*parts, name), child) for name, child in sorted(node.below.items(), reverse=True)]


def select(names: Iterable[bytes]) -> Selection:
    """Names with slashes between their components; one at the start, or dots, change nothing.

    Raises :class:`UsageError` for what leads out of the source, or can be no name.
    """
    selection = Selection()
    for number, name in enumerate(names, 1):
        parts = tuple([part for part in name.split(b"/") if part not in (b"", b".")])
        if b".." in parts:
            raise UsageError(f"--files-from, name {number}: {printable(name)} leads out of the source")
        long = len(name) > MAX_PATH_BYTES or len(parts) > MAX_PATH_PARTS
        if long or b"\0" in name or max(map(len, parts), default=0) > MAX_NAME:
            raise UsageError(f"--files-from, name {number}: {printable(name[:80])}… cannot be the name of a file")
        selection.add(parts)
    return selection


def split_names(data: bytes, *, nul: bool) -> list[bytes]:
    """The names in a file: lines, of which empty ones and those that begin with ``#`` or ``;`` say nothing.

    With ``nul`` they end with zero bytes instead, and only empty ones say nothing.
    """
    if nul:
        return [name for name in data.split(b"\0") if name]
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [line for line in lines if line and line[:1] not in (b"#", b";")]
