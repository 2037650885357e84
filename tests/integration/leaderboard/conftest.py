"""Usage of any day for the books, shipped as real usage is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.db.engine import Database
from gateway.db.office import Office, Premises
from gateway.leaderboard.office import open_office
from gateway.metering.record import Close, RowKind, Status
from gateway.metering.shipper import Shipper
from gateway.pricing.charge import charge
from gateway.types.charge import NO_CHARGE
from gateway.types.method import Method
from gateway.types.tokens import Usage, UsageSource
from tests.integration.metering.samples import COST, PRICE, begin, dims, request_id_at

DAY = 20_600
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


def used(
    tokens: int,
    day: int = DAY,
    *,
    hour: float = 12.0,
    status: Status = Status.OK,
    kind: RowKind = RowKind.USAGE,
    **labels: str,
) -> Close:
    """Return a row of ``tokens`` tokens, a tenth of them made, at an hour of a day."""
    moment = day * DAY_US + int(hour * HOUR_US)
    usage = Usage(tokens - tokens // 10, tokens // 10)
    pays = status in {Status.OK, Status.CLIENT_CANCEL}
    return Close(
        request_id_at(moment),
        1,
        kind,
        dims(**labels),
        moment,
        status,
        "stop",
        200,
        usage,
        UsageSource.UPSTREAM,
        charge(usage, PRICE) if pays else NO_CHARGE,
        charge(usage, COST),
        20_000,
        1_000_000,
        900_000,
    )


class Desk:
    """The boards' office over a database, and the road by which usage gets there."""

    def __init__(self, database: Database, home: Path) -> None:
        self.database = database
        self.home = home
        self._office: Office = open_office(Premises(database, home, b"pepper", lambda: None))
        self._shipper = Shipper(home / "journal", database)

    async def ask(self, method: Method[Any], *arguments: Any) -> Any:
        """Return what the office answers."""
        return await self._office.handlers[method](*arguments)

    async def ship(self, *batches: Iterable[Close]) -> None:
        """Ship rows, each batch in a transaction of its own."""
        for batch in batches:
            journal = begin(self.home / "journal")
            for row in batch:
                journal.append(row)
            await journal.close()
            await self._shipper.ship()

    def close(self) -> None:
        """Give up the shipper's lock."""
        self._shipper.close()


@pytest.fixture
async def office(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """The office over SQLite, then over PostgreSQL."""
    database = Database(database_url)
    opened = Desk(database, tmp_path)
    yield opened
    opened.close()
    await database.close()
