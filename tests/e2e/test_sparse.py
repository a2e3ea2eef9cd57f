"""Files with holes: both ways, whole, cut short and edited. Holes stay holes, and nothing of them travels."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks.processes import FSMUX, environment
from fsmux.limits import MIB

from .kit import DEADLINE, Url, good
from .test_resume import end, start_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from benchmarks.relay import Relay

KIB = 1024
SMALL = 64 * KIB
"""Bytes more than its data that may be sent of a file."""

Runs = list[tuple[int, int]]
"""Offset and length of data; the rest are holes."""


def make(path: Path, size: int, runs: Iterable[tuple[int, int]]) -> Path:
    """A file that is data there and a hole everywhere else."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in runs:
            os.pwrite(file.fileno(), os.urandom(length), offset)
        os.fsync(file.fileno())  # blocks are counted when they are there
    return path


def runs_of(path: Path) -> Runs:
    """Where its data is."""
    found: Runs = []
    with path.open("rb") as file:
        fd, at, size = file.fileno(), 0, path.stat().st_size
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, at - start))
    return found


def assert_alike(copy: Path, original: Path) -> None:
    """The same bytes in the same places, the same holes, and no more room taken."""
    assert copy.stat().st_size == original.stat().st_size
    assert runs_of(copy) == runs_of(original)
    with copy.open("rb") as one, original.open("rb") as other:
        for offset, length in runs_of(original):
            assert os.pread(one.fileno(), length, offset) == os.pread(other.fileno(), length, offset), offset
    assert copy.stat().st_blocks <= original.stat().st_blocks + 16  # a tree of its extents may take blocks, too


def sizes(runs: Iterable[tuple[int, int]]) -> int:
    return sum(length for _, length in runs)


@pytest.fixture(params=["up", "down"])
def there(request: pytest.FixtureRequest, tmp_path: Path, served: Path) -> Path:
    """The directory of the source: here for an upload, at the server for a download."""
    if request.param == "down":
        return served
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
def target(there: Path, tmp_path: Path, served: Path) -> Path:
    path = tmp_path / "taken" if there == served else served
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def words(there: Path, target: Path, served: Path) -> Callable[[Url, str], list[str]]:
    """The arguments that take a file from ``there`` to ``target``."""

    def words(url: Url, name: str) -> list[str]:
        ends = [url(name), f"{target}/"] if there == served else [str(there / name), url()]
        return ["transfer", "--json", *ends]

    return words


