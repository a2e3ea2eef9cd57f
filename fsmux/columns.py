"""Entries of one directory as columns: how trees are listed, planned and moved.

Theory: an object per file costs a microsecond wherever one is made, and there are a dozen such places between two
disks.  A :class:`Group` holds up to a thousand entries of one directory in a handful of lists, which Python builds,
compares, joins and sends at the speed of C: a directory in which nothing has changed is found equal by comparing four
lists, and one that is new is passed on as it is.  Only what is out of the ordinary is ever looked at one by one.

A name's kind is in its mode, as in ``st_mode``, so that one number says both.
"""

from __future__ import annotations

import stat
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct, field

from fsmux.limits import XATTR_COST

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from fsmux.errors import FsmuxError
    from fsmux.records import Parts, Xattrs

T = TypeVar("T")

GROUP_ENTRIES: Final = 1000
"""Entries in one group at most: enough to make what is done once per group cheap."""

KIND_BITS: Final = 0o170000
REGULAR: Final = stat.S_IFREG
DIRECTORY: Final = stat.S_IFDIR
SYMLINK: Final = stat.S_IFLNK
EARLIEST: Final = -(2**63)
LATEST: Final = 2**63 - 1
"""Nanoseconds: the times that a message can say."""

MODE_BITS: Final = KIND_BITS | 0o777
"""What of ``st_mode`` is kept."""


class Act(IntEnum):
    """What is to be done with the entries of a group: make them, set mode and time of what stands there, remove it, or
    give a file that stands there one more name.

    A group that removes says of each name whether it is a directory, which goes with all that is in it.  One that lists
    is about nothing to be done: it is among packs that nobody asked for, and says what else there is.
    """

    MAKE = 0
    ADJUST = 1
    REMOVE = 2
    LINK = 3
    LIST = 4


class Group(Struct):
    """Entries of ``directory``.  The columns are parallel; ``targets`` has one item for each symbolic link, in order.
    Of what is to be linked it has the path that each file has already, below what ``directory`` is below of.
    ``owners``, if they are kept, has user and group of each entry, as :func:`owner_of` makes one number of them.
    ``shared`` has, for files with several names, a key that is the same for all names of one file, and no other's.
    ``xattrs``, if they are kept, has the extended attributes of entries that have any, and None if they are not known.

    A group without names and with one mode and time is about the directory itself.  ``finish``: the directory gets this
    time and mode when all else of its pack is done.  ``crcs`` and ``lost`` (index and error of what could not be read)
    and ``holed`` (indexes of files with holes) belong to groups whose contents travel, and so does ``as_asked``: all
    else is as it was when they were asked for, and is not said again.
    ``found`` has the times with which it was found what is to be adjusted: with another one it is another file.
    ``more``: the next group goes on with the same directory.  ``error``: it, or the rest of it, cannot be read.
    """

    directory: Parts
    names: list[bytes] = []
    sizes: list[int] = []
    mtimes: list[int] = []
    modes: list[int] = []
    targets: list[bytes] = []
    act: Act = Act.MAKE
    crcs: list[int] = []
    lost: list[tuple[int, FsmuxError]] = []
    holed: list[int] = []
    as_asked: bool = False
    finish: tuple[int, int] | None = None
    more: bool = False
    error: FsmuxError | None = None
    shared: dict[int, bytes] = field(default_factory=dict)
    owners: list[int] = field(default_factory=list)
    xattrs: dict[int, Xattrs | None] = field(default_factory=dict)
    found: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def itself(self) -> bool:
        """Whether it is about the directory and not about what is in it."""
        return not self.names and bool(self.modes)

    @property
    def kinds(self) -> set[int]:
        return {mode & KIND_BITS for mode in set(self.modes)}

    @property
    def contents(self) -> int:
        """Bytes of files that come with it."""
        if self.act is Act.LIST:
            return 0
        return sum(self.sizes) - sum([self.sizes[index] for index, _ in self.lost])

    def link_targets(self) -> dict[int, bytes]:
        """The texts of its symbolic links, or where what is to be linked stands, by index."""
        if not self.targets:
            return {}
        if self.act is Act.LINK:
            return dict(enumerate(self.targets))
        links = [index for index, mode in enumerate(self.modes) if mode & KIND_BITS == SYMLINK]
        return dict(zip(links, self.targets, strict=True))

    def subdirectories(self) -> list[bytes]:
        if DIRECTORY not in self.kinds:
            return []
        return [name for name, mode in zip(self.names, self.modes, strict=True) if mode & KIND_BITS == DIRECTORY]

    def pick(self, indexes: Sequence[int], act: Act = Act.MAKE) -> Group:
        """A group of some of the entries, in this order."""
        names, sizes, mtimes, modes = self.names, self.sizes, self.mtimes, self.modes
        texts = self.link_targets()
        return Group(
            self.directory,
            [names[index] for index in indexes],
            [sizes[index] for index in indexes],
            [mtimes[index] for index in indexes],
            [modes[index] for index in indexes],
            [texts[index] for index in indexes if index in texts] if texts else [],
            act,
            shared=_moved(self.shared, indexes) if self.shared else {},
            owners=[self.owners[index] for index in indexes] if self.owners else [],
            xattrs=_moved(self.xattrs, indexes) if self.xattrs else {},
            found=[self.found[index] for index in indexes] if self.found else [],
        )

    def cut(self, start: int, stop: int) -> Group:
        """The entries from ``start`` to before ``stop``."""
        if start == 0 and stop >= len(self.names):
            return self
        texts = [text for index, text in self.link_targets().items() if start <= index < stop] if self.targets else []
        return Group(
            self.directory,
            self.names[start:stop],
            self.sizes[start:stop],
            self.mtimes[start:stop],
            self.modes[start:stop],
            texts,
            self.act,
            more=self.more or stop < len(self.names),
            error=self.error if stop >= len(self.names) else None,
            shared=_moved(self.shared, range(start, stop)) if self.shared else {},
            owners=self.owners[start:stop],
            xattrs=_moved(self.xattrs, range(start, stop)) if self.xattrs else {},
            found=self.found[start:stop],
        )


