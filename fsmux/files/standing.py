"""Groups of packs come to stand: files take their final names, others get one more, are removed or adjusted.

Theory: each group is done through one descriptor of its directory, which was reached through no symbolic link.  An
entry that fails is noted and the next one is done; what is raised is about the whole group.
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Act, user_and_group
from fsmux.errors import FsmuxError, IntegrityError, NotFound
from fsmux.files import names, sharing, tree
from fsmux.files.attributes import set_xattrs
from fsmux.files.entries import read_back
from fsmux.files.lease import Lease
from fsmux.files.naming import named
from fsmux.files.syscalls import OPEN_READ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsmux.files.holding import Holding
    from fsmux.files.ranges import Poll
    from fsmux.files.terms import Staged, Terms
    from fsmux.files.whole import Stage

P = ParamSpec("P")


class Standing:
    """Has groups stand on these ``terms``, what is put together in reserved directories that are held.  Blocking."""

    def __init__(self, terms: Terms, holding: Holding) -> None:
        self._terms = terms
        self._root = terms.root
        self._sys = terms.sys
        self._holding = holding

    def publish(self, one: Staged, directory: int | None = None) -> bool:
        """Rename what was written, into ``directory`` if that is open; what is raised leaves nothing behind.

        False if that has lost its place meanwhile.
        """
        if not one.files:
            return True
        assert one.state is not None
        try:
            return self._stand(one, self._holding.hold(one.state), directory)
        except BaseException:
            self.discard(one)
            raise

    def appear(self, stage: Stage, above: int | None) -> bool:
        """Have a stage take its place in the directory that is open there.

        False if there is none or that cannot be, and what is in it stands one by one.
        """
        if not stage.spoiled and above is not None and stage.take_place(above):
            return True
        for made in stage.made:
            try:
                with named(made.parts), self._root.landing_in(made.parts[:-1]) as (directory, _):
                    self._root.make_directory(directory, made.parts, made.mode)
            except FsmuxError as error:
                self._terms.fail(made.pack, made.place, [made.entry], error)
        for one in stage.filled:
            self._try(one, self._from_stage, stage)
        for one in stage.finished:
            self._try(one, self.adjust)
        stage.discard()
        return False

    def finish_in(self, stage: Stage, one: Staged) -> None:
        """Set what is kept of a directory in a stage."""
        if self._try(one, self._open_and_set, stage):
            stage.finished.append(one)

    def _open_and_set(self, one: Staged, stage: Stage) -> None:
        fd = stage.open(self._terms.base + one.group.directory)
        try:
            self._set(one, fd)
        finally:
            self._sys.close(fd)

    def finish(self, one: Staged, directory: int, stage: Stage | None = None) -> None:
        """Set what is kept of a directory that is open, perhaps in a stage."""
        if self._try(one, self._set, directory) and stage is not None:
            stage.finished.append(one)

    def _from_stage(self, one: Staged, stage: Stage) -> None:
        lease = Lease(stage.open(self._terms.base + one.group.directory), self._sys)
        with closing(lease), lease as within:
            self._stand(one, within, None)

    def _try(
        self, one: Staged, act: Callable[Concatenate[Staged, P], object], *args: P.args, **options: P.kwargs
    ) -> bool:
        try:
            with named(self._terms.base + one.group.directory):
                act(one, *args, **options)
        except FsmuxError as error:
            self._terms.fail_group(one, error)
            return False
        return True

    def _stand(self, one: Staged, here: int, directory: int | None) -> bool:
        """Rename all that is in ``here``; anew, and False, if the directory it goes to has lost its place meanwhile."""
        left = one.files if directory is None else self._rename(one, here, directory, one.files)
        at_once = not left
        for last in (False, True):
            if left:
                parent = self._terms.base + one.group.directory
                with closing(self._root.directory(parent)) as lease, lease as opened:
                    left = self._rename(one, here, opened, left, last=last)
        return at_once

    def _rename(
        self, one: Staged, here: int, directory: int, files: list[tuple[bytes, int]], *, last: bool = False
    ) -> list[tuple[bytes, int]]:
        """Rename files; those that should be tried once more, if this is not the last time."""
        group, terms, rename = one.group, self._terms, self._sys.rename
        left: list[tuple[bytes, int]] = []
        for temporary, index in files:
            try:
                if terms.verify and group.modes[index] & KIND_BITS == REGULAR:
                    read_back(terms, here, temporary, group, index)
                try:  # as rename_into does, without a call for each small file
                    rename(here, temporary, directory, group.names[index])
                except PermissionError as refused:
                    self._root.opening(refused, directory, rename, here, temporary, directory, group.names[index])
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not last:
                    left.append((temporary, index))
                    continue
                with suppress(OSError):
                    self._sys.unlink(here, temporary)
                terms.fail_entry(one, index, error)
            except IntegrityError as error:
                terms.fail_entry(one, index, error)
        if terms.settles:
            self._root.settle(terms.base + group.directory, directory)
        return left

    def discard(self, one: Staged) -> None:
        """Remove what was written."""
        if one.state is None:
            return
        here = self._holding.hold(one.state)
        for temporary, _ in one.files:
            with suppress(OSError):
                self._sys.unlink(here, temporary)

    def hold_linked(self, staged: Sequence[Staged]) -> None:
        """Have the file systems synced on which files are to be linked: they may stand from earlier transfers."""
        for one in staged if self._terms.together and self._terms.durable else ():
            if one.group.act is Act.LINK:
                with (
                    suppress(FsmuxError, OSError),
                    self._root.landing_in(self._terms.base + one.group.directory) as (_, state),
                ):
                    self._holding.hold(state)

    def link(self, one: Staged) -> None:
        """Give files that stand one more name."""
        group, terms = one.group, self._terms
        parent = terms.base + group.directory
        names.check(parent)
        names.check_in(parent, group.names)
        linker = sharing.Linker(self._root, sync=terms.settles)
        with closing(linker), self._root.landing_in(parent) as (directory, state):
            here = self._holding.hold(state)
            for index, (name, first) in enumerate(zip(group.names, group.targets, strict=True)):
                try:
                    linker.link(state, here, directory, name, terms.base + tuple(first.split(b"/")))
                except (OSError, FsmuxError) as error:
                    terms.fail_entry(one, index, error)
            if terms.settles:
                self._root.settle(parent, directory)

    def remove(self, one: Staged, poll: Poll | None) -> None:
        """Remove names; what somebody else has removed is as good as removed by us."""
        group, terms = one.group, self._terms
        parent = terms.base + group.directory
        names.check_in(parent, group.names)
        try:
            lease = self._root.directory(parent)
        except NotFound:
            return
        with closing(lease), lease as directory:
            self._note(directory)
            for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True)):
                try:
                    self._root.remove_from(directory, name, mode & KIND_BITS == DIRECTORY, poll)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    terms.fail_entry(one, index, error)
                if poll is not None:
                    poll()
            if terms.settles:
                self._sys.fsync(directory)

    def adjust(self, one: Staged) -> None:
        """Set what is kept of a directory, or of files in it."""
        group = one.group
        if group.itself and not group.directory:
            self._holding.let_go()  # or removing the reserved directory from it would be its last change
        with closing(self._root.directory(self._terms.base + group.directory)) as lease, lease as directory:
            self._note(directory)
            if group.itself:
                self._set(one, directory)
            for index, name in enumerate(group.names):
                try:
                    fd = tree.open_own(self._sys, directory, name, OPEN_READ)
                    try:
                        if group.found:
                            parts = (*group.directory, name)
                            tree.check_found(self._sys, fd, parts, group.found[index], group.mtimes[index])
                        self._set(one, fd, index)
                    finally:
                        self._sys.close(fd)
                except (OSError, FsmuxError) as error:
                    self._terms.fail_entry(one, index, error)

    def _set(self, one: Staged, fd: int, index: int = 0) -> None:
        group, terms, sys = one.group, self._terms, self._sys
        if (owner := terms.owner(group, index)) is not None:
            sys.fchown(fd, *user_and_group(owner))
        if terms.kept.perms:
            sys.fchmod(fd, group.modes[index] & 0o777)
        if (xattrs := terms.xattrs(group, index)) is not None and (
            refused := set_xattrs(sys, fd, xattrs, terms.namespaces)
        ) is not None:
            terms.note_refused(one, one.first + index, refused)
        if terms.kept.times:
            sys.futime(fd, group.mtimes[index])
        if terms.settles:
            sys.fsync(fd)

    def _note(self, directory: int) -> None:
        """What changes here by its names alone is to be synced with all else."""
        if self._terms.durable and self._terms.together:
            self._holding.note(directory)
