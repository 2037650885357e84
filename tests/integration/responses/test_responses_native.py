"""Callers who speak Responses, over an API that speaks it too: everything passes, with ids, model and usage of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from gateway.sim import SimConfig, SimServer
from tests.fakes.backend import DONE, SSE_HEAD, HandBackend, Visit, chunk, event, hand_backend, usage_chunk
from tests.fakes.responses_api import CALL, CITATION, REASONING, SEARCH, Script, message, responses_api
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "qwen/qwen3-32b"
TEXT = "Weirs hold water back."
DIALECTS = "dialects: [responses]"
DEAR = 'cost: {prompt: "0.05", completion: "0.20"}'
SEARCHING: Any = [{"type": "web_search"}]


def over(backend: HandBackend, *more: Backend) -> str:
    """Return a configuration with a model over the API, which alone costs next to nothing."""
    cheap = 'price: {prompt: "0.01", completion: "0.01"}, cost: {prompt: "0.001", completion: "0.001"}'
    native = Backend("api", backend.url + "/v1", "openai", "gpt-upstream", "api", DIALECTS, cheap)
    return configuration([native, *more], more="routing: {default: cheapest}")


@asynccontextmanager
async def scene(home: Path, *output: Any) -> AsyncIterator[tuple[Script, HandBackend, Stage, AsyncOpenAI]]:
    """A gateway over the API that answers ``output``."""
    script = Script(*output)
    async with responses_api(script) as backend, staged(home, over(backend)) as stage:
        yield script, backend, stage, stage.openai()


Scene = tuple[Script, HandBackend, Stage, AsyncOpenAI]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway over the API, for tests in which nothing breaks."""
    async with scene(tmp_path_factory.mktemp("native")) as found:
        yield found


def prepared(shared: Scene, *output: Any) -> Scene:
    """Return the scene with an API that answers ``output`` and has seen nothing yet."""
    shared[0].reset(*output)
    shared[1].visits.clear()
    return shared


