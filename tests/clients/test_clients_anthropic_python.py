"""The official ``anthropic`` package for Python, unmodified, against Weir over engines of both dialects."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any, Final

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message
from pydantic import BaseModel

from tests.clients.house import CREATED, MODEL, NATIVE, REAL, REAL_TOOLS, House, cost, fragile
from tests.clients.plays import CACHED, PLAYS, PROMPT
from tests.clients.shows import ANTHROPIC as CLIENT
from tests.clients.shows import COUNT_TOKENS, MESSAGES
from tests.clients.shows import shows as show
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS

shows: Final = partial(show, CLIENT)
weak: Final = partial(fragile, "anthropic")
WEATHER: Final[Any] = {
    "name": "get_weather",
    "description": "Weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "number"}},
        "required": ["city"],
    },
}
CALLS: Final = [(tool.id, tool.name, json.loads(tool.arguments)) for tool in PLAYS["tools"].tools]


class Place(BaseModel):
    """What the structured answer is."""

    place: str
    litres: int


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[Anthropic]:
    """The client as a newcomer makes it; its own retries are tested apart."""
    with Anthropic(api_key=house.key, base_url=house.url, max_retries=0) as made:
        yield made


def play(name: str) -> Any:
    """Return the messages that ask for a play."""
    return [{"role": "user", "content": f"Play: {name}"}]


def check_usage(usage: Any, name: str) -> None:
    """Compare ``usage`` with the engine's count: Anthropic counts what came from the cache apart."""
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (PROMPT - CACHED, CACHED)
    assert usage.output_tokens == PLAYS[name].completion


@shows(MESSAGES, "text, usage, cost")
def test_messages(client: Anthropic, house: House) -> None:
    """Text, stop reason, counts, cost; the system prompt and the limit reach the engine."""
    raw = client.messages.with_raw_response.create(
        model=MODEL, messages=play("text"), system="Be brief.", max_tokens=77, stop_sequences=["END"]
    )
    answer = raw.parse()
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == PLAYS["text"].text
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", MODEL, "end_turn")
    check_usage(answer.usage, "text")
    assert Decimal(str(answer.usage.model_extra and answer.usage.model_extra["cost"])) == cost(PLAYS["text"])
    assert raw.headers["x-generation-id"].startswith("gen-")
    sent = house.engine.last
    assert (sent["messages"][0], sent["max_tokens"]) == ({"role": "system", "content": "Be brief."}, 77)
    assert sent["stop"] in ("END", ["END"])


@shows(MESSAGES, "stream")
def test_stream(client: Anthropic) -> None:
    """Each piece of the engine is a delta, in events of the order Anthropic has; the helper folds them."""
    events = list(client.messages.create(model=MODEL, messages=play("text"), max_tokens=99, stream=True))
    kinds: list[str] = [event.type for event in events]
    assert [kind for kind in kinds if kind != "ping"] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * len(PLAYS["text"].pieces),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    pieces = [delta.text if delta.type == "text_delta" else None for delta in deltas]
    assert pieces == list(PLAYS["text"].pieces)
    with client.messages.stream(model=MODEL, messages=play("text"), max_tokens=99) as stream:
        assert list(stream.text_stream) == list(PLAYS["text"].pieces)
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    check_usage(final.usage, "text")


