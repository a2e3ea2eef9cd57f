"""On what terms the packs of one stream are written, and what of them does not stand.

Theory: whoever writes, links, removes or adjusts entries asks the same few questions of every one of them (are owners
set, is it read back, is it synced by itself), so they are answered once, before the first; and each entry that fails
is noted in one list, under its numbers, and takes none of the others with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fsmux.columns import Act
from fsmux.errors import NotFound, StorageError, from_os_error
from fsmux.files.attributes import settable
from fsmux.files.holding import tells_of_writes
from fsmux.records import Durability, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsmux.columns import Group
    from fsmux.errors import FsmuxError
    from fsmux.files.root import Root
    from fsmux.files.state import StateDir
    from fsmux.records import Kept, Parts, Xattrs


class Failure(NamedTuple):
    """An entry that does not stand: the numbers of its pack, of its group in it, and of itself in the group.

    Or one that ``stands``, but for what the error is about.
    """

    pack: int
    group: int
    entry: int
    error: FsmuxError
    stands: bool = False


class Staged(NamedTuple):
    """A group that is to be committed: its files are in ``state``, each as (name until then, number in the group).

    Without ``state`` nothing of it was written: it is to be linked, removed or adjusted, and ``first`` is the number of
    its first entry.  ``at_home``: they have their names, in what is to be their directory (:mod:`.whole`).
    """

    pack: int
    place: int
    group: Group
    state: StateDir | None
    files: list[tuple[bytes, int]]
    at_home: bool = False
    first: int = 0

    @property
    def indexes(self) -> Iterable[int]:
        """All that it is about."""
        if self.state is None:
            return range(self.first, self.first + max(len(self.group), 1))
        return [index for _, index in self.files]


class Terms:
    """What is kept of entries below ``base``, and what is promised of them."""

    def __init__(self, root: Root, base: Parts, durability: Durability, kept: Kept, *, verify: bool) -> None:
        self.root = root
        self.sys = root.sys
        self.base = base
        self.kept = kept
        self.owners = root.sys.euid() == 0
        self.namespaces = settable(root.sys, kept.xattrs)
        self.verify = verify
        self.durable = durability is not Durability.NONE
        together = durability is Durability.BATCH or (verify and not self.durable)
        self.together = together and tells_of_writes(root.sys)
        """Whether file systems are synced, for all that was written to them; otherwise files are, each by itself."""
        self.failures: list[Failure] = []

    @property
    def settles(self) -> bool:
        """Whether a directory is synced as soon as it was changed."""
        return self.durable and not self.together

    def owner(self, group: Group, index: int) -> int | None:
        """What an entry is to have; None if that is left alone."""
        return group.owners[index] if group.owners and self.owners else None

    def xattrs(self, group: Group, index: int) -> Xattrs | None:
        """What an entry is to have; None if that is left alone."""
        return group.xattrs.get(index, ()) if self.namespaces else None

    def name_of(self, group: Group, index: int) -> str:
        return printable((*self.base, *group.directory, group.names[index]))

    def fail(self, pack: int, place: int, indexes: Iterable[int], error: FsmuxError) -> None:
        error = _of_target(error)
        self.failures += [Failure(pack, place, index, error) for index in indexes]

    def fail_group(self, one: Staged, error: FsmuxError) -> None:
        self.fail(one.pack, one.place, one.indexes, error)

    def fail_entry(self, one: Staged, index: int, error: OSError | FsmuxError) -> None:
        if isinstance(error, OSError):
            error = from_os_error(error, self.name_of(one.group, index))
        if one.group.act is not Act.LINK:  # what is to get a further name may be named wrongly
            error = _of_target(error)
        self.failures.append(Failure(one.pack, one.place, index, error))

    def note_refused(self, one: Staged, index: int, error: FsmuxError) -> None:
        """An entry stands without something of it."""
        self.failures.append(Failure(one.pack, one.place, index, error, stands=True))


def _of_target(error: FsmuxError) -> FsmuxError:
    """What is not there any more where files are received is not a source that has vanished."""
    return StorageError(f"{error}, any more, at the destination") if isinstance(error, NotFound) else error
