"""One process on a simulated disk: the twin of :class:`fsmux.files.syscalls.Syscalls`.

Theory: descriptors are numbers of this process, the lowest free one first, as in a kernel, so that whoever uses a
number after it was closed meets another file.  Every call passes :meth:`SimSyscalls._enter`, where a test may look at
the device (``watch``), and where a fault may be decided (``fault``): an errno, or ``SHORT`` to move half of the bytes.
A failed sync is more than an error: see :meth:`.Device.fail_writeback`.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fsmux.files.syscalls import NO_SYMLINKS, OPEN_LOOK, OPEN_STEP, Syscalls
from tests.sim.device import BLOCK, QUIET_LINUX, UID, Facts, Inode, is_zero

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fsmux.records import Parts
    from tests.sim.device import Device

SHORT: Final = -1
"""A fault that is no error: half of what was asked for is moved, at least one byte."""

FIRST_FD: Final = 1 << 20
"""No descriptor of the simulation is one of the process that simulates."""

_PATH: Final = OPEN_LOOK & OPEN_STEP & ~(os.O_CLOEXEC | os.O_NOFOLLOW)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def no_fault(name: str) -> int:
    """Nothing goes wrong."""
    return 0


def no_watch(name: str) -> None:
    """Nobody looks."""


@dataclass(eq=False, slots=True)
class _Open:
    inode: Inode
    seen: int
    """Failed write-backs that this open file has told of."""
    heard: int
    """Failed write-backs of any file that a ``syncfs`` of it has told of."""
    names: int = 1
    """Descriptors that share it."""


class _Entry:
    def __init__(self, name: bytes, inode: Inode) -> None:
        self.name = os.fsdecode(name)
        self._inode = inode

    def stat(self, *, follow_symlinks: bool) -> Facts:
        assert not follow_symlinks
        return Facts(self._inode)


class SimSyscalls(Syscalls):
    """A process. ``stop`` ends it: its locks are free, and whatever it still does happens to nobody's disk."""

    def __init__(
        self,
        device: Device,
        seed: int = 0,
        *,
        fault: Callable[[str], int] = no_fault,
        watch: Callable[[str], None] = no_watch,
        first: int = FIRST_FD,
    ) -> None:
        self.device = device
        self.fault = fault
        self.watch = watch
        self.calls = 0
        self._first = first
        self._rng = random.Random(seed)
        self._open: dict[int, _Open] = {}

    @property
    def descriptors(self) -> list[int]:
        return sorted(self._open)

    def _enter(self, name: str) -> int:
        """One more call. Raises the fault that was decided for it, or returns SHORT or 0."""
        self.watch(name)
        self.calls += 1
        number = self.fault(name)
        if number > 0:
            raise _error(number)
        return number

    # ---- looking up ------------------------------------------------------------------------------------------------

    def _file(self, fd: int) -> _Open:
        try:
            return self._open[fd]
        except KeyError:
            raise _error(errno.EBADF) from None

    def _directory(self, fd: int) -> Inode:
        inode = self._file(fd).inode
        if not inode.is_directory:
            raise _error(errno.ENOTDIR)
        return inode

    def _entry(self, fd: int, name: bytes) -> Inode:
        directory = self._directory(fd)
        if name == b".":
            return directory
        try:
            return directory.entries[name]
        except KeyError:
            raise _error(errno.ENOENT) from None

    def _opened(self, inode: Inode) -> int:
        inode.users += 1
        return self._numbered(_Open(inode, inode.reported, self.device.reported))

    def _numbered(self, file: _Open) -> int:
        fd = self._first
        while fd in self._open:
            fd += 1
        self._open[fd] = file
        return fd

    def _checked(self, inode: Inode, flags: int) -> Inode:
        if stat.S_ISLNK(inode.mode) and not flags & _PATH:
            raise _error(errno.ELOOP)
        if flags & os.O_DIRECTORY and not inode.is_directory:
            raise _error(errno.ENOTDIR)
        if flags & os.O_RDWR and inode.is_directory:
            raise _error(errno.EISDIR)
        return inode

    # ---- names -----------------------------------------------------------------------------------------------------

    def open_root(self, path: Any) -> int:
        self._enter("open_root")
        return self._opened(self.device.root)

    def openat(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> int:
        self._enter("openat")
        parent = self._directory(directory)
        if flags & os.O_CREAT and name not in parent.entries:
            if not parent.links:
                raise _error(errno.ENOENT)  # the directory itself was removed
            inode = self.device.make(stat.S_IFREG | mode)
            self.device.put(parent, name, inode)
        else:
            inode = self._entry(directory, name)
            if flags & os.O_EXCL and flags & os.O_CREAT:
                raise _error(errno.EEXIST)
        return self._opened(self._checked(inode, flags))

    def openat2(self, directory: int, parts: Parts, flags: int, resolve: int) -> int:
        self._enter("openat2")
        inode = self._directory(directory)
        for at, name in enumerate(parts):
            if not inode.is_directory:
                raise _error(errno.ENOTDIR)
            if name not in inode.entries:
                raise _error(errno.ENOENT)
            inode = inode.entries[name]
            if stat.S_ISLNK(inode.mode) and (at < len(parts) - 1 or resolve & NO_SYMLINKS) and not flags & _PATH:
                raise _error(errno.ELOOP)
        return self._opened(self._checked(inode, flags))

    def stat(self, directory: int, name: bytes) -> Any:
        self._enter("stat")
        return Facts(self._entry(directory, name))

    def readlink(self, directory: int, name: bytes) -> bytes:
        self._enter("readlink")
        return self._entry(directory, name).target

    def mkdir(self, directory: int, name: bytes, mode: int) -> None:
        self._enter("mkdir")
        parent = self._directory(directory)
        if name in parent.entries:
            raise _error(errno.EEXIST)
        if not parent.links:
            raise _error(errno.ENOENT)
        self.device.put(parent, name, self.device.make(stat.S_IFDIR | mode))

    def rmdir(self, directory: int, name: bytes) -> None:
        self._enter("rmdir")
        inode = self._entry(directory, name)
        if not inode.is_directory:
            raise _error(errno.ENOTDIR)
        if inode.entries:
            raise _error(errno.ENOTEMPTY)
        self.device.put(self._directory(directory), name, None)

    def unlink(self, directory: int, name: bytes) -> None:
        self._enter("unlink")
        if self._entry(directory, name).is_directory:
            raise _error(errno.EISDIR)
        self.device.put(self._directory(directory), name, None)

    def symlink(self, target: bytes, directory: int, name: bytes) -> None:
        self._enter("symlink")
        parent = self._directory(directory)
        if name in parent.entries:
            raise _error(errno.EEXIST)
        inode = self.device.make(stat.S_IFLNK | 0o777)
        inode.target = target
        self.device.put(parent, name, inode)

    def link(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        self._enter("link")
        if to_name in self._directory(to_directory).entries:
            raise _error(errno.EEXIST)
        self.device.put(self._directory(to_directory), to_name, self._entry(directory, name))

    def rename(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        self._enter("rename")
        self._rename(directory, name, to_directory, to_name)

    def rename_new(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        self._enter("rename_new")
        if to_name in self._directory(to_directory).entries:
            raise _error(errno.EEXIST)
        self._rename(directory, name, to_directory, to_name)

    def _rename(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        inode = self._entry(directory, name)
        target = self._directory(to_directory)
        old = target.entries.get(to_name)
        if old is inode:
            return
        if not target.links:
            raise _error(errno.ENOENT)
        if old is not None and old.is_directory and not inode.is_directory:
            raise _error(errno.EISDIR)
        if old is not None and inode.is_directory and not old.is_directory:
            raise _error(errno.ENOTDIR)
        if old is not None and old.entries:
            raise _error(errno.ENOTEMPTY)
        there = self.device.put(target, to_name, inode)
        gone = self.device.put(self._directory(directory), name, None, (there,))
        if inode.is_directory:
            there.needs = (*there.needs, gone)

    def chmod(self, directory: int, name: bytes, mode: int) -> None:
        self._enter("chmod")
        self._set_mode(self._entry(directory, name), mode)

    def utime_link(self, directory: int, name: bytes, mtime_ns: int) -> None:
        self._enter("utime_link")
        self._set_time(self._entry(directory, name), mtime_ns)

    def scandir(self, directory: int) -> Iterator[Any]:
        self._enter("scandir")
        return iter([_Entry(name, inode) for name, inode in sorted(self._directory(directory).entries.items())])

    # ---- descriptors -----------------------------------------------------------------------------------------------

    def close(self, fd: int) -> None:
        file = self._file(fd)
        del self._open[fd]
        file.names -= 1
        if not file.names:
            inode = file.inode
            inode.users -= 1
            if inode.lock is file:
                inode.lock = None
            self.device.forget(inode)
        self._enter("close")  # a close that fails has closed

    def dup(self, fd: int) -> int:
        self._enter("dup")
        file = self._file(fd)
        file.names += 1
        return self._numbered(file)

    def fstat(self, fd: int) -> Any:
        self._enter("fstat")
        return Facts(self._file(fd).inode)

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        short = self._enter("preadv")
        data = self._file(fd).inode.data
        wanted = sum(map(len, buffers))
        if short:
            wanted = max(1, wanted // 2)
        done = 0
        for buffer in buffers:
            count = max(0, min(len(buffer), wanted - done, len(data) - offset - done))
            buffer[:count] = data[offset + done : offset + done + count]
            done += count
        return done

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        short = self._enter("pread")
        return bytes(self._file(fd).inode.data[offset : offset + (max(1, length // 2) if short else length)])

    def pwritev(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return self._write(fd, b"".join(buffers), offset, self._enter("pwritev"))

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return self._write(fd, bytes(data), offset, self._enter("pwrite"))

    def _write(self, fd: int, data: bytes, offset: int, short: int) -> int:
        if short:
            data = data[: max(1, len(data) // 2)]
        if offset + len(data) > self.device.capacity:
            raise _error(errno.ENOSPC)
        self.device.write(self._file(fd).inode, data, offset)
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._enter("ftruncate")
        self.device.resize(self._file(fd).inode, size)

    def fallocate(self, fd: int, size: int) -> None:
        self._enter("fallocate")
        inode = self._file(fd).inode
        self.device.resize(inode, max(size, len(inode.data)))

    def punch(self, fd: int, offset: int, length: int) -> None:
        self._enter("punch")
        inode = self._file(fd).inode
        length = min(length, len(inode.data) - offset)
        if length > 0:
            self.device.write(inode, bytes(length), offset)

    def seek_data(self, fd: int, offset: int) -> int:
        """A block of zeros counts as a hole, whether it was written or not."""
        return self._seek("seek_data", fd, offset, hole=False)

    def seek_hole(self, fd: int, offset: int) -> int:
        return self._seek("seek_hole", fd, offset, hole=True)

    def _seek(self, name: str, fd: int, offset: int, *, hole: bool) -> int:
        self._enter(name)
        data = self._file(fd).inode.data
        while offset < len(data):
            end = min((offset // BLOCK + 1) * BLOCK, len(data))
            if is_zero(data, offset, end) is hole:
                return offset
            offset = end
        if hole and offset == len(data):
            return offset
        raise _error(errno.ENXIO)

    def free_bytes(self, fd: int) -> int:
        self._enter("free_bytes")
        return self.device.capacity

    def in_memory(self, fd: int) -> bool:
        self._enter("in_memory")
        return False

    def fchmod(self, fd: int, mode: int) -> None:
        self._enter("fchmod")
        self._set_mode(self._file(fd).inode, mode)

    def listxattr(self, of: int | bytes) -> list[bytes]:
        self._enter("listxattr")
        return []

    def flags(self, fd: int) -> int:
        self._enter("flags")
        return 0

    def futime(self, fd: int, mtime_ns: int) -> None:
        self._enter("futime")
        self._set_time(self._file(fd).inode, mtime_ns)

    def _set_mode(self, inode: Inode, mode: int) -> None:
        inode.mode = stat.S_IFMT(inode.mode) | mode
        inode.ctime_ns = self.device.tick()

    def _set_time(self, inode: Inode, mtime_ns: int) -> None:
        inode.mtime_ns = mtime_ns
        inode.ctime_ns = self.device.tick()

    def fsync(self, fd: int) -> None:
        self._sync("fsync", self._file(fd), whole=True)

    def fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", self._file(fd), whole=False)

    def _sync(self, name: str, file: _Open, *, whole: bool) -> None:
        inode = file.inode
        try:
            self._enter(name)
        except OSError:
            if not inode.is_directory:
                self.device.fail_writeback(inode)
                file.seen = inode.reported = inode.failures
            raise
        if file.seen < inode.failures:
            file.seen = inode.reported = inode.failures
            raise _error(errno.EIO)
        self.device.sync(inode, whole=whole)

    def syncfs(self, fd: int) -> None:
        """Promises nothing on a kernel that keeps what failed to itself."""
        device, file = self.device, self._file(fd)
        tells = device.linux != QUIET_LINUX
        try:
            self._enter("syncfs")
        except OSError:
            if tells:
                device.fail_all()
                file.heard = device.reported = device.failures
            raise
        if not tells:
            return
        device.sync_all()
        if file.heard < device.failures:
            file.heard = device.reported = device.failures
            raise _error(errno.EIO)

    def drop_cache(self, fd: int) -> None:
        self._enter("drop_cache")
        inode = self._file(fd).inode
        if inode.is_file:
            self.device.drop_cache(inode)

    def lock(self, fd: int) -> None:
        self._enter("lock")
        file = self._file(fd)
        if file.inode.lock not in (None, file):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        file.inode.lock = file

    # ---- the process -----------------------------------------------------------------------------------------------

    def euid(self) -> int:
        return UID

    def kernel(self) -> str:
        return self.device.linux

    def random(self, size: int) -> bytes:
        return self._rng.randbytes(size)

    def now_ns(self) -> int:
        return self.device.now_ns
