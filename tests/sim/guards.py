"""Rules that no chance brings up, each with a scene of its own on a simulated disk; raises :class:`Wrong` if broken."""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from fsmux.columns import DIRECTORY, REGULAR, Act, Group, itself
from fsmux.errors import Busy, FsmuxError, IntegrityError
from fsmux.files import leftovers, listing
from fsmux.files.contents import Contents
from fsmux.files.holding import Holding
from fsmux.files.journal import RECORD, Header, Journal, Type, parse
from fsmux.files.lease import Lease
from fsmux.files.opening import open_sink
from fsmux.files.packing import read_pack
from fsmux.files.root import Root
from fsmux.files.source import Source
from fsmux.files.syscalls import OPEN_CREATE
from fsmux.files.unpacking import Unpacker
from fsmux.files.whole import places_in, stage_for
from fsmux.moving.extras import removal
from fsmux.mux.buffers import anonymous
from fsmux.records import Attrs, Durability, Extent, Kind
from tests.sim.choices import Chooser
from tests.sim.crash import CHUNK, RESERVED, Ledger, Wrong, check_held, files_of, fill, identity, start
from tests.sim.device import QUIET_LINUX, START_NS, TELLING_LINUX, Device
from tests.sim.packs import TREE, packs_of, unpack
from tests.sim.syscalls import SimSyscalls, no_fault, no_watch
from tests.sim.teller import FIRST, HOLED, NAME, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable


OTHER: Final = random.Random(9).randbytes(len(FIRST))


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


def swept_while_packs_are_written() -> None:
    """By another process, however long that takes; and then they can be committed."""
    for linux in (TELLING_LINUX, QUIET_LINUX):
        device = Device()
        device.linux = linux

        def sweep(device: Device = device) -> None:
            device.now_ns += round(10 * leftovers.ABANDONED_SECONDS * 1e9)
            with Root.open("", sys=SimSyscalls(device, 1)) as other:
                leftovers.sweep_top(other)

        with Root.open("", sys=SimSyscalls(device)) as root:
            if unpack(root, Ledger(), TREE, Durability.BATCH, together=9, filled=sweep):
                raise Wrong("files of a pack were swept away before they were committed")


def swept_when_abandoned() -> None:
    """What a killed process left of small files is gone at once, once somebody receives files there."""

    class Killed(Exception):
        pass

    def kill() -> None:
        left.append(device.fork())
        raise Killed

    device, left = Device(), list[Device]()
    device.linux = TELLING_LINUX
    with Root.open("", sys=SimSyscalls(device)) as root, suppress(Killed):
        unpack(root, Ledger(), TREE, Durability.BATCH, together=9, filled=kill)
    device = Device()
    with Root.open("", sys=SimSyscalls(device)) as root, start(root, NAME, SMALL, Durability.BATCH):
        left.append(device.fork())
    for device in left:
        if len(device.root.entries[RESERVED].entries) < 2:
            raise Wrong("nothing was left to be swept")
        with Root.open("", sys=SimSyscalls(device)) as root:
            leftovers.sweep_top(root)
        if RESERVED in device.root.entries:
            raise Wrong("what was abandoned was not swept away")


class _PartAhead(Chooser):
    """Power fails when the bytes of the part are on the device, and not yet its times, nor what the journal says."""

    def __init__(self) -> None:
        super().__init__(random.Random(0), 1.0, 1.0)

    def facts(self) -> bool:
        return False

    def begin_file(self, size: int) -> None:
        self._here = float(size > CHUNK)


def back_to_an_earlier_version() -> None:
    """The claims about a version must be gone for good before another one's bytes come to the same part."""
    device = Device()
    for version, chunks in ((FIRST, [0, 1, 2]), (OTHER, [0, 1])):
        with Root.open("", sys=SimSyscalls(device)) as root, start(root, NAME, version, Durability.BATCH) as sink:
            fill(sink, version, chunks)
            if version is OTHER:
                device = device.crash(_PartAhead())
            else:
                sink.suspend()
    sys = SimSyscalls(device)
    with Root.open("", sys=sys) as root, start(root, NAME, FIRST, Durability.BATCH) as sink:
        check_held(sink, sys, FIRST)


