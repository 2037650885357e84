"""``Idempotency-Key`` and the response cache over several workers, and what the death of each process does to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.processes import AUTHORIZED, MANAGING, Simulators, WeirProcess, eventually, presently
from tests.harness import chat_body

CHAT = "/api/v1/chat/completions"


@pytest.fixture(scope="module")
def config(simulators: Simulators, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration file, by which prompts and answers are stored."""
    path = tmp_path_factory.mktemp("config") / "weir.yaml"
    path.write_text(simulators.configuration() + "content: {store: true, lifetime_days: 3}\n")
    return path


@pytest.fixture(scope="module")
def cluster(serve: Serve) -> WeirProcess:
    """Two workers."""
    cluster = serve(workers=2)
    cluster.ready()
    eventually(lambda: len(cluster.workers) == 2)
    return cluster


async def ask(http: httpx.AsyncClient, key: str, tokens: int, **headers: str) -> httpx.Response:
    """Ask for a stream of so many tokens."""
    body = chat_body() | {"stream": True, "max_tokens": tokens}
    return await http.post(CHAT, json=body, headers=AUTHORIZED | {"idempotency-key": key} | headers)


async def begun(http: httpx.AsyncClient, key: str, tokens: int) -> asyncio.Task[str]:
    """Begin to ask, and return the task of the whole text once the first of it has come."""
    first = asyncio.Event()

    async def read() -> str:
        body = chat_body() | {"stream": True, "max_tokens": tokens}
        headers, text = AUTHORIZED | {"idempotency-key": key}, ""
        async with http.stream("POST", CHAT, json=body, headers=headers) as response:
            async for part in response.aiter_text():
                text += part
                first.set()
        return text

    task = asyncio.create_task(read())
    async with asyncio.timeout(20):
        await first.wait()
    return task


def usage(text: str) -> dict[str, Any]:
    """Return the usage that a whole stream ended with."""
    assert text.endswith("data: [DONE]\n\n")
    last = text.split("\n\n")[-3].removeprefix("data: ")
    return dict(json.loads(last)["usage"])


async def test_what_one_worker_answered_the_other_gives_again(cluster: WeirProcess, simulators: Simulators) -> None:
    """Byte for byte, for nothing; so does the cache."""
    first, second = cluster.workers
    async with cluster.client_of(first) as here, cluster.client_of(second) as there:
        before = len(simulators.books())
        answer = await ask(here, "across", 20, **{"x-openrouter-cache": "true"})
        again = await ask(there, "across", 20, **{"x-openrouter-cache": "true"})
        assert again.headers["idempotent-replayed"] == "true"
        assert again.content == answer.content

        async def hit() -> httpx.Response:
            return await ask(there, os.urandom(4).hex(), 20, **{"x-openrouter-cache": "true"})

        async with asyncio.timeout(20):
            while (found := await hit()).headers["x-openrouter-cache-status"] != "HIT":
                before += 1
        assert usage(found.text)["cost"] == 0
        assert len(simulators.books()) == before + 1


async def test_what_one_worker_stored_the_other_shows(cluster: WeirProcess) -> None:
    """As the configuration says; a choice of the team takes it back within seconds, on every worker."""
    first, second = cluster.workers
    async with cluster.client_of(first) as here, cluster.client_of(second) as there:

        async def stored(answer: httpx.Response) -> httpx.Response:
            params = {"id": answer.headers["x-generation-id"]}
            return await there.get("/api/v1/generation/content", params=params, headers=AUTHORIZED)

        answer = await ask(here, "stored", 5)
        async with asyncio.timeout(20):
            while (found := await stored(answer)).status_code == 404:
                await asyncio.sleep(0.05)
        assert found.json()["data"]["input"]["messages"] == chat_body()["messages"]
        taken_back = {"team": "default", "store": False}
        chosen = await there.put("/api/v1/content/choices", json=taken_back, headers=MANAGING)
        assert chosen.status_code == 200, chosen.text
        late = await ask(here, "not stored", 5)
        gone = await there.delete("/api/v1/content", params={"team": "default"}, headers=MANAGING)
        assert gone.json()["data"]["deleted"] >= 1
        assert (await stored(answer)).status_code == (await stored(late)).status_code == 404


async def test_a_killed_worker_lets_its_claims_go(cluster: WeirProcess) -> None:
    """Killed in mid-answer: the very next request with the key is answered by the other worker."""
    first, second = cluster.workers
    async with cluster.client_of(first) as here, cluster.client_of(second) as there:
        task = await begun(here, "killed", 3000)
        told = await ask(there, "killed", 3000)
        assert (told.status_code, told.headers["retry-after"]) == (409, "1")
        os.kill(first, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await task
        answer = await ask(there, "killed", 300)
        assert answer.status_code == 200, answer.text
        assert "idempotent-replayed" not in answer.headers
        assert usage(answer.text)["completion_tokens"] == 300
        assert (await ask(there, "killed", 300)).content == answer.content
    await presently(lambda: len(cluster.workers) == 2)
    cluster.audit()


async def test_a_killed_keeper_costs_no_answer(cluster: WeirProcess) -> None:
    """An answer that runs meanwhile ends as ever, and the next keeper has it given again."""
    first, second = cluster.workers
    async with cluster.client_of(first) as here, cluster.client_of(second) as there:
        task = await begun(here, "keeper", 300)
        os.kill(cluster.keeper, signal.SIGKILL)
        text = await task
        assert usage(text)["completion_tokens"] == 300
        async with asyncio.timeout(20):
            while (again := await ask(there, "keeper", 300)).status_code in {409, 503}:
                await asyncio.sleep(0.05)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.text == text
