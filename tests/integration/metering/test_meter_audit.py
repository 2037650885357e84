"""The audit finds what is wrong, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.db.engine import Database
from gateway.metering.audit import audit
from gateway.metering.shipper import Shipper
from tests.integration.metering.books import query
from tests.integration.metering.samples import begin, closed, meter, opened


def change(home: Path, *statements: str) -> None:
    """Falsify the books in ``home``."""
    for statement in statements:
        query(home, statement)


async def test_empty_books_agree(folder: Path, database: Database) -> None:
    """A gateway that never ran has nothing to complain of, not even a journal."""
    report = await audit(folder, database)
    assert report.ok
    assert report.journal["segments"] == report.ledger["requests"] == 0


async def test_true_books_agree_and_are_counted(folder: Path, database: Database) -> None:
    """The report says what is where: shipped and not yet shipped, by status, and the sums of each book."""
    journal, shipper = begin(folder), Shipper(folder, database)
    ends = meter(journal, 10) + meter(journal, 5, team="team-b")
    await shipper.ship()
    size = shipper._backlog.segments
    later = meter(journal, 3)
    report = await audit(folder, database)
    assert report.ok
    assert report.mismatches == ()
    assert report.journal["shipped_records"] == 15
    assert report.journal["segments"] == len(size) == 1
    assert 0 < report.journal["unshipped_bytes"] < report.journal["bytes"]
    assert report.ledger["rows_ok"] == report.ledger["requests"] == 15
    assert report.ledger["charge_nano"] == sum(end.charge.total for end in ends)
    assert report.rollups["hour_charge_nano"] == report.rollups["day_charge_nano"] == report.ledger["charge_nano"]
    assert report.rollups["model_day_tokens"] == sum(end.usage.total for end in ends)
    await shipper.ship()
    report = await audit(folder, database)
    assert (report.ledger["requests"], report.journal["unshipped_bytes"]) == (15 + len(later), 0)
    await journal.close()
    shipper.close()


async def test_what_is_not_for_the_ledger_is_not_waited_for(folder: Path, database: Database) -> None:
    """A journal in which nothing has ended since has nothing to ship: nobody is asked to come again for its head."""
    journal, shipper = begin(folder), Shipper(folder, database)
    start = opened()
    journal.append(start)
    assert (await audit(folder, database)).journal["unshipped_bytes"] == 0
    journal.append(closed(start))
    await journal.commit()
    report = await audit(folder, database)
    assert 0 < report.journal["unshipped_bytes"] <= report.journal["bytes"]
    journal.append(opened())
    assert (await audit(folder, database)).journal["unshipped_bytes"] == report.journal["unshipped_bytes"]
    await shipper.ship()
    assert (await audit(folder, database)).journal["unshipped_bytes"] == 0
    await journal.close()
    shipper.close()


@pytest.mark.parametrize(
    ("falsehood", "complaint"),
    [
        ("UPDATE usage_hour SET tokens_prompt = tokens_prompt + 1", "usage_hour and the ledger differ"),
        ("UPDATE usage_day SET requests = requests - 1", "usage_day and usage_hour differ"),
        ("UPDATE usage_day SET charge_nano = 0", "usage_day and usage_hour differ"),
        ("DELETE FROM usage_hour", "usage_hour and the ledger differ"),
        ("UPDATE model_day_total SET tokens = tokens + 1", "model_day_total and the ledger differ"),
        ("UPDATE model_day_total SET requests = 0", "model_day_total and the ledger differ"),
        ("INSERT INTO model_day_total VALUES (1, 'ghost', 5, 5)", "model_day_total and the ledger differ"),
        ("DELETE FROM ledger WHERE request_id = (SELECT MIN(request_id) FROM ledger)", "are not in the ledger"),
        ("UPDATE ledger SET charge_nano = charge_nano + 1", "10 ledger rows have a charge"),
        ("UPDATE ledger SET cost_image = 9", "10 ledger rows have a cost"),
        ("DELETE FROM price", "10 ledger rows name rates"),
        ("DELETE FROM label_set", "10 ledger rows name labels"),
        ("UPDATE label_set SET team = 'other'", "1 label sets are not those that their ids were made of"),
        ("UPDATE label_set SET status = 'failed'", "model_day_total and the ledger differ"),
    ],
)
async def test_every_falsehood_is_found(
    folder: Path, home: Path, database: Database, falsehood: str, complaint: str
) -> None:
    """Whatever book is changed by hand, the audit says which one."""
    journal, shipper = begin(folder), Shipper(folder, database)
    meter(journal, 10)
    await shipper.ship()
    assert (await audit(folder, database)).ok
    change(home, falsehood)
    report = await audit(folder, database)
    assert not report.ok
    assert any(complaint in sentence for sentence in report.mismatches), report.mismatches
    await journal.close()
    shipper.close()


async def test_many_differences_are_summed_up(folder: Path, home: Path, database: Database) -> None:
    """A report stays readable when everything is wrong."""
    journal, shipper = begin(folder), Shipper(folder, database)
    for number in range(12):
        meter(journal, 1, team=f"team-{number}")
    await shipper.ship()
    change(home, "DELETE FROM usage_day")
    report = await audit(folder, database)
    days = [each for each in report.mismatches if each.startswith("usage_day and ")]
    assert len(days) == 6
    assert days[-1].endswith("in 7 more places.")
    await journal.close()
    shipper.close()
