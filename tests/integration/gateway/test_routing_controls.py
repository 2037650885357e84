"""The caller's controls of routing, through the real gateway and the official client."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI

from gateway.sim import Fault, SimConfig, SimFleet
from tests.harness import Stage, chat_body, staged

BIG, SMALL = "qwen/qwen3-32b", "qwen/qwen3-8b"
QUESTION: list[Any] = [{"role": "user", "content": "Tell me about weirs."}]
TOOL: Any = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
CONFIG = """
backends:
  - {{name: gpu-a, kind: vllm, url: "{gpu-a}", provider: own, region: eu}}
  - {{name: gpu-b, kind: vllm, url: "{gpu-b}", provider: own, region: eu}}
  - {{name: acme-api, kind: openai, url: "{acme}/v1", provider: acme, data_collection: deny, zdr: true}}
  - {{name: budget-api, kind: openai, url: "{budget}/v1", provider: budget}}
models:
  - id: qwen/qwen3-32b
    context_length: 40960
    price: {{prompt: "0.10", completion: "0.30"}}
    endpoints:
      - {{backend: gpu-a, model: Qwen/Qwen3-32B, quantization: fp8}}
      - {{backend: gpu-b, model: Qwen/Qwen3-32B, quantization: fp8}}
      - {{backend: acme-api, model: Qwen/Qwen3-32B, quantization: bf16, price: {{prompt: "0.30", completion: "0.90"}},
          tool_quality: 0.9}}
      - {{backend: budget-api, model: Qwen/Qwen3-32B, price: {{prompt: "0.05", completion: "0.10"}}}}
  - id: qwen/qwen3-8b
    context_length: 8192
    price: {{prompt: "0.01", completion: "0.02"}}
    endpoints: [{{backend: acme-api, model: Qwen/Qwen3-8B}}]
aliases: {{house: {{qwen/qwen3-32b: 1}}, both: {{qwen/qwen3-32b: 1, qwen/qwen3-8b: 1}}}}
egress: {{allow: ["127.0.0.0/8"]}}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway over two own replicas of one endpoint and two external APIs."""

    stage: Stage
    fleet: SimFleet
    client: AsyncOpenAI

    async def ask(self, model: str = BIG, headers: dict[str, str] | None = None, **body: Any) -> str:
        """Ask with the official client; return the backend that answered."""
        raw = await self.client.chat.completions.with_raw_response.create(
            model=model, messages=QUESTION, extra_body=body, extra_headers=headers
        )
        assert raw.parse().choices[0].message.content
        return pick(raw.headers["x-weir-route"])

    async def refused(self, model: str = BIG, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """Ask for what is refused; return the error object with its status as ``status``."""
        with pytest.raises(APIStatusError) as caught:
            await self.ask(model, headers, **body)
        error = caught.value.response.json()["error"]
        assert error["code"] == caught.value.status_code
        return error


def pick(route: str) -> str:
    """Return the backend in an ``x-weir-route`` header."""
    return route.partition("pick=")[2].partition(";")[0].rpartition("/")[2]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    names = {"gpu-a": "vllm", "gpu-b": "vllm", "acme": "openai", "budget": "openai"}
    models = ("Qwen/Qwen3-32B", "Qwen/Qwen3-8B")
    configs = [
        SimConfig(name=name, kind=kind, models=models, answer_tokens=8)  # type: ignore[arg-type]  # they are kinds
        for name, kind in names.items()
    ]
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(SimFleet(configs))
        stage = await stack.enter_async_context(staged(tmp_path, CONFIG.format_map(fleet.urls)))
        yield Scene(stage, fleet, stage.openai())


def shown(value: object) -> str:
    """Return a parameter as text that is the same in every process; a set has no order."""
    return str(sorted(value)) if isinstance(value, set | frozenset) else str(value)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({"only": ["acme"]}, {"acme-api"}),
        ({"only": ["ACME"]}, {"acme-api"}),
        ({"only": ["own/fp8"]}, {"gpu-a", "gpu-b"}),
        ({"only": ["own/eu"]}, {"gpu-a", "gpu-b"}),
        ({"only": ["gpu-b"]}, {"gpu-b"}),
        ({"ignore": ["own", "budget"]}, {"acme-api"}),
        ({"order": ["budget", "own"]}, {"budget-api"}),
        ({"order": ["gpu-b", "acme"], "ignore": ["budget"]}, {"gpu-b"}),
        ({"order": ["acme"], "allow_fallbacks": False}, {"acme-api"}),
        ({"quantizations": ["bf16"]}, {"acme-api"}),
        ({"quantizations": ["unknown"]}, {"budget-api"}),
        ({"zdr": True, "ignore": ["own"]}, {"acme-api"}),
        ({"data_collection": "deny", "ignore": ["own"]}, {"acme-api"}),
        ({"max_price": {"prompt": 0.05, "completion": "0.1"}}, {"budget-api"}),
        ({"sort": "price"}, {"budget-api"}),
        ({"sort": {"by": "price", "partition": "none"}}, {"budget-api"}),
        ({"sort": "exacto"}, {"acme-api"}),
        ({"only": None, "sort": None, "max_price": None, "order": []}, {"gpu-a", "gpu-b", "acme-api", "budget-api"}),
    ],
    ids=shown,
)
async def test_the_provider_object_decides_who_answers(
    scene: Scene, provider: dict[str, Any], expected: set[str]
) -> None:
    """Each control does what OpenRouter documents, and none of it reaches an engine."""
    assert await scene.ask(provider=provider) in expected
    for name in ("gpu-a", "gpu-b", "acme", "budget"):
        for entry in scene.fleet[name].books:
            assert isinstance(entry.body, dict)
            assert not {"provider", "models", "route", "session_id"} & entry.body.keys()


@pytest.mark.parametrize(
    ("model", "expected"),
    [(f"{BIG}:floor", "budget-api"), (f"{BIG}:nitro:floor", "budget-api"), (f"{BIG}:floor:exacto", "acme-api")],
)
async def test_suffixes_sort_and_the_last_one_wins(scene: Scene, model: str, expected: str) -> None:
    """A routing suffix belongs to no model's id; aliases take it, too."""
    assert await scene.ask(model) == expected
    assert await scene.ask(model.replace(BIG, "house")) == expected


