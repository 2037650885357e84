"""The unmodified official ``openai`` client speaks Responses with the gateway over engines that know only chat.

Every value is compared with what the simulated engine has in its books, or with what the chat API says of the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from gateway.sim import SimConfig, SimServer
from gateway.sim.faults import Fault
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "qwen/qwen3-32b"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of the next days.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Basel"]}, "days": {"type": "integer", "minimum": 3}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Scene:
    """A gateway over one simulated vLLM, and the official client."""

    def __init__(self, stage: Stage, sim: SimServer) -> None:
        self.stage = stage
        self.sim = sim
        self.client: AsyncOpenAI = stage.openai()

    @property
    def received(self) -> dict[str, Any]:
        """The body of the last request that the engine saw."""
        body = self.sim.books[-1].body
        assert isinstance(body, dict)
        return body

    async def ask(self, asked: Any = "Tell me about weirs.", **more: Any) -> Response:
        """Ask for a whole response."""
        response = await self.client.responses.create(model=MODEL, input=asked, **more)
        assert isinstance(response, Response)
        return response

    async def stream(self, asked: Any = "Tell me about weirs.", **more: Any) -> list[ResponseStreamEvent]:
        """Ask for a stream and return its events."""
        events = await self.client.responses.create(model=MODEL, input=asked, stream=True, **more)
        return [event async for event in events]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway over one engine, which has no prompt cache so that equal requests get equal usage."""
    config = SimConfig(name="gpu-a", prompt_cache=False)
    async with SimServer(config) as sim:
        home = tmp_path_factory.mktemp("responses")
        async with staged(home, configuration([Backend("gpu-a", sim.url)])) as stage:
            yield Scene(stage, sim)


