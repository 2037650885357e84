"""Fixtures for everything that lends of budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.db.tables.access import TeamRow
from gateway.db.unit_of_work import writing
from tests.integration.access.lending import Clock, Host


@pytest.fixture
async def hosts(database_url: str) -> AsyncIterator[list[Host]]:
    """Two hosts over one database, their treasuries open."""
    clock = Clock()
    found = [Host("host-a", database_url, clock), Host("host-b", database_url, clock)]
    async with writing(found[0].database) as session:
        session.add(TeamRow(slug="t", name="T", created_at=0))
    for host in found:
        await host.treasury.open()
    yield found
    for host in found:
        await host.treasury.close()  # what is being leased ahead ends before its database does
        await host.database.close()
