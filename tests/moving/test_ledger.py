"""What a transfer keeps of files, and what it reads for that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import xxhash

from fsmux import events
from fsmux.columns import REGULAR, SYMLINK, Act, Group
from fsmux.files.digestfile import Record, make_record
from fsmux.files.root import Root
from fsmux.limits import MIN_CHUNK_SIZE
from fsmux.moving.ledger import Ledger
from fsmux.mux.buffers import anonymous
from fsmux.plan.plan import Plan
from fsmux.transfer.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = MIN_CHUNK_SIZE


def record(path: bytes, size: int = 1, mtime: int = 2) -> Record:
    return Record(tuple(path.split(b"/")), size, mtime, 3, bytes(16))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    with Root.open(tmp_path) as opened:
        yield opened


def listed(tmp_path: Path, **contents: bytes) -> Group:
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    names = sorted(contents)
    facts = [(tmp_path / name).stat() for name in names]
    sizes, mtimes = [one.st_size for one in facts], [one.st_mtime_ns for one in facts]
    return Group((), [os.fsencode(name) for name in names], sizes, mtimes, [REGULAR | 0o644] * len(names))


def test_records_come_back_in_order_and_later_ones_replace() -> None:
    big = make_record((b"a", b"b"), CHUNK + 1, -7, 2**32 - 1, [bytes(16), b"x" * 16])
    ledger = Ledger(CHUNK, [record(b"z"), record(b"a")])
    assert not ledger.changed
    ledger.add(big)
    ledger.add(record(b"z", 9))
    assert list(ledger) == [record(b"a"), big, record(b"z", 9)]
    assert ledger.changed
    assert len(ledger) == 3


def test_a_record_is_of_one_version() -> None:
    ledger = Ledger(CHUNK, [record(b"d/a", 1, 2)])
    assert ledger.has(b"d/a", 1, 2)
    assert not ledger.has(b"d/a", 1, 3)
    assert not ledger.has(b"d/a", 2, 2)
    assert not ledger.has(b"a", 1, 2)


async def test_what_is_up_to_date_and_unknown_is_read(root: Root, tmp_path: Path) -> None:
    group = listed(tmp_path, a=b"aaa", b=b"bb", c=b"c", d=b"d")
    group.names.append(b"link")
    group.sizes.append(0)
    group.mtimes.append(0)
    group.modes.append(SYMLINK | 0o777)
    group.targets.append(b"a")
    known = Record((b"t", b"a"), 3, group.mtimes[0], 7, bytes(16))
    ledger = Ledger(CHUNK, [known])
    notes = ledger.notes(Disk(), root, (), (b"t",), events.ignore)
    adjusted = group.pick([1], Act.ADJUST)
    adjusted.sizes = [0]
    await notes.planned(group, Plan(make=group.pick([3]), adjust=adjusted, current=group.pick([0, 2, 4])))
    assert [one.parts[-1] for one in ledger] == [b"a", b"b", b"c"], "nothing of what is still to come, no link"
    assert next(iter(ledger)) == known, "a record of the same version stays, whatever it says"
    assert ledger.has(b"t/b", 2, group.mtimes[1])
    assert ledger.bytes_read == 3


async def test_what_cannot_be_read_is_said_and_has_no_record(root: Root, tmp_path: Path) -> None:
    group = listed(tmp_path, a=b"aaa", b=b"bb")
    (tmp_path / "a").unlink()
    ledger, told = Ledger(CHUNK), list[events.Event]()
    await ledger.notes(Disk(), root, (), (b"t",), told.append).planned(group, Plan(current=group))
    (warning,) = told
    assert isinstance(warning, events.Warned)
    assert warning.path == "t/a"
    assert "not in the manifest" in warning.message
    assert [one.parts for one in ledger] == [(b"t", b"b")]


def test_of_a_pack_only_what_stands_is_kept(root: Root, tmp_path: Path) -> None:
    group = listed(tmp_path, a=b"aaa", b=b"bb")
    ledger = Ledger(CHUNK)
    notes = ledger.notes(Disk(), root, (), (b"t",), events.ignore)
    assert notes.reader(3)(root, (), [group], anonymous) == b"aaabb"
    notes.stands(3, 0, group, {1})
    (kept,) = ledger
    assert kept == Record((b"t", b"a"), 3, group.mtimes[0], group.crcs[0], xxhash.xxh3_128_digest(b"aaa"))
    assert ledger.bytes_read == 0
