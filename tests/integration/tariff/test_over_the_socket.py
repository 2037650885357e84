"""The tariff for a worker that is another process than the keeper: everything through the socket."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from gateway.config.snapshot import ConfigSnapshot
from gateway.keeper.client import KeeperClient
from gateway.keeper.process import serving
from gateway.tariff.follow import Follower
from gateway.tariff.margin import ALLOCATION, MARGIN
from gateway.tariff.version import ACCEPT, VERSIONS, Kind, Proposal, Terms, VersionQuery
from gateway.types.errors import BadRequest
from gateway.types.money import LongContext, Rates
from tests.unit.tariff.files import BIG, snapshot_of

RATES = Rates(5_000_000, 6_000_000, tiers=(LongContext(9, Rates(7_000_000, 8_000_000)),))


async def test_two_workers_follow_one_keeper(tmp_path: Path) -> None:
    """Both switch to a version that one of them asked for; a keeper that restarts has lost nothing."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}"
    seen: list[list[ConfigSnapshot]] = [[], []]
    clients = [KeeperClient(tmp_path) for _ in seen]
    running: list[asyncio.Task[None]] = []
    async with serving(tmp_path, url, b"pepper"):
        for client, applied in zip(clients, seen, strict=True):
            await client.start()
            follower = Follower(client, snapshot_of(), applied.append)
            await follower.start()
            running.append(asyncio.create_task(follower.run()))
        await clients[0].create_team("search", "Search")
        proposed = partial(Proposal, who="ada", why="", source="cli")
        made = await clients[0].ask(
            ACCEPT,
            (
                (
                    proposed(kind=Kind.SELL, model=BIG, rates=RATES),
                    proposed(kind=Kind.TERMS, place="search", terms=Terms(500, 0)),
                ),
            ),
        )
        async with asyncio.timeout(20):
            while any(applied[-1].models[BIG].price != RATES for applied in seen):
                await asyncio.sleep(0.02)
        assert all(applied[-1].models[BIG].endpoints[0].team_prices["search"].discount == 500 for applied in seen)
        with pytest.raises(BadRequest, match="no such model"):
            await clients[1].ask(ACCEPT, ((proposed(kind=Kind.SELL, model="qwen/no", rates=RATES),),))
        assert await clients[1].ask(MARGIN, (20_000, 20_010)) == ()
        assert await clients[1].ask(ALLOCATION, (480_000, 480_010, None)) == ()
    async with serving(tmp_path, url, b"pepper"):
        page = await clients[0].ask(VERSIONS, (VersionQuery(limit=2),))
        assert page == tuple(reversed(made))
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for client in clients:
            await client.stop()
