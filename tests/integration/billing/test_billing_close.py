"""A closed period is final: its papers are the same bytes for ever, and what comes late is billed in the next one."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import col

from gateway.billing import methods, paper
from gateway.db.tables.billing import BillingLine, BillingPeriod, BillingStatement
from gateway.db.unit_of_work import writing
from gateway.types.charge import Charge
from gateway.types.errors import BadRequest, NotFound, Unavailable
from gateway.types.tokens import Usage
from tests.integration.billing.books import CHEAPER, DAY_US, House, close_of, correction_of, day, post, some
from tests.integration.billing.test_billing_sums import exported, rows_of


async def statement(home: House, period: str, team: str = "search") -> dict[str, Any]:
    """Return a statement."""
    found = await home.ask(methods.STATEMENT, (period, team, "json"))
    return dict(json.loads(found.content))


def at(text: str, hour: int = 12) -> int:
    """Return an hour of a day, in microseconds since 1970."""
    return day(text) * DAY_US + hour * 3_600_000_000


async def test_a_closed_period_is_the_same_bytes_for_ever(home: House) -> None:
    """Statements in every form, and FOCUS files in every format, do not change with late usage, names or issuers."""
    await post(home.database, some(40, day("2026-10-01"), day("2026-10-05"), 5))
    closed = await home.ask(methods.CLOSE, ("2026-10",))
    before = [await home.ask(methods.STATEMENT, ("2026-10", "search", form)) for form in paper.FORMS]
    files = [await exported(home, "focus", form, period="2026-10") for form in ("csv", "json", "parquet")]
    await post(home.database, some(20, day("2026-10-01"), day("2026-10-05"), 6))
    async with writing(home.database) as session:
        from gateway.db.tables.access import TeamRow

        await session.execute(update(TeamRow).values(name="Renamed"))
    home.configure(issuer="Somebody else")
    assert await home.ask(methods.CLOSE, ("2026-10",)) == closed
    assert [await home.ask(methods.STATEMENT, ("2026-10", "search", form)) for form in paper.FORMS] == before
    again = [await exported(home, "focus", form, period="2026-10") for form in ("csv", "json", "parquet")]
    assert again == files
    assert all(document.closed for document in before)
    assert b"Example Ltd" in before[2].content


async def test_late_usage_becomes_a_correction_of_the_next_open_period(home: House) -> None:
    """It keeps its own day, is billed where the books are still open, once, and says why it is there."""
    chance = random.Random(1)
    first = close_of(at("2026-10-20"), chance, rates=CHEAPER)
    await post(home.database, [first])
    await home.ask(methods.CLOSE, ("2026-10",))
    late = close_of(at("2026-10-20"), chance, rates=CHEAPER, usage=Usage(2_000, 10))
    await post(home.database, [late, correction_of(first, Charge(prompt=-1_000), Usage(-10))])
    october, november = await statement(home, "2026-10"), await statement(home, "2026-11")
    assert october["corrections"] == []
    assert [line["day"] for line in november["corrections"]] == ["2026-10-20"]
    correction = november["corrections"][0]
    due = late.charge.total - 1_000
    assert correction["reason"] == "late usage of a closed period"
    assert Decimal(correction["amount"]["effective"]) * 10**9 == due
    assert (correction["requests"], correction["prompt_tokens"]) == (1, 1_990)
    assert november["totals"]["corrections"] == correction["amount"]
    rows = rows_of(await exported(home, "focus", period="2026-11"))
    assert {row["ChargeClass"] for row in rows} == {"Correction"}
    assert {row["ChargePeriodStart"] for row in rows} == {"2026-10-20T00:00:00Z"}
    assert {row["BillingPeriodStart"] for row in rows} == {"2026-11-01T00:00:00Z"}
    home.now_us = day("2026-12-02") * DAY_US
    await home.ask(methods.CLOSE, ("2026-11",))
    closed = await statement(home, "2026-11")
    assert closed["corrections"] == november["corrections"]
    assert (await statement(home, "2026-12"))["corrections"] == []


async def test_a_correction_that_adds_up_to_nothing_is_still_billed(home: House) -> None:
    """Money moved from one class to another leaves every sum as it was; the close of the next period sees it."""
    chance = random.Random(1)
    first = close_of(at("2026-10-20"), chance)
    await post(home.database, [first, close_of(at("2026-11-01"), chance)])
    await home.ask(methods.CLOSE, ("2026-10",))
    await post(home.database, [correction_of(first, Charge(prompt=-500, cache_read=500))])
    home.now_us = day("2026-12-02") * DAY_US
    await home.ask(methods.CLOSE, ("2026-11",))
    rows = rows_of(await exported(home, "focus", period="2026-11"))
    moved = {row["ChargeDescription"]: row["BilledCost"] for row in rows if row["ChargeClass"] == "Correction"}
    assert sorted(moved.values()) == ["-0.0000005", "0.0000005"]
    assert all(name.endswith("correction") for name in moved)


async def test_ledger_rows_whose_lifetime_ended_are_no_difference(embedded: House) -> None:
    """When old rows are deleted, nobody gets money back; what is corrected afterwards is billed alone."""
    from gateway.db.tables.ledger import LedgerRow

    home = embedded
    chance = random.Random(1)
    first = close_of(at("2026-10-20"), chance)
    await post(home.database, [first, close_of(at("2026-10-20"), chance), close_of(at("2026-11-01"), chance)])
    await home.ask(methods.CLOSE, ("2026-10",))
    async with writing(home.database) as session:
        await session.execute(delete(LedgerRow).where(col(LedgerRow.day) == day("2026-10-20")))
    assert (await statement(home, "2026-11"))["corrections"] == []
    await post(home.database, [correction_of(first, Charge(prompt=-7))])
    home.now_us = day("2026-12-02") * DAY_US
    await home.ask(methods.CLOSE, ("2026-11",))
    corrections = (await statement(home, "2026-11"))["corrections"]
    assert [line["amount"]["effective"] for line in corrections] == ["-0.000000007"]


async def test_periods_are_closed_in_order_and_not_before_their_end(embedded: House) -> None:
    """A month that runs, one that is not the next, or none at all is refused with what would do."""
    home = embedded
    with pytest.raises(BadRequest, match="nothing was ever used"):
        await home.ask(methods.CLOSE, ("2026-10",))
    await post(
        home.database,
        [*some(20, day("2026-09-29"), day("2026-10-02"), 3), close_of(at("2026-11-01"), random.Random(2))],
    )
    with pytest.raises(BadRequest, match="the next one is 2026-09"):
        await home.ask(methods.CLOSE, ("2026-10",))
    with pytest.raises(BadRequest, match="ends with 2026-11-30"):
        await home.ask(methods.CLOSE, ("2026-11",))
    for wrong in ("2026-13", "October", "2026-1", "0000-01"):
        with pytest.raises(BadRequest, match="a period is a month"):
            await home.ask(methods.CLOSE, (wrong,))
    assert (await home.ask(methods.CLOSE, ("2026-09",))).state == "closed"
    states = await home.ask(methods.PERIODS)
    assert [(each.period, each.state) for each in states] == [
        ("2026-09", "closed"),
        ("2026-10", "open"),
        ("2026-11", "open"),
    ]


async def test_periods_close_by_themselves_when_that_is_configured(embedded: House) -> None:
    """The duty closes what ended long enough ago, month after month, and nothing without the key."""
    home = embedded
    await post(
        home.database,
        [*some(20, day("2026-09-29"), day("2026-10-02"), 3), close_of(at("2026-11-01"), random.Random(2))],
    )
    await home.office.close_due()
    assert (await home.ask(methods.PERIODS))[0].state == "open"
    home.configure(close_after_s=3 * 86_400.0)
    await home.office.close_due()
    assert [each.state for each in await home.ask(methods.PERIODS)] == ["closed", "open", "open"]
    home.now_us = day("2026-11-04") * DAY_US
    await home.office.close_due()
    assert [each.state for each in await home.ask(methods.PERIODS)] == ["closed", "closed", "open"]


async def test_the_database_refuses_to_change_what_is_closed(home: House) -> None:
    """Not even a statement past the program changes or deletes lines, statements or how far days were billed."""
    await post(home.database, some(30, day("2026-10-01"), day("2026-10-03"), 3))
    await home.ask(methods.CLOSE, ("2026-10",))
    for change in (
        update(BillingLine).values(charge_nano=0),
        delete(BillingLine),
        update(BillingStatement).values(name="x"),
        delete(BillingStatement),
    ):
        with pytest.raises((IntegrityError, DBAPIError, Unavailable)):
            async with writing(home.database) as session:
                await session.execute(change)
    assert (await statement(home, "2026-10"))["state"] == "closed"


async def test_a_close_that_broke_off_leaves_nothing_and_is_begun_anew(home: House) -> None:
    """Until its last transaction a close is invisible; another keeper's is waited for, one long silent taken over."""
    await post(home.database, some(60, day("2026-10-01"), day("2026-10-03"), 3))
    before = await statement(home, "2026-10")
    closing = home.office.closing
    assert await closing._claim("2026-10")
    await closing._bill("2026-10", day("2026-10-01"), late=False)
    assert await statement(home, "2026-10") == before
    assert [each.state for each in await home.ask(methods.PERIODS)] == ["open"]
    async with writing(home.database) as session:
        await session.execute(update(BillingPeriod).values(owner="another keeper"))
    with pytest.raises(Unavailable, match="by another keeper"):
        await home.ask(methods.CLOSE, ("2026-10",))
    home.now_us += 601 * 1_000_000
    closed = await home.ask(methods.CLOSE, ("2026-10",))
    after = await statement(home, "2026-10")
    assert (after["lines"], after["totals"]) == (before["lines"], before["totals"])
    lines = rows_of(await exported(home, "focus", period="2026-10"))
    assert len(
        {
            (row["SkuPriceId"], row["x_KeyId"], row["ChargePeriodStart"], row["SubAccountId"], row["ChargeDescription"])
            for row in lines
        }
    ) == len(lines)
    assert closed.lines > 0


