"""The official ``openrouter`` package for Python, unmodified, against Weir; values are compared with what was said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

import pytest
from openrouter import OpenRouter, components, errors
from openrouter.utils import BackoffStrategy, RetryConfig

from tests.clients.house import CREATED, EMBEDDER, MODEL, REAL, REAL_TOOLS, SIMULATED, House, cost, fragile
from tests.clients.plays import CACHED, PLAYS, PROMPT
from tests.clients.shows import CHAT, EMBEDDINGS
from tests.clients.shows import OPENROUTER as CLIENT
from tests.clients.shows import shows as show
from tests.e2e.processes import eventually
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS

pytestmark = pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED:DeprecationWarning")
"""The client warns of its own members."""

shows: Final = partial(show, CLIENT)
weak: Final = partial(fragile, "openrouter")
ONCE: Final = RetryConfig("none", BackoffStrategy(1, 1, 1.0, 1), retry_connection_errors=False)
"""No retries: by default the client goes on for an hour."""
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
TOOLS: Final = [(tool.id, tool.name, tool.arguments) for tool in PLAYS["tools"].tools]
Refusal = (
    errors.BadRequestResponseError
    | errors.UnprocessableEntityResponseError
    | errors.NotFoundResponseError
    | errors.ServiceUnavailableResponseError
    | errors.BadGatewayResponseError
)
"""Errors with ``data``, which the base of the client's errors has not."""


def connect(house: House, key: str = "", **more: Any) -> OpenRouter:
    """Return a client of the gateway."""
    return OpenRouter(api_key=key or house.key, server_url=house.url + "/api/v1", **{"retry_config": ONCE, **more})


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[OpenRouter]:
    """A client that says what app it is, as the documentation of OpenRouter wants it."""
    with connect(house, http_referer="https://app.example", x_open_router_title="Example") as made:
        yield made


@pytest.fixture(scope="module")
def manager(house: House) -> Iterator[OpenRouter]:
    """A client with the management key."""
    with connect(house, house.admin) as made:
        yield made


def play(name: str) -> Any:
    """Return the messages that ask for a play."""
    return [{"role": "user", "content": f"Play: {name}"}]


def check_usage(usage: Any, name: str) -> None:
    """Compare a ``usage`` object with the engine's count and the model's price."""
    said = PLAYS[name]
    assert (usage.prompt_tokens, usage.completion_tokens) == (PROMPT, said.completion)
    assert usage.total_tokens == PROMPT + said.completion
    assert Decimal(str(usage.cost)) == cost(said)
    assert usage.is_byok is False
    assert usage.prompt_tokens_details.cached_tokens == CACHED
    assert usage.completion_tokens_details.reasoning_tokens == said.reasoning
    details = usage.cost_details
    both = (details.upstream_inference_prompt_cost, details.upstream_inference_completions_cost)
    assert sum(Decimal(str(part)) for part in both) == cost(said)


@shows(CHAT, "text, usage, cost")
def test_chat(client: OpenRouter) -> None:
    """Text, finish reasons, provider, counts and cost."""
    answer = client.chat.send(model=MODEL, messages=play("text"))
    assert isinstance(answer, components.ChatResult)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (PLAYS["text"].text, "stop")
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    check_usage(answer.usage, "text")


@shows(CHAT, "stream")
def test_chat_stream(client: OpenRouter) -> None:
    """Each piece of the engine is a chunk; usage comes once, unasked, in the last one."""
    with client.chat.send(model=MODEL, messages=play("text"), stream=True) as stream:
        chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert pieces == list(PLAYS["text"].pieces)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == ["stop", "stop"]
    assert [index for index, chunk in enumerate(chunks) if chunk.usage] == [len(chunks) - 1]
    check_usage(chunks[-1].usage, "text")


