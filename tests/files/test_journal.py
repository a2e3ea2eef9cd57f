from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.files import journal
from fsmux.files.journal import RECORD, Header, Journal, Log, Type, parse
from fsmux.files.lease import Lease
from fsmux.files.syscalls import real
from fsmux.limits import MIN_CHUNK_SIZE
from fsmux.records import Identity
from tests.files.faults import Faulty

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNKS = 40
HEADER = Header(
    Identity(CHUNKS * MIN_CHUNK_SIZE - 5, 1234567890123456789, b"t" * 16), MIN_CHUNK_SIZE, 7, 99, b"o" * 16,
    b"some\0where", b"e" * 16,
)  # fmt: skip


def _new(path: Path) -> Journal:
    return Journal(real, Lease(os.open(path, os.O_RDWR | os.O_CREAT)))


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[bytes, list[dict[int, int]]]:
    """A journal's bytes, and what it held after each record."""
    kept = _new(tmp_path / "journal")
    kept.begin(HEADER)
    held: dict[int, int] = {}
    states = [dict(held)]
    for step in range(12):
        kept.append(Type.RECEIVED, step, 1000 + step)
        held[step] = 1000 + step
        states.append(dict(held))
        if step == 5:
            kept.append(Type.DURABLE, kept.count)
            states.append(dict(held))
        if step == 8:
            kept.append(Type.INVALID, 7)
            del held[7]
            states.append(dict(held))
    kept.flush()
    kept.close()
    return (tmp_path / "journal").read_bytes(), states


def _claims(log: Log) -> dict[int, int]:
    return {index: crc for index, (crc, _) in log.held.items()}


def test_what_was_written_is_read(recorded: tuple[bytes, list[dict[int, int]]]) -> None:
    data, states = recorded
    log = parse(data)
    assert log is not None
    assert log.header == HEADER
    assert _claims(log) == states[-1]
    assert log.end == len(data)
    assert [index for index in log.held if log.is_durable(index)] == [0, 1, 2, 3, 4, 5]


def test_cut_at_every_byte(recorded: tuple[bytes, list[dict[int, int]]]) -> None:
    data, states = recorded
    header = len(HEADER.encode())
    for length in range(len(data)):
        log = parse(data[:length])
        if length < header:
            assert log is None
            continue
        assert log is not None
        assert log.count == (length - header) // RECORD
        assert _claims(log) == states[log.count]


def test_every_bit_flipped(recorded: tuple[bytes, list[dict[int, int]]]) -> None:
    data, states = recorded
    header = len(HEADER.encode())
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            log = parse(broken)
            if position < header:
                assert log is None, position
            else:
                assert log is not None
                assert log.count == (position - header) // RECORD
                assert _claims(log) == states[log.count]


def test_records_cannot_be_moved_removed_or_taken_from_another_journal(
    recorded: tuple[bytes, list[dict[int, int]]],
) -> None:
    data, _ = recorded
    header = len(HEADER.encode())
    records = [data[at : at + RECORD] for at in range(header, len(data), RECORD)]
    for order, sound in (
        (records[1:], 0),
        (records[:3] + records[4:], 3),
        ([*records[:2], records[3], records[2]], 2),
        ([*records[:4], records[3]], 4),
    ):
        log = parse(data[:header] + b"".join(order))
        assert log is not None
        assert log.count == sound
    other = Header(
        HEADER.identity, HEADER.chunk_size, HEADER.device, HEADER.inode, HEADER.owner, HEADER.destination, b"f" * 16
    )
    log = parse(other.encode() + b"".join(records))
    assert log is not None
    assert log.count == 0


@given(st.binary(max_size=400))
def test_any_bytes_are_a_journal_or_none(data: bytes) -> None:
    parse(data)


@given(st.binary(max_size=200))
def test_any_tail_adds_nothing(tail: bytes) -> None:
    log = parse(HEADER.encode() + tail)
    assert log is not None
    assert log.held == {}


def _forged(build: Callable[[], Header]) -> Log | None:
    return parse(build().encode())


@pytest.mark.parametrize("chunk_size", [0, 1, 3 * MIN_CHUNK_SIZE, MIN_CHUNK_SIZE // 2, 2**31])
def test_a_forged_header_with_a_right_check_is_no_journal(chunk_size: int) -> None:
    forged = Header(HEADER.identity, chunk_size, 1, 1, b"o" * 16, b"x", b"e" * 16)
    assert parse(forged.encode()) is None


@pytest.mark.parametrize("size", [2**62 + 1, 2**60, 2**63])
def test_a_forged_size_is_no_journal(size: int) -> None:
    forged = Header(Identity(size, 1, b""), MIN_CHUNK_SIZE, 1, 1, b"o" * 16, b"x", b"e" * 16)
    assert parse(forged.encode()) is None


def test_revoke_takes_durable_back(tmp_path: Path) -> None:
    kept = _new(tmp_path / "journal")
    kept.begin(HEADER)
    kept.append(Type.RECEIVED, 1, 11)
    kept.append(Type.DURABLE, kept.count)
    kept.append(Type.REVOKE)
    kept.flush()
    log = kept.load()
    kept.close()
    assert log is not None
    assert log.held == {1: (11, 0)}
    assert not log.is_durable(1)


def test_a_chunk_that_was_received_again_is_durable_only_anew(tmp_path: Path) -> None:
    kept = _new(tmp_path / "journal")
    kept.begin(HEADER)
    kept.append(Type.RECEIVED, 1, 11)
    kept.append(Type.DURABLE, kept.count)
    kept.append(Type.INVALID, 1)
    kept.append(Type.RECEIVED, 1, 12)
    kept.flush()
    log = kept.load()
    kept.close()
    assert log is not None
    assert log.held == {1: (12, 3)}
    assert not log.is_durable(1)


def test_going_on_behind_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept = _new(path)
    kept.begin(HEADER)
    kept.append(Type.RECEIVED, 1, 11)
    kept.flush()
    kept.close()
    with path.open("ab") as file:
        file.write(b"torn")
    kept = _new(path)
    log = kept.load()
    assert log is not None
    kept.resume(log)
    kept.append(Type.RECEIVED, 2, 22)
    kept.flush()
    kept.close()
    again = parse(path.read_bytes())
    assert again is not None
    assert _claims(again) == {1: 11, 2: 22}


def test_a_write_that_failed_is_made_again_in_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    sys = Faulty(2, only={"pwritev"}, short=10)
    kept = Journal(sys, Lease(os.open(path, os.O_RDWR | os.O_CREAT), sys))
    sys.short = 0
    kept.begin(HEADER)
    kept.append(Type.RECEIVED, 1, 11)
    with pytest.raises(OSError, match="Input/output"):
        kept.flush()
    kept.append(Type.RECEIVED, 2, 22)
    sys.short = 10
    kept.flush()
    assert not kept.pending
    kept.close()
    log = parse(path.read_bytes())
    assert log is not None
    assert _claims(log) == {1: 11, 2: 22}


def test_all_buffered_records_are_one_write(tmp_path: Path) -> None:
    sys = Faulty()
    kept = Journal(sys, Lease(os.open(tmp_path / "journal", os.O_RDWR | os.O_CREAT), sys))
    kept.begin(HEADER)
    sys.calls.clear()
    for index in range(CHUNKS):
        kept.append(Type.RECEIVED, index, index)
    assert sys.calls == []
    kept.flush()
    kept.flush()
    assert sys.calls == ["pwritev"]
    kept.close()


def test_the_limit_on_what_is_read() -> None:
    assert journal.MAX_JOURNAL < 128 * 2**20
