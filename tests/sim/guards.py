"""Rules that no chance brings up, each with a scene of its own on a simulated disk; raises :class:`Wrong` if broken."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from fsmux.errors import Busy, FsmuxError
from fsmux.files import leftovers
from fsmux.files.root import Root
from fsmux.files.sink import open_sink
from fsmux.records import Durability
from tests.sim.crash import CHUNK, Wrong, fill, identity, start
from tests.sim.device import Device
from tests.sim.stories import FIRST, NAME, SMALL
from tests.sim.syscalls import SimSyscalls, no_fault

if TYPE_CHECKING:
    from collections.abc import Callable


def _refuses(what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except FsmuxError:
        return
    raise Wrong(what)


def incomplete() -> None:
    with Root.open("", sys=SimSyscalls(Device())) as root, start(root, NAME, FIRST, Durability.BATCH) as sink:
        fill(sink, FIRST, [0, 3])
        _refuses("an incomplete file was committed", sink.commit)


def cut_short() -> None:
    """Somebody else cuts the part, or takes its name."""
    for exchange in (False, True):
        device = Device()
        sys = SimSyscalls(device)
        with Root.open("", sys=sys) as root, start(root, NAME, FIRST, Durability.BATCH) as sink:
            fill(sink, FIRST)
            state = device.root.entries[b".fsmux"]
            name = sink.place.part_name
            if exchange:
                device.put(state, name, None)
                device.put(state, name, device.make(state.entries[sink.place.journal_name].mode))
            else:
                device.resize(state.entries[name], 5)
            _refuses("a part that somebody else changed was committed", sink.commit)


def never_durable() -> None:
    with Root.open("", sys=SimSyscalls(Device())) as root, start(root, NAME, SMALL, Durability.NONE) as sink:
        fill(sink, SMALL)
        if sink.commit():
            raise Wrong("a file was called durable that nobody synced")


def two_sessions() -> None:
    with Root.open("", sys=SimSyscalls(Device())) as root, start(root, NAME, FIRST, Durability.BATCH):
        try:
            start(root, NAME, FIRST, Durability.BATCH).close()
        except Busy:
            return
    raise Wrong("two sessions receive the same file")


def closed_while_used() -> None:
    device = Device()
    with Root.open("", sys=SimSyscalls(device)) as root:
        sink = start(root, NAME, FIRST, Durability.BATCH)
        with sink.place.part.hold() as fd:
            sink.close()
            with start(root, (b"other",), FIRST, Durability.BATCH) as other, other.place.part.hold() as reused:
                if fd == reused:
                    raise Wrong("a descriptor was closed while somebody used it")


def swept_while_used() -> None:
    device = Device()
    with Root.open("", sys=SimSyscalls(device)) as root, start(root, NAME, SMALL, Durability.BATCH) as sink:
        device.now_ns += round(10 * leftovers.ABANDONED_SECONDS * 1e9)
        for leftover in leftovers.find(root):
            if leftovers.remove(root, leftover):
                raise Wrong("a file in use was swept away")
        fill(sink, SMALL)
        sink.commit()


def poisoned() -> None:
    """A later sync says that all is well, and is not to be believed."""
    sys = SimSyscalls(Device())
    with Root.open("", sys=sys) as root, start(root, NAME, FIRST, Durability.BATCH) as sink:
        fill(sink, FIRST)
        sys.fault = lambda name: errno.EIO if name == "fdatasync" else 0
        _refuses("a failed sync was not noticed", sink.checkpoint)
        sys.fault = no_fault
        _refuses("a part of which some was lost was committed", sink.commit)


class _Rotten(SimSyscalls):
    def drop_cache(self, fd: int) -> None:
        super().drop_cache(fd)
        self.device.write(self._file(fd).inode, b"rot", 7)


def not_given_back() -> None:
    with Root.open("", sys=_Rotten(Device())) as root:
        sink = open_sink(root, NAME, identity(FIRST), 0o640, CHUNK, verify=True)
        fill(sink, FIRST)
        _refuses("a file was committed that the disk did not give back", sink.commit)
        sink.close()


GUARDS: Final = (
    not_given_back,
    poisoned,
    incomplete,
    cut_short,
    never_durable,
    two_sessions,
    closed_while_used,
    swept_while_used,
)
