"""What befalls a gateway from outside while it is killed: its database goes away, its disk is full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Protocol

from tests.fakes.postgres import PostgresServer
from tests.fakes.small_disk import SmallDisk


class Weather(Protocol):
    """Something that goes bad and well again, for a random while."""

    async def strike(self, chance: Random) -> None:
        """Go bad; be well again when this returns."""


class Outage:
    """The database server is stopped, or crashes, and is started again."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    async def strike(self, chance: Random) -> None:
        """Be away."""
        await asyncio.to_thread(self._server.stop, crash=chance.random() < 0.5)
        try:
            await asyncio.sleep(chance.uniform(0.2, 1.5))
        finally:
            await asyncio.to_thread(self._server.start)


class Flood:
    """The disk with the whole state folder is full."""

    def __init__(self, disk: SmallDisk) -> None:
        self._disk = disk

    async def strike(self, chance: Random) -> None:
        """Be full."""
        self._disk.fill()
        try:
            await asyncio.sleep(chance.uniform(0.2, 1.5))
        finally:
            self._disk.free()


class Log:
    """How often it struck."""

    def __init__(self) -> None:
        self.strikes = 0


@asynccontextmanager
async def blowing(weather: Weather | None, chance: Random, answered: Callable[[], int]) -> AsyncIterator[Log]:
    """Let it strike again and again inside the block; it is fair when the block is left.

    Between two strikes the gateway gets to answer, however slow the machine is.
    """
    log, stop = Log(), asyncio.Event()

    async def blow() -> None:
        while weather is not None and not stop.is_set():
            await weather.strike(chance)
            log.strikes += 1
            well = answered()
            while answered() == well and not stop.is_set():
                await asyncio.sleep(0.05)
            await asyncio.sleep(chance.uniform(0.3, 1.5))

    task = asyncio.create_task(blow())
    try:
        yield log
    finally:
        stop.set()
        await task
