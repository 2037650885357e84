"""Several keys of one backend: which one a request goes out with, and what becomes of one that is refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.backend import Visit, hand_backend, whole
from tests.harness import Backend, Stage, configuration, staged

SECRETS = {"WEIR_TEST_KEY_A": "sk-aaaa", "WEIR_TEST_KEY_B": "sk-bbbb"}
KEYS = 'api_keys: [{key: "${WEIR_TEST_KEY_A}", weight: 3}, {key: "${WEIR_TEST_KEY_B}", name: spare}]'

ONE = 'api_key: "${WEIR_TEST_KEY_B}"'


class Api:
    """An API with two keys, each with an answer of its own.

    Attributes:
        refusals: status line and further headers by key.
        used: the keys of the requests that came.
        held: cleared while no request is answered.
        asking: who waits for an answer, or had one.
    """

    def __init__(self) -> None:
        self.refusals: dict[str, tuple[str, str]] = {}
        self.used: list[str] = []
        self.held = asyncio.Event()
        self.held.set()
        self.asking: list[asyncio.Task[httpx.Response]] = []

    async def serve(self, visit: Visit) -> None:
        """Answer one request."""
        lines = [line for line in visit.head.split(b"\r\n") if line.lower().startswith(b"authorization:")]
        assert len(lines) == 1
        key = lines[0].split()[-1].decode()
        self.used.append(key)
        await self.held.wait()
        if key in self.refusals:
            status, more = self.refusals[key]
            await visit.answer({"error": {"message": "no"}}, status, more)
        else:
            await visit.answer(whole())


@asynccontextmanager
async def stage_of(tmp_path: Path, keys: str = KEYS, more: str = "") -> AsyncIterator[tuple[Api, Stage]]:
    """Run a gateway before such an API."""
    api = Api()
    async with hand_backend(api.serve) as backend:
        config = configuration([Backend("api", backend.url, "openai", more=keys)], more=more)
        async with staged(tmp_path, config) as stage:
            yield api, stage


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


async def let_in(api: Api, stage: Stage, count: int) -> int:
    """Ask ``count`` times while the API answers nobody; return how many the API saw, the others being refused."""
    before = len(api.used)
    asking = [asyncio.create_task(stage.chat()) for _ in range(count)]
    api.asking += asking
    async with asyncio.timeout(10):
        while len(api.used) - before + sum(task.done() for task in asking) < count:
            await asyncio.sleep(0.01)
    return len(api.used) - before


async def reload(stage: Stage, before: str, after: str) -> None:
    """Go by a file that says ``after`` in place of ``before``."""
    version = stage.gateway.snapshot.version
    stage.config.write_text(stage.config.read_text().replace(before, after))
    stage.gateway.reload()
    async with asyncio.timeout(10):
        while stage.gateway.snapshot.version == version:
            await asyncio.sleep(0.02)


async def metrics(stage: Stage) -> str:
    """Return the metrics page."""
    return (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text


async def test_requests_are_shared_out_by_weight(tmp_path: Path) -> None:
    """Three of four requests go out with the key of weight three, and metrics name keys by name or place."""
    async with stage_of(tmp_path) as (api, stage):
        for _ in range(8):
            assert (await stage.chat()).status_code == 200
        assert Counter(api.used) == {"sk-aaaa": 6, "sk-bbbb": 2}
        page = await metrics(stage)
    assert 'weir_upstream_key_requests_total{backend="api",outcome="ok",upstream_key="1"} 6' in page
    assert 'weir_upstream_key_requests_total{backend="api",outcome="ok",upstream_key="spare"} 2' in page
    assert "sk-aaaa" not in page


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests"])
async def test_a_refused_key_rests_and_its_request_goes_on_with_another(status: str, tmp_path: Path) -> None:
    """The caller notices nothing, the key is not tried again meanwhile, and the backend stays in good health."""
    async with stage_of(tmp_path) as (api, stage):
        api.refusals["sk-aaaa"] = (status, "retry-after: 60\r\n")
        for _ in range(5):
            answer = await stage.chat()
            assert answer.status_code == 200, answer.text
        assert Counter(api.used) == {"sk-aaaa": 1, "sk-bbbb": 5}
        load = stage.gateway.registry.fleet.replicas["api"].load
        assert (load.failures, load.cooling_until) == (0, 0.0)
        assert 'weir_upstream_key_resting{backend="api",upstream_key="1"} 1' in await metrics(stage)


async def test_with_all_keys_at_rest_the_backend_is_full(tmp_path: Path) -> None:
    """The caller is told to come back, and the API is left alone until the first key may be used again."""
    async with stage_of(tmp_path) as (api, stage):
        api.refusals = dict.fromkeys(SECRETS.values(), ("429 Too Many Requests", "retry-after: 60\r\n"))
        assert (await stage.chat()).status_code == 503
        asked = len(api.used)
        refused = await stage.chat()
        assert refused.status_code == 503
        assert "rests" in refused.text
        assert len(api.used) == asked == 2


async def test_the_callers_own_fault_puts_no_key_to_rest(tmp_path: Path) -> None:
    """A request that the API refuses as such says nothing of the key it was made with."""
    async with stage_of(tmp_path) as (api, stage):
        api.refusals = dict.fromkeys(SECRETS.values(), ("422 Unprocessable Entity", ""))
        assert (await stage.chat()).status_code == 422
        api.refusals = {}
        assert (await stage.chat()).status_code == 200
        keys = stage.gateway.registry.fleet.replicas["api"].load.quota.keys
        assert not any(key.resting_until for key in keys)


async def test_a_limit_of_a_key_turns_requests_to_the_other(tmp_path: Path) -> None:
    """While one key has as many requests in flight as it may, the other one takes all."""
    keys = 'api_keys: [{key: "${WEIR_TEST_KEY_A}", weight: 99, limits: {concurrent: 1}}, {key: "${WEIR_TEST_KEY_B}"}]'
    async with stage_of(tmp_path, keys) as (api, stage):
        api.held.clear()
        running = [asyncio.create_task(stage.chat()) for _ in range(4)]
        async with asyncio.timeout(10):
            while len(api.used) < 4:
                await asyncio.sleep(0.01)
        api.held.set()
        answers: list[Any] = await asyncio.gather(*running)
        assert [answer.status_code for answer in answers] == [200] * 4
        assert Counter(api.used) == {"sk-aaaa": 1, "sk-bbbb": 3}


async def test_a_reload_takes_keys_in_and_out(tmp_path: Path) -> None:
    """After a reload requests go out with the keys that the file names now."""
    async with stage_of(tmp_path) as (api, stage):
        assert (await stage.chat()).status_code == 200
        await reload(stage, KEYS, ONE)
        api.used.clear()
        for _ in range(3):
            assert (await stage.chat()).status_code == 200
        assert Counter(api.used) == {"sk-bbbb": 3}


@pytest.mark.parametrize(
    ("before", "after"), [(KEYS, KEYS.replace("weight: 3", "weight: 2")), (ONE, KEYS), (KEYS, ONE)]
)
async def test_a_reload_while_requests_run_leaves_the_limit_as_it_is(before: str, after: str, tmp_path: Path) -> None:
    """What runs with the keys of before counts until it ends, and once it has ended nothing is owed."""
    limited, unqueued = ", limits: {concurrent: 2}", "admission: {enabled: false}"
    async with stage_of(tmp_path, before + limited, unqueued) as (api, stage):
        api.held.clear()
        assert await let_in(api, stage, 3) == 2
        await reload(stage, before, after)
        assert await let_in(api, stage, 2) == 0
        api.held.set()
        load = stage.gateway.registry.fleet.replicas["api"].load
        async with asyncio.timeout(10):
            while load.in_flight:
                await asyncio.sleep(0.01)
        api.held.clear()
        assert await let_in(api, stage, 4) == 2
        api.held.set()
        answers = await asyncio.gather(*api.asking)
        assert Counter(answer.status_code for answer in answers) == {200: 4, 503: 5}
