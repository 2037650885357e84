"""Hours of own machines and margins, from a ledger in a real database. On SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from gateway.db.bulk import bulk
from gateway.db.engine import Database
from gateway.metering import ledger, rollups
from gateway.metering.entry import Entries
from gateway.metering.record import Close, Price, RowKind, Status, end_of
from gateway.pricing.charge import charge, payable, rates_id
from gateway.tariff.allocation import HOUR_US, Allocator
from gateway.tariff.margin import Margins, total
from gateway.tariff.store import TariffStore
from gateway.tariff.version import Hourly, Kind, Proposal
from gateway.types.money import Rates
from gateway.types.tokens import Usage, UsageSource
from tests.integration.metering.samples import dims

DAY = 20_000
NIGHT_US = DAY * 24 * HOUR_US
LIST = Rates(1_000_000, 2_000_000)
TEAM = Rates(1_000_000, 2_000_000, discount=1_000)
COST = Rates(300_000, 900_000)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh database."""
    database = Database(database_url)
    yield database
    await database.close()


def answer(hour: int, number: int, usage: Usage, busy_us: int, **labels: Any) -> Close:
    """Return an answer of the hour ``hour`` of the day."""
    made = ((DAY * 24 + hour) * 3_600_000 + number).to_bytes(6, "big") + number.to_bytes(10, "big")
    price = labels.pop("price", LIST)
    cost = labels.pop("cost", None)
    named = dims(price_id=rates_id(price), cost_id=rates_id(cost) if cost else 0, **labels)
    paid, off = payable(usage, price)
    return Close(
        made,
        1,
        RowKind.USAGE,
        named,
        (DAY * 24 + hour) * HOUR_US,
        Status.OK,
        usage=usage,
        source=UsageSource.UPSTREAM,
        charge=paid,
        cost=charge(usage, cost) if cost else charge(Usage(), LIST),
        duration_us=busy_us,
        discount=off if off.total else None,
    )


async def book(database: Database, rows: Sequence[Close]) -> None:
    """Write rows to ledger and rollups as the shipper does."""
    entries = Entries.of([end_of(row) for row in rows])
    async with bulk(database) as connection:
        await ledger.insert_labels(
            connection, {each.label_id: each for some in entries for each in some.labels}.values()
        )
        await ledger.insert_prices(connection, [Price(rates_id(rates), rates) for rates in (LIST, TEAM, COST)])
        fresh = await ledger.insert(connection, entries)
        await rollups.post(connection, await rollups.tally(fresh))


async def rent(
    database: Database, backend: str, hourly: Hourly | None, since_us: int = NIGHT_US, made_us: int | None = None
) -> None:
    """Say what a machine costs from a moment on, None for nothing any more; said at that moment unless before it."""
    proposal = Proposal(
        kind=Kind.HOUR, place=backend, hourly=hourly, valid_from_us=since_us, who="ada", why="", source="cli"
    )
    made_us = since_us if made_us is None else made_us
    await TariffStore(database).accept([proposal], made_us, made_us)


def after(hours: float) -> Callable[[], int]:
    """Return a clock that many hours after midnight of the day."""
    return lambda: int(NIGHT_US + hours * HOUR_US) * 1_000


