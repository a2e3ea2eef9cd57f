"""Tasks that serve a block of code and outlive every task that uses them; and tasks that stand and fall together.

Theory: users are cancelled first, services last, or a user's cleanup would wait for a service that is gone.  So the
services are shielded from whatever cancels the block, and are cancelled themselves once the block has been left.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from fsmux.errors import FsmuxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def serving(scope: trio.CancelScope, *tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run ``tasks`` while the block runs; cancelling ``scope`` ends them early.

    An exception of the block comes out as it is, never inside a group.  Tasks must not raise.
    """
    error: BaseException | None = None
    scope.shield = True

    async def run() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(task)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield
        except BaseException as exc:
            error = exc
        scope.cancel()
    if error is not None:
        raise error


async def all_of(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run tasks side by side; the first typed error ends the others, and comes out as it is."""
    failed: list[FsmuxError] = []

    async def run(task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except FsmuxError as exc:
            failed.append(exc)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
    if failed:
        raise failed[0]
