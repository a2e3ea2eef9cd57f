"""Groups of small trees, as packs bring them, and whether they stand."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from zlib_ng.zlib_ng import crc32

from fsmux.columns import DIRECTORY, REGULAR, Act, Group, itself
from fsmux.files.contents import Contents
from fsmux.files.whole import WORTH_A_DIRECTORY

if TYPE_CHECKING:
    from pathlib import Path

    from fsmux.files.unpacking import Unpacker

NAMES = [b"%02d" % number for number in range(WORTH_A_DIRECTORY)]
CONTENTS = b"".join(name * 100 for name in NAMES)


def made(*directories: bytes, mode: int = 0o755) -> Group:
    count = len(directories)
    return Group((), list(directories), [0] * count, [1] * count, [DIRECTORY | mode] * count, crcs=[0] * count)


def files(directory: bytes = b"d") -> Group:
    count = len(NAMES)
    crcs = [crc32(name * 100) for name in NAMES]
    return Group((directory,), list(NAMES), [200] * count, [7] * count, [REGULAR | 0o640] * count, crcs=crcs)


def write(unpacker: Unpacker, number: int, *groups: Group, contents: bytes = CONTENTS) -> None:
    unpacker.write(number, list(groups), Contents([memoryview(contents)]))


def number_of(path: Path) -> int:
    return path.stat().st_ino


def stands(path: Path) -> bool:
    return [(path / os.fsdecode(name)).read_bytes() for name in NAMES] == [name * 100 for name in NAMES]


def subtree(times: int = 5) -> list[Group]:
    """``d`` with files, and directories in it and below these; all of them are finished, innermost first."""
    below = made(b"e", b"empty")
    below.directory = (b"d",)
    groups = [below, files(), made(b"f"), files(), files()]
    groups[2].directory = (b"d", b"e")
    groups[3].directory, groups[4].directory = (b"d", b"e"), (b"d", b"e", b"f")
    inner = [(b"d", b"e", b"f"), (b"d", b"e"), (b"d", b"empty"), (b"d",)]
    return [*groups, *[itself(parts, times, DIRECTORY | 0o750, Act.ADJUST) for parts in inner]]


def is_subtree(top: Path, times: int = 5, mode: int = 0o750) -> bool:
    inner = [top / "d", top / "d/e", top / "d/e/f"]
    facts = [path.stat() for path in (*inner, top / "d/empty")]
    kept = {(one.st_mtime_ns, stat.S_IMODE(one.st_mode)) for one in facts}
    return all(map(stands, inner)) and kept == {(times, mode)}