async def test_free_is_a_model_of_its_own_and_online_is_not_served(scene: Scene) -> None:
    """``:free`` is never stripped: a caller who wants it free must not be charged."""
    assert (await scene.refused(f"{BIG}:free"))["code"] == 404
    error = await scene.refused(f"{BIG}:online")
    assert error["code"] == 400
    assert "web search" in error["message"]


async def test_models_are_fallbacks_in_order(scene: Scene) -> None:
    """Another model answers, is named and is charged when the first cannot; with or without ``model``."""
    for name in ("gpu-a", "gpu-b", "budget"):
        scene.fleet[name].faults.arm(Fault(kind="error_status", status=500))
    scene.fleet["acme"].faults.arm(Fault(kind="error_status", status=400, count=1))
    answer = await scene.stage.http.post(
        f"{scene.stage.url}/api/v1/chat/completions",
        json={"messages": QUESTION, "models": [BIG, SMALL], "route": "fallback"},
        headers=scene.stage.headers | {"x-openrouter-metadata": "enabled"},
    )
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["model"] == SMALL
    assert document["usage"]["cost"] < 1e-6 * 0.02 * document["usage"]["total_tokens"]
    told = document["openrouter_metadata"]
    assert (told["requested"], told["strategy"]) == (BIG, "fallback")
    assert told["attempts"][-1] == {"provider": "acme", "model": SMALL, "endpoint": "acme", "status": 200}
    assert told["attempt"] == len(told["attempts"]) > 1
    assert [each["selected"] for each in told["endpoints"]["available"]].count(True) == 1


async def test_endpoints_of_all_models_can_be_sorted_together(scene: Scene) -> None:
    """With ``partition: none`` the cheapest endpoint of any model answers, not that of the first model."""
    assert await scene.ask(models=[SMALL], provider={"sort": "price"}) == "budget-api"
    assert await scene.ask(models=[SMALL], provider={"sort": {"by": "price", "partition": "none"}}) == "acme-api"