def records_of_another_journal() -> None:
    """Records that were damaged, or written in an earlier life of the same blocks, end what is believed."""
    journals = []
    for epoch in (b"a", b"b"):
        device = Device()
        sys = SimSyscalls(device)
        top = sys.open_root("")
        journal = Journal(sys, Lease(sys.openat(top, b"journal", OPEN_CREATE), sys))
        journal.begin(Header(identity(FIRST), CHUNK, 1, 1, bytes(16), b"file", epoch * 16))
        journal.append(Type.RECEIVED, 1, 1)
        journal.flush()
        journals.append(bytes(device.root.entries[b"journal"].data))
        journal.close()
    first, second = journals
    damaged = bytearray(first)
    damaged[12 - RECORD] ^= 1  # in its checksum of the chunk
    for mixed in (first[:-RECORD] + second[-RECORD:], damaged):
        log = parse(mixed)
        if log is None or log.count:
            raise Wrong("a record that does not belong to its journal was believed")


def damaged_in_a_pack() -> None:
    """Of what arrives damaged nothing stands, and the rest does."""
    device = Device()
    ledger = Ledger()
    name = (b"dir", b"one")
    damaged = dict(TREE) | {name: b"!" + TREE[name][1:]}
    with Root.open("", sys=SimSyscalls(device)) as root:
        failures = unpack(root, ledger, TREE, Durability.BATCH, sent=damaged)
    if [type(failure.error) for failure in failures] != [IntegrityError]:
        raise Wrong("a damaged file of a pack was not noticed")
    if {name: bytes(inode.shown) for name, inode in files_of(device.root).items()} != {
        other: data for other, data in TREE.items() if other != name
    }:
        raise Wrong("a damaged file of a pack stands, or others do not")


def not_committed_in_a_pack() -> None:
    class Broken(Exception):
        pass

    def breaks() -> None:
        raise Broken

    for linux in (TELLING_LINUX, QUIET_LINUX):
        device = Device()
        device.linux = linux
        with Root.open("", sys=SimSyscalls(device)) as root, suppress(Broken):
            unpack(root, Ledger(), TREE, Durability.BATCH, together=9, filled=breaks)
        if RESERVED in device.root.entries:
            raise Wrong("what was not committed was left")


def names_of_a_pack_not_synced() -> None:
    """The files are on the disk, and the sync that should keep their names fails."""
    renamed = False

    def fault(name: str) -> int:
        nonlocal renamed
        renamed = renamed or name == "rename"
        return errno.EIO if renamed and name == "syncfs" else 0

    device = Device()
    device.linux = TELLING_LINUX
    with Root.open("", sys=SimSyscalls(device, fault=fault)) as root:
        failures = unpack(root, Ledger(), TREE, Durability.BATCH, together=99)
    done = sum(len(group) or group.itself for groups, _ in packs_of(TREE) for group in groups)
    failed = len({failure[:3] for failure in failures})
    if not renamed or failed != done:
        raise Wrong(f"{done - failed} of {done} entries were called durable, whose names nobody could sync")


def packs_not_synced_ahead() -> None:
    """What a sync ahead of a commit was told of is not forgotten for that: it tells nobody."""
    syncs = 0

    def fault(name: str) -> int:
        nonlocal syncs
        syncs += name == "syncfs"
        return errno.EIO if name == "syncfs" and syncs == 1 else 0

    device = Device()
    device.linux = TELLING_LINUX
    with Root.open("", sys=SimSyscalls(device, fault=fault)) as root:
        failures = unpack(root, Ledger(), TREE, Durability.BATCH, together=2)
    if syncs < 3 or not failures:
        raise Wrong("files of which the disk had lost bytes were called durable")


