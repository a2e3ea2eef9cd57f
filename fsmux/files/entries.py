"""Files and links of packs, put together under names of their own.

Theory: an entry is written whole, and gets its owner, mode, extended attributes and times where nobody sees it.  A
hundred thousand of them go through one loop, and what surrounds the bare calls of the kernel is to be little beside
these (10 µs, measured), so what is the same for all is decided before it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from zlib_ng.zlib_ng import crc32

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Group, user_and_group
from fsmux.errors import FsmuxError, IntegrityError
from fsmux.files import ranges
from fsmux.files.attributes import NEW_FILE, kept_mode, set_xattrs
from fsmux.files.syscalls import OPEN_EXCLUSIVE, OPEN_READ

if TYPE_CHECKING:
    from fsmux.files.contents import Contents
    from fsmux.files.terms import Staged, Terms
    from fsmux.records import Xattrs

READABLE: Final = 0o400
"""What a file's owner may do until it was read back, whatever its mode will be."""


class Part(NamedTuple):
    """A group, by its number in a pack, whose contents begin at ``offset`` of the pack's."""

    place: int
    group: Group
    offset: int


class Writer:
    """Writes parts of packs on these ``terms``.  Blocking."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._sys = terms.sys
        self._times = terms.kept.times
        self._syncs = (terms.durable or terms.verify) and not terms.together  # each file by itself
        self._more = READABLE if terms.verify else 0
        self._masked: dict[int, bool] = {}
        self.left: set[int] = set()
        """The descriptors of directories in which something is left that could not be removed."""

    def write(self, staged: Staged, part: Part, directory: int, here: int, contents: Contents) -> None:
        """Write files and links that go to ``directory``, by the descriptor ``here``, and note them as staged."""
        terms, sys = self._terms, self._sys
        perms, write_file, take = terms.kept.perms, self._write_file, contents.take
        group, offset = part.group, part.offset
        assert staged.state is not None
        files, unique, at_home = staged.files, staged.state.unique, staged.at_home
        lost = {index for index, _ in group.lost}
        holed = set(group.holed)
        texts = group.link_targets()
        owners = group.owners if terms.owners else None
        xattrs = group.xattrs if terms.namespaces else None
        owner: int | None = None
        values: Xattrs | None = None
        columns = zip(group.names, group.sizes, group.mtimes, group.modes, group.crcs, strict=True)
        for index, (name, size, mtime, mode, crc) in enumerate(columns):
            kind = mode & KIND_BITS
            if kind == DIRECTORY or index in lost:
                continue
            temporary = name if at_home else unique()
            try:
                if owners:
                    owner = owners[index]
                if xattrs:
                    values = xattrs.get(index)
                if kind == REGULAR:
                    data = take(offset, size)
                    offset += size
                    if crc32(data) != crc:
                        raise IntegrityError(f"{terms.name_of(group, index)}: it arrived damaged")
                    usual = mode & 0o777 if perms else kept_mode(sys, directory, name)
                    refused = write_file(here, temporary, data, mtime, usual, owner, values, index in holed)
                else:
                    refused = self._write_link(here, temporary, texts[index], mtime, owner, values)
                if refused is not None:
                    terms.note_refused(staged, index, refused)
                files.append((temporary, index))
            except (OSError, FsmuxError) as error:
                terms.fail_entry(staged, index, error)

    def _write_file(
        self, here: int, temporary: bytes, data: memoryview, mtime: int, mode: int | None,
        owner: int | None, xattrs: Xattrs | None, holed: bool,
    ) -> FsmuxError | None:  # fmt: skip
        """Without a ``mode`` it has the one of any new file.  Why it has not all of its extended attributes, if so."""
        refused = None
        sys = self._sys
        if mode is not None:
            mode |= self._more
        fd = sys.openat(here, temporary, OPEN_EXCLUSIVE, NEW_FILE if mode is None else mode)
        try:
            if holed:
                ranges.write_around_zeros(sys, fd, data)
            elif data and sys.pwrite(fd, data, 0) != len(data):
                ranges.write_all(sys, fd, [data], 0)
            if owner is not None:
                sys.fchown(fd, *user_and_group(owner))
            if mode is not None:
                masked = self._masked.get(mode)
                if masked is None:  # what the process's mask takes off is the same for all
                    masked = self._masked[mode] = sys.fstat(fd).st_mode & 0o777 != mode
                if masked:
                    sys.fchmod(fd, mode)
            if xattrs:
                refused = set_xattrs(sys, fd, xattrs, self._terms.namespaces, fresh=True)
            if self._times:
                sys.futime(fd, mtime)
            if self._syncs:
                sys.fsync(fd)
        except BaseException:
            with suppress(OSError):
                sys.close(fd)
            self._undo(here, temporary)
            raise
        try:
            sys.close(fd)
        except OSError:  # some file systems say no sooner that there is no room
            self._undo(here, temporary)
            raise
        return refused

    def _undo(self, here: int, temporary: bytes) -> None:
        """Remove what is not whole."""
        try:
            self._sys.unlink(here, temporary)
        except FileNotFoundError:
            pass
        except OSError:
            self.left.add(here)

    def _write_link(
        self, here: int, temporary: bytes, text: bytes, mtime: int, owner: int | None, xattrs: Xattrs | None
    ) -> FsmuxError | None:
        refused = None
        sys = self._sys
        sys.symlink(text, here, temporary)
        try:
            if owner is not None:
                sys.chown_link(here, temporary, *user_and_group(owner))
            if xattrs:
                link = sys.link_itself(here, temporary)
                refused = set_xattrs(sys, link, xattrs, self._terms.namespaces, fresh=True)
            if self._times:
                sys.utime_link(here, temporary, mtime)
        except OSError:
            self._undo(here, temporary)
            raise
        return refused


def read_back(terms: Terms, here: int, temporary: bytes, group: Group, index: int) -> None:
    """See that the device has a file that was synced, and give it its mode; one that is wrong is removed."""
    sys, mode = terms.sys, group.modes[index] & 0o777
    try:
        fd = sys.openat(here, temporary, OPEN_READ)
        try:
            sys.drop_cache(fd)
            try:
                found = ranges.crc32(sys, fd, 0, group.sizes[index])
            except (ranges.ShortFile, OSError):
                found = None
            if found != group.crcs[index]:
                raise IntegrityError(
                    f"{terms.name_of(group, index)}: the disk gave back other bytes than were written to it"
                )
            if terms.kept.perms and not mode & READABLE:
                sys.fchmod(fd, mode)
        finally:
            sys.close(fd)
    except BaseException:
        with suppress(OSError):
            sys.unlink(here, temporary)
        raise