@shows(MESSAGES, "parallel tools, and their results")
def test_tools(client: Anthropic, house: House) -> None:
    """Both calls come with their input; their results reach the engine as what it calls them."""
    answer = client.messages.create(model=MODEL, messages=play("tools"), tools=[WEATHER], max_tokens=99)
    assert answer.stop_reason == "tool_use"
    assert [(block.id, block.name, block.input) for block in answer.content if block.type == "tool_use"] == CALLS
    assert house.engine.last["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]
    results = [{"type": "tool_result", "tool_use_id": call, "content": "rain"} for call, _, _ in CALLS]
    told: Any = [
        *play("tools"),
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": results},
    ]
    closing = client.messages.create(model=MODEL, messages=told, tools=[WEATHER], max_tokens=99)
    assert closing.content[0].type == "text"
    assert closing.content[0].text == PLAYS["told"].text
    sent = house.engine.last["messages"]
    assert [json.loads(call["function"]["arguments"]) for call in sent[1]["tool_calls"]] == [i for _, _, i in CALLS]
    assert [(part["role"], part["tool_call_id"], part["content"]) for part in sent[2:]] == [
        ("tool", call, "rain") for call, _, _ in CALLS
    ]


@shows(MESSAGES, "parallel tools in a stream")
def test_tools_in_a_stream(client: Anthropic) -> None:
    """The pieces of the arguments, put together, are what the engine wrote, byte by byte."""
    written: dict[int, str] = {}
    with client.messages.stream(model=MODEL, messages=play("tools"), tools=[WEATHER], max_tokens=99) as stream:
        for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                written[event.index] = written.get(event.index, "") + event.delta.partial_json
        final = stream.get_final_message()
    assert list(written.values()) == [tool.arguments for tool in PLAYS["tools"].tools]
    assert [(block.id, block.name, block.input) for block in final.content if block.type == "tool_use"] == CALLS


@shows(MESSAGES, "structured output")
def test_structured_output(client: Anthropic, house: House) -> None:
    """The schema of ``output_config`` reaches the engine as its response format."""
    answer = client.messages.parse(model=MODEL, messages=play("json"), output_format=Place, max_tokens=99)
    assert answer.parsed_output == Place(place="Basel", litres=42)
    sent = house.engine.last["response_format"]
    assert sent["type"] == "json_schema"
    assert set(sent["json_schema"]["schema"]["properties"]) == {"place", "litres"}


@shows(MESSAGES, "reasoning")
def test_thinking(client: Anthropic) -> None:
    """What the engine thought is a thinking block before the text, whole and streamed."""
    ask: Any = {"model": MODEL, "messages": play("reasoning"), "max_tokens": 4096}
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    answer: Message = client.messages.create(**ask, thinking=thinking)
    with client.messages.stream(**ask, thinking=thinking) as stream:
        final = stream.get_final_message()
    for message in (answer, final):
        thought, text = message.content
        assert thought.type == "thinking"
        assert thought.thinking == PLAYS["reasoning"].thought
        assert text.type == "text"
        assert text.text == "Hello."


@shows(MESSAGES, "images")
def test_images(client: Anthropic, house: House) -> None:
    """A picture in base 64 and one by its URL reach the engine as it reads them."""
    data = base64.b64encode(b"picture" * 30).decode()
    content: Any = [
        {"type": "text", "text": "Play: text"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
    ]
    answer = client.messages.create(model=MODEL, messages=[{"role": "user", "content": content}], max_tokens=99)
    assert answer.content[0].type == "text"
    sent = house.engine.last["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in sent if part["type"] == "image_url"]
    assert urls == [f"data:image/png;base64,{data}", "https://example.org/a.png"]


@shows(MESSAGES, "real llama.cpp engine")
def test_real_engine(client: Anthropic) -> None:
    """A real engine: its known text whole and in a stream, its count, and a call of a function."""
    hello: Any = [{"role": "user", "content": "hello"}]
    answer = client.messages.create(model=REAL, messages=hello, max_tokens=200)
    assert answer.content[0].type == "text"
    assert (answer.content[0].text, answer.stop_reason) == (CHAIN_TEXT, "end_turn")
    assert answer.usage.output_tokens == CHAIN_TOKENS
    with client.messages.stream(model=REAL, messages=hello, max_tokens=200) as stream:
        assert stream.get_final_text() == CHAIN_TEXT
    called = client.messages.create(model=REAL_TOOLS, messages=hello, tools=[WEATHER], max_tokens=300)
    assert [block.name for block in called.content if block.type == "tool_use"] == ["get_weather"]


@shows(MESSAGES, "errors")
@pytest.mark.parametrize(
    ("ask", "error", "kind"),
    [
        ({"max_tokens": 0}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": play("too-long")}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": play("refused")}, anthropic.UnprocessableEntityError, "invalid_request_error"),
        ({"model": "no/such"}, anthropic.NotFoundError, "not_found_error"),
        ({"messages": play("full"), "model": weak("full")}, anthropic.InternalServerError, None),
        ({"messages": play("broken"), "model": weak("broken")}, anthropic.InternalServerError, "api_error"),
    ],
    ids=["field", "context", "engine", "model", "full", "broken"],
)
def test_errors(
    client: Anthropic, ask: dict[str, Any], error: type[anthropic.APIStatusError], kind: str | None
) -> None:
    """Each class of error is the client's own class of it, in Anthropic's shape."""
    with pytest.raises(error) as caught:
        client.messages.create(**{"model": MODEL, "messages": play("text"), "max_tokens": 9, **ask})
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert kind is None or body["error"]["type"] == kind
    assert body["error"]["message"]
    assert caught.value.request_id


def refused(house: House, key: str) -> anthropic.APIStatusError:
    """Return what the second of two requests with ``key`` is told, if not the first."""
    with Anthropic(api_key=key, base_url=house.url, max_retries=0) as client:
        try:
            for _ in range(2):
                client.messages.create(model=MODEL, messages=play("text"), max_tokens=9)
        except anthropic.APIStatusError as error:
            return error
    pytest.fail("it was not refused")


@shows(MESSAGES, "errors of keys")
def test_errors_of_keys(house: House) -> None:
    """Nobody's key, one for other models, one without money, one that asks too often."""
    assert type(refused(house, "sk-weir-aaaaaaaa-" + "0" * 48)) is anthropic.AuthenticationError
    assert type(refused(house, house.admin)) is anthropic.PermissionDeniedError
    assert type(refused(house, house.new_key(weir={"models": [REAL]}))) is anthropic.PermissionDeniedError
    assert refused(house, house.new_key(limit=0.000001)).status_code == 402
    often = refused(house, house.new_key(weir={"limits": {"rpm": 1}}))
    assert type(often) is anthropic.RateLimitError
    assert 1 <= int(often.response.headers["retry-after"]) <= 60


@shows(MESSAGES, "cut streams")
@pytest.mark.parametrize("name", ["cut", "failing"])
def test_cut_streams(client: Anthropic, name: str) -> None:
    """What came before the break is there, then the client raises: no silent success."""
    pieces: list[str] = []
    with (
        pytest.raises(anthropic.APIError) as caught,
        client.messages.stream(model=weak("cut"), messages=play(name), max_tokens=99) as stream,
    ):
        pieces.extend(stream.text_stream)  # keeps what came before the error
    assert "".join(pieces) == PLAYS[name].text
    body: Any = caught.value.body
    assert body["error"]["type"] == "api_error"


@shows(MESSAGES, "the client's own retries")
def test_retries(house: House) -> None:
    """A full engine says for how long; the client waits for just that and asks again."""
    before = len(house.engine.bodies)
    with Anthropic(api_key=house.key, base_url=house.url, max_retries=2) as client:
        began = time.monotonic()
        answer = client.messages.create(model=weak("once"), messages=play("once-anthropic"), max_tokens=99)
        took = time.monotonic() - began
    assert answer.content[0].type == "text"
    assert len(house.engine.bodies) == before + 2
    assert took >= 1.0


@shows(MESSAGES, "over an API that speaks messages")
def test_native(client: Anthropic) -> None:
    """Signed thoughts, text and counts are the API's own, whole and streamed; a thought goes back as it came."""
    asked: Any = {
        "model": NATIVE,
        "max_tokens": 2000,
        "messages": play("text"),
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert (message.model, message.stop_reason) == (NATIVE, "end_turn")
    thought = whole.content[0]
    assert thought.type == "thinking"
    assert thought.signature
    assert (thought.to_dict(), whole.usage.output_tokens) == (
        streamed.content[0].to_dict(),
        streamed.usage.output_tokens,
    )
    turns: Any = [*asked["messages"], {"role": "assistant", "content": whole.content}, *asked["messages"]]
    again = client.messages.create(**{**asked, "messages": turns})
    assert again.content[-1].type == "text"
    counted = client.messages.count_tokens(model=NATIVE, messages=asked["messages"])
    read = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == read


@shows(COUNT_TOKENS, "count")
def test_count_tokens(client: Anthropic) -> None:
    """More text is more tokens, and tools count."""
    few = client.messages.count_tokens(model=MODEL, messages=play("text")).input_tokens
    more = client.messages.count_tokens(model=MODEL, messages=[*play("text"), *play("text " * 50)]).input_tokens
    tools = client.messages.count_tokens(model=MODEL, messages=play("text"), tools=[WEATHER]).input_tokens
    assert 0 < few < min(more, tools)
    assert more > few + 50


@shows(COUNT_TOKENS, "real llama.cpp engine")
def test_count_tokens_of_a_real_engine(client: Anthropic) -> None:
    """What is counted beforehand is what the answer says its prompt was."""
    hello: Any = [{"role": "user", "content": "hello there, how are you?"}]
    counted = client.messages.count_tokens(model=REAL, messages=hello).input_tokens
    usage = client.messages.create(model=REAL, messages=hello, max_tokens=1).usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted


@shows("GET /models", "list")
def test_models(client: Anthropic) -> None:
    """Ids and names, in Anthropic's form."""
    found = {model.id: model for model in client.models.list(limit=1000)}
    assert set(found) >= {MODEL, REAL}
    assert (found[MODEL].type, found[MODEL].display_name) == ("model", "Test model")
    assert found[MODEL].created_at.timestamp() == CREATED
    ids = [model.id for model in client.models.list(limit=7)]  # page by page
    assert ids == list(found)
    assert [model.id for model in client.models.list(limit=2, before_id=ids[3]).data] == ids[1:3]


@shows("GET /models/{model}", "one")
def test_one_model(client: Anthropic) -> None:
    """One by its id, and the client's own error for one that does not exist."""
    assert client.models.retrieve(MODEL).display_name == "Test model"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no/such")
