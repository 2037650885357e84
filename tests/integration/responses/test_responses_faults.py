"""The simulated API of OpenAI speaks Responses: asked directly and through the gateway it says the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from gateway.sim import Fault, SimConfig, SimServer
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL, UPSTREAM = "qwen/qwen3-32b", "Qwen/Qwen3-32B"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
REQUESTS: dict[str, dict[str, Any]] = {
    "text": {},
    "tool": {"tools": [WEATHER], "tool_choice": "required"},
    "search": {"tools": [{"type": "web_search"}], "include": ["reasoning.encrypted_content"]},
    "short": {"max_output_tokens": 4},
    "schema": {
        "text": {
            "format": {
                "type": "json_schema",
                "name": "n",
                "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            }
        }
    },
}


class Scene:
    """A gateway over the simulated API, and clients of both."""

    def __init__(self, stage: Stage, sim: SimServer) -> None:
        self.stage = stage
        self.sim = sim
        self.client = stage.openai()
        self.direct = self.client.with_options(base_url=sim.url + "/v1")

    async def events(self, *, direct: bool = False, **more: Any) -> list[Any]:
        """Return the events of a stream."""
        client, model = (self.direct, UPSTREAM) if direct else (self.client, MODEL)
        stream = await client.responses.create(model=model, input="Tell me.", stream=True, **more)
        return [event async for event in stream]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway over one API that thinks before it speaks."""
    config = SimConfig("openai", name="api", reasoning_tokens=4, prompt_cache=False)
    async with SimServer(config) as sim:
        backend = Backend("api", sim.url + "/v1", "openai", more="dialects: [responses]")
        async with staged(tmp_path_factory.mktemp("sim"), configuration([backend])) as stage:
            yield Scene(stage, sim)


def bare(thing: Any) -> Any:
    """Return a document without what differs by design: ids, names, numbers of requests, and the gateway's own."""
    if isinstance(thing, list):
        return [bare(each) for each in thing]
    if not isinstance(thing, dict):
        return thing
    gone = {"id", "item_id", "call_id", "created_at", "completed_at", "model", "billing", "store", "cost", "is_byok"}
    gone |= {"cost_details", "frequency_penalty", "presence_penalty", "max_tool_calls", "prompt_cache_key"}
    gone |= {"safety_identifier", "user", "reasoning", "include"}
    return {name: bare(value) for name, value in thing.items() if name not in gone}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_the_gateway_says_what_the_api_says(scene: Scene, request_: dict[str, Any]) -> None:
    """Every event and the whole answer are the API's own."""
    direct = await scene.events(direct=True, **request_)
    through = await scene.events(**request_)
    assert [event.type for event in through[:2]] == [event.type for event in direct[:2]]
    assert [bare(event.to_dict()) for event in through[2:]] == [bare(event.to_dict()) for event in direct[2:]]
    whole = await scene.client.responses.create(model=MODEL, input="Tell me.", **request_)
    assert bare(whole.to_dict()) == bare(through[-1].response.to_dict())
    entry = scene.sim.books[-1]
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (entry.prompt_tokens, entry.completion_tokens)
    found = await scene.stage.generation("gen-" + whole.id.removeprefix("resp_"))
    assert (found["tokens_completion"], found["usage_source"]) == (entry.completion_tokens, "upstream")


async def test_odd_bytes_change_nothing(scene: Scene) -> None:
    """Line ends of all kinds, comments, missing blank lines and split characters: the same events."""
    direct = await scene.events(direct=True)
    scene.sim.faults.arm(Fault(kind="malformed_sse"))
    through = await scene.events()
    assert [event.type for event in through[:2]] == [event.type for event in direct[:2]]
    assert [bare(event.to_dict()) for event in through[2:]] == [bare(event.to_dict()) for event in direct[2:]]


async def test_a_conversation_of_sealed_reasoning(scene: Scene) -> None:
    """Three turns: the API gets its own seals and ids back and refuses nothing."""
    last = None
    for words in ("One.", "Two.", "Three."):
        answer = await scene.client.responses.create(
            model=MODEL,
            input=words,
            previous_response_id=last.id if last is not None else openai.omit,
            reasoning={"effort": "low"},
        )
        assert answer.output_text
        last = answer
    body: Any = scene.sim.books[-1].body
    assert [item["type"] for item in body["input"]] == ["message", "reasoning", "message"] * 2 + ["message"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="cut_mid_stream", after_chunks=6),
        Fault(kind="reset_mid_stream", after_chunks=6),
        Fault(kind="error_in_200", after_chunks=6),
        Fault(kind="bad_json_event", after_chunks=6),
        Fault(kind="cut_before_done"),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_broken_stream_ends_honestly(scene: Scene, fault: Fault) -> None:
    """Whatever breaks before ``response.completed``: never a silent success, and nothing to pay."""
    scene.sim.faults.arm(Fault(**{name: getattr(fault, name) for name in fault.__struct_fields__} | {"count": 1}))
    try:
        events = await scene.events()
    except openai.InternalServerError:
        return  # all of it came in one read, so there was nothing to take back
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    found = await scene.stage.generation("gen-" + events[-1].response.id.removeprefix("resp_"))
    assert found["total_cost"] == 0
