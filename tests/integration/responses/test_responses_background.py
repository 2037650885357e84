"""Responses made in the background, asked for, followed and ended by the unmodified official ``openai`` client.

The engine is slow enough that everything happens while it works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent

from gateway.sim import SimConfig, SimServer, Timing
from gateway.sim.faults import Fault
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "qwen/qwen3-32b"
RUNNING = {"queued", "in_progress"}


class Scene:
    """A gateway over one engine that takes a second for an answer, and the official client."""

    def __init__(self, stage: Stage, sim: SimServer) -> None:
        self.stage = stage
        self.sim = sim
        self.client: AsyncOpenAI = stage.openai()

    async def ask(self, **more: Any) -> Response:
        """Ask for a response in the background."""
        response = await self.client.responses.create(model=MODEL, input="Weirs?", background=True, **more)
        assert isinstance(response, Response)
        return response

    async def stream(self, **more: Any) -> Any:
        """Ask for a stream in the background."""
        return await self.client.responses.create(model=MODEL, input="Weirs?", background=True, stream=True, **more)

    async def finished(self, identity: str) -> Response:
        """Poll until a response is finished."""
        async with asyncio.timeout(30):
            while (response := await self.client.responses.retrieve(identity)).status in RUNNING:
                await asyncio.sleep(0.05)
        return response

    async def metered(self, identity: str) -> dict[str, Any]:
        """Return what the ledger says of a response, once it says anything."""
        url = f"{self.stage.url}/api/v1/generation"
        async with asyncio.timeout(20):
            while True:
                asked = {"id": "gen-" + identity.removeprefix("resp_")}
                answer = await self.stage.http.get(url, params=asked, headers=self.stage.headers)
                if answer.status_code == 200:
                    return dict(answer.json()["data"])
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway over one slow engine."""
    config = SimConfig(name="gpu-a", prompt_cache=False, answer_tokens=500, timing=Timing(base_ttft=0.1, itl=0.02))
    async with SimServer(config) as sim:
        home = tmp_path_factory.mktemp("background")
        async with staged(home, configuration([Backend("gpu-a", sim.url)])) as stage:
            yield Scene(stage, sim)


async def read(events: AsyncIterator[ResponseStreamEvent]) -> list[ResponseStreamEvent]:
    """Return events to the end of a stream."""
    return [event async for event in events]


async def test_an_answer_is_made_without_its_caller_and_metered_once(scene: Scene) -> None:
    """The id comes at once; polling ends with the whole answer; the ledger has it once, as the engine counted it."""
    accepted = await scene.ask(max_output_tokens=20, metadata={"job": "7"})
    assert accepted.status in RUNNING
    assert (accepted.background, accepted.output, accepted.usage) == (True, [], None)
    with pytest.raises(openai.BadRequestError) as caught:
        await scene.client.responses.create(model=MODEL, input="x", previous_response_id=accepted.id)
    assert caught.value.param == "previous_response_id"
    response = await scene.finished(accepted.id)
    assert (response.status, response.metadata, response.created_at) == (
        "incomplete", {"job": "7"}, accepted.created_at,
    )  # fmt: skip
    assert response.usage is not None
    entry = scene.sim.books[-1]
    assert (response.usage.input_tokens, response.usage.output_tokens) == (entry.prompt_tokens, 20)
    found = await scene.metered(accepted.id)
    assert (found["tokens_completion"], found["cancelled"]) == (20, False)
    assert found["total_cost"] == response.usage.to_dict()["cost"]
    items = await scene.client.responses.input_items.list(accepted.id)
    assert items.data[0].content[0].text == "Weirs?"  # type: ignore[union-attr,index]  # a message
    after = await scene.client.responses.create(
        model=MODEL, input="And?", previous_response_id=response.id, max_output_tokens=1
    )
    assert after.status == "incomplete"
    assert await scene.client.responses.cancel(accepted.id) == response, "what is finished stays as it is"