@shows(CHAT, "parallel tools, and their results")
def test_tools(client: OpenRouter, house: House) -> None:
    """Both calls come with every byte of their arguments; their results reach the engine, which answers."""
    answer = client.chat.send(model=MODEL, messages=play("tools"), tools=[WEATHER])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []] == TOOLS
    results = [{"role": "tool", "tool_call_id": call, "content": "rain"} for call, _, _ in TOOLS]
    closing = client.chat.send(model=MODEL, messages=[*play("tools"), message, *results], tools=[WEATHER])
    assert closing.choices[0].message.content == PLAYS["told"].text
    sent = house.engine.last["messages"]
    assert [call["function"]["arguments"] for call in sent[1]["tool_calls"]] == [text for _, _, text in TOOLS]
    assert [part.get("tool_call_id") for part in sent[2:]] == [call for call, _, _ in TOOLS]


@shows(CHAT, "parallel tools in a stream")
def test_tools_in_a_stream(client: OpenRouter) -> None:
    """The pieces of a stream, put together, are what the engine wrote."""
    calls: dict[int, list[str]] = {}
    with client.chat.send(model=MODEL, messages=play("tools"), tools=[WEATHER], stream=True) as stream:
        for chunk in stream:
            for piece in chunk.choices[0].delta.tool_calls or []:
                call = calls.setdefault(int(piece.index), ["", "", ""])
                call[0] += piece.id or ""
                call[1] += piece.function.name or ""
                call[2] += piece.function.arguments or ""
    assert [tuple(calls[index]) for index in sorted(calls)] == TOOLS


@shows(CHAT, "structured output")
def test_structured_output(client: OpenRouter, house: House) -> None:
    """The schema reaches the engine as it was written, and the answer is the engine's."""
    schema = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": schema}}
    answer = client.chat.send(model=MODEL, messages=play("json"), response_format=wanted)
    assert answer.choices[0].message.content == PLAYS["json"].text
    assert house.engine.last["response_format"] == wanted


@shows(CHAT, "reasoning")
def test_reasoning(client: OpenRouter) -> None:
    """What the engine thought comes as ``reasoning``, whole and in pieces, and its tokens are counted."""
    answer = client.chat.send(model=MODEL, messages=play("reasoning"), reasoning={"effort": "low"})
    message = answer.choices[0].message
    assert (message.reasoning, message.content) == (PLAYS["reasoning"].thought, "Hello.")
    check_usage(answer.usage, "reasoning")
    with client.chat.send(model=MODEL, messages=play("reasoning"), stream=True) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    assert [delta.reasoning for delta in deltas if delta.reasoning] == list(PLAYS["reasoning"].thoughts)
    assert "".join(delta.content or "" for delta in deltas) == "Hello."


