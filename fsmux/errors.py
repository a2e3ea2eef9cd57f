"""Everything that fsmux raises on purpose, and what each failure is called on the wire and to the shell.

Strategy: one class per *cause*, because the cause decides what a caller does next.  Each class carries three facts
that no caller should have to look up: the ``code`` that names it on the wire, the ``exit_code`` that names it to a
shell, and whether the same request may succeed if it is simply made again (``retryable``).

    FsmuxError
    ├── UsageError                 the request makes no sense as it stands
    ├── NetworkError               the connection failed
    │   ├── ConnectFailed              nobody answered, or the address is unusable
    │   ├── ConnectionLost             it broke, or the peer fell silent
    │   └── PeerShutdown               the peer is going away in good order
    ├── ProtocolError              bytes that no correct peer sends; ends the connection
    │   ├── Damaged                    a frame whose checksum is wrong: the network changed it
    │   ├── VersionMismatch            no common protocol version, or not this protocol at all
    │   └── FlowControlError           more bytes than credit allowed
    ├── StreamReset                the peer (or a limit) ended one stream; the connection lives
    ├── RefusedError               the peer will not do this: unsupported command, a limit
    ├── AuthError                  who you are was not proved
    ├── AccessError                who you are is known, and it is not allowed
    │   └── BadName                    a name that leaves the root, is reserved, or cannot be a name
    ├── FileError                  one file cannot be had or made
    │   ├── NotFound, Exists, NotADirectory, IsADirectory, NotEmpty, NotRegular, Busy, StorageError
    │   ├── SourceChanged              it changed while it was being sent
    │   └── NoSpace                    the disk or the quota is full
    ├── IntegrityError             bytes arrived wrong and could not be healed
    └── InternalError              a bug in fsmux, here or in the peer
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import ClassVar, Final


class ErrorCode(IntEnum):
    """Names of failures on the wire (ERROR, RESET and GOAWAY carry one).  Numbers are never reused."""

    INTERNAL = 1
    UNSUPPORTED = 2
    PROTOCOL = 3
    FLOW_CONTROL = 4
    REFUSED = 5
    AUTH = 6
    PERMISSION = 7
    BAD_NAME = 8
    NOT_FOUND = 9
    EXISTS = 10
    NOT_A_DIRECTORY = 11
    IS_A_DIRECTORY = 12
    NOT_EMPTY = 13
    NOT_REGULAR = 14
    NO_SPACE = 15
    SOURCE_CHANGED = 16
    INTEGRITY = 17
    BUSY = 18
    IO = 19
    VERSION = 20
    SHUTDOWN = 21
    CANCELLED = 22
    TIMEOUT = 23
    USAGE = 24
    DAMAGED = 25


class ExitCode(IntEnum):
    """What a process says to the shell that started it."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    SOME_FAILED = 3
    SOURCE = 4
    NETWORK = 5
    ACCESS = 6
    INTEGRITY = 7
    SPACE = 8
    REFUSED = 9


