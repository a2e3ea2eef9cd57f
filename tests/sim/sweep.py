"""Each system call of each operation fails once, in each way.

Theory: an operation that made N calls is run N times, with the first, the second … the last of them failing.  Each time
it must end well or with a typed error; a final name must show nothing partial, also after a power cut; no descriptor
is left; the same operation made again must succeed; and a sweep after a long time finds nothing to keep.
"""

from __future__ import annotations

import errno
import random
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xxhash import xxh3_128_digest

from fsmux.columns import KIND_BITS, REGULAR
from fsmux.errors import FsmuxError, StorageError
from fsmux.files import leftovers, listing
from fsmux.files.comparing import digests
from fsmux.files.leftovers import ABANDONED_SECONDS
from fsmux.files.packing import read_pack
from fsmux.files.source import Source
from fsmux.mux.buffers import anonymous
from fsmux.plan.walk import preorder, walk
from fsmux.records import Durability
from tests.sim.choices import Chooser
from tests.sim.crash import CHUNK, RESERVED, Explorer, Wrong, check_names, files_of, fill
from tests.sim.device import FOLDER, LINK, QUIET_LINUX, TELLING_LINUX
from tests.sim.packs import GOING, OTHER_TREE, TREE
from tests.sim.syscalls import SHORT, no_fault
from tests.sim.teller import DEEP, FIRST, HOLED, NAME, SECOND, SMALL, Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Fault:
    """What may go wrong with a call: an errno, or ``SHORT``; with some calls only, if they are named."""

    number: int
    calls: frozenset[str] = frozenset()

    def befalls(self, call: str) -> bool:
        return not self.calls or call in self.calls


FAULTS: Final = {
    "EIO": Fault(errno.EIO),
    "ENOSPC": Fault(errno.ENOSPC),
    "EDQUOT": Fault(errno.EDQUOT),
    "EINTR": Fault(errno.EINTR),
    "EFBIG": Fault(errno.EFBIG),
    "short read": Fault(SHORT, frozenset({"pread", "preadv"})),
    "short write": Fault(SHORT, frozenset({"pwrite", "pwritev"})),
}

NOTHING: Final = Chooser(random.Random(0), 0.0, 0.0)