async def test_every_event_passes(shared: Scene) -> None:
    """Hosted tools, annotations, summaries and calls come event by event; ids, numbers, model and usage are ours."""
    output = (REASONING, SEARCH, message(TEXT, CITATION), CALL)
    _, backend, stage, client = prepared(shared, *output)
    stream = await client.responses.create(model=MODEL, input="Search.", tools=SEARCHING, stream=True)
    events: list[Any] = [each async for each in stream]
    assert [each.sequence_number for each in events] == list(range(len(events)))
    kinds = [each.type for each in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds.count("response.created") == kinds.count("response.completed") == 1
    assert "response.web_search_call.searching" in kinds
    assert "response.output_text.annotation.added" in kinds
    assert "".join(each.delta for each in events if each.type == "response.output_text.delta") == TEXT
    final = events[-1].response
    assert final.output_text == TEXT
    assert [item.type for item in final.output] == ["reasoning", "web_search_call", "message", "function_call"]
    assert final.output[2].content[0].annotations[0].url == "https://a.example"
    assert final.output[3].arguments == CALL["arguments"]
    mark = final.id.removeprefix("resp_")
    assert [item.id for item in final.output] == [f"{prefix}_{mark}xabc" for prefix in ("rs", "ws", "msg", "fc")]
    assert {each.item_id for each in events if hasattr(each, "item_id")} <= {item.id for item in final.output}
    assert final.model == MODEL
    assert "billing" not in final.to_dict()
    assert final.output[0].encrypted_content is None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (40, 25)
    assert final.usage.input_tokens_details.cached_tokens == 16
    assert final.usage.output_tokens_details.reasoning_tokens == 9
    found = await stage.generation("gen-" + mark)
    assert (found["tokens_prompt"], found["tokens_completion"], found["usage_source"]) == (40, 25, "upstream")
    assert found["upstream_id"] == "resp_upstream"
    (visit,) = backend.visits
    assert visit.path == "/v1/responses"
    assert visit.document == {
        "model": "gpt-upstream",
        "input": "Search.",
        "tools": SEARCHING,
        "stream": True,
        "store": False,
    }


async def test_a_whole_answer_passes(shared: Scene) -> None:
    """The JSON answer says what the stream says, and keeps members that nobody here knows."""
    _, backend, stage, client = prepared(shared, SEARCH, message(TEXT, CITATION))
    answer = await client.responses.create(model=MODEL, input="Search.", tools=SEARCHING, max_output_tokens=50)
    assert answer.output_text == TEXT
    assert answer.output[0].type == "web_search_call"
    assert (answer.top_p, answer.temperature) == (0.98, 1.0)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 65
    assert backend.visits[0].document["max_output_tokens"] == 50
    found = await stage.generation("gen-" + answer.id.removeprefix("resp_"))
    assert found["tokens_completion"] == 25


async def test_a_conversation_goes_on_there(shared: Scene) -> None:
    """What went before is sent along with the API's own ids and its sealed reasoning, which the caller is not shown."""
    script, backend, _, client = prepared(shared, REASONING, CALL)
    first = await client.responses.create(model=MODEL, input="One.", reasoning={"effort": "low"})
    script.output = [message(TEXT)]
    output: Any = [{"type": "function_call_output", "call_id": "call_abc", "output": "sunny"}]
    second = await client.responses.create(
        model=MODEL, input=output, previous_response_id=first.id, reasoning={"effort": "low"}
    )
    assert second.output_text == TEXT
    assert second.previous_response_id == first.id
    sent = backend.visits[1].document
    assert "previous_response_id" not in sent
    assert sent["include"] == ["reasoning.encrypted_content"]
    assert [(item["type"], item.get("id")) for item in sent["input"]] == [
        ("message", None),
        ("reasoning", "rs_abc"),
        ("function_call", "fc_abc"),
        ("function_call_output", None),
    ]
    assert sent["input"][1]["encrypted_content"] == REASONING["encrypted_content"]
    shown = await client.responses.create(
        model=MODEL, input="x", include=["reasoning.encrypted_content"], reasoning={"effort": "low"}
    )
    assert shown.output_text == TEXT


async def test_a_conversation_moves_between_apis(tmp_path: Path) -> None:
    """A turn that a chat engine made is gone on with by the API, and the other way round."""
    script = Script(REASONING, message(TEXT))
    async with (
        responses_api(script) as backend,
        SimServer(SimConfig(name="gpu-a", reasoning_tokens=3)) as sim,
        staged(tmp_path, over(backend, Backend("gpu-a", sim.url, endpoint=DEAR))) as stage,
    ):
        client = stage.openai()
        engine: Any = {"provider": {"only": ["own"]}}
        api: Any = {"provider": {"only": ["api"]}}
        first = await client.responses.create(model=MODEL, input="One.", extra_body=engine)
        second = await client.responses.create(model=MODEL, input="Two.", previous_response_id=first.id, extra_body=api)
        kinds = [item["type"] for item in backend.visits[0].document["input"]]
        assert kinds == ["message"] * 3
        await client.responses.create(model=MODEL, input="Three.", previous_response_id=second.id, extra_body=engine)
        body: Any = sim.books[-1].body
        assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
        assert body["messages"][3]["content"] == TEXT


@pytest.mark.parametrize(
    ("stop", "last"),
    [
        (12, None),
        (12, {"type": "error", "code": "server_error", "message": "it broke", "param": None, "sequence_number": 9}),
        (
            12,
            {
                "type": "response.failed",
                "sequence_number": 9,
                "response": {"status": "failed", "error": {"code": "server_error", "message": "it broke"}},
            },
        ),
    ],
    ids=["cut", "error", "failed"],
)
async def test_a_stream_that_breaks_says_so(tmp_path: Path, stop: int, last: dict[str, Any] | None) -> None:
    """Cut before its end, or ended by the API with an error: ``error`` and ``response.failed``, nothing to pay."""
    async with scene(tmp_path, message(TEXT)) as (script, _, stage, client):
        script.stop, script.last = stop - 4, last
        stream = await client.responses.create(model=MODEL, input="x", stream=True)
        events: list[Any] = [each async for each in stream]
        assert [each.sequence_number for each in events] == list(range(len(events)))
        assert [each.type for each in events[-2:]] == ["error", "response.failed"]
        assert not any(each.type == "response.completed" for each in events)
        failed = events[-1].response
        assert failed.error.code == "server_error"
        if last is not None:
            assert "it broke" in failed.error.message
        found = await stage.generation("gen-" + failed.id.removeprefix("resp_"))
        assert found["total_cost"] == 0
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(failed.id)


async def test_a_refusal_of_the_api_is_passed_on(shared: Scene) -> None:
    """Its status, its words and the field it names reach the caller."""
    script, _, _, client = prepared(shared, message(TEXT))
    script.status = "400 Bad Request"
    script.error = {"message": "no such effort", "type": "invalid_request_error", "param": "reasoning.effort"}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=MODEL, input="x", reasoning={"effort": "xhigh"})
    assert "no such effort" in caught.value.message


