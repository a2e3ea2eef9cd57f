"""What a transfer tells: events by the names that a person knows, and the counts of its summary.

Theory: a transfer may take several attempts, each over connections of its own, and each begins its plan anew.  What an
earlier one has told must not be told again, nor counted twice, and nothing may be forgotten.  So the counts outlive the
attempts, and so does one :class:`Account` for each source.  Every attempt comes to the names of a tree in the same
order; hence one *mark*, the last name that was spoken of, says of all others whether they were.  Only what was to be
moved and has not been told of since is kept by name, and that is never more than what is under way at once.

A person knows what is in a source by its path below it; where there are several, by the name of the source before it.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from fsmux import events
from fsmux.columns import KIND_BITS, REGULAR
from fsmux.events import (
    FileDone,
    FileFailed,
    FilesDone,
    FileSkipped,
    FilesLinked,
    FilesSkipped,
    Planned,
    Scanning,
    Summary,
)
from fsmux.limits import MAX_XATTRS
from fsmux.moving.journey import Journey
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from fsmux.columns import Group
    from fsmux.errors import FsmuxError
    from fsmux.events import Observer
    from fsmux.moving.pacing import Pace
    from fsmux.plan.plan import Plan
    from fsmux.records import Parts
    from fsmux.transfer.session import Outcome


UP_TO_DATE: Final = "up to date"
NEWER: Final = "newer at the destination"
UNKNOWN_XATTRS: Final = (
    f"its extended attributes are not kept: they take more than {MAX_XATTRS} bytes or cannot be read"
)


class Report:
    """The counts of one transfer; an observer too, for whatever else happens in it."""

    def __init__(self, observer: Observer) -> None:
        self._tell = observer
        self._started = time.monotonic()
        self.files = self.bytes = self.sent = self.resumed = self.skipped = self.failed = self.retries = 0
        self.found_files = self.found_bytes = self.skipped_bytes = self.deleted = self.copied = 0
        self.progress = 0
        """Grows with whatever the destination surely has and had not before."""
        self.pace: Pace | None = None
        """What its attempts have found out about the link, once there is one."""
        self._accounts: dict[int, Account] = {}
        self._mapped = self._planned = False
        self._foreseen = 0, 0
        self._warned: set[tuple[str, str]] = set()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.FileProgress):
            self.sent += event.bytes
        elif isinstance(event, events.ChunkHealed | events.Retrying):
            self.retries += 1
        self._tell(event)

    def account(self, number: int, name: str = "") -> Account:
        """That of one source, by its number among them; ``name`` is what a person calls it."""
        return self._accounts.setdefault(number, Account(self, name))

    # ---- the scan ------------------------------------------------------------------------------------------------

    def mapped(self, texts: Iterable[str]) -> None:
        """Where each source goes."""
        if not self._mapped:
            self._mapped = True
            for text in texts:
                self._tell(events.MappedTo(text))

    def found(self, files: int, size: int) -> None:
        """So many more are to be sent."""
        self.found_files += files
        self.found_bytes += size

    def foresee(self, files: int, size: int) -> None:
        """So many are going to be found in all, at least."""
        self._foreseen = files, size

    @property
    def _known(self) -> tuple[int, int]:
        files, size = self._foreseen
        return max(files, self.found_files), max(size, self.found_bytes)

    def scanning(self) -> None:
        self._tell(Scanning(*self._known))

    def planned(self) -> None:
        """All sources have been looked at; an attempt that follows finds nothing else."""
        if not self._planned:
            self._planned = True
            self._tell(Planned(*self._known, self.skipped, self.skipped_bytes))

    def left(self, event: FilesSkipped) -> None:
        """These are left as they are."""
        self.skipped += len(event.names)
        self.skipped_bytes += event.bytes
        self._tell(event)

    def skip(self, name: str, size: int, reason: str, *, warn: bool = False) -> None:
        self.skipped += 1
        self.skipped_bytes += size
        self._tell(FileSkipped(name, size, reason))
        if warn:
            self._tell(events.Warned(name, f"skipped: {reason}"))

    def warn_once(self, text: str, name: str = "") -> None:
        """Of all attempts, one says so."""
        if (name, text) not in self._warned:
            self._warned.add((name, text))
            self._tell(events.Warned(name, text))

    def would(self, action: str, name: str) -> None:
        self.deleted += action == events.REMOVE
        self._tell(events.WouldDo(action, name, 0))

    def would_send(self, name: str, size: int) -> None:
        self.files += 1
        self.bytes += size
        self._tell(events.WouldDo("send", name, size))

    def would_link(self, name: str) -> None:
        self.files += 1
        self.would("make hard link", name)

    # ---- what became of it ---------------------------------------------------------------------------------------

    def done(self, event: FileDone) -> None:
        """A file came by a session of its own; what was sent for it is counted already."""
        self.files += 1
        self.bytes += event.bytes
        self.resumed += event.bytes_resumed
        self.progress += 1
        self._tell(event)

    def packed(self, event: FilesDone) -> None:
        """Files came in a pack."""
        size = event.bytes
        self.files += len(event.names)
        self.bytes += size
        self.sent += size
        self.progress += 1
        self._tell(event)

    def linked(self, event: FilesLinked) -> None:
        """Files are further names of others: nothing of them was sent."""
        self.files += len(event.names)
        self.progress += 1
        self._tell(event)

    def changed(self, event: events.Changed | events.NamesChanged) -> None:
        """Something else than sending was done."""
        self.progress += 1
        if event.action == events.REMOVE:
            self.deleted += len(event.names) if isinstance(event, events.NamesChanged) else 1
        self._tell(event)

    def fail(self, name: str, text: str, error: FsmuxError) -> None:
        self.failed += 1
        self._tell(FileFailed(name, error.code.name, text, error.retryable))

    def sum_up(self) -> Summary:
        summary = Summary(
            files=self.files,
            bytes=self.bytes,
            bytes_sent=self.sent,
            bytes_resumed=self.resumed,
            skipped=self.skipped,
            failed=self.failed,
            retries=self.retries,
            seconds=time.monotonic() - self._started,
            deleted=self.deleted,
            copied=self.copied,
        )
        self._tell(summary)
        return summary


OfNames = TypeVar("OfNames", FilesDone, FilesLinked, FilesSkipped, events.NamesChanged)


class _Mark(NamedTuple):
    """All up to this name of a directory were spoken of, or ``all`` that is in it; in the order of a walk."""

    directory: Parts
    all: bool
    name: bytes


class Account:
    """What became of one source; names below it are those of its tree, and ``()`` is the source itself."""

    def __init__(self, report: Report, name: str = "") -> None:
        self.report = report
        self.name = name
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
            report.found(files, size + sum([large.size for large in found.large]))
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
                self.report.found(1, size)
        return not told

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
