"""What became of one source: what was told of it, what is owed, and how its files went.

Theory: every attempt comes to the names of a tree in the same order; hence one *mark*, the last name that was spoken
of, says of all others whether they were.  Only what was to be moved and has not been told of since is kept by name, and
that is never more than what is under way at once.

A connection that is lost takes a file's session with it, and the next one goes on from what the destination has.  Of
that nobody knows how much came in this run but by what was sent: a :class:`Journey` is one file's sessions together.

A person knows what is in a source by its path below it; where there are several, by the name of the source before it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from fsmux import events
from fsmux.columns import KIND_BITS, REGULAR
from fsmux.events import FileDone, FilesDone, FilesLinked, FilesSkipped
from fsmux.limits import MAX_XATTRS
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from fsmux.columns import Group
    from fsmux.errors import FsmuxError
    from fsmux.moving.report import Report
    from fsmux.plan.plan import Plan
    from fsmux.records import Parts
    from fsmux.transfer.session import Outcome


UP_TO_DATE: Final = "up to date"
NEWER: Final = "newer at the destination"
UNKNOWN_XATTRS: Final = (
    f"its extended attributes are not kept: they take more than {MAX_XATTRS} bytes or cannot be read"
)

OfNames = TypeVar("OfNames", FilesDone, FilesLinked, FilesSkipped, events.NamesChanged)


class _Mark(NamedTuple):
    """All up to this name of a directory were spoken of, or ``all`` that is in it; in the order of a walk."""

    directory: Parts
    all: bool
    name: bytes


class Journey:
    """One file's sessions, one after the other; observes them for the report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._starts = self._sent = self._resumed = 0
        self._before = 0  # of what was resumed, the part that surely came before this run
        self._found = self._most = 0  # what this session found at the destination, and the most that one did

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.FileProgress(_, count):
                self._sent += count
            case events.FileReused(_, count):
                self._resumed += count
                self._before += count if self._starts <= 1 else 0
                self._finds(self._found + count)
            case events.FileStarted(_, _, held):
                if not self._starts:
                    self._resumed = self._before = held
                self._starts += 1
                self._finds(held)
        self._report(event)

    def _finds(self, held: int) -> None:
        """So much of the file is there: if it is more than before, the session that was lost has brought something."""
        self._found = held
        if held > self._most:
            self._most = held
            self._report.progress += self._starts > 1

    @property
    def begun(self) -> bool:
        """Whether the destination has made a place for it, so that whatever is kept of it came in this run."""
        return self._starts > 0

    def ended(self, name: str, outcome: Outcome) -> FileDone:
        """What all of them came to."""
        resumed = outcome.bytes_resumed
        if self._starts > 1:  # what a later session found may have been sent by an earlier one
            resumed = min(self._resumed, max(outcome.bytes - self._sent, self._before))
        return FileDone(name, outcome.bytes, self._sent, resumed, f"{outcome.crc32:08x}", outcome.durable)


