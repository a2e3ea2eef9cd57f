"""From a listing of the source and one of the destination to the actions that make them equal.

Theory: a pure function over two listings, in one pass over the source, so that the first file can be on its way while
the tree is still being read.  The order of actions is the only protocol between this module and whoever carries them
out: a directory is made before anything in it, and finished (its times and mode set, which every change inside of it
would undo) after everything in it, which is why all finishing comes last, deepest first.

What is up to date is decided by one predicate that is passed in.  What exists at the destination alone is not looked
at here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fsmux.errors import Exists, FsmuxError, IsADirectory, NotADirectory
from fsmux.records import Attrs, Kind, Parts, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fsmux.plan.walk import Listed

    UpToDate: TypeAlias = Callable[[Attrs, Attrs], bool]


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make it, passable for its owner until it is finished."""

    parts: Parts
    attrs: Attrs


@dataclass(frozen=True, slots=True)
class FinishDirectory:
    """Give it its mode and times, once everything inside of it is done."""

    parts: Parts
    attrs: Attrs


@dataclass(frozen=True, slots=True)
class MakeSymlink:
    """Make the link; ``replace`` what stands there, which is no directory."""

    parts: Parts
    attrs: Attrs
    replace: bool = False


@dataclass(frozen=True, slots=True)
class TransferFile:
    """Send the file; ``existing`` is what it will replace."""

    parts: Parts
    attrs: Attrs
    existing: Attrs | None = None


@dataclass(frozen=True, slots=True)
class AdjustFile:
    """The bytes are up to date, the mode is not."""

    parts: Parts
    attrs: Attrs


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave it alone.  ``warn`` if that is not what a person would expect."""

    parts: Parts
    attrs: Attrs
    reason: str
    warn: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """It cannot be done; ``error`` says why."""

    parts: Parts
    error: FsmuxError


Action: TypeAlias = MakeDirectory | FinishDirectory | MakeSymlink | TransferFile | AdjustFile | Skip | Fail


def same_size_and_time(source: Attrs, destination: Attrs) -> bool:
    """The default of what counts as up to date."""
    return source.size == destination.size and source.mtime_ns == destination.mtime_ns


def plan(
    source: Iterable[Listed],
    destination: Mapping[Parts, Attrs],
    *,
    up_to_date: UpToDate = same_size_and_time,
    claimed: dict[Parts, bool] | None = None,
) -> Iterator[Action]:
    """The actions that bring ``source`` to the destination, which holds ``destination``.

    Both use parts relative to the same place; ``()`` is that place itself, and may be missing from both.  In
    ``source`` parents come before children.  ``claimed`` (whether each name is a directory) is shared between the
    plans of sources that go to the same place: what one of them took is refused to the others, unless both are
    directories.  The directories of all those plans are to be finished after the last of them.
    """
    directories: dict[Parts, Attrs] = {}
    touched: set[Parts] = set()
    blocked: set[Parts] = set()
    for parts, attrs, error in source:
        if parts and parts[:-1] in blocked:
            # Its directory failed, which was said once.
            blocked.add(parts)
            continue
        if attrs is None:
            # A directory that was made before it turned out to be unreadable stays, and is finished.
            yield Fail(parts, error if error is not None else NotADirectory(f"{printable(parts)}: cannot be read"))
            continue
        existing = destination.get(parts)
        action = _decide(parts, attrs, existing, up_to_date)
        if claimed is not None and attrs.kind is not Kind.SPECIAL:
            action = _claim(claimed, parts, attrs, action)
        if isinstance(action, Fail) and attrs.kind is Kind.DIRECTORY:
            blocked.add(parts)
        elif attrs.kind is Kind.DIRECTORY:
            directories[parts] = attrs
            if existing is None or (existing.mode, existing.mtime_ns) != (attrs.mode, attrs.mtime_ns):
                touched.add(parts)
        if isinstance(action, MakeDirectory | MakeSymlink | TransferFile) and parts:
            touched.add(parts[:-1])
        if action is not None:
            yield action
    for parts in reversed(directories):  # parents came first
        if parts in touched:
            yield FinishDirectory(parts, directories[parts])


def _claim(claimed: dict[Parts, bool], parts: Parts, attrs: Attrs, action: Action | None) -> Action | None:
    is_directory = attrs.kind is Kind.DIRECTORY
    if parts not in claimed:
        claimed[parts] = is_directory
        return action
    if claimed[parts] and is_directory:
        return None if isinstance(action, MakeDirectory) else action  # the other source has made it
    return Fail(parts, Exists(f"{printable(parts)}: two sources would both become this"))


def _decide(parts: Parts, attrs: Attrs, existing: Attrs | None, up_to_date: UpToDate) -> Action | None:
    """What to do about one entry; None for a directory that is there."""
    if attrs.kind is Kind.SPECIAL:
        return Skip(parts, attrs, "special file", warn=True)
    if attrs.kind is Kind.DIRECTORY:
        if existing is None:
            return MakeDirectory(parts, attrs)
        if existing.kind is Kind.DIRECTORY:
            return None
        text = "something else stands where a directory must be, so nothing in it was transferred; move it away first"
        return Fail(parts, NotADirectory(f"{printable(parts)}: {text}"))
    if existing is not None and existing.kind is Kind.DIRECTORY:
        return Fail(parts, IsADirectory(f"{printable(parts)}: a directory stands under this name; move it away first"))
    if attrs.kind is Kind.SYMLINK:
        if existing is not None and existing.kind is Kind.SYMLINK and existing.link_target == attrs.link_target:
            return Skip(parts, attrs, "up to date")
        return MakeSymlink(parts, attrs, replace=existing is not None)
    if existing is not None and existing.kind is Kind.FILE and up_to_date(attrs, existing):
        return Skip(parts, attrs, "up to date") if existing.mode == attrs.mode else AdjustFile(parts, attrs)
    return TransferFile(parts, attrs, existing)
