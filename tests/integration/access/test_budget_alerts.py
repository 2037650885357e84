"""Budget alerts over a real database and a real webhook: once per window and percentage, signed, and repeated."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlmodel import select

from gateway.access.alerts import CLAIM_US, OLDEST_US, SIGNATURE, Alerts, Webhook
from gateway.access.budgets import BudgetStore
from gateway.config.egress import Egress
from gateway.config.snapshot import ConfigSnapshot
from gateway.db.engine import Database
from gateway.db.tables.budget import BudgetAlertRow
from gateway.db.unit_of_work import reading, writing
from gateway.types.budgets import AlertsQuestion, NewBudget, Scope, Window
from tests.integration.access.charges import charge

DAY = 20_415
SECRET = b"signing secret"


class Receiver:
    """A webhook that notes what it is told and answers as it is set to."""

    def __init__(self) -> None:
        self.status = 200
        self.told: list[tuple[dict[str, str], bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        self.told.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\nlocation: http://other/\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What it was told."""
        return [json.loads(body) for _, body in self.told]


class World:
    """A database with one budget, a clock, and alerts of two hosts."""

    def __init__(self, url: str, port: int, allowed: str = "127.0.0.0/8") -> None:
        self.database = Database(url)
        self.now_us = (DAY * 86_400 + 43_200) * 1_000_000
        self.store = BudgetStore(self.database, now_us=lambda: self.now_us)
        self.budgets: dict[str, Any] = {}
        snapshot = cast("ConfigSnapshot", SimpleNamespace(egress=Egress((ip_network(allowed),))))
        webhook = Webhook(f"http://localhost:{port}/budgets?a=1", SECRET)
        self.hosts = [
            Alerts(self.database, self, lambda: snapshot, webhook, now_us=lambda: self.now_us) for _ in range(2)
        ]

    async def budget(self, limit: int, *alerts: int) -> None:
        """Set a daily budget of the team ``default``."""
        made = await self.store.set(NewBudget(Scope(team="default"), Window.DAILY, limit, hard=False, alerts=alerts))
        self.budgets[made.budget_id] = made

    async def delete(self) -> None:
        """Delete the budget, as another host does; nobody here knows until ``forget``."""
        await self.store.delete(*self.budgets)

    def forget(self) -> None:
        """Learn that it is gone."""
        self.budgets.clear()

    async def spend(self, nano: int, day: int = DAY) -> None:
        """Charge the team."""
        async with writing(self.database) as session:
            await charge(session, day, "default", "k", "m", nano)

    async def turn(self) -> None:
        """Let both hosts look, and send."""
        await asyncio.gather(*(host.turn() for host in self.hosts))

    async def rows(self) -> list[BudgetAlertRow]:
        """Return what was reached."""
        async with reading(self.database) as session:
            return list(await session.scalars(select(BudgetAlertRow)))


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, int]]:
    """A webhook and its port."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    yield receiver, server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def world(database_url: str, receiver: tuple[Receiver, int]) -> AsyncIterator[World]:
    """A world whose webhook is ``receiver``."""
    world = World(database_url, receiver[1])
    yield world
    await world.database.close()


async def test_each_percentage_is_told_once(world: World, receiver: tuple[Receiver, int]) -> None:
    """Two hosts look again and again; each share of the limit is told once in a window, and anew in the next one."""
    told = receiver[0].documents
    await world.budget(1_000, 50, 80, 100)
    await world.spend(499)
    await world.turn()
    assert not receiver[0].told
    await world.spend(301)
    for _ in range(3):
        await world.turn()
    told = receiver[0].documents
    assert [(each["percent"], each["spent_usd"]) for each in told] == [(50, "0.0000008"), (80, "0.0000008")]
    assert (told[0]["team"], told[0]["window"], told[0]["resets_at"]) == ("default", "daily", "2025-11-24T00:00:00Z")
    await world.spend(5_000)
    await world.turn()
    world.now_us += 86_400_000_000
    await world.spend(600, DAY + 1)
    await world.turn()
    assert [each["percent"] for each in receiver[0].documents] == [50, 80, 100, 50]
    assert len({each["id"] for each in receiver[0].documents}) == 4


@pytest.mark.parametrize("looked", [True, False])
async def test_a_budget_set_again_is_told_of_again(world: World, receiver: tuple[Receiver, int], looked: bool) -> None:
    """Deleting a budget forgets what was told of it, on every host, whether one looks in between or not."""
    await world.budget(1_000, 50, 80)
    await world.spend(900)
    await world.turn()
    await world.delete()
    world.forget()
    if looked:
        await world.turn()
    else:
        world.now_us += 1_000_000
    await world.budget(1_000_000, 50, 80)
    await world.turn()
    assert len(receiver[0].told) == 2
    world.now_us += 1_000_000
    await world.spend(600_000)
    for _ in range(2):
        await world.turn()
    told = receiver[0].documents
    assert [(each["percent"], each["limit_usd"]) for each in told] == [
        (50, "0.000001"),
        (80, "0.000001"),
        (50, "0.001"),
    ]
    assert len({each["id"] for each in told}) == 3, "receivers know a message that they have by its id"
    # Setting it anew without deleting it is the same budget: what was told in this window is not told again.
    await world.budget(1_200_000, 50, 80)
    await world.spend(200_000)
    await world.turn()
    assert len(receiver[0].told) == 3


async def test_what_a_budget_was_before_is_not_held_against_it(world: World, receiver: tuple[Receiver, int]) -> None:
    """A host that has not heard yet that a budget was deleted, or set anew, notes nothing for the one that is there."""
    await world.budget(1_000, 80)
    await world.spend(900)
    first = dict(world.budgets)
    await world.delete()
    await world.turn()
    assert not await world.rows()
    world.now_us += 1_000_000
    await world.budget(10_000, 80)
    second = dict(world.budgets)
    world.budgets.update(first)
    await world.turn()
    assert not await world.rows()
    await world.budget(100_000, 80)
    await world.spend(8_100)
    world.budgets.update(second)
    await world.turn()
    assert not await world.rows()
    await world.budget(100_000, 80)
    await world.spend(81_000)
    await world.turn()
    assert [(each["percent"], each["limit_usd"]) for each in receiver[0].documents] == [(80, "0.0001")]


async def test_a_message_is_signed(world: World, receiver: tuple[Receiver, int]) -> None:
    """Whoever has the secret can tell that it is from here and when it was sent; the host of the URL is named."""
    await world.budget(10, 100)
    await world.spend(10)
    await world.turn()
    headers, body = receiver[0].told[0]
    stamp, mac = (part.partition("=")[2] for part in headers[SIGNATURE].split(","))
    assert hmac.new(SECRET, stamp.encode() + b"." + body, sha256).hexdigest() == mac
    assert headers["host"] == f"localhost:{receiver[1]}"


async def test_what_was_not_taken_is_sent_again(
    world: World, receiver: tuple[Receiver, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error or a redirect is no answer: it is tried again at once and later, for a day, and then no more."""
    monkeypatch.setattr("gateway.access.alerts.TRIES", 2)
    await world.budget(10, 100)
    await world.spend(10)
    receiver[0].status = 302
    await world.turn()
    assert len(receiver[0].told) == 2
    await world.turn()
    assert len(receiver[0].told) == 2
    world.now_us += CLAIM_US
    receiver[0].status = 200
    await world.turn()
    assert len(receiver[0].told) == 3
    assert len({each["id"] for each in receiver[0].documents}) == 1
    [row] = await world.rows()
    assert row.delivered_at == world.now_us
    receiver[0].status = 500
    await world.budget(20, 50)
    world.now_us += 2 * OLDEST_US
    await world.turn()
    assert len(receiver[0].told) == 3


