"""Whichever system call fails, and however: nothing is lost, nothing is left, and the next try succeeds."""

from __future__ import annotations

import pytest

from tests.sim.sweep import FAULTS, OPERATIONS, Fault, Operation, sweep


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_call_fails_once(operation: Operation, fault: Fault) -> None:
    failed = dict(sweep(operation, fault))
    if fault.calls:
        assert set(failed.values()) <= fault.calls
    else:
        assert len(failed) > 5
        assert "openat2" in failed.values() or "openat" in failed.values()


def test_short_reads_and_writes_come_up() -> None:
    """There are operations without one or the other."""
    for name, fewest in (("short read", 20), ("short write", 40)):
        assert sum(len(list(sweep(operation, FAULTS[name]))) for operation in OPERATIONS) >= fewest
