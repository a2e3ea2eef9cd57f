"""A tree, page by page, parents before children.

Theory: the walk is iterative (a deep tree must not exhaust the stack) and reads one directory at a time from its
beginning to its end, so that it never holds more than one directory open, whatever the depth; what it remembers is
the directories still to be read.  It knows no file system: ``scan`` lists one directory, and both a held root and a
dictionary in a test can do that.  Symbolic links are reported and never followed, so there are no cycles.

One directory that cannot be read is one failed entry; the walk goes on beside it.  So is one with names that make
longer paths than can be said; these are left out.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Group
from fsmux.errors import FsmuxError, StorageError
from fsmux.limits import MAX_NAME, MAX_PATH_BYTES, MAX_PATH_PARTS
from fsmux.records import Attrs, Kind, Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    Scan: TypeAlias = Callable[[Parts], Iterable[Iterable[tuple[bytes, Attrs]]]]
    Keep: TypeAlias = Callable[[Parts, bool], bool]
    List: TypeAlias = Callable[[Parts], Iterable[Group]]

PAGE: Final = 1000
"""Entries per page: enough to make a thread hop cheap, few enough to show progress and to fit a message."""

DIRECTORY_COST: Final = 10
"""Entries that opening and closing a directory costs as much as."""

AHEAD: Final = 16 * PAGE
"""Entries that are known of before it is their turn, at about 200 bytes each: of smaller trees it can soon be said how
much there is of them."""

AHEAD_STEP: Final = PAGE // 2
"""Entries that are read before their turn at once: some 2 ms, for which a pack may have to wait."""

STATE_DIRECTORY: Final = b".fsmux"
"""Where a receiver keeps its journals.  It is nobody's content, so no walk shows it."""


class Listed(NamedTuple):
    """One entry of a listing: what it is, or why that could not be found out.

    A directory that can be seen but not read appears twice: with its attributes, and with the error.
    """

    parts: Parts
    attrs: Attrs | None
    error: FsmuxError | None = None


def keep_all(parts: Parts, is_directory: bool) -> bool:
    return True


def walk(
    scan: Scan, top: Parts = (), *, keep: Keep = keep_all, page_size: int = PAGE
) -> Generator[list[Listed], None, None]:
    """Everything beneath the directory ``top``, in non-empty pages; ``parts`` are relative to ``top``.

    ``keep`` is asked about every entry before it is reported; a directory that is not kept is not read either.
    Raises what ``scan`` raises for ``top`` itself; a failure further down becomes an entry.  The order of names within
    a directory is that of ``scan``.  Blocks as ``scan`` does.
    """
    page: list[Listed] = []
    pending: list[Parts] = [()]
    while pending:
        directory = pending.pop()
        found: list[Parts] = []
        room, left_out = _room(top + directory), 0
        try:
            for names in scan(top + directory):
                for name, attrs in names:
                    parts = (*directory, name)
                    if len(name) > room:
                        left_out += 1
                        continue
                    is_directory = attrs.kind is Kind.DIRECTORY
                    if name == STATE_DIRECTORY or not keep(parts, is_directory):
                        continue
                    page.append(Listed(parts, attrs))
                    if is_directory:
                        found.append(parts)
                    if len(page) >= page_size:
                        yield page
                        page = []
        except FsmuxError as error:
            if not directory:
                raise
            page.append(Listed(directory, None, error))
        if left_out:
            page.append(Listed(directory, None, _too_long(left_out)))
        pending += reversed(found)
    if page:
        yield page


def preorder(listing: List, top: Parts = ()) -> Generator[Group, None, None]:
    """Everything beneath the directory ``top`` in groups, whose directories are relative to ``top``.

    Each directory has at least one group, even an empty one, and what is in it comes behind it, in the order of names.
    Raises what ``listing`` raises for ``top`` itself; further down that is a group with an error.  Blocks as it does.
    """
    pending: list[Parts] = [()]
    while pending:
        directory = pending.pop()
        found: list[bytes] = []
        room, left_out = _room(top + directory), 0
        try:
            for group in listing(top + directory):
                group.directory = directory
                if room < MAX_NAME and (long := sum([len(name) > room for name in group.names])):
                    left_out += long
                    group = kept(group, partial(_fits, room))
                group.more = group.more or left_out > 0
                found += group.subdirectories()
                yield group
            if left_out:
                yield Group(directory, error=_too_long(left_out))
        except FsmuxError as error:
            if not directory:
                raise
            yield Group(directory, error=error)
        for name in reversed(found):
            pending.append((*directory, name))


class Ahead:
    """The same groups one after the other, with others read before it is their turn: then it is known what comes."""

    def __init__(self, groups: Iterator[Group]) -> None:
        self._groups = groups
        self._waiting: deque[Group] = deque()
        self._entries = 0  # in these
        self._shared: set[bytes] = set()
        self.files = 0
        """Regular files that were read until now, and in ``bytes`` the sum of their sizes; of a file with several names
        once."""
        self.bytes = 0
        self.ended = False
        """Whether there are no others."""

    def __iter__(self) -> Iterator[Group]:
        while self._waiting or self._read():
            group = self._waiting.popleft()
            self._entries -= len(group) + DIRECTORY_COST
            yield group

    @property
    def may_read(self) -> bool:
        """Whether there are others, and not too many wait already."""
        return not self.ended and self._entries < AHEAD

    def read_on(self) -> None:
        """Read some more. Blocks as the groups do."""
        most = self._entries + AHEAD_STEP
        while self._entries < most and self.may_read and self._read():
            pass

    def _read(self) -> bool:
        group = next(self._groups, None)
        if group is None:
            self.ended = True
            return False
        self._waiting.append(group)
        self._entries += len(group) + DIRECTORY_COST
        self.files += len(group) if group.kinds == {REGULAR} else sum(map(S_ISREG, group.modes))
        self.bytes += sum(group.sizes)
        for index, key in group.shared.items():
            if key in self._shared:
                self.bytes -= group.sizes[index]
            self._shared.add(key)
        return True


def kept(group: Group, keep: Keep) -> Group:
    """The group without what is left out."""
    indexes = [
        index
        for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True))
        if keep((*group.directory, name), mode & KIND_BITS == DIRECTORY)
    ]
    if len(indexes) == len(group):
        return group
    picked = group.pick(indexes)
    picked.more, picked.error = group.more, group.error
    return picked


def batches(groups: Iterable[Group], entries: int = PAGE) -> Generator[list[Group], None, None]:
    """The groups, some at a time: what is worth a hop to a thread."""
    batch: list[Group] = []
    count = 0
    for group in groups:
        batch.append(group)
        count += len(group) + DIRECTORY_COST
        if count >= entries:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _room(directory: Parts) -> int:
    """Bytes of a name in it of which the path can be written."""
    if len(directory) >= MAX_PATH_PARTS:
        return 0
    return MAX_PATH_BYTES - sum(map(len, directory)) - len(directory)


def _fits(room: int, parts: Parts, is_directory: bool) -> bool:
    return len(parts[-1]) <= room


def _too_long(names: int) -> StorageError:
    what = "1 name in it makes a path" if names == 1 else f"{names} names in it make paths"
    return StorageError(f"{what} of more than {MAX_PATH_BYTES} bytes or {MAX_PATH_PARTS} components")