async def test_a_stream_is_read_on_behind_any_event(scene: Scene) -> None:
    """A caller who loses the stream reads on from another connection and misses nothing; again after the end, too."""
    begun: list[ResponseStreamEvent] = []
    stream = await scene.stream(max_output_tokens=30)
    async for event in stream:
        begun.append(event)
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    last = begun[-1].sequence_number
    identity = begun[0].response.id  # type: ignore[union-attr]  # response.created
    rest = await read(await scene.client.responses.retrieve(identity, stream=True, starting_after=last))
    assert [event.sequence_number for event in (*begun, *rest)] == list(range(last + 1 + len(rest)))
    whole = await read(await scene.client.responses.retrieve(identity, stream=True))
    assert whole == [*begun, *rest]
    end = whole[-1]
    assert end.type == "response.incomplete"
    said = "".join(event.delta for event in whole if event.type == "response.output_text.delta")
    assert said == end.response.output_text
    kept = await scene.finished(identity)
    assert (kept.output_text, kept.usage) == (said, end.response.usage)
    assert (await scene.metered(identity))["tokens_completion"] == 30
    for after in (end.sequence_number, 10_000):
        assert await read(await scene.client.responses.retrieve(identity, stream=True, starting_after=after)) == []


async def test_a_stream_comes_live(scene: Scene) -> None:
    """Whoever stays connected gets each event as it is made."""
    loop = asyncio.get_running_loop()
    kind = "response.output_text.delta"
    stream = await scene.stream(max_output_tokens=20)
    times = [loop.time() async for event in stream if event.type == kind]
    assert len(times) == 20
    assert times[-1] - times[0] > 0.2


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_stops_the_engine(scene: Scene, stream: bool) -> None:
    """The answer ends where it is, is ``cancelled`` from then on, and what was made of it is metered."""
    if stream:
        events = aiter(await scene.stream(max_output_tokens=2000))
        first = await anext(events)
        identity = first.response.id
        while (await anext(events)).type != "response.output_text.delta":
            pass
    else:
        identity = (await scene.ask(max_output_tokens=2000)).id
        await asyncio.sleep(0.4)
    cancelled = await scene.client.responses.cancel(identity)
    assert (cancelled.status, cancelled.id) == ("cancelled", identity)
    if stream:
        async with asyncio.timeout(20):
            assert [event.type async for event in events][-1] == "response.output_item.done"
    assert (await scene.client.responses.retrieve(identity)).status == "cancelled"
    assert (await scene.client.responses.cancel(identity)).status == "cancelled"
    found = await scene.metered(identity)
    assert found["cancelled"] is True
    assert (found["tokens_completion"] > 0) == stream, "whole answers say nothing of their tokens before they end"
    assert found["tokens_completion"] < 200
    with pytest.raises(openai.BadRequestError):
        await scene.client.responses.create(model=MODEL, input="x", previous_response_id=identity)


async def test_deleting_a_response_ends_its_run(scene: Scene) -> None:
    """What is deleted while it is made is gone, and nothing more is made of it."""
    accepted = await scene.ask(max_output_tokens=2000)
    await scene.client.responses.delete(accepted.id)
    with pytest.raises(openai.NotFoundError):
        await scene.client.responses.retrieve(accepted.id)
    assert (await scene.metered(accepted.id))["cancelled"] is True
    assert not scene.stage.gateway.inference.shelf.runs.running


