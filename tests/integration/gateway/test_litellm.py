"""Backends through litellm: Gemini's, Ollama's and Cohere's APIs, simulated here, spoken to by the real library.

The library takes seconds to import, so the tests share one gateway.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.upstream.lane import lane
from gateway.upstream.litellm import library
from tests.fakes.backend import SSE_HEAD, HandBackend, Visit, event, hand_backend
from tests.harness import Backend, Stage, staged

pytestmark = pytest.mark.usefixtures("litellm")

KEY = "sk-upstream-0123456789"
OTHER = "sk-theirs-0123456789"
USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
MODELS = """
  - id: gemini
    context_length: 8192
    price: {prompt: "1.00", completion: "2.00"}
    capabilities: {vision: true}
    endpoints: [{backend: gem, model: gemini-2.0-flash}]
  - id: command
    context_length: 8192
    price: {prompt: "1.00", completion: "2.00"}
    endpoints: [{backend: coh, model: command-a-03-2025}]
  - id: llama
    context_length: 8192
    price: {prompt: "1.00", completion: "2.00"}
    endpoints: [{backend: oll, model: llama3}]
  - id: ranker
    context_length: 8192
    price: {prompt: "1.00", completion: "0"}
    operations: [rerank]
    endpoints: [{backend: rank, model: rerank-v3.5}]
  - id: embedder
    context_length: 8192
    price: {prompt: "1.00", completion: "0"}
    operations: [embeddings]
    endpoints: [{backend: emb, model: embed-v4.0}]
  - id: pinned
    context_length: 8192
    price: {prompt: "1.00", completion: "2.00"}
    endpoints: [{backend: pin, model: gemini-2.0-flash}]
  - id: lacking
    context_length: 8192
    price: {prompt: "1.00", completion: "2.00"}
    endpoints: [{backend: bed, model: anthropic.claude-3-haiku-20240307-v1:0}]
"""


def gemini(text: str, finish: str | None = None) -> dict[str, Any]:
    """Return what Gemini answers, or a piece of it."""
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    return {
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-2.0-flash",
    }


class Apis:
    """The simulated APIs.

    Attributes:
        script: answers the next Gemini request in place of the usual answer.
    """

    def __init__(self) -> None:
        self.backend: HandBackend
        self.script: Callable[[Visit], Awaitable[None]] | None = None

    async def serve(self, visit: Visit) -> None:
        """Answer one request in the dialect of its path."""
        if visit.path.startswith("/v2/chat"):
            await self._cohere(visit)
        elif visit.path.startswith("/api/chat"):
            await self._ollama(visit)
        elif visit.path.startswith("/v2/rerank"):
            ranked = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]
            await visit.answer({"id": "r", "results": ranked, "meta": {"billed_units": {"search_units": 1}}})
        elif visit.path.startswith("/v2/embed"):
            units = {"billed_units": {"input_tokens": 4}}
            await visit.answer({"id": "e", "embeddings": {"float": [[0.5, 0.25]]}, "texts": ["x"], "meta": units})
        elif self.script is not None:
            await self.script(visit)
        elif "streamGenerateContent" in visit.path:
            await visit.send(SSE_HEAD)
            for piece in ("a ", "weir"):
                await visit.events(event(gemini(piece)))
            await visit.events(event(gemini("", "STOP")), last=True)
        else:
            await visit.answer(gemini("a weir", "STOP"))

    async def _cohere(self, visit: Visit) -> None:
        usage = {"tokens": {"input_tokens": 5, "output_tokens": 2}}
        message = {"role": "assistant", "content": [{"type": "text", "text": "a dam"}]}
        await visit.answer({"id": "c", "finish_reason": "COMPLETE", "message": message, "usage": usage})

    async def _ollama(self, visit: Visit) -> None:
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 6, "eval_count": 4}
        if not visit.document.get("stream"):
            await visit.answer({"model": "m", "message": {"role": "assistant", "content": "a bar"}, **end})
            return
        await visit.send(SSE_HEAD.replace(b"text/event-stream", b"application/x-ndjson"))
        for text in ("a ", "bar"):
            said = {"model": "m", "message": {"role": "assistant", "content": text}, "done": False}
            await visit.events(json.dumps(said).encode() + b"\n")
        last = {"model": "m", "message": {"role": "assistant", "content": ""}, **end}
        await visit.events(json.dumps(last).encode() + b"\n", last=True)


@asynccontextmanager
async def gateway(home: Path) -> AsyncIterator[tuple[Apis, Stage]]:
    """Run a gateway before the simulated APIs."""
    apis = Apis()
    # What the first request would wait for.
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(library(), lane()))
    async with hand_backend(apis.serve) as backend:
        apis.backend = backend
        backends = [
            Backend("gem", backend.url, provider="gemini"),
            Backend("coh", backend.url + "/v2/chat", provider="cohere"),
            Backend("oll", backend.url, provider="ollama_chat"),
            Backend("rank", backend.url + "/v2/rerank", provider="cohere"),
            Backend("emb", backend.url + "/v2/embed", provider="cohere"),
            Backend("bed", backend.url, provider="bedrock"),
            Backend("pin", backend.url.replace("127.0.0.1", "pinned.invalid"), provider="gemini"),
        ]
        lines = [
            f'  - {{name: {each.name}, kind: litellm, url: "{each.url}", provider: {each.provider}-api, '
            f'api_key: "${{WEIR_TEST_LITELLM_KEY}}", litellm: {{provider: {each.provider}}}}}'
            for each in backends
        ]
        config = "\n".join(["backends:", *lines, "models:" + MODELS, 'egress: {allow: ["127.0.0.0/8"]}', ""])
        async with staged(home, config) as stage:
            yield apis, stage


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a stream."""
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])


