"""The schema, forwards and back."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    func,
    insert,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlmodel import SQLModel

import gateway.db.tables.every
from gateway.db import migrations
from gateway.db.engine import Database, UnsupportedDatabase
from gateway.db.migrations import BASE, UnknownRevision, current, downgrade, head, migrate
from gateway.metering.journal import Journal
from gateway.metering.shipper import Shipper
from gateway.types.errors import Unavailable
from tests.integration.metering.books import URL, query
from tests.integration.metering.conftest import url_of
from tests.integration.metering.samples import COST, COST_ID, PRICE, PRICE_ID, closed, opened

ROWS = 3


async def test_migrations_make_the_tables_that_the_code_declares(empty_database_url: str) -> None:
    """A database that was migrated and the declared tables are the same, column by column and index by index."""
    assert gateway.db.tables.every.ledger is not None
    await migrate(empty_database_url)
    assert await current(empty_database_url) == head()

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, SQLModel.metadata))

    database = Database(empty_database_url)
    async with database.writer.begin() as connection:
        found = await connection.run_sync(differences)
    await database.close()
    assert found == []


def made_up(connection: Connection, column: Column[Any], number: int) -> Any:
    """Return a value that a column takes, another one for each number."""
    for key in column.foreign_keys:
        return connection.execute(select(key.column)).scalars().first()
    if isinstance(column.type, Boolean):
        return number % 2 == 0
    if isinstance(column.type, LargeBinary):
        return number.to_bytes(16, "big")
    if isinstance(column.type, Integer):
        return number
    return [] if isinstance(column.type, JSON) else f"some-{number}"


def fill(connection: Connection, known: set[str]) -> dict[str, int]:
    """Write rows into the tables that are not ``known`` and return how many rows each table has."""
    names = sorted(name for name in inspect(connection).get_table_names() if not is_partition(name))
    metadata = MetaData()
    metadata.reflect(connection, only=[name for name in names if name not in known])  # and what these refer to
    for new in metadata.sorted_tables:
        if new.name not in known:
            if new.name == "ledger" and connection.dialect.name == "postgresql":
                for day in range(1, ROWS + 1):
                    connection.execute(text(f"CREATE TABLE ledger_d{day} (LIKE ledger INCLUDING ALL)"))
                    bounds = f"FROM ({day}) TO ({day + 1})"
                    connection.execute(text(f"ALTER TABLE ledger ATTACH PARTITION ledger_d{day} FOR VALUES {bounds}"))
            columns = [column for column in new.columns if column.server_default is None]
            # Other numbers than those of earlier tables: a revision may have made rows of them.
            first = 1 if new.name == "ledger" else 100 * len(known)
            numbers = range(first, first + ROWS)
            connection.execute(
                insert(new),
                [{column.name: made_up(connection, column, number) for column in columns} for number in numbers],
            )
    return {name: connection.execute(select(func.count()).select_from(table(name))).scalar_one() for name in names}


def is_partition(name: str) -> bool:
    """Return whether a table is a piece of the ledger."""
    return name == "alembic_version" or name.startswith("ledger_d")


async def rows_in(url: str, known: set[str]) -> dict[str, int]:
    """Fill what is new in the database at ``url`` and count."""
    database = Database(url)
    try:
        async with database.writer.begin() as connection:
            return await connection.run_sync(fill, known)
    finally:
        await database.close()


async def test_every_revision_goes_up_and_down_with_data_in_it(empty_database_url: str) -> None:
    """Each revision keeps the rows of those before it, forwards and back, and leaves nothing of itself behind."""
    url = empty_database_url
    walked = [each.revision for each in ScriptDirectory.from_config(migrations._config()).walk_revisions()][::-1]
    assert len(walked) >= 8
    counts: dict[str, dict[str, int]] = {}
    rows: dict[str, int] = {}
    for revision in walked:
        await migrate(url, revision)
        found = await rows_in(url, set(rows))
        assert {name: found[name] for name in rows} == rows, f"{revision} changed rows that were there"
        counts[revision] = rows = found
    for revision in reversed(walked):
        await downgrade(url, revision)
        assert await rows_in(url, set(counts[revision])) == counts[revision], f"the way back to {revision} lost rows"
    await migrate(url)
    assert set(await rows_in(url, set(rows))) == set(rows)
    await downgrade(url, BASE)
    assert await rows_in(url, set()) == {}
    await migrate(url)


async def test_the_way_back_keeps_the_books(empty_database_url: str, tmp_path: Path) -> None:
    """Later revisions can be taken back and made again without touching what was shipped."""
    url = empty_database_url
    (tmp_path / URL).write_text(url)
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
    books = "SELECT day, request_id, attempt, kind, label_id, charge_nano, cost_nano FROM ledger ORDER BY request_id"
    before = query(tmp_path, books)
    assert len(before) == 20
    await downgrade(url, "0001_ledger")
    assert await current(url) == "0001_ledger"
    assert query(tmp_path, books) == before
    await migrate(url)
    assert query(tmp_path, books) == before
    await downgrade(url, BASE)
    assert await current(url) is None


async def test_two_processes_may_migrate_at_once(empty_database_url: str) -> None:
    """Starting twice migrates once: the second waits for the first and finds nothing to do."""
    await asyncio.gather(*[migrate(empty_database_url) for _ in range(3)])
    assert await current(empty_database_url) == head()


async def test_an_unknown_revision_is_refused(database_url: str, tmp_path: Path) -> None:
    """A database of a newer version is not touched."""
    (tmp_path / URL).write_text(database_url)
    query(tmp_path, "UPDATE alembic_version SET version_num = '9999_later'")
    with pytest.raises(UnknownRevision):
        await migrate(database_url)
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
        "mysql://host/weir",
        "postgresql+psycopg://host/weir",
        "postgresql://host",
        "postgresql://weir:canary@host/weir?sslmod=require",
        "postgresql://weir:canary@host:port/weir",
        "postgresql://host/weir?port=high",
        "sqlite:///weir.db",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///weir.db?mode=ro",
        "no url",
        "",
    ],
)
async def test_urls_of_no_use_are_refused_with_the_mend(url: str) -> None:
    """A database URL that cannot work says what would, and nothing of a password."""
    with pytest.raises(UnsupportedDatabase, match="sqlite\\+aiosqlite:///path") as caught:
        await migrate(url)
    assert "canary" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://weir:canary@host:5433/ledger",
        "postgresql://weir:canary@host:5433/ledger",
        "postgres://host:5433/ledger?user=weir&password=canary",
        "postgresql://weir:canary@/ledger?host=host&port=5433&sslmode=require",
        "postgresql://weir:canary@/ledger?host=/run/postgresql",
    ],
)
def test_a_server_may_be_named_in_the_usual_ways(url: str) -> None:
    """User and password in the URL or its query, a host or a folder with a socket; the password is never shown."""
    database = Database(url)
    assert database.partitioned
    dialect = database.writer.dialect
    assert isinstance(dialect, PGDialect_asyncpg)
    found = dialect.create_connect_args(database.writer.url)[1]
    assert (found["user"], found["password"], found["database"]) == ("weir", "canary", "ledger")
    assert (found["host"], found.get("port", 5433)) in {("host", 5433), ("/run/postgresql", 5433)}
    assert "canary" not in database.url + repr(database.writer)


async def test_a_place_where_no_file_can_be_is_unavailable(tmp_path: Path) -> None:
    """A file that cannot be opened is an error of the caller's vocabulary, not of a driver."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        await migrate(url_of(tmp_path / "file" / "weir.db"))
    (tmp_path / "broken.db").write_bytes(b"this is no database" * 500)
    with pytest.raises(Unavailable):
        await migrate(url_of(tmp_path / "broken.db"))
