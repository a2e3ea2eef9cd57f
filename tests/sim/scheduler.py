"""Trio under a seed: the order of tasks, the clock, and what would be worker threads.

Theory: Trio has a switch, made for Hypothesis, by which it sorts the tasks that are ready and shuffles them with its
own random numbers; these can be seeded.  With a clock that jumps when everybody waits, with all waiting made of virtual
time, and with the work of threads done in between by the task that asked for it, nothing is left to chance.  The switch
is private to Trio: :func:`simulate` fails if it is not there, and each seed is run twice to see that it still works.
"""

from __future__ import annotations

import gc
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOP_SECONDS: Final = 0.002
"""Virtual seconds that work in a thread takes, at most, before and after it is done."""


LOOK_SECONDS: Final = 1e-8
"""Virtual seconds that a look at the clock takes. With none, whoever waits for a moment that rounding has put a little
before itself would look for ever."""


def creeping_clock() -> MockClock:
    """A clock that jumps when everybody waits, and creeps. (It is patched because it refuses to be a base class.)"""
    clock = MockClock(autojump_threshold=0)
    look = clock.current_time

    def current_time() -> float:
        clock.jump(LOOK_SECONDS)
        return look()

    clock.current_time = current_time  # type: ignore[method-assign]
    return clock


class Scheduler:
    """Virtual time and seeded chance, for one run."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = creeping_clock()

    def now(self) -> float:
        return self.clock.current_time()

    async def in_thread(
        self, fn: Callable[..., Any], *args: Any, limiter: trio.CapacityLimiter, abandon_on_cancel: bool = False
    ) -> Any:
        """In place of ``trio.to_thread.run_sync``: the caller waits as long, and cancels as little."""
        await trio.lowlevel.checkpoint_if_cancelled()
        async with limiter:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.rng.random() * HOP_SECONDS)
                try:
                    return fn(*args)
                finally:
                    await trio.sleep(self.rng.random() * HOP_SECONDS)


def simulate(seed: int, main: Callable[[Scheduler], Awaitable[Any]]) -> Any:
    """Run ``main`` in a Trio loop of its own in which everything follows from ``seed``."""
    scheduler = Scheduler(seed)
    loop = trio._core._run
    with ExitStack() as stack:
        for change in (
            patch.object(loop, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            patch.object(loop, "_r", random.Random(seed)),
            patch.object(trio.to_thread, "run_sync", scheduler.in_thread),
            patch.object(trio.from_thread, "check_cancelled", lambda: None),
            patch("time.monotonic", scheduler.now),
            patch("secrets.token_bytes", scheduler.rng.randbytes),
        ):
            stack.enter_context(change)
        if gc.isenabled():  # what a collection ends must not depend on when there was one before
            gc.disable()
            stack.callback(gc.enable)
        return trio.run(main, scheduler, clock=scheduler.clock)