async def test_the_next_backend_takes_over_in_its_own_dialect(tmp_path: Path) -> None:
    """While the API is down, a plain request is answered by a chat engine; one for hosted tools is refused by name."""
    script = Script(message(TEXT))
    script.status, script.error = "500 Internal Server Error", {"message": "down"}
    async with (
        responses_api(script) as backend,
        SimServer(SimConfig(name="gpu-a")) as sim,
        staged(tmp_path, over(backend, Backend("gpu-a", sim.url, endpoint=DEAR))) as stage,
    ):
        client = stage.openai()
        answer = await client.responses.create(model=MODEL, input="x", stream=False)
        assert len(answer.output_text) > 20
        assert len(backend.visits) == 1
        with pytest.raises(openai.APIStatusError):
            await client.responses.create(model=MODEL, input="x", tools=SEARCHING)
        engine: Any = {"provider": {"only": ["own"]}}
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=MODEL, input="x", tools=SEARCHING, extra_body=engine)
        assert caught.value.param == "tools[0].type"


async def test_each_event_leaves_before_the_next_one_comes(shared: Scene) -> None:
    """The API sends an event only after the caller has seen what the one before it said."""
    script, _, _, client = prepared(shared, message(TEXT))
    script.gate = asyncio.Semaphore(5)  # up to the first piece of text
    stream = await client.responses.create(model=MODEL, input="x", stream=True)
    text = ""
    async with asyncio.timeout(20):
        async for each in stream:
            if each.type == "response.output_text.delta":
                text += each.delta
                script.gate.release()
                if text == TEXT:
                    for _ in range(8):
                        script.gate.release()
    assert text == TEXT


async def test_each_chunk_of_a_chat_engine_leaves_before_the_next_one_comes(tmp_path: Path) -> None:
    """The same over a backend that speaks chat, and for reasoning and calls as well as for text."""
    gate = asyncio.Semaphore(1)
    deltas: list[dict[str, Any]] = [{"reasoning": "r"}] * 3 + [{"content": "t"}] * 3
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    deltas += [{"tool_calls": [head]}] + [{"tool_calls": [{"index": 0, "function": {"arguments": "[1"}}]}] * 3

    async def answer(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for delta in deltas:
            await asyncio.wait_for(gate.acquire(), 20)
            await visit.events(event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
        await visit.events(event(chunk(finish="tool_calls")), event(usage_chunk(9)), DONE, last=True)

    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    async with hand_backend(answer) as backend, staged(tmp_path, configuration([Backend("a", backend.url)])) as stage:
        stream = await stage.openai().responses.create(model=MODEL, input="x", tools=[tool], stream=True)
        seen = []
        async for said in stream:
            if said.type.endswith(".delta") or said.type == "response.output_item.added":
                seen.append(said.type.split(".")[1])
            if said.type.endswith(".delta") or getattr(getattr(said, "item", None), "type", "") == "function_call":
                gate.release()
        assert seen == [
            "output_item",
            *["reasoning_text"] * 3,
            "output_item",
            *["output_text"] * 3,
            "output_item",
            *["function_call_arguments"] * 3,
        ]
