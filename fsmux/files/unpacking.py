"""Packs to the disk: one call writes hundreds of files through held directory descriptors.

Theory: a file is put together under a name of its own in the reserved directory (:mod:`.entries`), and appears under
its final name by ``rename`` alone (:mod:`.standing`), so that nothing partial ever stands there; a directory is opened
once for all that a pack has for it, through no symbolic link.  An entry that fails takes none of the others with it.

What is to be durable is shared: with ``BATCH`` the files of several packs are written first, then the file system is
synced once, all are renamed, and it is synced once more for their directories; only then is any of them acknowledged.
Another thread may have the file system begin with that (:meth:`Unpacker.sync_ahead`), whose word counts for nothing.
Where ``syncfs`` cannot be believed (:mod:`.holding`) each file and directory is synced by itself, as with ``FILE``.
A file that gets a further name is synced before it like one that was written.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from fsmux.columns import DIRECTORY, KIND_BITS, Act, Group, itself
from fsmux.errors import FsmuxError, from_os_error
from fsmux.files import names
from fsmux.files.entries import Part, Writer
from fsmux.files.holding import Holding
from fsmux.files.naming import named
from fsmux.files.standing import Standing
from fsmux.files.terms import Failure, Staged, Terms
from fsmux.files.whole import POSSIBLE, Made, Stage, places_in, stage_for, worth_it
from fsmux.records import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from fsmux.files.contents import Contents
    from fsmux.files.ranges import Poll
    from fsmux.files.root import Root
    from fsmux.files.state import StateDir
    from fsmux.records import Durability, Kept, Parts

PASSABLE: Final = 0o700
"""What a directory's owner may do until it is finished, whatever its mode will be."""

EMPTY_KNOWN: Final = 65_536
"""Fresh directories that are remembered, at about 200 bytes each; beyond it all are forgotten, and filled file by file.
"""

_ORDER: Final = {Act.MAKE: 0, Act.LINK: 1, Act.REMOVE: 2, Act.ADJUST: 3}
"""Files are linked when they stand, and times of directories come behind everything that changes them."""


def _order(one: Staged) -> int:
    return _ORDER[one.group.act]


def _depth(one: Staged) -> int:
    return len(one.group.directory)


def _parent(stage: Stage) -> Parts:
    return stage.parts[:-1]


def _stays_passable(finishing: Staged) -> bool:
    """Whether its owner can go through a finished directory, and empty it if its stage comes to nothing."""
    return finishing.group.modes[0] & PASSABLE == PASSABLE


class _Made(NamedTuple):
    """Directories that were made: the numbers of their pack, of their group in it, and of themselves in the group."""

    pack: int
    place: int
    indexes: list[int]