async def test_a_damaged_statement_is_not_given_out(embedded: House) -> None:
    """What was kept is compared with its digest before anybody gets it."""
    home = embedded
    await post(home.database, some(30, day("2026-10-01"), day("2026-10-03"), 3))
    await home.ask(methods.CLOSE, ("2026-10",))
    async with writing(home.database) as session:
        # Only by opening the period first, because the database refuses it else.
        await session.execute(update(BillingPeriod).values(state="closing"))
        changed = update(BillingStatement).where(col(BillingStatement.team) == "search").values(digest="0" * 64)
        await session.execute(changed)
        await session.execute(update(BillingPeriod).values(state="closed"))
    with pytest.raises(Unavailable, match="is damaged"):
        await statement(home, "2026-10")


async def test_a_team_without_usage_has_an_empty_statement_and_an_unknown_one_none(embedded: House) -> None:
    """An empty bill is a bill; a name that is nobody's is not found."""
    await post(embedded.database, [close_of(at("2026-10-20"), random.Random(1))])
    for closed in (False, True):
        if closed:
            await embedded.ask(methods.CLOSE, ("2026-10",))
        empty = await statement(embedded, "2026-10", "ads")
        assert (empty["lines"], empty["totals"]["amount"]["effective"]) == ([], "0")
        with pytest.raises(NotFound):
            await statement(embedded, "2026-10", "nobody")
    with pytest.raises(BadRequest, match="json, csv, html"):
        await embedded.ask(methods.STATEMENT, ("2026-10", "ads", "pdf"))


async def test_a_page_to_print_shows_texts_as_they_are(embedded: House) -> None:
    """What callers and operators named is text on the page, never markup or script."""
    await post(embedded.database, [close_of(at("2026-10-20"), random.Random(1), model="<script>x</script>")])
    page = (await embedded.ask(methods.STATEMENT, ("2026-10", "search", "html"))).content.decode()
    assert "<script>" not in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "Team search &lt;&amp;&gt;" in page
