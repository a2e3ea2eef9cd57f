"""The served directory, and everything that can be done in it by components.

Theory: a root is one descriptor, opened once from the operator's own path and held.  A method takes components, checks
them (:mod:`.names`), resolves them beneath that descriptor (:mod:`.resolve`) and works on what it got, never on a path.
Reading may pass symbolic links that stay inside; whatever writes passes none.  Directory descriptors are not kept
between calls: resolving anew costs 2 to 3 µs, and a kept one goes on pointing at a directory that was moved away.
"""

from __future__ import annotations

import hashlib
import stat
import struct
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from fsmux.columns import KEY_SIZE, user_and_group
from fsmux.errors import BadName, Exists, IsADirectory, NotRegular, UsageError, from_os_error
from fsmux.files import names, tree
from fsmux.files.attributes import give, read_xattrs, read_xattrs_at, set_xattrs, settable
from fsmux.files.landing import Landing
from fsmux.files.lease import Lease
from fsmux.files.naming import named
from fsmux.files.resolve import open_beneath, open_target
from fsmux.files.syscalls import OPEN_CREATE, OPEN_DIRECTORY, OPEN_READ, OPEN_WRITE, Syscalls, real
from fsmux.records import Attrs, Durability, Kind, Namespaces, printable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from fsmux.errors import FsmuxError
    from fsmux.files.ranges import Poll
    from fsmux.records import Parts

PAGE: Final = 1000
"""Entries of one page of a listing."""

_PLACE: Final = struct.Struct("<QQ")


