"""Reranking in one form whatever engine answers, metered and priced; and models asked for what they do not do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openrouter import OpenRouter

from tests.fakes.backend import HandBackend, Visit, hand_backend, whole
from tests.harness import Backend, Stage, configuration, staged

DOCUMENTS: list[Any] = ["Reranking is fun.", "A weir regulates a river.", {"text": "Bread is baked."}]
SCORES = [0.2, 0.9, 0.1]
BODY: dict[str, Any] = {"model": "ranker", "query": "What is a weir?", "documents": DOCUMENTS}
MODELS = """
  - id: ranker
    context_length: 8192
    price: {prompt: "1.00", completion: "0", request: "0.001"}
    operations: [rerank]
    endpoints: [{backend: gpu-a, model: bge}]
  - id: embedder
    context_length: 8192
    price: {prompt: "1.00", completion: "0"}
    capabilities: {embeddings: true}
    endpoints: [{backend: gpu-a, model: bge}]
  - id: seer
    context_length: 8192
    price: {prompt: "1.00", completion: "0", request: "0.001"}
    operations: [rerank]
    capabilities: {vision: true}
    endpoints: [{backend: gpu-a, model: bge}]
  - id: talker
    context_length: 8192
    price: {prompt: "1.00", completion: "1.00"}
    endpoints: [{backend: gpu-a, model: bge}]
  - id: both
    context_length: 8192
    price: {prompt: "1.00", completion: "1.00"}
    operations: [chat, embeddings]
    endpoints: [{backend: gpu-a, model: bge}]
aliases: {rank-alias: {ranker: 1}}
"""


def vllm(body: dict[str, Any]) -> Any:
    """Return what vLLM answers."""
    results = [
        {"index": index, "document": {"text": text}, "relevance_score": SCORES[index]}
        for index, text in enumerate(body["documents"])
    ]
    return {"id": "rerank-1", "model": "bge", "usage": {"total_tokens": 100}, "results": results}


def llamacpp(body: dict[str, Any]) -> Any:
    """Return what llama.cpp answers."""
    results = [{"index": index, "relevance_score": SCORES[index]} for index in range(len(body["documents"]))]
    return {"model": "bge", "object": "list", "usage": {"prompt_tokens": 100, "total_tokens": 100}, "results": results}


def sglang(body: dict[str, Any]) -> Any:
    """Return what SGLang answers: no object and no usage."""
    return [{"score": SCORES[index], "document": text, "index": index} for index, text in enumerate(body["documents"])]


ANSWERS = {"vllm": vllm, "llamacpp": llamacpp, "sglang": sglang, "openai": vllm}


@asynccontextmanager
async def stage_of(tmp_path: Path, kind: str) -> AsyncIterator[tuple[HandBackend, Stage]]:
    """Run a gateway before an engine of ``kind`` that ranks, and answers everything else as a chat."""

    async def serve(visit: Visit) -> None:
        await visit.answer(ANSWERS[kind](visit.document) if visit.path == "/v1/rerank" else whole())

    async with hand_backend(serve) as backend:
        config = configuration([Backend("gpu-a", backend.url, kind)], models=MODELS)
        async with staged(tmp_path, config) as stage:
            yield backend, stage


@pytest.mark.parametrize(
    ("kind", "prefix"), [("vllm", "/v1"), ("llamacpp", "/api/v1"), ("sglang", "/v1"), ("openai", "/api/v1")]
)
async def test_every_engine_ranks_in_one_form(kind: str, prefix: str, tmp_path: Path) -> None:
    """Results come sorted, as many as asked for, with their documents, whatever the engine leaves out; and are paid."""
    async with stage_of(tmp_path, kind) as (backend, stage):
        answer = await stage.http.post(
            f"{stage.url}{prefix}/rerank",
            json=BODY | {"top_n": 2, "provider": {"sort": "price"}},
            headers=stage.headers,
        )
        assert answer.status_code == 200, answer.text
        document = answer.json()
        [record] = await stage.settled()
    assert document["results"] == [
        {"index": 1, "relevance_score": 0.9, "document": {"text": "A weir regulates a river."}},
        {"index": 0, "relevance_score": 0.2, "document": {"text": "Reranking is fun."}},
    ]
    assert document["model"] == "ranker"
    assert document["id"].startswith("gen-")
    assert ("provider" in document) == (prefix == "/api/v1")
    sent = backend.visits[0].document
    assert sent == {
        "model": "bge",
        "query": BODY["query"],
        "documents": [*DOCUMENTS[:2], "Bread is baked."],
        "top_n": 2,
    }
    attempt = record.attempts[-1]
    tokens = attempt.usage.prompt
    assert (tokens, attempt.source) == ((100, "upstream") if kind != "sglang" else (tokens, "estimated"))
    assert attempt.usage.completion == 0
    assert attempt.charge_nano == 1_000_000 + tokens * 1_000
    assert document["usage"]["total_tokens"] == tokens
    assert document["usage"]["cost"] == pytest.approx(attempt.charge_nano / 1e9)
    assert attempt.operation == "rerank"


ASKED: dict[str, tuple[str, dict[str, Any], int]] = {
    "text": ("embeddings", {"model": "embedder", "input": "hi"}, 2),
    "texts": ("embeddings", {"model": "embedder", "input": ["hi", "ho"] * 50}, 200),
    "numbers": ("embeddings", {"model": "embedder", "input": [[7] * 500] * 3}, 1_500),
    "documents": ("rerank", {"model": "ranker", "query": "q" * 400, "documents": ["d" * 8] * 30}, 30 * 408),
    "pictures": (
        "rerank",
        {"model": "seer", "query": "q", "documents": [{"image": "https://example.com/a.png"}] * 3},
        3 * 16_000,
    ),
}
"""Requests that make no tokens: path, body, and tokens of the longest prompt they can be.

