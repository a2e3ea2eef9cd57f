"""A real file system keeps what it was told to keep, whenever the power fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.sim import ext4

if TYPE_CHECKING:
    from pathlib import Path

ASKED = "EXT4_RIG"
"""Set it to have this mount file systems; ``make torture`` looks after every write."""

EVERY = 10


def test_power_cuts_on_a_real_file_system(tmp_path: Path) -> None:
    if ASKED not in os.environ:
        pytest.skip(f"mounts file systems, which has to be asked for: {ASKED}=1")
    if lacks := ext4.missing():
        pytest.skip(f"a real ext4 cannot lose power here: {lacks}")
    states, entries = ext4.power_cuts(tmp_path, every=EVERY)
    assert states >= entries / EVERY
    assert entries > 100