@shows(CHAT, "images")
def test_images(client: OpenRouter, house: House) -> None:
    """The parts of a message reach the engine as they were written."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGljdHVyZQ==", "detail": "low"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "Play: text"}, picture]}]
    answer = client.chat.send(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == PLAYS["text"].text
    assert house.engine.last["messages"] == messages


@shows(CHAT, "real llama.cpp engine")
def test_real_engine(client: OpenRouter) -> None:
    """A real engine: its known text whole and in a stream, its count, and a call of a function."""
    hello: Any = [{"role": "user", "content": "hello"}]
    answer = client.chat.send(model=REAL, messages=hello)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (CHAIN_TEXT, "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == CHAIN_TOKENS
    with client.chat.send(model=REAL, messages=hello, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == CHAIN_TEXT
    called = client.chat.send(model=REAL_TOOLS, messages=hello, tools=[WEATHER], max_tokens=300)
    assert [call.function.name for call in called.choices[0].message.tool_calls or []] == ["get_weather"]


@shows(CHAT, "routing controls")
def test_routing_controls(client: OpenRouter) -> None:
    """``models``, ``provider`` and the metadata of the decision."""
    answer = client.chat.send(
        models=[weak("cut"), MODEL],
        messages=play("text"),
        provider={"only": ["script"], "sort": "price"},
        x_open_router_metadata="enabled",
    )
    assert answer.choices[0].message.content == PLAYS["text"].text
    told = answer.openrouter_metadata
    assert told is not None
    assert told.requested == weak("cut")
    with pytest.raises(errors.NotFoundResponseError):
        client.chat.send(model=MODEL, messages=play("text"), provider={"only": ["own"]})


# Errors


@shows(CHAT, "errors")
@pytest.mark.parametrize(
    ("ask", "error", "kind"),
    [
        ({"messages": play("too-long")}, errors.BadRequestResponseError, "context_length_exceeded"),
        ({"messages": play("refused")}, errors.UnprocessableEntityResponseError, "invalid_request"),
        ({"model": "no/such"}, errors.NotFoundResponseError, "not_found"),
        (
            {"messages": play("full"), "model": weak("full")},
            errors.ServiceUnavailableResponseError,
            "provider_unavailable",
        ),
        ({"messages": play("broken"), "model": weak("broken")}, errors.BadGatewayResponseError, "provider_unavailable"),
    ],
    ids=["context", "engine", "model", "full", "broken"],
)
def test_errors(client: OpenRouter, ask: dict[str, Any], error: type[errors.OpenRouterError], kind: str) -> None:
    """Each class of error is the client's own class of it, with OpenRouter's word for it."""
    with pytest.raises(error) as caught:
        client.chat.send(**{"model": MODEL, "messages": play("text"), **ask})
    assert isinstance(caught.value, Refusal)
    told = caught.value.data.error
    assert told.code == caught.value.status_code
    assert told.metadata
    assert told.metadata["error_type"] == kind
    assert caught.value.headers["x-generation-id"].startswith("gen-")


def refused(house: House, key: str) -> errors.OpenRouterError:
    """Return what the second of two requests with ``key`` is told, if not the first."""
    with connect(house, key) as client:
        try:
            for _ in range(2):
                client.chat.send(model=MODEL, messages=play("text"))
        except errors.OpenRouterError as error:
            return error
    pytest.fail("it was not refused")


@shows(CHAT, "errors of keys")
def test_errors_of_keys(house: House) -> None:
    """Nobody's key, one for other models, one without money, one that asks too often."""
    assert type(refused(house, "sk-weir-aaaaaaaa-" + "0" * 48)) is errors.UnauthorizedResponseError
    assert type(refused(house, house.admin)) is errors.ForbiddenResponseError
    assert type(refused(house, house.new_key(weir={"models": [REAL]}))) is errors.ForbiddenResponseError
    assert type(refused(house, house.new_key(limit=0.000001))) is errors.PaymentRequiredResponseError
    often = refused(house, house.new_key(weir={"limits": {"rpm": 1}}))
    assert type(often) is errors.TooManyRequestsResponseError
    assert 1 <= int(often.headers["retry-after"]) <= 60


@shows(CHAT, "cut streams")
@pytest.mark.parametrize("name", ["cut", "failing"])
def test_cut_streams(client: OpenRouter, name: str) -> None:
    """What came before the break is there, then a chunk with the error and ``finish_reason`` ``error`` ends it."""
    with client.chat.send(model=weak("cut"), messages=play(name), stream=True) as stream:
        *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PLAYS[name].text
    assert last.choices[0].finish_reason == "error"
    assert (last.error.code, last.error.metadata.error_type) == (502, "provider_unavailable")


@shows(CHAT, "the client's own retries")
def test_retries(house: House) -> None:
    """A full engine says for how long; the client waits for just that and asks again."""
    before = len(house.engine.bodies)
    again = RetryConfig("backoff", BackoffStrategy(1, 10, 1.0, 30_000), retry_connection_errors=False)
    with connect(house, retry_config=again) as client:
        began = time.monotonic()
        answer = client.chat.send(model=weak("once"), messages=play("once-openrouter"))
        took = time.monotonic() - began
    assert answer.choices[0].message.content == PLAYS["text"].text
    assert len(house.engine.bodies) == before + 2
    assert took >= 1.0


