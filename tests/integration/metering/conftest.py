"""A fresh ledger database and a journal folder for each test, on SQLite and then on PostgreSQL.

``only_sqlite`` and ``only_postgres`` mark tests of what the other one does not have.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from gateway.db.engine import Database
from tests.integration.metering.books import URL

only_sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize("kind", ["postgres"], indirect=True)


def url_of(path: Path) -> str:
    """Return the database URL of an SQLite file."""
    return f"sqlite+aiosqlite:///{path}"


def url_in(home: Path) -> str:
    """Return the URL of the database that belongs to ``home``."""
    return (home / URL).read_text()


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the ledger is."""
    found: str = request.param
    return found


@pytest.fixture
def fresh(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Path]]:
    """Makes folders, each with a migrated database of its own."""
    made: list[str] = []

    def make() -> Path:
        folder = tmp_path_factory.mktemp("home")
        if kind == "sqlite":
            shutil.copy(request.getfixturevalue("sqlite_template"), folder / "weir.db")
            url = url_of(folder / "weir.db")
        else:
            url = request.getfixturevalue("postgres_server").create()
            made.append(url)
        (folder / URL).write_text(url)
        return folder

    yield make
    for url in made:
        request.getfixturevalue("postgres_server").drop(url)


@pytest.fixture
def home(fresh: Callable[[], Path]) -> Path:
    """A folder with a migrated database."""
    return fresh()


@pytest.fixture
def folder(home: Path) -> Path:
    """Where the journal is."""
    return home / "journal"


@pytest.fixture
async def database(home: Path) -> AsyncIterator[Database]:
    """The database of ``home``."""
    database = Database(url_in(home))
    yield database
    await database.close()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was sent to the threads of SQLite connections, as it is sent."""
    sent: list[object] = []
    execute = aiosqlite.Connection._execute

    async def counted(connection: aiosqlite.Connection, call: Callable[..., Any], *values: Any, **named: Any) -> Any:
        sent.append(call)
        return await execute(connection, call, *values, **named)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    return sent
