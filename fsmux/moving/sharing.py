"""Further names of files that have several: linked when the first one stands.

Theory: a link must be made to what was sent and to nothing older, so a further name waits until its first one is known
to stand at the destination, by whatever way that came: in a pack or by a session of its own.  Then it goes as one more
entry of a pack.  If the first one failed, or the link cannot be made (on another file system, say), the next name that
waits takes its place and is sent as an ordinary file.  A directory is not finished while any of its names waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import trio

from fsmux.columns import Act, Group, sparse
from fsmux.limits import SMALL_FILE
from fsmux.plan.plan import Large, is_large
from fsmux.plan.sharing import SharedFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container

    from fsmux.moving.carriers import Carrier
    from fsmux.plan.plan import Plan
    from fsmux.plan.sharing import Further, Shared, Standing
    from fsmux.records import Parts


class _Waiting(NamedTuple):
    """A further name in its directory, and what to do when all is done about it."""

    directory: Parts
    further: Further
    done: Callable[[], Awaitable[None]]

    @property
    def parts(self) -> Parts:
        return (*self.directory, self.further.name)


class Sharing:
    """The further names of one tree.  ``send`` moves a large file by a session, and says whether it stands.

    Files of up to ``medium`` bytes are small where nothing stands in their place.
    """

    def __init__(self, carrier: Carrier, send: Callable[[Parts, Large], Awaitable[bool]], medium: int) -> None:
        self.shared: Shared = {}
        self.standing: Standing = {}
        self._carrier = carrier
        self._medium = medium
        self._send = send
        self._left = 0
        self._waiting: dict[bytes, list[_Waiting]] = {}  # for first names that do not stand yet, by their keys
        self._expected: dict[Parts, dict[bytes, bytes]] = {}  # these, by directory and name
        self._linking: dict[Parts, _Waiting] = {}
        self._ready_in, self._ready = trio.open_memory_channel[tuple[_Waiting, Act | None]](math.inf)
        self._finishing = False
        self._changed = trio.Event()

    # ---- what the plan says --------------------------------------------------------------------------------------

    def expect(self, directory: Parts, found: Plan) -> None:
        """The first names in it are on their way from now on."""
        for name, key in found.first.items():
            self._expect(directory, name, key)

    def _expect(self, directory: Parts, name: bytes, key: bytes) -> None:
        self._waiting[key] = []
        self._expected.setdefault(directory, {})[name] = key

    def follow(self, directory: Parts, further: Further, done: Callable[[], Awaitable[None]]) -> None:
        """Have a further name made; ``done`` is called when nothing more is to be done in its directory for it."""
        self._left += 1
        waiting = _Waiting(directory, further, done)
        if further.key in self._waiting:
            self._waiting[further.key].append(waiting)
        elif further.key in self.shared:
            self._link(waiting)
        else:  # the first one has failed meanwhile
            self._promote(waiting)

    # ---- what became of it ---------------------------------------------------------------------------------------

    def told(self, group: Group, failed: Container[int], again: Container[int] = ()) -> None:
        """What a pack had of a directory stands, but for what failed, and for what is going to be tried again."""
        if group.act is Act.LINK:
            for index, name in enumerate(group.names):
                waiting = self._linking.pop((*group.directory, name))
                if index in failed:
                    self._promote(waiting)
                else:
                    self._ready_in.send_nowait((waiting, None))
        elif group.act is Act.MAKE and (expected := self._expected.get(group.directory)):
            for index, name in enumerate(group.names):
                if name in expected and index not in again:
                    self.ended((*group.directory, name), index not in failed)
        self._changed.set()

    def ended(self, parts: Parts, stands: bool) -> None:
        """A file stands, or failed for good."""
        expected = self._expected.get(parts[:-1])
        if expected is None or (key := expected.pop(parts[-1], None)) is None:
            return
        if not expected:
            del self._expected[parts[:-1]]
        waiting = self._waiting.pop(key)
        if stands:
            for one in waiting:
                self._link(one)
        elif waiting:
            self._promote(waiting[0])
            self._waiting[key] += waiting[1:]
        else:
            del self.shared[key]  # the next name that is met is the first one

    def _link(self, waiting: _Waiting) -> None:
        self._ready_in.send_nowait((waiting, Act.LINK))

    def _promote(self, waiting: _Waiting) -> None:
        """It is to be sent in the place of the first one, unless another one is on its way instead already."""
        key = waiting.further.key
        if key in self._waiting:
            self._waiting[key].append(waiting)
            return
        self.shared[key] = SharedFile(waiting.parts, None)
        self._expect(waiting.directory, waiting.further.name, key)
        self._ready_in.send_nowait((waiting, Act.MAKE))

    # ---- doing it ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make what is ready, until :meth:`finish` has returned."""
        async for one in self._ready:
            ready = [one]
            while True:
                try:
                    ready.append(self._ready.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            await self._link_all([waiting for waiting, act in ready if act is Act.LINK])
            for waiting, act in ready:
                if act is Act.MAKE:
                    await self._make(waiting)
                if act is not Act.LINK:
                    self._left -= 1
                    await waiting.done()
            if self._finishing:
                await self._carrier.flush()
            self._changed.set()

    async def finish(self) -> None:
        """No other names come: return when nothing is left to be done about those that came."""
        self._finishing = True
        while self._left:
            self._changed = trio.Event()
            await self._carrier.flush()
            await self._changed.wait()
        self._ready_in.close()

    async def _link_all(self, ready: list[_Waiting]) -> None:
        by_directory: dict[Parts, list[_Waiting]] = {}
        for waiting in ready:
            if waiting.further.key in self._waiting:  # another name is sent in the place of the first one meanwhile
                self._waiting[waiting.further.key].append(waiting)
                continue
            by_directory.setdefault(waiting.directory, []).append(waiting)
            self._linking[waiting.parts] = waiting
        for directory, those in by_directory.items():
            names = [one.further for one in those]
            await self._carrier.put(
                Group(
                    directory,
                    [one.name for one in names],
                    [0] * len(names),
                    [one.mtime for one in names],
                    [one.mode for one in names],
                    [b"/".join(self.shared[one.key].first) for one in names],
                    Act.LINK,
                )
            )

    async def _make(self, waiting: _Waiting) -> None:
        name, _, size, mtime, mode, fresh, owner, xattrs = waiting.further
        if is_large(size, fresh, SMALL_FILE, self._medium):
            self.ended(waiting.parts, await self._send(waiting.parts, Large(name, size, fresh, owner, xattrs)))
        else:
            group = Group(waiting.directory, [name], [size], [mtime], [mode], xattrs=sparse([xattrs]))
            group.owners = [] if owner is None else [owner]
            await self._carrier.put(group)