def body(model: str, **more: Any) -> dict[str, Any]:
    """Return a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "What is a weir?"}], "max_tokens": 50, **more}


async def test_a_gateway_speaks_other_dialects_through_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole and streamed, embedded and ranked: text, usage and charge are right, and the charge is on record."""
    monkeypatch.setenv("WEIR_TEST_LITELLM_KEY", KEY)
    async with gateway(tmp_path) as (apis, stage):
        await _answers(apis, stage)
        await _unreadable(apis, stage)
        await _streams_live(apis, stage)
        await _leaving(apis, stage)
        await _not_reading(apis, stage)
        await _errors(apis, stage)
        await _nothing_dangerous(apis, stage)
        await _pinned(apis, stage, monkeypatch)
        await _lacking(apis, stage, monkeypatch)
        await _own_keys(apis, stage)


async def _answers(apis: Apis, stage: Stage) -> None:
    answers = [("gemini", "a weir", 7, 3), ("llama", "a bar", 6, 4), ("command", "a dam", 5, 2)]
    for model, text, prompt, completion in answers:
        whole = await stage.chat(body(model))
        assert whole.status_code == 200, whole.text
        assert whole.json()["choices"][0]["message"]["content"] == text
        assert whole.json()["choices"][0]["finish_reason"] == "stop"
        usage = whole.json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
        if model == "command":
            continue
        streamed = await stage.chat(body(model, stream=True, stream_options={"include_usage": True}))
        found = [each async for each in events(streamed)]
        said = "".join(choice["delta"].get("content") or "" for each in found for choice in each["choices"])
        assert said == text
        assert (found[-1]["usage"]["prompt_tokens"], found[-1]["usage"]["completion_tokens"]) == (prompt, completion)
        for identity in (whole.json()["id"], found[-1]["id"]):
            data = await stage.generation(identity)
            assert data["usage_source"] == "upstream"
            assert data["total_cost"] == pytest.approx((prompt + 2 * completion) / 1e6)
    url = f"{stage.url}/v1"
    ranked = await stage.http.post(
        f"{url}/rerank", json={"model": "ranker", "query": "q", "documents": ["a", "b"]}, headers=stage.headers
    )
    assert [each["index"] for each in ranked.json()["results"]] == [1, 0], ranked.text
    embedded = await stage.http.post(
        f"{url}/embeddings", json={"model": "embedder", "input": ["x"]}, headers=stage.headers
    )
    assert embedded.json()["data"][0]["embedding"] == [0.5, 0.25], embedded.text
    assert embedded.json()["usage"]["prompt_tokens"] == 4
    assert KEY.encode() in apis.backend.visits[0].head


async def _unreadable(apis: Apis, stage: Stage) -> None:
    """Streams that the library cannot read are refused before anybody is asked, with the way that works."""
    asked = len(apis.backend.visits)
    refused = await stage.chat(body("command", stream=True))
    assert refused.status_code == 400, refused.text
    assert "kind openai with the profile cohere" in refused.text
    assert len(apis.backend.visits) == asked


async def _streams_live(apis: Apis, stage: Stage) -> None:
    """A piece leaves before the next one comes."""
    seen = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(gemini("first ")))
        await visit.events(event(gemini("second ")))
        await asyncio.wait_for(seen.wait(), 20)
        await visit.events(event(gemini("third", "STOP")), last=True)

    apis.script = script
    url = f"{stage.url}/v1/chat/completions"
    async with stage.http.stream("POST", url, json=body("gemini", stream=True), headers=stage.headers) as response:
        said = ""
        async for each in events(response):
            said += "".join(choice["delta"].get("content") or "" for choice in each["choices"])
            if said:
                seen.set()
    assert said == "first second third"


async def _leaving(apis: Apis, stage: Stage) -> None:
    """A caller who leaves ends the request at the API."""
    for streams in (True, False):
        gone = asyncio.Event()

        async def script(visit: Visit, streams: bool = streams, gone: asyncio.Event = gone) -> None:
            if streams:
                await visit.send(SSE_HEAD)
                await visit.events(event(gemini("first ")))
                await visit.events(event(gemini("second ")))
            await asyncio.wait_for(visit.gone.wait(), 20)
            gone.set()

        apis.script = script
        visits = len(apis.backend.visits)
        task = asyncio.create_task(stage.chat(body("gemini", stream=streams)))
        await apis.backend.visit(visits + 1)
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait_for(gone.wait(), 10)