class FsmuxError(Exception):
    """Base of all errors raised on purpose.

    The text is one sentence for a person: it names the thing, what went wrong and, where there is something to be
    done, what to do.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL
    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED
    retryable: ClassVar[bool] = False


class UsageError(FsmuxError):
    code = ErrorCode.USAGE
    exit_code = ExitCode.USAGE


class NetworkError(FsmuxError):
    exit_code = ExitCode.NETWORK
    retryable = True


class ConnectFailed(NetworkError):
    code = ErrorCode.TIMEOUT


class ConnectionLost(NetworkError):
    code = ErrorCode.CANCELLED


class PeerShutdown(NetworkError):
    code = ErrorCode.SHUTDOWN


class ProtocolError(FsmuxError):
    code = ErrorCode.PROTOCOL
    exit_code = ExitCode.REFUSED


class Damaged(ProtocolError):
    code = ErrorCode.DAMAGED
    exit_code = ExitCode.NETWORK
    retryable = True


class VersionMismatch(ProtocolError):
    code = ErrorCode.VERSION


class FlowControlError(ProtocolError):
    code = ErrorCode.FLOW_CONTROL


class StreamReset(FsmuxError):
    code = ErrorCode.CANCELLED
    exit_code = ExitCode.SOME_FAILED
    retryable = True


class RefusedError(FsmuxError):
    code = ErrorCode.REFUSED
    exit_code = ExitCode.REFUSED


class Unsupported(RefusedError):
    code = ErrorCode.UNSUPPORTED


class AuthError(FsmuxError):
    code = ErrorCode.AUTH
    exit_code = ExitCode.ACCESS


class AccessError(FsmuxError):
    code = ErrorCode.PERMISSION
    exit_code = ExitCode.ACCESS


class BadName(AccessError):
    code = ErrorCode.BAD_NAME


class FileError(FsmuxError):
    code = ErrorCode.IO
    exit_code = ExitCode.SOME_FAILED


class NotFound(FileError):
    code = ErrorCode.NOT_FOUND
    exit_code = ExitCode.SOURCE


class Exists(FileError):
    code = ErrorCode.EXISTS


class NotADirectory(FileError):
    code = ErrorCode.NOT_A_DIRECTORY


class IsADirectory(FileError):
    code = ErrorCode.IS_A_DIRECTORY


class NotEmpty(FileError):
    code = ErrorCode.NOT_EMPTY


class NotRegular(FileError):
    code = ErrorCode.NOT_REGULAR


class Busy(FileError):
    code = ErrorCode.BUSY
    retryable = True


class StorageError(FileError):
    code = ErrorCode.IO


class SourceChanged(FileError):
    code = ErrorCode.SOURCE_CHANGED
    exit_code = ExitCode.SOURCE
    retryable = True


class NoSpace(FileError):
    code = ErrorCode.NO_SPACE
    exit_code = ExitCode.SPACE


class IntegrityError(FsmuxError):
    code = ErrorCode.INTEGRITY
    exit_code = ExitCode.INTEGRITY


class InternalError(FsmuxError):
    code = ErrorCode.INTERNAL


_BY_CODE: dict[int, type[FsmuxError]] = {
    cls.code: cls
    for cls in (
        InternalError, Unsupported, ProtocolError, FlowControlError, RefusedError, AuthError, AccessError, BadName,
        NotFound, Exists, NotADirectory, IsADirectory, NotEmpty, NotRegular, NoSpace, SourceChanged, IntegrityError,
        Busy, StorageError, VersionMismatch, PeerShutdown, StreamReset, ConnectFailed, UsageError, Damaged,
    )
}  # fmt: skip

_BY_ERRNO: dict[int, type[FsmuxError]] = {
    errno.ENOENT: NotFound,
    errno.EEXIST: Exists,
    errno.ENOTDIR: NotADirectory,
    errno.EISDIR: IsADirectory,
    errno.ENOTEMPTY: NotEmpty,
    errno.EACCES: AccessError,
    errno.EPERM: AccessError,
    errno.EROFS: AccessError,
    errno.ELOOP: BadName,
    errno.EXDEV: BadName,
    errno.ENAMETOOLONG: BadName,
    errno.EINVAL: BadName,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EFBIG: NoSpace,
    errno.EBUSY: Busy,
}

_ERRNO_TEXT: dict[int, str] = {
    errno.ELOOP: "a symbolic link stands in the way",
    errno.EXDEV: "the path leaves the served directory",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: "no space left on the device; free some and run it again",
}


OUT_OF_RESOURCES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
"""What a call fails with if the process or the machine has no more descriptors or memory, whatever was asked for."""


def from_code(code: int, text: str) -> FsmuxError:
    """The typed error for a code and text that a peer sent; an unknown code becomes a plain :class:`FileError`."""
    return _BY_CODE.get(code, FileError)(text or "no reason was given")


def from_os_error(error: OSError, name: str) -> FsmuxError:
    """The typed error for a failed system call on the file that a person would call ``name``.

    An errno without a class of its own becomes :class:`StorageError`; the operating system's sentence is kept.
    """
    number = error.errno or 0
    text = _ERRNO_TEXT.get(number) or (error.strerror or "the operation failed").lower()
    return _BY_ERRNO.get(number, StorageError)(f"{name}: {text}")
