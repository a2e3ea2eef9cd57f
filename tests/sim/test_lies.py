"""A device that does not give back what was written to it: with ``--verify disk`` nothing false ever has a name."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.sim.device import Device
from tests.sim.world import World, episode

if TYPE_CHECKING:
    from tests.sim.device import Inode

EPISODES = 60


def test_a_device_that_lies_about_what_it_has() -> None:
    """Its cache shows what was written; the device has something else, in one of three files."""
    told, rng, drop_cache = 0, random.Random(3), Device.drop_cache

    def lie(device: Device, inode: Inode) -> None:
        nonlocal told
        if not inode.pending and inode.stable and rng.random() < 0.3:
            told += 1
            rotten = bytearray(inode.stable)
            rotten[rng.randrange(len(rotten))] ^= 1 << rng.randrange(8)
            inode.stable = bytes(rotten)
        drop_cache(device, inode)

    def prepare(world: World) -> None:
        world.verify = True
        world.draw_tasks()

    healed = 0
    with patch.object(Device, "drop_cache", lie):
        for seed in range(EPISODES):
            report: Any = episode(seed, prepare)
            healed += report.healed
    assert told > EPISODES / 2
    assert healed > EPISODES / 4
