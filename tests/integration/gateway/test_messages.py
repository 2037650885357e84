"""Anthropic's messages through the gateway: the official client gets from every backend what messages can say.

The backends are an engine that chats, Anthropic's API, both simulated, and a real llama.cpp. What no simulator says is
in ``test_messages_native.py``, what goes wrong in ``test_messages_faults.py``.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.engine.llama_server import LlamaServer
from tests.engine.tiny_qwen import CHAIN_TEXT
from tests.harness import staged
from tests.integration.gateway.messages_house import HI, LOOK, PRICE, WEATHER, House, call, received
from tests.integration.gateway.messages_house import house as house
from tests.integration.gateway.messages_house import mended as mended

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("model", ["vllm", "claude"])
async def test_an_answer_and_its_stream_say_the_same(house: House, model: str) -> None:
    """The whole answer and the stream have the same text, reason and usage, which is the engine's own."""
    asked: Any = {"model": model, "max_tokens": 30, "messages": HI, "system": "Be brief."}
    whole: Any = await house.client.messages.create(**asked)
    async with house.client.messages.stream(**asked) as stream:
        streamed: Any = await stream.get_final_message()
    assert [block.type for block in whole.content] == (["thinking", "text"] if model == "claude" else ["text"])
    for one, other in zip(whole.content, streamed.content, strict=True):
        assert one.to_dict().items() <= {**other.to_dict(), "parsed_output": None}.items()
    entry = (house.claude if model == "claude" else house.vllm).books[-1]
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    assert whole.usage.output_tokens == streamed.usage.output_tokens == entry.completion_tokens
    assert whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0) == entry.prompt_tokens
    assert streamed.usage.input_tokens + (streamed.usage.cache_read_input_tokens or 0) == entry.prompt_tokens
    assert whole.model == streamed.model == model
    record = await house.stage.generation(streamed.id)
    assert record["native_tokens_prompt"] == entry.prompt_tokens
    assert record["native_tokens_completion"] == entry.completion_tokens
    assert record["usage_source"] == "upstream"


