"""Long lists as several messages, each of which fits a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import replace

from fsmux.limits import MAX_UNSEALED_PAYLOAD
from fsmux.wire.messages.checks import MAX_HAVES, MAX_RANGES, MAX_TEXT
from fsmux.wire.messages.types import Entries, Entry, Haves, Keep, Want

if TYPE_CHECKING:
    from collections.abc import Iterator

_Paged = TypeVar("_Paged", Entries, Want, Haves, Keep)
_T = TypeVar("_T")

MAX_ENTRIES: Final = 1000
"""Entries in one page: a few milliseconds of work for whoever decodes it."""


def pages(message: _Paged) -> Iterator[_Paged]:
    """The messages that say together what ``message`` says, at least one.

    All but the last of WANT, HAVES and KEEP have ``more`` set; a listing has no such mark, as END_STREAM ends it.
    """
    if isinstance(message, Entries):
        yield from map(Entries, _by_size(message.entries))
    elif isinstance(message, Want):
        for part, more in _by_count(message.missing, MAX_RANGES):
            yield replace(message, missing=part, more=more or message.more)
    elif isinstance(message, Haves):
        for haves, more in _by_count(message.ranges, MAX_HAVES):
            yield replace(message, ranges=haves, more=more or message.more)
    else:
        for part, more in _by_count(message.ranges, MAX_RANGES):
            yield replace(message, ranges=part, more=more or message.more)


def _by_count(items: tuple[_T, ...], most: int) -> Iterator[tuple[tuple[_T, ...], bool]]:
    for start in range(0, len(items) or 1, most):
        yield items[start : start + most], start + most < len(items)


def _by_size(entries: tuple[Entry, ...]) -> Iterator[tuple[Entry, ...]]:
    page: list[Entry] = []
    room = MAX_UNSEALED_PAYLOAD
    for entry in entries:
        size = _upper_bound(entry)
        if page and (size > room or len(page) == MAX_ENTRIES):
            yield tuple(page)
            page, room = [], MAX_UNSEALED_PAYLOAD
        page.append(entry)
        room -= size
    yield tuple(page)


def _upper_bound(entry: Entry) -> int:
    """More bytes than the entry takes: tags, lengths and numbers are at most 64, each component's own at most 3."""
    size = 64 + sum(map(len, entry.path)) + 3 * len(entry.path)
    if entry.attrs is not None:
        size += len(entry.attrs.link_target)
    if entry.fault is not None:
        size += min(4 * len(entry.fault.text), 4 * MAX_TEXT)
    return size
