"""The tables of the tariff, forwards and back with data in them. On SQLite and on PostgreSQL."""

from __future__ import annotations

from gateway.db.engine import Database
from gateway.db.migrations import downgrade, migrate
from gateway.tariff.allocation import Allocator
from gateway.tariff.margin import Margins
from gateway.tariff.store import TariffStore
from gateway.tariff.version import Hourly, Kind, VersionQuery
from gateway.types.tokens import Usage
from tests.fakes.postgres import query
from tests.integration.tariff.test_hours import DAY, TEAM, after, answer, book, rent


async def test_back_and_forth_with_data(database_url: str) -> None:
    """Taking the tariff back keeps ledger rows and their charges; versions, hours and discounts go with it."""
    database = Database(database_url)
    await rent(database, "gpu-a", Hourly(1_000, 2))
    await book(database, [answer(0, 1, Usage(1_000, 10), 5, team="search", price=TEAM, backend="gpu-a")])
    await Allocator(database, clock=after(1.1)).turn()
    assert await Margins(database).allocation(DAY * 24, DAY * 24, None)
    await database.close()
    assert query(database_url, "SELECT charge_nano, discount_nano FROM ledger") == [(918_000, 102_000)]

    await downgrade(database_url, "0002_access")
    assert query(database_url, "SELECT charge_nano FROM ledger") == [(918_000,)]
    assert query(database_url, "SELECT charge_nano FROM usage_day") == [(918_000,)]
    await migrate(database_url)
    assert query(database_url, "SELECT charge_nano, discount_nano FROM ledger") == [(918_000, None)]
    assert query(database_url, "SELECT discount_nano FROM usage_day") == [(0,)]

    database = Database(database_url)
    store = TariffStore(database)
    assert (await store.page(VersionQuery()), await store.history(Kind.HOUR)) == ((), ())
    await rent(database, "gpu-a", Hourly(1_000, 2))
    assert len(await store.history(Kind.HOUR)) == 1
    await database.close()