def changes_of_a_pack_not_synced() -> None:
    """What only removes or adjusts writes no file that would be synced, and is no less durable for that."""
    for linux in (TELLING_LINUX, QUIET_LINUX):
        device = Device()
        device.linux = linux
        with Root.open("", sys=SimSyscalls(device)) as root:
            unpack(root, Ledger(), TREE, Durability.BATCH)
        for group in (
            removal((b"dir",), [(b"one", False)]),
            Group((b"dir",), [b"two"], [0], [START_NS], [REGULAR | 0o600], act=Act.ADJUST),
            itself((b"dir",), START_NS, DIRECTORY | 0o700, Act.ADJUST),
        ):
            for number in (0, errno.EIO):
                sys = SimSyscalls(
                    device.fork(),
                    fault=lambda name, n=number: n if name in ("fsync", "syncfs") else 0,  # type: ignore[misc]
                )
                with Root.open("", sys=sys) as root:
                    unpacker = Unpacker(root, (), Durability.BATCH)
                    unpacker.write(1, [group], Contents([]))
                    failures = unpacker.commit()
                    unpacker.close()
                if len(failures) != bool(number):
                    raise Wrong(
                        f"{group.act.name}: {len(failures)} failures with {errno.errorcode.get(number, 'no fault')}"
                    )


def set_by_name() -> None:
    """What is set of one name, and a link that is made, outlives a power cut, or is refused."""
    file, link = (b"dir", b"one"), (b"new", b"dir", b"link")
    device = Device()
    with Root.open("", sys=SimSyscalls(device)) as root:
        unpack(root, Ledger(), TREE, Durability.BATCH)
        root.set_attrs(file, Attrs(Kind.FILE, mtime_ns=5, mode=0o600), Durability.BATCH)
        root.symlink(link, b"anywhere", None, Durability.BATCH)
    after = files_of(device.crash(Chooser(random.Random(0), 0.0, 0.0)).root)
    if (after[file].mtime_ns, after[file].mode & 0o777) != (5, 0o600) or link not in after:
        raise Wrong("what was set, or a link, is gone with the power")
    for durability in (Durability.NONE, Durability.FILE):
        sys = SimSyscalls(device, fault=lambda name: errno.EIO if name == "fsync" else 0)
        with Root.open("", sys=sys) as root:
            for act in (
                partial(root.set_attrs, file, Attrs(Kind.FILE, mtime_ns=6), durability),
                partial(root.symlink, link, b"elsewhere", None, durability),
            ):
                if durability is Durability.NONE:
                    act()
                else:
                    _refuses("what nobody could sync was called done", act)


def changed_by_name() -> None:
    """Directories that are made, and what gets another name or is removed, stay so over a power cut, or are refused."""
    one, two, moved, made = (b"dir", b"one"), (b"dir", b"two"), (b"new", b"name"), (b"a", b"b", b"c")
    device = Device()

    def acts(root: Root, durability: Durability) -> list[Callable[[], None]]:
        return [
            partial(root.mkdir, made, True, 0o700, durability),
            partial(root.mkdir, moved[:1], False, 0o700, durability),
            partial(root.rename, one, moved, False, durability),
            partial(root.remove, two, False, durability),
            partial(root.remove, made[:1], True, durability),
            partial(root.mkdir, made, True, 0o700, durability),
        ]

    with Root.open("", sys=SimSyscalls(device)) as root:
        unpack(root, Ledger(), {one: FIRST, two: SMALL}, Durability.BATCH)
        before = device.fork()
        for act in acts(root, Durability.BATCH):
            act()
    after = files_of(device.crash(Chooser(random.Random(0), 0.0, 0.0)).root)
    if set(after) != {(b"dir",), moved, made}:
        raise Wrong(f"after the power cut there is {sorted(after)}")
    for broken in range(6):
        failing: list[str] = []
        sys = SimSyscalls(before.fork(), fault=lambda name, names=failing: errno.EIO if name in names else 0)  # type: ignore[misc]
        with Root.open("", sys=sys) as root:
            *good, bad = acts(root, Durability.FILE)[: broken + 1]
            for act in good:
                act()
            failing.append("fsync")
            _refuses("what nobody could sync was called done", bad)


