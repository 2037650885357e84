"""Running a keeper as a process of its own, and reaching the keeper of a folder from a command.

A command talks to the keeper that runs; only when none does, it becomes the keeper itself for as long as it takes,
under the same lock. So a database file never has two writing processes. What a keeper is made of is imported only by
who becomes one: the database's libraries are most of its memory and of a command's time to start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config.snapshot import ConfigSnapshot
from gateway.keeper.address import KeptError, answers, is_kept
from gateway.keeper.client import KeeperClient
from gateway.keeper.extras import NO_EXTRAS, Extras
from gateway.types import garbage

if TYPE_CHECKING:
    from gateway.keeper.service import Keeper

_PATIENCE_S: Final = 10.0
"""How long a command waits for another one that keeps the folder: most take a second."""
_PAUSE_S: Final = 0.05


async def run_keeper(home: Path, database_url: str, pepper: bytes, stop: asyncio.Event) -> None:
    """Keep ``home`` and serve its clients until ``stop`` is set; arguments as of ``Keeper``.

    Raises:
        KeeperError: the folder has a keeper, or the database or the socket is of no use.
        Unavailable: the database is away.
    """
    async with serving(home, database_url, pepper):
        garbage.settle()
        await stop.wait()


@asynccontextmanager
async def serving(
    home: Path,
    database_url: str,
    pepper: bytes,
    *,
    lasting: bool = False,
    config: Callable[[], ConfigSnapshot | None] = lambda: None,
    extras: Extras = NO_EXTRAS,
) -> AsyncIterator[Keeper]:
    """Keep ``home`` and serve its clients inside the block; arguments and errors as of ``Keeper`` and ``run_keeper``.

    A ``lasting`` keeper has its database migrated by another process, to stay small, and starts without one on a server
    that is away, from what was known last.
    """
    from gateway.keeper import schema  # noqa: PLC0415 - see above
    from gateway.keeper.server import KeeperServer  # noqa: PLC0415 - see above
    from gateway.keeper.service import Keeper  # noqa: PLC0415 - see above

    migrate = schema.migrate_apart if lasting else schema.migrate_here
    keeper = Keeper(home, database_url, pepper, migrate=migrate, config=config, extras=extras, enduring=lasting)
    await keeper.start()
    server = KeeperServer(keeper, home)
    try:
        await server.start()
        yield keeper
    finally:
        await server.stop()
        await keeper.stop()


@asynccontextmanager
async def reaching(
    home: Path,
    database_url: str,
    pepper: bytes,
    *,
    config: Callable[[], ConfigSnapshot | None] = lambda: None,
    fresh: bool = False,
) -> AsyncIterator[Keeper | KeeperClient]:
    """Give the block the keeper of ``home``: the one that runs, else one of its own, which knows ``config``.

    The latter has all of the journal in its ledger when it is to be ``fresh``; one that runs is a second behind.
    Another command that is the keeper for a moment is waited for: nobody can talk to it.

    Raises:
        KeeperError: there was no keeper, and none could be made.
        Unavailable: the keeper that runs does not answer, or the database is away.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not await _kept(home, deadline):
        from gateway.keeper.service import Keeper  # noqa: PLC0415 - see above

        keeper = Keeper(home, database_url, pepper, config=config)
        try:
            await keeper.start()
        except KeptError:  # another one was first
            continue
        try:
            if fresh:
                await keeper.catch_up()
            yield keeper
        finally:
            await keeper.stop()
        return
    client = KeeperClient(home)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


async def _kept(home: Path, deadline: float) -> bool:
    """Return whether somebody keeps ``home``: once that one answers, once nobody does, or after the ``deadline``."""
    while is_kept(home):
        if answers(home) or time.monotonic() > deadline:
            return True
        await asyncio.sleep(_PAUSE_S)
    return False
