"""The books are a function of what was metered, however it was delivered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.db.bulk import Bulk, bulk
from gateway.db.bulk_sqlite import SqliteBulk
from gateway.db.engine import Database
from gateway.metering import ledger, rollups
from gateway.metering.audit import audit
from gateway.metering.entry import Entries
from gateway.metering.record import Close, RowKind, Status, end_of
from gateway.types.charge import Charge
from gateway.types.tokens import Usage
from tests.integration.metering.books import (
    dump,
    expected_rollup,
    expected_totals,
    ledger_keys,
    rollup,
    totals,
)
from tests.integration.metering.conftest import only_postgres, only_sqlite, url_in
from tests.integration.metering.samples import closed, dims, opened, request_id_at

MIDNIGHT_US = 1_795_305_600_000_000
"""2026-11-22T00:00:00Z."""

small = st.integers(0, 5_000)
usages = st.builds(Usage, small, small, *[st.sampled_from([0, 0, 0, 9])] * 7)
charges = st.builds(Charge, small, small, *[st.sampled_from([0, 0, 3])] * 6)


@st.composite
def rows(draw: st.DrawFn) -> list[Close]:
    """Ends of attempts around a midnight, of few teams and models, some of them corrections."""
    made: list[Close] = []
    for _ in range(draw(st.integers(0, 25))):
        moment = MIDNIGHT_US + draw(st.sampled_from([-7_200_000_000, -1_000, 0, 1_000, 3_599_999_000, 3_600_000_000]))
        labels = dims(
            team=draw(st.sampled_from(["a", "b"])),
            model=draw(st.sampled_from(["m", "n"])),
            app=draw(st.sampled_from(["", "x"])),
            price_id=0,
            cost_id=0,
        )
        start = opened(labels, request_id_at(moment), draw(st.integers(1, 2)))
        times = draw(st.tuples(*[st.sampled_from([0, 1, 999, 25_000, 3_000_000])] * 3))
        end = closed(start, draw(usages), draw(st.sampled_from(Status)), times_us=times)
        made.append(msgspec.structs.replace(end, charge=draw(charges), cost=draw(st.just(Charge()) | charges)))
        if draw(st.integers(0, 9)) == 0:
            made.append(msgspec.structs.replace(end, kind=RowKind.CORRECTION, charge=Charge(-5), usage=Usage()))
    return made


async def deliver_batch(connection: Bulk, batch: Sequence[Close]) -> Sequence[Entries]:
    """Write ``batch`` into ledger and rollups; return the rows that were new."""
    entries = Entries.of([end_of(row) for row in batch])
    await ledger.insert_labels(connection, {labels for some in entries for labels in some.labels})
    new = await ledger.insert(connection, entries)
    await rollups.post(connection, await rollups.tally(new))
    return new


async def post(home: Path, batches: Sequence[Sequence[Close]]) -> list[int]:
    """Deliver ``batches``, each in a transaction; return how many rows each one made."""
    database = Database(url_in(home))
    inserted = []
    for batch in batches:
        async with bulk(database) as connection:
            new = await deliver_batch(connection, batch)
            inserted.append(sum(len(some.rows) for some in new))
    report = await audit(home / "journal", database)
    await database.close()
    assert report.mismatches == ()
    return inserted


def in_batches(items: Sequence[Close], seed: int) -> list[Sequence[Close]]:
    """Cut ``items`` into batches of random sizes."""
    chance, start, batches = random.Random(seed), 0, []
    while start < len(items):
        size = chance.choice([1, 2, 5, 30])
        batches.append(items[start : start + size])
        start += size
    return batches


def prove_order_and_repetition_make_no_difference(fresh: Callable[[], Path], metered: list[Close], seed: int) -> None:
    """Deliver in one go and at random, and compare."""
    chance = random.Random(seed)
    once, often = fresh(), fresh()
    assert sum(asyncio.run(post(once, [metered]))) == len(metered)
    repeated = metered + chance.choices(metered, k=len(metered)) if metered else []
    chance.shuffle(repeated)
    batches = in_batches(repeated, seed)
    batches += chance.choices(batches, k=3) if batches else []
    assert sum(asyncio.run(post(often, batches))) == len(metered)
    assert dump(once) == dump(often)


@only_sqlite
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metered=rows(), seed=st.integers(0, 2**32))
def test_order_and_repetition_of_batches_make_no_difference(
    fresh: Callable[[], Path], metered: list[Close], seed: int
) -> None:
    """Any permutation, cutting and repetition of what was metered gives the same ledger and the same rollups."""
    prove_order_and_repetition_make_no_difference(fresh, metered, seed)


@only_postgres
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metered=rows(), seed=st.integers(0, 2**32))
def test_order_and_repetition_make_no_difference_on_a_server(
    fresh: Callable[[], Path], metered: list[Close], seed: int
) -> None:
    """The same with COPY, staging and a server's concurrency."""
    prove_order_and_repetition_make_no_difference(fresh, metered, seed)


