"""Stopping a keeper: what is under way in the database ends, and only then everything else."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest
from structlog.testing import capture_logs

from gateway.keeper import service
from gateway.keeper.service import Keeper
from gateway.types.ids import RequestIds
from gateway.types.keys import NewKey
from tests.integration.keeper.processes import PEPPER, eventually, url_of
from tests.integration.keeper.test_keeper_service import meter


def rows(home: Path) -> int:
    """Return how many rows the ledger has."""
    with closing(sqlite3.connect(home / "weir.db")) as database:
        return int(database.execute("SELECT count(*) FROM ledger").fetchone()[0])


def locked(home: Path) -> sqlite3.Connection:
    """Keep everybody else from writing to the database until the connection is closed."""
    database = sqlite3.connect(home / "weir.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    return database


async def held_up(keeper: Keeper) -> None:
    """Wait until the shipper is in a call of the database that does not end."""
    shipping = keeper.shipper._mutex
    rounds = 0
    while rounds < 20:
        await asyncio.sleep(0.01)
        rounds = rounds + 1 if shipping.locked() else 0


async def test_a_round_of_shipping_that_runs_is_waited_for(home: Path) -> None:
    """A keeper that is stopped while the database is slow ships all the same."""
    keeper = Keeper(home, url_of(home), PEPPER)
    await keeper.start()
    key_id = (await keeper.create_key(NewKey(name="k", team="default"))).record.key_id
    with closing(locked(home)):
        await meter(home, key_id, RequestIds().new())
        await held_up(keeper)
        stopping = asyncio.create_task(keeper.stop())
        await asyncio.sleep(0.2)
        assert not stopping.done()
    await stopping
    assert rows(home) == 1


async def test_no_call_of_the_database_is_cut_off(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is cancelled while it is put back is broken, and a command would print its trace."""
    cleaning = asyncio.Event()
    rollback = aiosqlite.Connection.rollback

    async def slow(connection: aiosqlite.Connection) -> None:
        cleaning.set()
        await asyncio.sleep(0.1)
        await rollback(connection)

    keeper = Keeper(home, url_of(home), PEPPER)
    with capture_logs() as logs, caplog.at_level(logging.WARNING):
        await keeper.start()
        monkeypatch.setattr(aiosqlite.Connection, "rollback", slow)
        await cleaning.wait()
        await keeper.stop()
    assert caplog.records == []
    assert [entry for entry in logs if entry["log_level"] != "info"] == []


async def test_a_database_that_does_not_come_back_does_not_hold_up_the_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time limit the keeper gives up and says so; the next one ships what is left, once."""
    monkeypatch.setattr(service, "LAST_SHIP_S", 0.2)
    keeper = Keeper(home, url_of(home), PEPPER)
    await keeper.start()
    key_id = (await keeper.create_key(NewKey(name="k", team="default"))).record.key_id
    with capture_logs() as logs, closing(locked(home)):
        await meter(home, key_id, RequestIds().new())
        await held_up(keeper)
        async with asyncio.timeout(30):
            await keeper.stop()
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"][-1:] == [
        "the journal is shipped at the next start"
    ]
    assert rows(home) == 0
    monkeypatch.undo()
    successor = Keeper(home, url_of(home), PEPPER)
    await successor.start()
    try:
        await eventually(lambda: rows(home) == 1)
    finally:
        await successor.stop()
