"""Trees on a simulated disk: small files that come in packs, and what is known of them.

Theory: the receiver of packs is :class:`~fsmux.files.unpacking.Unpacker`, used as the conversation does: some packs are
begun and filled, then committed together, and only then is anything said of them.  What was said to be durable has
to be there after every later crash; everything else may be there or not, but whole.
"""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from zlib_ng.zlib_ng import crc32

from fsmux.columns import DIRECTORY, KIND_BITS, REGULAR, SYMLINK, Act, Group, Packer, itself
from fsmux.files.contents import Contents
from fsmux.files.unpacking import Unpacker
from fsmux.moving.extras import removal
from tests.sim.device import BLOCK, FOLDER, LINK, START_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from fsmux.files.root import Root
    from fsmux.files.terms import Failure
    from fsmux.records import Durability, Parts
    from tests.sim.crash import Ledger

    Tree = Mapping[Parts, bytes]
    """Contents by name; those of a link begin with ``LINK``, that of an empty directory is ``FOLDER``."""
    Packs = list[tuple[list[Group], bytes]]

_RNG: Final = random.Random(17)
PACK: Final = 40_000
"""Bytes of a pack: a tree of a test takes several."""


_HOLE: Final = bytes(4096)
"""What files with holes have, and no others."""


def _content(size: int) -> bytes:
    return _RNG.randbytes(size)


TREE: Final = {
    (b"a",): _content(900),
    (b"b",): b"",
    (b"dir", b"one"): _content(30_000),
    (b"dir", b"two"): _content(5_000),
    (b"dir", b"deep", b"er", b"three"): _content(17),
    (b"dir", b"link"): LINK + b"../a",
    (b"empty", b"directory"): FOLDER,
    (b"leaf", b"five"): _content(8_000),
    (b"leaf", b"six"): _content(70),
    (b"leaf", b"tie"): LINK + b"five",
    (b"z",): _content(20_000),
}
LINKED: Final = ((b"a",), (b"dir", b"same"))
"""A file and its further name."""

SAME: Final = {LINKED[1]: LINKED[0]}
"""Names that come as further names of other files, if these come too with the same content."""

TREE.update({name: TREE[first] for name, first in SAME.items()})
OTHER_TREE: Final = {
    (b"a",): _content(901),
    (b"dir", b"one"): _content(100),
    (b"dir", b"deep", b"er", b"three"): LINK + b"somewhere else",
    (b"dir", b"link"): _content(10),
    (b"new", b"four"): _content(4_000),
}
GOING: Final = ((b"b",), (b"dir", b"two"), (b"dir", b"same"), (b"empty",), (b"leaf",), (b"z",))
"""What the first has and the other one has not."""

HOLED_TREE: Final = {
    (b"a",): bytes(20_000),
    (b"b",): b"",
    (b"dir", b"one"): bytes(2 * BLOCK) + _content(3_000),
    (b"dir", b"two"): _content(BLOCK) + bytes(5_000),
    (b"dir", b"link"): _content(100) + bytes(BLOCK) + _content(BLOCK),
}
"""Some files with holes, under names that stand for others in the first."""

HUNDREDS: Final = {(b"d%d" % (number % 7), b"%03d" % number): _content(number % 90) for number in range(300)}


def packs_of(tree: Tree, *, size: int = PACK, time: int = START_NS) -> Packs:
    """The tree as whoever has it would send it: directories before what is in them, and finished in the end.

    Without names for files that come under another one; see :func:`_links_of`.
    """
    packer = Packer(size)
    batches: list[list[Group]] = []
    folders = {name for name, data in tree.items() if data == FOLDER}
    directories = {(), *folders} | {name[:depth] for name in tree for depth in range(1, len(name))}
    linked = _linked(tree)
    for directory in sorted(directories):
        below = {name[-1]: data for name, data in tree.items() if name[:-1] == directory and name not in linked}
        group = Group(directory)
        for name in sorted(below.keys() | {one[-1] for one in directories if one and one[:-1] == directory}):
            data = below.get(name)
            group.names.append(name)
            group.mtimes.append(time)
            if data is None or data == FOLDER:
                group.sizes.append(0)
                group.modes.append(DIRECTORY | 0o755)
            elif data.startswith(LINK):
                group.sizes.append(0)
                group.modes.append(SYMLINK | 0o777)
                group.targets.append(data.removeprefix(LINK))
            else:
                group.sizes.append(len(data))
                group.modes.append(REGULAR | 0o644)
        batches += packer.put(group)
    for directory in sorted(directories, reverse=True):
        batches += packer.put(itself(directory, time, DIRECTORY | 0o755, Act.ADJUST))
    batches.append(packer.flush())
    return [(groups, _contents(groups, tree)) for groups in batches]


