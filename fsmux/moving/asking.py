"""What stands under many names, without a question for each.

Theory: a name costs a hop to a thread on this side and a request to the other one, half a millisecond each; a directory
costs little more, whatever is in it.  So names of this machine are looked at some hundred to a hop, and of the server
the directory is listed that many of them lie in.  If much more lies there than was asked for, the listing is left, and
what it has not come to is asked for by itself.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.columns import KIND_BITS, Group
from fsmux.errors import FsmuxError, NotFound
from fsmux.files import names
from fsmux.files.tree import KIND_OF
from fsmux.moving.attempt import raise_if_lost
from fsmux.records import Attrs, Kept, Kind, Parts, printable
from fsmux.sites import LocalSite
from fsmux.wire.frames import PACKS_FEATURE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fsmux.files.root import Root
    from fsmux.moving.attempt import Attempt
    from fsmux.sites import Site

    Found = Attrs | FsmuxError
    Place = tuple[Site, Parts]

MANY: Final = 64
"""Names in one directory from which on it is listed."""

NAMES_A_HOP: Final = 256
"""Names of this machine that one hop to a thread looks at: some milliseconds."""

TOO_MUCH: Final = 32
"""Entries for each name that was asked for, beyond which a listing is left: listing them takes about as long as asking
for the name."""


async def attrs_of(attempt: Attempt, places: Sequence[Place]) -> list[Found]:
    """What each is, links themselves, or why that cannot be had; all that are the server's are of one server.

    Raises what the connection is lost with.
    """
    found: dict[int, Found] = {}
    here: dict[int, list[int]] = {}
    there: dict[Parts, list[int]] = {}
    for index, (site, parts) in enumerate(places):
        if isinstance(site, LocalSite):
            here.setdefault(id(site), []).append(index)
        elif parts:
            there.setdefault(parts[:-1], []).append(index)
    for indexes in here.values():
        found |= await _looked_at(attempt, places, indexes)
    for directory, indexes in there.items():
        if len(indexes) >= MANY and attempt.has(PACKS_FEATURE):
            found |= await _listed(attempt, places, directory, indexes)

    async def ask(index: int) -> Found:
        site, parts = places[index]
        try:
            return await site.stat(parts)
        except FsmuxError as exc:
            raise_if_lost(attempt.client, exc)
            return exc

    rest = [index for index in range(len(places)) if index not in found]
    found |= zip(rest, await attempt.each(rest, ask), strict=True)
    return [found[index] for index in range(len(places))]


async def _looked_at(attempt: Attempt, places: Sequence[Place], indexes: list[int]) -> dict[int, Found]:
    site = places[indexes[0]][0]
    assert isinstance(site, LocalSite)
    found: dict[int, Found] = {}
    for start in range(0, len(indexes), NAMES_A_HOP):
        some = indexes[start : start + NAMES_A_HOP]
        parts = [places[index][1] for index in some]
        found |= zip(some, await attempt.client.disk.meta(_stat_each, site.root, parts, site.kept), strict=True)
    return found


def _stat_each(root: Root, many: Sequence[Parts], kept: Kept) -> list[Found]:
    """Blocking."""
    found: list[Found] = []
    for parts in many:
        try:
            found.append(root.stat(parts, False, kept.owner, kept.xattrs))
        except FsmuxError as exc:
            found.append(exc)
    return found


async def _listed(attempt: Attempt, places: Sequence[Place], directory: Parts, indexes: list[int]) -> dict[int, Found]:
    """What a listing says of names in a directory; nothing of some, or of all, if it cannot be had."""
    site = places[indexes[0]][0]
    wanted: dict[bytes, list[int]] = {}
    for index in indexes:
        wanted.setdefault(places[index][1][-1], []).append(index)
    found: dict[int, Found] = {}
    room = TOO_MUCH * len(indexes)
    try:
        async with site.looking(directory, nothing=False) as looker:
            assert looker is not None
            await looker.ask([()])
            while room > 0:
                group = await looker.next_group()
                room -= len(group)
                links = group.link_targets()
                for place, name in enumerate(group.names):
                    for index in wanted.pop(name, ()):
                        found[index] = _entry(group, place, links.get(place, b""), site.kept)
                if group.error is not None and not isinstance(group.error, NotFound):
                    break
                if not group.more:
                    found |= _absent(directory, wanted)
                    break
    except FsmuxError as exc:
        raise_if_lost(attempt.client, exc)
    return found


def _entry(group: Group, place: int, link_target: bytes, kept: Kept) -> Attrs:
    mode = group.modes[place]
    return Attrs(
        KIND_OF.get(mode & KIND_BITS, Kind.SPECIAL),
        group.sizes[place],
        group.mtimes[place],
        mode & 0o777,
        link_target,
        group.owners[place] if group.owners else None,
        group.xattrs.get(place, ()) if kept.xattrs else None,
    )


def _absent(directory: Parts, wanted: Mapping[bytes, Iterable[int]]) -> dict[int, Found]:
    """Names that a whole listing does not have; but those that a listing never has are not among them."""
    found: dict[int, Found] = {}
    for name, indexes in wanted.items():
        parts = (*directory, name)
        with suppress(FsmuxError):
            names.check(parts)
            found |= dict.fromkeys(indexes, NotFound(f"{printable(parts)}: no such file or directory"))
    return found