async def test_a_machine_by_time(database: Database) -> None:
    """Two models that ran half an hour and a quarter on two slots took 25 % and 12.5 %; the rest is idle."""
    await rent(database, "gpu-a", Hourly(4_600_000_000, 2))
    await book(
        database,
        [
            answer(0, 1, Usage(100, 50), HOUR_US // 2, backend="gpu-a", model="qwen/big", endpoint="own"),
            answer(0, 2, Usage(900, 50), HOUR_US // 4, backend="gpu-a", model="qwen/small", endpoint="own"),
            answer(0, 3, Usage(900, 50), HOUR_US // 4, backend="acme", model="qwen/small", endpoint="acme"),
        ],
    )
    await Allocator(database, clock=after(1.1)).turn()
    lines = await Margins(database).allocation(DAY * 24, DAY * 24 + 1, None)
    assert [(line.model, line.cost_nano, line.share, line.measure, line.final) for line in lines] == [
        ("qwen/small", 575_000_000, 125_000, "time", False),
        ("qwen/big", 1_150_000_000, 250_000, "time", False),
        ("", 2_875_000_000, 625_000, "time", False),
    ]


async def test_a_machine_by_tokens(database: Database) -> None:
    """Without a number of slots the best hour so far counts as full; an hour without use is all idle."""
    await rent(database, "gpu-a", Hourly(1_000_000_001))
    use = {"backend": "gpu-a", "model": "qwen/big", "endpoint": "own"}
    await book(database, [answer(0, 1, Usage(900, 100), 5, **use), answer(2, 1, Usage(200, 50), 5, **use)])
    await Allocator(database, clock=after(3.5)).turn()
    lines = await Margins(database).allocation(DAY * 24, DAY * 24 + 23, "gpu-a")
    by_hour = {(line.hour - DAY * 24, line.model): (line.cost_nano, line.share) for line in lines}
    assert by_hour == {
        (0, "qwen/big"): (1_000_000_001, 1_000_000),
        (0, ""): (0, 0),
        (1, ""): (1_000_000_001, 1_000_000),
        (2, "qwen/big"): (250_000_000, 250_000),
        (2, ""): (750_000_001, 750_000),
    }


async def test_late_usage_and_final_hours(database: Database) -> None:
    """An hour is worked out anew until it is an hour old; then it stays as it is. A new cost holds from its hour on."""
    await rent(database, "gpu-a", Hourly(1_000, 1))
    await rent(database, "gpu-a", Hourly(2_000, 1), NIGHT_US + HOUR_US)
    use = {"backend": "gpu-a", "model": "qwen/big", "endpoint": "own"}

    async def costs(hours: float) -> list[tuple[int, str, int, bool]]:
        await Allocator(database, clock=after(hours)).turn()
        lines = await Margins(database).allocation(DAY * 24, DAY * 24 + 23, None)
        return [(line.hour - DAY * 24, line.model, line.cost_nano, line.final) for line in lines]

    assert await costs(0.9) == []
    assert await costs(1.1) == [(0, "", 1_000, False)]
    await book(database, [answer(0, 1, Usage(1, 1), HOUR_US // 2, **use)])
    assert await costs(1.2) == [(0, "qwen/big", 500, False), (0, "", 500, False)]
    assert (await costs(2.2))[:2] == [(0, "qwen/big", 500, True), (0, "", 500, True)]
    await book(database, [answer(0, 2, Usage(1, 1), HOUR_US // 2, **use)])
    assert await costs(2.3) == [
        (0, "qwen/big", 500, True),
        (0, "", 500, True),
        (1, "", 2_000, False),
    ]


async def charged(database: Database, hours: float, turns: int = 1) -> dict[str, list[int]]:
    """Return the hours of the day that each machine has a cost in, after turns that many hours after midnight."""
    for _ in range(turns):
        await Allocator(database, clock=after(hours)).turn()
    found: dict[str, list[int]] = {}
    for line in await Margins(database).allocation(DAY * 24 - 100, DAY * 24 + 600, None):
        assert (line.model, line.cost_nano) == ("", line.usd_per_hour_nano), "nobody used it"
        found.setdefault(line.backend, []).append(line.hour - DAY * 24)
    return found


ONE = Hourly(1_000, 1)
GONE = 3
"""The hour from which on the first machine is given back, in tests of gaps."""


@pytest.mark.parametrize(("gap", "back"), [(50, "gpu-a"), (50, "gpu-b"), (450, "gpu-a"), (450, "gpu-b")])
async def test_a_gap_without_machines_costs_nothing(database: Database, gap: int, back: str) -> None:
    """Hours in which there was no machine stay without cost, and the hours behind them are worked out.

    However long the gap is, and whether the same machine comes back or another one.
    """
    again = GONE + gap
    await rent(database, "gpu-a", ONE)
    await rent(database, "gpu-a", None, NIGHT_US + GONE * HOUR_US)
    first = list(range(GONE))
    assert await charged(database, again - 0.5) == {"gpu-a": first}
    await rent(database, back, ONE, NIGHT_US + again * HOUR_US)
    expected = {"gpu-a": [*first]}
    expected[back] = [*expected.get(back, []), *range(again, again + 10)]
    assert await charged(database, again + 10.1, turns=2) == expected


async def test_more_hours_than_a_turn_takes(database: Database) -> None:
    """A keeper that was away for long takes several turns, with a gap in between that costs none of them."""
    await rent(database, "gpu-a", ONE)
    await rent(database, "gpu-a", None, NIGHT_US + 100 * HOUR_US)
    await rent(database, "gpu-a", ONE, NIGHT_US + 200 * HOUR_US)
    assert await charged(database, 550.1) == {"gpu-a": [*range(100), *range(200, 500)]}
    assert await charged(database, 550.1) == {"gpu-a": [*range(100), *range(200, 550)]}


async def test_the_hour_of_the_first_word(database: Database) -> None:
    """A further machine costs from the hour on in which it is first spoken of, not in hours that are not final yet."""
    await rent(database, "gpu-a", ONE)
    assert await charged(database, 5.1) == {"gpu-a": [0, 1, 2, 3, 4]}
    await rent(database, "gpu-b", Hourly(7, 1), NIGHT_US + int(5.25 * HOUR_US))
    await rent(database, "gpu-b", Hourly(9, 1), NIGHT_US + int(5.75 * HOUR_US))
    assert await charged(database, 7.1) == {"gpu-a": [*range(7)], "gpu-b": [5, 6]}
    lines = await Margins(database).allocation(DAY * 24, DAY * 24 + 23, "gpu-b")
    assert [line.cost_nano for line in lines] == [7, 9]


async def test_a_slip_around_a_full_hour(database: Database) -> None:
    """A machine that was missing in the file for seconds costs what it did, in each hour."""
    await rent(database, "gpu-a", ONE)
    await rent(database, "gpu-a", None, NIGHT_US + int(2.999 * HOUR_US))
    await rent(database, "gpu-a", ONE, NIGHT_US + int(3.001 * HOUR_US))
    assert await charged(database, 5.1) == {"gpu-a": [*range(5)]}


async def test_what_is_known_before_any_price(database: Database) -> None:
    """The very first word, and no other one, also counts for the time before it, from the ledger's first day on."""
    await book(database, [answer(-40, 1, Usage(1, 1), 5, backend="acme", model="qwen/big", endpoint="acme")])
    await rent(database, "gpu-a", ONE)
    await rent(database, "gpu-b", ONE, NIGHT_US + 2 * HOUR_US)
    assert await charged(database, 4.1) == {"gpu-a": [*range(-48, 4)], "gpu-b": [2, 3]}


async def test_a_date_of_the_first_price(database: Database) -> None:
    """A first price from a date on costs nothing before its date."""
    await book(database, [answer(-40, 1, Usage(1, 1), 5, backend="gpu-a", model="qwen/big", endpoint="own")])
    await rent(database, "gpu-a", ONE, NIGHT_US + 3 * HOUR_US, made_us=NIGHT_US - 40 * HOUR_US)
    assert await charged(database, 2.1) == {}
    assert await charged(database, 5.1) == {"gpu-a": [3, 4]}


async def test_margin(database: Database) -> None:
    """Charged, discount, cost by token and by hour, idle on its own line; the total is the sum, to the nano-dollar."""
    await rent(database, "gpu-a", Hourly(4_600_000_000, 2))
    own = {"backend": "gpu-a", "model": "qwen/big", "endpoint": "own"}
    out = {"backend": "acme", "model": "qwen/big", "endpoint": "acme", "cost": COST}
    await book(
        database,
        [
            answer(0, 1, Usage(1_000_000, 500_000), HOUR_US, **own),
            answer(0, 2, Usage(1_000_000, 0), HOUR_US, team="search", price=TEAM, **out),
        ],
    )
    await Allocator(database, clock=after(1.1)).turn()
    lines = await Margins(database).margin(DAY, DAY)
    found = {(line.model, line.endpoint, line.idle): line for line in lines}
    served = found["qwen/big", "own", False]
    assert (served.charge, served.hour_cost, served.margin) == (2_000_000_000, 2_300_000_000, -300_000_000)
    assert (served.tokens_per_usd_charged, served.tokens_per_usd_of_cost) == (750_000, 652_173)
    bought = found["qwen/big", "acme", False]
    assert (bought.charge, bought.discount, bought.token_cost) == (900_000_000, 100_000_000, 300_000_000)
    idle = found["", "gpu-a", True]
    assert (idle.cost, idle.charge, idle.tokens_per_usd_charged) == (2_300_000_000, 0, None)
    whole = total(lines)
    assert (whole.charge, whole.cost, whole.margin) == (2_900_000_000, 4_900_000_000, -2_000_000_000)
