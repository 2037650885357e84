"""Kept decisions in the database: stored once, found, listed, forgotten. On SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from gateway.config.snapshot import DecisionsSpec, RoutingSpec
from gateway.db.engine import Database
from gateway.db.migrations import downgrade, migrate
from gateway.db.office import Premises
from gateway.routing.decisions.office import Store
from gateway.routing.decisions.record import Decision
from tests.fakes.fleet import backend, snapshot

DAY_US = 86_400_000_000


def decision(number: int, *, age_us: int = 0, tries: int = 0) -> Decision:
    """Return a decision that was kept so long ago."""
    at = time.time_ns() // 1_000 - age_us
    return Decision(bytes([number]) * 16, at, "m", "balanced", "own/a", "own/b" if tries else "own/a", tries, b"\x00")


async def test_decisions_are_kept_once_found_and_listed(database_url: str, tmp_path: Path) -> None:
    """A batch that comes twice is stored once; the newest come first; the table goes away and comes back."""
    database = Database(database_url)
    store = Store(Premises(database, tmp_path, b"", lambda: None))
    batch = [decision(1, age_us=3_000_000), decision(2, age_us=2_000_000, tries=1), decision(3)]
    assert await store.keep(batch) == 3
    assert await store.keep([*batch, decision(4)]) == 1
    assert await store.keep([]) == 0
    assert await store.find(batch[1].request_id) == batch[1]
    assert await store.find(b"\x09" * 16) is None
    assert [each.request_id[0] for each in await store.recent(3, False)] == [4, 3, 2]
    assert [each.request_id[0] for each in await store.recent(3, True)] == [2]
    await database.close()
    await downgrade(database_url, "0006_billing")
    await migrate(database_url)
    database = Database(database_url)
    assert await Store(Premises(database, tmp_path, b"", lambda: None)).recent(9, False) == []
    await database.close()


async def test_old_ones_and_too_many_are_forgotten(database_url: str, tmp_path: Path) -> None:
    """After the days that the configuration says, and beyond the number that it says, the oldest first."""
    kept = replace(snapshot([backend("a")]), routing=RoutingSpec("balanced", DecisionsSpec(days=2, most=2)))
    database = Database(database_url)
    store = Store(Premises(database, tmp_path, b"", lambda: kept))
    await store.keep([decision(number, age_us=number * DAY_US) for number in range(5)])
    await store.forget()
    assert [each.request_id[0] for each in await store.recent(9, False)] == [0, 1]
    await store.keep([decision(number, age_us=number * 1_000_000) for number in range(10, 14)])
    await store.forget()
    assert [each.request_id[0] for each in await store.recent(9, False)] == [0, 10]
    await database.close()
