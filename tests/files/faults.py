"""A twin of the system calls that counts them, fails the N-th one, and can lack or shorten some."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from fsmux.files.syscalls import Syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

CANNOT_FAIL = {"euid", "now_ns", "random"}


class Faulty(Syscalls):
    """The kernel, with trouble.

    ``fail_at``: the number of the call (from 1) that fails with ``number``; that call and, with ``onwards``, all
    later ones of the same name.  ``only``: count only calls of these names.  ``lacks``: names that are ENOSYS.
    ``short``: writes and reads move at most so many bytes.
    """

    def __init__(
        self,
        fail_at: int = 0,
        number: int = errno.EIO,
        *,
        only: set[str] | None = None,
        onwards: bool = False,
        lacks: set[str] | None = None,
        short: int = 0,
    ) -> None:
        self.fail_at = fail_at
        self.number = number
        self.only = only
        self.onwards = onwards
        self.lacks = lacks or set()
        self.short = short
        self.calls: list[str] = []
        self.failed = ""

    def call(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name in self.lacks:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if name not in CANNOT_FAIL and (self.only is None or name in self.only):
            self.calls.append(name)
            if len(self.calls) == self.fail_at or (self.onwards and name == self.failed):
                self.failed = name
                if name == "close":
                    method(self, *args)  # the descriptor is gone whatever close says
                raise OSError(self.number, os.strerror(self.number))
        if self.short and name in ("pwritev", "preadv"):
            fd, buffers, offset = args
            args = (fd, [buffers[0][: self.short]], offset)
        return method(self, *args)


def _wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Faulty, *args: Any) -> Any:
        return self.call(name, method, args)

    return wrapped


for _name, _method in list(vars(Syscalls).items()):
    if callable(_method) and not _name.startswith("_"):
        setattr(Faulty, _name, _wrap(_name, _method))
