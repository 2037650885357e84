"""Every token once, also on paper: ledger, rollups, statements and exports have the same sums, to the nano-USD."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.billing import methods
from gateway.billing.export import export_of, pieces, selection
from tests.fakes.postgres import query
from tests.integration.billing.books import TEAMS, House, day, house, post, some

BILLABLE = "('ok', 'client_cancel', 'continued', 'orphaned')"


async def exported(home: House, dataset: str, form: str = "csv", team: str | None = None, **time: str) -> bytes:
    """Return an export."""
    export = export_of(dataset, form, selection(team, time.get("period"), time.get("first"), time.get("last")))
    return b"".join([piece async for piece in pieces(home, export)])


def rows_of(data: bytes) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(data.decode())))


def nano(total: Decimal) -> int:
    """Return USD in nano-USD."""
    assert total * 10**9 == int(total * 10**9)
    return int(total * 10**9)


def ledger_sums(url: str, where: str = "1 = 1") -> tuple[int, int]:
    """Return charge and discount in the ledger."""
    sql = (
        "SELECT COALESCE(SUM(charge_nano), 0), COALESCE(SUM(discount_nano), 0) "
        f"FROM ledger JOIN label_set USING (label_id) WHERE {where}"
    )
    charge, discount = query(url, sql)[0]
    return int(charge), int(discount)


async def statements(home: House, period: str) -> tuple[int, int]:
    """Return charge and discount of all statements of a period, from their totals and from their lines."""
    charge = discount = 0
    for team in TEAMS:
        found = await home.ask(methods.STATEMENT, (period, team, "json"))
        document: dict[str, Any] = json.loads(found.content)
        lines = [*document["lines"], *document["corrections"]]
        for name in ("effective", "discount", "list"):
            total = Decimal(document["totals"]["amount"][name])
            assert total == sum(Decimal(line["amount"][name]) for line in lines)
        charge += nano(Decimal(document["totals"]["amount"]["effective"]))
        discount += nano(Decimal(document["totals"]["amount"]["discount"]))
    return charge, discount


def focus_sums(data: bytes) -> tuple[int, int]:
    """Return charge and discount of a FOCUS export."""
    rows = rows_of(data)
    charge = nano(sum((Decimal(row["BilledCost"]) for row in rows), Decimal()))
    listed = nano(sum((Decimal(row["ListCost"]) for row in rows), Decimal()))
    assert charge == nano(sum((Decimal(row["EffectiveCost"]) for row in rows), Decimal()))
    return charge, listed - charge


async def test_all_books_agree(database_url: str, tmp_path: Path) -> None:
    """Open or closed, with late usage and corrections: ledger = rollups = statements = FOCUS = usage export."""
    seed = 1
    async with house(database_url, tmp_path) as home:
        first, last = day("2026-09-29"), day("2026-10-02")
        await post(home.database, some(90, first, last, seed))
        await the_books_agree(home, database_url)
        await home.ask(methods.CLOSE, ("2026-09",))
        await post(home.database, some(30, first, last, seed + 100))
        await the_books_agree(home, database_url)
        await home.ask(methods.CLOSE, ("2026-10",))
        await post(home.database, some(30, first, last, seed + 200))
        await the_books_agree(home, database_url)


async def the_books_agree(home: House, url: str) -> None:
    """Compare all books."""
    due = ledger_sums(url)
    assert due == tuple(map(int, query(url, "SELECT SUM(charge_nano), SUM(discount_nano) FROM usage_day")[0]))
    periods = [state.period for state in await home.ask(methods.PERIODS)]
    stated = [await statements(home, period) for period in periods]
    assert (sum(each[0] for each in stated), sum(each[1] for each in stated)) == due
    states = await home.ask(methods.PERIODS)
    assert [(state.charge_nano, state.discount_nano) for state in states] == stated
    for period, sums in zip(periods, stated, strict=True):
        assert focus_sums(await exported(home, "focus", period=period)) == sums
    every = await exported(home, "focus", first="2026-09-01", last="2026-11-30")
    assert focus_sums(every) == due
    days = await exported(home, "focus", first="2026-10-01", last="2026-10-02")
    between = f"day BETWEEN {day('2026-10-01')} AND {day('2026-10-02')}"
    assert focus_sums(days) == ledger_sums(url, between)
    for team in TEAMS:
        alone = await exported(home, "focus", team=team, first="2026-09-01", last="2026-11-30")
        assert focus_sums(alone) == ledger_sums(url, f"team = '{team}'")
    the_tokens_agree(url, every)
    usage = rows_of(await exported(home, "usage", first="2026-09-01", last="2026-11-30"))
    assert nano(sum((Decimal(row["effective_usd"]) for row in usage), Decimal())) == due[0]
    assert nano(sum((Decimal(row["discount_usd"]) for row in usage), Decimal())) == due[1]


def the_tokens_agree(url: str, data: bytes) -> None:
    """Compare tokens: what a team may pay for is in the export, class by class and no token twice."""
    where = f"status IN {BILLABLE} OR charge_nano <> 0"
    sql = f"SELECT SUM(tokens_prompt), SUM(tokens_completion) FROM ledger JOIN label_set USING (label_id) WHERE {where}"
    prompt, completion = map(int, query(url, sql)[0])
    meters: dict[str, int] = {}
    for row in rows_of(data):
        if row["ConsumedUnit"] == "Tokens":
            meters[row["SkuMeter"]] = meters.get(row["SkuMeter"], 0) + int(row["ConsumedQuantity"])
    assert sum(meters.values()) == prompt + completion
    assert {"Input Tokens", "Output Tokens", "Cache Read Input Tokens", "Reasoning Output Tokens"} <= set(meters)