async def test_no_fallbacks_means_that_the_error_comes_through(scene: Scene) -> None:
    """Without fallbacks another endpoint does not take over; the replicas of one endpoint still do."""
    scene.fleet["budget"].faults.arm(Fault(kind="error_status", status=500))
    error = await scene.refused(provider={"sort": "price", "allow_fallbacks": False})
    assert error["code"] == 502
    scene.fleet["gpu-a"].faults.arm(Fault(kind="error_status", status=500))
    assert await scene.ask(provider={"order": ["own"], "allow_fallbacks": False}) in {"gpu-a", "gpu-b"}
    assert scene.fleet["gpu-b"].books.totals.completed == 1


async def test_parameters_can_be_required(scene: Scene) -> None:
    """An endpoint that does not take a parameter of the request is not used when all are required."""
    assert await scene.ask(top_k=5, provider={"require_parameters": True}) in {"gpu-a", "gpu-b"}
    error = await scene.refused(top_k=5, provider={"require_parameters": True, "only": ["acme"]})
    assert (error["code"], error["param"]) == (404, "provider.require_parameters")
    assert "top_k" in error["message"]


async def test_options_reach_their_provider_and_nobody_else(scene: Scene) -> None:
    """A provider gets its own fields; what the gateway has judged by cannot be changed that way."""
    options = {"acme": {"reasoning_split": True, "messages": [], "n": 3, "api_base": "http://x"}, "own": {"top_k": 7}}
    await scene.ask(provider={"only": ["acme"], "options": options})
    entry = scene.fleet["acme"].books[-1]
    assert isinstance(entry.body, dict)
    assert entry.body["reasoning_split"] is True
    assert entry.body["messages"] == QUESTION
    assert not {"n", "api_base", "top_k"} & entry.body.keys()


@pytest.mark.parametrize(
    ("body", "code", "param", "words"),
    [
        ({"provider": {"only": ["acmee"]}}, 400, "provider.only[0]", "did you mean acme"),
        ({"provider": {"ignore": ["own", "nowhere"]}}, 400, "provider.ignore[1]", "there are own/fp8@eu"),
        ({"provider": {"order": ["budgt"]}}, 400, "provider.order[0]", "budget"),
        ({"provider": {"onyl": ["acme"]}}, 400, "provider.onyl", "did you mean only"),
        ({"provider": {"sort": "prise"}}, 400, "provider.sort", "did you mean price"),
        ({"provider": {"sort": {"by": "speed"}}}, 400, "provider.sort.by", "price, throughput, latency, exacto"),
        ({"provider": {"sort": {"by": "price", "partition": "all"}}}, 400, "provider.sort.partition", "model, none"),
        ({"provider": {"quantizations": ["fp9"]}}, 400, "provider.quantizations[0]", "fp8"),
        ({"provider": {"quantizations": ["fp8", "fp4", "fp9"]}}, 400, "provider.quantizations[2]", "fp8"),
        ({"provider": {"quantizations": ["int4"]}}, 404, "provider.quantizations", "has the quantization fp8"),
        ({"provider": {"data_collection": "never"}}, 400, "provider.data_collection", "allow, deny"),
        ({"provider": {"only": ["acme"], "ignore": ["acme"]}}, 400, "provider.only", "contradict"),
        ({"provider": {"only": ["budget"], "zdr": True}}, 404, "provider.zdr", "zero data retention"),
        ({"provider": {"max_price": {"prompt": "0.049999"}}}, 404, "provider.max_price", "0.05 USD"),
        ({"provider": {"max_price": {"prompt": -1}}}, 400, "provider.max_price.prompt", "not negative"),
        ({"provider": {"max_price": {"prompt": "a dime"}}}, 400, "provider.max_price.prompt", "number of USD"),
        ({"provider": {"order": "acme"}}, 400, "provider.order", "array"),
        ({"provider": {"preferred_max_latency": {"p95": 1}}}, 400, "provider.preferred_max_latency.p95", "p90"),
        ({"provider": ["acme"]}, 400, "provider", "object"),
        ({"provider": {"enforce_distillable_text": True}}, 400, "provider.enforce_distillable_text", "not known"),
        ({"models": ["qwen/qwen3-8"]}, 404, "models[0]", "qwen/qwen3-8b"),
        ({"models": "qwen/qwen3-8b"}, 400, "models", "array"),
        ({"route": "random"}, 400, "route", "fallback"),
        ({"preset": "balancd"}, 400, "preset", "did you mean balanced"),
        ({"priority": "urgent"}, 400, "priority", "interactive, standard, batch"),
        ({"session_id": "s" * 257}, 400, "session_id", "256"),
        ({"plugins": [{"id": "web"}]}, 400, "plugins[0]", "'web', and there is no web search here"),
        ({"transforms": ["zip"]}, 400, "transforms[0]", "middle-out alone"),
    ],
    ids=shown,
)
async def test_what_cannot_be_is_refused_with_its_field(
    scene: Scene, body: dict[str, Any], code: int, param: str | None, words: str
) -> None:
    """The caller learns which field is wrong and what would be right; no backend is asked."""
    error = await scene.refused(**body)
    assert (error["code"], error["param"]) == (code, param)
    assert words in error["message"]
    assert not any(scene.fleet[name].books for name in ("gpu-a", "gpu-b", "acme", "budget"))


