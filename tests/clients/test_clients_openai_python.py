"""The official ``openai`` package for Python, unmodified, against Weir; values are compared with what was said."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any, Final

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.clients.house import CREATED, EMBEDDER, MODEL, REAL, REAL_TOOLS, House, cost, fragile
from tests.clients.plays import CACHED, PLAYS, PROMPT
from tests.clients.shows import CHAT, COMPLETIONS, EMBEDDINGS
from tests.clients.shows import OPENAI as CLIENT
from tests.clients.shows import shows as show
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS

shows: Final = partial(show, CLIENT)
weak: Final = partial(fragile, "openai")
WEATHER: Final[Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "number"}},
            "required": ["city"],
        },
    },
}


class Place(BaseModel):
    """What the structured answer is."""

    place: str
    litres: int


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[OpenAI]:
    """The client as a newcomer makes it; its own retries are tested apart."""
    with OpenAI(api_key=house.key, base_url=house.url + "/v1", max_retries=0) as made:
        yield made


def play(name: str) -> Any:
    """Return the messages that ask for a play."""
    return [{"role": "user", "content": f"Play: {name}"}]


@shows(CHAT, "text, usage, cost")
def test_chat(client: OpenAI) -> None:
    """Text, finish reason, token counts and cost are the engine's and the price's."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=play("text"), temperature=0.5)
    answer = raw.parse()
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        PLAYS["text"].text,
        "stop",
    )
    assert choice.message.tool_calls is None
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.id == raw.headers["x-generation-id"]
    usage = answer.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (PROMPT, 9, PROMPT + 9)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == CACHED
    assert Decimal(str(usage.model_extra and usage.model_extra["cost"])) == cost(PLAYS["text"])


