"""Where each source of a command goes: rsync's rules, as a function of what stands at the destination.

* A file goes *into* a destination that is a directory, or is written with a slash; otherwise the destination is its
  new name.
* A directory goes into the destination by its name; written with a slash, its contents go there instead.
* Several sources need a directory, which is made if nothing is there.

Nothing is guessed: what would put two sources under one name is refused before a byte is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from fsmux.errors import NotADirectory, UsageError
from fsmux.records import Kind, Parts, printable

if TYPE_CHECKING:
    from collections.abc import Sequence


class Origin(Struct, frozen=True):
    """A source: what a person calls it, its last name, and whether it was written to mean its contents."""

    label: str
    name: bytes
    kind: Kind
    contents: bool = False


class Target(Struct, frozen=True):
    """The destination: what stands there (None for nothing; links are followed), and whether a slash ends it."""

    label: str
    kind: Kind | None
    trailing_slash: bool = False


class Mapped(Struct, frozen=True):
    """``origin`` is to become the destination with ``suffix`` appended; ``()`` is the destination itself."""

    origin: Origin
    suffix: Parts

    def describe(self, target: Target) -> str:
        """The line that ``-n`` shows."""
        slash = "/" if self.origin.kind is Kind.DIRECTORY else ""
        base = target.label.rstrip("/") if self.suffix else target.label
        inside = "".join(f"/{printable(name)}" for name in self.suffix)
        return f"{self.origin.label} -> {base}{inside}{slash if self.suffix else ''}"


def map_sources(origins: Sequence[Origin], target: Target, *, several: bool | None = None) -> list[Mapped]:
    """The place of every source.  Raises :class:`UsageError` or :class:`NotADirectory`, naming what is in the way.

    ``several``: whether more than one was named, if ``origins`` are not all of them.
    """
    several = len(origins) > 1 if several is None else several
    if several and target.kind not in (None, Kind.DIRECTORY):
        raise UsageError(f"{target.label} is not a directory, and several sources need one")
    if target.trailing_slash and target.kind not in (None, Kind.DIRECTORY):
        raise NotADirectory(f"{target.label}: this is not a directory; write it without the slash to replace it")
    mapped = [Mapped(origin, _suffix(origin, target, several=several)) for origin in origins]
    taken: dict[Parts, Origin] = {}
    for place in mapped:
        # Contents of several directories may share a destination; the plan refuses what then meets there.
        if place.suffix and (other := taken.setdefault(place.suffix, place.origin)) is not place.origin:
            raise UsageError(
                f"{other.label} and {place.origin.label} would both become {printable(place.suffix)} there; "
                "transfer them one after the other"
            )
    return mapped


def _suffix(origin: Origin, target: Target, *, several: bool) -> Parts:
    if origin.kind is not Kind.DIRECTORY:
        if origin.contents:
            raise NotADirectory(f"{origin.label}: this is not a directory; write it without the slash")
        inside = several or target.trailing_slash or target.kind is Kind.DIRECTORY
        return (origin.name,) if inside else ()
    if target.kind not in (None, Kind.DIRECTORY):
        raise NotADirectory(f"{target.label}: a directory cannot become this file; name a directory")
    return () if origin.contents else (origin.name,)