def prove_rollups(fresh: Callable[[], Path], metered: list[Close], seed: int) -> None:
    """Deliver at random and compare with sums in plain Python."""
    home = fresh()
    asyncio.run(post(home, in_batches(metered, seed)))
    assert rollup(home, daily=False) == expected_rollup(metered, daily=False)
    assert rollup(home, daily=True) == expected_rollup(metered, daily=True)
    assert totals(home) == expected_totals(metered)


@only_sqlite
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metered=rows(), seed=st.integers(0, 2**32))
def test_rollups_are_what_a_plain_sum_says(fresh: Callable[[], Path], metered: list[Close], seed: int) -> None:
    """Hours, days and model totals equal sums made in plain Python, day edges and corrections included."""
    prove_rollups(fresh, metered, seed)


@only_postgres
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metered=rows(), seed=st.integers(0, 2**32))
def test_rollups_are_what_a_plain_sum_says_on_a_server(
    fresh: Callable[[], Path], metered: list[Close], seed: int
) -> None:
    """The same where sums are added by a server."""
    prove_rollups(fresh, metered, seed)


def test_a_batch_larger_than_a_statement_keeps_every_row(fresh: Callable[[], Path]) -> None:
    """Rows and keys beyond the size of one statement, half of them known already, are told apart exactly."""
    home = fresh()
    known = [closed(opened(dims(key_id=f"key{number:05d}", price_id=0, cost_id=0))) for number in range(600)]
    new = [closed(opened(dims(key_id=f"key{number:05d}", price_id=0, cost_id=0))) for number in range(700)]
    mixed = known + new
    random.Random(5).shuffle(mixed)
    for row in mixed[:3]:
        mixed.append(row)
    inserted = asyncio.run(post(home, [known, mixed, mixed]))
    assert inserted == [600, 700, 0]
    assert set(ledger_keys(home).values()) == {1}
    assert rollup(home, daily=True) == expected_rollup(known + new, daily=True)


@only_sqlite
def test_no_statement_goes_through_a_whole_table(fresh: Callable[[], Path]) -> None:
    """However large the books become, a batch looks its rows up by their keys; so does a repeated one."""
    home, plans = fresh(), []
    rows = [closed(opened(dims(price_id=0, cost_id=0, key_id=f"key{number}"))) for number in range(30)]

    async def deliver() -> None:
        database = Database(url_in(home))
        async with bulk(database) as connection:
            for sql in await _statements(connection, [rows, rows[:20]]):
                plans.append((sql, [row[3] for row in await connection.read(f"EXPLAIN QUERY PLAN {sql}", ())]))
        await database.close()

    asyncio.run(deliver())
    plans = [(sql, plan) for sql, plan in plans if "milestone_line" not in sql]  # a handful of rows, read as a whole
    assert {sql.split()[0] for sql, _ in plans} == {"INSERT", "SELECT", "WITH"}
    for sql, plan in plans:
        assert not [
            step
            for step in plan
            if step.startswith("SCAN") and not any(word in step for word in ("wanted", "CONSTANT", "VALUES"))
        ], sql
        if sql.startswith("WITH"):
            assert any(step.startswith("SEARCH found USING") for step in plan), plan


async def _statements(connection: Bulk, batches: Sequence[Sequence[Close]]) -> list[str]:
    """Return the statements that delivering ``batches`` takes, values included, but those on transactions."""
    assert isinstance(connection, SqliteBulk)
    seen: list[str] = []
    await connection._driver.set_trace_callback(seen.append)
    for batch in batches:
        await deliver_batch(connection, batch)
    await connection.read("SELECT 1", ())  # what was posted goes with it
    await connection._driver.set_trace_callback(lambda _: None)
    return [sql for sql in seen if sql.startswith(("INSERT", "SELECT ", "WITH", "UPDATE", "DELETE"))][:-1]
