"""The treasury over a real database, SQLite and PostgreSQL: two hosts, one budget, restarts and losses."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from gateway.access.budgets import LIVING_S
from gateway.access.leases import Leases
from gateway.types.budgets import NewBudget, Scope, Shortfall, Spend, Window
from gateway.types.errors import BadRequest, NotFound, Unavailable
from tests.integration.access.lending import DAY, NOON_MS, Host, budget, spend


async def test_many_clients_on_two_hosts_never_overshoot(hosts: list[Host]) -> None:
    """Whatever the order, what is charged stays within the limit, comes close to it, and nothing stays reserved."""
    limit = 30_000
    await budget(hosts, limit)
    rng = Random(7)
    charged = 0

    async def client(host: Host) -> None:
        nonlocal charged
        while True:
            amount = rng.randrange(200, 900)
            found = await host.admit(spend(amount))
            if isinstance(found, Shortfall):
                if found.free < 200 and found.left < 200:
                    return
                for each in hosts:
                    await each.rounds(1)
                continue
            await asyncio.sleep(0)
            charge = rng.randrange(amount // 2, amount + 1)
            charged += charge
            assert charged <= limit
            host.settle(found[0], charge)

    async with asyncio.timeout(60):
        await asyncio.gather(*(client(host) for host in hosts for _ in range(4)))
    for host in hosts:
        await host.rounds()
    assert limit - 900 < charged <= limit
    [state] = await hosts[0].treasury.states(None, None)
    assert (state.spent, state.reserved) == (charged, 0)
    assert await hosts[0].treasury.store.leases() == ()


async def test_a_refusal_says_what_is_left_and_whether_waiting_helps(hosts: list[Host]) -> None:
    """While a request under way is in the way, waiting helps; once it is charged, it does not."""
    a, b = hosts
    await budget(hosts, 1_000)
    held = await a.admit(spend(900))
    assert isinstance(held, tuple)
    short = await b.admit(spend(200))
    assert isinstance(short, Shortfall)
    assert (short.limit_nano, short.left, short.free, short.wanted) == (1_000, 1_000, 100, 200)
    assert short.window.end(short.window_day) == DAY + 1
    a.settle(held[0], 900)
    await a.rounds()
    b.clock.now += 1
    short = await b.admit(spend(200))
    assert isinstance(short, Shortfall)
    assert (short.left, short.free) == (100, 100)


async def test_a_refusal_is_not_final_while_a_charge_may_count_twice(hosts: list[Host]) -> None:
    """What is in the ledger and not yet off the lease is taken off twice; the refusal says so, until it is once."""
    host = hosts[0]
    await budget(hosts, 1_000)
    first = await host.admit(spend(1_000))
    assert isinstance(first, tuple)
    host.settle(first[0], 500)
    await host.journal.ship()
    host.clock.now += 1
    second = await host.admit(spend(450))
    assert isinstance(second, tuple)
    await asyncio.sleep(0.2)  # what is leased ahead: there is nothing
    short = await host.admit(spend(200))
    assert isinstance(short, Shortfall)
    assert short.left < 200
    assert short.waits(200)
    host.settle(second[0], 450)
    await host.rounds()
    short = await host.admit(spend(200))
    assert isinstance(short, Shortfall)
    assert (short.left, short.waits(200)) == (50, False)


async def test_a_request_that_takes_less_gets_what_is_left(hosts: list[Host]) -> None:
    """One that would do with less is given the rest of the budget, and no more."""
    await budget(hosts, 1_000)
    first = await hosts[0].admit(spend(700))
    second = await hosts[0].admit(spend(700, least=100))
    third = await hosts[1].admit(spend(700, least=100))
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert second[1] == 300
    assert isinstance(third, Shortfall)


async def test_a_budget_that_lends_no_more_keeps_no_other_from_lending(hosts: list[Host]) -> None:
    """Where one budget has enough leased for the shorter answer and no more to lend, the others still lend theirs."""
    host = hosts[0]
    tight = await budget(hosts, 1_000)
    wide = await budget(hosts, 30_000, Scope(team="t"))
    first = await host.admit(spend(5_000, least=100))
    assert isinstance(first, tuple)
    assert first[1] == 1_000
    host.settle(first[0], 10)
    pools = host.treasury.escrow.pools
    while rest := pools[wide.budget_id, DAY].free:
        assert isinstance(await host.admit(Spend(NOON_MS, "t", ("other",), rest, rest)), tuple)
    second = await host.admit(spend(5_000, least=100))
    assert isinstance(second, tuple), second
    assert second[1] == pools[tight.budget_id, DAY].held == 990
    host.settle(second[0], 900)
    # What is left of the tight one is too little now, and it is the one that is named.
    short = await host.admit(spend(5_000, least=100))
    assert isinstance(short, Shortfall)
    assert (short.budget_id, short.left, short.free) == (tight.budget_id, 90, 90)


async def test_what_others_take_while_the_database_is_asked_is_leased_anew(hosts: list[Host]) -> None:
    """Requests at once, of which some need no more than what is leased already: there is enough for all of them."""
    host = hosts[0]
    await budget(hosts, 10_000)
    first = await host.admit(spend(10))
    assert isinstance(first, tuple)
    host.settle(first[0], 0)
    for amounts in ((1_500, 1_000), (2_000, 1_500, 20), (900, 700, 500)):
        found = await asyncio.gather(*[host.admit(spend(amount)) for amount in amounts])
        assert [each[1] if isinstance(each, tuple) else each for each in found] == list(amounts)
        for each in found:
            assert isinstance(each, tuple)
            host.settle(each[0], 0)


@pytest.mark.parametrize("seed", range(4))
async def test_requests_that_take_less_never_overshoot_either_budget(hosts: list[Host], seed: int) -> None:
    """Whatever is asked on two hosts, both budgets hold, and a refusal names one that has less than would do."""
    limits = {"m": 4_000, "": 15_000}
    await budget(hosts, limits["m"])
    wide = await budget(hosts, limits[""], Scope(team="t"))
    rng = Random(seed)
    bound = dict.fromkeys(limits, 0)
    refused = cut = 0

    async def client(host: Host) -> None:
        nonlocal refused, cut
        running: list[tuple[int, int, str]] = []
        for _ in range(60):
            model, amount, least = "m", rng.randrange(100, 2_500), rng.randrange(20, 100)
            if rng.random() < 0.5:  # all that the wide one has leased and no request holds
                free = host.treasury.escrow.pool((wide.budget_id, DAY)).free
                model, amount, least = "other", max(20, free), max(20, free)
            asked = Spend(NOON_MS, "t", (model,), amount, least)
            found = await host.admit(asked)
            if isinstance(found, Shortfall):
                refused += 1
                assert found.free < asked.least, (asked, found)
            else:
                cut += found[1] < amount
                assert asked.least <= found[1] <= amount
                running.append((*found, model))
                for name in {"", model} & limits.keys():
                    bound[name] += found[1]
                    assert bound[name] <= limits[name]
            while running and (rng.random() < 0.4 or isinstance(found, Shortfall)):
                hold, held, its = running.pop(rng.randrange(len(running)))
                charge = rng.randrange(held // 8 + 1)
                for name in {"", its} & limits.keys():
                    bound[name] -= held - charge
                host.settle(hold, charge, model=its)
            if rng.random() < 0.2:
                await host.rounds(1)
        for hold, _, its in running:
            host.settle(hold, 0, model=its)

    async with asyncio.timeout(60):
        await asyncio.gather(*(client(host) for host in hosts))
    assert refused
    assert cut
    for host in hosts:
        await host.treasury.close()
    assert await hosts[0].treasury.store.leases() == ()


async def test_what_one_host_does_not_use_goes_to_the_other(hosts: list[Host]) -> None:
    """A slice that lies idle goes back, so that the last of a budget can be spent on any host."""
    a, b = hosts
    await budget(hosts, 8_000)
    found = await a.admit(spend(10))
    assert isinstance(found, tuple)
    assert [lease.amount for lease in await a.treasury.store.leases()] == [1_000]
    assert isinstance(await b.admit(spend(7_500)), Shortfall)
    a.settle(found[0], 10)
    await a.rounds()
    b.clock.now += 1
    assert isinstance(await b.admit(spend(7_500)), tuple)


async def test_all_budgets_of_a_request_or_none(hosts: list[Host]) -> None:
    """Key, team and model are reserved together: what the tightest one refuses is held of no other."""
    a = hosts[0]
    await budget(hosts, 1_000, Scope(team="t"), Window.TOTAL)
    await budget(hosts, 500, Scope(team="t", model="m"), Window.WEEKLY)
    await budget(hosts, 10_000, Scope(model="m"), Window.MONTHLY)
    with pytest.raises(BadRequest, match="there is no such key"):
        await budget(hosts, 1, Scope(key_id="absent00"))
    short = await a.admit(spend(600))
    assert isinstance(short, Shortfall)
    assert short.scope == Scope(team="t", model="m")
    assert all(not pool.held for pool in a.treasury.escrow.pools.values())
    assert isinstance(await a.admit(Spend(NOON_MS, "t", ("other",), 900, 900)), tuple)
    assert isinstance(await a.admit(Spend(NOON_MS, "u", ("m",), 9_000, 9_000)), tuple)
    await a.rounds()
    assert isinstance(await a.admit(spend(200)), Shortfall)


async def test_a_request_belongs_to_the_window_of_its_id(hosts: list[Host]) -> None:
    """At midnight the new window is whole, and what began before is charged to the old one."""
    a = hosts[0]
    await budget(hosts, 1_000)
    last_ms, first_ms = (DAY + 1) * 86_400_000 - 1, (DAY + 1) * 86_400_000
    before = await a.admit(spend(1_000, at_ms=last_ms))
    assert isinstance(before, tuple)
    assert isinstance(await a.admit(spend(1, at_ms=last_ms)), Shortfall)
    after = await a.admit(spend(1_000, at_ms=first_ms))
    assert isinstance(after, tuple)
    a.clock.wall_us = first_ms * 1_000
    a.settle(before[0], 600, day=DAY)
    a.settle(after[0], 300, day=DAY + 1)
    await a.rounds()
    [state] = await a.treasury.states(None, None)
    assert (state.window_day, state.spent, state.reserved, state.remaining) == (DAY + 1, 300, 0, 700)
    assert isinstance(await a.admit(spend(400, at_ms=last_ms)), tuple)
    a.clock.wall_us += 3 * 86_400_000_000
    a.treasury.leave("worker")
    await a.rounds()
    assert not a.treasury.escrow.pools


async def test_a_new_keeper_lends_nothing_twice(hosts: list[Host]) -> None:
    """What the last keeper may have spent stays leased until the journals are read and its requests have ended."""
    a, b = hosts
    await budget(hosts, 1_000)
    a.journal.alive = {"writer-1", "writer-2"}
    a.treasury.present("worker", "writer-1", ())
    running = await a.admit(spend(400))
    ended = await a.admit(spend(300))
    assert isinstance(running, tuple)
    assert isinstance(ended, tuple)
    a.settle(ended[0], 250, told=False)
    await a.restart()
    assert isinstance(await a.admit(spend(301)), Shortfall)
    assert isinstance(await b.admit(spend(301)), Shortfall)
    # The worker that lives tells what it runs; the other one is dead, and its journal is being read.
    a.treasury.present("worker-1", "writer-1", [running[0]])
    await a.rounds()
    assert isinstance(await b.admit(spend(400)), Shortfall)
    a.journal.alive = {"writer-1"}
    await a.rounds()
    assert isinstance(await b.admit(spend(400)), Shortfall)
    a.settle(running[0], 100)
    await a.rounds()
    b.clock.now += 1
    found = await b.admit(spend(650))
    assert isinstance(found, tuple)
    assert isinstance(await b.admit(spend(1)), Shortfall)


async def test_a_lost_worker_keeps_its_reservation_until_its_journal_is_read(hosts: list[Host]) -> None:
    """Its orphans are charged by the shipper, within what was reserved; the rest comes back after."""
    a = hosts[0]
    await budget(hosts, 1_000)
    a.journal.alive = {"writer-1"}
    a.treasury.present("worker", "writer-1", ())
    assert isinstance(await a.admit(spend(800)), tuple)
    a.treasury.leave("worker")
    await a.rounds()
    assert isinstance(await a.admit(spend(300)), Shortfall)
    a.journal.waiting.append((DAY, "t", "k", "m", 650))
    a.journal.alive = set()
    await a.rounds()
    assert isinstance(await a.admit(spend(351)), Shortfall)
    a.clock.now += 1
    assert isinstance(await a.admit(spend(350)), tuple)


async def test_a_host_that_comes_back_to_its_journal_gives_back_the_rest(hosts: list[Host]) -> None:
    """The lease of a host that is away counts as spent, until it is back or an operator says that it never will be."""
    a, b = hosts
    await budget(hosts, 1_000)
    lost = await a.admit(spend(900))
    assert isinstance(lost, tuple)
    assert isinstance(await b.admit(spend(200)), Shortfall)
    [lease] = [each for each in await b.treasury.store.leases() if each.host == "host-a"]
    assert lease.amount == 900
    with pytest.raises(NotFound):
        await b.treasury.store.release("host-c")
    b.clock.wall_us += LIVING_S * 1_000_000
    assert await b.treasury.store.release("host-a") == 900
    b.clock.now += 1
    assert isinstance(await b.admit(spend(200)), tuple)


async def test_a_budget_that_is_set_anew_does_not_lend_again_what_is_lent(hosts: list[Host]) -> None:
    """Deleting a budget and setting it again forgets nothing that hosts hold of it."""
    a, b = hosts
    made = await budget(hosts, 1_000)
    held = await a.admit(spend(900))
    assert isinstance(held, tuple)
    await b.treasury.delete(made.budget_id)
    with pytest.raises(NotFound):
        await b.treasury.delete(made.budget_id)
    assert not b.treasury.shares("k", spend(1))
    await budget([b, a], 1_000)
    assert isinstance(await b.admit(spend(200)), Shortfall)
    a.settle(held[0], 0)
    await a.rounds()
    b.clock.now += 1
    assert isinstance(await b.admit(spend(1_000)), tuple)


async def test_budgets_fail_closed_while_the_database_is_away(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is leased is still spent; beyond it a request is refused as unavailable, not as too dear."""
    a = hosts[0]
    await budget(hosts, 8_000)
    first = await a.admit(spend(100))
    assert isinstance(first, tuple)

    async def away(_: Leases, __: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(Leases, "adjust", away)
    assert isinstance(await a.admit(spend(800)), tuple)
    with pytest.raises(Unavailable):
        await a.admit(spend(800))
    monkeypatch.undo()
    assert isinstance(await a.admit(spend(800)), tuple)


async def test_closing_gives_everything_back(hosts: list[Host]) -> None:
    """A host that stops in order leaves no lease behind."""
    a = hosts[0]
    await budget(hosts, 1_000)
    found = await a.admit(spend(500))
    assert isinstance(found, tuple)
    a.settle(found[0], 123)
    await a.treasury.close()
    assert await a.treasury.store.leases() == ()
    [state] = await hosts[1].treasury.states(None, None)
    assert (state.spent, state.reserved) == (123, 0)


async def test_budgets_of_the_file_follow_it_until_the_api_changes_them(hosts: list[Host]) -> None:
    """The file makes, changes and removes its own budgets, and leaves those alone that the API took over."""
    treasury = hosts[0].treasury

    def said(limit: int, team: str = "default") -> NewBudget:
        return NewBudget(Scope(team=team), Window.MONTHLY, limit, source="file")

    await treasury.follow_file([said(5), said(6, "planned")])
    assert {each.limit_nano for each in treasury.budgets.values()} == {5, 6}
    assert treasury.scopes == (Scope(team="default"), Scope(team="planned"))
    await treasury.follow_file([said(7)])
    assert [each.limit_nano for each in treasury.budgets.values()] == [7]
    await treasury.set(NewBudget(Scope(team="default"), Window.MONTHLY, 9))
    await treasury.follow_file([said(7)])
    await treasury.follow_file([])
    assert [each.limit_nano for each in treasury.budgets.values()] == [9]
