"""Answers of all faces, read with the official client and byte by byte."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from typing import Any

import openai
import pytest

from gateway.sim import KINDS, Fault, Kind, SimConfig, SimServer, Timing

WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def official(sim: SimServer, key: str = "none") -> openai.AsyncOpenAI:
    """Return the official client, pointed at ``sim``; without TLS, whose certificates take their time to load."""
    http = openai.DefaultAsyncHttpxClient(verify=False)
    return openai.AsyncOpenAI(base_url=f"{sim.url}/v1", api_key=key, max_retries=0, timeout=20, http_client=http)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_official_client_reads_every_face(kind: Kind, start: Any) -> None:
    """Chat, stream, completions and the model list work, and usage is what the books say."""
    sim = await start(kind=kind)
    async with official(sim) as client:
        messages: Any = [{"role": "user", "content": "How high is the river?"}]
        assert [model.id async for model in client.models.list()] == ["Qwen/Qwen3-32B"]
        whole = await client.chat.completions.create(model="Qwen/Qwen3-32B", messages=messages)
        stream = await client.chat.completions.create(
            model="Qwen/Qwen3-32B", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = await client.completions.create(model="Qwen/Qwen3-32B", prompt="The river", max_tokens=5)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == streamed
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert text.choices[0].finish_reason == "length"
    for usage, entry in zip((whole.usage, chunks[-1].usage, text.usage), sim.books, strict=True):
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens)
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert entry.outcome == "completed"
    assert sim.books.totals.completed == 3
    assert sim.books.totals.completion_tokens == 24 + 24 + 5


@pytest.mark.parametrize("kind", KINDS)
async def test_one_token_is_one_chunk(kind: Kind, start: Any, client: Any, chat: Any, events: Any) -> None:
    """A stream of n tokens has n chunks with content, one finish, usage once when asked for, and [DONE]."""
    sim = await start(kind=kind)
    for asked in (False, True):
        body = chat(max_tokens=9, **(WITH_USAGE if asked else {"stream": True}))
        answer = await client.post(f"{sim.url}/v1/chat/completions", json=body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = events(answer.content)
        assert stream.pop() == "[DONE]"
        usages = [event["usage"] for event in stream if event.get("usage")]
        choices = [event["choices"][0] for event in stream if event["choices"]]
        assert sum(bool(choice["delta"].get("content")) for choice in choices) == 9
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
        assert [usage["completion_tokens"] for usage in usages] == ([9] if asked else [])
        assert len({event["id"] for event in stream}) == 1
        assert sim.books[-1].reported == 9


async def test_the_oddities_of_each_face_are_there(start: Any, client: Any, chat: Any, events: Any) -> None:
    """Nulls, ids, roles and finishes are where each engine has them."""
    found = {}
    for kind in KINDS:
        sim = await start(kind=kind)
        whole = (await client.post(f"{sim.url}/v1/chat/completions", json=chat(max_tokens=3))).json()
        answer = await client.post(f"{sim.url}/v1/chat/completions", json=chat(max_tokens=3, **WITH_USAGE))
        found[kind] = (whole, events(answer.content)[:-1])
    whole, stream = found["vllm"]
    message = whole["choices"][0]["message"]
    assert {message[name] for name in ("refusal", "audio", "function_call", "reasoning_content")} == {None}
    assert message["tool_calls"] == []
    assert whole["choices"][0]["logprobs"] is None
    assert whole["prompt_logprobs"] is None
    assert stream[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert stream[0]["usage"] is None
    assert stream[3]["choices"][0]["finish_reason"] == "length"
    assert stream[3]["choices"][0]["delta"]["content"]
    whole, stream = found["sglang"]
    assert not whole["id"].startswith("chatcmpl")
    assert whole["choices"][0]["matched_stop"] is None
    deltas = [event["choices"][0]["delta"] for event in stream if event["choices"]]
    assert all(set(delta) == {"role", "content", "reasoning_content", "tool_calls"} for delta in deltas)
    assert deltas[-1]["content"] is None
    whole, stream = found["tgi"]
    assert whole["id"] == ""
    assert all(event["choices"][0]["delta"]["role"] == "assistant" for event in stream if event["choices"])
    whole, stream = found["openai"]
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    assert stream[-2]["choices"][0]["delta"] == {}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_continuous_usage_counts_along(kind: Kind, start: Any, client: Any, chat: Any, events: Any) -> None:
    """With ``continuous_usage_stats`` every event says how many tokens there were so far."""
    sim = await start(kind=kind)
    options = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    answer = await client.post(f"{sim.url}/v1/chat/completions", json=chat(max_tokens=4, **options))
    counts = [event["usage"]["completion_tokens"] for event in events(answer.content)[:-1]]
    assert counts == ([0, 1, 2, 3, 4, 4] if kind == "vllm" else [0, 1, 2, 3, 4, 4, 4])


@pytest.mark.parametrize("kind", KINDS)
async def test_tools_work_whole_and_streamed(kind: Kind, start: Any) -> None:
    """A tool call has id, name and JSON arguments; streamed, the pieces add up to the same call."""
    sim = await start(kind=kind)
    async with official(sim) as client:
        asked: Any = {
            "model": "Qwen/Qwen3-32B",
            "messages": [{"role": "user", "content": "please use a tool"}],
            "tools": [WEATHER],
        }
        whole = await client.chat.completions.create(**asked)
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    call = calls[0]
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city":"river"}')
    assert whole.choices[0].finish_reason == "tool_calls"
    deltas = [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or []]
    assert (deltas[0].id, deltas[0].function.name if deltas[0].function else "") == (call.id, "get_weather")
    assert "".join(d.function.arguments or "" for d in deltas if d.function) == '{"city":"river"}'
    assert len(deltas) == sim.books[-1].completion_tokens
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("kind", KINDS)
async def test_several_choices_are_told_apart(kind: Kind, start: Any, client: Any, chat: Any, events: Any) -> None:
    """Streamed with ``n``, each event names its choice; usage counts all of them."""
    sim = await start(kind=kind)
    body = chat(n=3, max_tokens=6, **WITH_USAGE)
    stream = events((await client.post(f"{sim.url}/v1/chat/completions", json=body)).content)[:-1]
    texts = ["", "", ""]
    for event in stream[:-1]:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content") or ""
    whole = (await client.post(f"{sim.url}/v1/chat/completions", json=chat(n=3, max_tokens=6))).json()
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert stream[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 18


async def test_log_probabilities_come_with_every_token(start: Any, client: Any, chat: Any, events: Any) -> None:
    """Asked for, there is one entry per token with its alternatives, whole and streamed."""
    sim = await start()
    fields = {"logprobs": True, "top_logprobs": 2, "max_tokens": 5}
    whole = (await client.post(f"{sim.url}/v1/chat/completions", json=chat(**fields))).json()
    entries = whole["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == whole["choices"][0]["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] < 0 for entry in entries)
    answer = await client.post(f"{sim.url}/v1/chat/completions", json=chat(stream=True, **fields))
    parts = [event["choices"][0]["logprobs"] for event in events(answer.content)[:-1]]
    assert [entry for part in parts if part for entry in part["content"]] == entries
    text = {"model": "Qwen/Qwen3-32B", "prompt": "The river", "max_tokens": 4, "logprobs": 1}
    whole = (await client.post(f"{sim.url}/v1/completions", json=text)).json()["choices"][0]
    assert "".join(whole["logprobs"]["tokens"]) == whole["text"]
    answer = await client.post(f"{sim.url}/v1/completions", json={**text, "stream": True})
    parts = [event["choices"][0] for event in events(answer.content)[:-1]]
    assert "".join(part["text"] for part in parts) == whole["text"]
    offsets = [offset for part in parts for offset in part["logprobs"]["text_offset"]]
    assert offsets == whole["logprobs"]["text_offset"]


async def test_reasoning_is_a_field_of_its_own(start: Any, client: Any, chat: Any, events: Any) -> None:
    """Reasoning tokens come first, in ``reasoning_content``, and are counted apart."""
    sim = await start(reasoning_tokens=6)
    whole = (await client.post(f"{sim.url}/v1/chat/completions", json=chat())).json()
    message = whole["choices"][0]["message"]
    assert message["reasoning_content"]
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}
    assert whole["usage"]["completion_tokens"] == 30
    stream = events((await client.post(f"{sim.url}/v1/chat/completions", json=chat(stream=True))).content)[:-1]
    deltas = [event["choices"][0]["delta"] for event in stream]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == message["reasoning_content"]
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    assert sim.books[-1].reasoning_tokens == 6


async def test_repeats_report_cached_tokens(start: Any, client: Any, chat: Any) -> None:
    """The second identical prompt reports cached tokens; the books and the metrics agree."""
    sim = await start()
    body = chat("the river runs past the old mill and the gauge counts every drop. " * 5, max_tokens=2)
    answers = [(await client.post(f"{sim.url}/v1/chat/completions", json=body)).json()["usage"] for _ in range(2)]
    assert answers[0]["prompt_tokens_details"] is None
    cached = answers[1]["prompt_tokens_details"]["cached_tokens"]
    assert 0 < cached < answers[1]["prompt_tokens"]
    assert [entry.cached_tokens for entry in sim.books] == [0, cached]
    page = (await client.get(f"{sim.url}/metrics")).text
    assert f'vllm:prefix_cache_hits_total{{model_name="Qwen/Qwen3-32B",engine="0"}} {float(cached)}' in page


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
async def test_embeddings_are_unit_vectors_that_repeat(kind: Kind, start: Any, client: Any) -> None:
    """Vectors have length 1, the asked dimension and encoding, and depend on the text alone."""
    sim = await start(kind=kind)
    url = f"{sim.url}/v1/embeddings"
    body = {"model": "Qwen/Qwen3-32B", "input": ["the river", "the mill", "the river"], "dimensions": 64}
    answer = (await client.post(url, json=body)).json()
    vectors = [item["embedding"] for item in answer["data"]]
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert all(math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-9) for vector in vectors)
    assert vectors[0] == vectors[2] != vectors[1]
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    encoded = (await client.post(url, json={**body, "encoding_format": "base64"})).json()["data"][1]["embedding"]
    assert struct.unpack("<64f", base64.b64decode(encoded)) == pytest.approx(vectors[1], rel=1e-6)
    async with official(sim) as sdk:
        typed = await sdk.embeddings.create(model="Qwen/Qwen3-32B", input="the river")
    assert len(typed.data[0].embedding) == 256
    assert sim.books.totals.completion_tokens == 0


async def test_vllm_counts_what_it_would_read(start: Any, client: Any, chat: Any) -> None:
    """``/tokenize`` gives the same count as usage, and the context length."""
    sim = await start(context_length=5_000)
    body = chat("How many tokens are these?")
    usage = (await client.post(f"{sim.url}/v1/chat/completions", json=body)).json()["usage"]
    counted = (await client.post(f"{sim.url}/tokenize", json=body)).json()
    assert counted["count"] == usage["prompt_tokens"] == len(counted["tokens"])
    assert counted["max_model_len"] == 5_000
    assert (await client.post(f"{sim.url}/tokenize", json={"prompt": "one two"})).json()["count"] == 2
    assert (await client.post(f"{sim.url}/tokenize", json={})).status_code == 400


async def test_vllm_tells_its_load_on_request(start: Any, client: Any, chat: Any) -> None:
    """With the ORCA header an answer carries the load, in the form asked for."""
    sim = await start()
    for form, beginning in (("json", 'JSON {"named_metrics":{'), ("text", "TEXT named_metrics.kv_cache_usage_perc=")):
        headers = {"endpoint-load-metrics-format": form}
        answer = await client.post(f"{sim.url}/v1/chat/completions", json=chat(), headers=headers)
        assert answer.headers["endpoint-load-metrics"].startswith(beginning)
    assert "endpoint-load-metrics" not in (await client.post(f"{sim.url}/v1/chat/completions", json=chat())).headers


async def test_information_pages(start: Any, client: Any) -> None:
    """Each engine has its own pages, with its limits."""
    vllm, sglang, tgi = [await start(kind=kind, context_length=4_096) for kind in ("vllm", "sglang", "tgi")]
    assert (await client.get(f"{vllm.url}/v1/models")).json()["data"][0]["max_model_len"] == 4_096
    assert (await client.get(f"{vllm.url}/version")).json()["version"]
    for sim, paths in ((vllm, ["/health"]), (sglang, ["/health", "/health_generate"]), (tgi, ["/health"])):
        for path in paths:
            assert (await client.get(sim.url + path)).status_code == 200
    assert (await client.get(f"{sglang.url}/server_info")).json()["context_length"] == 4_096
    assert (await client.get(f"{sglang.url}/model_info")).json()["model_path"] == "Qwen/Qwen3-32B"
    info = (await client.get(f"{tgi.url}/info")).json()
    assert (info["max_total_tokens"], info["max_concurrent_requests"]) == (4_096, 128)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_official_client_names_the_errors(kind: Kind, start: Any) -> None:
    """Too long, wrong types and broken engines become the client's own exceptions."""
    sim = await start(kind=kind, context_length=100)
    wrong: Any = {"model": "Qwen/Qwen3-32B", "messages": [{"role": "user", "content": "river " * 200}]}
    expected = openai.UnprocessableEntityError if kind == "tgi" else openai.BadRequestError
    async with official(sim) as client:
        with pytest.raises(expected) as refused:
            await client.chat.completions.create(**wrong)
        assert "204" in refused.value.response.text
        with pytest.raises(expected):
            await client.chat.completions.create(**{**wrong, "messages": [{"role": "user", "content": 5}]})
        sim.faults.arm(Fault(kind="error_status", status=500))
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(**wrong)
    assert [entry.outcome for entry in sim.books] == ["refused"] * 3


