"""What is moved: files and trees of random bytes; and whether all of it has arrived.

Random bytes, because nothing compresses them and no two chunks are alike.  What was received is compared byte by byte
and outside the measured time, because a fast wrong answer is not fast.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from fsmux.cli.measure.processes import Failed

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 4 * 2**20


def random_file(path: Path, size: int) -> Path:
    """Make a file of random bytes."""
    with path.open("wb", buffering=0) as file:
        while size:
            size -= file.write(os.urandom(min(size, _BLOCK)))
    return path


def random_tree(path: Path, files: int, size: int, per_directory: int = 1000) -> Path:
    """Make a tree of ``files`` files of ``size`` random bytes."""
    path.mkdir()
    for number in range(files):
        if number % per_directory == 0:
            directory = path / f"{number // per_directory:04d}"
            directory.mkdir()
        random_file(directory / f"{number:06d}", size)
    return path


def extent(path: Path) -> tuple[int, int]:
    """Bytes and files of a file or a tree."""
    if path.is_file():
        return path.stat().st_size, 1
    sizes = [found.stat().st_size for found in path.rglob("*") if found.is_file()]
    return sum(sizes), len(sizes)


def verify(source: Path, target: Path) -> None:
    """Every file of ``source`` stands under ``target`` byte for byte, and nothing else does; raises Failed."""
    if source.is_file():
        pairs = [(source, target)]
    else:
        names = sorted(found.relative_to(source) for found in source.rglob("*") if found.is_file())
        others = sorted(found.relative_to(target) for found in target.rglob("*") if found.is_file())
        if names != others:
            raise Failed(f"{target} has {len(others)} files, {source} has {len(names)}, or other names")
        pairs = [(source / name, target / name) for name in names]
    for left, right in pairs:
        if not same_bytes(left, right):
            raise Failed(f"{right} differs from {left}")


def same_bytes(left: Path, right: Path) -> bool:
    """Whether two files hold the same bytes; unlike ``filecmp`` it remembers nothing, and it reads large blocks."""
    with left.open("rb", buffering=0) as one, right.open("rb", buffering=0) as other:
        if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
            return False
        while block := one.read(_BLOCK):
            rest = len(block)
            while rest:
                part = other.read(rest)
                if not part or block[len(block) - rest : len(block) - rest + len(part)] != part:
                    return False
                rest -= len(part)
    return True


def remove(path: Path) -> None:
    """Remove a file or a tree, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
