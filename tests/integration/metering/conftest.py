"""A fresh ledger database and a journal folder for each test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.db.engine import Database
from gateway.db.migrations import migrate


def url_of(path: Path) -> str:
    """Return the database URL of an SQLite file."""
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy, because migrating each one anew would take most of the time of the tests."""
    path = tmp_path_factory.mktemp("template") / "weir.db"
    asyncio.run(migrate(url_of(path)))
    return path


@pytest.fixture
def fresh(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders that hold nothing but a migrated ``weir.db``."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("home")
        shutil.copy(migrated, folder / "weir.db")
        return folder

    return make


@pytest.fixture
def home(fresh: Callable[[], Path]) -> Path:
    """A folder with a migrated ``weir.db``."""
    return fresh()


@pytest.fixture
def folder(home: Path) -> Path:
    """Where the journal is."""
    return home / "journal"


@pytest.fixture
async def database(home: Path) -> AsyncIterator[Database]:
    """The database of ``home``."""
    database = Database(url_of(home / "weir.db"))
    yield database
    await database.close()
