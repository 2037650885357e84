"""Boards over real databases: what the ledger holds is what they show, to the token and the nano-USD."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.config.egress import Egress
from gateway.config.snapshot import BoardsSpec, ConfigSnapshot, RoutingSpec
from gateway.db.engine import Database
from gateway.db.migrations import downgrade, migrate
from gateway.db.office import Premises
from gateway.leaderboard import office as boards_office
from gateway.leaderboard.boards import Boards
from gateway.leaderboard.milestones import keep_lines, lines_of, milestones
from gateway.leaderboard.office import Lines
from gateway.leaderboard.question import (
    APP_WINDOW,
    APPS,
    BOARD,
    BOARDS,
    DAYS,
    DECIDE,
    MILESTONES,
    RECORDS,
    SIGHT,
    STRANGERS,
    VISIT,
    AppWindow,
    Days,
    FirstOver,
    Lead,
    Question,
    RecordsQuestion,
    Sighting,
    Totals,
    Visit,
)
from gateway.leaderboard.store import BoardStore, Extent
from gateway.metering.audit import audit
from gateway.metering.places import BLOCK_DAYS
from gateway.metering.record import ANSWERED, Close, RowKind, Status
from gateway.types import ids
from gateway.types.errors import NotFound, RateLimited
from tests.fakes.postgres import query
from tests.integration.leaderboard.conftest import DAY, DAY_US, HOUR_US, Desk, used

SEED = int(os.environ.get("BOARDS_SEED", "7"))


def expected(rows: list[Close], by: str, first: int, last: int, team: str = "") -> dict[str, Totals]:
    """Return the totals of a window in plain Python."""
    found: dict[str, Totals] = {}
    for row in rows:
        labels = row.dims
        if not first <= ids.day(row.request_id) <= last or (team and labels.team != team):
            continue
        name = {
            "model": labels.model,
            "author": labels.model.partition("/")[0] if "/" in labels.model else "-",
            "team": labels.team,
            "app": labels.app,
            "endpoint": f"{labels.model} {labels.endpoint}",
        }[by]
        answered = row.kind is RowKind.USAGE and row.status in ANSWERED
        found[name] = found.get(name, Totals()) + Totals(
            row.usage.total, int(answered), row.charge.total, row.cost.total
        )
    return found


def random_rows(random: Random, count: int) -> list[Close]:
    """Return usage of a few days, teams, models, apps and outcomes."""
    return [
        used(
            random.randrange(1, 5_000),
            DAY + random.randrange(-3, 4),
            hour=random.uniform(0, 23.99),
            status=random.choice([Status.OK, Status.OK, Status.CLIENT_CANCEL, Status.FAILED, Status.ORPHANED]),
            kind=random.choice([RowKind.USAGE] * 9 + [RowKind.CORRECTION]),
            team=random.choice(["search", "chat"]),
            model=random.choice(["qwen/a", "qwen/b", "meta/c", "house"]),
            app=random.choice(["", "one.example", "two.example"]),
            endpoint=random.choice(["own/fp8/eu", "cloud"]),
        )
        for _ in range(count)
    ]


async def test_boards_are_the_ledger(office: Desk) -> None:
    """Whatever the order and however often batches are delivered: boards = rollups = ledger, for all and per team."""
    random = Random(SEED)
    rows = random_rows(random, 300)
    parts = [rows[start : start + 60] for start in range(0, len(rows), 60)]
    deliveries = [*parts, *random.sample(parts, 2)]
    random.shuffle(deliveries)
    await office.ship(*deliveries)
    assert (await audit(office.home / "journal", office.database)).ok
    for by in BOARDS:
        for team in ("", "search"):
            first, last = DAY, DAY + 2
            want, before = expected(rows, by, first, last, team), expected(rows, by, first - 3, first - 1, team)
            board = await office.ask(BOARD, Question(by, "tokens", first, last, team=team, limit=3))
            assert board.totals == sum(want.values(), Totals())
            later = await office.ask(BOARD, Question(by, "tokens", first + 3, last + 3, team=team, limit=3))
            assert later.previous == board.totals
            shown = sum((row.totals for row in board.rows), Totals())
            assert shown + board.other + board.unattributed == board.totals
            want.pop("", None)
            best = sorted(want, key=lambda name: (-want[name].tokens, name))[:3]
            assert [row.name for row in board.rows] == best
            for row in board.rows:
                assert row.totals == want[row.name]
                assert sum(row.series) == row.value == want[row.name].tokens
                assert row.previous_value == (before[row.name].tokens if row.name in before else None)


async def test_hours_are_the_ledger_too(office: Desk) -> None:
    """A board by the hour has the same sums, hour by hour."""
    rows = random_rows(Random(SEED + 1), 120)
    await office.ship(rows)
    first = DAY * 24
    for by in ("model", "endpoint", "author"):
        board = await office.ask(BOARD, Question(by, "spend", first, first + 47, "hour", "chat"))
        want = expected(rows, by, DAY, DAY + 1, "chat")
        assert {row.name: row.totals for row in board.rows} == {
            name: each for name, each in want.items() if each.charge_nano
        }
        for row in board.rows:
            assert sum(row.series) == row.value == want[row.name].charge_nano
    hours = [0] * 48
    for row in rows:
        hour = ids.hour(row.request_id) - first
        if 0 <= hour < 48 and row.dims.model == "qwen/a":
            hours[hour] += row.usage.total
    board = await office.ask(BOARD, Question("model", "tokens", first, first + 47, "hour"))
    assert next(row.series for row in board.rows if row.name == "qwen/a") == hours


async def test_tokens_per_dollar_of_an_author_is_not_a_sum(office: Desk) -> None:
    """A ratio of several models is that of their sums, in every point of the series too."""
    await office.ship([used(1_000, model="qwen/a"), used(3_000, model="qwen/b", status=Status.ORPHANED)])
    board = await office.ask(BOARD, Question("author", "tokens_per_dollar", DAY, DAY))
    paid = board.totals.charge_nano
    assert [(row.value, row.series) for row in board.rows] == [(4_000 * 10**9 // paid, [4_000 * 10**9 // paid])]
    assert board.rows[0].share is None


async def test_the_edges_of_a_day(office: Desk) -> None:
    """The last millisecond belongs to its day, midnight to the next one."""
    almost = 24 - 1 / 3_600_000
    await office.ship([used(10, hour=almost), used(100, DAY + 1, hour=0.0)])
    found = await office.ask(DAYS, Days(DAY, DAY + 1))
    assert [(each.day, each.tokens) for each in found] == [(DAY, [10]), (DAY + 1, [100])]


async def test_a_milestone_is_written_once_by_the_batch_that_passes_the_line(office: Desk) -> None:
    """The moment is that of the request that brought the total over; delivering it again changes nothing."""
    await keep_lines(office.database, [1_000, 5_000])
    first, second = [used(600, hour=1.0, model="qwen/a")], [used(400, hour=2.5, model="qwen/a"), used(50, hour=3.0)]
    await office.ship(first)
    assert await office.ask(MILESTONES) == []
    await office.ship(second)
    await office.ship(first, second)
    (found,) = await office.ask(MILESTONES)
    assert (found.model, found.line, found.day, found.total, found.first) == ("qwen/a", 1_000, DAY, 1_000, True)
    assert found.crossed_us == DAY * DAY_US + int(2.5 * HOUR_US)


async def test_a_batch_of_many_hours_tells_the_hour(office: Desk) -> None:
    """When a whole day is shipped at once, the crossing is still found in its hour; both lines are passed."""
    await keep_lines(office.database, [1_000, 2_000])
    await office.ship([used(500, hour=hour, model="qwen/a") for hour in (1.0, 5.0, 9.0, 13.0)] + [used(9, model="x/y")])
    found = {each.line: each for each in await office.ask(MILESTONES)}
    assert found[1_000].crossed_us == DAY * DAY_US + 5 * HOUR_US
    assert found[2_000].crossed_us == DAY * DAY_US + 13 * HOUR_US


async def test_the_first_over_a_line_stays_the_first(office: Desk) -> None:
    """Each model is told once a line, the first of all models marked; a day that comes late may be earlier."""
    await keep_lines(office.database, [1_000])
    await office.ship([used(2_000, DAY + 1, model="qwen/a")], [used(2_000, DAY + 2, model="meta/c")])
    await office.ship([used(2_000, DAY + 3, model="qwen/a")], [used(5_000, DAY, model="qwen/a")])
    found = [(each.model, each.day, each.first) for each in await milestones(office.database)]
    assert found == [("meta/c", DAY + 2, False), ("qwen/a", DAY, True)]


async def test_a_line_that_comes_later_finds_who_passed_it(office: Desk) -> None:
    """A new line is filled in from the rollups; one that is taken away hides its milestones."""
    await office.ship([used(700, hour=1.0, model="qwen/a"), used(700, hour=6.2, model="qwen/a")])
    assert await keep_lines(office.database, [1_000])
    assert not await keep_lines(office.database, [1_000])
    (found,) = await milestones(office.database)
    assert (found.model, found.day, found.crossed_us) == ("qwen/a", DAY, DAY * DAY_US + 7 * HOUR_US)
    await keep_lines(office.database, [9_000])
    assert await milestones(office.database) == []


async def test_records(office: Desk) -> None:
    """Biggest days, leads and firsts come from the same totals."""
    await keep_lines(office.database, [400])
    rows = [used(100 * (day + 1), DAY + day, model="qwen/a") for day in range(4)]
    await office.ship([*rows, used(150, DAY + 1, model="meta/c"), used(250, DAY + 1, model="meta/d", app="")])
    found = await office.ask(RECORDS, RecordsQuestion("model", "tokens", DAY, DAY + 3))
    assert (found.peaks[0].name, found.peaks[0].day, found.peaks[0].value) == ("qwen/a", DAY + 3, 400)
    assert found.longest == found.current == Lead("qwen/a", DAY + 2, DAY + 3)
    assert found.first_over == [FirstOver(400, "qwen/a", DAY + 3)]
    authors = await office.ask(RECORDS, RecordsQuestion("author", "tokens", DAY, DAY + 3))
    assert authors.first_over == [FirstOver(400, "meta", DAY + 1)]


async def test_what_first_visits_need_is_remembered_after_the_start(
    office: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The year of the model boards is read in small pieces; then a visit reads only days that are still counted."""
    monkeypatch.setattr(boards_office, "PAUSE_S", 0.0)
    today = time.time_ns() // 1000 // DAY_US
    await office.ship([used(100 + day, today - day, model="qwen/a") for day in range(60)])
    read, asked = BoardStore._read, list[Extent]()

    async def noted(store: BoardStore, how: Any, extents: Sequence[Extent], *more: Any) -> Any:
        asked.extend(extents)
        return await read(store, how, extents, *more)

    monkeypatch.setattr(BoardStore, "_read", noted)
    boards = Boards(BoardStore(office.database), tmp_path)
    await boards_office.read_ahead(boards)
    assert {extent.last - extent.first + 1 for extent in asked} == {BLOCK_DAYS}
    asked.clear()
    found = await boards.records(RecordsQuestion("model", "tokens", today - 365, today), [])
    board = await boards.board(Question("model", "tokens_per_dollar", today - 40, today))
    assert found.peaks[0].value == 159
    assert len(board.rows[0].series) == 41
    assert all(extent.last - extent.first + 1 < BLOCK_DAYS for extent in asked)