def counted(events: list[ResponseStreamEvent]) -> None:
    """Check that events are numbered from 0, begin as they should, and that what begins ends."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    for name in ("output_item", "content_part"):
        begun = [event for event in events if event.type == f"response.{name}.added"]
        ended = [event for event in events if event.type == f"response.{name}.done"]
        assert len(begun) == len(ended)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_whole_response_is_metered_as_the_engine_counts_it(scene: Scene) -> None:
    """Text, usage and cost are those of the engine's books, and every member of the object is there."""
    response = await scene.ask(instructions="Be brief.", metadata={"job": "7"}, temperature=0.5)
    entry = scene.sim.books[-1]
    usage = response.usage
    assert usage is not None
    assert response.status == "completed"
    assert response.model == MODEL
    assert len(response.output_text) > 24
    assert (usage.input_tokens, usage.output_tokens) == (entry.prompt_tokens, entry.completion_tokens)
    assert usage.total_tokens == entry.prompt_tokens + entry.completion_tokens
    assert response.metadata == {"job": "7"}
    assert (response.temperature, response.instructions) == (0.5, "Be brief.")
    assert response.completed_at is not None
    assert scene.received["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tell me about weirs."},
    ]
    assert "metadata" not in scene.received
    found = await scene.stage.generation("gen-" + response.id.removeprefix("resp_"))
    assert found["tokens_completion"] == usage.output_tokens
    assert found["total_cost"] == usage.to_dict()["cost"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_says_what_the_whole_response_says(scene: Scene) -> None:
    """The deltas are the text of the last event, whose response is the one that a JSON answer has."""
    whole = await scene.ask()
    events = await scene.stream()
    counted(events)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert text == last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage
    assert [event.type for event in events[2:4]] == ["response.output_item.added", "response.content_part.added"]
    assert [event.type for event in events[-4:-1]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert last.response.output[0].id == events[4].item_id  # type: ignore[union-attr]  # a delta has one


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_an_answer_that_is_too_long_is_incomplete(scene: Scene, stream: bool) -> None:
    """The limit reaches the engine under its own name, and an answer cut by it says so."""
    if stream:
        event = (await scene.stream(max_output_tokens=5))[-1]
        assert event.type == "response.incomplete"
        response = event.response
    else:
        response = await scene.ask(max_output_tokens=5)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[-1].status == "incomplete"  # type: ignore[union-attr]  # a message has one
    assert response.usage is not None
    assert response.usage.output_tokens == 5
    assert scene.received["max_tokens"] == 5


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_tool_is_called_and_its_output_goes_back(scene: Scene, stream: bool) -> None:
    """The whole loop: the call, byte by byte as the engine made it, and the conversation that the engine gets back."""
    if stream:
        events = await scene.stream(tools=[WEATHER], tool_choice="required")
        counted(events)
        pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert len(pieces) > 3
        assert events[-1].type == "response.completed"
        response = events[-1].response
        assert "".join(pieces) == response.output[0].arguments  # type: ignore[union-attr]
    else:
        response = await scene.ask(tools=[WEATHER], tool_choice="required")
    (call,) = response.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Basel", "days": 3}
    function = {name: WEATHER[name] for name in ("name", "description", "parameters", "strict")}
    assert scene.received["tools"] == [{"type": "function", "function": function}]
    asked = [
        {"role": "user", "content": "What will it be like?"},
        call.to_dict(),
        {"type": "function_call_output", "call_id": call.call_id, "output": '{"sun": true}'},
    ]
    again = await scene.ask(asked, tools=[WEATHER], tool_choice="none")
    assert again.output_text
    assert scene.received["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": call.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": '{"sun": true}'},
    ]


class Report(BaseModel):
    """What the answer shall look like."""

    place: str
    depth: int


@pytest.mark.asyncio(loop_scope="module")
async def test_structured_output_is_parsed(scene: Scene) -> None:
    """``responses.parse`` gives an object; the schema reaches the engine whole."""
    parsed = await scene.client.responses.parse(model=MODEL, input="Report.", text_format=Report)
    assert isinstance(parsed.output_parsed, Report)
    asked = scene.received["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["schema"]["required"] == ["place", "depth"]
    assert asked["json_schema"]["strict"] is True


@pytest.mark.asyncio(loop_scope="module")
async def test_the_stream_helper_ends_with_the_response(scene: Scene) -> None:
    """``responses.stream`` folds the events into the response that came last."""
    async with scene.client.responses.stream(model=MODEL, input="Report.", text_format=Report) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_response()
    assert "response.output_text.delta" in kinds
    assert isinstance(final.output_parsed, Report)
    assert final.usage is not None


@pytest.mark.asyncio(loop_scope="module")
async def test_conversations_go_on_from_a_response(scene: Scene) -> None:
    """Three turns by ``previous_response_id``; instructions are those of the turn; items can be listed and deleted."""
    first = await scene.ask("One.", instructions="In English.")
    second = await scene.ask("Two.", previous_response_id=first.id)
    third = await scene.ask("Three.", previous_response_id=second.id, instructions="In French.")
    said = [(message["role"], message["content"]) for message in scene.received["messages"]]
    assert said == [
        ("system", "In French."),
        ("user", "One."),
        ("assistant", first.output_text),
        ("user", "Two."),
        ("assistant", second.output_text),
        ("user", "Three."),
    ]
    assert third.previous_response_id == second.id
    assert await scene.client.responses.retrieve(third.id) == third
    listed: list[Any] = [item async for item in scene.client.responses.input_items.list(third.id, order="asc", limit=2)]
    assert [item.type for item in listed] == ["message"] * 5
    assert (listed[0].content[0].text, listed[-1].content[0].text) == ("One.", "Three.")
    await scene.client.responses.delete(second.id)
    for gone in (
        scene.client.responses.retrieve(second.id),
        scene.client.responses.delete(second.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await gone
    with pytest.raises(openai.BadRequestError) as caught:
        await scene.ask("Four.", previous_response_id=third.id)
    assert caught.value.param == "previous_response_id"
    assert (await scene.client.responses.retrieve(first.id)).id == first.id


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tool_loop_goes_on_from_a_response(scene: Scene) -> None:
    """Only the output of the call is sent; the call itself comes from what was kept."""
    first = await scene.ask(tools=[WEATHER], tool_choice="required")
    (call,) = first.output
    assert call.type == "function_call"
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    events = await scene.stream(output, previous_response_id=first.id, tools=[WEATHER], tool_choice="none")
    assert events[-1].type == "response.completed"
    roles = [message["role"] for message in scene.received["messages"]]
    assert roles == ["user", "assistant", "tool"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_item_can_be_referred_to(scene: Scene) -> None:
    """``item_reference`` stands for the item of an earlier response; one that is not there is refused by its place."""
    first = await scene.ask("One.")
    asked: Any = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "Two."}]
    await scene.ask(asked)
    assert scene.received["messages"][0] == {"role": "assistant", "content": first.output_text}
    asked[0] = {"type": "item_reference", "id": "msg_" + "0" * 36}
    with pytest.raises(openai.BadRequestError) as caught:
        await scene.ask(asked)
    assert caught.value.param == "input[0].id"


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_not_to_be_stored_is_not(scene: Scene) -> None:
    """``store: false`` and zero data retention leave nothing to fetch."""
    for more in ({"store": False}, {"extra_body": {"provider": {"zdr": True}}}):
        response = await scene.ask(**more)
        assert response.to_dict()["store"] is False
        with pytest.raises(openai.NotFoundError):
            await scene.client.responses.retrieve(response.id)


@pytest.mark.asyncio(loop_scope="module")
async def test_nobody_sees_the_responses_of_another_key(scene: Scene) -> None:
    """For another team, and for another key of the team, a response is what one that never was is: the same 404."""
    response = await scene.ask()
    await scene.client.responses.retrieve(response.id)
    unknown = "resp_" + "0" * 12 + "7" + "0" * 3 + "8" + "0" * 15
    await scene.stage.keeper.create_team("other", "Other")
    for team in ("other", "default"):
        key = await scene.stage.new_key(team)
        client = scene.stage.openai(key.key)
        for one, other in ((response.id, unknown),):
            answers = []
            for identity in (one, other):
                tried = [
                    client.responses.retrieve(identity),
                    client.responses.delete(identity),
                    client.responses.cancel(identity),
                    client.get(f"/responses/{identity}/input_items", cast_to=object),
                ]
                for each in tried:
                    with pytest.raises(openai.NotFoundError) as caught:
                        await each
                    answers.append(caught.value.message.replace(identity, "…"))
                with pytest.raises(openai.BadRequestError) as refused:
                    await client.responses.create(model=MODEL, input="x", previous_response_id=identity)
                answers.append(refused.value.message.replace(identity, "…"))
                item = (response.output[0].id or "").replace(response.id[5:], identity[5:])
                reference: Any = [{"type": "item_reference", "id": item}, {"role": "user", "content": "x"}]
                with pytest.raises(openai.BadRequestError) as refused:
                    await client.responses.create(model=MODEL, input=reference)
                answers.append(refused.value.message.replace(identity[5:], "…"))
            assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]
    assert (await scene.client.responses.retrieve(response.id)).id == response.id


@pytest.mark.asyncio(loop_scope="module")
async def test_strange_ids_and_questions_are_refused(scene: Scene) -> None:
    """Whatever stands in the path or the query: 404 or 400 that names it, for a management key 403, and never a 500."""
    http, headers = scene.stage.http, scene.stage.headers
    for identity in ("x", "resp_", "resp_" + "z" * 32, "%00", "%C3%A9" * 8, "resp_" + "0" * 500, "input_items"):
        for prefix in ("/v1", "/api/v1"):
            url = f"{scene.stage.url}{prefix}/responses/{identity}"
            for answer in (
                await http.get(url, headers=headers),
                await http.delete(url, headers=headers),
                await http.get(url + "/input_items", headers=headers),
                await http.post(url + "/cancel", headers=headers),
            ):
                assert answer.status_code == 404, answer.text
    response = await scene.ask()
    url = f"{scene.stage.url}/v1/responses/{response.id}"
    for query, param in (("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=zzz", "after")):
        answer = await http.get(f"{url}/input_items?{query}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await http.get(f"{url}?stream=true", headers=headers)).json()["error"]["param"] == "stream"
    assert (await http.post(f"{url}/cancel", headers=headers)).status_code == 400
    assert (await http.get(url, headers=scene.stage.admin)).status_code == 403
    assert (await http.get(url)).status_code == 401


async def test_the_synchronous_client_gets_the_same(scene: Scene) -> None:
    """``OpenAI`` and ``AsyncOpenAI`` read the same response and the same events."""
    whole = await scene.ask()

    def ask() -> tuple[str, str]:
        with OpenAI(api_key=scene.stage.key, base_url=scene.stage.url + "/v1", max_retries=0) as client:
            response = client.responses.create(model=MODEL, input="Tell me about weirs.")
            events = list(client.responses.create(model=MODEL, input="Tell me about weirs.", stream=True))
        counted(events)
        return response.output_text, events[-1].response.output_text  # type: ignore[union-attr]

    assert await asyncio.to_thread(ask) == (whole.output_text, whole.output_text)


@pytest.mark.asyncio(loop_scope="module")
async def test_log_probabilities_come_where_they_are_asked_for(scene: Scene) -> None:
    """``include`` brings them into deltas and parts, as many as there are tokens."""
    include: Any = ["message.output_text.logprobs"]
    response = await scene.ask(include=include, top_logprobs=2)
    part = response.output[0].content[0]  # type: ignore[union-attr,index]
    assert response.usage is not None
    assert len(part.logprobs) == response.usage.output_tokens  # type: ignore[union-attr,arg-type]
    assert all(len(each.top_logprobs) == 2 for each in part.logprobs)  # type: ignore[union-attr]
    events = await scene.stream(include=include, top_logprobs=2)
    streamed = [one for each in events if each.type == "response.output_text.delta" for one in each.logprobs]
    assert [one.token for one in streamed] == [one.token for one in part.logprobs]  # type: ignore[union-attr]


@pytest.mark.asyncio(loop_scope="module")
async def test_input_tokens_are_counted_as_the_engine_counts_them(scene: Scene) -> None:
    """The count is what the answer's usage then says, of a whole conversation too; nothing is generated for it."""
    first = await scene.ask("One.", instructions="Be brief.")
    for members in (
        {"input": "One.", "instructions": "Be brief."},
        {"input": "Two.", "previous_response_id": first.id},
    ):
        counted_ = await scene.client.responses.input_tokens.count(model=MODEL, **members)  # type: ignore[arg-type]
        answered = await scene.client.responses.create(model=MODEL, **members)  # type: ignore[call-overload]
        assert counted_.object == "response.input_tokens"
        assert counted_.input_tokens == answered.usage.input_tokens
    with pytest.raises(openai.BadRequestError):
        await scene.client.responses.input_tokens.count(model=MODEL, input="")


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        (openai.AuthenticationError, {"key": "sk-weir-00000000-" + "0" * 40}),
        (openai.NotFoundError, {"model": "no/such-model"}),
        (openai.BadRequestError, {"temperature": 3}),
    ],
    ids=["key", "model", "field"],
)
async def test_errors_are_the_clients_own(scene: Scene, kind: Any, request_: dict[str, Any]) -> None:
    """The official client raises what it raises for OpenAI; the body has OpenRouter's word at its top as well."""
    client = scene.stage.openai(request_.pop("key", None))
    with pytest.raises(kind) as caught:
        await client.responses.create(**({"model": MODEL, "input": "x"} | request_))
    document = caught.value.response.json()
    assert document["error_type"] == document["error"]["metadata"]["error_type"]
    assert document["error"]["code"] == caught.value.status_code


@pytest.mark.asyncio(loop_scope="module")
async def test_openrouters_path_has_its_controls_and_members(scene: Scene) -> None:
    """Under ``/api/v1`` the provider is named and routing obeys ``provider``; a wish that cannot be met is a 404."""
    client = scene.stage.openai(base="/api/v1")
    response = await client.responses.create(model=MODEL, input="x", extra_body={"provider": {"only": ["own"]}})
    assert response.to_dict()["provider"] == "own"
    assert response.to_dict()["usage"]["cost_details"].keys() == {  # type: ignore[index]
        "upstream_inference_input_cost",
        "upstream_inference_output_cost",
    }
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=MODEL, input="x", extra_body={"provider": {"only": ["nobody"]}})
    assert caught.value.param == "provider.only[0]"


async def test_reasoning_is_an_item_before_the_text(tmp_path: Path) -> None:
    """Reasoning streams as its own item, counts as such, and goes back to the engine with the answer it led to."""
    async with (
        SimServer(SimConfig(name="gpu-a", reasoning_tokens=6)) as sim,
        staged(tmp_path, configuration([Backend("gpu-a", sim.url)])) as stage,
    ):
        scene = Scene(stage, sim)
        events = await scene.stream(reasoning={"effort": "low"})
        counted(events)
        assert scene.received["reasoning_effort"] == "low"
        thoughts = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
        assert events[-1].type == "response.completed"
        response = events[-1].response
        assert [item.type for item in response.output] == ["reasoning", "message"]
        assert response.output[0].content[0].text == thoughts  # type: ignore[union-attr,index]
        assert response.usage is not None
        assert response.usage.output_tokens_details.reasoning_tokens == 6
        await scene.ask("And?", previous_response_id=response.id)
        assistant = scene.received["messages"][1]
        assert (assistant["reasoning"], assistant["content"]) == (thoughts, response.output_text)


async def test_a_stream_that_breaks_ends_in_an_honest_error(tmp_path: Path) -> None:
    """After the cut come ``error`` and ``response.failed`` with what there was; it cannot be gone on with."""
    fault = Fault(kind="cut_mid_stream", after_chunks=4)
    async with (
        SimServer(SimConfig(name="gpu-a", faults=(fault,))) as sim,
        staged(tmp_path, configuration([Backend("gpu-a", sim.url)])) as stage,
    ):
        scene = Scene(stage, sim)
        events = await scene.stream()
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        assert events[-1].type == "response.failed"
        assert events[-1].response.error is not None
        assert events[-1].response.error.code == "server_error"
        said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events[-1].response.output_text == said != ""
        (item,) = events[-1].response.output
        assert item.type == "message"
        assert item.status == "incomplete"
        assert not any(event.type in {"response.completed", "response.incomplete"} for event in events)
        with pytest.raises(openai.NotFoundError):
            await scene.client.responses.retrieve(events[-1].response.id)


async def test_without_a_store_nothing_is_gone_on_from(tmp_path: Path) -> None:
    """``responses.store: false``: answers come, their ids are unknown afterwards, and going on is refused by name."""
    more = "responses: {store: false}"
    async with (
        SimServer(SimConfig(name="gpu-a")) as sim,
        staged(tmp_path, configuration([Backend("gpu-a", sim.url)], more=more)) as stage,
    ):
        scene = Scene(stage, sim)
        response = await scene.ask(store=True)
        assert response.to_dict()["store"] is False
        with pytest.raises(openai.NotFoundError):
            await scene.client.responses.retrieve(response.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await scene.ask(previous_response_id=response.id)
        assert caught.value.param == "previous_response_id"
