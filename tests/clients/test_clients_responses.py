"""The Responses API through the official Python clients, over an engine that speaks OpenAI's chat."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any, Final

import openai
import pytest
from openai import OpenAI
from openrouter import OpenRouter, components, errors
from openrouter.utils import BackoffStrategy, RetryConfig
from pydantic import BaseModel

from tests.clients.house import MODEL, REAL, REAL_TOOLS, House, cost, fragile
from tests.clients.plays import CACHED, PLAYS, PROMPT
from tests.clients.shows import OPENAI, OPENROUTER, RESPONSES, shows
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS

PARAMETERS: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "number"}},
    "required": ["city"],
}
WEATHER: Final[Any] = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
CALLS: Final = [(tool.id, tool.name, tool.arguments) for tool in PLAYS["tools"].tools]
by_openai: Final = partial(shows, OPENAI, RESPONSES)
by_openrouter: Final = partial(shows, OPENROUTER, RESPONSES)


class Place(BaseModel):
    """What the structured answer is."""

    place: str
    litres: int


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[OpenAI]:
    """OpenAI's client."""
    with OpenAI(api_key=house.key, base_url=house.url + "/v1", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def router(house: House) -> Iterator[OpenRouter]:
    """OpenRouter's client."""
    once = RetryConfig("none", BackoffStrategy(1, 1, 1.0, 1), retry_connection_errors=False)
    with OpenRouter(api_key=house.key, server_url=house.url + "/api/v1", retry_config=once) as made:
        yield made


def check_usage(usage: Any, name: str) -> None:
    """Compare ``usage`` with the engine's count and the model's price."""
    said = PLAYS[name]
    assert (usage.input_tokens, usage.output_tokens) == (PROMPT, said.completion)
    assert usage.total_tokens == PROMPT + said.completion
    assert usage.input_tokens_details.cached_tokens == CACHED
    assert usage.output_tokens_details.reasoning_tokens == said.reasoning
    charged = usage.model_extra["cost"] if "cost" in (usage.model_extra or {}) else usage.cost
    assert Decimal(str(charged)) == cost(said)


@by_openai("text, usage, cost")
def test_text(client: OpenAI, house: House) -> None:
    """Text, status, counts and cost; instructions and the limit reach the engine."""
    answer = client.responses.create(
        model=MODEL, input="Play: text", instructions="Be brief.", max_output_tokens=77, temperature=0.5
    )
    assert (answer.output_text, answer.status, answer.model, answer.object) == (
        PLAYS["text"].text,
        "completed",
        MODEL,
        "response",
    )
    assert (answer.instructions, answer.max_output_tokens, answer.temperature) == ("Be brief.", 77, 0.5)
    check_usage(answer.usage, "text")
    sent = house.engine.last
    assert (sent["messages"][0]["content"], sent.get("max_tokens", sent.get("max_completion_tokens"))) == (
        "Be brief.",
        77,
    )


@by_openai("stream")
def test_stream(client: OpenAI) -> None:
    """Each piece of the engine is a delta; events are numbered and in OpenAI's order; the helper folds them."""
    events = list(client.responses.create(model=MODEL, input="Play: text", stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert pieces == list(PLAYS["text"].pieces)
    assert kinds.index("response.output_item.added") < kinds.index("response.output_text.delta")
    assert kinds.index("response.output_text.done") < kinds.index("response.output_item.done")
    with client.responses.stream(model=MODEL, input="Play: text") as stream:
        final = stream.get_final_response()
    assert final.output_text == PLAYS["text"].text
    check_usage(final.usage, "text")


@by_openai("parallel tools, and their results")
def test_tools(client: OpenAI, house: House) -> None:
    """Both calls come with every byte of their arguments; their results reach the engine, which answers."""
    answer = client.responses.create(model=MODEL, input="Play: tools", tools=[WEATHER])
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == CALLS
    assert house.engine.last["tools"][0]["function"]["parameters"] == PARAMETERS
    results: list[Any] = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
    said: list[Any] = [{"role": "user", "content": "Play: tools"}, *answer.output, *results]
    closing = client.responses.create(model=MODEL, input=said, tools=[WEATHER])
    assert closing.output_text == PLAYS["told"].text
    sent = house.engine.last["messages"]
    assert [call["function"]["arguments"] for call in sent[1]["tool_calls"]] == [text for _, _, text in CALLS]


@by_openai("parallel tools in a stream")
def test_tools_in_a_stream(client: OpenAI) -> None:
    """The pieces of the arguments, put together, are what the engine wrote."""
    written: dict[int, str] = {}
    with client.responses.stream(model=MODEL, input="Play: tools", tools=[WEATHER]) as stream:
        for event in stream:
            if event.type == "response.function_call_arguments.delta":
                written[event.output_index] = written.get(event.output_index, "") + event.delta
        final = stream.get_final_response()
    assert list(written.values()) == [text for _, _, text in CALLS]
    calls = [item for item in final.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == CALLS


@by_openai("structured output")
def test_structured_output(client: OpenAI, house: House) -> None:
    """``parse`` makes the object, and the schema reached the engine."""
    answer = client.responses.parse(model=MODEL, input="Play: json", text_format=Place)
    assert answer.output_parsed == Place(place="Basel", litres=42)
    assert set(house.engine.last["response_format"]["json_schema"]["schema"]["properties"]) == {"place", "litres"}


@by_openai("reasoning")
def test_reasoning(client: OpenAI) -> None:
    """What the engine thought is an item before the message."""
    answer = client.responses.create(model=MODEL, input="Play: reasoning", reasoning={"effort": "low"})
    thought, message = answer.output
    assert thought.type == "reasoning"
    texts = [part.text for part in thought.content or []] or [part.text for part in thought.summary]
    assert "".join(texts) == PLAYS["reasoning"].thought
    assert message.type == "message"
    assert answer.output_text == "Hello."
    check_usage(answer.usage, "reasoning")


@by_openai("images")
def test_images(client: OpenAI, house: House) -> None:
    """A picture reaches the engine as chat has it."""
    url = "data:image/png;base64,cGljdHVyZQ=="
    content = [{"type": "input_text", "text": "Play: text"}, {"type": "input_image", "image_url": url, "detail": "low"}]
    said: Any = [{"role": "user", "content": content}]
    assert client.responses.create(model=MODEL, input=said).output_text == PLAYS["text"].text
    parts = house.engine.last["messages"][0]["content"]
    assert [part["image_url"]["url"] for part in parts if part["type"] == "image_url"] == [url]


@by_openai("going on with a kept response")
def test_previous_response(client: OpenAI, house: House) -> None:
    """What was said before is told the engine again; a kept response can be read and deleted, and then is unknown."""
    first = client.responses.create(model=MODEL, input="Play: text")
    second = client.responses.create(model=MODEL, input="Play: json", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    sent = house.engine.last["messages"]
    assert [part["role"] for part in sent] == ["user", "assistant", "user"]
    assert PLAYS["text"].text in json.dumps(sent[1], ensure_ascii=False)
    assert client.responses.retrieve(first.id).output_text == PLAYS["text"].text
    assert [item.type for item in client.responses.input_items.list(second.id)][:1] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(model=MODEL, input="Play: text", previous_response_id=first.id)
    assert caught.value.param == "previous_response_id"


@by_openai("in the background: polled, followed, cancelled")
def test_background(client: OpenAI) -> None:
    """The id comes first, the answer by polling; a stream is read again behind any event; what is done stays done."""
    accepted = client.responses.create(model=MODEL, input="Play: text", background=True)
    assert accepted.status in ("queued", "in_progress")
    until = time.monotonic() + 30
    while (answer := client.responses.retrieve(accepted.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (answer.id, answer.status, answer.output_text) == (accepted.id, "completed", PLAYS["text"].text)
    check_usage(answer.usage, "text")
    assert client.responses.cancel(accepted.id) == answer
    events = list(client.responses.create(model=MODEL, input="Play: text", background=True, stream=True))
    assert events[0].type == "response.created"
    behind = events[3].sequence_number
    rest = list(client.responses.retrieve(events[0].response.id, stream=True, starting_after=behind))
    assert rest == events[4:]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", background=True, store=False)
    assert caught.value.param == "background"


@by_openai("real llama.cpp engine")
def test_real_engine(client: OpenAI) -> None:
    """A real engine: its known text whole and in a stream, its count, and a call of a function."""
    answer = client.responses.create(model=REAL, input="hello")
    assert answer.output_text == CHAIN_TEXT
    assert answer.usage is not None
    assert answer.usage.output_tokens == CHAIN_TOKENS
    with client.responses.stream(model=REAL, input="hello") as stream:
        assert stream.get_final_response().output_text == CHAIN_TEXT
    called = client.responses.create(model=REAL_TOOLS, input="hello", tools=[WEATHER], max_output_tokens=300)
    assert [item.name for item in called.output if item.type == "function_call"] == ["get_weather"]


@by_openai("errors")
@pytest.mark.parametrize(
    ("ask", "error"),
    [
        ({"temperature": "hot"}, openai.BadRequestError),
        ({"input": "Play: refused"}, openai.UnprocessableEntityError),
        ({"model": "no/such"}, openai.NotFoundError),
        ({"input": "Play: broken", "model": fragile("openai", "broken")}, openai.InternalServerError),
    ],
    ids=["field", "engine", "model", "broken"],
)
def test_errors(client: OpenAI, ask: dict[str, Any], error: type[openai.APIStatusError]) -> None:
    """Each class of error is the client's own class of it."""
    with pytest.raises(error) as caught:
        client.responses.create(**{"model": MODEL, "input": "Play: text", **ask})
    assert caught.value.request_id
    assert caught.value.message


@by_openai("cut streams")
def test_cut_streams(client: OpenAI) -> None:
    """What came before the break is there, then the response has failed: no silent success."""
    stream = client.responses.create(model=fragile("openai", "cut"), input="Play: cut", stream=True)
    events = list(stream)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == PLAYS["cut"].text
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None


def text_of(answer: components.OpenResponsesResult) -> str:
    """Return the text that an answer begins with."""
    message = answer.output[0]
    assert isinstance(message, components.OutputMessageItem)
    part = message.content[0]
    assert isinstance(part, components.ResponseOutputText)
    return part.text


@by_openrouter("text, usage, cost")
def test_openrouter_text(router: OpenRouter) -> None:
    """OpenRouter's client reads the same."""
    answer = router.beta.responses.send(model=MODEL, input="Play: text")
    assert answer.status == "completed"
    assert text_of(answer) == PLAYS["text"].text
    usage = answer.usage
    assert usage
    assert (usage.input_tokens, usage.output_tokens) == (PROMPT, 9)
    assert Decimal(str(usage.cost)) == cost(PLAYS["text"])


@by_openrouter("stream")
def test_openrouter_stream(router: OpenRouter) -> None:
    """Each piece of the engine is a delta."""
    with router.beta.responses.send(model=MODEL, input="Play: text", stream=True) as stream:
        events = list(stream)
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert pieces == list(PLAYS["text"].pieces)
    assert events[-1].type == "response.completed"


@by_openrouter("parallel tools, and their results")
def test_openrouter_tools(router: OpenRouter) -> None:
    """Both calls, and the answer to their results."""
    answer = router.beta.responses.send(model=MODEL, input="Play: tools", tools=[WEATHER])
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == CALLS
    results: list[Any] = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
    said: list[Any] = [{"role": "user", "content": "Play: tools"}, *(call.model_dump() for call in calls), *results]
    closing = router.beta.responses.send(model=MODEL, input=said, tools=[WEATHER])
    assert text_of(closing) == PLAYS["told"].text


@by_openrouter("errors")
def test_openrouter_errors(router: OpenRouter) -> None:
    """The client's own classes."""
    with pytest.raises(errors.NotFoundResponseError):
        router.beta.responses.send(model="no/such", input="Play: text")
    with pytest.raises(errors.BadGatewayResponseError):
        router.beta.responses.send(model=fragile("openrouter", "broken"), input="Play: broken")
