"""What went with teams' own keys: ledger and rollups have the same sums, also of rows from before there were any.

On SQLite and on PostgreSQL.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.db.engine import Database
from gateway.db.migrations import downgrade, migrate
from gateway.metering.audit import audit
from gateway.metering.shipper import Shipper
from gateway.types.charge import Charge
from gateway.types.money import Rates
from gateway.types.tokens import Usage
from gateway.types.upstream_keys import OWN_KEY
from tests.integration.metering.books import URL, query
from tests.integration.metering.samples import begin, closed, dims, meter, opened

BYOK = "byok_requests, byok_list_nano, byok_charge_nano"
SUMS = "SELECT SUM(byok_requests), SUM(byok_list_nano), SUM(byok_charge_nano) FROM usage_"


async def test_sums_of_own_keys_are_those_of_the_ledger(empty_database_url: str, tmp_path: Path) -> None:
    """Shipped, migrated back and forth: list price and fee of own keys alone, by hour and by day; the audit agrees."""
    url = empty_database_url
    (tmp_path / URL).write_text(url)
    await migrate(url)
    journal = begin(tmp_path / "journal")
    journal.declare(OWN_KEY, Rates(0, 0))
    meter(journal, 3)
    for number in range(4):
        start = opened(dims(cost_id=OWN_KEY, model=f"m{number % 2}"))
        journal.append(start)
        fee, discount = Charge(prompt=5, completion=1), Charge(prompt=95, completion=29)
        end = msgspec.structs.replace(
            closed(start, Usage(1_000, 100, cache_write=9, cache_write_1h=4)),
            charge=fee,
            cost=Charge(),
            discount=discount,
        )
        journal.append(end)
    await journal.close()
    database = Database(url)
    shipper = Shipper(tmp_path / "journal", database)
    assert (await shipper.ship()).inserted == 7
    shipper.close()

    async def agreed() -> None:
        for table in ("hour", "day"):
            assert [tuple(map(int, row)) for row in query(tmp_path, SUMS + table)] == [(4, 4 * 130, 4 * 6)]
        found = await audit(tmp_path / "journal", database)
        assert found.ok, found.mismatches

    await agreed()
    assert query(tmp_path, "SELECT SUM(tokens_cache_write_1h) FROM usage_day") == [(16,)]
    before = query(tmp_path, f"SELECT model, {BYOK} FROM usage_day ORDER BY model")
    query(tmp_path, "UPDATE usage_day SET byok_list_nano = byok_list_nano + 1 WHERE model = 'm0'")
    assert not (await audit(tmp_path / "journal", database)).ok
    await database.close()

    # What a gateway of before has written knows nothing of an hour's cache.
    query(tmp_path, "UPDATE ledger SET tokens_cache_write_1h = 0")
    await downgrade(url, "0013_console")
    await migrate(url)
    database = Database(url)
    await agreed()
    assert query(tmp_path, f"SELECT model, {BYOK} FROM usage_day ORDER BY model") == before
    await database.close()
