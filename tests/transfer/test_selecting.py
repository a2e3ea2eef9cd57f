"""``--files-from``: the named files and directories move, and nothing beside them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from fsmux.errors import ProtocolError, UsageError
from fsmux.events import FileFailed
from fsmux.moving.account import Account
from fsmux.plan.selection import select
from fsmux.wire.messages import Look, Walk

from .test_delete import Mirror, fill, filters
from .test_trees import inventory

if TYPE_CHECKING:
    from fsmux.events import Summary

    from .kit import Move


class Selected(Mirror):
    async def __call__(self, *names: str, source: str = "s", **options: Any) -> Summary:
        selection = select([os.fsencode(name) for name in names])
        return await super().__call__(source, **{"delete": False, "selection": selection} | options)

    @property
    def failed(self) -> dict[str, str]:
        return {event.path: event.code for event in self.side.of(FileFailed)}


@pytest.fixture
def selected(move: Move) -> Selected:
    return Selected(move.side, move.direction)


async def test_names_move_with_what_is_on_the_way_and_directories_with_their_contents(selected: Selected) -> None:
    source = fill(
        selected.source / "s", "top", "other", "a/b/c", "a/b/other", "a/other", "whole/x", "whole/deep/y", "z/in", "q/r"
    )
    (source / "a").chmod(0o711)
    for name in ("a", "a/b", "whole"):
        os.utime(source / name, ns=(1, 10**9 + len(name)))
    (source / "link").symlink_to("top")
    (source / "whole/empty").mkdir()
    summary = await selected("whole/", "/top", "a/b/c", "./link", "z", "a//b/c", "whole/deep/y")
    expected = inventory(source)
    left_out = {"other", "a/b/other", "a/other", "q", "q/r"}
    found = inventory(selected.target)
    assert found == {name: kept for name, kept in expected.items() if name not in left_out}
    assert (summary.files, summary.failed) == (5, 0)
    assert (await selected("whole", "top", "a/b/c", "link", "z")).files == 0


async def test_all_of_it(selected: Selected) -> None:
    fill(selected.source / "s", "a", "d/b")
    await selected("d/b", ".")
    assert inventory(selected.target) == inventory(selected.source / "s")


async def test_nothing_at_all(selected: Selected) -> None:
    fill(selected.source / "s", "a", "d/b")
    assert (await selected()).files == 0
    assert not inventory(selected.target)


async def test_what_is_missing_fails_alone(selected: Selected) -> None:
    source = fill(selected.source / "s", "a", "d/b", "file")
    (source / "link").symlink_to("d")
    summary = await selected("a", "gone", "d/gone", "no/where/at", "no/where/else", "file/x", "link/b", "d/b")
    missing = ("gone", "d/gone", "no/where/at", "no/where/else", "file/x", "link/b")
    assert selected.failed == dict.fromkeys(missing, "NOT_FOUND")
    assert (summary.files, summary.failed) == (2, 6)
    assert sorted(inventory(selected.target)) == ["a", "d", "d/b"]


async def test_filters_hold_for_names_that_are_given(selected: Selected) -> None:
    fill(selected.source / "s", "a", "b.o", "d/c.o", "d/e", "x/y")
    await selected("a", "b.o", "d", "x/y", "gone.o", filters=filters("- *.o", "- /x/"))
    assert selected.failed == {}
    assert sorted(inventory(selected.target)) == ["a", "d", "d/e"]


async def test_a_dry_run_says_the_same(selected: Selected) -> None:
    fill(selected.source / "s", "a", "d/b", "d/c", "e/f")
    names = ("a", "d/b", "e", "gone")
    dry = await selected(*names, dry_run=True)
    would = {path for action, path in selected.would if action == "send"}
    real = await selected(*names)
    assert would == {name for name, kept in inventory(selected.target).items() if kept[-1] is not None}
    assert (dry.files, dry.failed) == (real.files, real.failed) == (3, 1)


async def test_pages_of_large_directories(selected: Selected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.files.listing.GROUP_ENTRIES", 3)
    for number in range(40):
        fill(selected.source / "s", f"{number:03d}", f"d/{number:03d}")
    names = ["001", "020", "021", "039", "d/000", "d/017"]
    assert (await selected(*names)).files == 6
    assert sorted(set(inventory(selected.target)) - {"d"}) == names


async def test_many_names_cost_no_round_trip_each(selected: Selected, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(selected.source / "s", *(f"{number % 60}/{number}" for number in range(600)), *(f"w{n}/f" for n in range(40)))
    asked: list[Any] = []
    connection = selected.side.client.connection
    opened = connection.open_stream

    def noting(request: Any, **settings: Any) -> Any:
        asked.append(request)
        return opened(request, **settings)

    monkeypatch.setattr(connection, "open_stream", noting)
    names = [f"{number % 60}/{number}" for number in range(0, 600, 2)] + [f"w{number}" for number in range(40)]
    assert (await selected(*names)).files == 340
    walks = [one for one in asked if isinstance(one, Walk)]
    looks = [one for one in asked if isinstance(one, Look)]
    assert len(walks) == (40 if selected.direction == "down" else 0)
    assert len(looks) <= 2
    assert len(asked) - len(walks) < 10


async def test_what_ends_it_midway_leaves_nothing_open(selected: Selected, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(selected.source / "s", *(f"w{number:02d}/{file}" for number in range(30) for file in range(20)))

    def fails(*_: Any) -> None:
        raise ProtocolError("enough")

    monkeypatch.setattr(Account, "take", fails)
    with pytest.raises(ProtocolError, match="enough"):
        await selected(*(f"w{number:02d}" for number in range(30)))
    await selected.side.idle()


async def test_it_needs_one_directory_and_nothing_to_delete(selected: Selected) -> None:
    fill(selected.source, "file", "s/a")
    with pytest.raises(UsageError, match="--files-from does not go with --delete"):
        await selected("a", delete=True)
    with pytest.raises(UsageError, match="name one directory"):
        await Mirror.__call__(selected, "s", "file", delete=False, selection=select([b"a"]))