@pytest.mark.parametrize(("kind", "status"), [("vllm", 404), ("openai", 404), ("sglang", 200), ("tgi", 200)])
async def test_unknown_models(kind: Kind, status: int, start: Any, client: Any, chat: Any) -> None:
    """An unknown model is refused by vLLM and OpenAI; SGLang echoes any name, TGI answers with its own."""
    sim = await start(kind=kind)
    answer = await client.post(f"{sim.url}/v1/chat/completions", json={**chat(), "model": "other"})
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["model"] == ("other" if kind == "sglang" else "Qwen/Qwen3-32B")


async def test_a_key_is_asked_for_under_v1(start: Any, client: Any, chat: Any) -> None:
    """Without the right bearer key nothing under /v1 answers; probes and control do."""
    sim = await start(kind="openai", api_key="s3cret")
    for key in ("none", "s3cre"):
        async with official(sim, key) as sdk:
            with pytest.raises(openai.AuthenticationError):
                await sdk.models.list()
            with pytest.raises(openai.AuthenticationError):
                await sdk.chat.completions.create(model="Qwen/Qwen3-32B", messages=[])
    headers = {"authorization": "Bearer s3cret"}
    assert (await client.post(f"{sim.url}/v1/chat/completions", json=chat(), headers=headers)).status_code == 200
    assert (await client.get(f"{sim.url}/sim/books")).status_code == 200
    assert sim.books[-1].headers["authorization"] == "Bearer s3cret"


