from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

from fsmux.files.root import Root
from fsmux.files.syscalls import Syscalls, real
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    try:
        os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    gc.collect()
    before = descriptors()
    yield
    gc.collect()
    assert descriptors() - before == set()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    path = tmp_path / "top-of-the-root"
    path.mkdir()
    return path


@pytest.fixture
def root(top: Path) -> Iterator[Root]:
    with Root.open(top) as opened:
        yield opened


@pytest.fixture(params=["openat2", "walk"])
def either_root(top: Path, request: pytest.FixtureRequest) -> Iterator[Root]:
    """The root as kernels with and without ``openat2`` resolve it."""
    sys: Syscalls = real if request.param == "openat2" else Faulty(lacks={"openat2", "rename_new"})
    with Root.open(top, sys=sys) as opened:
        yield opened
