"""Cancellation at every step: nothing is left, the connection goes on, and what comes later is byte-exact."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from fsmux.events import FileProgress
from tests.mux.kit import DEADLINE

from .kit import CHUNK, Move, Side, content, descriptors, facing, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

EVERY = int(os.environ.get("FSMUX_TEST_EVERY", "4"))
"""Steps between two points at which something is cancelled; 1 for all of them."""


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when so many steps of tasks have been made."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


async def cancelled_at(steps: int, action: Callable[[], Awaitable[Any]]) -> bool:
    """Run ``action`` and cancel it after so many steps; whether it was cancelled before it had ended."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(scope, steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            await action()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def sweep(side: Side, action: Callable[[], Awaitable[Any]], between: Callable[[], None] = lambda: None) -> int:
    """Cancel ``action`` at one step after the other, until it ends before that; how often it was cancelled."""
    await action()
    between()
    await side.quiet()
    before = descriptors()
    times = 0
    steps = 1
    while await cancelled_at(steps, action):
        with trio.fail_after(DEADLINE):
            await side.quiet()
        left = descriptors() - before
        assert not left, f"cancelled at step {steps}: {left}"
        assert side.client.connection.failure is None
        between()
        times += 1
        steps += EVERY
    return times


@pytest.mark.slow
@pytest.mark.parametrize("size", [1000, 10 * CHUNK + 77])
async def test_a_transfer_cancelled_at_every_step(
    direction: str, size: int, served: Path, there: Path, tmp_path: Path
) -> None:
    async with facing("unix", served, there) as side:
        move = Move(side, direction)
        (move.source / "file").write_bytes(wanted := content(size))

        def remove() -> None:
            (move.target / "file").unlink(missing_ok=True)
            if size <= CHUNK:
                assert not state_of(move.target), "a file of one chunk leaves nothing to resume"

        times = await sweep(side, move, remove)
        assert times > 20 / EVERY
        await side.quiet()
        assert not (await move()).failed
        assert (move.target / "file").read_bytes() == wanted
        assert state_of(move.target) == set()


@pytest.mark.slow
async def test_random_access_cancelled_at_every_step(served: Path, there: Path) -> None:
    async with facing("unix", served, there) as side:
        (served / "file").write_bytes(wanted := content(5 * CHUNK))

        async def session() -> None:
            async with side.client.open("file", write=True) as file:
                assert await file.pread(2 * CHUNK, 100) == wanted[100 : 100 + 2 * CHUNK]
                await file.pwrite(wanted[CHUNK : 2 * CHUNK], CHUNK)
                await file.close(sync=True)

        times = await sweep(side, session)
        assert times > 10 / EVERY
        assert (served / "file").read_bytes() == wanted


@pytest.mark.slow
async def test_a_listing_cancelled_at_every_step(served: Path, there: Path) -> None:
    for index in range(1500):
        (served / f"{index:0200}").touch()
    async with facing("unix", served, there) as side:

        async def look() -> None:
            async with side.client.list() as entries:
                assert len([entry async for entry in entries]) == 1500

        assert await sweep(side, look) > 5 / EVERY


@pytest.mark.parametrize("operation", ["pread", "pwrite", "close"])
async def test_a_handle_is_over_once_something_on_it_was_cancelled(side: Side, operation: str) -> None:
    """Or the answer to one request would be taken for that of the next: a write that was never confirmed, say."""
    from fsmux.errors import FsmuxError

    (side.served / "file").write_bytes(bytes(CHUNK))
    async with side.client.open("file", write=True) as file:
        with trio.CancelScope() as scope:
            scope.cancel()
            match operation:
                case "pread":
                    await file.pread(10, 0)
                case "pwrite":
                    await file.pwrite(b"x", 0)
                case _:
                    await file.close()
        assert scope.cancelled_caught
        with pytest.raises(FsmuxError):
            await file.pwrite(b"y", 0)
    await side.quiet()
    assert (side.served / "file").read_bytes() in (bytes(CHUNK), b"x" + bytes(CHUNK - 1))


async def test_many_transfers_cancelled_together(direction: str, served: Path, there: Path) -> None:
    """All of them at once in the midst of it, and then again to the end."""
    async with facing("unix", served, there) as side:
        move = Move(side, direction)
        wanted = {f"{index}": content(3 * CHUNK, seed=index) for index in range(60)}
        for name, data in wanted.items():
            (move.source / name).write_bytes(data)

        async def all_of_it() -> Any:
            if direction == "up":
                source = str(move.source) + "/"
                return await side.client.upload(source, "all", observer=side.observe, chunk_size=CHUNK, streams=30)
            return await side.client.download(
                "", str(move.target / "all"), observer=side.observe, chunk_size=CHUNK, streams=30
            )

        for _ in range(3):
            with trio.CancelScope() as scope:
                side.on_event = lambda event, scope=scope: scope.cancel() if isinstance(event, FileProgress) else None  # type: ignore[misc]
                await all_of_it()
            await side.quiet()
        side.on_event = lambda event: None
        summary = await all_of_it()
        assert not summary.failed, side.events
        target = move.target / "all"
        assert {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()} == wanted