def sighting(app: str, key_id: str = "abcd1234", *, day: int = DAY, title: str = "", cap: int = 2) -> Sighting:
    """Return a request that says it comes from ``app``."""
    return Sighting(day, key_id, app, title, (), cap)


async def test_a_key_may_name_few_new_apps_a_day(office: Desk) -> None:
    """The cap is per key and day, counts each app once, and never an approved one."""
    names = ["a.example", "b.example", "a.example", "c.example", "d.example"]
    assert [await office.ask(SIGHT, sighting(name)) for name in names] == [True, True, True, False, False]
    assert await office.ask(SIGHT, sighting("c.example", "other000"))
    assert await office.ask(SIGHT, sighting("c.example", day=DAY + 1))
    await office.ask(DECIDE, "c.example", "approved", None)
    assert await office.ask(SIGHT, sighting("c.example"))
    assert not await office.ask(SIGHT, sighting("d.example"))
    assert {app.app for app in await office.ask(APPS, None)} == {"a.example", "b.example", "c.example"}


async def test_an_app_is_named_once_the_owner_says_so(office: Desk) -> None:
    """Pending and hidden apps are summed up in public; the owner's title goes before the caller's."""
    for app in ("a.example", "b.example"):
        await office.ask(SIGHT, sighting(app, title=f"Said {app}"))
    await office.ship([used(300, app="a.example"), used(200, app="b.example"), used(50, app="")])
    public = Question("app", "tokens", DAY, DAY, approved=True)
    board = await office.ask(BOARD, public)
    assert (board.rows, board.other.tokens, board.unattributed.tokens) == ([], 500, 50)
    assert (await office.ask(DECIDE, "a.example", "approved", "A")).title == "A"
    assert (await office.ask(DECIDE, "b.example", "hidden", None)).status == "hidden"
    board = await office.ask(BOARD, public)
    assert [(row.name, row.title, row.value) for row in board.rows] == [("a.example", "A", 300)]
    assert (board.other.tokens, board.totals.tokens) == (200, 550)
    listed = await office.ask(APP_WINDOW, AppWindow(DAY, DAY))
    assert [(app.app, app.tokens, app.requests) for app in listed] == [("a.example", 300, 1)]
    with pytest.raises(NotFound):
        await office.ask(DECIDE, "nobody.example", "approved", None)


