"""How a failed system call becomes an error that names the file as its user does."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fsmux.errors import NotRegular, from_os_error
from fsmux.records import printable

if TYPE_CHECKING:
    from types import TracebackType

    from fsmux.records import Parts


class named:
    """Turn :class:`OSError` out of the block into the typed error for the file ``parts``.

    Only the components are shown: neither where the root lies nor the names of unfinished files are anybody's business.
    Lower case because it reads as a statement; a class and no generator because small files enter it several times.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            name = printable(self.parts)
            if error.errno == errno.ENXIO:
                raise NotRegular(f"{name}: not a regular file") from error
            raise from_os_error(error, name) from error
