"""Time limits: each strikes once, when it has passed and not before, unless it was taken back."""

from __future__ import annotations

import asyncio
from time import monotonic

from gateway.upstream.deadlines import PERIOD, Deadlines


class Waiting:
    """Something with a deadline that notes when it is struck."""

    def __init__(self, seconds: float, deadlines: Deadlines | None = None) -> None:
        self.deadline = monotonic() + seconds
        self.struck: list[float] = []
        self._deadlines = deadlines

    def expire(self) -> None:
        """Note it; watch oneself again when asked to."""
        self.struck.append(monotonic())
        if self._deadlines is not None and len(self.struck) < 3:
            self._deadlines.watch(self)


async def until_struck(waiting: Waiting, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(waiting.struck) < times:
            await asyncio.sleep(0.005)


async def test_a_deadline_strikes_once_and_not_before_its_time() -> None:
    """Two limits, two moments; one that is far away does not strike."""
    deadlines = Deadlines(asyncio.get_running_loop())
    soon, later, never = Waiting(0.0), Waiting(0.3), Waiting(600)
    for each in (later, never, soon):
        deadlines.watch(each)
    await until_struck(soon)
    await until_struck(later)
    assert later.struck[0] >= later.deadline
    await asyncio.sleep(3 * PERIOD)
    assert (len(soon.struck), len(later.struck), len(never.struck)) == (1, 1, 0)
    deadlines.forget(never)


async def test_a_deadline_that_moves_strikes_at_its_new_time() -> None:
    """Progress puts a limit off without a word to the sweep."""
    deadlines = Deadlines(asyncio.get_running_loop())
    waiting, witness = Waiting(0.02), Waiting(0.02)
    deadlines.watch(waiting)
    deadlines.watch(witness)
    waiting.deadline += 600
    await until_struck(witness)
    assert not waiting.struck
    waiting.deadline = monotonic()
    await until_struck(waiting)


async def test_what_was_forgotten_does_not_strike() -> None:
    """Forgetting is final, twice as well, and also for what was never watched."""
    deadlines = Deadlines(asyncio.get_running_loop())
    forgotten, witness = Waiting(0.0), Waiting(0.0)
    deadlines.watch(forgotten)
    deadlines.watch(witness)
    deadlines.forget(forgotten)
    deadlines.forget(forgotten)
    deadlines.forget(Waiting(0.0))
    await until_struck(witness)
    assert not forgotten.struck


async def test_what_is_watched_while_others_strike_is_not_lost() -> None:
    """A retry that begins inside a strike has its own limit, and the sweep goes on."""
    deadlines = Deadlines(asyncio.get_running_loop())
    again = Waiting(0.0, deadlines)
    deadlines.watch(again)
    await until_struck(again, 3)


async def test_nothing_runs_while_nothing_is_watched() -> None:
    """An idle gateway has no timer."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    assert deadlines._timer is None
    waiting = Waiting(0.0)
    deadlines.watch(waiting)
    await until_struck(waiting)
    async with asyncio.timeout(20):
        while deadlines._timer is not None:
            await asyncio.sleep(0.005)
    second = Waiting(0.0)
    deadlines.watch(second)
    await until_struck(second)
