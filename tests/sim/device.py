"""A file system in memory that loses whatever it is allowed to lose.

Theory.  A :class:`Device` is one disk with the kernel's cache before it.  What a program sees is the cache; what a
power cut leaves is the *stable* part and any subset of what was not synced that a file system may legally have written
by itself.  The model is weaker than any real one, so that nothing can be right by the habits of ext4:

* bytes: each piece of an unsynced write (a block, or a few bytes of a small write) is there or not, by itself;
* size: grows and shrinks in order, before or without the bytes that belong there, which then read as zeros;
* names: each name of a directory is at any of the states it had since that directory was synced, each by itself.  Only
  three things hold: a rename never loses the file (the old name goes only if the new one is there), a directory never
  has two names (one that is renamed is here or there), and an inode number is used again only if the name that had it
  is gone;
* modes and times: the old or the new ones;
* a failed write-back drops the pages, calls them clean and says so once for each open file (errseq), and to ``syncfs``
  once for each descriptor that was open by then.  They still answer reads until somebody drops them from the cache;
  then the old bytes are back;
* ``syncfs`` is worth nothing unless the device says ``linux`` of a kernel whose ``syncfs`` tells of failed writes.

A *fork* is what a ``kill -9`` leaves: everything, but nobody has it open.  A *crash* is what a power cut leaves.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sim.choices import Chooser

BLOCK: Final = 16 * 1024
"""Bytes of a piece of a large write. A quarter of the smallest chunk: enough to tear it, few enough to enumerate."""

_ZEROS: Final = bytes(BLOCK)

TORN: Final = 12
"""Bytes of a piece of a small write: half of a journal's record."""

START_NS: Final = 1_700_000_000_000_000_000
TICK_NS: Final = 1_000
"""Nanoseconds between two moments of the device's clock: no two changes have the same time."""

DEVICE: Final = 7
UID: Final = 1000

QUIET_LINUX: Final = "5.7.0"
"""The last Linux on which nobody may rely on ``syncfs``."""

TELLING_LINUX: Final = "6.1.0"
"""A Linux whose ``syncfs`` fails if a write did."""

FOLDER: Final = b"an empty directory"
"""The content of one."""

LINK: Final = b"a link to "
"""What the content of a symbolic link begins with; no file of a test does."""


