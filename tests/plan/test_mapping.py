"""rsync's rule of the trailing slash, and its company."""

from __future__ import annotations

import pytest

from fsmux.errors import FsmuxError, NotADirectory, UsageError
from fsmux.plan.mapping import Origin, Target, map_sources
from fsmux.records import Kind

F, D, L = Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK
FILE = Origin("file", b"file", F)
LINK = Origin("link", b"link", L)
BY_NAME = Origin("dir", b"dir", D)
CONTENTS = Origin("dir/", b"dir", D, contents=True)


@pytest.mark.parametrize(
    ("origin", "kind", "slash", "suffix"),
    [
        (FILE, None, False, ()),
        (FILE, None, True, (b"file",)),
        (FILE, F, False, ()),
        (FILE, D, False, (b"file",)),
        (LINK, D, False, (b"link",)),
        (LINK, L, False, ()),
        (BY_NAME, None, False, (b"dir",)),
        (BY_NAME, D, False, (b"dir",)),
        (BY_NAME, D, True, (b"dir",)),
        (CONTENTS, None, False, ()),
        (CONTENTS, D, True, ()),
    ],
)
def test_one_source(origin: Origin, kind: Kind | None, slash: bool, suffix: tuple[bytes, ...]) -> None:
    assert [mapped.suffix for mapped in map_sources([origin], Target("dst", kind, slash))] == [suffix]


@pytest.mark.parametrize("kind", [None, D])
def test_several_sources_go_inside(kind: Kind | None) -> None:
    mapped = map_sources([FILE, BY_NAME, CONTENTS, CONTENTS], Target("dst", kind))
    assert [m.suffix for m in mapped] == [(b"file",), (b"dir",), (), ()]


@pytest.mark.parametrize(
    ("origins", "target", "error", "says"),
    [
        ([FILE, LINK], Target("dst", F), UsageError, "several sources"),
        ([FILE], Target("dst", F, True), NotADirectory, "without the slash"),
        ([BY_NAME], Target("dst", F), NotADirectory, "cannot become"),
        ([CONTENTS], Target("dst", L), NotADirectory, "cannot become"),
        ([Origin("file/", b"file", F, contents=True)], Target("dst", D), NotADirectory, "file/"),
        ([FILE, Origin("x/file", b"file", F)], Target("dst", D), UsageError, "both become file"),
        ([BY_NAME, Origin("x/dir", b"dir", D)], Target("dst", D), UsageError, "both become dir"),
    ],
)
def test_what_is_refused(origins: list[Origin], target: Target, error: type[FsmuxError], says: str) -> None:
    with pytest.raises(error, match=says):
        map_sources(origins, target)


def test_the_mapping_can_be_shown() -> None:
    target = Target("host:dst/", D, True)
    lines = [mapped.describe(target) for mapped in map_sources([FILE, BY_NAME, CONTENTS], target)]
    assert lines == ["file -> host:dst/file", "dir -> host:dst/dir/", "dir/ -> host:dst/"]


def test_one_that_is_left_of_several_needs_a_directory_as_they_do() -> None:
    left = [Origin("a", b"a", Kind.FILE)]
    (mapped,) = map_sources(left, Target("new", None), several=True)
    assert mapped.suffix == (b"a",)
    with pytest.raises(UsageError, match="several sources need one"):
        map_sources(left, Target("file", Kind.FILE), several=True)
