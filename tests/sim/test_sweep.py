"""Whichever system call fails, and however: nothing is lost, nothing is left, and the next try succeeds."""

from __future__ import annotations

import pytest

from tests.sim.sweep import FAULTS, OPERATIONS, Operation, sweep


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_call_fails_once(operation: Operation, fault: int) -> None:
    failed = dict(sweep(operation, fault))
    assert len(failed) > 5
    assert "openat2" in failed.values() or "openat" in failed.values()