async def test_an_address_that_is_not_allowed_is_not_called(database_url: str, receiver: tuple[Receiver, int]) -> None:
    """The egress rules hold for the webhook as for backends."""
    world = World(database_url, receiver[1], allowed="10.0.0.0/8")
    await world.budget(10, 100)
    await world.spend(10)
    await world.turn()
    assert not receiver[0].told
    assert world.hosts[0].failed + world.hosts[1].failed > 0
    assert [row.delivered_at for row in await world.rows()] == [None]
    await world.database.close()


async def test_the_history_says_what_came_of_each(world: World, receiver: tuple[Receiver, int]) -> None:
    """Refused, then taken: where it went, with which answer, after how many tries; teams see their own alone."""
    receiver[0].status = 503
    await world.budget(1_000, 50)
    await world.spend(600)
    await world.turn()
    [waits] = await world.hosts[0].history(AlertsQuestion())
    port = receiver[1]
    assert (waits.state, waits.outcome, waits.receiver) == ("waiting", "answered 503", f"localhost:{port}")
    assert (waits.team, waits.percent, waits.spent_nano, waits.delivered_at) == ("default", 50, 600, None)
    receiver[0].status = 204
    world.now_us += CLAIM_US
    await world.turn()
    [taken] = await world.hosts[0].history(AlertsQuestion(("default", "other")))
    assert (taken.state, taken.outcome, taken.tries) == ("delivered", "answered 204", 2)
    assert taken.delivered_at == world.now_us
    assert await world.hosts[0].history(AlertsQuestion(("other",))) == ()
    world.now_us += OLDEST_US
    receiver[0].status = 500
    await world.spend(600, DAY + 1)
    await world.turn()
    world.now_us += OLDEST_US
    assert [each.state for each in await world.hosts[0].history(AlertsQuestion())] == ["given up", "delivered"]
