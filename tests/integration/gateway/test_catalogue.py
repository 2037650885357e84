"""What callers can look up of models, endpoints and providers, measured and not made up."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.sim import Fault, SimConfig, SimFleet, Timing
from tests.harness import Backend, Stage, chat_body, configuration, staged

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
  - id: acme/vision:free
    name: Acme Vision
    description: Sees.
    context_length: 8192
    price: {prompt: "1", completion: "2"}
    capabilities: {vision: true, tools: false}
    endpoints:
      - {backend: gpu, model: acme}
aliases: {house-default: {qwen/qwen3-32b: 1}}
"""
QWEN, ACME = "qwen/qwen3-32b", "acme/vision:free"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(name="stage", scope="module", loop_scope="module")
async def stage_(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A gateway over an own backend and an API, which have been asked a few things."""
    gpu = SimConfig("vllm", name="gpu", models=("Qwen/Qwen3-32B", "acme"), timing=Timing(base_ttft=0.02, itl=0.001))
    api = SimConfig("openai", name="api", faults=(Fault(kind="error_status", status=500),))
    async with SimFleet((gpu, api)) as fleet:
        backends = [
            Backend("gpu", fleet["gpu"].url, more="region: eu"),
            Backend("api", fleet["api"].url, "openai", provider="acme-cloud"),
        ]
        config = configuration(backends, models=MODELS)
        async with staged(tmp_path_factory.mktemp("catalogue"), config) as stage:
            for _ in range(4):
                answer = await stage.chat()
                assert answer.status_code == 200
            await stage.chat(chat_body() | {"provider": {"only": ["acme-cloud"]}})
            yield stage


async def get(stage: Stage, path: str, *, key: str | None = None, status: int = 200) -> Any:
    """Return what a path answers."""
    headers = {"authorization": f"Bearer {key}"} if key else stage.headers
    answer = await stage.http.get(stage.url + path, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_endpoints_show_price_state_and_what_was_measured(stage: Stage) -> None:
    """Each endpoint has what it is sold for, its uptime and speeds; nobody sees what it costs the owner."""
    found = (await get(stage, f"/api/v1/models/{QWEN}/endpoints"))["data"]
    assert (found["id"], found["name"], found["architecture"]["tokenizer"]) == (QWEN, "Qwen3 32B", "Other")
    own, api = found["endpoints"]
    assert (own["tag"], own["quantization"], own["region"], own["status"]) == ("own/fp8@eu", "fp8", "eu", 0)
    assert (own["pricing"]["prompt"], api["pricing"]["prompt"]) == ("0.0000001", "0.0000002")
    assert (own["uptime_last_30m"], own["uptime_last_5m"]) == (100.0, 100.0)
    assert own["latency_last_30m"]["p50"] >= 20
    assert set(own["throughput_last_30m"]) == {"p50", "p75", "p90", "p99"}
    assert own["supports_implicit_caching"]
    assert (api["provider_name"], api["uptime_last_30m"], api["latency_last_30m"]) == ("acme-cloud", 0.0, None)
    assert "0.00000005" not in str(found)


@pytest.mark.parametrize("variant", [":nitro", ":floor:exacto"])
async def test_a_variant_that_only_steers_routing_is_the_model_itself(stage: Stage, variant: str) -> None:
    """``:nitro`` and its like are no entries of their own; ``:free`` is one."""
    assert (await get(stage, f"/api/v1/model/{QWEN}{variant}"))["data"]["id"] == QWEN
    assert (await get(stage, f"/api/v1/model/{ACME}{variant}"))["data"]["id"] == ACME
    assert (await get(stage, f"/v1/models/{QWEN}{variant}"))["id"] == QWEN
    await get(stage, f"/api/v1/model/{QWEN}:free", status=404)
    await get(stage, f"/v1/models/{QWEN}:free", status=404)


async def test_what_a_key_may_not_use_is_unknown_to_it(stage: Stage) -> None:
    """A restricted key sees its own models everywhere, and others answer as a model that is not there does."""
    key = (await stage.new_key(models=[ACME])).key
    assert [each["id"] for each in (await get(stage, "/api/v1/models", key=key))["data"]] == [ACME]
    assert (await get(stage, "/api/v1/models/count", key=key))["data"]["count"] == 1
    assert [each["slug"] for each in (await get(stage, "/api/v1/providers", key=key))["data"]] == ["own"]
    refused = await get(stage, f"/api/v1/models/{QWEN}/endpoints", key=key, status=404)
    unknown = await get(stage, "/api/v1/models/qwen/qwen4/endpoints", key=key, status=404)
    assert refused["error"]["message"].replace(QWEN, "?") == unknown["error"]["message"].replace("qwen/qwen4", "?")


async def test_an_alias_is_listed_and_looked_up_alike(stage: Stage, tmp_path: Path) -> None:
    """A key of an alias alone finds everything that the list links to; the likelier model speaks for the alias."""
    key = (await stage.new_key(models=["house-default"])).key
    (listed,) = (await get(stage, "/api/v1/models/user", key=key))["data"]
    assert listed["id"] == "house-default"
    assert (await get(stage, "/api/v1/model/house-default:floor", key=key))["data"] == listed
    served = (await get(stage, listed["links"]["details"], key=key))["data"]
    assert served["id"] == "house-default"
    assert {each["model_id"] for each in served["endpoints"]} == {QWEN}
    await get(stage, f"/api/v1/models/{QWEN}/endpoints", key=key, status=404)
    models = MODELS.replace("{qwen/qwen3-32b: 1}", f'{{"{ACME}": 5, {QWEN}: 95}}')
    gpu = SimConfig("vllm", name="gpu", models=("Qwen/Qwen3-32B", "acme"))
    async with SimFleet((gpu,)) as fleet:
        backends = [Backend("gpu", fleet["gpu"].url), Backend("api", fleet["gpu"].url, "openai", provider="acme-cloud")]
        async with staged(tmp_path, configuration(backends, models=models)) as canary:
            alias = (await get(canary, "/api/v1/model/house-default"))["data"]
            assert (alias["canonical_slug"], alias["pricing"]["prompt"]) == (QWEN, "0.0000001")
            served = (await get(canary, alias["links"]["details"]))["data"]
            assert [each["model_id"] for each in served["endpoints"]] == [QWEN, QWEN, ACME]
            key = (await canary.new_key(models=[ACME])).key
            assert [each["id"] for each in (await get(canary, "/api/v1/models", key=key))["data"]] == [
                ACME,
                "house-default",
            ]
            for name in ("house-default", "house-default:floor"):
                drawn = [await ask(canary, name, key) for _ in range(10)]
                assert [(each.status_code, each.json().get("model")) for each in drawn] == [(200, ACME)] * 10, name
            unknown = (await ask(canary, "qwen/qwen3-3b", key)).json()["error"]
            assert QWEN not in str(unknown), "a model that the key may not use"


async def ask(stage: Stage, model: str, key: str) -> httpx.Response:
    """Ask ``model`` something with ``key``."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    headers = {"authorization": f"Bearer {key}"}
    return await stage.http.post(f"{stage.url}/v1/chat/completions", json=body, headers=headers)


async def test_providers_and_endpoints_without_retention(stage: Stage) -> None:
    """Own backends keep nothing unless configured otherwise; an API is not trusted to."""
    assert [each["slug"] for each in (await get(stage, "/api/v1/providers"))["data"]] == ["acme-cloud", "own"]
    kept = (await get(stage, "/api/v1/endpoints/zdr"))["data"]
    assert {(each["model_id"], each["provider_name"]) for each in kept} == {(QWEN, "own"), (ACME, "own")}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [QWEN, ACME, "house-default"]),
        ("offset=1&limit=1", [ACME]),
        ("q=VISION", [ACME]),
        ("sort=pricing-high-to-low", [ACME, QWEN]),
        ("sort=context-high-to-low", [QWEN, ACME]),
        ("sort=latency-low-to-high", [QWEN, ACME]),
        ("input_modalities=image,text", [ACME]),
        ("output_modalities=embeddings", []),
        ("supported_parameters=tools", [QWEN]),
        ("model_authors=acme,nobody", [ACME]),
        ("providers=acme-cloud", [QWEN]),
        ("context=9000", [QWEN]),
        ("max_price=0.1", [QWEN]),
        ("min_price=0.11&max_output_price=2", [ACME]),
        ("zdr=true&region=eu", [QWEN, ACME]),
        ("region=us", []),
        ("min_age_days=400000", []),
    ],
)
async def test_the_list_can_be_searched_and_sorted(stage: Stage, query: str, expected: list[str]) -> None:
    """Query parameters mean what they mean at OpenRouter; the total counts what was found, not the page."""
    found = await get(stage, f"/api/v1/models?{query}")
    assert [each["id"] for each in found["data"]] == expected
    assert found["total_count"] == (3 if query.startswith("offset") else len(expected))


@pytest.mark.parametrize(
    ("query", "param"),
    [("sort=best", "sort"), ("max_price=cheap", "max_price"), ("min_price=-1", "min_price"), ("limit=0", "limit")],
)
async def test_a_query_that_means_nothing_is_refused_by_name(stage: Stage, query: str, param: str) -> None:
    """The error names the parameter."""
    assert (await get(stage, f"/api/v1/models?{query}", status=400))["error"]["param"] == param


async def test_the_list_as_a_feed(stage: Stage) -> None:
    """With ``use_rss`` the same list is an RSS document."""
    answer = await stage.http.get(f"{stage.url}/api/v1/models?use_rss=true&q=acme", headers=stage.headers)
    assert answer.headers["content-type"].startswith("application/rss+xml")
    (item,) = ET.fromstring(answer.content).findall("channel/item")
    assert item.findtext("guid") == ACME
    assert item.findtext("description") == "Sees."
