"""The seam between fsmux and the kernel's file calls.

Theory: every system call on a file goes through one object with one thin method per call, so that a test can put a
twin in its place which fails the N-th call, loses power, or keeps its files in memory, while all other code is the code
that ships.  Hence the rules: a method here makes one system call, decides nothing and loops over nothing; names are
bytes, relative to a directory descriptor; descriptors are plain integers; failures are :class:`OSError`.  (The one
exception to "relative" is :meth:`Syscalls.open_root`, the operator's own path.)

``openat2``, ``renameat2`` and ``fallocate`` have no place in Python's ``os`` and are called through ctypes; where the
platform lacks them they fail with ENOSYS, and their callers do without.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Final

try:
    import fcntl
except ImportError:  # pragma: no cover - no Windows yet, but importing must not be what fails there
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fsmux.records import Parts

IOV_MAX: Final = 1024
"""Buffers that one vectored call takes (Linux and the BSDs agree)."""

_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_SAFE: Final = _CLOEXEC | _NOFOLLOW | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0)
_PATH: Final = getattr(os, "O_PATH", os.O_RDONLY)

OPEN_READ: Final = os.O_RDONLY | _SAFE
OPEN_WRITE: Final = os.O_RDWR | _SAFE
OPEN_CREATE: Final = os.O_RDWR | os.O_CREAT | _SAFE
OPEN_EXCLUSIVE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE
OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | _SAFE
OPEN_STEP: Final = _PATH | os.O_DIRECTORY | _CLOEXEC | _NOFOLLOW
"""A directory to go on from: searching needs no right to list, so the descriptor asks for none."""
OPEN_LOOK: Final = _PATH | _CLOEXEC | _NOFOLLOW
"""Anything, only to look at it: without the right to read it, and without waking what listens to it."""

FOLLOW: Final = ~_NOFOLLOW
"""Mask for flags of a name whose links were resolved already or may be followed by ``openat2``."""

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x01, 0x02, 0x04, 0x08
"""RESOLVE_* of openat2(2)."""

_OPENAT2: Final = 437  # the same number on every architecture
_RENAME_NOREPLACE: Final = 1
_F_SETPIPE_SZ: Final = 1031
_PUNCH_HOLE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE, which takes FALLOC_FL_KEEP_SIZE with it
_SEEK_DATA: Final = getattr(os, "SEEK_DATA", 3)
_SEEK_HOLE: Final = getattr(os, "SEEK_HOLE", 4)
_TMPFS_MAGIC: Final = 0x01021994
_LONG: Final = ctypes.sizeof(ctypes.c_long)
_FS_IOC_GETFLAGS: Final = 0x80006601 | _LONG << 16  # _IOR('f', 1, long)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _Libc:
    """The C library, loaded once; attributes are None where it lacks a function."""

    def __init__(self) -> None:
        linux = sys.platform.startswith("linux")
        library = ctypes.CDLL(None, use_errno=True) if linux else None
        self.syscall = getattr(library, "syscall", None)
        self.renameat2 = getattr(library, "renameat2", None)
        self.fallocate = getattr(library, "fallocate", None)
        self.fstatfs = getattr(library, "fstatfs", None)
        self.syncfs = getattr(library, "syncfs", None)
        if self.syscall is not None:
            self.syscall.argtypes = (
                ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t,
            )  # fmt: skip
            self.syscall.restype = ctypes.c_long
        if self.renameat2 is not None:
            self.renameat2.argtypes = (
                ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
            )  # fmt: skip
        if self.fallocate is not None:
            self.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if self.fstatfs is not None:
            self.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
        self.how: dict[tuple[int, int], tuple[_OpenHow, int]] = {}

    def open_how(self, flags: int, resolve: int) -> int:
        """Address of the argument block for these flags.  There are a dozen of them; they are kept for good."""
        entry = self.how.get((flags, resolve))
        if entry is None:
            block = _OpenHow(flags, 0, resolve)
            entry = self.how.setdefault((flags, resolve), (block, ctypes.addressof(block)))
        return entry[1]


_libc = _Libc()
_HOW_SIZE: Final = ctypes.sizeof(_OpenHow)


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


class Syscalls:
    """The system calls that fsmux makes on files, one method each."""

    # ---- names ---------------------------------------------------------------------------------------------------

    def open_root(self, path: str | os.PathLike[str]) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)

    def openat(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> int:
        return os.open(name, flags, mode, dir_fd=directory)

    def openat2(self, directory: int, parts: Parts, flags: int, resolve: int) -> int:
        """Open what ``parts`` lead to under the kernel's RESOLVE rules; this is the only place that joins them."""
        if _libc.syscall is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        path = b"/".join(parts) or b"."
        fd: int = _libc.syscall(_OPENAT2, directory, path, _libc.open_how(flags, resolve), _HOW_SIZE)
        if fd < 0:
            _raise_errno()
        return fd

    def stat(self, directory: int, name: bytes) -> os.stat_result:
        """Of the name itself: a symbolic link is not followed."""
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def readlink(self, directory: int, name: bytes) -> bytes:
        return os.readlink(name, dir_fd=directory)

    def mkdir(self, directory: int, name: bytes, mode: int) -> None:
        os.mkdir(name, mode, dir_fd=directory)

    def rmdir(self, directory: int, name: bytes) -> None:
        os.rmdir(name, dir_fd=directory)

    def unlink(self, directory: int, name: bytes) -> None:
        os.unlink(name, dir_fd=directory)

    def symlink(self, target: bytes, directory: int, name: bytes) -> None:
        os.symlink(target, name, dir_fd=directory)

    def link(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        os.link(name, to_name, src_dir_fd=directory, dst_dir_fd=to_directory, follow_symlinks=False)

    def rename(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        os.rename(name, to_name, src_dir_fd=directory, dst_dir_fd=to_directory)

    def rename_new(self, directory: int, name: bytes, to_directory: int, to_name: bytes) -> None:
        """Rename that fails with EEXIST instead of replacing."""
        if _libc.renameat2 is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if _libc.renameat2(directory, name, to_directory, to_name, _RENAME_NOREPLACE) < 0:
            _raise_errno()

    def chmod(self, directory: int, name: bytes, mode: int) -> None:
        """Follows links; only for names in a directory that nobody else can write to."""
        os.chmod(name, mode, dir_fd=directory)

    def utime_link(self, directory: int, name: bytes, mtime_ns: int) -> None:
        """Set the times of the name itself, which may be a symbolic link."""
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)

    def scandir(self, directory: int) -> Iterator[os.DirEntry[str]]:
        """The iterator of :func:`os.scandir`; its ``close()`` must be called."""
        return os.scandir(directory)

    # ---- descriptors ---------------------------------------------------------------------------------------------

    def close(self, fd: int) -> None:
        os.close(fd)

    def dup(self, fd: int) -> int:
        return os.dup(fd)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return os.preadv(fd, buffers, offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return os.pread(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fallocate(self, fd: int, size: int) -> None:
        """Reserve the blocks of the first ``size`` bytes and make the file at least that long.

        Not ``os.posix_fallocate``: where the file system cannot reserve, glibc writes to every block instead.
        """
        if _libc.fallocate is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if _libc.fallocate(fd, 0, 0, size) < 0:
            _raise_errno()

    def punch(self, fd: int, offset: int, length: int) -> None:
        """Make a range a hole, which reads as zeros; what of it lies beyond the end changes nothing."""
        if _libc.fallocate is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if _libc.fallocate(fd, _PUNCH_HOLE, offset, length) < 0:
            _raise_errno()

    def seek_data(self, fd: int, offset: int) -> int:
        """Where data begins, from ``offset`` on; ENXIO if there is none. Where nobody knows holes, all is data."""
        return os.lseek(fd, offset, _SEEK_DATA)

    def seek_hole(self, fd: int, offset: int) -> int:
        """Where the next hole begins, from ``offset`` on; the end counts as one."""
        return os.lseek(fd, offset, _SEEK_HOLE)

    def free_bytes(self, fd: int) -> int:
        """What an ordinary user may still write to the file system of ``fd``."""
        facts = os.fstatvfs(fd)
        return facts.f_bavail * facts.f_frsize

    def in_memory(self, fd: int) -> bool:
        """Whether ``fd`` is on a tmpfs."""
        if _libc.fstatfs is None:
            return False
        answer = (ctypes.c_long * 64)()  # struct statfs is 120 bytes; its first word is the type
        if _libc.fstatfs(fd, ctypes.addressof(answer)) < 0:
            _raise_errno()
        return answer[0] == _TMPFS_MAGIC

    def fchmod(self, fd: int, mode: int) -> None:
        """Also of what is open only to be looked at."""
        try:
            os.fchmod(fd, mode)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            os.chmod(b"/proc/self/fd/%d" % fd, mode)

    def fchown(self, fd: int, user: int, group: int) -> None:
        os.fchown(fd, user, group)

    def chown_link(self, directory: int, name: bytes, user: int, group: int) -> None:
        """Of the name itself, which may be a symbolic link."""
        os.chown(name, user, group, dir_fd=directory, follow_symlinks=False)

    def link_itself(self, directory: int, name: bytes) -> bytes:
        """What the four calls below take in place of a descriptor, which a symbolic link can have none of for them."""
        return b"/proc/self/fd/%d/%s" % (directory, name)

    def listxattr(self, of: int | bytes) -> list[bytes]:
        """Names of extended attributes; EOPNOTSUPP where there are none."""
        return list(map(os.fsencode, os.listxattr(of, follow_symlinks=isinstance(of, int))))

    def getxattr(self, of: int | bytes, name: bytes) -> bytes:
        return os.getxattr(of, name, follow_symlinks=isinstance(of, int))

    def setxattr(self, of: int | bytes, name: bytes, value: bytes) -> None:
        os.setxattr(of, name, value, follow_symlinks=isinstance(of, int))

    def removexattr(self, of: int | bytes, name: bytes) -> None:
        os.removexattr(of, name, follow_symlinks=isinstance(of, int))

    def flags(self, fd: int) -> int:
        """What ``lsattr`` shows of a directory, and what is made in it may inherit; 0 if that cannot be known."""
        if fcntl is None:
            return 0
        try:
            return int.from_bytes(fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(_LONG))[:4], sys.byteorder)
        except OSError:
            return 0

    def futime(self, fd: int, mtime_ns: int) -> None:
        os.utime(fd, ns=(mtime_ns, mtime_ns))

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        getattr(os, "fdatasync", os.fsync)(fd)

    def syncfs(self, fd: int) -> None:
        """Sync the whole file system that ``fd`` is on; ENOSYS where there is no such call."""
        if _libc.syncfs is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if _libc.syncfs(fd) < 0:
            _raise_errno()

    def drop_cache(self, fd: int) -> None:
        """Forget the clean cached pages of a file, so that the next read asks the device."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def lock(self, fd: int) -> None:
        """Take the exclusive ``flock`` of an open file or fail with EWOULDBLOCK; closing it gives it back."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    # ---- pipes: a process's own stdin and stdout -----------------------------------------------------------------

    def reopen_to_write(self, fd: int) -> int:
        """The pipe, terminal or file behind ``fd`` as an open file of its own that never blocks."""
        return os.open(b"/proc/self/fd/%d" % fd, os.O_WRONLY | _SAFE & ~_NOFOLLOW)

    def readv(self, fd: int, buffers: Sequence[memoryview]) -> int:
        return os.readv(fd, buffers)

    def writev(self, fd: int, buffers: Sequence[memoryview]) -> int:
        return os.writev(fd, buffers)

    def wait(self, fd: int, write: bool, milliseconds: int) -> bool:
        """Whether ``fd`` can be read from, or written to, without waiting; an error or the end counts as such."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT if write else select.POLLIN)
        return bool(poll.poll(milliseconds))

    def set_pipe_size(self, fd: int, size: int) -> None:
        """Have a pipe hold so many bytes; EBADF for what is none, EPERM beyond the user's allowance."""
        fcntl.fcntl(fd, _F_SETPIPE_SZ, size)

    # ---- the process ---------------------------------------------------------------------------------------------

    def euid(self) -> int:
        return os.geteuid()

    def umask(self) -> int:
        """Permission bits that new files do not get. Asking sets it for a moment, for all threads, to a strict one."""
        mask = os.umask(0o077)
        os.umask(mask)
        return mask

    def kernel(self) -> str:
        """The version of Linux; empty elsewhere."""
        return os.uname().release if sys.platform.startswith("linux") else ""

    def random(self, size: int) -> bytes:
        return os.urandom(size)

    def now_ns(self) -> int:
        """The time of day, which file systems stamp files with."""
        return time.time_ns()


real: Final = Syscalls()
"""The kernel itself."""