async def test_visits_and_strangers(office: Desk) -> None:
    """The keeper counts who asks, and tells whose usage a ledger holds."""
    await office.ask(VISIT, Visit("key a", "team t", 1, 9))
    with pytest.raises(RateLimited):
        await office.ask(VISIT, Visit("key a", "team t", 1, 9))
    await office.ship([used(10, key_id="abcd1234")])
    assert await office.ask(STRANGERS, ("abcd1234",)) == []
    assert await office.ask(STRANGERS, ("other000",)) == ["abcd1234"]


async def test_a_ledger_from_before_the_boards_has_them_after_the_migration(office: Desk, database_url: str) -> None:
    """Taking the revision back and forth with data in it makes the same totals from the rollups, and knows the apps."""
    await office.ship(random_rows(Random(SEED + 2), 80))
    before = sorted(query(database_url, "SELECT * FROM board_day_total"))
    assert before
    await office.database.close()
    await downgrade(database_url, "0004_budget")
    await migrate(database_url)
    assert sorted(query(database_url, "SELECT * FROM board_day_total")) == before
    assert sorted(query(database_url, "SELECT app, status FROM app")) == [
        ("one.example", "pending"),
        ("two.example", "pending"),
    ]
    database = Database(database_url)
    assert (await audit(office.home / "journal", database)).ok
    await database.close()