class Root(Landing):
    """One directory; all names are relative to it and stay in it.  Thread-safe."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, sys: Syscalls = real) -> Root:
        """``path`` is the operator's, so it may lead through anything."""
        name = printable(str(path))
        try:
            fd = sys.open_root(path)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                raise UsageError(f"{name} cannot be the name of a directory") from None
            raise from_os_error(error, name) from None
        return cls(fd, sys)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- looking -------------------------------------------------------------------------------------------------

    def stat(
        self, parts: Parts, follow: bool = False, owner: bool = False, xattrs: Namespaces = Namespaces.NONE
    ) -> Attrs:
        names.check(parts)

        def attrs_of(fd: int) -> Attrs:
            found = tree.attrs_of(self.sys.fstat(fd), owner=owner)
            return replace(found, xattrs=read_xattrs(self.sys, fd, xattrs)) if xattrs else found

        with named(parts), self._top as top:
            if not parts:
                return attrs_of(top)
            with self._step(top, parts[:-1], links=True) as parent:
                facts = self.sys.stat(parent, parts[-1])
                is_link = stat.S_ISLNK(facts.st_mode)
                if not (is_link and follow):
                    target = self.sys.readlink(parent, parts[-1]) if is_link else b""
                    found = tree.attrs_of(facts, target, owner)
                    if not xattrs:
                        return found
                    return replace(found, xattrs=read_xattrs_at(self.sys, parent, parts[-1], facts.st_mode, xattrs))
            fd = open_target(self.sys, top, parts)
            try:
                return attrs_of(fd)
            finally:
                self._close(fd)

    def scan(self, parts: Parts) -> Iterator[list[tuple[bytes, Attrs]]]:
        """The entries of a directory in pages, unsorted, without ``.fsmux``; what vanishes meanwhile is left out.

        A generator that holds a descriptor: exhaust it or close it.
        """
        names.check(parts)
        with named(parts):
            with self._top as top:
                lease = Lease(open_beneath(self.sys, top, parts, OPEN_DIRECTORY, links=True), self.sys)
            try:
                with lease as fd, closing(tree.entries(self.sys, fd)) as found:
                    page: list[tuple[bytes, Attrs]] = []
                    for entry in found:
                        page.append(entry)
                        if len(page) == PAGE:
                            yield page
                            page = []
                    if page:
                        yield page
            finally:
                lease.close()

    def open_file(self, parts: Parts, *, write: bool = False, create: bool = False, truncate: bool = False) -> Lease:
        """A regular file, to read; with ``write`` to read and write in place.  Nothing else is ever waited for."""
        return self.open_regular(parts, write=write, create=create, truncate=truncate)[0]

    def open_regular(
        self, parts: Parts, *, write: bool = False, create: bool = False, truncate: bool = False, links: bool = True
    ) -> tuple[Lease, os.stat_result]:
        """As :meth:`open_file`, and what ``fstat`` said."""
        names.check(parts)
        if not parts:
            raise IsADirectory(f"{printable(parts)}: is a directory")
        with named(parts), self._top as top:
            if create:
                with self._step(top, parts[:-1]) as parent:
                    fd = self.sys.openat(parent, parts[-1], OPEN_CREATE, 0o666)
            else:
                fd = open_beneath(self.sys, top, parts, OPEN_WRITE if write else OPEN_READ, links=links and not write)
            lease = Lease(fd, self.sys)
            try:
                facts = self.sys.fstat(fd)
                if stat.S_ISDIR(facts.st_mode):
                    raise IsADirectory(f"{printable(parts)}: is a directory")
                if not stat.S_ISREG(facts.st_mode):
                    raise NotRegular(f"{printable(parts)}: not a regular file")
                if truncate and write:
                    self.sys.ftruncate(fd, 0)
            except BaseException:
                lease.close()
                raise
            return lease, facts

    def directory(self, parts: Parts, create: bool = False) -> Lease:
        """A directory that may be written to, reached through no link; ``create`` makes it and its parents."""
        names.check(parts)
        with named(parts), self._top as top:
            return Lease(self._make_directories(top, parts) if create else self._strict(top, parts), self.sys)

    def look_into(self, parts: Parts) -> Lease:
        """A directory to list and to read files of, reached through links that stay inside."""
        names.check(parts)
        with named(parts), self._top as top:
            return Lease(open_beneath(self.sys, top, parts, OPEN_DIRECTORY, links=True), self.sys)

    def key_of(self, facts: os.stat_result) -> bytes:
        """What all names of one file have in common, and those of no other: it tells a peer nothing else."""
        secret = self._secret
        if not secret:
            with self._mutex:
                secret = self._secret = self._secret or self.sys.random(KEY_SIZE)
        place = _PLACE.pack(facts.st_dev & (2**64 - 1), facts.st_ino)
        return hashlib.blake2b(place, key=secret, digest_size=KEY_SIZE).digest()

    # ---- changing ------------------------------------------------------------------------------------------------

    def mkdir(
        self, parts: Parts, parents: bool = False, mode: int = 0o777, durability: Durability = Durability.NONE
    ) -> None:
        """With ``parents`` missing parents are made and an existing directory is fine, as in ``mkdir -p``."""
        names.check(parts)
        with named(parts), self._top as top:
            if not parts:
                if parents:
                    return
                raise Exists(f"{printable(parts)}: exists")
            if parents:
                self._close(self._make_directories(top, parts[:-1]))
            try:
                with self._step(top, parts[:-1]) as parent:
                    self._mkdir(parent, parts, mode & 0o777)
            except FileExistsError:
                if not parents:
                    raise
                self._close(self._strict(top, parts))
            self._settle_by_name(durability, top, parts[:-1])

    def rename(
        self, source: Parts, target: Parts, replace: bool = False, durability: Durability = Durability.NONE
    ) -> None:
        for parts in (source, target):
            names.check(parts)
            _refuse_root(parts)
        with named(source), self._top as top, self._step(top, source[:-1]) as here:
            found = self.sys.stat(here, source[-1])  # so that an error from here on is about the target
            with named(target), self._step(top, target[:-1]) as there:
                act = self.sys.rename if replace else partial(tree.rename_new, self.sys)
                self.change(there, self.change, here, act, here, source[-1], there, target[-1])
                if found.st_nlink > 1 and source != target and stat.S_ISREG(found.st_mode):
                    self._remove_twin(here, source[-1], there, target[-1])
            with self._mutex:
                self._settled.clear()
            for parts in (target, source):
                self._settle_by_name(durability, top, parts[:-1])

    def _remove_twin(self, here: int, name: bytes, there: int, other: bytes) -> None:
        """Remove a name that rename(2) has left because the other one is a name of the same file."""
        with suppress(FileNotFoundError):
            left, stands = self.sys.stat(here, name), self.sys.stat(there, other)
            if (left.st_dev, left.st_ino) != (stands.st_dev, stands.st_ino):
                return
            fd = self.sys.openat(here, b".", OPEN_DIRECTORY)
            with closing(Lease(fd, self.sys)), closing(tree.entries(self.sys, fd)) as entries:
                listed = any(found == name for found, _ in entries)
            if listed:  # and it is not the other name, which a file system that ignores case has found for it
                self.change(here, self.sys.unlink, here, name)

    def remove(
        self, parts: Parts, recursive: bool = False, durability: Durability = Durability.NONE, poll: Poll | None = None
    ) -> None:
        """A file, a link or an empty directory; with ``recursive`` a directory with all that is in it.

        ``poll`` is called now and then, and may raise.
        """
        names.check(parts)
        _refuse_root(parts)
        with named(parts), self._top as top, self._step(top, parts[:-1]) as parent:
            is_directory = stat.S_ISDIR(self.sys.stat(parent, parts[-1]).st_mode)
            if is_directory and not recursive:
                self._rmdir(parent, parts[-1])
            else:
                self.remove_from(parent, parts[-1], is_directory, poll)
            self._settle_by_name(durability, top, parts[:-1])

    def remove_from(self, directory: int, name: bytes, is_directory: bool, poll: Poll | None = None) -> None:
        """Remove a name from an open directory, which its owner may have closed, with all that is in it.

        ``poll`` is called now and then, and may raise.
        """
        if is_directory:
            tree.remove(self.sys, directory, name, poll, self._rmdir)
        else:
            self.change(directory, self.sys.unlink, directory, name)

    def _rmdir(self, directory: int, name: bytes) -> None:
        self.change(directory, self.sys.rmdir, directory, name)

    def symlink(
        self, parts: Parts, target: bytes, attrs: Attrs | None = None, durability: Durability = Durability.NONE
    ) -> None:
        """Make a symbolic link, in place of whatever file or link has the name, in one step.

        Its text is stored as it is: it may lead anywhere, because nothing here follows it out of the root.
        An extended attribute that is refused fails nothing; :meth:`set_attrs` tells of it.
        """
        names.check(parts)
        _refuse_root(parts)
        if not target or b"\0" in target:
            raise BadName(f"{printable(parts)}: a symbolic link needs a target")
        with named(parts), self.landing(parts[:-1]) as pin:
            state = pin.state
            name = state.unique()
            with state.hold() as here:
                self.sys.symlink(target, here, name)
                try:
                    if attrs is not None and attrs.owner is not None and self.sys.euid() == 0:
                        self.sys.chown_link(here, name, *user_and_group(attrs.owner))
                    if attrs is not None and attrs.mtime_ns:
                        self.sys.utime_link(here, name, attrs.mtime_ns)
                    if attrs is not None and attrs.xattrs:
                        link = self.sys.link_itself(here, name)
                        set_xattrs(self.sys, link, attrs.xattrs, settable(self.sys, Namespaces.ALL), fresh=True)
                    with self._top as top:
                        there = self._make_directories(top, parts[:-1])
                        try:
                            self.rename_into(here, name, there, parts[-1])
                            if durability is not Durability.NONE:
                                self.settle(parts[:-1], there)
                        finally:
                            self._close(there)
                except BaseException:
                    with suppress(OSError):
                        self.sys.unlink(here, name)
                    raise

    def _settle_by_name(self, durability: Durability, top: int, parent: Parts) -> None:
        """Have the names that were changed in a directory be durable, if they are to be and it may be opened for it."""
        if durability is Durability.NONE:
            return
        with suppress(PermissionError):
            fd = self._strict(top, parent)
            try:
                self.settle(parent, fd)
            finally:
                self._close(fd)

    def set_attrs(
        self, parts: Parts, attrs: Attrs, durability: Durability = Durability.NONE, found_ns: int = 0
    ) -> None:
        """Set mode and modification time of a file or directory, the time only of a link; zero leaves one alone.

        With another time now than ``found_ns``, if that is not 0, a file or directory is left as it is: :class:`Busy`.

        Whichever extended attribute is refused, all else is set before that is raised.  Those of a link cannot
        be made durable.
        """
        names.check(parts)
        with named(parts), self._top as top:
            if parts:
                with self._step(top, parts[:-1]) as parent:
                    kind = tree.attrs_of(self.sys.stat(parent, parts[-1])).kind
                    if kind == Kind.SPECIAL:
                        raise NotRegular(f"{printable(parts)}: neither a file nor a directory")
                    if kind == Kind.SYMLINK:
                        if attrs.owner is not None and self.sys.euid() == 0:
                            self.sys.chown_link(parent, parts[-1], *user_and_group(attrs.owner))
                        if attrs.mtime_ns:
                            self.sys.utime_link(parent, parts[-1], attrs.mtime_ns)
                        if attrs.xattrs is not None:
                            link = self.sys.link_itself(parent, parts[-1])
                            refused = set_xattrs(self.sys, link, attrs.xattrs, settable(self.sys, Namespaces.ALL))
                            _raise_refused(refused, parts)
                        return
                    fd = tree.open_own(self.sys, parent, parts[-1], OPEN_READ)
            else:
                fd = self._strict(top, ())
            try:
                if found_ns:
                    tree.check_found(self.sys, fd, parts, found_ns, attrs.mtime_ns)
                refused = give(self.sys, fd, attrs)
                if attrs.mode & 0o777:
                    self.sys.fchmod(fd, attrs.mode & 0o777)
                if attrs.mtime_ns:
                    self.sys.futime(fd, attrs.mtime_ns)
                if durability is not Durability.NONE:
                    self.sys.fsync(fd)
                _raise_refused(refused, parts)
            finally:
                self._close(fd)


def _raise_refused(refused: FsmuxError | None, parts: Parts) -> None:
    if refused is not None:
        raise type(refused)(f"{printable(parts)}: {refused}")


def _refuse_root(parts: Parts) -> None:
    if not parts:
        raise BadName("the root itself cannot be renamed, removed or replaced")
