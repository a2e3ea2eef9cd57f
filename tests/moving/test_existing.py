"""What stands at the destination, put beside the source: what is asked for, and what need not be."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fsmux.columns import Group
from fsmux.errors import AccessError, NotFound
from fsmux.moving.existing import Existing

if TYPE_CHECKING:
    from fsmux.records import Parts


class Looking:
    """Knows what stands in some directories, in pages; no others are there."""

    def __init__(self, there: dict[Parts, list[Group]]) -> None:
        self.there = there
        self.asked: list[Parts] = []
        self._answers: deque[Group] = deque()

    async def ask(self, directories: list[Parts]) -> None:
        self.asked += directories
        for parts in directories:
            self._answers += self.there.get(parts, [Group(parts, error=NotFound("it is not there"))])

    async def next_group(self) -> Group:
        return self._answers.popleft()


def files(parts: Parts, *names: bytes, more: bool = False) -> Group:
    return Group(parts, list(names), [1] * len(names), [0] * len(names), [0o100644] * len(names), more=more)


async def beside(existing: Existing, *directories: Parts) -> list[list[bytes] | None]:
    found = [await existing.beside(files(parts, b"a")) for parts in directories]
    return [None if group is None else group.names for group in found]


async def test_what_is_in_a_directory_that_is_not_there_is_not_asked_for() -> None:
    looking = Looking({(): [files((), b"a", b"z")], (b"z",): [files((b"z",), b"a")]})
    existing = Existing(looking)
    await existing.ask([(), (b"new",)])
    assert await beside(existing, (), (b"new",)) == [[b"a", b"z"], None]
    await existing.ask([(b"new", b"deep"), (b"new", b"deep", b"er"), (b"newer",), (b"z",)])
    assert looking.asked == [(), (b"new",), (b"newer",), (b"z",)]
    found = await beside(existing, (b"new", b"deep"), (b"new", b"deep", b"er"), (b"newer",), (b"z",))
    assert found == [None, None, None, [b"a"]]


def directories(parts: Parts, *names: bytes, more: bool = False) -> Group:
    return Group(parts, list(names), [0] * len(names), [0] * len(names), [0o040755] * len(names), more=more)


async def test_what_its_directory_has_not_is_not_asked_for_even_if_it_is_made_meanwhile() -> None:
    looking = Looking({(): [directories((), b"b", b"x", b"z")]})
    existing = Existing(looking)
    await existing.ask([(), (b"a",)])
    for group in (directories((), b"a", b"b", b"c", more=True), directories((), b"d", b"z")):
        assert await existing.beside(group) is not None
    for parts in ((b"b",), (b"c",), (b"c", b"e"), (b"d",), (b"d", b"f"), (b"z",)):
        looking.there[parts] = [directories(parts, b"k")]
    looking.there[(b"a",)] = [directories((b"a",), b"k")]  # asked for before it was known to be missing
    assert await existing.beside(directories((b"a",), b"l")) is None
    await existing.ask([(b"a", b"l"), (b"b",), (b"c",), (b"c", b"e"), (b"d",), (b"d", b"f"), (b"z",)])
    assert looking.asked == [(), (b"a",), (b"b",), (b"z",)]
    assert await beside(existing, (b"b",), (b"c",), (b"c", b"e")) == [[b"k"], None, None]
    assert await beside(existing, (b"d",), (b"d", b"f"), (b"z",)) == [None, None, [b"k"]]


async def test_a_name_of_a_directory_that_stands_for_something_else_is_asked_for() -> None:
    looking = Looking({(): [files((), b"a")]})
    existing = Existing(looking)
    await existing.ask([()])
    assert await existing.beside(directories((), b"a", b"b")) is not None
    await existing.ask([(b"a",), (b"b",)])
    assert looking.asked == [(), (b"a",)]


async def test_pages_of_the_directory_before_do_not_stand_in_one_that_was_not_asked_for() -> None:
    pages = [files((b"b",), b"a", b"b", more=True), files((b"b",), b"c")]
    existing = Existing(Looking({(b"b",): pages}))
    await existing.ask([(b"a",), (b"b",)])
    assert await beside(existing, (b"a",)) == [None]
    await existing.ask([(b"a", b"below")])  # by somebody who comes back to it
    group = await existing.beside(files((b"b",), b"a", more=True))
    assert group is not None
    assert group.names == [b"a"]
    assert await existing.beside(files((b"a", b"below"), b"c")) is None


async def test_a_directory_that_cannot_be_read_is_not_one_that_is_not_there() -> None:
    refused = Group((b"a",), error=AccessError("no"))
    looking = Looking({(b"a",): [refused], (b"a", b"b"): [files((b"a", b"b"), b"x")]})
    existing = Existing(looking)
    await existing.ask([(b"a",)])
    group = await existing.beside(files((b"a",), b"x"))
    assert group is not None
    assert isinstance(group.error, AccessError)
    await existing.ask([(b"a", b"b")])
    assert await beside(existing, (b"a", b"b")) == [[b"x"]]


async def test_nothing_is_asked_where_nothing_stands() -> None:
    existing = Existing(None)
    await existing.ask([(), (b"a",)])
    assert await beside(existing, (), (b"a",)) == [None, None]
