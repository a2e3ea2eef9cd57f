"""Tasks that serve a block of code and outlive every task that uses them.

Theory: users are cancelled first, services last, or a user's cleanup would wait for a service that is gone.  So the
services are shielded from whatever cancels the block, and are cancelled themselves once the block has been left.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

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
