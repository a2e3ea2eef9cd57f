"""The size of DATA frames, against a link of a steady rate."""

from __future__ import annotations

import pytest

from fsmux.limits import MAX_DATA_PAYLOAD, MIB, MIN_FRAME
from fsmux.mux.outbox import Outbox
from fsmux.mux.sizing import FrameSizer


@pytest.mark.parametrize(
    ("rate", "expected"), [(1 * MIB, MIN_FRAME), (100 * MIB, 512 * 1024), (10**10, MAX_DATA_PAYLOAD)]
)
def test_frames_take_about_five_milliseconds_of_the_link(rate: int, expected: int) -> None:
    box = Outbox(0, lambda: None, lambda: None)
    sizer = FrameSizer(box, 0.005)
    now = 0.0
    sizer.resume(now)
    for _ in range(100):
        now += box.frame_size / rate
        sizer.moved(box.frame_size, now)
    assert expected / 2 <= box.frame_size <= expected * 2
