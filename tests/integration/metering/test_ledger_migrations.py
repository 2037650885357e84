"""The schema, forwards and back."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlmodel import SQLModel

import gateway.db.tables
from gateway.db.engine import Database, UnsupportedDatabase
from gateway.db.migrations import BASE, UnknownRevision, current, downgrade, head, migrate
from gateway.metering.journal import Journal
from gateway.metering.shipper import Shipper
from gateway.types.errors import Unavailable
from tests.integration.metering.books import dump, query
from tests.integration.metering.conftest import url_of
from tests.integration.metering.samples import COST, COST_ID, PRICE, PRICE_ID, closed, opened


async def test_migrations_make_the_tables_that_the_code_declares(tmp_path: Path) -> None:
    """A database that was migrated and the declared tables are the same, column by column and index by index."""
    assert gateway.db.tables.ledger is not None
    url = url_of(tmp_path / "weir.db")
    await migrate(url)
    assert await current(url) == head()

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, SQLModel.metadata))

    database = Database(url)
    async with database.writer.begin() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_up_down_and_up_again_with_data(tmp_path: Path) -> None:
    """Later revisions can be taken back without touching the books; back to the base leaves an empty schema."""
    url = url_of(tmp_path / "weir.db")
    await migrate(url)
    journal = Journal.create(tmp_path / "journal")
    journal.declare(PRICE_ID, PRICE)
    journal.declare(COST_ID, COST)
    for _ in range(20):
        start = opened()
        journal.append(start)
        journal.append(closed(start))
    await journal.close()
    database = Database(url)
    shipper = Shipper(tmp_path / "journal", database)
    assert (await shipper.ship()).inserted == 20
    shipper.close()
    await database.close()
    books = dump(tmp_path)
    assert len(books["ledger"]) == 20
    await downgrade(url, "0001_ledger")
    assert await current(url) == "0001_ledger"
    assert dump(tmp_path) == books
    await migrate(url)
    assert dump(tmp_path) == books
    await downgrade(url, BASE)
    assert await current(url) is None
    assert query(tmp_path, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("alembic_version",)]
    await migrate(url)
    assert dump(tmp_path)["ledger"] == []


async def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    """Starting twice migrates once: the second waits for the first and finds nothing to do."""
    url = url_of(tmp_path / "weir.db")
    await asyncio.gather(*[migrate(url) for _ in range(4)])
    assert await current(url) == head()


async def test_an_unknown_revision_is_refused(tmp_path: Path) -> None:
    """A database of a newer version is not touched."""
    url = url_of(tmp_path / "weir.db")
    await migrate(url)
    query_and_commit(tmp_path, "UPDATE alembic_version SET version_num = '9999_later'")
    with pytest.raises(UnknownRevision):
        await migrate(url)
    assert query(tmp_path, "SELECT version_num FROM alembic_version") == [("9999_later",)]


async def test_the_file_is_private_and_its_folder_is_made(tmp_path: Path) -> None:
    """The database holds what teams did: nobody else on the host may read it."""
    url = url_of(tmp_path / "deep" / "down" / "weir.db")
    await migrate(url)
    path = tmp_path / "deep" / "down" / "weir.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://host/weir",
        "sqlite:///weir.db",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///weir.db?mode=ro",
        "no url",
        "",
    ],
)
async def test_urls_of_no_use_are_refused_with_the_mend(url: str) -> None:
    """A database URL that cannot work says what would."""
    with pytest.raises(UnsupportedDatabase, match="sqlite\\+aiosqlite:///path"):
        await migrate(url)


async def test_a_place_where_no_file_can_be_is_unavailable(tmp_path: Path) -> None:
    """A file that cannot be opened is an error of the caller's vocabulary, not of a driver."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        await migrate(url_of(tmp_path / "file" / "weir.db"))
    (tmp_path / "broken.db").write_bytes(b"this is no database" * 500)
    with pytest.raises(Unavailable):
        await migrate(url_of(tmp_path / "broken.db"))


def query_and_commit(home: Path, sql: str) -> None:
    """Change the database in ``home`` directly."""
    import sqlite3

    with sqlite3.connect(home / "weir.db") as connection:
        connection.execute(sql)
    connection.close()
