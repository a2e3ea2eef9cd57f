"""Directories that are asked for one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsmux.errors import NotADirectory, NotFound
from fsmux.files.listing import Listings
from fsmux.files.root import Root
from fsmux.records import Namespaces

if TYPE_CHECKING:
    from pathlib import Path


def test_what_lies_in_a_directory_that_was_not_there_is_missing_too(tmp_path: Path) -> None:
    for name in ("base/a", "base/c/d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "base/file").write_bytes(b"")
    with Root.open(tmp_path) as root:
        listings = Listings(root, (b"base",), False, Namespaces.NONE)
        asked = [(), (b"a",), (b"b",), (b"b", b"x"), (b"b", b"x", b"y"), (b"bb",), (b"c",), (b"c", b"d")]
        found = list(listings.of(asked))
        assert [group.directory for group in found] == asked
        missing = [(b"b",), (b"b", b"x"), (b"b", b"x", b"y"), (b"bb",)]
        assert [group.directory for group in found if isinstance(group.error, NotFound)] == missing
        assert found[0].names == [b"a", b"c", b"file"]
        assert [group.error for group in found if group.directory not in missing] == [None] * 4
        # What it is asked for once more it looks into.
        (tmp_path / "base/bb/new").mkdir(parents=True)
        assert [group.names for group in listings.of([(b"bb",), (b"bb", b"new")])] == [[b"new"], []]
        (group,) = listings.of([(b"file",)])
        assert isinstance(group.error, NotADirectory)