One a byte or a number, and for each picture as many as the largest takes, but for a few."""


@pytest.mark.parametrize("asked", ASKED)
async def test_an_engine_that_counts_more_than_was_sent_is_not_believed(asked: str, tmp_path: Path) -> None:
    """A request has no more tokens than bytes, but for what surrounds each text: beyond, the estimate is paid."""
    path, body, longest = ASKED[asked]
    texts = len(body.get("documents") or body["input"]) if isinstance(body.get("input", []), list) else 1
    usage: dict[str, Any] = {}

    async def serve(visit: Visit) -> None:
        results = [{"index": index, "relevance_score": 0.5} for index in range(texts)]
        await visit.answer({"data": [{"index": 0, "embedding": [0.1]}], "results": results, "usage": usage})

    async with hand_backend(serve) as backend:
        config = configuration([Backend("gpu-a", backend.url, "vllm")], models=MODELS)
        async with staged(tmp_path, config) as stage:
            for count, told in enumerate((10**11, longest + 256 * texts, 10**7, 1, -(10**11)), 1):
                usage = {"prompt_tokens": told, "total_tokens": told, "prompt_tokens_details": {"cached_tokens": told}}
                answer = await stage.http.post(f"{stage.url}/v1/{path}", json=body, headers=stage.headers)
                assert answer.status_code == 200, answer.text
                attempt = (await stage.settled(count))[0].attempts[-1]
                fee = 1_000_000 if path == "rerank" else 0
                assert attempt.charge_nano == fee + attempt.usage.prompt * 1_000
                assert answer.json()["usage"]["total_tokens"] == attempt.usage.prompt
                if 0 < told < 10**7:
                    assert (attempt.usage.prompt, attempt.source) == (told, "upstream")
                else:
                    assert 0 < attempt.usage.prompt <= longest + 1
                    assert (attempt.usage.cache_read, attempt.source) == (0, "estimated")


async def test_openrouters_own_client_reads_the_ranking(tmp_path: Path) -> None:
    """The official client's validator accepts the answer and its values are right."""
    async with stage_of(tmp_path, "llamacpp") as (_, stage):
        async with OpenRouter(api_key=stage.key, server_url=f"{stage.url}/api/v1") as client:
            ranked = await client.rerank.rerank_async(model="ranker", query=BODY["query"], documents=DOCUMENTS)
        generation = await stage.generation(ranked.id)
    assert [result.index for result in ranked.results] == [1, 0, 2]
    assert ranked.results[2].document.text == "Bread is baked."
    assert ranked.usage.total_tokens == 100
    assert generation["api_type"] == "rerank"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"query": None}, "query"),
    ({"query": 7}, "query"),
    ({"documents": []}, "documents"),
    ({"documents": "x"}, "documents"),
    ({"documents": [7]}, "documents[0]"),
    ({"documents": ["a", {}]}, "documents[1]"),
    ({"top_n": 0}, "top_n"),
    ({"top_n": "2"}, "top_n"),
    ({"model": None}, "model"),
]


async def test_a_bad_request_names_its_field(tmp_path: Path) -> None:
    """Wrong types, empty lists and contradictions are refused before any engine is asked."""
    async with stage_of(tmp_path, "vllm") as (backend, stage):
        for change, param in BAD:
            body = {name: value for name, value in (BODY | change).items() if value is not None}
            answer = await stage.http.post(f"{stage.url}/v1/rerank", json=body, headers=stage.headers)
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert error["param"] == param or param in error["message"]
        assert not backend.visits


@pytest.mark.parametrize(
    ("path", "body", "models"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}, {"talker", "both"}),
        ("completions", {"prompt": "x"}, {"talker"}),
        ("embeddings", {"input": "x"}, {"embedder", "both"}),
        ("rerank", {"query": "x", "documents": ["y"]}, {"ranker", "rank-alias"}),
    ],
)
async def test_a_model_is_asked_only_for_what_it_does(
    path: str, body: dict[str, Any], models: set[str], tmp_path: Path
) -> None:
    """A model without an operation is not found for it, also under an alias, and its engine is not bothered."""
    async with stage_of(tmp_path, "vllm") as (backend, stage):
        for model in ("ranker", "rank-alias", "embedder", "talker", "both"):
            asked = len(backend.visits)
            answer = await stage.http.post(
                f"{stage.url}/v1/{path}", json=body | {"model": model}, headers=stage.headers
            )
            if model in models:
                assert len(backend.visits) == asked + 1
            else:
                assert answer.status_code == 404, (model, answer.text)
                assert "no support for" in answer.text
                assert len(backend.visits) == asked


async def test_the_catalogue_says_what_models_do(tmp_path: Path) -> None:
    """Output modalities are those of the operations."""
    async with stage_of(tmp_path, "vllm") as (_, stage):
        models = (await stage.http.get(f"{stage.url}/api/v1/models", headers=stage.headers)).json()["data"]
    found = {model["id"]: model["architecture"]["output_modalities"] for model in models}
    assert found["ranker"] == ["rerank"]
    assert found["embedder"] == ["embeddings"]
    assert found["talker"] == ["text"]
    assert found["both"] == ["text", "embeddings"]
