"""Lines are what their ledger rows are, whatever engines reported."""

from __future__ import annotations

import asyncio
import random
import shutil
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.billing.book import BILLABLE, decode, ledger_lines
from gateway.billing.line import NOTHING, Amounts, Line, LineKey
from gateway.billing.statement import Sums
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading
from gateway.metering.record import ANSWERED, Close, RowKind
from gateway.types.ids import day as day_of
from gateway.types.money import usd_text
from tests.integration.billing.books import post, some

_DAYS = count(20_000)


def due(closes: list[Close]) -> dict[LineKey, Amounts]:
    """Return the lines of some ledger rows, in plain Python."""
    lines: dict[LineKey, Amounts] = {}
    for close in closes:
        discount = tuple(getattr(close.discount, name, 0) for name in close.charge.__struct_fields__)
        charge = tuple(getattr(close.charge, name) for name in close.charge.__struct_fields__)
        carries = int(sum(charge) != 0 or sum(discount) != 0)
        usage = close.kind is RowKind.USAGE
        if close.status not in BILLABLE and not carries and usage:
            continue
        dims = close.dims
        key = LineKey(
            *(dims.team, day_of(close.request_id), dims.key_id, dims.model, dims.endpoint, dims.tier, dims.price_id),
            close.kind.value,
            carries,
        )
        tokens = close.usage.split() if usage else close.usage
        amounts = Amounts(
            1,
            int(usage and close.status in ANSWERED),
            int(bool(charge[7] or discount[7])),
            tuple(getattr(tokens, name) for name in tokens.__struct_fields__),
            charge,
            discount,
        )
        lines[key] = lines.get(key, NOTHING).plus(amounts)
    return {key: amounts for key, amounts in lines.items() if not amounts.empty}


@pytest.fixture(scope="module")
def url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database for all examples: each has a day of its own."""
    path = tmp_path_factory.mktemp("lines") / "weir.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@given(st.integers(0, 2**32), st.integers(0, 25))
@example(5830, 9)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_and_statements_add_up_to_their_ledger_rows(url: str, seed: int, size: int) -> None:
    """Every key, count, class and amount, also of rows whose parts are more than their totals; and the statement's."""
    day = next(_DAYS)

    async def compare() -> None:
        closes = list(some(size, day, day, seed))
        random.Random(seed).shuffle(closes)
        database = Database(url)
        await post(database, closes)
        async with reading(database) as session:
            packed = await ledger_lines(session, day)
        await database.close()
        expected = due(closes)
        assert [key for key, _ in packed] == sorted(expected)
        assert {key: decode(detail) for key, detail in packed} == expected
        sums = Sums()
        sums.add(Line("2024-10", key, decode(detail)) for key, detail in packed)
        stated = sums.statement("2024-10", "t", "T", issuer="X", state="open", closed_at=None)
        charge = sum(close.charge.total for close in closes)
        assert stated.totals.amount.effective == usd_text(charge)

    asyncio.run(compare())
