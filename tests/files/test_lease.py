from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from fsmux.errors import Busy
from fsmux.files.lease import Lease

if TYPE_CHECKING:
    from pathlib import Path


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_the_last_user_closes(tmp_path: Path) -> None:
    lease = Lease(_open(tmp_path / "a"))
    with lease.hold() as fd:
        lease.close()
        assert lease.closed
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_nobody_gets_it_after_it_was_closed(tmp_path: Path) -> None:
    lease = Lease(_open(tmp_path / "a"))
    lease.close()
    lease.close()
    with pytest.raises(Busy), lease.hold():
        pass


def test_what_is_to_happen_after_the_close_happens_once_and_after_it(tmp_path: Path) -> None:
    lease = Lease(_open(tmp_path / "a"))
    seen: list[str] = []

    with lease.hold() as fd:
        lease.close(after=lambda: seen.append("closed" if not os.path.exists(f"/proc/self/fd/{fd}") else "open"))
        assert seen == []
    assert seen == ["closed"]


def test_bytes_never_reach_another_file_through_a_reused_number(tmp_path: Path) -> None:
    """A writer that is slow to start, a close, and a file that would get the same number."""
    lease = Lease(_open(tmp_path / "a"))
    holding, closed = threading.Event(), threading.Event()

    def slow_writer() -> None:
        with lease.hold() as fd:
            holding.set()
            closed.wait(10)
            os.pwrite(fd, b"DATA-OF-A", 0)

    thread = threading.Thread(target=slow_writer)
    thread.start()
    holding.wait(10)
    lease.close()
    other = _open(tmp_path / "b")
    closed.set()
    thread.join(10)
    os.close(other)
    assert (tmp_path / "a").read_bytes() == b"DATA-OF-A"
    assert (tmp_path / "b").read_bytes() == b""


def test_a_lease_that_is_forgotten_is_closed_and_reported(tmp_path: Path) -> None:
    lease = Lease(fd := _open(tmp_path / "a"))
    with pytest.warns(ResourceWarning, match="never closed"):
        lease.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_many_threads(tmp_path: Path) -> None:
    lease = Lease(_open(tmp_path / "a"))
    refused = 0
    count = threading.Lock()
    start = threading.Barrier(9)

    def user() -> None:
        nonlocal refused
        start.wait(10)
        for _ in range(300):
            try:
                with lease.hold() as fd:
                    os.fstat(fd)  # EBADF if it was closed under us
            except Busy:
                with count:
                    refused += 1

    threads = [threading.Thread(target=user) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.wait(10)
    lease.close()
    for thread in threads:
        thread.join(10)
    assert lease.users == 0


def test_a_holder_may_bring_in_another_even_while_it_is_being_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    lease = Lease(os.open(tmp_path / "file", os.O_RDONLY))
    with lease.hold() as fd:
        lease.close()
        assert lease.share() == fd
    assert os.pread(fd, 1, 0) == b"x"
    lease.__exit__(None, None, None)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
