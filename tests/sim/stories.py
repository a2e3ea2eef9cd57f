"""What happens on a simulated disk: stories that were thought up, and as many as one likes that are drawn.

A story is told to a :class:`~tests.sim.teller.Teller`, which has the disk explored at each system call.
"""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsmux.errors import FsmuxError, StorageError
from fsmux.records import Durability, Extent
from tests.sim.crash import CHUNK, Explorer, fill
from tests.sim.device import BLOCK, FOLDER, QUIET_LINUX, TELLING_LINUX
from tests.sim.packs import GOING, HOLED_TREE, HUNDREDS, LINKED, OTHER_TREE, TREE, unpack
from tests.sim.syscalls import no_fault
from tests.sim.teller import DEEP, FIRST, HOLED, NAME, OTHER_SMALL, SECOND, SHORTER, SMALL, VERSIONS, Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsmux.records import Parts

# ---- thought up -----------------------------------------------------------------------------------------------------


def small_files(told: Teller) -> None:
    told.receive(NAME, SMALL)
    told.receive(DEEP, b"")
    told.receive(NAME, OTHER_SMALL)


def a_big_file(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 1], checkpoint=True)


def a_big_file_in_new_directories(told: Teller) -> None:
    told.receive(DEEP, FIRST, Durability.FILE)
    told.receive((*DEEP[:-1], b"beside"), SMALL)


def killed_and_resumed(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 2], end="kill")
    told.receive(NAME, FIRST, chunks=[1], end="suspend")
    told.receive(NAME, FIRST)


def cut_within_chunks(told: Teller) -> None:
    begun = [Extent(0, 2 * BLOCK), Extent(CHUNK + BLOCK, BLOCK), Extent(3 * CHUNK, 700)]
    told.receive(NAME, FIRST, chunks=[2], begun=begun, end="suspend")
    told.receive(NAME, FIRST, begun=[Extent(2 * BLOCK, BLOCK + 99)], end="kill")
    told.receive(NAME, SECOND, begun=begun, end="kill")
    told.receive(NAME, FIRST)


def checkpointed_and_resumed(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0], checkpoint=True, end="kill")
    told.receive(NAME, FIRST)


def another_version(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 1, 2], end="suspend")
    told.receive(NAME, SECOND, chunks=[0], end="kill")
    told.receive(NAME, SHORTER)


def over_an_earlier_version(told: Teller) -> None:
    told.receive(NAME, FIRST)
    told.receive(NAME, SECOND, chunks=[0], checkpoint=True)


def without_resuming(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 1], end="suspend")
    told.receive(NAME, FIRST, resume=False)


def thrown_away(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 1], end="suspend")
    told.receive(NAME, FIRST, chunks=[2], end="discard")
    told.receive(NAME, SECOND)


def not_durable(told: Teller) -> None:
    told.receive(NAME, FIRST, Durability.NONE, chunks=[1], checkpoint=True)
    told.receive(DEEP, SMALL, Durability.NONE)
    told.receive((*DEEP[:-1], b"beside"), SMALL)
    told.receive(NAME, SECOND)


def together(told: Teller) -> None:
    names = [(b"a",), (b"b",), (b"new", b"c"), (b"new", b"dir", b"d"), (b"new", b"dir", b"e")]
    versions = [SMALL, FIRST, OTHER_SMALL, SHORTER, b""]
    with told.process() as root:
        sinks = [told.begin(root, name, data) for name, data in zip(names, versions, strict=True)]
        for sink, data in zip(sinks, versions, strict=True):
            fill(sink, data)
            told.ledger.committing(sink.parts, data, sink.durability)
        for sink in sinks:
            assert sink.commit() is True
            told.ledger.committed(sink.parts, True)


def writes_lost_unseen(told: Teller) -> None:
    for heard in (False, True):
        told.receive(NAME, FIRST, chunks=[0, 1], end="kill")
        told.lose_writes(told=heard)
        told.look()
        told.receive_at_last(NAME, FIRST)
        told.receive(NAME, SECOND, chunks=[0, 1], end="kill")
        told.lose_writes(told=heard)
        told.look()
        told.receive_at_last(NAME, SECOND)


def tampered_with(told: Teller) -> None:
    told.receive(NAME, FIRST, chunks=[0, 1], end="suspend")
    told.tamper()
    told.look()
    told.receive(NAME, FIRST, chunks=[0, 1], end="suspend")
    told.tamper()
    told.look()
    told.receive(NAME, SECOND)


