"""What is to be done about the entries of a directory, from what stands at the destination under the same names.

Theory: a pure function from two groups of columns to a handful of columns, one directory (or a page of it) at a time,
so that the first file can be on its way while the tree is still being read.  The two cases that make up nearly every
tree cost next to nothing: where nothing stands everything is made, and where the columns are equal everything is up to
date.  Only what is neither is judged name by name (:mod:`.judging`).

A directory is made before anything in it, and finished (its times and mode set, which every change inside of it would
undo) after everything in it.  What exists at the destination alone is not looked at here.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, field

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, Act, Group
from fsmux.errors import Exists, FsmuxError
from fsmux.plan.judging import (
    KINDS,
    Facts,
    Verdict,
    differs,
    in_the_way,
    judge,
    known_different,
    known_equal,
    same_size_and_time,
)
from fsmux.plan.sharing import Further, SharedFile, stands_for
from fsmux.records import EVERYTHING, Kept, Parts, Xattrs, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Protocol

    from fsmux.plan.sharing import Shared, Standing

    class Claimed(Protocol):
        """Names that sources have taken of one place, and whether each is a directory."""

        def get(self, parts: Parts, /) -> bool | None: ...
        def setdefault(self, parts: Parts, is_directory: bool, /) -> bool: ...
        def __contains__(self, parts: object, /) -> bool: ...


NOTHING: Final[Mapping[bytes, bool]] = {}

_STANDS_AFTERWARDS = frozenset((Verdict.SEND, Verdict.ADJUST, Verdict.CURRENT))
"""Verdicts after which a file is at the destination."""


class Entered(NamedTuple):
    """A directory whose contents are to be looked at: new there, or with another mode or time than its source."""

    mtime: int
    mode: int
    made: bool
    differs: bool
    owner: int | None = None
    xattrs: Xattrs | None = ()


class Large(NamedTuple):
    """A file for a session of its own."""

    name: bytes
    size: int
    fresh: bool
    owner: int | None = None
    xattrs: Xattrs | None = ()


class Plan(Struct):
    """What is to be done about one group."""

    make: Group | None = None
    """Directories, links and small files to be made, in their order."""
    files: int = 0
    """Regular files in it."""
    large: list[Large] = []
    adjust: Group | None = None
    current: Group | None = None
    """Files and links that are up to date."""
    newer: Group | None = None
    """Files that are newer at the destination, and are left alone for it."""
    special: list[bytes] = []
    failed: list[tuple[bytes, FsmuxError]] = []
    enter: dict[bytes, Entered] = field(default_factory=dict)
    blocked: list[bytes] = []
    """Directories that failed: what is in them is not spoken of."""
    first: dict[bytes, bytes] = field(default_factory=dict)
    """Names that are the first ones of files with several, and are to be sent; with the keys of these."""
    further: list[Further] = []
    """Further names that are to be linked."""


def is_large(size: int, fresh: bool, small: int, medium: int) -> bool:
    """Whether a file goes by a session of its own: more may go in packs where nothing stands in their place."""
    return size > (medium if fresh else small)


def plan(
    source: Group,
    existing: Group | None,
    *,
    small: int,
    medium: int = 0,
    update: bool = False,
    equal: Mapping[bytes, bool] = NOTHING,
    by_bytes: bool = False,
    claimed: Claimed | None = None,
    again: Collection[bytes] = (),
    shared: Shared | None = None,
    standing: Standing | None = None,
    kept: Kept = EVERYTHING,
) -> Plan:
    """What to do about ``source``, where ``existing`` holds whatever has one of its names at the destination.

    A file is up to date if it has the same size and time, unless that is decided ``by_bytes`` alone, or is known to be
    ``equal``, where names are that were compared; with ``update`` it is left alone, too, if it is newer at the
    destination.  Files of more than ``small`` bytes are large, but those up to ``medium`` are not where nothing stands,
    or something of which nothing can be kept, which is known of what was compared.  ``claimed`` (whether each name is a
    directory) is shared between the plans of sources that go to the same place: what one of them took is refused to the
    others, unless both are directories.  Files named in ``again`` are to be sent even if they are up to date: an
    attempt that was cut short had them on their way, and whether the destination has made sure of them nobody has
    heard.  ``shared`` and ``standing`` are what was met of files with several names in the same tree, of the source and
    of the destination; without the former each of their names is a file.
    """
    medium = max(small, medium)
    if claimed is None and source.names and not (source.shared and shared is not None):
        kinds = source.kinds
        if not existing and kinds <= KINDS and max(source.sizes) <= medium:
            return _all_new(source, kinds)
        apart = existing is not None and existing.shared and standing is not None
        if existing and not (equal or by_bytes or again or apart) and kinds <= KINDS and _same(source, existing):
            return _all_current(source, kinds)
    return _one_by_one(
        source,
        existing,
        small,
        medium,
        update,
        equal,
        by_bytes,
        claimed,
        again,
        shared,
        {} if standing is None else standing,
        kept,
    )


def unasked(source: Group, medium: int) -> Iterator[Group]:
    """A group of a listing, cut into what is made as it is where nothing stands, with the contents of files of up to
    ``medium`` bytes, and groups of ``Act.LIST`` of what a plan is needed for; all in the order of the names.
    """
    if source.error is not None:
        source.act = Act.LIST
    if source.error is not None or not source.names or _is_plain(source, medium):
        yield source
        return
    plain = [
        mode & KIND_BITS in KINDS and size <= medium and index not in source.shared
        for index, (size, mode) in enumerate(zip(source.sizes, source.modes, strict=True))
    ]
    start = 0
    for is_plain, run in groupby(plain):
        stop = start + len(list(run))
        part = source.cut(start, stop)
        part.act = Act.MAKE if is_plain else Act.LIST
        yield part
        start = stop


def _is_plain(source: Group, medium: int) -> bool:
    """Whether all of it is made as it is where nothing stands."""
    return not source.shared and source.kinds <= KINDS and max(source.sizes) <= medium


def conflicts(source: Group, existing: Group) -> list[tuple[int, bool]]:
    """What stands in the way of ``source``, by its number in ``existing``, and whether it is a directory."""
    if DIRECTORY not in existing.kinds and DIRECTORY not in source.kinds:
        return []
    kinds = {name: mode & KIND_BITS for name, mode in zip(source.names, source.modes, strict=True)}
    found = []
    for index, (name, mode) in enumerate(zip(existing.names, existing.modes, strict=True)):
        wanted, there = kinds.get(name), mode & KIND_BITS
        if wanted in KINDS and (wanted == DIRECTORY) is not (there == DIRECTORY):
            found.append((index, there == DIRECTORY))
    return found


def _same(source: Group, existing: Group) -> bool:
    return (
        source.names == existing.names
        and source.mtimes == existing.mtimes
        and source.sizes == existing.sizes
        and source.modes == existing.modes
        and source.targets == existing.targets
        and source.owners == existing.owners
        and source.xattrs == existing.xattrs
    )


def _all_current(source: Group, kinds: set[int]) -> Plan:
    if DIRECTORY not in kinds:
        return Plan(current=source)
    entered = _entered(source, differs=False)
    rest = [index for index, name in enumerate(source.names) if name not in entered]
    return Plan(current=source.pick(rest) if rest else None, enter=entered)


def _all_new(source: Group, kinds: set[int]) -> Plan:
    if kinds == {REGULAR}:
        return Plan(source, len(source))
    return Plan(
        source, sum([mode & KIND_BITS == REGULAR for mode in source.modes]), enter=_entered(source, differs=True)
    )


def _entered(source: Group, *, differs: bool) -> dict[bytes, Entered]:
    """Its directories, all of which are made, or none of which is to be changed."""
    owners, xattrs = source.owners, source.xattrs
    return {
        name: Entered(mtime, mode, differs, differs, owners[index] if owners else None, xattrs.get(index, ()))
        for index, (name, mtime, mode) in enumerate(zip(source.names, source.mtimes, source.modes, strict=True))
        if mode & KIND_BITS == DIRECTORY
    }


def _one_by_one(
    source: Group,
    existing: Group | None,
    small: int,
    medium: int,
    update: bool,
    equal: Mapping[bytes, bool],
    by_bytes: bool,
    claimed: Claimed | None,
    again: Collection[bytes],
    shared: Shared | None,
    standing: Standing,
    kept: Kept,
) -> Plan:
    there = _facts(existing) if existing else {}
    keys = source.shared if shared is not None else {}
    keys_there = {existing.names[index]: key for index, key in existing.shared.items()} if existing else {}
    texts = source.link_targets()
    found = Plan()
    make: list[int] = []
    adjust: list[int] = []
    current: list[int] = []
    newer: list[int] = []
    otherwise = known_different if by_bytes else same_size_and_time
    entries = list(enumerate(zip(source.names, source.sizes, source.mtimes, source.modes, strict=True)))
    if keys:  # of a file with several names those come first that may be up to date: others are linked to them
        entries.sort(key=lambda entry: entry[0] not in keys or not _may_stand(entry[1], there))
    for index, (name, size, mtime, mode) in entries:
        before = there.get(name)
        up_to_date = known_equal if equal.get(name) else otherwise
        owner = source.owners[index] if source.owners else None
        xattrs = source.xattrs.get(index, ())
        facts = Facts(size, mtime, mode, texts.get(index, b""), owner, xattrs)
        verdict = judge(facts, before, up_to_date, update=update, kept=kept)
        if name in again and verdict in (Verdict.CURRENT, Verdict.ADJUST) and mode & KIND_BITS == REGULAR:
            verdict = Verdict.SEND
        if verdict in (Verdict.CURRENT, Verdict.ADJUST) and shared is not None and (there_key := keys_there.get(name)):
            whose = keys.get(index, (*source.directory, name))
            if not stands_for(standing, there_key, whose, verdict is Verdict.ADJUST):
                verdict = Verdict.SEND
        is_directory = mode & KIND_BITS == DIRECTORY
        if claimed is not None and verdict is not Verdict.SPECIAL:
            parts = (*source.directory, name)
            taken = claimed.get(parts)
            claimed.setdefault(parts, is_directory)
            if taken is not None and not (taken and is_directory):
                found.failed.append((name, Exists(f"{printable(parts)}: two sources would both become this")))
                if is_directory:
                    found.blocked.append(name)
                continue
            if taken and verdict is Verdict.MAKE:
                verdict = Verdict.CURRENT  # the other source has made it, or would in earnest
        if (key := keys.get(index)) is not None and verdict in _STANDS_AFTERWARDS:
            assert shared is not None
            file = shared.get(key)
            if file is None:
                sent = verdict is Verdict.SEND
                shared[key] = SharedFile((*source.directory, name), None if sent else keys_there.get(name))
                if sent:
                    found.first[name] = key
            elif verdict is Verdict.SEND or file.there is None or keys_there.get(name) != file.there:
                found.further.append(Further(name, key, size, mtime, mode, before is None, owner, xattrs))
                continue
            else:
                verdict = Verdict.CURRENT  # whatever is set of the first one is set of it
        if verdict in (Verdict.FILE_IN_THE_WAY, Verdict.DIRECTORY_IN_THE_WAY):
            found.failed.append((name, in_the_way(verdict, (*source.directory, name))))
            if is_directory:
                found.blocked.append(name)
        elif verdict is Verdict.SPECIAL:
            found.special.append(name)
        elif is_directory:
            made = verdict is Verdict.MAKE
            found.enter[name] = Entered(mtime, mode, made, differs(facts, before, kept), owner, xattrs)
            if made:
                make.append(index)
        elif verdict is Verdict.SEND and is_large(size, before is None or name in equal, small, medium):
            found.large.append(Large(name, size, before is None, owner, xattrs))
        elif verdict is Verdict.SEND or verdict is Verdict.MAKE:
            found.files += verdict is Verdict.SEND
            make.append(index)
        elif verdict is Verdict.ADJUST:
            adjust.append(index)
        elif verdict is Verdict.NEWER:
            newer.append(index)
        else:
            current.append(index)
    for indexes in (make, adjust, current, newer):
        indexes.sort()
    found.make = source.pick(make) if make else None
    if found.make is not None:
        found.make.shared = {}  # its receiver need not know
    if adjust:
        found.adjust = _without_sizes(source.pick(adjust, Act.ADJUST))
        found.adjust.found = [there[name].mtime for name in found.adjust.names]
    found.current = source.pick(current) if current else None
    found.newer = source.pick(newer) if newer else None
    return found


def _may_stand(entry: tuple[bytes, int, int, int], there: Mapping[bytes, Facts]) -> bool:
    name, size, mtime, _ = entry
    return (before := there.get(name)) is not None and (before.size, before.mtime) == (size, mtime)


def _without_sizes(group: Group) -> Group:
    """Nothing of the contents travels."""
    group.sizes = [0] * len(group)
    group.shared = {}
    return group


def _facts(group: Group) -> dict[bytes, Facts]:
    texts = group.link_targets()
    columns = zip(group.names, group.sizes, group.mtimes, group.modes, strict=True)
    owners, xattrs = group.owners, group.xattrs
    return {
        name: Facts(size, mtime, mode, texts.get(index, b""), owners[index] if owners else None, xattrs.get(index, ()))
        for index, (name, size, mtime, mode) in enumerate(columns)
    }