# Other endpoints


@shows(EMBEDDINGS, "vectors")
def test_embeddings(client: OpenRouter) -> None:
    """A vector per text, in order."""
    answer = client.embeddings.generate(model=EMBEDDER, input=["a", "b"])
    assert not isinstance(answer, str)
    assert [each.embedding for each in answer.data] == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5


@shows("GET /models", "list")
def test_models(client: OpenRouter) -> None:
    """Prices, context, modalities and parameters of each model."""
    listed = client.models.list()
    assert listed is not None
    found = {model.id: model for model in listed.result.data}
    assert set(found) >= {MODEL, SIMULATED, REAL}
    model = found[MODEL]
    assert (model.created, model.context_length, model.name) == (CREATED, 40960, "Test model")
    assert (Decimal(model.pricing.prompt), Decimal(model.pricing.completion)) == (Decimal("1e-7"), Decimal("3e-7"))
    assert "image" in model.architecture.input_modalities
    assert {"tools", "temperature", "max_tokens"} <= set(model.supported_parameters)


@shows("GET /model/{model}", "one")
def test_one_model(client: OpenRouter) -> None:
    """The same by its id; an unknown one is the client's own error."""
    author, slug = MODEL.split("/")
    assert client.models.get(author=author, slug=slug).data.id == MODEL
    with pytest.raises(errors.NotFoundResponseError):
        client.models.get(author="no", slug="such")


@shows("GET /models/user", "list")
def test_models_of_a_key(house: House) -> None:
    """A key for one model sees that one."""
    key = house.new_key(weir={"models": [REAL]})
    with connect(house) as client:
        listed = client.models.list_for_user(security={"bearer": key})
    assert [model.id for model in listed.result.data] == [REAL]


@shows("GET /models/count", "count")
def test_count(client: OpenRouter) -> None:
    """As many as are listed."""
    count = client.models.count().data.count
    listed = client.models.list()
    assert listed is not None
    assert count == len(listed.result.data)


@shows("GET /models/{model}/endpoints", "who serves it")
def test_endpoints(client: OpenRouter) -> None:
    """Provider, prices, context and whether it is up."""
    author, slug = MODEL.split("/")
    data = client.endpoints.list(author=author, slug=slug).data
    (endpoint,) = data.endpoints
    assert (data.id, endpoint.provider_name, endpoint.context_length) == (MODEL, "script", 40960)
    assert Decimal(endpoint.pricing.completion) == Decimal("3e-7")
    assert endpoint.status == 0
    assert endpoint.supports_tool_choice.auto is True


@shows("GET /endpoints/zdr", "list")
def test_zdr(client: OpenRouter) -> None:
    """Endpoints that keep nothing; here those of the engines of one's own."""
    found = client.endpoints.list_zdr_endpoints()
    assert all(endpoint.provider_name for endpoint in found.data)


@shows("GET /providers", "list")
def test_providers(client: OpenRouter) -> None:
    """Who serves."""
    assert {provider.slug for provider in client.providers.list().data} >= {"script", "own"}


@shows("GET /generation", "usage and cost of an answer")
def test_generation(client: OpenRouter) -> None:
    """The same counts and cost as the answer itself had, and how it was sent."""
    with client.chat.send(model=MODEL, messages=play("reasoning"), stream=True, user="anna") as stream:
        identity = list(stream)[-1].id

    def look() -> Any:
        try:
            return client.generations.get_generation(id=identity).data
        except errors.NotFoundResponseError:
            return None

    data = eventually(look)
    assert (data.id, data.model, data.provider_name, data.streamed) == (identity, MODEL, "script", True)
    assert (data.native_tokens_prompt, data.native_tokens_completion, data.native_tokens_reasoning) == (PROMPT, 8, 5)
    assert Decimal(str(data.total_cost)) == cost(PLAYS["reasoning"])
    assert (data.finish_reason, data.cancelled, data.external_user) == ("stop", False, "anna")
    assert data.http_referer == "https://app.example"
    (attempt,) = data.provider_responses
    assert (attempt.provider_name, attempt.status) == ("script", 200)
    with pytest.raises(errors.NotFoundResponseError):
        client.generations.get_generation(id=identity[:-4] + "0000")


