"""CPU time of one coroutine among others."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.metering.stopwatch import Stopwatch


def burn(seconds: float) -> None:
    """Use CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def test_only_the_coroutine_is_counted() -> None:
    """Neither waiting nor what others do meanwhile counts; what the coroutine does on both sides of it does."""

    async def work() -> str:
        burn(0.02)
        await asyncio.sleep(0.05)
        burn(0.02)
        return "done"

    async def others() -> None:
        burn(0.2)

    task = asyncio.create_task(others())
    watch = Stopwatch(work())
    assert await watch == "done"
    await task
    assert 0.04 <= watch.seconds < 0.15


async def test_errors_pass_through() -> None:
    """An error of the coroutine reaches the caller, one of what it waits for reaches the coroutine."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.wait_for(asyncio.sleep(10), 0.01)
        except TimeoutError:
            seen.append("timeout")
        raise ValueError("mine")

    watch = Stopwatch(work())
    with pytest.raises(ValueError, match="mine"):
        await watch
    assert seen == ["timeout"]


async def test_cancellation_reaches_the_coroutine() -> None:
    """A cancelled waiter cancels what it waits for, which may still clean up."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    async def wait() -> None:
        await Stopwatch(work())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cleaned up"]
