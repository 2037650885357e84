"""The made-up past of the demo, in a real ledger."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.access.keys import PREFIX
from gateway.keeper.process import serving
from gateway.keeper.service import Keeper
from gateway.leaderboard.question import APPS, BOARD, MILESTONES, Question, Totals
from gateway.sim.history.cast import CREWS, OUTAGE, PROGRAMS, STARS
from gateway.sim.history.fill import DAY_S, Filled, fill
from gateway.sim.history.past import MADE_UP, past, rates
from gateway.types import ids
from gateway.types.keys import NewKey
from tests.fakes.postgres import query

ANCHOR = 20_779
DAYS = 13


def test_the_past_is_the_same_for_the_same_seed() -> None:
    """Every row of a day depends on seed, day and day 0 alone, not on how much of the past is asked for."""
    rows = list(past(1, ANCHOR, ANCHOR - 20, ANCHOR - 1))
    assert rows == list(past(1, ANCHOR, ANCHOR - 20, ANCHOR - 1))
    later = [row for row in rows if ids.day(row.request_id) >= ANCHOR - 5]
    assert later == list(past(1, ANCHOR, ANCHOR - 5, ANCHOR - 1))
    assert rows != list(past(2, ANCHOR, ANCHOR - 20, ANCHOR - 1))
    assert len({(row.request_id, row.attempt) for row in rows}) == len(rows)
    assert [row.request_id for row in rows] == sorted(row.request_id for row in rows)


def test_the_past_has_a_story() -> None:
    """Growth, launches, weekends, an outage, and a day of more than 10**12 tokens of one model."""
    volumes: Counter[tuple[int, str]] = Counter()
    outage: Counter[str] = Counter()
    for row in past(1, ANCHOR, ANCHOR - 90, ANCHOR - 1):
        day = ids.day(row.request_id) - ANCHOR
        volumes[day, row.dims.model] += row.usage.total
        assert row.dims.user == MADE_UP
        assert row.dims.price_id in rates()
        if day == OUTAGE:
            outage[row.status] += 1
    for star in STARS:
        assert not any(volumes[day, star.id] for day in range(-90, max(-90, star.launched)))
        assert all(volumes[day, star.id] for day in range(max(-90, star.launched), 0))
    totals = {day: sum(volumes[day, star.id] for star in STARS) for day in range(-90, 0)}
    assert max(volumes.values()) > 10**12
    assert sum(totals[day] for day in range(-14, 0)) > 1.3 * sum(totals[day] for day in range(-90, -76))
    weekend = [total for day, total in totals.items() if (ANCHOR + day + 3) % 7 >= 5]
    weekdays = [total for day, total in totals.items() if (ANCHOR + day + 3) % 7 < 5]
    assert sum(weekend) / len(weekend) < 0.95 * sum(weekdays) / len(weekdays)
    assert outage["failed"] > 10
    assert outage["ok"] > outage["failed"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Filled]:
    """A home with a past of two weeks."""
    home = tmp_path_factory.mktemp("history")

    async def make() -> Filled:
        async with keeping(home) as keeper:
            return await fill(keeper, home, DAYS)

    return home, asyncio.run(make())


@asynccontextmanager
async def keeping(home: Path) -> AsyncIterator[Keeper]:
    """Run a keeper; what is in the journal is shipped when the block ends."""
    async with serving(home, url(home), b"pepper") as keeper:
        yield keeper


def url(home: Path) -> str:
    """Return the URL of the ledger in ``home``."""
    return f"sqlite+aiosqlite:///{home / 'weir.db'}"


async def test_all_books_agree(filled: tuple[Path, Filled]) -> None:
    """The past goes the road of real records, so journal, ledger, rollups and boards agree; boards have it all."""
    home, done = filled
    today = json.loads((home / "demo.history").read_text())["last"] + 1  # as it was when the past was made
    rows = list(past(1, today, today - DAYS, today - 1))
    async with keeping(home) as keeper:
        report = await keeper.audit()
        assert report.ok, report.mismatches
        assert (done.rows, report.ledger["requests"], report.journal["bytes"]) == (len(rows), len(rows), 0)
        board = await keeper.ask(BOARD, (Question("model", "tokens", today - DAYS, today - 1),))
        want = Totals(
            sum(row.usage.total for row in rows),
            sum(row.status != "failed" for row in rows),
            sum(row.charge.total for row in rows),
            sum(row.cost.total for row in rows),
        )
        assert board.totals == want
        assert board.made_up
        assert len(board.rows) == len(STARS)
        milestones = await keeper.ask(MILESTONES)
        first = next(each for each in milestones if each.line == 10**12 and each.first)
        assert first.crossed_us // (DAY_S * 10**6) == first.day
        assert first.total > 10**12
        assert {app.app for app in await keeper.ask(APPS, ("approved",))} == {
            program.host for program in PROGRAMS if program.host
        }
        keys = await keeper.keys()
        assert {key.key_id for key in keys} == {key_id for crew in CREWS for key_id in crew.keys}
        assert all(key.disabled for key in keys)


async def test_a_second_start_does_not_double(filled: tuple[Path, Filled], tmp_path: Path) -> None:
    """Nothing is written twice: not after a start, nor when the note of the first one was lost."""
    home = shutil.copytree(filled[0], tmp_path / "again")
    before = query(url(home), "SELECT COUNT(*), SUM(tokens_prompt), SUM(charge_nano) FROM ledger")
    async with keeping(home) as keeper:
        assert await fill(keeper, home, DAYS) == Filled()
    (home / "demo.history").unlink()
    async with keeping(home) as keeper:
        assert (await fill(keeper, home, DAYS)).rows == filled[1].rows
    assert query(url(home), "SELECT COUNT(*), SUM(tokens_prompt), SUM(charge_nano) FROM ledger") == before
    async with keeping(home) as keeper:
        assert (await keeper.audit()).ok


async def test_a_later_start_adds_the_days_since(filled: tuple[Path, Filled], tmp_path: Path) -> None:
    """The past goes on where it ended, told by the same day 0."""
    home = shutil.copytree(filled[0], tmp_path / "later")
    note = json.loads((home / "demo.history").read_text())
    today = int(time.time()) // DAY_S
    (home / "demo.history").write_text(json.dumps(note | {"last": note["last"] - 2}))
    async with keeping(home) as keeper:
        done = await fill(keeper, home, DAYS)
    assert done.rows == len(list(past(1, today, today - 2, today - 1)))
    assert json.loads((home / "demo.history").read_text()) == note
    assert query(url(home), "SELECT COUNT(*) FROM ledger") == [(filled[1].rows,)]


async def test_a_ledger_with_other_data_is_left_alone(tmp_path: Path) -> None:
    """Where somebody else has a key, or usage that is not the demo's, nothing is written."""
    home = tmp_path / "other"
    async with keeping(home) as keeper:
        own = await keeper.create_key(NewKey("demo", "default", secret=f"{PREFIX}demodemo-{'0' * 64}"))
        issued = await keeper.create_key(NewKey("somebody's", "default"))
        refused = await fill(keeper, home, DAYS, own_keys=(own.record.key_id,))
        assert refused == Filled(foreign=issued.record.key_id)
        await keeper.revoke_key(issued.record.key_id)
        query(
            url(home),
            "INSERT INTO usage_day (day, team, key_id, model, endpoint, app, tier, status, requests, charge_nano, "
            f"cost_nano, ttft, duration, throughput) VALUES (1, 'default', '{issued.record.key_id}', 'm', 'e', '', "
            "'default', 'ok', 1, 0, 0, '', '', '')",
        )
        assert (await fill(keeper, home, DAYS, own_keys=(own.record.key_id,))).foreign == issued.record.key_id
        assert not (home / "demo.history").exists()
        assert [team.slug for team in await keeper.teams()] == ["default"]
        assert await fill(keeper, home, 0) == Filled()