class Blind(Explorer):
    """Looks at nothing: here the calls fail, and not the power."""

    def look(self, *_: object, **__: object) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done, on a disk that was prepared, and the files that stand afterwards."""

    name: str
    prepare: Callable[[Teller], None]
    act: Callable[[Teller], None]
    files: dict[tuple[bytes, ...], bytes]


def _nothing(told: Teller) -> None:
    pass


def _receive_first(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 1], checkpoint=True)


def _half(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 1], end="suspend")
    told.receive(NAME, FIRST, chunks=[2], end="kill")


def _another_half(told: Teller) -> None:
    told.receive(NAME, SECOND, chunks=[0, 1, 2], end="suspend")


def _both_stand(told: Teller) -> None:
    told.receive(NAME, FIRST)
    told.receive(DEEP, SMALL)


def _second_stands(told: Teller) -> None:
    told.receive(NAME, SECOND)


def _together(told: Teller) -> None:
    versions = {NAME: FIRST, DEEP: SMALL, (b"new", b"beside"): b""}
    with told.process() as root, ExitStack() as open_sinks:
        sinks = [open_sinks.enter_context(told.begin(root, name, data)) for name, data in versions.items()]
        for sink in sinks:
            fill(sink, versions[sink.parts])
            told.ledger.committing(sink.parts, versions[sink.parts], sink.durability)
        for sink in sinks:
            told.ledger.committed(sink.parts, sink.commit())


def _send(told: Teller) -> None:
    with told.process() as root, Source.open(root, NAME) as source:
        content = bytearray(len(FIRST))
        source.read_into(memoryview(content), 0)
        if content != FIRST:
            raise Wrong("something else was read than stands there")
        for index in range(len(FIRST) // CHUNK + 1):
            source.chunk_crc(index, CHUNK)
        source.check_unchanged()


def _list(told: Teller) -> None:
    with told.process() as root:
        found = [listed.parts for page in walk(root.scan, ()) for listed in page if listed.error is None]
        if not set(found) <= {NAME, *(DEEP[:depth] for depth in range(1, 4))}:
            raise Wrong(f"{found} were listed")


def _throw_away(told: Teller) -> None:
    with told.process() as root:
        for leftover in leftovers.find(root):
            leftovers.remove(root, leftover)


def _for_nobody(told: Teller) -> None:
    told.receive(NAME, FIRST, end="discard")


def _receive_tree(linux: str) -> Callable[[Teller], None]:
    def act(told: Teller) -> None:
        told.device.linux = linux
        told.unpack(TREE, together=9)

    return act


def _tree_stands(told: Teller) -> None:
    told.unpack(TREE)


def _other_tree_stands(told: Teller) -> None:
    told.unpack({name: OTHER_TREE[name] for name in TREE.keys() & OTHER_TREE.keys()})


def _send_tree(told: Teller) -> None:
    """List a tree and read it in packs; what cannot be read is said, and the rest is as it stands there."""
    found: dict[tuple[bytes, ...], bytes] = {}
    folders = {name for name, data in TREE.items() if data == FOLDER}
    with told.process() as root:
        for group in preorder(lambda parts: listing.groups(root, parts), ()):
            if group.error is not None:
                raise group.error
            contents, at = read_pack(root, (), [group], anonymous), 0
            lost = dict(group.lost)
            for index, target in group.link_targets().items():
                found[*group.directory, group.names[index]] = LINK + target
            for index, (name, size, mode) in enumerate(zip(group.names, group.sizes, group.modes, strict=True)):
                if mode & KIND_BITS == REGULAR and index not in lost:
                    found[*group.directory, name] = contents[at : at + size]
                    at += size
            found |= {name: FOLDER for name in folders if name[:-1] == group.directory and name[-1] in group.names}
            if any(TREE.get(name) != data for name, data in found.items()):
                raise Wrong("something else was packed than stands there")
            for error in lost.values():
                raise error
    if found != TREE:
        raise Wrong(f"not packed: {sorted(TREE.keys() - found.keys())}")


def _digest_tree(told: Teller) -> None:
    """As for ``--checksum``: a file has the digest of its bytes, or none if it cannot be read."""
    lost = []
    with told.process() as root:
        for group in preorder(lambda parts: listing.groups(root, parts), ()):
            if group.error is not None:
                raise group.error
            found = [digest for some in digests(root, (), [group]) for digest in some]
            for name, mode, digest in zip(group.names, group.modes, found, strict=True):
                if mode & KIND_BITS != REGULAR:
                    continue
                if digest not in (None, xxh3_128_digest(TREE[*group.directory, name])):
                    raise Wrong("a file has the digest of other bytes")
                if digest is None:
                    lost.append(name)
    if lost:
        raise StorageError(f"no digest of {lost}")


def _remove_some(told: Teller) -> None:
    told.unpack(OTHER_TREE, together=9, doomed=GOING)


OPERATIONS: Final = (
    Operation("upload", _nothing, _receive_first, {NAME: FIRST}),
    Operation("upload of a small file", _nothing, lambda told: told.receive(DEEP, SMALL), {DEEP: SMALL}),
    Operation(
        "upload, each file synced", _nothing, lambda told: told.receive(DEEP, FIRST, Durability.FILE), {DEEP: FIRST}
    ),
    Operation("resume", _half, _receive_first, {NAME: FIRST}),
    Operation("resume of another version", _another_half, _receive_first, {NAME: FIRST}),
    Operation("over an earlier version", _second_stands, _receive_first, {NAME: FIRST}),
    Operation("commit of a group", _nothing, _together, {NAME: FIRST, DEEP: SMALL, (b"new", b"beside"): b""}),
    Operation("discard", _half, _for_nobody, {}),
    Operation("download", _receive_first, _send, {NAME: FIRST}),
    Operation("list", _both_stand, _list, {NAME: FIRST, DEEP: SMALL}),
    Operation("clean", _half, _throw_away, {}),
    Operation("packs", _nothing, _receive_tree(TELLING_LINUX), TREE),
    Operation("packs, each file synced", _nothing, _receive_tree(QUIET_LINUX), TREE),
    Operation("packs over other files", _other_tree_stands, _receive_tree(TELLING_LINUX), TREE),
    Operation("packing", _tree_stands, _send_tree, TREE),
    Operation("packs that remove", _tree_stands, _remove_some, OTHER_TREE),
    Operation("digests", _tree_stands, _digest_tree, TREE),
    Operation("holes", _nothing, lambda told: told.receive(NAME, HOLED, chunks=[1], checkpoint=True), {NAME: HOLED}),
    Operation("holes in another version", _another_half, lambda told: told.receive(NAME, HOLED), {NAME: HOLED}),
)


def sweep(operation: Operation, fault: Fault) -> Iterator[tuple[int, str]]:
    """Fail every call that the fault may befall once; which call it was, by number and name.

    Raises :class:`Wrong` with a note.
    """
    number = 0
    reached = "the first"
    while reached:
        number += 1
        reached = ""
        told = Teller(Blind(0, 0))
        operation.prepare(told)
        left = number

        def fail(name: str) -> int:
            nonlocal left, reached
            if not fault.befalls(name):
                return 0
            left -= 1
            if left:
                return 0
            reached = name
            return fault.number

        told.fault = fail
        try:
            _one(operation, told)
        except Exception as error:
            error.add_note(f"{operation.name}: call {number} ({reached}) failed with {fault.number}")
            raise
        if reached:
            yield number, reached


def _one(operation: Operation, told: Teller) -> None:
    with suppress(FsmuxError):
        operation.act(told)
    told.fault = no_fault
    for device, ledger in ((told.device, told.ledger), (told.device.crash(NOTHING), told.ledger.after_power_cut())):
        check_names(device, ledger)
    operation.act(told)
    found = {name: bytes(inode.shown) for name, inode in files_of(told.device.root).items()}
    if found != operation.files:
        raise Wrong(f"in the end there are {sorted(found)}")
    told.device.now_ns += round(2 * ABANDONED_SECONDS * 1e9)
    with told.process() as root, root.keep_state():
        pass
    if RESERVED in told.device.root.entries:
        raise Wrong(f"left over: {sorted(told.device.root.entries[RESERVED].entries)}")