async def test_an_audit_finds_a_board_that_lies(office: Desk, database_url: str, tmp_path: Path) -> None:
    """Totals that were tampered with are a mismatch."""
    await office.ship([used(10)])
    query(database_url, "UPDATE board_day_total SET tokens = tokens + 1 WHERE team = '' AND board = 'model'")
    report = await audit(tmp_path / "journal", office.database)
    assert not report.ok
    assert report.mismatches[0].startswith("board_day_total and usage_day differ")


async def test_hosts_with_other_lines_do_not_undo_each_other(office: Desk, tmp_path: Path) -> None:
    """The configuration that was read last decides; a host whose file did not change leaves it at that."""
    said = {"here": (1_000,), "there": (2_000, 3_000)}

    def host(name: str) -> Lines:
        def config() -> ConfigSnapshot:
            boards = BoardsSpec(milestones=said[name])
            return ConfigSnapshot(1, "", {}, {}, {}, RoutingSpec("balanced"), Egress(), (), (), boards=boards)

        return Lines(Premises(office.database, tmp_path, b"secret", config))

    here, there = host("here"), host("there")
    await here.turn()
    await there.turn()
    for _ in range(2):
        await here.turn()
        await there.turn()
    assert await lines_of(office.database) == [2_000, 3_000]
    said["here"] = (5_000,)
    await here.turn()
    await there.turn()
    assert await lines_of(office.database) == [5_000]


async def test_usage_of_a_day_long_past_is_on_the_board_that_was_asked_for_before(office: Desk) -> None:
    """Days are remembered, and still the series of a year is the ledger's as soon as the shipper has moved it."""
    rows = [used(1_000 + day, DAY - day, model=f"qwen/{day % 3}") for day in range(0, 360, 7)]
    await office.ship(rows)
    question = Question("model", "tokens", DAY - 365, DAY)

    def series(name: str) -> list[int]:
        values = dict.fromkeys(range(DAY - 365, DAY + 1), 0)
        for row in rows:
            if row.dims.model == name:
                values[ids.day(row.request_id)] += row.usage.total
        return list(values.values())

    for late in ((), [used(5_000, DAY - 200, model="qwen/1")], [used(7, DAY - 365, model="new/one"), used(9, DAY)]):
        if late:
            rows += late
            await office.ship(late)
        for _ in range(2):
            board = await office.ask(BOARD, question)
            assert {row.name: row.series for row in board.rows} == {row.name: series(row.name) for row in board.rows}
            assert sum(row.value for row in board.rows) == sum(row.usage.total for row in rows)
