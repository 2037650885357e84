"""The sums hold on the demo's made-up past as well: ledger = rollups = boards = statements = exports."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from gateway.billing import methods
from gateway.billing.export import export_of, pieces, selection
from gateway.billing.focus_check import check_file
from gateway.keeper.process import serving
from gateway.keeper.service import Keeper
from gateway.sim.history.fill import fill
from tests.fakes.postgres import query

DAYS = 32
"""Long enough to hold the end of a month, whatever the day is."""


async def focus(keeper: Keeper, path: Path, period: str) -> tuple[Decimal, Decimal]:
    """Export a period, check the rules and return what is billed and the list price."""
    export = export_of("focus", "jsonl", selection(None, period, None, None))
    path.write_bytes(b"".join([piece async for piece in pieces(keeper, export)]))
    report = check_file(path)
    assert report.problems == []
    sums = export.manifest["sums"]
    return Decimal(sums["BilledCost"]), Decimal(sums["ListCost"])


async def test_the_made_up_past_adds_up(sqlite_template: Path, tmp_path: Path) -> None:
    """A month is closed, the other is open, and all books agree to the nano-USD."""
    (tmp_path / "weir.db").write_bytes(sqlite_template.read_bytes())
    url = f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}"
    async with serving(tmp_path, url, b"pepper") as keeper:
        assert (await fill(keeper, tmp_path, DAYS)).rows > 1_000
        await keeper.shipper.ship()
        first = (await keeper.ask(methods.PERIODS))[0]
        await keeper.ask(methods.CLOSE, (first.period,))
        states = await keeper.ask(methods.PERIODS)
        assert [state.state for state in states] == ["closed", "open"]
        assert (states[0].charge_nano, states[0].discount_nano) == (first.charge_nano, first.discount_nano)
        exports = [await focus(keeper, tmp_path / "focus.jsonl", state.period) for state in states]
    due = query(url, "SELECT SUM(charge_nano), SUM(COALESCE(discount_nano, 0)) FROM ledger")[0]
    assert due[0] > 10**9
    assert query(url, "SELECT SUM(charge_nano), SUM(discount_nano) FROM usage_day")[0] == due
    assert query(url, "SELECT SUM(charge_nano) FROM board_day_total WHERE board = 'team' AND team = ''")[0][0] == due[0]
    assert (sum(state.charge_nano for state in states), sum(state.discount_nano for state in states)) == due
    assert sum(billed for billed, _ in exports) * 10**9 == due[0]
    assert sum(listed for _, listed in exports) * 10**9 == sum(due)