class Facts:
    """What stat says."""

    def __init__(self, inode: Inode) -> None:
        self.st_mode = inode.mode
        self.st_ino = inode.number
        self.st_dev = DEVICE
        self.st_nlink = inode.links
        self.st_uid = self.st_gid = UID
        self.st_size = len(inode.data) if inode.is_file else len(inode.target)
        self.st_mtime_ns = inode.mtime_ns
        self.st_ctime_ns = inode.ctime_ns
        self.st_blocks = -(-(self.st_size - inode.holes) // 512)


@dataclass(eq=False, slots=True)
class Inode:
    """A file, directory or symbolic link, as the cache has it and as the device does."""

    number: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    links: int = 0
    users: int = 0
    target: bytes = b""
    data: bytearray = field(default_factory=bytearray)
    stable: bytes = b""
    pending: list[int | tuple[int, bytes]] = field(default_factory=list)
    """Unsynced changes in order: a new size, or a piece as (offset, bytes)."""
    stable_facts: tuple[int, int, int] = (0, 0, 0)
    failures: int = 0
    """Failed write-backs; an open file that has seen fewer of them learns of it at its next sync."""
    reported: int = 0
    """How many of them somebody has been told of; a file opened later hears of the others only."""
    lock: object | None = None
    entries: dict[bytes, Inode] = field(default_factory=dict)
    history: dict[bytes, list[Change]] = field(default_factory=dict)
    """By name the changes since the last sync of this directory, the oldest first."""
    stable_entries: dict[bytes, Inode] = field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def shown(self) -> bytes | bytearray:
        """What its name shows: the bytes of a file, where a link leads."""
        if self.is_directory:
            return FOLDER
        return LINK + self.target if stat.S_ISLNK(self.mode) else self.data

    @property
    def holes(self) -> int:
        """How many bytes take no room: a block of zeros is a hole, whether it was written or not."""
        return BLOCK * sum(is_zero(self.data, at, at + BLOCK) for at in range(0, len(self.data) - BLOCK + 1, BLOCK))

    @property
    def facts(self) -> tuple[int, int, int]:
        return (self.mode, self.mtime_ns, self.ctime_ns)


@dataclass(eq=False, slots=True)
class Change:
    """One change of a name; it can be there only if those it ``needs`` are."""

    directory: Inode
    name: bytes
    value: Inode | None
    needs: tuple[Change, ...] = ()


class Device:
    """One disk. Not thread-safe: whoever simulates runs one thing at a time."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.numbers: dict[int, Inode] = {}
        self.freed: dict[int, Change] = {}
        self.capacity = 1 << 40
        self.linux = QUIET_LINUX
        self.failures = 0
        """Failed write-backs of any file; a ``syncfs`` that has heard of fewer of them fails."""
        self.reported = 0
        """How many of them somebody has been told of."""
        self.root = self.make(stat.S_IFDIR | 0o755)
        self.root.links = 1
        self.root.stable_facts = self.root.facts

    def tick(self) -> int:
        self.now_ns += TICK_NS
        return self.now_ns

    # ---- inodes and names ------------------------------------------------------------------------------------------

    def make(self, mode: int) -> Inode:
        number = 2
        while number in self.numbers:
            number += 1
        now = self.tick()
        inode = self.numbers[number] = Inode(number, mode, now, now)
        inode.stable_facts = inode.facts
        return inode

    def put(self, directory: Inode, name: bytes, value: Inode | None, needs: tuple[Change, ...] = ()) -> Change:
        """Give a name to something else, or to nothing."""
        if value is not None and (freed := self.freed.get(value.number)) is not None and not value.links:
            needs = (*needs, freed)
        change = Change(directory, name, value, needs)
        old = directory.entries.pop(name, None)
        if value is not None:
            directory.entries[name] = value
            value.links += 1
            value.ctime_ns = self.tick()
        directory.history.setdefault(name, []).append(change)
        directory.mtime_ns = directory.ctime_ns = self.tick()
        if old is not None:
            old.links -= 1
            old.ctime_ns = self.tick()
            self.freed[old.number] = change
            self.forget(old)
        return change

    def forget(self, inode: Inode) -> None:
        """Let an inode that nobody can reach go, and its number be used again."""
        if not inode.links and not inode.users and self.numbers.get(inode.number) is inode:
            del self.numbers[inode.number]

    # ---- contents --------------------------------------------------------------------------------------------------

    def resize(self, inode: Inode, size: int) -> None:
        if size != len(inode.data):
            _resize(inode.data, size)
            inode.pending.append(size)
            inode.mtime_ns = inode.ctime_ns = self.tick()

    def write(self, inode: Inode, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(inode.data):
            self.resize(inode, end)
        inode.data[offset:end] = data
        step = BLOCK if len(data) >= BLOCK else TORN
        at = offset
        while at < end:
            stop = min(end, (at // step + 1) * step)
            inode.pending.append((at, data[at - offset : stop - offset]))
            at = stop
        inode.mtime_ns = inode.ctime_ns = self.tick()

    def sync(self, inode: Inode, *, whole: bool) -> None:
        """All of it is on the device, or with ``whole`` mode and times too."""
        self.tick()
        if inode.is_directory:
            for changes in inode.history.copy().values():
                for change in changes.copy():
                    self._settle(change)
        elif inode.pending:
            stable = bytearray(
                inode.stable
            )  # and not what is cached: pages whose write-back failed are no longer dirty
            for op in inode.pending:
                _apply(stable, op)
            inode.stable = bytes(stable)
            inode.pending.clear()
        if whole:
            inode.stable_facts = inode.facts

    def sync_all(self) -> None:
        """All of everything is on the device."""
        for inode in list(self._everything()):
            self.sync(inode, whole=True)

    def _settle(self, change: Change) -> None:
        """A change is on the device, and all that must be there before it."""
        changes = change.directory.history.get(change.name, [])
        if change not in changes:
            return  # it is there already
        while changes:
            first = changes.pop(0)
            if not changes:
                del change.directory.history[change.name]
            for needed in first.needs:
                self._settle(needed)
            _set(change.directory.stable_entries, first)
            if first is change:
                return

    def fail_writeback(self, inode: Inode) -> None:
        """The device refuses what was not synced: it is gone for good, though reads still find it in the cache."""
        self.tick()
        sizes = [op for op in inode.pending if isinstance(op, int)]
        stable = bytearray(inode.stable)
        for size in sizes:
            _resize(stable, size)
        inode.stable = bytes(stable)
        inode.pending.clear()
        inode.failures += 1
        self.failures += 1

    def fail_all(self) -> None:
        """The device refuses all that is dirty."""
        for inode in list(self._everything()):
            if inode.is_file and inode.pending:
                self.fail_writeback(inode)

    def drop_cache(self, inode: Inode) -> None:
        """Clean pages are read anew; dirty ones stay."""
        seen = bytearray(inode.stable)
        for op in inode.pending:
            _apply(seen, op)
        inode.data = seen

    # ---- what is left ----------------------------------------------------------------------------------------------

    def unsynced(self) -> int:
        """How many ways to crash there are, about: the product of all that can be or not be."""
        ways = 1
        for inode in self._everything():
            pieces = sum(isinstance(op, tuple) for op in inode.pending)
            ways *= 2**pieces * (1 + len(inode.pending) - pieces) * (1 + (inode.stable_facts != inode.facts))
            for changes in inode.history.values():
                ways *= 1 + len(changes)
        return ways

    def _everything(self) -> Iterator[Inode]:
        """All that can be reached now, or can be reached after some crash."""
        seen: set[int] = set()
        todo = [self.root]
        while todo:
            inode = todo.pop()
            if id(inode) in seen:
                continue
            seen.add(id(inode))
            yield inode
            todo += inode.entries.values()
            todo += inode.stable_entries.values()
            todo += [change.value for changes in inode.history.values() for change in changes if change.value]

    def fork(self) -> Device:
        """The same disk with the same cache, after the last process has died."""
        return _Copy(self, None).device

    def crash(self, chooser: Chooser) -> Device:
        """What is there when power is back; ``chooser`` says what the file system had written."""
        return _Copy(self, chooser).device


def is_zero(data: bytes | bytearray, start: int, end: int) -> bool:
    """Whether a range of at most a block has only zeros."""
    return not data[start] and data[start:end] == _ZEROS[: end - start]


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def _apply(data: bytearray, op: int | tuple[int, bytes]) -> None:
    if isinstance(op, int):
        _resize(data, op)
        return
    offset, piece = op
    piece = piece[: max(0, len(data) - offset)]  # beyond the size that is on the device nothing can be seen
    data[offset : offset + len(piece)] = piece


def _set(entries: dict[bytes, Inode], change: Change) -> None:
    if change.value is None:
        entries.pop(change.name, None)
    else:
        entries[change.name] = change.value


class _Copy:
    """A device made from another one: by choice what a crash leaves, or without one everything."""

    def __init__(self, old: Device, chooser: Chooser | None) -> None:
        self.device = device = Device.__new__(Device)
        device.now_ns = old.now_ns + TICK_NS
        device.capacity = old.capacity
        device.linux = old.linux
        device.failures, device.reported = (old.failures, old.reported) if chooser is None else (0, 0)
        device.numbers = {}
        device.freed = {}
        self._chooser = chooser
        self._made: dict[int, Inode] = {}
        self._changes: dict[int, Change] = {}
        self._kept: dict[tuple[int, bytes], int] = {}
        if chooser is not None:
            for inode in old._everything():
                for name, changes in inode.history.items():
                    self._kept[id(inode), name] = chooser.upto(len(changes))
            self._add_needed(old)
        device.root = self._copy(old.root)
        device.root.links = 1

    def _add_needed(self, old: Device) -> None:
        """Keep also what is needed by what is kept."""
        todo = [
            change
            for inode in old._everything()
            for name, changes in inode.history.items()
            for change in changes[: self._kept[id(inode), name]]
        ]
        while todo:
            for needed in todo.pop().needs:
                changes = needed.directory.history.get(needed.name, [])
                if needed in changes:
                    key, count = (id(needed.directory), needed.name), changes.index(needed) + 1
                    todo += changes[self._kept.get(key, 0) : count]
                    self._kept[key] = max(count, self._kept.get(key, 0))

    def _copy(self, old: Inode) -> Inode:
        made = self._made.get(id(old))
        if made is not None:
            return made
        chooser = self._chooser
        if chooser is None or old.facts == old.stable_facts or chooser.facts():
            mode, mtime_ns, ctime_ns = old.facts
        else:
            mode, mtime_ns, ctime_ns = old.stable_facts
        made = self._made[id(old)] = Inode(old.number, mode, mtime_ns, ctime_ns, target=old.target)
        made.stable_facts = old.stable_facts if chooser is None else made.facts
        self.device.numbers[old.number] = made
        if old.is_file:
            self._copy_content(old, made)
        elif old.is_directory:
            self._copy_entries(old, made)
        return made

    def _copy_content(self, old: Inode, made: Inode) -> None:
        if self._chooser is None:
            made.data, made.stable = bytearray(old.data), old.stable
            made.pending = old.pending.copy()
            made.failures, made.reported = old.failures, old.reported
            return
        if old.pending:
            self._chooser.begin_file(len(old.data))
            data = bytearray(old.stable)
            sizes = self._chooser.upto(sum(isinstance(op, int) for op in old.pending))
            for op in old.pending:
                if isinstance(op, int):
                    sizes -= 1
                    if sizes < 0:
                        continue
                elif not self._chooser.keep():
                    continue
                _apply(data, op)
            made.stable = bytes(data)
        else:
            made.stable = old.stable
        made.data = bytearray(made.stable)

    def _copy_entries(self, old: Inode, made: Inode) -> None:
        if self._chooser is None:
            for name, value in old.entries.items():
                made.entries[name] = self._link(value)
            for name, value in old.stable_entries.items():
                made.stable_entries[name] = self._copy(value)
            for name, changes in old.history.items():
                made.history[name] = [self._copy_change(change) for change in changes]
            return
        entries = old.stable_entries.copy()
        for name, changes in old.history.items():
            for change in changes[: self._kept[id(old), name]]:
                _set(entries, change)
        for name, value in entries.items():
            made.entries[name] = made.stable_entries[name] = self._link(value)

    def _link(self, value: Inode) -> Inode:
        made = self._copy(value)
        made.links += 1
        return made

    def _copy_change(self, change: Change) -> Change:
        made = self._changes.get(id(change))
        if made is None:
            made = self._changes[id(change)] = Change(
                self._copy(change.directory),
                change.name,
                None if change.value is None else self._copy(change.value),
            )
            made.needs = tuple(self._copy_change(needed) for needed in change.needs)
        return made
