"""One hard budget, two hosts as real processes over one PostgreSQL, workers and a keeper killed: never overshot."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from random import Random
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.processes import AUTHORIZED, MANAGING, PATIENCE, WeirProcess
from tests.harness import NO_TLS

LIMIT = 1_000_000
"""Nano-USD: some seventy requests."""


async def client(hosts: list[WeirProcess], rng: Random, done: asyncio.Event) -> int:
    """Ask hosts in turn until the budget is charged up; return how many answers came whole."""
    answered = 0
    async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENCE, headers=AUTHORIZED) as http:
        while not done.is_set():
            length = {rng.choice(["max_tokens", "n_predict", "max_completion_tokens"]): rng.randrange(10, 60)}
            body = {
                "model": "qwen/qwen3-32b",
                "messages": [{"role": "user", "content": "Tell me about weirs."}],
                "n": rng.randrange(1, 3),
                "stream": rng.random() < 0.5,
                **length,
            }
            with suppress(httpx.TransportError):
                answer = await http.post(f"{rng.choice(hosts).url}/v1/chat/completions", json=body)
                assert answer.status_code in (200, 402, 503), answer.text
                answered += answer.status_code == 200
                if answer.status_code == 402 and "retry-after" not in answer.headers:
                    assert answer.json()["error"]["metadata"]["reason"] == "limit"
                    return answered
            await asyncio.sleep(0.05)
    return answered


async def kill(host: WeirProcess, rng: Random) -> None:
    """Kill a worker, the keeper and a worker of ``host``, one after the other."""
    for what in ("worker", "keeper", "worker"):
        await asyncio.sleep(rng.uniform(0.3, 1.2))
        workers = host.workers
        if what == "keeper" or workers:
            with suppress(ProcessLookupError):
                os.kill(host.keeper if what == "keeper" else rng.choice(workers), signal.SIGKILL)


async def settled(host: WeirProcess) -> dict[str, Any]:
    """Return the budget once nothing of it is reserved or leased anywhere."""
    async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENCE, headers=MANAGING) as http, asyncio.timeout(90):
        while True:
            with suppress(httpx.TransportError, KeyError):
                [budget] = (await http.get(f"{host.url}/api/v1/budgets")).json()["data"]
                leases = (await http.get(f"{host.url}/api/v1/budgets/leases")).json()["data"]
                if not leases and budget["reserved_usd"] == "0":
                    return dict(budget)
            await asyncio.sleep(0.3)


@pytest.mark.timeout(300)
async def test_kills_on_two_hosts_do_not_overshoot_a_budget(serve: Serve, postgres_url: str) -> None:
    """Whatever dies, what is charged stays within the limit, and afterwards nothing stays reserved."""
    rng = Random(11)
    hosts = [
        serve(workers=workers, WEIR_DATABASE_URL=postgres_url, WEIR_SECRET="the secret of both hosts").ready()
        for workers in (2, 1)
    ]
    async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENCE, headers=MANAGING) as http:
        body = {"team": "default", "window": "total", "limit_usd": "0.001"}
        made = await http.post(f"{hosts[0].url}/api/v1/budgets", json=body)
        assert made.status_code == 200, made.text
        await asyncio.sleep(5)  # the other host learns of it within a second
    done = asyncio.Event()
    clients = [asyncio.create_task(client(hosts, Random(seed), done)) for seed in range(6)]
    await kill(hosts[0], rng)
    _, late = await asyncio.wait(clients, timeout=60)
    done.set()
    answered = sum(await asyncio.gather(*clients))
    assert not late, "the budget was not charged up in time"
    assert answered > 10
    budget = await settled(hosts[0])
    spent = round(float(budget["spent_usd"]) * 1e9)
    assert LIMIT // 2 < spent <= LIMIT
    hosts[0].audit()