async def _not_reading(apis: Apis, stage: Stage) -> None:
    """While the caller does not read, neither does the library for long: the API's writes come to a stop."""
    sent = 0
    stalled = asyncio.Event()

    async def script(visit: Visit) -> None:
        nonlocal sent
        await visit.send(SSE_HEAD)
        with_text = event(gemini("x" * 60_000))
        try:
            for _ in range(1_000):
                await asyncio.wait_for(visit.events(with_text), 3)
                sent += len(with_text)
        except TimeoutError:
            stalled.set()

    apis.script = script
    _, writer = await asyncio.open_connection("127.0.0.1", stage.port, limit=2**12)
    raw = json.dumps(body("gemini", stream=True)).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {stage.key}"]
    head = "\r\n".join([*lines, "content-type: application/json", f"content-length: {len(raw)}", "", ""])
    writer.write(head.encode() + raw)
    await writer.drain()
    await asyncio.wait_for(stalled.wait(), 60)
    writer.close()
    assert sent < 40_000_000


async def _errors(apis: Apis, stage: Stage) -> None:
    """Errors come with their meaning, with ``Retry-After``, and without secrets."""

    def refusing(status: str, message: str, more: str = "") -> Callable[[Visit], Awaitable[None]]:
        async def script(visit: Visit) -> None:
            error = {"error": {"code": int(status[:3]), "message": message, "status": "X"}}
            await visit.answer(error, status, more)

        return script

    apis.script = refusing("400 Bad Request", f"the key {KEY} cannot be told")
    refused = await stage.chat(body("gemini"))
    assert refused.status_code == 400, refused.text
    assert "cannot be told" in refused.text
    assert KEY not in refused.text
    apis.script = refusing("500 Internal Server Error", "broken")
    assert (await stage.chat(body("gemini"))).status_code == 502
    apis.script = refusing("401 Unauthorized", "who are you")
    assert (await stage.chat(body("gemini"))).status_code == 502
    apis.script = refusing("429 Too Many Requests", "slow down", "retry-after: 7\r\n")
    asked = len(apis.backend.visits)
    full = await stage.chat(body("gemini"))
    assert (full.status_code, full.headers["retry-after"]) == (503, "7"), full.text
    assert len(apis.backend.visits) == asked + 1
    load = stage.gateway.registry.fleet.replicas["gem"].load
    assert load.cooling_until > time.monotonic() + 3
    load.cooling_until, load.cooling_asked, load.failures = 0.0, False, 0


async def _nothing_dangerous(apis: Apis, stage: Stage) -> None:
    """Callers choose no address, no key and no switch of the library, and have it fetch nothing."""
    apis.script = None
    sly = {
        "api_base": "http://127.0.0.1:9/",
        "base_url": "http://127.0.0.1:9/",
        "api_key": "stolen",
        "custom_llm_provider": "openai",
        "extra_headers": {"x": "y"},
        "mock_response": "hacked",
        "fallbacks": ["x"],
        "metadata": {"a": "b"},
        "proxy_server_request": {},
        "num_retries": 9,
        "vertex_project": "p",
    }
    answer = await stage.chat(body("gemini", **sly))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "a weir"
    visit = apis.backend.visits[-1]
    assert KEY.encode() in visit.head
    assert b"stolen" not in visit.head
    asked = len(apis.backend.visits)
    link = {"type": "image_url", "image_url": {"url": f"{apis.backend.url}/secret.png"}}
    content = [{"type": "text", "text": "http://is.fine.in/text"}, link]
    refused = await stage.chat({"model": "gemini", "messages": [{"role": "user", "content": content}]})
    assert refused.status_code == 400, refused.text
    assert "data: URL" in refused.text
    assert len(apis.backend.visits) == asked


async def _pinned(apis: Apis, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library connects to the address that the egress guard let pass, and asks no name service by itself."""
    looked: list[str] = []

    async def lookup(host: str) -> list[str]:
        looked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(stage.gateway._guard, "_lookup", lookup)
    answer = await stage.chat(body("pinned"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "a weir"
    assert looked == ["pinned.invalid"]
    assert b"pinned.invalid" in apis.backend.visits[-1].head


class Hidden:
    """Hides a package from whoever imports it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Say of boto3 that it is not there."""
        if name.partition(".")[0] == "boto3":
            raise ModuleNotFoundError("No module named 'boto3'", name=name)


async def _lacking(apis: Apis, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that needs a package which is not there says which."""
    asked = len(apis.backend.visits)
    monkeypatch.delitem(sys.modules, "boto3", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    answer = await stage.chat(body("lacking"))
    assert answer.status_code == 502
    assert "the package boto3" in answer.text
    assert len(apis.backend.visits) == asked


async def _own_keys(apis: Apis, stage: Stage) -> None:
    """A team's own key goes through the library, too."""
    created = await stage.http.post(
        f"{stage.url}/api/v1/byok", json={"provider": "gemini-api", "key": OTHER}, headers=stage.admin
    )
    assert created.status_code == 201, created.text
    answer = await stage.chat(body("gemini"))
    assert answer.status_code == 200
    assert answer.json()["usage"]["is_byok"] is True
    assert OTHER.encode() in apis.backend.visits[-1].head
