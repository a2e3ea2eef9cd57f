"""What stands in a directory, in columns.

Theory: the names are read at once and sorted by their bytes, so that two listings of the same names compare equal; what
is known of each comes page by page, so that a directory with a million entries costs its names and one page.  It is one
system call per entry and nearly nothing beside.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from fsmux.columns import GROUP_ENTRIES, KIND_BITS, MODE_BITS, REGULAR, SYMLINK, Group, owner_of, sparse, times_of
from fsmux.errors import BadName, FsmuxError, NotFound, from_os_error
from fsmux.files import names
from fsmux.files.attributes import read_xattrs_at
from fsmux.files.naming import named
from fsmux.records import Namespaces, printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from fsmux.files.root import Root
    from fsmux.files.syscalls import Syscalls
    from fsmux.records import Parts


_SHOWN: Final = 3
"""Names that a sentence has room for."""


def groups(
    root: Root, parts: Parts, owners: bool = False, xattrs: Namespaces = Namespaces.NONE, *, told: bool = False
) -> Generator[Group, None, None]:
    """The entries of a directory, without what is reserved, in groups of which all but the last have ``more`` set.

    Their ``directory`` is ``parts``; with ``owners`` they say whose the entries are, and they have the extended
    attributes in the namespaces ``xattrs``.  With ``told`` a last one has an error if names are left out that are not
    the reserved one, but could be taken for it.
    A generator that holds a descriptor: exhaust it or close it.
    """
    lease = root.look_into(parts)
    try:
        with named(parts), lease as fd:
            found, left_out = _names(root.sys, fd)
            error = _mistakable(left_out) if told and left_out else None
            for start in range(0, len(found) or 1, GROUP_ENTRIES):
                page = found[start : start + GROUP_ENTRIES]
                more = start + GROUP_ENTRIES < len(found) or error is not None
                group = _group(root, fd, parts, page, more=more, owners=owners)
                if xattrs:
                    group.xattrs = sparse(
                        read_xattrs_at(root.sys, fd, name, mode, xattrs)
                        for name, mode in zip(group.names, group.modes, strict=True)
                    )
                yield group
            if error is not None:
                yield Group(parts, error=error)
    finally:
        lease.close()


class Listings:
    """What is in directories that are asked for, those within others behind them; all are below ``base``.

    What lies in a directory that was not there is not looked for: who makes a fresh copy asks for every directory.
    """

    def __init__(self, root: Root, base: Parts, owners: bool, xattrs: Namespaces) -> None:
        self._root = root
        self._base = base
        self._owners = owners
        self._xattrs = xattrs
        self._missing: tuple[Parts, NotFound] | None = None

    def of(self, directories: Iterable[Parts]) -> Generator[Group, None, None]:
        """Groups of each, as :func:`groups`, or one that says why there are none."""
        for directory in directories:
            if self._missing is not None:
                above, why = self._missing
                if len(above) < len(directory) and directory[: len(above)] == above:
                    yield Group(directory, error=why)
                    continue
            try:
                for group in groups(self._root, self._base + directory, self._owners, self._xattrs):
                    group.directory = directory
                    yield group
            except FsmuxError as error:
                if isinstance(error, NotFound):
                    self._missing = directory, error
                yield Group(directory, error=error)


def _mistakable(found: list[bytes]) -> BadName:
    shown = ", ".join(printable(name) for name in found[:_SHOWN])
    rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return BadName(
        f"{shown}{rest}: some file systems could take this for the reserved name {names.RESERVED.decode()}; rename it"
    )


def _names(sys: Syscalls, directory: int) -> tuple[list[bytes], list[bytes]]:
    """The names that can be said, in order, and others that should be heard of."""
    entries = sys.scandir(directory)
    try:
        joined = os.fsencode("/".join([entry.name for entry in entries]))
    finally:
        close = getattr(entries, "close", None)
        if close is not None:
            close()
    if not joined:
        return [], []
    found = joined.split(b"/")
    found.sort()
    return names.visible(found, joined), names.mistakable(found, joined)


def _group(root: Root, fd: int, parts: Parts, found: list[bytes], *, more: bool, owners: bool) -> Group:
    sys, stat = root.sys, root.sys.stat
    try:
        facts = [stat(fd, name) for name in found]
    except FileNotFoundError:  # removed since the directory was read
        found, facts = _those_that_are_left(sys, fd, found)
    group = Group(
        parts,
        found,
        [one.st_size for one in facts],
        times_of(facts),
        [one.st_mode & MODE_BITS for one in facts],
        more=more,
        owners=[owner_of(one) for one in facts] if owners else [],
    )
    if facts and max([one.st_nlink for one in facts]) > 1:
        group.shared = {
            index: root.key_of(one)
            for index, one in enumerate(facts)
            if one.st_nlink > 1 and one.st_mode & KIND_BITS == REGULAR
        }
    if not group.kinds <= {REGULAR}:
        return _with_links(sys, fd, group)
    return group


def _those_that_are_left(sys: Syscalls, fd: int, found: list[bytes]) -> tuple[list[bytes], list[os.stat_result]]:
    left: list[bytes] = []
    facts: list[os.stat_result] = []
    for name in found:
        try:
            facts.append(sys.stat(fd, name))
        except FileNotFoundError:
            continue
        left.append(name)
    return left, facts


def _with_links(sys: Syscalls, fd: int, group: Group) -> Group:
    """What is no regular file has no size, and a link its target."""
    targets: dict[int, bytes] = {}
    gone: set[int] = set()
    for index, mode in enumerate(group.modes):
        kind = mode & KIND_BITS
        if kind == REGULAR:
            continue
        group.sizes[index] = 0
        if kind == SYMLINK:
            name = group.names[index]
            try:
                targets[index] = sys.readlink(fd, name)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):  # it is gone, or a link no more
                    raise from_os_error(error, printable((*group.directory, name))) from error
                gone.add(index)
                targets[index] = b"?"
    group.targets = list(targets.values())
    if gone:
        more = group.more
        group = group.pick([index for index in range(len(group)) if index not in gone])
        group.more = more
    return group
