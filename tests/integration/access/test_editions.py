"""What a keeper reads again: on SQLite, which it alone writes, only what may have changed; on PostgreSQL always."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

import pytest
from sqlalchemy import event

from gateway.access.budgets import BudgetStore
from gateway.access.guardrails import GuardrailStore
from gateway.access.presets import PresetStore
from gateway.access.treasury import Treasury
from gateway.db import bulletin, changes, engine
from gateway.db.bulk import bulk
from gateway.db.engine import Database
from gateway.db.tables.access import TeamRow
from gateway.db.unit_of_work import reading, writing
from gateway.metering import settled
from gateway.types.budgets import NewBudget, Scope, Window

only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""PostgreSQL tells of a change once the last reading is old."""


class Journal:
    """A journal with nothing in it."""

    rounds = 0
    writers: Collection[str] = ()

    async def ship(self) -> None:
        """Move nothing."""


class Statements:
    """Counts what the reading connections of a database are asked."""

    def __init__(self, database: Database) -> None:
        self.seen: list[str] = []
        event.listen(database.reader.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.seen.append(statement)


@pytest.fixture(name="database")
async def database_(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A migrated database; what was read of it stays good until somebody writes."""
    for module in (bulletin, engine):
        monkeypatch.setattr(module, "QUIET_S", 1e9)
    database = Database(database_url)
    yield database
    await database.close()


async def test_an_edition_ends_with_whatever_is_written(database: Database) -> None:
    """Reading leaves it, units and transactions of many rows end it; where other hosts write there is none."""
    before = database.edition
    async with reading(database) as session:
        await session.get(TeamRow, "default")
    assert (database.edition == before) is not database.partitioned
    async with writing(database) as session:
        session.add(TeamRow(slug="t", name="T", created_at=0))
    after = database.edition
    assert after != before
    async with bulk(database) as connection:
        await settled.announce(connection, [0])
    assert database.edition != after


async def test_house_is_kept_without_reading_what_nobody_wrote(database: Database) -> None:
    """Budgets are read again once something was written, whoever wrote it; on PostgreSQL in every round."""
    treasury = Treasury(database, "host", Journal())
    await treasury.open()
    await treasury.keep_house()
    asked = Statements(database)
    await treasury.keep_house()
    assert bool(asked.seen) is database.partitioned
    made = await BudgetStore(database).set(NewBudget(Scope(model="m"), Window.DAILY, 7))
    assert not treasury.budgets
    await treasury.keep_house()
    assert treasury.budgets == {made.budget_id: made}


@only_sqlite
async def test_who_looks_for_changes_reads_after_one_only(database: Database) -> None:
    """However often it is looked, SQLite is asked once after each change; a change is seen at once."""
    rails = GuardrailStore(database)
    known = await rails.governance(-1)
    assert known is not None
    asked = Statements(database)
    for _ in range(3):
        assert await rails.governance(known.revision) is None
    assert not asked.seen
    await PresetStore(database).put("default", "p", {"top_p": 0.5}, "", "")
    found = await rails.governance(known.revision)
    assert found is not None
    assert found.presets == {"default"}


@only_sqlite
async def test_what_the_shipper_announces_is_seen(database: Database) -> None:
    """A number that is taken in a transaction of many rows is told as those of other units are."""
    before = await changes.latest(database, settled.TOPIC)
    async with bulk(database) as connection:
        await settled.announce(connection, [0])
    assert await changes.latest(database, settled.TOPIC) == before + 1
