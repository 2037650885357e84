"""A provider's invoice against the ledger, in a real database. On SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.billing.book import ledger_lines
from gateway.billing.invoice import read_invoice
from gateway.billing.methods import Reconciled
from gateway.billing.reconciliation import Reconciler
from gateway.billing.usage import usage_page
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading
from gateway.leaderboard.boards import Boards
from gateway.leaderboard.question import Question
from gateway.leaderboard.store import BoardStore
from gateway.metering.audit import audit
from gateway.metering.record import OWNER
from gateway.types.errors import BadRequest
from gateway.types.tokens import Usage
from tests.integration.tariff.test_hours import COST, DAY, answer, book, database

__all__ = ["database"]
DATE = "2024-10-04"
"""The day ``DAY``."""
ACME = {"backend": "acme", "provider": "acme", "upstream_model": "big-1", "cost": COST}


async def run(database: Database, invoice: str, *, dry: bool = False) -> list[Reconciled]:
    """Reconcile an invoice of acme."""
    return list(await Reconciler(database).reconcile("acme", read_invoice(invoice.encode()), "digest", dry))


async def sums(database: Database) -> tuple[int, int, int]:
    """Return cost and charge of the ledger, and the number of corrections."""
    query = "SELECT SUM(cost_nano), SUM(charge_nano), SUM(CASE WHEN kind = 'correction' THEN 1 ELSE 0 END) FROM ledger"
    async with reading(database) as session:
        return tuple(map(int, (await session.execute(text(query))).one()))  # type: ignore[return-value] # three


async def rows(database: Database) -> None:
    """Book an answer of acme that cost 0.30 USD and was charged 1 USD, one of another provider, and one more model."""
    await book(
        database,
        [
            answer(1, 1, Usage(1_000_000, 0), 5, model="qwen/big", endpoint="acme/fp8", **ACME),
            answer(
                2, 2, Usage(1_000_000, 0), 5, model="qwen/big", endpoint="acme-two", **(ACME | {"provider": "acme-two"})
            ),
            answer(3, 3, Usage(500, 0), 5, model="qwen/tiny", endpoint="acme", **(ACME | {"upstream_model": "tiny-1"})),
        ],
    )


async def test_the_difference_is_a_correction_once(database: Database, tmp_path: Path) -> None:
    """The recorded cost becomes what the invoice says, charges stay, and the same file again changes nothing."""
    await rows(database)
    cost, charged, _ = await sums(database)
    invoice = f"day,model,cost_usd,tokens\n{DATE},big-1,0.35,1000000\n{DATE},other,9,\n"
    found = {line.model: line for line in await run(database, invoice, dry=True)}
    assert (found["qwen/big"].outcome, found["qwen/big"].recorded) == ("differs", 300_000_000)
    assert (found["qwen/big"].invoiced_tokens, found["qwen/big"].recorded_tokens) == (1_000_000, 1_000_000)
    assert await sums(database) == (cost, charged, 0), "a dry run writes nothing"

    found = {line.model: line for line in await run(database, invoice)}
    assert {model: line.outcome for model, line in found.items()} == {
        "qwen/big": "corrected",
        "other": "unknown",
        "qwen/tiny": "not invoiced",
    }
    assert await sums(database) == (cost + 50_000_000, charged, 1)
    again = {line.model: line.outcome for line in await run(database, invoice)}
    assert again["qwen/big"] == "equal"
    assert await sums(database) == (cost + 50_000_000, charged, 1)

    async with reading(database) as session:
        query = (
            "SELECT team, provider, endpoint, model FROM ledger JOIN label_set USING (label_id) WHERE kind='correction'"
        )
        assert [tuple(row) for row in await session.execute(text(query))] == [(OWNER, "acme", "acme/fp8", "qwen/big")]
    (tmp_path / "journal").mkdir()
    report = await audit(tmp_path / "journal", database)
    assert report.ok, report.mismatches


async def test_a_mended_invoice_there_and_back(database: Database) -> None:
    """Each new version of an invoice moves the cost to what it says, however often it goes back and forth."""
    await rows(database)
    before, _, _ = await sums(database)
    for count, usd in enumerate(["0.35", "0.20", "0.35", "0.20", "0.30"], 1):
        await run(database, f"day,model,cost_usd\n{DATE},qwen/big,{usd}\n")
        cost, _, corrections = await sums(database)
        assert (cost - before, corrections) == (int(float(usd) * 100) * 10_000_000 - 300_000_000, count)


async def test_lines_of_a_day_are_added(database: Database) -> None:
    """Whatever the invoice calls the model; finer amounts are rounded once, in sum, half to even."""
    await rows(database)
    found = await run(
        database,
        f"model,cost_usd,day,note\nbig-1,0.1500000000004,{DATE}T10:00:00Z,x\nqwen/big,0.1500000000001,{DATE},y\n",
    )
    assert found[0].invoiced == 300_000_000
    assert found[0].outcome == "equal"


@pytest.mark.parametrize(
    ("invoice", "said"),
    [
        ("day,model\n", "no column cost_usd"),
        ("day,model,cost_usd\nyesterday,a,1\n", "line 2: day"),
        ("day,model,cost_usd\n0001-01-01T00:00+14:00,a,1\n", "line 2: day"),
        ("day,model,cost_usd\n9999-12-31T23:00-14:00,a,1\n", "line 2: day"),
        ("day,model,cost_usd\n2024-10-04,a,1e5\n", "line 2: cost_usd"),
        ("day,model,cost_usd\n2024-10-04,,1\n", "line 2: model"),
        ("day,model,cost_usd,tokens\n2024-10-04,a,1,1.5\n", "line 2: tokens"),
        ("day,model,cost_usd\n2024-10-04,a,1,234.56\n", "line 2 has more"),
        ("day,model,cost_usd,Cost_USD\n2024-10-04,a,1,2\n", "two columns cost_usd"),
        ("", "no column day"),
        ('day,model,cost_usd\n"2024', "not CSV"),
    ],
    ids=["column", "day", "first day", "last day", "cost", "model", "tokens", "more", "twice", "empty", "quote"],
)
def test_what_cannot_be_read_is_refused(invoice: str, said: str) -> None:
    """With its line."""
    with pytest.raises(BadRequest, match=said):
        read_invoice(invoice.encode())


async def test_what_cannot_be_compared_is_refused(database: Database) -> None:
    """No lines, days too far apart, a provider that the ledger has nothing of."""
    for invoice, said in (
        ("day,model,cost_usd\n", "no lines"),
        ("day,model,cost_usd\n2024-10-04,a,1\n2026-10-04,a,1\n", "spans over"),
        ("day,model,cost_usd\n2024-10-04,a,1\n", "nothing of a provider"),
    ):
        with pytest.raises(BadRequest, match=said):
            await run(database, invoice)


def test_the_day_is_the_one_of_the_dates() -> None:
    """The tests' date is the tests' day."""
    assert read_invoice(f"day,model,cost_usd\n{DATE},a,1\n".encode())[0].day == DAY


async def test_a_correction_is_on_no_teams_page(database: Database, tmp_path: Path) -> None:
    """Boards of teams, bills and the usage export leave it out; what a model cost has it."""
    await rows(database)
    boards = Boards(BoardStore(database), tmp_path)

    async def cost_of_models() -> int:
        board = await boards.board(Question("model", "requests", DAY, DAY))
        return board.totals.cost_nano

    before = await cost_of_models()
    await run(database, f"day,model,cost_usd\n{DATE},qwen/big,0.35\n")
    assert await cost_of_models() == before + 50_000_000
    for measure in ("tokens", "requests", "spend", "tokens_per_dollar"):
        board = await boards.board(Question("team", measure, DAY, DAY, basis="cost"))
        assert (board.names, [row.name for row in board.rows]) == (1, ["team-a"])
    async with reading(database) as session:
        assert {key.team for key, _ in await ledger_lines(session, DAY)} == {"team-a"}
        assert {row.labels[0] for row in await usage_page(session, None, DAY, DAY, None, 10)} == {"team-a"}