@pytest.mark.parametrize("model", ["vllm", "claude"])
async def test_tools_are_called_and_their_results_go_back(house: House, model: str) -> None:
    """A forced tool is called with its arguments, and the conversation goes on with its result."""
    turns: Any = [{"role": "user", "content": "What will it be like?"}]
    asked: Any = {"model": model, "max_tokens": 100, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    whole: Any = await house.client.messages.create(**asked, messages=turns)
    async with house.client.messages.stream(**asked, messages=turns) as stream:
        streamed: Any = await stream.get_final_message()
    for message in (whole, streamed):
        (used,) = [block for block in message.content if block.type == "tool_use"]
        assert (used.name, used.input, message.stop_reason) == ("get_weather", {"city": "Basel"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": used.id, "content": "Sunny.", "is_error": False}
    turns += [{"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
    after: Any = await house.client.messages.create(model=model, max_tokens=50, tools=[WEATHER], messages=turns)
    assert after.content[-1].type == "text"
    sent = received(house.claude if model == "claude" else house.vllm)["messages"]
    if model == "vllm":
        assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
        assert sent[1]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Basel"}'}
        assert sent[2] == {"role": "tool", "tool_call_id": used.id, "content": "Sunny."}
    else:
        assert sent[2]["content"][0] == result


async def test_reasoning_becomes_thinking(house: House) -> None:
    """Reasoning of an engine that chats is a thinking block before the text, streamed as such."""
    asked: Any = {"model": "thinker", "max_tokens": 30, "messages": HI}
    whole: Any = await house.client.messages.create(**asked)
    async with house.client.messages.stream(**asked) as stream:
        kinds = [event.type async for event in stream if event.type in {"thinking", "text"}]
        streamed: Any = await stream.get_final_message()
    assert kinds == ["thinking"] * 3 + ["text"] * 6
    for message in (whole, streamed):
        assert [block.type for block in message.content] == ["thinking", "text"]
    assert whole.content[0].to_dict() == streamed.content[0].to_dict()


async def test_a_thought_returns_with_its_signature(house: House) -> None:
    """What Anthropic signed goes back to it as it was, through messages and through the chat form."""
    first: Any = await house.client.messages.create(model="claude", max_tokens=30, messages=HI)
    signed = first.content[0].to_dict()
    turns: Any = [*HI, {"role": "assistant", "content": first.content}, *HI]
    await house.client.messages.create(model="claude", max_tokens=30, messages=turns)
    assert received(house.claude)["messages"][1]["content"][0] == signed
    chat = await house.stage.chat(model="claude")
    message = chat.json()["choices"][0]["message"]
    assert message["reasoning"] == signed["thinking"]
    await house.stage.chat(model="claude", messages=[*HI, message, *HI])
    assert received(house.claude)["messages"][1]["content"][0] == signed
    streamed = await house.stage.chat(model="claude", stream=True)
    events = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line.startswith("data: {")]
    pieces = [
        detail
        for event in events
        for choice in event["choices"]
        for detail in choice["delta"].get("reasoning_details", ())
    ]
    await house.stage.chat(model="claude", messages=[*HI, {**message, "reasoning_details": pieces}, *HI])
    assert received(house.claude)["messages"][1]["content"][0] == signed


CONVERSATION: Any = [
    {"role": "system", "content": "One."},
    {
        "role": "user",
        "content": [LOOK, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}],
    },
    {"role": "user", "content": "at this."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("functions.a:0", '{"city":"Basel"}'), call("b", "{not json")],
    },
    {"role": "tool", "tool_call_id": "functions.a:0", "content": "Sunny."},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "Rain."}]},
    {"role": "developer", "content": "Two."},
]
SAID: Any = [
    {
        "role": "user",
        "content": [
            LOOK,
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "text", "text": "at this."},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "tool_use", "id": "functions_a_0", "name": "get_weather", "input": {"city": "Basel"}},
            {"type": "tool_use", "id": "b", "name": "get_weather", "input": {"INVALID_JSON": "{not json"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "functions_a_0", "content": "Sunny."},
            {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "Rain."}]},
        ],
    },
]


