"""Files that are not what their manifest says, fetched again: of each no more than the chunks that differ.

Theory: a repair is a transfer that knows what it wants to come to.  For each damaged file the destination offers the
digests of what it has, the source says what of that it has, too, and sends the rest, as for any file that was edited;
the old file stays until the new one is whole.  What comes is compared with the manifest chunk by chunk before it is
recorded, so a source that has changed, or has rotted itself, replaces nothing.  Directories keep their times: what is
in them is what was there.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from fsmux.errors import FsmuxError, IntegrityError, NetworkError, NotADirectory, NotFound, SourceChanged
from fsmux.events import FileRepaired
from fsmux.files.passing import ChunkDigests
from fsmux.moving.transfer import Transfer
from fsmux.mux.service import all_of
from fsmux.records import Attrs, Kind, printable
from fsmux.sites import LocalSite
from fsmux.transfer.disk import poll

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsmux.files.digestfile import Record
    from fsmux.moving.attempt import Item
    from fsmux.records import Parts


class Repairs:
    """The records of files that are to be repaired, by path; what is done with is taken out, whatever became of it."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.left = {record.parts: record for record in records}
        self.announced = False
        self.times: dict[tuple[int, Parts], int] = {}
        """When directories that are written into were last changed, by the number of the item and their place."""


class Repair(Transfer):
    """One attempt to repair a destination on this machine."""

    async def _move(self, items: Sequence[Item]) -> None:
        repairs = self._attempt.options.repair
        assert repairs is not None
        if not repairs.announced:
            repairs.announced = True
            self._attempt.report.found(len(repairs.left), sum(record.size for record in repairs.left.values()))
            self._attempt.report.planned()
        waiting = iter(list(repairs.left.values()))

        async def work() -> None:
            for record in waiting:
                found = await self._source_of(record, items)
                if found is not None:
                    item, parts, attrs = found
                    await self._attempt.guarded(item, parts, partial(self._repair, item, parts, record, attrs))
                del repairs.left[record.parts]

        await all_of(*[work] * min(self._attempt.options.streams, len(repairs.left)))
        targets = {item.number: item.target for item in items}  # of a source that has vanished since, there is none
        for (number, parts), mtime in repairs.times.items():
            if number not in targets:
                continue
            before = Attrs(Kind.DIRECTORY, mtime_ns=mtime)
            with suppress(FsmuxError):  # it belongs to somebody else: who cannot set its time has not failed at this
                await targets[number].set_attrs(parts, before, self._attempt.options.durability)

    async def _source_of(self, record: Record, items: Sequence[Item]) -> tuple[Item, Parts, Attrs] | None:
        """The source that a file comes from, its path there, and what stands there; None if that failed."""
        error: FsmuxError = NotFound(f"{printable(record.parts)}: none of the sources that were named has it")
        for item in items:
            depth = len(item.listed)
            if record.parts[:depth] != item.listed:
                continue
            try:
                parts = record.parts[depth:]
                return item, parts, await item.source.stat(item.source_prefix + parts)
            except NetworkError:
                raise
            except (NotFound, NotADirectory):
                continue
            except FsmuxError as exc:
                error = exc
        self._attempt.report.fail(printable(record.parts), str(error), error)
        return None

    async def _note_time(self, item: Item, directory: Parts) -> None:
        """Note when a directory was last changed, before we do: if it is not there, the one that it is made in."""
        assert self._attempt.options.repair is not None
        times = self._attempt.options.repair.times
        while (item.number, directory) not in times:
            try:
                times[item.number, directory] = (await item.target.stat(directory)).mtime_ns
            except NotFound:
                directory = directory[:-1]

    async def _repair(self, item: Item, parts: Parts, record: Record, attrs: Attrs) -> None:
        target, name, shown = item.target, item.account.name_of(parts), printable(record.parts)
        assert isinstance(target, LocalSite)
        if attrs.kind is not Kind.FILE or attrs.size != record.size:
            raise SourceChanged(f"{shown}: the source has another version of it by now; transfer it to have that")
        options, size, here = replace(self._attempt.options, resume=True), record.size, item.target_prefix + parts
        for directory in ((), here[:-1]):  # what is unfinished lives in the top
            await self._note_time(item, directory)
        passing = ChunkDigests(options.chunk_size, expected=record)
        journey, there = item.account.journey(parts), item.source_prefix + parts
        given = None
        if options.kept.owner or options.kept.xattrs:  # it keeps what it has
            with suppress(NotFound):
                stands = await target.stat(here)
                given = Attrs(Kind.FILE, owner=stands.owner, xattrs=stands.xattrs)
        outcome = await target.fetch(
            there, here, name, journey, options, fresh=False, size=size, passing=passing, attrs=given
        )
        found = await self._attempt.client.disk.read(passing.record, target.root, here, outcome.crc32, poll)
        if found.digest != record.digest:
            raise IntegrityError(f"{shown}: it is still not what the manifest says; the source has the same damage")
        item.account.done(parts, outcome)
        self._attempt.report(FileRepaired(shown, size, outcome.bytes_sent))
