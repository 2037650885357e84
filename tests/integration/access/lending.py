"""Hosts whose treasuries share one database, with a journal and a clock in small."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from gateway.access.treasury import IDLE_S, Treasury
from gateway.db.engine import Database
from gateway.db.unit_of_work import writing
from gateway.types.budgets import Budget, NewBudget, Scope, Shortfall, Spend, Window
from tests.integration.access.charges import charge

DAY = 20_415
"""2025-11-23, a Sunday."""
NOON_MS = DAY * 86_400_000 + 43_200_000


@dataclass
class Journal:
    """A journal and its shipper in small: charges that wait, and the rollups they go to."""

    database: Database
    waiting: list[tuple[int, str, str, str, int]] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    rounds: int = 0
    mutex: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def writers(self) -> Collection[str]:
        """Writers of which something is in the folder."""
        return set(self.alive)

    async def ship(self) -> None:
        """Move what waits to the rollups."""
        async with self.mutex, writing(self.database) as session:
            waiting, self.waiting = self.waiting, []
            for day, team, key, model, nano in waiting:
                await charge(session, day, team, key, model, nano)
        self.rounds += 1


class Clock:
    """Monotonic and wall clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.wall_us = NOON_MS * 1_000

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wall(self) -> int:
        """Microseconds since 1970."""
        return self.wall_us


class Host:
    """One host: its treasury and the requests it runs."""

    def __init__(self, name: str, url: str, clock: Clock) -> None:
        self.name = name
        self.url = url
        self.clock = clock
        self.database = Database(url)
        self.journal = Journal(self.database)
        self.hold = 0
        self.treasury = self._treasury()

    def _treasury(self) -> Treasury:
        return Treasury(self.database, self.name, self.journal, clock=self.clock.monotonic, now_us=self.clock.wall)

    async def restart(self) -> None:
        """Kill the keeper: a new treasury knows what the database knows."""
        self.treasury = self._treasury()
        await self.treasury.open()

    async def admit(self, spend: Spend, key: str = "k") -> tuple[int, int] | Shortfall:
        """Return the hold and what was reserved, or what was in the way."""
        self.hold += 1
        hold = self.hold
        shares = self.treasury.shares(key, spend)
        if self.treasury.reserve(hold, "worker", shares, spend):
            return hold, spend.amount
        found = await self.treasury.obtain(hold, "worker", shares, spend)
        return found if isinstance(found, Shortfall) else (hold, found)

    def settle(
        self, hold: int, charge: int, *, key: str = "k", model: str = "m", day: int = DAY, told: bool = True
    ) -> None:
        """End a request: the journal first, then the treasury."""
        self.journal.waiting.append((day, "t", key, model, charge))
        if told:
            self.treasury.settle(hold, ((model, charge),))

    async def rounds(self, count: int = 6) -> None:
        """Ship and keep house, as the keeper does every second."""
        for _ in range(count):
            self.clock.now += IDLE_S
            await self.journal.ship()
            await self.treasury.keep_house()


async def budget(hosts: list[Host], limit: int, scope: Scope | None = None, window: Window = Window.DAILY) -> Budget:
    """Set a budget on the first host and let the others learn of it."""
    made = await hosts[0].treasury.set(NewBudget(scope or Scope(model="m"), window, limit))
    for host in hosts[1:]:
        await host.treasury.reload()
    return made


def spend(amount: int, least: int | None = None, at_ms: int = NOON_MS) -> Spend:
    """Return what a request of team ``t`` for model ``m`` asks."""
    return Spend(at_ms, "t", ("m",), amount, amount if least is None else least)