async def test_chat_over_anthropic_says_what_it_can(house: House) -> None:
    """A chat request arrives in messages: roles alternate, systems are hoisted, everything else follows."""
    answer = await house.stage.chat(
        model="claude",
        messages=CONVERSATION,
        tools=[{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER["input_schema"]}}],
        parallel_tool_calls=False,
        stop=["END"],
        temperature=1.5,
        top_k=5,
        user="u-1",
        max_tokens=77,
        seed=4,
        logit_bias={"1": 1},
    )
    assert answer.status_code == 200, answer.text
    sent = received(house.claude)
    assert sent.pop("messages") == SAID
    assert sent == {
        "model": "up-claude",
        "max_tokens": 77,
        "system": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}],
        "tools": [{"name": "get_weather", "input_schema": WEATHER["input_schema"]}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "temperature": 1,
        "top_k": 5,
        "metadata": {"user_id": "u-1"},
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_over_anthropic_streams_and_ends_as_chat(house: House, stream: bool) -> None:
    """OpenAI's client reads an answer of Anthropic's with its usage and why it ended."""
    client = house.stage.openai()
    asked: Any = {"model": "claude", "messages": HI, "max_tokens": 9, "reasoning_effort": "none"}
    if stream:
        chunks = [
            c
            async for c in await client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
        ]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        usage = chunks[-1].usage
    else:
        whole = await client.chat.completions.create(**asked)
        text, reasons, usage = whole.choices[0].message.content, [whole.choices[0].finish_reason], whole.usage
    entry = house.claude.books[-1]
    assert text
    assert reasons == ["length"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (entry.prompt_tokens, 9)


async def test_structured_output(house: House) -> None:
    """A schema reaches each API in its own words, from either dialect."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    form: Any = {"format": {"type": "json_schema", "schema": schema}}
    for model in ("vllm", "claude"):
        answer: Any = await house.client.messages.create(model=model, max_tokens=99, messages=HI, output_config=form)
        assert isinstance(json.loads(answer.content[-1].text)["n"], int)
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    chat = await house.stage.chat(model="claude", response_format=asked)
    assert json.loads(chat.json()["choices"][0]["message"]["content"])["n"] >= 3
    assert received(house.claude)["output_config"] == form


async def test_a_stop_sequence_is_named(house: House) -> None:
    """Over either API the answer says which stop sequence ended it."""
    for model in ("vllm", "claude"):
        full: Any = await house.client.messages.create(model=model, max_tokens=30, messages=HI)
        word = full.content[-1].text.split()[4]
        asked: Any = {"model": model, "max_tokens": 30, "messages": HI, "stop_sequences": ["zzz", word]}
        whole: Any = await house.client.messages.create(**asked)
        async with house.client.messages.stream(**asked) as stream:
            streamed: Any = await stream.get_final_message()
        for message in (whole, streamed):
            assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", word)


async def test_an_answer_that_was_begun_goes_on(house: House) -> None:
    """The beginning of an answer reaches each engine as what it is to go on with, and is not said again."""
    for model, sim in (("vllm", house.vllm), ("claude", house.claude)):
        turns: Any = [*HI, {"role": "assistant", "content": "The river"}]
        answer: Any = await house.client.messages.create(model=model, max_tokens=9, messages=turns)
        assert not answer.content[-1].text.startswith("The river")
        sent = received(sim)
        assert sent["messages"][-1] == {"role": "assistant", "content": "The river"}
        assert sent.get("continue_final_message") is (True if model == "vllm" else None)


@pytest.mark.parametrize(
    ("asked", "switch"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({}, None),
    ],
)
async def test_thinking_reaches_the_template_of_an_engine(house: House, asked: Any, switch: bool | None) -> None:
    """An engine that chats is asked to think, or not to, by the switches of its template, and counts it so."""
    await house.client.messages.create(model="vllm", max_tokens=2000, messages=HI, **asked)
    sent = received(house.vllm)
    expected = None if switch is None else {"enable_thinking": switch, "thinking": switch}
    assert sent.get("chat_template_kwargs") == expected
    assert sent.get("reasoning_effort") == asked.get("output_config", {}).get("effort")
    assert "reasoning" not in sent
    counted = await house.post("/v1/messages/count_tokens", model="vllm", messages=HI, **asked)
    assert counted.headers["x-weir-token-count"] == "exact"


async def test_what_only_messages_can_say_goes_where_they_are_spoken(house: House) -> None:
    """Tools of the provider go to the backend that has them; without one the request is refused with its place."""
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    for _ in range(4):
        answer: Any = await house.client.messages.create(model="either", max_tokens=9, messages=HI, tools=tools)
        assert answer.content[0].type == "thinking"  # the simulated Anthropic
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0: a tool of type 'web_search_20250305'"):
        await house.client.messages.create(model="vllm", max_tokens=9, messages=HI, tools=tools)


async def test_tokens_are_counted_by_the_backend(house: House) -> None:
    """Counts are the backend's own and need no answer; nothing is metered."""
    for model, sim in (("vllm", house.vllm), ("claude", house.claude)):
        counted = await house.client.messages.count_tokens(model=model, messages=HI, system="Be brief.")
        answer: Any = await house.client.messages.create(model=model, max_tokens=9, messages=HI, system="Be brief.")
        total = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
        assert counted.input_tokens == total == sim.books[-1].prompt_tokens
    estimated = await house.post("/v1/messages/count_tokens", model="hand", messages=HI)
    assert estimated.headers["x-weir-token-count"] == "estimated"
    assert estimated.json()["input_tokens"] > 0
    await house.stage.generation(answer.id)
    url, headers = house.stage.url + "/api/v1/generation", house.stage.headers
    counted_id = estimated.headers["x-generation-id"]
    assert (await house.stage.http.get(url, params={"id": counted_id}, headers=headers)).status_code == 404


async def test_counting_needs_a_key_and_is_limited(house: House) -> None:
    """Without a key there is no count, and a key's limit of requests holds for counts, too."""
    async with AsyncAnthropic(
        api_key="sk-weir-aaaaaaaa-" + "0" * 40, base_url=house.stage.url, max_retries=0
    ) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.count_tokens(model="vllm", messages=HI)
    limited = await house.stage.new_key(rpm=1)
    async with AsyncAnthropic(api_key=limited.key, base_url=house.stage.url, max_retries=0) as client:
        await client.messages.count_tokens(model="vllm", messages=HI)
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.count_tokens(model="vllm", messages=HI)
    headers = caught.value.response.headers
    assert int(headers["retry-after"]) > 0
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("1", "0")


async def test_early_refusals_are_in_its_shape(house: House) -> None:
    """Errors before the body was read, too: no key, a wrong method, a body too large, no JSON."""
    url, http, key = house.stage.url + "/v1/messages", house.stage.http, {"x-api-key": house.stage.key}
    for answer, status, kind in (
        (await http.post(url, json={}), 401, "authentication_error"),
        (await http.get(url, headers=key), 405, "invalid_request_error"),
        (await http.post(url, content=b"{", headers=key), 400, "invalid_request_error"),
        (await http.post(url, content=b"", headers=key), 400, "invalid_request_error"),
        (await http.post(url, headers=key, content=b"x" * (32 * 2**20 + 1)), 413, "request_too_large"),
    ):
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind), answer.text
        assert answer.json()["type"] == "error"
        assert answer.json()["request_id"] == answer.headers["request-id"]


async def test_openrouters_path_serves_the_same(house: House) -> None:
    """``/api/v1/messages`` answers as ``/v1/messages`` does, for the client as well as with a bearer key."""
    async with AsyncAnthropic(
        auth_token=house.stage.key, api_key=None, base_url=house.stage.url + "/api", max_retries=0
    ) as client:
        answer: Any = await client.messages.create(model="vllm", max_tokens=9, messages=HI)
        record = await house.stage.generation(answer.id)
    assert record["native_tokens_completion"] == 9


async def test_the_synchronous_client(house: House) -> None:
    """The synchronous client streams from a thread."""

    def run() -> str:
        with (
            Anthropic(api_key=house.stage.key, base_url=house.stage.url, max_retries=0) as client,
            client.messages.stream(model="vllm", max_tokens=9, messages=HI) as stream,
        ):
            return "".join(stream.text_stream)

    assert len((await asyncio.to_thread(run)).split()) == 9


@pytest.mark.real_engine
async def test_a_real_engine(tmp_path: Path, chain_server: LlamaServer, tool_server: LlamaServer) -> None:
    """llama.cpp answers in messages: text, tools, a stream, and an exact count of tokens."""
    servers = {"chain": chain_server.url, "tool": tool_server.url}
    lines = ["backends:", *(f'  - {{name: {name}, kind: llamacpp, url: "{url}"}}' for name, url in servers.items())]
    endpoints = "context_length: 1024, endpoints: [{{backend: {name}, model: tiny-qwen3}}]"
    lines += ["models:", *(f"  - {{id: {name}, {PRICE}, {endpoints.format(name=name)}}}" for name in servers)]
    async with (
        staged(tmp_path, "\n".join(lines) + '\negress: {allow: ["127.0.0.0/8"]}\n') as stage,
        AsyncAnthropic(api_key=stage.key, base_url=stage.url, max_retries=0) as client,
    ):
        asked: Any = {"model": "chain", "max_tokens": 200, "messages": HI, "system": "Be brief."}
        whole: Any = await client.messages.create(**asked)
        assert whole.content[0].text == CHAIN_TEXT
        async with client.messages.stream(**asked) as stream:
            assert "".join([text async for text in stream.text_stream]) == CHAIN_TEXT
        counted = await client.messages.count_tokens(model="chain", messages=HI, system="Be brief.")
        assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
        called: Any = await client.messages.create(model="tool", max_tokens=100, messages=HI, tools=[WEATHER])
        assert called.stop_reason in {"tool_use", "max_tokens"}
        assert called.content[-1].type == "tool_use"