async def test_requests_per_minute(start: Any, client: Any, chat: Any) -> None:
    """Over ``rpm`` the external API answers 429 with Retry-After; before, headers count down."""
    sim = await start(kind="openai", rpm=3)
    answers = [await client.post(f"{sim.url}/v1/chat/completions", json=chat()) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0", "0"]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(("kind", "status"), [("vllm", 503), ("sglang", 503), ("tgi", 429), ("openai", 503)])
async def test_full_queues_refuse_over_http(
    kind: Kind, status: int, start: Any, client: Any, chat: Any, until: Any
) -> None:
    """With slots and queue full the engine refuses, and serves again when there is room."""
    sim = await start(kind=kind, timing=Timing(base_ttft=60, slots=1, queue_limit=1))
    url = f"{sim.url}/v1/chat/completions"
    waiting = [asyncio.create_task(client.post(url, json=chat())) for _ in range(2)]
    await until(lambda: len(sim.engine.waiting) == 1)
    refused = await client.post(url, json=chat())
    assert refused.status_code == status
    streamed = await client.post(url, json=chat(stream=True))
    if kind == "tgi":
        assert streamed.status_code == 200
        assert b'"http_status_code":429' in streamed.content
    else:
        assert streamed.status_code == status
    for task in waiting:
        task.cancel()
    await until(lambda: not sim.engine.running and not sim.engine.waiting)
    assert [entry.outcome for entry in sim.books] == ["cancelled"] * 2 + ["refused"] * 2


async def test_equal_requests_get_equal_answers_in_equal_fleets() -> None:
    """Two backends of one seed answer alike, another seed answers otherwise."""
    texts = []
    for seed in (1, 1, 2):
        async with SimServer(SimConfig(seed=seed)) as sim, official(sim) as client:
            messages: Any = [{"role": "user", "content": "How high is the river?"}]
            answer = await client.chat.completions.create(model="Qwen/Qwen3-32B", messages=messages)
            texts.append(answer.choices[0].message.content)
    assert texts[0] == texts[1] != texts[2]