async def test_an_only_that_matches_nothing_says_what_would(scene: Scene) -> None:
    """A provider that exists, but not for this model, gets 404 with the providers there are, as OpenRouter says it."""
    error = await scene.refused(SMALL, provider={"only": ["own"]})
    assert (error["code"], error["param"]) == (404, "provider.only")
    assert error["metadata"]["available_providers"] == ["acme"]
    assert error["availability"] == {
        "code": "constraint_filtered",
        "retryable": False,
        "constraint": "provider.only",
        "excluded_by": ["allowed_providers"],
    }


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-slo-ttft-ms", "soon"),
        ("x-slo-tpot-ms", "-1"),
        ("x-weir-deadline-ms", "nan"),
        ("x-weir-priority", "urgent"),
        ("x-session-id", "s" * 257),
        ("x-weir-policy", "quickest"),
    ],
)
async def test_bad_headers_are_named(scene: Scene, header: str, value: str) -> None:
    """A header with a value that means nothing is refused, not passed over."""
    error = await scene.refused(headers={header: value})
    assert error["code"] == 400
    assert header.removeprefix("x-weir-").replace("policy", "preset") in error["message"]


async def test_headers_that_are_well(scene: Scene) -> None:
    """The preset and what else headers say are obeyed."""
    headers = {"x-slo-ttft-ms": "800", "x-slo-tpot-ms": "40.5", "x-weir-deadline-ms": "60000", "x-session-id": "chat-1"}
    raw = await scene.client.chat.completions.with_raw_response.create(
        model=BIG, messages=QUESTION, extra_headers=headers | {"x-weir-policy": "cheapest", "x-weir-priority": "Batch"}
    )
    assert raw.headers["x-weir-route"].startswith("cheapest; ")


