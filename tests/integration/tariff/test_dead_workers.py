"""Answers whose worker died: priced from the segment alone, with the tiers and terms of when they were opened."""

from __future__ import annotations

from pathlib import Path

from gateway.db.engine import Database
from gateway.metering.audit import audit
from gateway.metering.record import Price, Progress, Record, frame
from gateway.metering.segments import SegmentWriter, new_writer_id
from gateway.metering.shipper import Shipper
from gateway.pricing.charge import rates_id
from gateway.types.money import LongContext, Rates, ServiceTier
from gateway.types.tokens import Usage, UsageSource
from tests.fakes.postgres import query
from tests.integration.metering.samples import dims, opened

LONG = Rates(2_000_000, 4_000_000)
FLEX = Rates(500_000, 1_000_000, tiers=(LongContext(1_000, Rates(1_000_000, 2_000_000)),))
TEAM = Rates(
    1_000_000,
    2_000_000,
    tiers=(LongContext(1_000, LONG),),
    service_tiers=(ServiceTier("flex", FLEX),),
    discount=1_000,
)


async def test_tiers_and_terms_outlive_the_worker(database_url: str, tmp_path: Path) -> None:
    """Both legs of a long answer at the flex tier pay the long flex rates, less the team's discount."""
    folder = tmp_path / "journal"
    folder.mkdir()
    labels = dims(price_id=rates_id(TEAM), cost_id=0, tier="flex")
    first = opened(labels)
    second = opened(labels, first.request_id, 2)
    records: list[Record] = [
        Price(rates_id(TEAM), TEAM),
        first,
        Progress(first.request_id, 1, Usage(2_000, 100), UsageSource.COUNTED),
        second,
        Progress(second.request_id, 2, Usage(0, 50), UsageSource.COUNTED),
    ]
    SegmentWriter.create(folder, new_writer_id(), 1, [frame(record) for record in records]).close()
    database = Database(database_url)
    shipper = Shipper(folder, database)
    assert (await shipper.ship()).orphans == 2
    shipper.close()
    rows = query(database_url, "SELECT attempt, charge_nano, discount_nano, charge_prompt FROM ledger ORDER BY attempt")
    assert rows == [
        (1, (2_000_000 + 200_000) * 9 // 10, (2_000_000 + 200_000) // 10, 1_800_000),
        (2, 90_000, 10_000, 0),
    ]
    assert query(database_url, "SELECT SUM(discount_nano) FROM usage_hour") == [(230_000,)]
    assert query(database_url, "SELECT discount FROM price") == [(1_000,)]
    report = await audit(folder, database)
    assert report.ok, report.mismatches
    await database.close()
