"""Trees as dictionaries: name -> Attrs of a leaf, a dictionary for a directory, an error for an unreadable one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from fsmux.columns import Group
from fsmux.errors import AccessError, FsmuxError
from fsmux.plan.judging import Facts
from fsmux.records import Attrs, Kind, Parts

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Attrs(Kind.FILE, 5, 1_000, 0o644)
OTHER = Attrs(Kind.FILE, 6, 2_000, 0o600)
LINK = Attrs(Kind.SYMLINK, link_target=b"a")
SPECIAL = Attrs(Kind.SPECIAL)
DIRECTORY = Attrs(Kind.DIRECTORY, mtime_ns=7, mode=0o755)
UNREADABLE = AccessError("no")

Tree = dict[bytes, Any]

names = st.sampled_from([b"a", b"b", b"c", b"\xff", b"d e"])
leaves = st.sampled_from([FILE, OTHER, LINK, SPECIAL])
trees = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12), max_size=4
)


def scanner(tree: Tree, page_size: int = 2) -> Any:
    def scan(parts: Parts) -> Iterator[list[tuple[bytes, Attrs]]]:
        node: Any = tree
        for name in parts:
            node = node[name]
        if isinstance(node, FsmuxError):
            raise node
        items = [(name, DIRECTORY if not isinstance(value, Attrs) else value) for name, value in node.items()]
        for at in range(0, len(items), page_size):
            yield items[at : at + page_size]

    return scan


def flatten(tree: Tree, above: Parts = ()) -> Iterator[tuple[Parts, Attrs]]:
    for name, value in tree.items():
        yield (*above, name), value if isinstance(value, Attrs) else DIRECTORY
        if isinstance(value, dict):
            yield from flatten(value, (*above, name))


def lister(tree: Tree, page_size: int = 2) -> Any:
    """The same as groups of columns."""

    def groups(parts: Parts) -> Iterator[Group]:
        node: Any = tree
        for name in parts:
            node = node[name]
        if isinstance(node, FsmuxError):
            raise node
        items = sorted(node.items())
        for at in range(0, len(items) or 1, page_size):
            facts = [Facts.of(value if isinstance(value, Attrs) else DIRECTORY) for _, value in items]
            page = slice(at, at + page_size)
            yield Group(
                parts,
                [name for name, _ in items[page]],
                [one.size for one in facts[page]],
                [one.mtime for one in facts[page]],
                [one.mode for one in facts[page]],
                [one.target for one in facts[page] if one.target],
                more=at + page_size < len(items),
            )

    return groups


def grouped(tree: Tree, page_size: int = 1000) -> list[Group]:
    """The top of a tree."""
    return list(lister(tree, page_size)(()))
