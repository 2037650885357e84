"""An office of billing over a fresh database, on SQLite and then on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.billing.books import House, house


@pytest.fixture
async def home(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """An office in November 2026."""
    async with house(database_url, tmp_path) as made:
        yield made


@pytest.fixture
async def embedded(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[House]:
    """The same on SQLite alone, for what has nothing to do with the database."""
    (tmp_path / "weir.db").write_bytes(sqlite_template.read_bytes())
    async with house(f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}", tmp_path) as made:
        yield made