def _moved(column: dict[int, T], indexes: Sequence[int]) -> dict[int, T]:
    """What a sparse column has of some entries, by their new indexes."""
    return {place: column[index] for place, index in enumerate(indexes) if index in column}


def itself(
    directory: Parts, mtime: int, mode: int, act: Act, owner: int | None = None, xattrs: Xattrs | None = ()
) -> Group:
    """A group about a directory itself."""
    owners = [] if owner is None else [owner]
    return Group(directory, [], [0], [mtime], [mode], [], act, owners=owners, xattrs=sparse([xattrs]))


def sparse(xattrs: Iterable[Xattrs | None]) -> dict[int, Xattrs | None]:
    """The column of entries with these extended attributes."""
    return {index: found for index, found in enumerate(xattrs) if found != ()}


def owner_of(facts: os.stat_result) -> int:
    """User and group as one number."""
    return facts.st_uid << 32 | facts.st_gid


def time_of(facts: os.stat_result) -> int:
    """When it was modified, in nanoseconds, or the nearest time that 64 bits can say: from 1677 to 2262."""
    return min(max(facts.st_mtime_ns, EARLIEST), LATEST)


def times_of(facts: Sequence[os.stat_result]) -> list[int]:
    """:func:`time_of` of each."""
    times = [one.st_mtime_ns for one in facts]
    if times and not EARLIEST <= min(times) <= max(times) <= LATEST:
        return list(map(time_of, facts))
    return times


def user_and_group(owner: int) -> tuple[int, int]:
    """What :func:`owner_of` has made one number of."""
    return divmod(owner, 2**32)


OWNER_COST: Final = 10
"""Bytes of that number, at most."""

TIME_COST: Final = 8
"""Bytes of a time."""


ENTRY_COST: Final = 18
"""Bytes that an entry takes in a message beside its name, its size and its link's text: eight for the time, three for
the mode, four for the checksum, two to say that it has holes, and what joins the names."""

FINISH_COST: Final = 15
"""Bytes of time and mode of a directory that a group finishes."""

KEY_SIZE: Final = 16
"""Bytes of a key in ``Group.shared``."""

SHARED_COST: Final = KEY_SIZE + 3
"""Bytes that a file with several names takes beside that: the key, and its index."""

XATTRS_COST: Final = 12
"""Bytes of an entry that has extended attributes, beside these: its index, and that they are not known."""

ERROR_COST: Final = 4 * 400 + 10
"""Bytes of why a directory cannot be read, at most."""

INDEX_BYTES: Final = 40 * 1024
"""Bytes of a message full of groups, by the same reckoning: what is left up to the limit of 64 KiB is for errors."""


def weight(group: Group) -> int:
    """More bytes than the group takes in a message."""
    directory, names, texts = group.directory, group.names, group.targets
    size = 64 + sum(map(len, directory)) + 4 * len(directory)
    if names:
        size += sum(map(len, names)) + _entry_cost(group) * len(names) + SHARED_COST * len(group.shared)
    if texts:
        size += sum(map(len, texts)) + 4 * len(texts)
    if group.xattrs:
        size += sum(map(_xattrs_cost, group.xattrs.values()))
    return size + ERROR_COST if group.error is not None else size


