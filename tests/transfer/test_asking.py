"""Many names at once: what is found of them is what each would be found to be by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from fsmux.errors import FsmuxError, NotFound
from fsmux.events import FileFailed, FileSkipped
from fsmux.files.names import RESERVED
from fsmux.files.root import Root
from fsmux.job import Options
from fsmux.moving import asking
from fsmux.moving.asking import MANY, NAMES_A_HOP, attrs_of
from fsmux.moving.attempt import SEVERAL, Attempt
from fsmux.moving.report import Report
from fsmux.moving.transfer import Transfer
from fsmux.records import Kept, Namespaces
from fsmux.sites import LocalSite, RemoteSite
from fsmux.transfer.session import Run
from fsmux.urls import Local, Remote
from fsmux.wire.messages import List, Look, Stat

from .kit import content, descriptors
from .test_trees import inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsmux.records import Parts
    from fsmux.sites import Site

    from .kit import Side


def zoo(root: Path) -> list[Parts]:
    """A directory of all kinds of things, and names to look for in it and beside it."""
    here = root / "zoo"
    here.mkdir()
    for number in range(NAMES_A_HOP):
        (here / f"{number:03d}").write_bytes(content(number, number))
        os.utime(here / f"{number:03d}", ns=(1, 10**18 + number))
    (here / "directory").mkdir(mode=0o711)
    (here / "link").symlink_to("nowhere")
    (here / "set-user-id").write_bytes(b"x")
    (here / "set-user-id").chmod(0o4750)
    os.mkfifo(here / "pipe")
    os.link(here / "000", here / "another name")
    (root / os.fsdecode(b"zoo/not-\xff\n")).write_bytes(b"y")
    os.setxattr(here / "001", "user.of", b"value")
    os.utime(here / "directory", ns=(1, -5))
    names = [*sorted(map(os.fsencode, os.listdir(here))), b"missing", b"directory", b"zzz", RESERVED, b"a" * 300]
    return [(b"zoo", name) for name in names] + [(b"zoo",), (b"no-zoo",), (b"no-zoo", b"x"), (b"zoo", b"000", b"x"), ()]


@pytest.fixture(params=["here", "there"])
def site(request: pytest.FixtureRequest, side: Side) -> Iterator[tuple[Site, Path]]:
    if request.param == "there":
        yield RemoteSite(side.client), side.served
        return
    with Root.open(side.there) as root:
        yield LocalSite(side.client, None, root), side.there  # type: ignore[arg-type]


async def one_by_one(site: Site, places: list[Parts]) -> list[Any]:
    found: list[Any] = []
    for parts in places:
        try:
            found.append(await site.stat(parts))
        except FsmuxError as exc:
            found.append(type(exc))
    return found


async def at_once(side: Side, site: Site, places: list[Parts]) -> list[Any]:
    attempt = Attempt(side.client, Options(), Report(side.observe), Run())
    found = await attrs_of(attempt, [(site, parts) for parts in places])
    return [type(one) if isinstance(one, FsmuxError) else one for one in found]


@pytest.mark.parametrize("kept", [Kept(), Kept(owner=True, xattrs=Namespaces.USER)], ids=["", "all kept"])
@pytest.mark.parametrize("much", [False, True], ids=["", "too much"])
async def test_what_is_found(
    side: Side, site: tuple[Site, Path], kept: Kept, much: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, root = site
    where.kept = kept
    places = zoo(root)
    assert len(places) > MANY
    if much:
        monkeypatch.setattr(asking, "TOO_MUCH", 0.5)
    before = descriptors()
    assert await at_once(side, where, places) == await one_by_one(where, places)
    await side.quiet()
    assert descriptors() == before


async def test_names_in_a_directory_that_is_not_there(side: Side, site: tuple[Site, Path]) -> None:
    assert await at_once(side, site[0], [(b"none", b"%d" % number) for number in range(MANY)]) == [NotFound] * MANY


async def test_the_server_is_asked_for_the_directory(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for those names alone that a listing does not answer."""
    asked: list[type] = []
    opening = type(side.client.connection).open_stream

    def watched(connection: Any, first: Any, **options: Any) -> Any:
        asked.append(type(first))
        return opening(connection, first, **options)

    monkeypatch.setattr(type(side.client.connection), "open_stream", watched)
    places = zoo(side.served)
    await at_once(side, RemoteSite(side.client), places)
    assert asked.count(Look) == 1
    assert asked.count(Stat) == 2 + 5  # what can be no name, and what lies elsewhere
    assert List not in asked


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_many_sources_by_themselves(side: Side, direction: str) -> None:
    """Fresh, equal, changed and missing ones, and what stands in their way."""
    source, target = (side.there, side.served) if direction == "up" else (side.served, side.there)
    (source / "s").mkdir()
    (target / "t").mkdir()
    names = list(map(str, range(MANY + SEVERAL)))
    for number, name in enumerate(names):
        (source / "s" / name).write_bytes(content(3000 + number, number))
    (target / "t/0").write_bytes(content(3000, 0))
    os.utime(target / "t/0", ns=(1, (source / "s/0").stat().st_mtime_ns))
    (target / "t/1").write_bytes(b"another")
    (target / "t/2").mkdir()
    (target / "t/3").symlink_to("1")

    def place(here: bool, *parts: str) -> Local | Remote:
        below = source if direction == "up" else target
        if here:
            return Local(str(below.joinpath(*parts)), False)
        return side.client.remote.join(tuple(map(os.fsencode, parts)))

    moving = Transfer(side.client, Options(), Report(side.observe), Run())
    sources = [place(direction == "up", "s", name) for name in (*names, "missing")]
    await moving.run(sources, place(direction == "down", "t"))
    failed = {event.path.rpartition("/")[2]: event.code for event in side.of(FileFailed)}
    assert failed == {"missing": "NOT_FOUND", "2": "IS_A_DIRECTORY"}
    assert len(side.of(FileSkipped)) == 1
    found, expected = inventory(target / "t"), inventory(source / "s")
    del found["2"], expected["2"]
    assert found == expected