class Unpacker:
    """Writes packs below ``base``.  Blocking, one thread at a time but for one; :meth:`close` it when done."""

    def __init__(
        self, root: Root, base: Parts, durability: Durability, kept: Kept = EVERYTHING, *, verify: bool = False
    ) -> None:
        self._root = root
        self._base = base
        self._terms = Terms(root, base, durability, kept, verify=verify)
        self.commits_together = self._terms.together
        """Whether several packs are best written before :meth:`commit`."""
        self.durable = self._terms.durable
        """Whether what was committed is on stable storage."""
        self._holding = Holding(root.sys)
        self._writer = Writer(self._terms)
        self._standing = Standing(self._terms, self._holding)
        self._staged: list[Staged] = []
        self._made: list[tuple[StateDir, _Made]] = []
        self._empty: set[Parts] = set()
        """Directories that were made here, and have got nothing since."""
        self._stages: list[Stage] = []
        self._within: dict[Parts, Stage] = {}
        """The directories that are in stages."""
        self._finishing: dict[tuple[int, int], Staged] = {}
        """What is to be set of directories themselves when all is in them, by pack and group."""
        self._closing: dict[int, Staged] = {}
        """What of that can be done when the files of a group of the pack were written."""

    def write(self, number: int, groups: Sequence[Group], contents: Contents) -> None:
        """Make the directories of a pack, and write its files and links; :meth:`commit` says what became of them."""
        self._begin(number, groups)
        for part in _parts(groups):
            try:
                with named(self._base + part.group.directory):
                    self._write_part(number, part, contents)
            except FsmuxError as error:
                lost = {index for index, _ in part.group.lost}
                files = [index for index in range(len(part.group)) if index not in lost]
                self._terms.fail(number, part.place, files, error)

    def _begin(self, number: int, groups: Sequence[Group]) -> None:
        """Make its directories, and note what is to be done when its files are written."""
        last: dict[Parts, int] = {}
        finishing: dict[Parts, Staged] = {}
        for place, group in enumerate(groups):
            parent = self._base + group.directory
            try:
                with named(parent):
                    if group.itself and group.act is Act.ADJUST:
                        finishing[parent] = Staged(number, place, group, None, [])
                        self._finishing[number, place] = finishing[parent]
                    elif group.act is not Act.MAKE:
                        self._staged.append(Staged(number, place, group, None, []))
                    elif group.itself:
                        mode = self._passable(group.modes[0])
                        self._root.mkdir(parent, True, mode)
                        with self._root.landing_in(parent) as (directory, state):
                            self._note_made(parent, directory, state, _Made(number, place, [0]))
                    else:
                        last[parent] = place
                        if group.finish is not None:
                            mtime, mode = group.finish
                            adjusting = itself(group.directory, mtime, mode, Act.ADJUST)
                            finishing[parent] = Staged(number, place, adjusting, None, [], first=len(group))
                            self._finishing[number, place] = finishing[parent]
                        stage = self._stage(groups, place)
                        if DIRECTORY in group.kinds:
                            self._make_directories(number, place, group, stage)
            except FsmuxError as error:
                made = [index for index, mode in enumerate(group.modes) if mode & KIND_BITS == DIRECTORY]
                self._terms.fail(number, place, made, error)
        # Not if more packs come before all of it stands.
        alone = not (self.commits_together or self._renaming)
        self._closing = {
            last[parent]: one for parent, one in finishing.items() if alone and self._may_close(parent, one, last)
        }

    def sync_ahead(self) -> None:
        """Begin with what :meth:`commit` will wait for, in another thread beside :meth:`write`, and nothing else."""
        self._holding.sync_ahead()

    def commit(self, poll: Poll | None = None) -> list[Failure]:
        """Have all that was written stand under its names, and durably if that is asked for; what failed of it.

        ``poll`` is called between removals, and may raise.
        """
        stages, staged = self._taken()
        staged.sort(key=_order)
        self._standing.hold_linked(staged)
        bad = self._sync()
        self._have_appear(stages, bad)
        for one in staged:
            try:
                with named(self._base + one.group.directory):
                    if one.group.act is Act.REMOVE:
                        self._standing.remove(one, poll)
                    elif one.group.act is Act.ADJUST:
                        self._standing.adjust(one)
                    elif one.state is None:
                        if bad:
                            raise next(iter(bad.values()))  # what is linked may be among it
                        self._standing.link(one)
                    elif one.state in bad:
                        self._standing.discard(one)
                        raise bad[one.state]
                    else:
                        self._standing.publish(one)
            except FsmuxError as error:
                self._terms.fail_group(one, error)
        unsafe = self._sync()
        self._holding.close_left()
        for stage in stages:
            if (lost := unsafe.get(stage.state)) is not None:
                self._fail_stage(stage, lost)
        for one in staged:
            if one.state is not None and one.state in unsafe:
                self._terms.fail_group(one, unsafe[one.state])
            elif unsafe and one.state is None:
                self._terms.fail_group(one, next(iter(unsafe.values())))
        directories, self._made = self._made, []
        for state, made in directories:
            if (lost := unsafe.get(state) or bad.get(state)) is not None:
                self._terms.fail(made.pack, made.place, made.indexes, lost)
        failures, self._terms.failures = self._terms.failures, []
        if not any([failure.stands for failure in failures]):
            return failures
        fallen = {failure[:3] for failure in failures if not failure.stands}
        return [failure for failure in failures if not failure.stands or failure[:3] not in fallen]

    def close(self) -> None:
        """Remove what was not committed."""
        stages, self._stages = self._stages, []
        for stage in stages:
            stage.discard()
        staged, self._staged = self._staged, []
        for one in staged:
            self._standing.discard(one)
        self._holding.let_go()
        self._holding.close_left()

    def _taken(self) -> tuple[list[Stage], list[Staged]]:
        """What is to be committed, with directories in stages finished; those elsewhere are behind everything else.

        The innermost ones come first: the mode of one above may keep its owner out.
        """
        renaming = self._renaming
        for one in sorted(self._finishing.values(), key=_depth, reverse=True):
            stage = self._within.get(self._base + one.group.directory)
            if stage is None or renaming or not _stays_passable(one):
                self._staged.append(one)
            else:
                self._standing.finish_in(stage, one)
        stages, staged, self._stages, self._staged = self._stages, self._staged, [], []
        self._finishing, self._within = {}, {}
        return stages, staged

    def _have_appear(self, stages: Sequence[Stage], bad: Mapping[StateDir | int, FsmuxError]) -> None:
        for parent, together in groupby(stages, _parent):
            with places_in(self._root, parent) as above:
                for stage in together:
                    if (lost := bad.get(stage.state)) is not None:
                        stage.discard()
                        self._fail_stage(stage, lost)
                    elif self._standing.appear(stage, above):
                        for parts in stage.empty(self._base):
                            self._note_empty(parts)

    def _fail_stage(self, stage: Stage, error: FsmuxError) -> None:
        for one in (*stage.filled, *stage.finished):
            self._terms.fail_group(one, error)

    def _sync(self) -> dict[StateDir | int, FsmuxError]:
        """Sync what is written to together; the errors of those file systems that failed."""
        return self._holding.sync() if self.commits_together else {}

    @property
    def _renaming(self) -> bool:
        """Whether names are to be linked or removed when all files stand, which changes the time of their directory."""
        return any([one.group.act in (Act.LINK, Act.REMOVE) for one in self._staged])

    def _may_close(self, parent: Parts, one: Staged, filling: Container[Parts]) -> bool:
        """Whether a directory can be finished when its last files of this pack were written, if there are any."""
        if parent not in filling or not _stays_passable(one):
            return False
        # Nothing is to appear in it later, or to go from it at the end.
        return parent in self._within or (
            parent != self._base and parent not in [stage.parts[:-1] for stage in self._stages]
        )

    def _stage(self, groups: Sequence[Group], place: int) -> Stage | None:
        """The stage that a group belongs into, a new one if it pays; None if there is none."""
        parent = self._base + groups[place].directory
        stage = self._within.get(parent)
        if stage is None and parent in self._empty:
            self._empty.discard(parent)
            with suppress(FsmuxError, OSError):  # then it is filled file by file
                if worth_it(groups, place) and (stage := stage_for(self._root, self._holding, parent)) is not None:
                    self._stages.append(stage)
                    self._within[parent] = stage
        return stage

    def _make_directories(self, number: int, place: int, group: Group, stage: Stage | None) -> None:
        parent = self._base + group.directory
        names.check(parent)
        names.check_in(parent, group.names)
        made: list[int] = []
        if stage is not None:
            directory = stage.open(parent)
            try:
                for index, parts, mode in self._directories(group):
                    try:
                        stage.make(directory, Made(parts, mode, number, place, index))
                        self._within[parts] = stage
                        made.append(index)
                    except OSError as error:
                        self._terms.fail(
                            number, place, [index], from_os_error(error, self._terms.name_of(group, index))
                        )
            finally:
                self._root.sys.close(directory)
            if self.commits_together:
                self._made.append((stage.state, _Made(number, place, made)))
            return
        left = list(self._directories(group))
        for last in (False, True):  # it may lose its place to another one meanwhile (:mod:`.whole`)
            directories, left = left, []
            with self._root.landing_in(parent) as (directory, state):
                for index, parts, mode in directories:
                    try:
                        if self._root.make_directory(directory, parts, mode):
                            self._note_empty(parts)
                        made.append(index)
                    except OSError as error:
                        if isinstance(error, FileNotFoundError) and not last:
                            left.append((index, parts, mode))
                            continue
                        failed = from_os_error(error, self._terms.name_of(group, index))
                        self._terms.fail(number, place, [index], failed)
                if not left:
                    self._note_made(parent, directory, state, _Made(number, place, made))
                    return

    def _directories(self, group: Group) -> Iterator[tuple[int, Parts, int]]:
        """The directories of a group: their indexes, where they are, and how they are made."""
        for index, (name, mode) in enumerate(zip(group.names, group.modes, strict=True)):
            if mode & KIND_BITS == DIRECTORY:
                yield index, (*self._base, *group.directory, name), self._passable(mode)

    def _note_empty(self, parts: Parts) -> None:
        if not POSSIBLE or self._terms.verify or self._terms.settles:
            return  # what is read back or synced by itself takes its name by itself
        if len(self._empty) >= EMPTY_KNOWN:
            self._empty.clear()
        self._empty.add(parts)

    def _note_made(self, parent: Parts, directory: int, state: StateDir, made: _Made) -> None:
        """Directories, made in ``parent`` or that itself, are to be durable: at once, or with all that is committed."""
        if self.commits_together:
            self._holding.hold(state)
            self._made.append((state, made))
        elif self._terms.settles:
            self._root.settle(parent, directory)

    def _passable(self, mode: int) -> int:
        """How a directory is made that is finished later."""
        return mode & 0o777 | PASSABLE if self._terms.kept.perms else 0o777

    def _write_part(self, pack: int, part: Part, contents: Contents) -> None:
        group = part.group
        parent = self._base + group.directory
        names.check(parent)
        names.check_in(parent, group.names)
        if (stage := self._within.get(parent)) is not None:
            staged = Staged(pack, part.place, group, stage.state, [], at_home=True)
            directory = stage.open(parent)
            try:
                stage.filled.append(staged)
                self._writer.write(staged, part, directory, directory, contents)
                if directory in self._writer.left:
                    self._writer.left.discard(directory)
                    stage.spoiled = True
                if (closing := self._closing.pop(part.place, None)) is not None:
                    del self._finishing[pack, closing.place]
                    self._standing.finish(closing, directory, stage)
            finally:
                self._root.sys.close(directory)
            return
        with self._root.landing_in(parent) as (directory, state):
            staged = Staged(pack, part.place, group, state, [])
            try:
                self._writer.write(staged, part, directory, self._holding.hold(state), contents)
            except BaseException:
                self._standing.discard(staged)
                raise
            if self.commits_together:
                self._staged.append(staged)
                return
            in_place = self._standing.publish(staged, directory)
            if in_place and (closing := self._closing.pop(part.place, None)) is not None:
                del self._finishing[pack, closing.place]
                self._standing.finish(closing, directory)


def _parts(groups: Sequence[Group]) -> Iterator[Part]:
    """Those of a pack in which there are files or links."""
    offset = 0
    for place, group in enumerate(groups):
        if group.act is Act.MAKE and group.names and group.kinds != {DIRECTORY}:
            yield Part(place, group, offset)
            offset += group.contents