@shows(CHAT, "stream")
def test_chat_stream(client: OpenAI) -> None:
    """Each piece of the engine is a chunk; the usage chunk comes when it is asked for, and not else."""
    stream = client.chat.completions.create(
        model=MODEL, messages=play("text"), stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    pieces = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    assert pieces == list(PLAYS["text"].pieces)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (PROMPT, 9)
    plain = list(client.chat.completions.create(model=MODEL, messages=play("text"), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)


def calls_of(message: Any) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of each tool call."""
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]


TOOLS: Final = [(tool.id, tool.name, tool.arguments) for tool in PLAYS["tools"].tools]


@shows(CHAT, "parallel tools, and their results")
def test_tools(client: OpenAI, house: House) -> None:
    """Both calls come with every byte of their arguments; their results reach the engine, which answers."""
    answer = client.chat.completions.create(model=MODEL, messages=play("tools"), tools=[WEATHER])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert calls_of(message) == TOOLS
    told: list[Any] = [
        *play("tools"),
        message.model_dump(exclude_none=True),
        *({"role": "tool", "tool_call_id": call, "content": "rain"} for call, _, _ in TOOLS),
    ]
    closing = client.chat.completions.create(model=MODEL, messages=told, tools=[WEATHER])
    assert closing.choices[0].message.content == PLAYS["told"].text
    sent = house.engine.last["messages"]
    assert [call["function"]["arguments"] for call in sent[1]["tool_calls"]] == [text for _, _, text in TOOLS]
    assert [part.get("tool_call_id") for part in sent[2:]] == [call for call, _, _ in TOOLS]


@shows(CHAT, "parallel tools in a stream")
def test_tools_in_a_stream(client: OpenAI) -> None:
    """The client's own stream helper puts together what the engine wrote in pieces."""
    with client.chat.completions.stream(model=MODEL, messages=play("tools"), tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    assert calls_of(final.choices[0].message) == TOOLS
    assert final.choices[0].finish_reason == "tool_calls"


@shows(CHAT, "structured output")
def test_structured_output(client: OpenAI, house: House) -> None:
    """The schema reaches the engine, and ``parse`` makes the object, whole and streamed."""
    answer = client.chat.completions.parse(model=MODEL, messages=play("json"), response_format=Place)
    assert answer.choices[0].message.parsed == Place(place="Basel", litres=42)
    sent = house.engine.last["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"], set(sent["schema"]["properties"])) == ("Place", True, {"place", "litres"})
    with client.chat.completions.stream(model=MODEL, messages=play("json"), response_format=Place) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Place(place="Basel", litres=42)


@shows(CHAT, "reasoning")
def test_reasoning(client: OpenAI) -> None:
    """What the engine thought comes beside the text, and its tokens are counted."""
    answer = client.chat.completions.create(model=MODEL, messages=play("reasoning"))
    extra = answer.choices[0].message.model_extra
    assert extra is not None
    assert (extra["reasoning_content"], answer.choices[0].message.content) == (PLAYS["reasoning"].thought, "Hello.")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
@pytest.mark.parametrize("hide", [{"reasoning": {"exclude": True}}, {"include_reasoning": False}])
@shows(CHAT, "reasoning")
def test_reasoning_that_nobody_wants(client: OpenAI, hide: dict[str, Any], base: str) -> None:
    """It is left out of the answer whichever engine made it, and its tokens still count."""
    own = client.with_options(base_url=str(client.base_url).replace("/v1", base))
    answer = own.chat.completions.create(model=MODEL, messages=play("reasoning"), extra_body=hide)
    assert answer.choices[0].message.content == "Hello."
    assert "reasoning" not in str(answer.choices[0].message.model_extra)
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5
    stream = own.chat.completions.create(model=MODEL, messages=play("reasoning"), extra_body=hide, stream=True)
    deltas = [choice.delta for chunk in stream for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Hello."
    assert "reasoning" not in "".join(str(delta.model_extra) for delta in deltas)


@shows(CHAT, "images")
def test_images(client: OpenAI, house: House) -> None:
    """The parts of a message reach the engine as they were written."""
    picture = "data:image/png;base64," + base64.b64encode(b"picture" * 50).decode()
    content = [{"type": "text", "text": "Play: text"}, {"type": "image_url", "image_url": {"url": picture}}]
    messages: Any = [{"role": "user", "content": content}]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == PLAYS["text"].text
    assert house.engine.last["messages"] == messages


@shows(CHAT, "real llama.cpp engine")
def test_real_engine(client: OpenAI) -> None:
    """A real engine: its known text whole and in a stream, its count, and a call of a function."""
    hello: Any = [{"role": "user", "content": "hello"}]
    answer = client.chat.completions.create(model=REAL, messages=hello)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (CHAIN_TEXT, "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == CHAIN_TOKENS
    chunks = list(client.chat.completions.create(model=REAL, messages=hello, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == CHAIN_TEXT
    called = client.chat.completions.create(model=REAL_TOOLS, messages=hello, tools=[WEATHER], max_tokens=300)
    (call,) = called.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)


@shows(CHAT, "routing controls")
def test_routing_controls(client: OpenAI) -> None:
    """OpenRouter's members of the body work for this client, too."""
    controls = {"provider": {"only": ["own"]}}
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=MODEL, messages=play("text"), extra_body=controls)
    assert caught.value.param == "provider.only"
    controls["provider"]["only"] = ["script"]
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=play("text"), extra_body=controls)
    assert "script" in raw.headers["x-weir-route"]


# Errors


@shows(CHAT, "errors")
@pytest.mark.parametrize(
    ("ask", "error", "status", "kind", "param"),
    [
        ({"temperature": "hot"}, openai.BadRequestError, 400, "invalid_request", "temperature"),
        ({"messages": play("too-long")}, openai.BadRequestError, 400, "context_length_exceeded", None),
        ({"messages": play("refused")}, openai.UnprocessableEntityError, 422, "invalid_request", "temperature"),
        ({"model": "no/such"}, openai.NotFoundError, 404, "not_found", "model"),
        (
            {"messages": play("full"), "model": weak("full")},
            openai.InternalServerError,
            503,
            "provider_unavailable",
            None,
        ),
        (
            {"messages": play("broken"), "model": weak("broken")},
            openai.InternalServerError,
            502,
            "provider_unavailable",
            None,
        ),
    ],
    ids=["field", "context", "engine", "model", "full", "broken"],
)
def test_errors(
    client: OpenAI, ask: dict[str, Any], error: type[openai.APIStatusError], status: int, kind: str, param: str | None
) -> None:
    """Each class of error is the client's own class of it, with the field and OpenRouter's word for it."""
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": play("text"), **ask})
    body: Any = caught.value.body
    assert (caught.value.status_code, body["code"], body["metadata"]["error_type"]) == (status, status, kind)
    assert param is None or caught.value.param == param
    assert caught.value.request_id
    assert "10.0.0.7" not in caught.value.response.text


def refused(house: House, key: str) -> openai.APIStatusError:
    """Return what the second of two requests with ``key`` is told, if not the first."""
    with OpenAI(api_key=key, base_url=house.url + "/v1", max_retries=0) as client:
        try:
            for _ in range(2):
                client.chat.completions.create(model=MODEL, messages=play("text"))
        except openai.APIStatusError as error:
            return error
    pytest.fail("it was not refused")


@shows(CHAT, "errors of keys")
def test_errors_of_keys(house: House) -> None:
    """Nobody's key, one for other models, one without money, one that asks too often."""
    assert type(refused(house, "sk-weir-aaaaaaaa-" + "0" * 48)) is openai.AuthenticationError
    assert type(refused(house, house.admin)) is openai.PermissionDeniedError
    assert type(refused(house, house.new_key(weir={"models": [REAL]}))) is openai.PermissionDeniedError
    assert refused(house, house.new_key(limit=0.000001)).status_code == 402
    often = refused(house, house.new_key(weir={"limits": {"rpm": 1}}))
    assert type(often) is openai.RateLimitError
    assert 1 <= int(often.response.headers["retry-after"]) <= 60


@shows(CHAT, "cut streams")
@pytest.mark.parametrize("name", ["cut", "failing"])
def test_cut_streams(client: OpenAI, name: str) -> None:
    """What came before the break is there, then the client raises: no silent success."""
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        chunks.extend(client.chat.completions.create(model=weak("cut"), messages=play(name), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PLAYS[name].text
    body: Any = caught.value.body
    assert body["metadata"]["error_type"] == "provider_unavailable"


@shows(CHAT, "the client's own retries")
def test_retries(house: House) -> None:
    """A full engine says for how long; the client waits for just that and asks again."""
    before = len(house.engine.bodies)
    with OpenAI(api_key=house.key, base_url=house.url + "/v1", max_retries=2) as client:
        began = time.monotonic()
        answer = client.chat.completions.create(model=weak("once"), messages=play("once-openai"))
        took = time.monotonic() - began
    assert answer.choices[0].message.content == PLAYS["text"].text
    assert len(house.engine.bodies) == before + 2
    assert took >= 1.0


# Other endpoints


@shows(COMPLETIONS, "text")
def test_completions(client: OpenAI) -> None:
    """The legacy endpoint."""
    answer = client.completions.create(model=MODEL, prompt="Water")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (" and so on", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == PROMPT + 3


@shows(EMBEDDINGS, "vectors")
def test_embeddings(client: OpenAI) -> None:
    """A vector per text, in order."""
    answer = client.embeddings.create(model=EMBEDDER, input=["a", "b"])
    assert [each.embedding for each in answer.data] == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]
    assert [each.index for each in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens == 5


@shows("GET /models", "list")
def test_models(client: OpenAI) -> None:
    """Every model of the configuration, and nothing else."""
    found = {model.id: model.created for model in client.models.list()}
    assert set(found) >= {MODEL, EMBEDDER, REAL}
    assert found[MODEL] == CREATED


@shows("GET /models/{model}", "one")
def test_one_model(client: OpenAI) -> None:
    """One by its id, and the client's own error for one that does not exist."""
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")