def empty_directory_replaced() -> None:
    """Its place is taken by one with files in it, just when a file is to be renamed into it; or it has got a file."""
    place = (b"d",)

    def commit(root: Root) -> None:
        with start(root, (*place, b"mine"), SMALL, Durability.BATCH) as sink:
            fill(sink, SMALL)
            sink.commit()

    def come_in_a_pack(root: Root) -> None:
        unpack(root, Ledger(), {(*place, b"mine"): SMALL}, Durability.BATCH)

    def come_whole(root: Root) -> None:
        found = {(*place, b"mine"): SMALL, (*place, b"too"): SMALL, (*place, b"sub", b"deep"): SMALL}
        unpack(root, Ledger(), found, Durability.BATCH)

    for act in (commit, come_in_a_pack, come_whole):
        device = Device()
        device.linux = TELLING_LINUX
        calls = SimSyscalls(device)
        with Root.open("", sys=calls) as root, Root.open("", sys=SimSyscalls(device, 1)) as other:
            if act is not come_whole:
                other.mkdir(place)

            def interfere(name: str, calls: SimSyscalls = calls, other: Root = other) -> None:
                if name != "rename" or place[0] not in calls.device.root.entries:
                    return
                calls.watch = no_watch
                holding = Holding(other.sys)
                stage = stage_for(other, holding, place)
                if stage is None:
                    raise Wrong("no directory like an empty one could be made")
                inside = stage.open(place)
                other.sys.close(other.sys.openat(inside, b"theirs", OPEN_CREATE))
                other.sys.close(inside)
                with places_in(other, place[:-1]) as above:
                    taken = above is not None and stage.take_place(above)
                if not taken:
                    raise Wrong("the place of an empty directory could not be taken")
                holding.let_go()
                holding.close_left()

            calls.watch = interfere
            act(root)
        names = {b"theirs", b"mine"} | ({b"too", b"sub"} if act is come_whole else set())
        found = device.root.entries[place[0]].entries
        if calls.watch is not no_watch or found.keys() != names or (b"sub" in names and not found[b"sub"].entries):
            raise Wrong("a file was lost with the empty directory that it was to stand in")


def changed_while_packed() -> None:
    """A file is as long as it was when it was listed, and is another one."""
    device = Device()
    changed = bytes(reversed(TREE[b"a",]))
    with Root.open("", sys=SimSyscalls(device)) as root:
        unpack(root, Ledger(), TREE, Durability.BATCH)
        (group,) = listing.groups(root, ())
        device.write(device.root.entries[b"a"], changed, 0)
        now = device.root.entries[b"a"].mtime_ns
        if bytes(read_pack(root, (), [group], anonymous)[: len(changed)]) != changed:
            raise Wrong("something else was packed than stands there")
        if group.mtimes[0] != now:
            raise Wrong("a file that was changed travels with the time that it had before")


def unknown_end_of_data() -> None:
    """A file system that cannot say where data ends does not thereby make a hole of it."""
    device = Device()
    with Root.open("", sys=SimSyscalls(device)) as root, start(root, NAME, HOLED, Durability.BATCH) as sink:
        fill(sink, HOLED)
        sink.commit()
    for number in (errno.EIO, errno.ENXIO, errno.EINVAL):
        for failing in ("seek_hole", "seek_data"):
            if (number, failing) == (errno.ENXIO, "seek_data"):
                continue  # so it says that there is no more data
            sys = SimSyscalls(device, fault=lambda name, n=number, f=failing: n if name == f else 0)  # type: ignore[misc]
            with Root.open("", sys=sys) as root, Source.open(root, NAME) as source:
                for extent, hole, _ in source.runs([Extent(0, len(HOLED))]):
                    if hole and any(HOLED[extent.offset : extent.end]):
                        raise Wrong("data was taken for a hole")


GUARDS: Final = (
    unknown_end_of_data,
    damaged_in_a_pack,
    not_committed_in_a_pack,
    names_of_a_pack_not_synced,
    packs_not_synced_ahead,
    changes_of_a_pack_not_synced,
    set_by_name,
    changed_by_name,
    empty_directory_replaced,
    changed_while_packed,
    back_to_an_earlier_version,
    records_of_another_journal,
    not_given_back,
    poisoned,
    incomplete,
    cut_short,
    never_durable,
    two_sessions,
    closed_while_used,
    swept_while_used,
    swept_while_packs_are_written,
    swept_when_abandoned,
)