async def test_a_stream_tells_its_route_at_the_end(scene: Scene) -> None:
    """Metadata comes once, with the last chunk; nobody gets it unasked."""
    for base, asked in (("/v1", True), ("/api/v1", True), ("/v1", False)):
        headers = scene.stage.headers | ({"x-openrouter-metadata": "enabled"} if asked else {})
        answer = await scene.stage.http.post(
            f"{scene.stage.url}{base}/chat/completions", json=chat_body() | {"stream": True}, headers=headers
        )
        chunks = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
        assert ["openrouter_metadata" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [asked]


async def test_an_error_tells_its_route_too(scene: Scene) -> None:
    """Who asks for it learns from an error that no attempt was made, or which ones failed."""
    headers = scene.stage.headers | {"x-openrouter-metadata": "enabled"}
    url = f"{scene.stage.url}/api/v1/chat/completions"
    body = chat_body(SMALL) | {"provider": {"only": ["own"]}}
    told = (await scene.stage.http.post(url, json=body, headers=headers)).json()["openrouter_metadata"]
    assert (told["attempt"], told["attempts"]) == (0, [])
    scene.fleet["acme"].faults.arm(Fault(kind="error_status", status=500))
    told = (await scene.stage.http.post(url, json=chat_body(SMALL), headers=headers)).json()["openrouter_metadata"]
    assert [attempt["status"] for attempt in told["attempts"]] == [500]
    scene.fleet["acme"].faults.clear()
    scene.fleet["acme"].faults.arm(Fault(kind="cut_mid_stream"))
    broken = await scene.stage.http.post(url, json=chat_body(SMALL) | {"stream": True}, headers=headers)
    told = json.loads(broken.text.strip().rpartition("data: ")[2])["openrouter_metadata"]
    assert (told["attempt"], [attempt["status"] for attempt in told["attempts"]]) == (1, [200])
    assert [each["selected"] for each in told["endpoints"]["available"]] == [False]


async def test_a_key_gets_no_model_by_way_of_a_fallback(scene: Scene) -> None:
    """Models that a key may not use are left out of its fallbacks; an allowed alias opens only its own targets."""
    issued = await scene.stage.new_key(models=["house"])
    client = scene.stage.openai(issued.key)
    for name in ("gpu-a", "gpu-b", "acme", "budget"):
        scene.fleet[name].faults.arm(Fault(kind="error_status", status=500, probability=1.0))
    with pytest.raises(APIStatusError) as caught:
        await client.chat.completions.create(model="house", messages=QUESTION, extra_body={"models": [SMALL]})
    assert caught.value.status_code == 502
    assert not any(
        isinstance(entry.body, dict) and entry.body["model"] == "Qwen/Qwen3-8B" for entry in scene.fleet["acme"].books
    )
    with pytest.raises(APIStatusError) as caught:
        await client.chat.completions.create(model=SMALL, messages=QUESTION, extra_body={"models": [SMALL]})
    assert caught.value.status_code == 403


async def test_what_endpoints_did_is_kept(scene: Scene) -> None:
    """Answers, failures, speeds and tool calls of an endpoint are booked where routing looks for them."""
    await scene.client.chat.completions.create(model=SMALL, messages=QUESTION, tools=[TOOL], tool_choice="required")
    stream = await scene.client.chat.completions.create(
        model=SMALL, messages=QUESTION, tools=[TOOL], tool_choice="required", stream=True
    )
    async for _ in stream:
        pass
    scene.fleet["acme"].faults.arm(Fault(kind="error_status", status=500, count=1))
    await scene.refused(SMALL)
    track = scene.stage.gateway.registry.fleet.models[SMALL].endpoints[0].track
    now = time.monotonic()
    assert track.uptime(now) == (2, 1)
    assert track.tool_calls(now) == (2, 0)
    assert track.speeds(now).latency is not None


@pytest.mark.parametrize("suffix", ["", ":floor"])
async def test_an_alias_stands_for_the_models_that_its_caller_may_use(scene: Scene, suffix: str) -> None:
    """A key and a guardrail that allow one of two models get that one every time, not a refusal every second time."""
    stage = scene.stage
    issued = await stage.new_key(models=[SMALL])
    body = chat_body(f"both{suffix}") | {"max_tokens": 1}

    async def answered(key: str) -> set[tuple[int, str | None]]:
        headers = {"authorization": f"Bearer {key}"}
        url = f"{stage.url}/v1/chat/completions"
        answers = [await stage.http.post(url, json=body, headers=headers) for _ in range(12)]
        return {(answer.status_code, answer.json().get("model")) for answer in answers}

    assert await answered(issued.key) == {(200, SMALL)}
    rails = f"{stage.url}/api/v1/guardrails"
    default = (await stage.http.get(rails, headers=stage.admin)).json()["data"][0]["id"]
    change = await stage.http.patch(f"{rails}/{default}", json={"ignored_models": [SMALL]}, headers=stage.admin)
    assert change.status_code == 200
    assert await answered(stage.key) == {(200, BIG)}
    assert await answered(issued.key) == {(403, None)}