def a_tree(told: Teller) -> None:
    for linux in (TELLING_LINUX, QUIET_LINUX):
        told.device.linux = linux
        told.unpack(TREE)
        told.unpack(OTHER_TREE, together=9)
        told.unpack(TREE, Durability.FILE)


def a_tree_of_files_with_holes(told: Teller) -> None:
    """They come where nothing was, and in place of others, which come back."""
    told.looks = 3
    for linux in (TELLING_LINUX, QUIET_LINUX):
        told.device.linux = linux
        told.unpack(HOLED_TREE)
        told.unpack(TREE, together=9)
        told.unpack(HOLED_TREE, Durability.FILE)


def a_tree_without_durability(told: Teller) -> None:
    told.device.linux = TELLING_LINUX
    told.unpack(TREE, Durability.NONE)
    told.unpack(OTHER_TREE)
    told.unpack(TREE)


def a_tree_without_files(told: Teller) -> None:
    for linux in (TELLING_LINUX, QUIET_LINUX):
        told.device.linux = linux
        told.unpack({(linux.encode(), b"empty"): FOLDER, (linux.encode(), b"a", b"b"): FOLDER})
        told.unpack({(linux.encode(), b"c"): FOLDER}, Durability.FILE)


def a_file_with_holes(told: Teller) -> None:
    """Holes come where nothing was, and where another version had bytes; and bytes where it had holes."""
    told.receive(NAME, HOLED, chunks=[1, 3], end="kill")
    told.receive(NAME, HOLED, chunks=[0], checkpoint=True)
    told.receive(NAME, FIRST, chunks=[0, 1, 2], end="suspend")
    told.receive(NAME, HOLED, chunks=[1, 2], end="kill")
    told.receive(NAME, HOLED)
    told.receive(NAME, FIRST, chunks=[1], checkpoint=True)


def a_tree_of_which_some_goes(told: Teller) -> None:
    """As with ``--delete``: files, links to them, and directories with what is in them; then all comes back."""
    for linux in (TELLING_LINUX, QUIET_LINUX):
        told.device.linux = linux
        told.looks = 5
        told.unpack(TREE)
        told.looks = 2
        told.unpack(OTHER_TREE, together=9, doomed=GOING)
        told.unpack(TREE, Durability.FILE, doomed=[(b"new",)])


def a_link_to_what_stands_there(told: Teller) -> None:
    """It was sent without durability, and only the further name is to be durable now; so the bytes are, too."""
    for linux in (TELLING_LINUX, QUIET_LINUX):
        told.device.linux = linux
        told.unpack({name: TREE[name] for name in (LINKED[0], (b"dir", b"one"))}, Durability.NONE)
        told.unpack({name: TREE[name] for name in LINKED}, standing=True)
        told.unpack(OTHER_TREE, doomed=LINKED[1:])


def hundreds_of_files(told: Teller) -> None:
    told.device.linux = TELLING_LINUX
    told.looks = 101
    told.unpack(HUNDREDS, together=2)


def a_tree_of_which_writes_are_lost(told: Teller) -> None:
    """Between being written and being committed; some other program may hear of it first."""
    for linux in (TELLING_LINUX, QUIET_LINUX):
        told.device.linux = linux
        for heard in (False, True):
            for tree in (TREE, OTHER_TREE):
                with suppress(StorageError):
                    told.unpack(tree, together=9, filled=lambda heard=heard: told.lose_writes(told=heard))
                told.look()


def a_tree_beside_a_big_file(told: Teller) -> None:
    told.device.linux = TELLING_LINUX
    with told.process() as root:
        sink = told.begin(root, NAME, FIRST)
        try:
            fill(sink, FIRST, [0, 2])
            told.ledger.trees = dict(TREE)
            assert not unpack(root, told.ledger, TREE, Durability.BATCH, filled=lambda: fill(sink, FIRST, [1]))
            fill(sink, FIRST)
            told.commit(sink, FIRST)
        finally:
            sink.close()


STORIES: Final = (
    small_files, a_big_file, a_big_file_in_new_directories, killed_and_resumed, cut_within_chunks,
    checkpointed_and_resumed, another_version, over_an_earlier_version, without_resuming, thrown_away, not_durable,
    together, writes_lost_unseen, tampered_with, a_file_with_holes,
    a_tree, a_tree_of_files_with_holes, a_tree_of_which_some_goes, a_link_to_what_stands_there,
    a_tree_without_durability, a_tree_without_files,
    hundreds_of_files, a_tree_of_which_writes_are_lost,
    a_tree_beside_a_big_file,
)  # fmt: skip