def xattrs_size(xattrs: Xattrs) -> int:
    """Bytes that they take in a message, at most."""
    return sum([len(name) + len(value) + XATTR_COST for name, value in xattrs])


def _xattrs_cost(xattrs: Xattrs | None) -> int:
    return XATTRS_COST + xattrs_size(xattrs or ())


def _entry_cost(group: Group) -> int:
    """Bytes of an entry beside its texts, at most: a size takes a byte for each seven bits."""
    more = OWNER_COST * bool(group.owners) + TIME_COST * bool(group.found)
    return ENTRY_COST + more + max(max(group.sizes, default=0).bit_length() + 6, 7) // 7


def finished_by(filling: Group | None, group: Group) -> bool:
    """Have a directory be finished as ``group`` says by the last one that fills it; False if that cannot be."""
    if filling is None or group.owners or group.xattrs:
        return False
    filling.finish = group.mtimes[0], group.modes[0]
    return True


class Packer:
    """Gathers groups into batches that fit one message, and hold about ``most_bytes`` of contents.

    Nothing is ever left out or put in another order.  A group may be cut, but not if it fits a batch and the one that
    it does not fit any more is half full: a directory whose files come together can appear whole.
    """

    def __init__(self, most_bytes: int, most_entries: int = GROUP_ENTRIES) -> None:
        self.most_bytes = most_bytes
        """May be changed at any time."""
        self._most_entries = most_entries
        self._clear()

    def _clear(self) -> None:
        self._groups: list[Group] = []
        self._latest: dict[Parts, Group] = {}
        self._entries = self._bytes = self._weight = 0

    @property
    def empty(self) -> bool:
        return not self._groups

    def put(self, group: Group) -> Iterator[list[Group]]:
        """Add a group; what became full comes out."""
        while True:
            size, contents = weight(group), group.contents
            if (
                self._entries + max(len(group), 1) <= self._most_entries
                and self._bytes + contents <= self.most_bytes
                and self._weight + size <= INDEX_BYTES
            ):
                self._add(group, size, contents)
                return
            room = self._room_for(group)
            if room >= max(len(group), 1):  # it alone is too much for a batch, and cannot be cut
                self._add(group, size, contents)
                return
            if room and not (self._half_full and self._fits(group, size, contents)):
                self._groups.append(group.cut(0, room))
                group = group.cut(room, len(group))
            yield self.flush()

    def all(self, groups: Iterable[Group]) -> Iterator[list[Group]]:
        """All of these groups, in batches."""
        for group in groups:
            yield from self.put(group)
        if not self.empty:
            yield self.flush()

    def finish(self, group: Group) -> bool:
        """Have a directory be finished by the group that fills it, if that is still here; False if it is not."""
        if self._weight + FINISH_COST > INDEX_BYTES or not finished_by(self._latest.get(group.directory), group):
            return False
        self._weight += FINISH_COST
        return True

    @property
    def _half_full(self) -> bool:
        most = max(self._bytes / self.most_bytes, self._entries / self._most_entries, self._weight / INDEX_BYTES)
        return most >= 0.5

    def _fits(self, group: Group, size: int, contents: int) -> bool:
        """Whether it would have a batch to itself."""
        return len(group) <= self._most_entries and contents <= self.most_bytes and size <= INDEX_BYTES

    def flush(self) -> list[Group]:
        """What was gathered; it starts anew."""
        groups = self._groups
        self._clear()
        return groups

    def _add(self, group: Group, size: int, contents: int) -> None:
        self._groups.append(group)
        if group.act is Act.MAKE and group.names:
            self._latest[group.directory] = group
        self._entries += max(len(group), 1)
        self._bytes += contents
        self._weight += size

    def _room_for(self, group: Group) -> int:
        """How many entries of the group still fit; one if the batch is empty, however large that is."""
        if not group.names:
            return int(self.empty)
        entries, contents = self._entries, self._bytes
        cost = self._weight + weight(Group(group.directory))
        each = _entry_cost(group) + 4
        texts = group.link_targets()
        for index, (name, length) in enumerate(zip(group.names, group.sizes, strict=True)):
            cost += len(name) + each + len(texts.get(index, b"")) + SHARED_COST * (index in group.shared)
            if index in group.xattrs:
                cost += _xattrs_cost(group.xattrs[index])
            contents += length * (group.act is not Act.LIST)
            entries += 1
            if entries > self._most_entries or contents > self.most_bytes or cost > INDEX_BYTES:
                return max(index, 1) if self.empty else index
        return len(group)
