"""Charges in the books without a request: the daily rollup and its tallies, as the shipper would have written them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.bulk import bulk_on
from gateway.db.tables.ledger import UsageDay
from gateway.metering import tallies
from gateway.metering.rollups import SUMS


@dataclass(frozen=True, slots=True)
class Charged:
    """A bucket that holds a charge alone."""

    nano: int

    @property
    def sums(self) -> list[int]:
        """In the order of ``SUMS``."""
        return [self.nano if name == "charge_nano" else 0 for name in SUMS]


async def charge(session: AsyncSession, day: int, team: str, key: str, model: str, nano: int) -> None:
    """Charge a key's request."""
    endpoint, app, tier, status = "e", "", "default", "ok"
    labels = (team, key, model, endpoint, app, tier, status)
    row = await session.get(UsageDay, (day, *labels))
    if row is None:
        row = UsageDay(
            day=day,
            team=team,
            key_id=key,
            model=model,
            endpoint=endpoint,
            app=app,
            tier=tier,
            status=status,
            ttft=b"",
            duration=b"",
            throughput=b"",
        )
        session.add(row)
    row.charge_nano += nano
    await session.flush()
    await tallies.post(await bulk_on(await session.connection()), {(day, *labels): Charged(nano)}, SUMS)