async def test_refusals_come_in_place_of_an_id(scene: Scene) -> None:
    """A request that cannot be answered, or whose answer may not be kept, is refused as ever, streamed or not."""
    for stream in (False, True):
        asked: Any = {"input": "x", "background": True, "stream": stream}
        with pytest.raises(openai.NotFoundError):
            await scene.client.responses.create(model="no/such-model", **asked)
        for members in ({"store": False}, {"extra_body": {"provider": {"zdr": True}}}):
            with pytest.raises(openai.BadRequestError) as caught:
                await scene.client.responses.create(model=MODEL, **asked, **members)
            assert caught.value.param == "background"
    poor = scene.stage.openai((await scene.stage.new_key(rpm=1)).key)
    first = await poor.responses.create(model=MODEL, input="x", background=True, max_output_tokens=2)
    with pytest.raises(openai.RateLimitError):
        await poor.responses.create(model=MODEL, input="x", background=True)
    with pytest.raises(openai.NotFoundError):
        await scene.client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        await scene.client.responses.retrieve(first.id, stream=True)
    with pytest.raises(openai.NotFoundError):
        await scene.client.responses.cancel(first.id)


async def test_what_was_not_made_so_cannot_be_followed_or_cancelled(scene: Scene) -> None:
    """An ordinary response, and one that was not asked for as a stream, have no stream to follow."""
    plain = await scene.client.responses.create(model=MODEL, input="x", max_output_tokens=2)
    with pytest.raises(openai.BadRequestError):
        await scene.client.responses.cancel(plain.id)
    quiet = await scene.ask(max_output_tokens=2)
    for response in (plain, quiet):
        with pytest.raises(openai.BadRequestError) as caught:
            await scene.client.responses.retrieve(response.id, stream=True)
        assert caught.value.param == "stream"
    await scene.finished(quiet.id)


async def test_there_are_no_compactions(scene: Scene) -> None:
    """The official client's call for one is refused with the reason."""
    with pytest.raises(openai.BadRequestError, match="compactions are not made here"):
        await scene.client.responses.compact(model=MODEL, input="x")


async def test_an_idempotency_key_gives_the_same_id_again(scene: Scene) -> None:
    """Who lost the answer with the id asks again and gets the same one; nothing is made twice."""
    headers = {"Idempotency-Key": "background-1"}
    first = await scene.ask(max_output_tokens=10, extra_headers=headers)
    again = await scene.ask(max_output_tokens=10, extra_headers=headers)
    assert again.id == first.id
    assert (await scene.finished(first.id)).status == "incomplete"
    assert (await scene.ask(max_output_tokens=10, extra_headers=headers)).id == first.id


async def test_an_answer_that_breaks_is_failed(tmp_path: Path) -> None:
    """What the engine breaks off is ``failed``, with the reason, in the stream as in the response; nobody pays."""
    fault = Fault(kind="cut_mid_stream", after_chunks=4)
    timing = Timing(base_ttft=0.5)
    async with (
        SimServer(SimConfig(name="gpu-a", faults=(fault,), timing=timing)) as sim,
        staged(tmp_path, configuration([Backend("gpu-a", sim.url)])) as stage,
    ):
        scene = Scene(stage, sim)
        accepted = await scene.ask()
        failed = await scene.finished(accepted.id)
        events = await read(await scene.stream())
        followed = await read(
            await scene.client.responses.retrieve(events[0].response.id, stream=True)  # type: ignore[union-attr]
        )
        assert followed == events
        end = events[-1]
        assert end.type == "response.failed"
        for response in (failed, end.response):
            assert response.status == "failed"
            assert response.error is not None
            assert response.error.code == "server_error"
        assert (await scene.metered(accepted.id))["total_cost"] == 0


async def test_a_gateway_that_stops_fails_what_it_was_making(tmp_path: Path) -> None:
    """The end of the process is the end of its runs, and the next process says so."""
    async with SimServer(SimConfig(name="gpu-a", answer_tokens=500, timing=Timing(itl=0.05))) as sim:
        text = configuration([Backend("gpu-a", sim.url)])
        async with staged(tmp_path, text) as stage:
            accepted = await Scene(stage, sim).ask(max_output_tokens=2000)
            key = stage.key
            await stage.gateway.drain(0.1)
        async with staged(tmp_path, text) as stage:
            found = await stage.openai(key).responses.retrieve(accepted.id)
            assert found.status == "failed"
            assert found.error is not None
            assert "shutting down" in found.error.message