# ---- drawn ----------------------------------------------------------------------------------------------------------


def drawn(told: Teller, rng: random.Random) -> None:
    """Some sessions or trees, one after the other; now and then a kill, a power cut, lost writes or a failed sync."""
    names = [NAME, DEEP]
    told.device.linux = rng.choice([QUIET_LINUX, TELLING_LINUX])
    told.looks = 1
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.2:
            _draw_tree(told, rng)
        else:
            _draw_session(told, rng, names)
        told.fault = no_fault
        happening = rng.random()
        if happening < 0.2:
            told.power_cut(rng)
        elif happening < 0.3:
            told.tamper()
        elif happening < 0.5:
            told.lose_writes(told=rng.random() < 0.5)
    told.look()


def _draw_tree(told: Teller, rng: random.Random) -> None:
    """One of three trees, or a part of one, and what it has not may go; all of that may fail if a sync does, or if
    writes are lost or were before.
    """
    tree = rng.choice([TREE, OTHER_TREE, HOLED_TREE])
    names = rng.sample(sorted(tree), rng.randint(1, len(tree)))
    failing = rng.randrange(4) if rng.random() < 0.3 else -1
    losing = rng.random() < 0.2
    going = tree is OTHER_TREE and rng.random() < 0.5
    told.fault = _failing_sync(failing)
    try:
        told.unpack(
            {name: tree[name] for name in names},
            rng.choices([Durability.BATCH, Durability.FILE, Durability.NONE], [6, 2, 1])[0],
            together=rng.choice([1, 9]),
            doomed=rng.sample(GOING, rng.randint(1, len(GOING))) if going else (),
            filled=lambda: told.lose_writes(told=rng.random() < 0.5) if losing else None,
        )
    except FsmuxError:
        if failing < 0 and not told.device.failures:
            raise


def _draw_session(told: Teller, rng: random.Random, names: list[Parts]) -> None:
    name, data = rng.choice(names), rng.choice(VERSIONS)
    count = -(-len(data) // CHUNK)
    failing = rng.randrange(6) if rng.random() < 0.4 else -1
    told.fault = _failing_sync(failing)
    try:
        told.receive(
            name,
            data,
            rng.choices([Durability.BATCH, Durability.FILE, Durability.NONE], [6, 2, 1])[0],
            chunks=rng.sample(range(count), rng.randint(0, count)),
            begun=[_draw_begun(rng, index, data) for index in rng.sample(range(count), rng.randint(0, count))],
            checkpoint=rng.random() < 0.5,
            resume=rng.random() < 0.9,
            end=rng.choice(["commit", "suspend", "kill", "kill", "discard", "close"]),
        )
    except FsmuxError:
        if failing < 0 and count < 2:
            raise


def _draw_begun(rng: random.Random, index: int, data: bytes) -> Extent:
    """Some of a chunk."""
    length = min(CHUNK, len(data) - index * CHUNK)
    start = rng.randrange(length) if rng.random() < 0.3 else 0
    return Extent(index * CHUNK + start, rng.randint(1, length - start))


def _failing_sync(at: int) -> Callable[[str], int]:
    """A fault: the sync with this number, from 0, fails."""
    left = at

    def fault(name: str) -> int:
        nonlocal left
        if name in ("fsync", "fdatasync", "syncfs"):
            left -= 1
            if left == -1:
                return errno.EIO
        return 0

    return fault


# ---- all of them ----------------------------------------------------------------------------------------------------


def explore(states: int, seed: int, samples: int) -> Iterator[tuple[str, Explorer]]:
    """Tell all stories, and then draw until so many states were checked; each with its name and what it came to.

    Raises :class:`Wrong` with a note of what to tell again.
    """
    total = 0
    for number, story in enumerate(STORIES):
        explorer = _explored(story.__name__, seed + number, samples, story)
        total += explorer.states
        yield story.__name__, explorer
    while total < states:
        explorer = _explored("drawn", seed, samples, lambda told, seed=seed: drawn(told, random.Random(seed)))
        total += explorer.states
        yield f"drawn {seed}", explorer
        seed += 1


def _explored(name: str, seed: int, samples: int, story: Callable[[Teller], None]) -> Explorer:
    explorer = Explorer(seed, samples)
    try:
        story(Teller(explorer))
    except Exception as error:
        error.add_note(f"in the story {name!r} with seed {seed} and {samples} samples")
        raise
    return explorer
