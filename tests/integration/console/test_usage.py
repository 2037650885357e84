"""What pages say of usage against the ledger itself, over the demo's made-up past."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import structs
from sqlalchemy import text

from gateway.console.kept import Kept
from gateway.console.measure import (
    GROUPS,
    REQUESTS,
    REST,
    SPEED,
    USAGE,
    Grain,
    Pick,
    RequestRow,
    RequestsQuestion,
    UsageQuestion,
)
from gateway.console.steering import steer
from gateway.console.usage import Usage
from gateway.db import changes
from gateway.db.bulk import bulk
from gateway.db.unit_of_work import reading
from gateway.keeper.service import Keeper
from gateway.metering import settled
from gateway.sim.history.fill import fill
from gateway.types import ids

DAYS = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keeper(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Keeper]:
    """A keeper with three days of made-up usage."""
    home: Path = tmp_path_factory.mktemp("home")
    keeper = Keeper(home, f"sqlite+aiosqlite:///{home / 'weir.db'}", b"pepper")
    await keeper.start()
    assert (await fill(keeper, home, DAYS)).rows > 500
    await keeper.shipper.ship()
    yield keeper
    await keeper.stop()


async def walked(keeper: Keeper, pick: Pick, limit: int, backend: str = "") -> list[RequestRow]:
    """Return all pages together."""
    last = int(time.time()) // 3_600
    found: list[RequestRow] = []
    before = b""
    for _ in range(1_000):
        question = RequestsQuestion(last - 24 * (DAYS + 2), last, pick, before, limit, backend)
        page = await keeper.ask(REQUESTS, (question,))
        found += page.rows
        if not page.next:
            return found
        assert not before or page.next < before
        before = page.next
    raise AssertionError("the pages do not end")


async def ledger(keeper: Keeper, where: str = "") -> list[tuple[bytes, int]]:
    """Return the attempts of the ledger, newest first."""
    assert keeper._database is not None
    joined = "SELECT request_id, attempt FROM ledger JOIN label_set USING (label_id) WHERE kind = 'usage'"
    async with reading(keeper._database) as session:
        rows = await session.execute(text(f"{joined}{where} ORDER BY request_id DESC, attempt DESC"))
        return [(bytes(row[0]), int(row[1])) for row in rows]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("limit", [7, 50, 500])
async def test_pages_of_requests_hold_each_request_once(keeper: Keeper, limit: int) -> None:
    """Going from page to page meets every attempt of the ledger, in order and never twice."""
    found = [(row.request_id, row.attempt) for row in await walked(keeper, Pick(), limit)]
    assert found == await ledger(keeper)
    assert len(found) > 500


@pytest.mark.asyncio(loop_scope="module")
async def test_filters_leave_what_agrees(keeper: Keeper) -> None:
    """A rare model, a team, a team out of reach: the pages hold what the ledger has of it, and no more."""
    whole = await walked(keeper, Pick(), 500)
    counts: dict[str, int] = {}
    for row in whole:
        counts[row.model] = counts.get(row.model, 0) + 1
    rare = min(counts, key=lambda name: counts[name])
    found = await walked(keeper, Pick(model=rare), 3)
    assert [(row.request_id, row.attempt) for row in found] == await ledger(keeper, f" AND model = '{rare}'")
    mine = await walked(keeper, Pick(teams=("demo-search",)), 100)
    assert {row.team for row in mine} == {"demo-search"}
    assert await walked(keeper, Pick(teams=("demo-search",), team="demo-coding"), 100) == []
    assert await walked(keeper, Pick(teams=()), 100) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_of_one_backend_are_found_however_rare_they_are(keeper: Keeper) -> None:
    """Sums do not know backends: pages of one may be short, and together they hold what the ledger has of it."""
    backends = {row.backend for row in await walked(keeper, Pick(), 500)}
    assert len(backends) >= 3
    for backend in backends:
        found = await walked(keeper, Pick(), 40, backend)
        assert [(row.request_id, row.attempt) for row in found] == await ledger(keeper, f" AND backend = '{backend}'")
    assert await walked(keeper, Pick(), 40, "no-such-backend") == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("group", GROUPS)
async def test_sums_add_up_to_the_ledger_however_they_are_grouped(keeper: Keeper, group: str) -> None:
    """Days and hours, whole or in groups, with and without a series, are the same tokens and money."""
    today = int(time.time()) // 86_400
    first_day = today - DAYS - 1  # one more, because a day may have begun since the past was made
    rows = await walked(keeper, Pick(), 500)
    tokens, charge = sum(row.prompt + row.completion for row in rows), sum(row.charge_nano for row in rows)
    for grain, first, last in (("day", first_day, today), ("hour", first_day * 24, today * 24 + 23)):
        for series in (True, False):
            question = UsageQuestion(grain, first, last, group, Pick(), series)  # type: ignore[arg-type]
            sums = await keeper.ask(USAGE, (question,))
            assert sum(each.tokens for each in sums) == tokens
            assert sum(each.charge_nano for each in sums) == charge
            assert sum(each.requests + each.retries for each in sums) == len(rows)


@pytest.mark.asyncio(loop_scope="module")
async def test_speed_is_told_of_what_was_measured(keeper: Keeper) -> None:
    """Percentiles are in order; a window without requests has none."""
    last = int(time.time()) // 3_600
    told = await keeper.ask(SPEED, (last - 24 * (DAYS + 1), last, Pick()))
    assert told.ttft_p50 is not None
    assert told.ttft_p95 is not None
    assert 0 < told.ttft_p50 <= told.ttft_p95
    assert (await keeper.ask(SPEED, (0, 5, Pick()))).ttft_p50 is None


def test_only_what_the_list_drained_is_taken_back() -> None:
    """A backend that something else drains stays drained; one that the list forgets takes requests again."""
    from types import SimpleNamespace as Thing
    from typing import Any

    fleet: Any = {name: Thing(load=Thing(draining=name == "c")) for name in "abc"}
    known = steer(fleet, frozenset("ab"), frozenset())
    assert [fleet[name].load.draining for name in "abc"] == [True, True, True]
    steer(fleet, frozenset("b"), known)
    assert [fleet[name].load.draining for name in "abc"] == [False, True, True]


def test_ids_and_hours_agree() -> None:
    """The hour that a request is summed in is the hour of its id: pages rely on it."""
    request_id = ids.RequestIds().new()
    assert ids.hour(request_id) == ids.unix_ms(request_id) // 3_600_000


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    "pick",
    [Pick(), Pick(team="demo-search"), Pick(teams=("demo-coding", "demo-data")), Pick(model="qwen/qwen3-32b")],
    ids=["all", "a team", "some teams", "a model"],
)
async def test_tallies_say_what_the_rollup_says(keeper: Keeper, group: str, pick: Pick) -> None:
    """A question of days has the same answer as the hours of these days, summed up, with a series and without."""
    today = int(time.time()) // 86_400
    for series in (True, False):
        days = await keeper.ask(USAGE, (UsageQuestion("day", today - DAYS, today, group, pick, series),))  # type: ignore[arg-type]
        first, last = (today - DAYS) * 24, today * 24 + 23
        hours = await keeper.ask(USAGE, (UsageQuestion("hour", first, last, group, pick, series),))  # type: ignore[arg-type]
        summed: dict[tuple[int, str], list[int]] = {}
        for row in hours:
            name = (row.point // 24 if series else 0, row.name)
            values = summed.setdefault(name, [0] * 8)
            for at, column in enumerate(row.__struct_fields__[2:]):
                values[at] += getattr(row, column)
        told = {
            (row.point if series else 0, row.name): [getattr(row, column) for column in row.__struct_fields__[2:]]
            for row in days
        }
        assert told == {name: values for name, values in summed.items() if any(values)}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("grain", ["day", "hour"])
async def test_names_beyond_the_greatest_are_one(keeper: Keeper, grain: str) -> None:
    """The greatest by the measure are told apart, the others add up to the rest of every point."""
    last = int(time.time()) // (86_400 if grain == "day" else 3_600)
    first = last - (DAYS if grain == "day" else 24 * DAYS)
    asked = UsageQuestion(grain, first, last, "model")  # type: ignore[arg-type]
    whole = await keeper.ask(USAGE, (asked,))
    some = await keeper.ask(USAGE, (structs.replace(asked, most=3, by="charge"),))
    charges: dict[str, int] = {}
    for row in whole:
        charges[row.name] = charges.get(row.name, 0) + row.charge_nano
    best = sorted(charges, key=lambda name: -charges[name])[:3]
    assert {row.name for row in some} == {*best, REST}
    for point in {row.point for row in whole}:
        for column in whole[0].__struct_fields__[2:]:
            both = [sum(getattr(row, column) for row in rows if row.point == point) for rows in (whole, some)]
            assert both[0] == both[1]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("grain", ["day", "hour"])
@pytest.mark.parametrize("series", [True, False])
async def test_what_is_kept_of_settled_time_ends_when_something_is_posted_to_it(
    keeper: Keeper, grain: Grain, series: bool
) -> None:
    """A second look reads only what still changes, and a change that the shipper announces is seen at once."""
    database = keeper._database
    assert database is not None
    assert await changes.latest(database, settled.TOPIC) > 0, "a past that was made up was posted to settled time"
    day = settled.settled_day(time.time())
    table, scale = ("tally_day", 1) if grain == "day" else ("usage_hour", 24)
    question = UsageQuestion(grain, (day - 1) * scale, (day + 2) * scale, "model", series=series, most=2 * series)
    before = await keeper.ask(USAGE, (question,))
    assert before == await Usage(database).sums(question)
    async with bulk(database) as connection:
        change = f"UPDATE {table} SET charge_nano = charge_nano + 1000 WHERE {grain} BETWEEN ? AND ?"
        assert await connection.write(change, [(day * scale, day * scale + scale - 1)]) > 0
    assert await keeper.ask(USAGE, (question,)) == before
    async with bulk(database) as connection:
        await settled.announce(connection, [day * 24])
    database.bulletin.outdate()
    after = await keeper.ask(USAGE, (question,))
    assert sum(row.charge_nano for row in after) > sum(row.charge_nano for row in before)
    assert after == await Usage(database).sums(question)


@pytest.mark.asyncio(loop_scope="module")
async def test_no_more_is_kept_than_there_is_room_for(keeper: Keeper) -> None:
    """What was not asked for longest goes; what is larger than all room is not kept at all."""
    database = keeper._database
    assert database is not None
    now = await Kept(database, most=10).now()
    reads: list[str] = []

    async def ask(name: str, rows: int) -> list[int]:
        async def read() -> list[int]:
            reads.append(name)
            return [0] * rows

        return await now.answer(name, read)

    for name, rows in (("a", 3), ("b", 3), ("a", 3), ("c", 3), ("a", 3), ("b", 3), ("d", 30), ("d", 30)):
        assert len(await ask(name, rows)) == rows
    assert reads == ["a", "b", "c", "b", "d", "d"]
