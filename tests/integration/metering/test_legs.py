"""Answers that several attempts gave: what is paid for each, also when their process died in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.db.engine import Database
from gateway.metering.audit import audit
from gateway.metering.legs import share
from gateway.metering.record import Price, Progress, Record, frame
from gateway.metering.segments import SegmentWriter, new_writer_id
from gateway.metering.shipper import Shipper
from gateway.pricing.charge import payable, rates_id
from gateway.types.money import Rates
from gateway.types.tokens import Usage, UsageSource
from tests.integration.metering.books import LABELLED, query
from tests.integration.metering.samples import dims, opened, progressed

FEE = Rates(100_000, 300_000, request=5_000)
"""Rates with 5,000 nano-USD for each request."""


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_token_of_a_later_leg_is_either_paid_or_replayed(prompt: int, completion: int, again: int) -> None:
    """The team's share and what was replayed add up to what the engine counts, whatever that is."""
    own, replayed = share(Usage(prompt, completion), again)
    assert own.prompt == 0
    assert own.completion + replayed == prompt + completion
    assert own.completion == max(0, completion - again)


def test_the_rate_per_request_is_due_once() -> None:
    """A request is one request, however many engines it took."""
    usage = Usage(10, 20)
    assert payable(usage, FEE)[0].request == 5_000
    later = payable(Usage(0, 20), FEE, later=True)[0]
    assert (later.request, later.total) == (0, 20 * 300)
    assert payable(Usage(), FEE)[0].total == 0


@pytest.mark.parametrize("output", [7, 0])
async def test_the_legs_of_a_dead_worker_are_one_request(
    output: int, folder: Path, home: Path, database: Database
) -> None:
    """Each leg pays its last progress, the rate per request once, and only the last leg counts as a request."""
    folder.mkdir()
    price_id = rates_id(FEE)
    labels = dims(price_id=price_id, cost_id=0)
    first = opened(labels)
    failed, second = (opened(labels, first.request_id, attempt) for attempt in (2, 3))
    records: list[Record] = [Price(price_id, FEE), first, progressed(first, 40), failed, second]
    if output:
        records.append(Progress(second.request_id, 3, Usage(0, output), UsageSource.COUNTED))
    segment = SegmentWriter.create(folder, new_writer_id(), 1, [frame(record) for record in records])
    segment.close()
    shipper = Shipper(folder, database)
    assert (await shipper.ship()).orphans == 3
    rows = query(home, f"SELECT attempt, status, tokens_prompt, tokens_completion, charge_nano FROM {LABELLED}")
    assert sorted(rows) == [
        (1, "continued", 1_000, 40, 1_000 * 100 + 40 * 300 + 5_000),
        (2, "failed", 0, 0, 0),
        (3, "orphaned", 0, output, output * 300),
    ]
    assert query(home, "SELECT tokens, requests FROM model_day_total") == [(1_040 + output, 1)]
    assert (await audit(folder, database)).ok
    shipper.close()
