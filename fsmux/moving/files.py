"""Files and links that are sources by themselves, and the session of one file.

Theory: each is judged by what stands where it goes.  What is to be sent goes by a session, ``streams`` at a time, or in
packs if many small ones share their directories.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from fsmux import events
from fsmux.errors import FsmuxError, IntegrityError
from fsmux.moving.account import NEWER, UP_TO_DATE
from fsmux.moving.attempt import SEVERAL, Item, raise_if_lost
from fsmux.moving.carriers import carry_all
from fsmux.moving.singles import Batch, batched, has_place, pages
from fsmux.plan.judging import (
    Facts,
    Verdict,
    as_group,
    in_the_way,
    judge,
    known_different,
    known_equal,
    same_size_and_time,
)
from fsmux.plan.plan import Large
from fsmux.records import Attrs, Kind, Parts, printable
from fsmux.sites import LocalSite
from fsmux.wire.frames import GIVEN_FEATURE, PACKS_FEATURE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fsmux.moving.attempt import Attempt
    from fsmux.moving.removing import Removing
    from fsmux.records import Xattrs
    from fsmux.transfer.session import Outcome


class Files:
    """What an attempt does about single files."""

    removing: Removing | None = None
    """Clears their way, with ``--delete``."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def plan(self, items: Sequence[Item]) -> list[tuple[Item, bool]]:
        """Those that are to be sent or made, and whether they are fresh; about the others all is done and told."""
        there = await self._standing(items)
        adjusting: list[tuple[Item, int]] = []
        judged = [await self._judge(item, seen, adjusting) for item, seen in zip(items, there, strict=True)]
        await self._attempt.each(adjusting, self._adjust)
        return [one for one in judged if one is not None]

    async def _standing(self, items: Sequence[Item]) -> list[Facts | None]:
        """What stands where they go."""
        if len(items) < SEVERAL:
            return await self._attempt.each(items, Item.standing)
        from fsmux.moving.asking import attrs_of

        asked = [item for item in items if not item.fresh and item.target_prefix]
        found = await attrs_of(self._attempt, [(item.target, item.target_prefix) for item in asked])
        known = dict(zip(map(id, asked), found, strict=True))
        return await self._attempt.each(items, lambda item: item.standing(known.get(id(item))))

    async def move(self, waiting: list[tuple[Item, bool]]) -> None:
        """Send and make them."""
        await self._all(await self._carry_small(waiting))

    async def _judge(
        self, item: Item, existing: Facts | None, adjusting: list[tuple[Item, int]]
    ) -> tuple[Item, bool] | None:
        """What is to be done about a source that is no directory: the item, and whether it is fresh; or nothing.

        Those that are only to be adjusted are gathered, with the times that they were found with.
        """
        report, account, name = self._attempt.report, item.account, item.account.name
        if self.removing is not None:
            existing = await self.removing.make_way(item, existing)
        verdict = await self._verdict(item, existing)
        if verdict in (Verdict.CURRENT, Verdict.ADJUST) and account.owed(()) and item.top.kind is Kind.FILE:
            verdict = Verdict.SEND  # an attempt that was cut short had it on its way, and heard no more of it
        if verdict in (Verdict.CURRENT, Verdict.ADJUST):
            await self._note_current(item)
        news = account.take_itself(item.top.size if verdict is Verdict.SEND else None)
        match verdict:
            case Verdict.SPECIAL if news:
                report.skip(name, 0, "special file", warn=True)
            case Verdict.CURRENT if news:
                report.skip(name, item.top.size, UP_TO_DATE)
            case Verdict.NEWER if news:
                report.skip(name, item.top.size, NEWER)
            case Verdict.DIRECTORY_IN_THE_WAY:
                account.fail((), in_the_way(verdict, ()))
            case Verdict.SEND:
                if not self._attempt.options.dry_run:
                    return item, existing is None
                report.would_send(name, item.top.size)
            case Verdict.MAKE:
                if not self._attempt.options.dry_run:
                    return item, existing is None
                report.would(events.MAKE_LINK, name)
            case Verdict.ADJUST:
                if self._attempt.options.dry_run:
                    report.would(events.ADJUST, name)
                elif existing is not None:
                    adjusting.append((item, existing.mtime))
        return None

    async def _verdict(self, item: Item, existing: Facts | None) -> Verdict:
        """What to do about it where that stands at the destination."""
        options, top = self._attempt.options, Facts.of(item.top)
        up_to_date = same_size_and_time
        if options.checksum and existing is not None:
            name, there = item.source_prefix[-1:], item.target_prefix[-1:]
            source, found = as_group(name, top), as_group(name, existing)
            up_to_date = known_different
            async with self._attempt.comparing(item, False, above=True) as comparing:
                comparer = None if comparing is None else await comparing()
                if comparer is not None and (alike := comparer.alike(source, found)) is not None:
                    await comparer.ask([alike], [replace(alike, names=list(there))])
                    (equal,) = await comparer.equal([alike])
                    up_to_date = known_equal if equal[name[0]] else known_different
        return judge(top, existing, up_to_date, update=options.update, kept=options.kept)

    async def _note_current(self, item: Item) -> None:
        """It is up to date, and is to have a record in the manifest if it is a file, and none otherwise."""
        ledger, (site, here) = self._attempt.ledger, item.local
        if ledger is None:
            return
        if item.top.kind is not Kind.FILE:
            ledger.forget(item.listed, False)
            return
        if ledger.has(b"/".join(item.listed), item.top.size, item.top.mtime_ns):
            return
        files = [((), item.top.size)]
        await ledger.read(self._attempt.client.disk, site.root, here, item.listed, files, self._attempt.report)

    async def _carry_small(self, waiting: list[tuple[Item, bool]]) -> list[tuple[Item, bool]]:
        """Move small files that share their directories in packs; those that are left."""
        if not self._attempt.has(PACKS_FEATURE):
            return waiting
        moved: set[int] = set()
        for batch in batched(waiting, self._attempt.medium):
            if not await has_place(batch[0]):
                continue  # which a file that comes by a session makes
            account = Batch(self._attempt.report, batch)
            try:
                with self._attempt.lanes.carrying(self._attempt.lanes.alive[:1]):
                    await carry_all(self._attempt.carrier(batch[0], account), [(page, True) for page in pages(batch)])
            except FsmuxError as exc:
                raise_if_lost(self._attempt.client, exc)
                account.fail_rest(exc)
            moved.update(item.number for item in batch)
        return [(item, fresh) for item, fresh in waiting if item.number not in moved]

    async def _all(self, items: Sequence[tuple[Item, bool]]) -> None:
        """Transfer single files and links, ``streams`` at a time."""

        async def move(one: tuple[Item, bool]) -> bool:
            (item, fresh), top = one, one[0].top
            if top.kind is Kind.SYMLINK:
                act = partial(self._change, item, events.MAKE_LINK, partial(self._make_link, item))
            else:
                act = partial(self.send, item, (), Large(b"", top.size, fresh, top.owner, top.xattrs))
            return await self._attempt.guarded(item, (), act)

        await self._attempt.each(items, move)

    async def _change(self, item: Item, action: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something else than sending to a source that is one file, and tell of it."""
        await act()
        item.account.changed_itself(action, ())

    async def _make_link(self, item: Item) -> None:
        attrs = replace(self._kept_of(item), xattrs=item.top.xattrs)
        await item.target.symlink(item.target_prefix, attrs, self._attempt.options.durability)
        if self._attempt.ledger is not None:
            self._attempt.ledger.forget(item.listed, False)
        if item.top.xattrs:  # which an earlier build takes no notice of, and nobody tells what of them is refused
            await self._set_xattrs(item, (), item.top.xattrs)

    async def _adjust(self, one: tuple[Item, int]) -> bool:
        """Have an item that is a file be as its source beside its bytes; whether it is, which is told."""
        item, found = one
        act = partial(self._change, item, events.ADJUST, partial(self._set_kept, item, found))
        return await self._attempt.guarded(item, (), act)

    async def _set_kept(self, item: Item, found: int) -> None:
        """Set what is kept of an item that is a file, if it still has the time that it was found with."""
        await item.target.set_attrs(item.target_prefix, self._kept_of(item), self._attempt.options.durability, found)
        if item.top.xattrs is not None:
            await self._set_xattrs(item, (), item.top.xattrs)

    async def _set_xattrs(self, item: Item, parts: Parts, xattrs: Xattrs) -> None:
        """Have a file that stands have these; what is refused of them fails nothing."""
        target = item.target_prefix + parts
        try:
            await item.target.set_attrs(target, Attrs(Kind.FILE, xattrs=xattrs), self._attempt.options.durability)
        except FsmuxError as exc:
            raise_if_lost(self._attempt.client, exc)
            message = str(exc).removeprefix(f"{printable(target)}: ")
            self._attempt.report.warn_once(message, item.account.name_of(parts))

    def _kept_of(self, item: Item) -> Attrs:
        """What is to be set of an item that is a file or a link; zero leaves something alone."""
        kept, top = self._attempt.options.kept, item.top
        mtime, mode = top.mtime_ns if kept.times else 0, top.mode if kept.perms else 0
        return replace(top, mtime_ns=mtime, mode=mode, xattrs=None)

    def _given(self, large: Large) -> Attrs | None:
        """What a file is to have beside its bytes before it gets its name, if more than time and permissions."""
        kept = self._attempt.options.kept
        if not (kept.owner or kept.xattrs):
            return None
        return Attrs(Kind.FILE, owner=large.owner, xattrs=large.xattrs if kept.xattrs else None)

    async def send(self, item: Item, parts: Parts, large: Large) -> None:
        """Have one file sent by a session of its own."""
        _, size, fresh, owner, xattrs = large
        attrs = self._given(large)
        late = isinstance(item.source, LocalSite) and not self._attempt.has(GIVEN_FEATURE)  # when it stands
        name = item.account.name_of(parts)
        source, target = item.source_prefix + parts, item.target_prefix + parts
        journey = item.account.journey(parts)
        options = replace(self._attempt.options, resume=True) if journey.begun else self._attempt.options
        ledger, listed = self._attempt.ledger, item.listed + parts
        passing = None if ledger is None else ledger.passing(listed)

        async def move(like: Parts) -> Outcome:
            if isinstance(item.target, LocalSite):
                return await item.target.fetch(
                    source, target, name, journey, options, fresh=fresh, size=size,
                    asked=self._attempt.asked if not (parts or like) else None, passing=passing, like=like, attrs=attrs,
                )  # fmt: skip
            assert isinstance(item.source, LocalSite)
            return await item.source.push(
                source, target, name, journey, options,
                fresh=fresh, passing=passing, like=like, attrs=None if late else attrs,
            )  # fmt: skip

        twin: Parts = ()
        if ledger is not None and fresh and options.resume:
            from fsmux.moving.twins import find_twin

            twin = await find_twin(ledger, self._attempt.client.disk, item.source, source, size, listed)
        try:
            outcome = await move(twin and item.below_destination(twin))
        except IntegrityError:
            if not twin:
                raise
            outcome = await move(())  # somebody wrote to the twin while it was being copied
        if late and owner is not None:
            await item.target.set_attrs(target, Attrs(Kind.FILE, owner=owner), options.durability)
        if late and xattrs:
            await self._set_xattrs(item, parts, xattrs)
        if outcome.refused is not None:
            self._attempt.report.warn_once(outcome.refused.text, name)
        if ledger is not None:
            site, here = item.local
            await ledger.passed(
                self._attempt.client.disk, site.root, here + parts, listed, outcome.crc32, self._attempt.report
            )
        item.account.done(parts, outcome, printable(twin) if twin else "")