def _linked(tree: Tree) -> dict[Parts, Parts]:
    return {name: first for name, first in SAME.items() if name in tree and tree[name] == tree.get(first)}


def _links_of(tree: Tree, failed: Collection[Parts]) -> Packs:
    """Further names of files that stand; they are sent when it has been heard of those that they do."""
    groups = [
        Group(name[:-1], [name[-1]], [0], [START_NS], [REGULAR | 0o644], [b"/".join(first)], Act.LINK)
        for name, first in _linked(tree).items()
        if first not in failed
    ]
    return [(groups, b"")] if groups else []


def _contents(groups: Sequence[Group], tree: Tree, *, crcs: bool = True) -> bytes:
    """The contents of a pack, joined; with ``crcs`` the groups get their checksums."""
    joined = b""
    for group in groups:
        made = group.act is Act.MAKE and not group.itself
        regular = [made and mode & KIND_BITS == REGULAR for mode in group.modes[: len(group)]]
        found = [
            tree[*group.directory, name] if is_file else b"" for name, is_file in zip(group.names, regular, strict=True)
        ]
        if crcs:
            group.crcs = list(map(crc32, found))
            group.holed = [index for index, data in enumerate(found) if _HOLE in data]
        joined += b"".join(found)
    return joined


def unpack(
    root: Root,
    ledger: Ledger,
    tree: Tree,
    durability: Durability,
    *,
    together: int = 1,
    filled: Callable[[], None] = lambda: None,
    sent: Tree | None = None,
    standing: bool = False,
    doomed: Collection[Parts] = (),
) -> list[Failure]:
    """Receive a tree, so many packs to a commit, the first half of which is synced ahead, and write down what that
    promises; what failed of it.

    ``filled`` is called between the last pack of each commit and the commit; ``sent`` is what arrives instead.
    Directories that get two entries appear whole.  With ``standing`` all of it is there but the further names.  What is
    ``doomed`` is removed when all of the tree stands.
    """
    packs = _links_of(tree, ()) if standing else packs_of(tree)
    if sent is not None:
        packs = [(groups, _contents(groups, sent, crcs=False)) for groups, _ in packs]
    batches = [packs[start : start + together] for start in range(0, len(packs), together)]
    failures: list[Failure] = []
    failed: set[Parts] = set()
    linking = standing
    removing = not doomed
    removed: set[Parts] = set()
    worth_it = patch("fsmux.files.whole.WORTH_A_DIRECTORY", 2)
    with worth_it, closing(Unpacker(root, (), durability)) as unpacker:
        while batches:
            batch = list(enumerate(batches.pop(0)))
            names = {number: _names(groups, tree) for number, (groups, _) in batch}
            for number, (groups, contents) in batch:
                for name in names[number].values():
                    ledger.committing(name, tree[name], durability)
                unpacker.write(number, groups, Contents([memoryview(contents)]))
                if unpacker.commits_together and number + 1 == len(batch) // 2:
                    unpacker.sync_ahead()
            filled()
            lost = unpacker.commit()
            for failure in lost:
                failed.add(names[failure.pack].pop((failure.group, failure.entry), ()))
            for number, _ in batch:
                for name in names[number].values():
                    ledger.committed(name, unpacker.durable)
            failures += lost
            if not batches and not linking:
                linking = True
                batches += [links] if (links := _links_of(tree, failed)) else []
            if not batches and not removing and not failures:
                removing = True
                for name in doomed:
                    removed |= ledger.removing(name)
                batches.append([(_removals(doomed, removed), b"")])
        if not failures and unpacker.durable:
            ledger.removed(removed)
    return failures


def _removals(doomed: Collection[Parts], removed: Collection[Parts]) -> list[Group]:
    return [removal(name[:-1], [(name[-1], name not in removed)]) for name in sorted(doomed)]


def _names(groups: Sequence[Group], tree: Tree) -> dict[tuple[int, int], Parts]:
    """What of the tree is in a pack, by the numbers of their group and of themselves in it."""
    return {
        (place, index): (*group.directory, name)
        for place, group in enumerate(groups)
        if group.act in (Act.MAKE, Act.LINK)
        for index, name in enumerate(group.names)
        if (*group.directory, name) in tree
    }