@shows("GET /key", "usage and limits of the key")
def test_key(house: House) -> None:
    """A key with a limit sees what it has used and what is left."""
    with connect(house, house.new_key(limit=1.5, limit_reset="daily")) as client:
        client.chat.send(model=MODEL, messages=play("text"))

        def look() -> Any:
            data = client.api_keys.get_current_key_metadata().data
            return data if data.usage else None

        data = eventually(look)
    assert (data.limit, data.limit_reset, data.is_management_key) == (1.5, "daily", False)
    assert Decimal(str(data.usage)) == cost(PLAYS["text"])
    assert Decimal(str(data.limit_remaining)) == Decimal("1.5") - cost(PLAYS["text"])


@shows("POST /keys", "make, list, read, change, delete")
def test_keys(house: House, manager: OpenRouter) -> None:
    """The life of a key: its secret is shown once, and no longer works when the key is gone."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    made = manager.api_keys.create(name="client", limit=2, limit_reset="monthly", expires_at=until)
    assert (made.data.name, made.data.limit, made.data.limit_reset) == ("client", 2, "monthly")
    with connect(house, made.key) as client:
        assert client.chat.send(model=MODEL, messages=play("text")).choices[0].finish_reason == "stop"
        identity = made.data.hash
        assert manager.api_keys.get(hash=identity).data.label == made.data.label
        assert identity in [each.hash for each in manager.api_keys.list().data]
        changed = manager.api_keys.update(hash=identity, name="renamed", disabled=True).data
        assert (changed.name, changed.disabled, changed.limit) == ("renamed", True, 2)
        assert manager.api_keys.delete(hash=identity).DELETED is True
        error = refused(house, made.key)
    assert isinstance(error, errors.UnauthorizedResponseError)


@shows("GET /activity", "usage by day")
def test_activity(client: OpenRouter) -> None:
    """Requests, tokens and cost of a model, by day and endpoint."""
    model = weak("broken")
    client.chat.send(model=model, messages=play("text"))

    def look() -> Any:
        return [
            row for row in client.analytics.get_user_activity().data if row.model == model and row.completion_tokens
        ]

    (row,) = eventually(lambda: look() or None)
    assert (row.requests, row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (1, PROMPT, 9, CACHED)
    assert Decimal(str(row.usage)) == cost(PLAYS["text"])
    assert (row.provider_name, row.byok_usage_inference) == ("script", 0)


@pytest.mark.usefixtures("whole_day")
@shows("GET /datasets/rankings-daily", "tokens by model and day")
def test_rankings(client: OpenRouter) -> None:
    """Today's tokens of the model, which other tests have used."""
    today = datetime.now(UTC).date().isoformat()
    client.chat.send(model=MODEL, messages=play("text"))

    def look() -> Any:
        found = client.datasets.get_rankings_daily(start_date=today, end_date=today)
        return found if MODEL in [row.model_permaslug for row in found.data] else None

    found = eventually(look)
    assert found.meta.version == "v1"
    row = next(row for row in found.data if row.model_permaslug == MODEL)
    assert row.date_.isoformat() == today if not isinstance(row.date_, str) else row.date_ == today
    assert int(row.total_tokens) >= PROMPT + 9


@shows("GET /datasets/app-rankings", "tokens by app")
def test_app_rankings(client: OpenRouter) -> None:
    """The form of it; an app is named once the owner has approved it."""
    found = client.datasets.get_app_rankings()
    assert found is not None
    assert found.result.meta.version == "v1"