class Account:
    """What became of one source; names below it are those of its tree, and ``()`` is the source itself."""

    def __init__(self, report: Report, name: str = "") -> None:
        self.report = report
        self.name = name
        self.found_files = self.found_bytes = 0
        """What of it is to be sent, as far as that is known."""
        self._above: Parts | None = None  # what a person puts before names below it, if it is a tree
        self._missing = False
        self._removing: dict[Parts, set[bytes]] = {}
        self._mark: _Mark | None = None
        self._owed: dict[Parts, set[bytes]] = {}
        self._failed: set[Parts] = set()
        self._journeys: dict[Parts, Journey] = {}

    def __call__(self, event: events.Event) -> None:
        self.report(event)

    # ---- the plan ------------------------------------------------------------------------------------------------

    def missing(self, label: str, error: FsmuxError) -> None:
        """It was named so, and cannot be had, as it seems."""
        self._missing = True
        self._fail((), label, error)

    def found(self, above: Parts | None) -> None:
        """It can be had; if it is a tree, ``above`` comes before the names below it."""
        self._above = above
        if self._missing:  # when an earlier attempt looked for it
            self._missing = False
            self._settle(*_place(()))

    @property
    def untouched(self) -> bool:
        """Whether no attempt has spoken of any of it."""
        return self._mark is None

    def owed(self, directory: Parts) -> Collection[bytes]:
        """Files in it that an earlier attempt was to move and has not told of: perhaps they stand all the same."""
        return self._owed.get(directory, ())

    def parted(self, group: Group) -> Iterator[Group]:
        """The group, or what of it was spoken of in an earlier attempt and the rest of it."""
        told = self._told(group)
        if 0 < told < len(group):
            yield group.cut(0, told)
            group = group.cut(told, len(group))
        yield group

    def _told(self, group: Group) -> int:
        mark = self._mark
        if mark is None or group.directory > mark.directory:
            return 0
        if group.directory < mark.directory or mark.all:
            return len(group)
        return bisect_right(group.names, mark.name)

    def take(self, group: Group, found: Plan) -> None:
        """Tell what is going to be done about a group, all or nothing of which was told before."""
        report, directory, told = self.report, group.directory, self._told(group)
        for name, error in found.failed:
            parts = (*directory, name)
            self.fail(parts, error)
        if not told:
            for name in found.special:
                report.skip(self.name_of((*directory, name)), 0, "special file", warn=True)
            for left, reason in ((found.current, UP_TO_DATE), (found.newer, NEWER)):
                if left is not None:
                    report.left(self._called(FilesSkipped(directory, left.names, left.sizes, reason)))
            size = sum(found.make.sizes) if found.make is not None else 0
            files = found.files + len(found.large) + len(found.further)
            self._add_found(files, size + sum([large.size for large in found.large]))
            mark = _Mark(directory, not group.more, group.names[-1] if group.more and group.names else b"")
            self._mark = max(self._mark or mark, mark)
        if found.files and found.make is not None:
            self._owe(directory, _regular(found.make))
        if found.large:
            self._owe(directory, [large.name for large in found.large])
        if found.further:
            self._owe(directory, [further.name for further in found.further])

    def take_itself(self, size: int | None) -> bool:
        """The same for a source that is one file, which is to be sent if it has a ``size``; False if it was told."""
        told, self._mark = self._mark is not None, _Mark((), True, b"")
        if size is not None:
            self._owe(*_place(()))
            if not told:
                self._add_found(1, size)
        return not told

    def _add_found(self, files: int, size: int) -> None:
        self.found_files += files
        self.found_bytes += size
        self.report.found(files, size)

    def _owe(self, directory: Parts, names: Collection[bytes]) -> None:
        self._owed.setdefault(directory, set()).update(names)

    # ---- what became of it ---------------------------------------------------------------------------------------

    def journey(self, parts: Parts) -> Journey:
        """That of one file, which goes by sessions of its own."""
        return self._journeys.setdefault(parts, Journey(self.report))

    def done(self, parts: Parts, outcome: Outcome, twin: str = "") -> None:
        """A file stands. ``twin`` is another one at the destination that it may have been copied from."""
        self._settle(*_place(parts))
        name = self.name_of(parts)
        event = self._journeys.pop(parts).ended(name, outcome)
        self.report.done(event)
        if twin and not event.bytes_sent and event.bytes_resumed == event.bytes:
            self.report.copied += 1
            self.report(events.FileCopied(name, twin, event.bytes))

    def settled(self) -> None:
        """The source itself, which is one file, stands."""
        self._settle(*_place(()))

    def packed(self, event: FilesDone) -> None:
        """Files came in a pack."""
        self._settle(event.directory, event.names)
        self.report.packed(self._called(event))

    def linked(self, event: FilesLinked) -> None:
        """Files are further names of others."""
        self._settle(event.directory, event.names)
        self.report.linked(self._called(event))

    def name_of(self, parts: Parts) -> str:
        """What a person calls something of it; a tree as a whole has its place among names, which may be ``.``."""
        return printable((self._above or ()) + parts) if parts or self._above is not None else self.name

    def _called(self, event: OfNames) -> OfNames:
        """The event with the directory as a person calls it."""
        return replace(event, directory=self._above + event.directory) if self._above else event

    def changed(self, action: str, directory: Parts, names: Sequence[bytes]) -> None:
        """Something else than sending was done to names of a directory."""
        if action == events.REMOVE and (owed := self._removing.get(directory)) is not None:
            owed.difference_update(names)
        if not names:
            return
        self.report.changed(self._called(events.NamesChanged(action, directory, names)))

    def changed_itself(self, action: str, parts: Parts) -> None:
        """The same about one directory, which may be the source itself."""
        self.report.changed(events.Changed(action, self.name_of(parts)))

    def removing(self, groups: Sequence[Group]) -> None:
        """These are going to be removed, and nothing else; what else an earlier attempt was about to, is gone."""
        planned = {group.directory: set(group.names) for group in groups}
        for directory, names in self._removing.items():
            if gone := sorted(names.difference(planned.get(directory, ()))):
                self.report.changed(self._called(events.NamesChanged(events.REMOVE, directory, gone)))
        self._removing = planned

    def fail(self, parts: Parts, error: FsmuxError) -> None:
        """Something below it cannot be had or made, or that directory: it is said once, however often it is tried."""
        self._fail(parts, self.name_of(parts), error)

    def fail_itself(self, error: FsmuxError) -> None:
        """The same about the source as a whole."""
        self._fail((), self.name, error)

    def _fail(self, parts: Parts, name: str, error: FsmuxError) -> None:
        directory, names = _place(parts)
        self._unowe(directory, names)
        self._journeys.pop(parts, None)
        if parts not in self._failed:
            self._failed.add(parts)
            text, prefix = str(error), f"{printable(parts)}: "
            if not parts or self._above:  # the event has the name that a person knows
                text = text.removeprefix(prefix)
            self.report.fail(name, text, error)

    def _settle(self, directory: Parts, names: Iterable[bytes]) -> None:
        names = list(names)
        self._unowe(directory, names)
        if self._failed:
            again = {(*directory, name) if name else () for name in names} & self._failed
            self._failed -= again
            self.report.failed -= len(again)

    def _unowe(self, directory: Parts, names: Iterable[bytes]) -> None:
        owed = self._owed.get(directory)
        if owed is not None:
            owed.difference_update(names)
            if not owed:
                del self._owed[directory]


def name_of(label: str) -> str:
    """What a person calls a source that was named so."""
    return printable(label.rstrip("/").rpartition("/")[2] or label)


def _place(parts: Parts) -> tuple[Parts, Collection[bytes]]:
    """Directory and name; the source itself has none."""
    return (parts[:-1], parts[-1:]) if parts else ((), (b"",))


def _regular(group: Group) -> Collection[bytes]:
    if group.kinds <= {REGULAR}:
        return group.names
    return [name for name, mode in zip(group.names, group.modes, strict=True) if mode & KIND_BITS == REGULAR]