SHAPES: dict[str, tuple[int, Runs]] = {
    "at the start": (8 * MIB, [(4 * MIB, 4 * MIB)]),
    "in the middle": (8 * MIB + 4_321, [(0, 2 * MIB), (6 * MIB, 2 * MIB + 4_321)]),
    "at the end": (8 * MIB + 1, [(0, 4 * MIB)]),
    "within one chunk": (3 * MIB, [(1 * MIB, 8 * KIB)]),
    "nothing else": (16 * MIB, []),
    "data and holes by turns": (6 * MIB, [(at, 4 * KIB) for at in range(0, 6 * MIB, 8 * KIB)]),
    "long and short by turns": (12 * MIB, [run for at in range(0, 12 * MIB, 512 * KIB)
                                           for run in ((at, 4 * KIB), (at + 128 * KIB, 256 * KIB))]),
    "across chunks": (20 * MIB, [(3 * MIB, 2 * MIB), (11 * MIB + 4 * KIB, 5 * MIB)]),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_holes_stay_holes_and_are_not_sent(
    shape: str, there: Path, target: Path, url: Url, words: Callable[[Url, str], list[str]]
) -> None:
    size, runs = SHAPES[shape]
    original = make(there / "f", size, runs)
    done = good(*words(url, "f")).summary
    assert_alike(target / "f", original)
    assert done["bytes"] == size
    assert done["bytes_sent"] == sizes(runs_of(original))


SMALL_SHAPES: dict[str, tuple[int, Runs]] = {
    "all hole": (64 * KIB, []),
    "few bytes of a hole": (100, []),
    "at the start": (200 * KIB + 1, [(196 * KIB, 4 * KIB + 1)]),
    "in the middle": (40_000, [(0, 100), (36 * KIB, 3_136)]),
    "at the end": (256 * KIB, [(0, 4 * KIB)]),
    "less than a block at the end": (5_000, [(0, 4 * KIB)]),
    "by turns": (130_001, [(at, 4 * KIB) for at in range(0, 128 * KIB, 8 * KIB)]),
    "none": (30_000, [(0, 30_000)]),
}


@pytest.mark.parametrize("durability", ["none", "batch", "file"])
def test_small_files_keep_their_holes_in_packs(
    durability: str, tmp_path: Path, there: Path, target: Path, url: Url, words: Callable[[Url, str], list[str]]
) -> None:
    (there / "tree").mkdir()
    for name, (size, runs) in SMALL_SHAPES.items():
        make(there / "tree" / name, size, runs)
    (there / "tree" / "zeros").write_bytes(bytes(50_000))
    dry = good(*words(url, "tree"), "--dry-run").summary
    assert dry["bytes"] == 50_000 + sum(size for size, _ in SMALL_SHAPES.values())
    command = [*words(url, "tree"), "--durability", durability, "--manifest", str(tmp_path / "sums")]
    done = good(*command).summary
    assert done["bytes"] == dry["bytes"]
    for original in (there / "tree").iterdir():
        copy = target / "tree" / original.name
        assert_alike(copy, original)
        assert copy.stat().st_blocks <= original.stat().st_blocks, original.name
    good("verify", str(target), "--manifest", str(tmp_path / "sums"))
    assert good(*command).summary["skipped"] == len(SMALL_SHAPES) + 1


def test_a_terabyte_of_nothing_takes_a_moment(
    there: Path, target: Path, url: Url, words: Callable[[Url, str], list[str]]
) -> None:
    original = make(there / "f", 2**40, [(2**39 + 8 * KIB, 8 * KIB)])
    done = good(*words(url, "f")).summary
    assert_alike(target / "f", original)
    assert done["bytes_sent"] <= 16 * KIB
    again = good(*words(url, "f")).summary
    assert (again["skipped"], again["bytes_sent"]) == (1, 0)


def test_scattered_data_costs_what_it_is(
    there: Path, target: Path, url: Url, words: Callable[[Url, str], list[str]]
) -> None:
    original = make(there / "f", 100 * 2**30, [(at * 40 * MIB, 4 * KIB) for at in range(2560)])
    done = good(*words(url, "f")).summary
    assert_alike(target / "f", original)
    assert done["bytes_sent"] == 10 * MIB


@pytest.mark.parametrize("connections", ["1", "3"])
def test_over_several_connections(
    connections: str, there: Path, target: Path, url: Url, words: Callable[[Url, str], list[str]]
) -> None:
    runs = [(at * MIB + 12 * KIB, 40 * KIB + (at % 7) * 40 * KIB) for at in range(0, 160, 3)]
    original = make(there / "f", 160 * MIB, runs)
    done = good(*words(url, "f"), "-j", connections).summary
    assert_alike(target / "f", original)
    assert done["bytes_sent"] == sizes(runs_of(original))


def test_one_that_was_cut_short_goes_on(
    there: Path, target: Path, relay: Relay, words: Callable[[Url, str], list[str]], served: Path
) -> None:
    runs = [(at * MIB, 640 * KIB) for at in range(24)]
    original = make(there / "f", 26 * MIB, runs)
    url = Url(relay.address)
    command = [*words(url, "f"), "--chunk-size", "1MiB"]
    process = start_until(relay, "down" if there == served else "up", 8 * MIB, *command, into=target)
    end(process, relay, signal.SIGKILL)
    done = good(*command).summary
    assert_alike(target / "f", original)
    # Or nothing at all: what was between the two when one was killed may have been all the rest.
    assert done["bytes_sent"] < sum(length for _, length in runs)
    assert done["bytes_sent"] <= sizes(runs) - 3 * 640 * KIB  # two of the chunks on record may be the holes at the end


def test_what_became_a_hole_is_one_at_the_destination(
    there: Path, target: Path, url: Url, words: Callable[[Url, str], list[str]]
) -> None:
    make(there / "f", 24 * MIB, [(0, 24 * MIB)])
    good(*words(url, "f"))
    with (there / "f").open("r+b") as file:
        kept = os.pread(file.fileno(), 24 * MIB, 0)
        file.truncate(0)
        file.truncate(24 * MIB)
        for offset, length in [(0, 4 * MIB), (8 * MIB, 64 * KIB), (20 * MIB, 4 * MIB)]:
            os.pwrite(file.fileno(), kept[offset : offset + length], offset)
        os.fsync(file.fileno())
    done = good(*words(url, "f")).summary
    assert_alike(target / "f", there / "f")
    assert done["bytes_sent"] <= 64 * KIB
    with (there / "f").open("r+b") as file:  # and a version of it that keeps most of its holes
        os.pwrite(file.fileno(), b"new", 21 * MIB)
        os.fsync(file.fileno())
    done = good(*words(url, "f")).summary
    assert_alike(target / "f", there / "f")
    assert done["bytes_sent"] == 4 * MIB


@pytest.mark.parametrize("connections", ["1", "3"])
def test_a_manifest_agrees(
    connections: str, tmp_path: Path, there: Path, target: Path, url: Url, words: Callable[[Url, str], list[str]]
) -> None:
    original = make(there / "f", 80 * MIB + 4 * KIB, [(5 * MIB, 2 * MIB), (40 * MIB, 4 * KIB), (48 * MIB, 8 * MIB)])
    done = good(*words(url, "f"), "--manifest", str(tmp_path / "sums"), "-j", connections).summary
    assert done["bytes_sent"] == sizes(runs_of(original))
    assert_alike(target / "f", original)
    good("verify", str(target), "--manifest", str(tmp_path / "sums"))


def test_to_a_pipe_holes_are_zeros(served: Path, url: Url, tmp_path: Path) -> None:
    original = make(served / "f", 24 * MIB + 5, SHAPES["long and short by turns"][1])
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.run(
            [*FSMUX, "transfer", url("f"), "-"], stdout=out, env={**os.environ, **environment()}, timeout=DEADLINE
        )
    assert process.returncode == 0
    assert (tmp_path / "out").read_bytes() == original.read_bytes()
