"""What is written of leases stays what their hosts hold: under wrong clocks, mistakes of operators, calls cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from gateway.access.budgets import LIVING_S
from gateway.access.escrow import PoolKey
from gateway.access.leases import OLD_DAYS, Leases, Standing, Wish
from gateway.db.tables.lifetime import CLOCK, Lifetime
from gateway.db.unit_of_work import writing
from gateway.types.budgets import Shortfall
from gateway.types.errors import Conflict
from tests.integration.access.lending import DAY, Clock, Host, budget, spend

AHEAD = 60
"""Days by which a clock is wrong."""
DAY_US = 86_400_000_000


async def believe(host: Host, day: int) -> None:
    """Write down ``day`` as the last one that was believed."""
    async with writing(host.database) as session:
        await session.merge(Lifetime(subject=CLOCK, first_day=day))


def clock_of_its_own(host: Host, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give ``host`` a clock that can be set without those of the others."""
    clock = Clock()
    clock.now = host.clock.now
    host.clock = clock
    monkeypatch.setattr(host.treasury, "_clock", clock.monotonic)
    monkeypatch.setattr(host.treasury, "_now_us", clock.wall)
    return clock


async def both_lend(a: Host, b: Host) -> None:
    """Have ``a`` hold 800 of 1,000 for a request that runs, and ``b`` be through with one of 100."""
    await budget([a, b], 1_000)
    assert isinstance(await a.admit(spend(800)), tuple)
    mine = await b.admit(spend(100))
    assert isinstance(mine, tuple)
    b.settle(mine[0], 100)


@pytest.mark.parametrize("known", [False, True], ids=["nothing-believed-yet", "today-believed"])
async def test_a_host_whose_clock_is_months_ahead_takes_nothing_from_others(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """Its own windows are over by that clock; what another host has reserved of one stays reserved."""
    a, b = hosts
    if known:
        await believe(a, DAY)
    await both_lend(a, b)
    clock = clock_of_its_own(b, monkeypatch)
    clock.wall_us += AHEAD * DAY_US
    await b.rounds(3)
    clock.wall_us -= AHEAD * DAY_US
    assert [(lease.host, lease.amount) for lease in await a.treasury.store.leases()] == [("host-a", 800)]
    assert isinstance(await b.admit(spend(800)), Shortfall)


async def test_leases_of_a_lost_host_go_with_windows_that_are_long_over(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the day is believed, nothing is left of what a host held that never came back."""
    a, b = hosts
    await both_lend(a, b)
    await believe(a, DAY + OLD_DAYS + 1)
    clock_of_its_own(b, monkeypatch).wall_us += (OLD_DAYS + 1) * DAY_US
    await b.rounds(3)
    assert await a.treasury.store.leases() == ()


async def test_leases_of_a_host_that_lives_are_not_released(hosts: list[Host]) -> None:
    """Whoever takes one host for another is told so; what is in flight there is not lent twice."""
    a, b = hosts
    await budget(hosts, 1_000)
    held = await a.admit(spend(800))
    assert isinstance(held, tuple)
    for _ in range(2 * LIVING_S):
        a.clock.wall_us += 1_000_000
        a.clock.now += 1
        if a.database.partitioned:  # an SQLite file has no second host that could ask
            await a.treasury.keep_house()
    if a.database.partitioned:
        with pytest.raises(Conflict):
            await b.treasury.store.release("host-a")
        assert isinstance(await b.admit(spend(800)), Shortfall)
    a.clock.wall_us += LIVING_S * 1_000_000
    assert await b.treasury.store.release("host-a") == 800


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_lease_that_somebody_else_changed_is_written_again(hosts: list[Host]) -> None:
    """By hand, or by a host that runs with a copy of this one's folder: the log says so."""
    a, b = hosts
    await budget(hosts, 1_000)
    assert isinstance(await a.admit(spend(800)), tuple)
    with capture_logs() as logs:
        await a.rounds()
        assert logs == []
        a.clock.wall_us += LIVING_S * 1_000_000
        await b.treasury.store.release("host-a")
        await a.rounds()
    assert [(lease.host, lease.amount) for lease in await b.treasury.store.leases()] == [("host-a", 800)]
    assert [entry["event"] for entry in logs] == ["leases_changed_by_another"]
    assert isinstance(await b.admit(spend(800)), Shortfall)


async def test_who_hangs_up_while_more_is_lent_leaves_nothing_leased(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction may be through before the caller is gone: what it lent goes back, and others can have it."""
    a, b = hosts
    await budget(hosts, 1_000)
    real, committed = Leases.adjust, asyncio.Event()

    async def adjust(leases: Leases, wishes: Mapping[PoolKey, Wish]) -> Mapping[PoolKey, Standing]:
        await real(leases, wishes)
        committed.set()
        return await asyncio.Future()

    with monkeypatch.context() as patch:
        patch.setattr(Leases, "adjust", adjust)
        caller = asyncio.create_task(a.admit(spend(600)))
        await committed.wait()
        caller.cancel()
        await asyncio.wait([caller])
    assert [lease.amount for lease in await a.treasury.store.leases()] == [600]
    await a.rounds()
    assert await a.treasury.store.leases() == ()
    assert isinstance(await b.admit(spend(600)), tuple)
