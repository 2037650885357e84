"""Writing together what is asked for at the same time: a transaction's end waits for the disk, whatever it carries.

What comes while one transaction is written waits for the next one. When that fails, everybody in it is told; nobody's
work is half done. An asker that stops waiting takes nothing back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.engine import Database
from gateway.db.unit_of_work import writing

MOST: Final = 64
"""Works in one transaction."""

R = TypeVar("R")
Work = Callable[[AsyncSession], Awaitable[R]]


class Together:
    """Writes to ``database`` for one part of the keeper; belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, work: Work[R]) -> R:
        """Return what ``work`` returns, once its transaction is on disk.

        Args:
            work: what is to be done in a unit that may write; sees what works before it in the same unit did.

        Raises:
            Unavailable: the database cannot be used now.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting.append((work, done))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return await done

    async def _run(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                found = await self._unit([work for work, _ in some])
            except Exception as error:  # noqa: BLE001 - it is raised where each of them waits
                for _, done in some:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), result in zip(some, found, strict=True):
                if not done.done():
                    done.set_result(result)

    async def _unit(self, works: list[Work[Any]]) -> list[Any]:
        found = []
        async with writing(self._database) as session:
            for work in works:
                found.append(await work(session))
                await session.flush()
                session.expunge_all()
        return found
