"""One gateway for all tests of OpenRouter's surface, and OpenRouter's own client against it."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvloop
from openrouter import OpenRouter
from openrouter.utils import BackoffStrategy, RetryConfig

from gateway.sim import SimConfig, SimFleet, Timing
from tests.harness import ADMIN_KEY, NO_TLS, Backend, Stage, configuration, staged

QWEN, MINI = "qwen/qwen3-32b", "qwen/qwen3-8b"
MODELS = """
  - id: qwen/qwen3-32b
    name: Qwen3 32B
    context_length: 40960
    price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}
    endpoints:
      - {backend: gpu, model: Qwen/Qwen3-32B, quantization: fp8}
      - backend: api
        model: Qwen/Qwen3-32B
        cost: {prompt: "0.05", completion: "0.20"}
        price: {prompt: "0.2", completion: "0.8"}
  - id: qwen/qwen3-8b
    name: Qwen3 8B
    context_length: 40960
    price: {prompt: "0.05", completion: "0.10"}
    endpoints:
      - {backend: gpu, model: Qwen/Qwen3-8B}
aliases: {house-default: {qwen/qwen3-32b: 1}}
"""
_NO_RETRIES = RetryConfig("none", BackoffStrategy(1, 1, 1.0, 1), retry_connection_errors=False)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Use uvloop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(name="stage", scope="module", loop_scope="module")
async def stage_(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A gateway over an own backend that keeps nothing, and an API that collects prompts."""
    names = ("Qwen/Qwen3-32B", "Qwen/Qwen3-8B")
    gpu = SimConfig("vllm", name="gpu", models=names, timing=Timing(base_ttft=0.001, itl=0.0001))
    api = SimConfig("openai", name="api", models=names, timing=Timing(base_ttft=0.001, itl=0.0001))
    async with SimFleet((gpu, api)) as fleet:
        backends = [
            Backend("gpu", fleet["gpu"].url, more="zdr: true"),
            Backend("api", fleet["api"].url, "openai", provider="acme", more="data_collection: allow"),
        ]
        config = configuration(backends, models=MODELS)
        async with staged(tmp_path_factory.mktemp("surface"), config) as stage:
            yield stage


@pytest.fixture(name="sdk", scope="module")
def sdk_(stage: Stage) -> Iterator[Callable[..., OpenRouter]]:
    """Return a maker of OpenRouter's clients; with the management key unless told another one."""
    plain = httpx.Client(verify=NO_TLS)

    def make(key: str = ADMIN_KEY) -> OpenRouter:
        return OpenRouter(
            api_key=key,
            server_url=f"{stage.url}/api/v1",
            client=plain,
            async_client=stage.http,
            retry_config=_NO_RETRIES,
        )

    yield make
    plain.close()


async def call(stage: Stage, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
    """Send a request below ``/api/v1``, with the management key unless told another one."""
    headers = {"authorization": f"Bearer {key or ADMIN_KEY}"}
    return await stage.http.request(method, f"{stage.url}/api/v1{path}", headers=headers, **more)


async def ok(stage: Stage, method: str, path: str, key: str | None = None, **more: Any) -> Any:
    """As ``call``; return the body of an answer that must be good."""
    answer = await call(stage, method, path, key, **more)
    assert answer.is_success, answer.text
    return answer.json()
