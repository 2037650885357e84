"""What goes wrong with Anthropic's messages: errors, streams that break or are odd, backends that take over."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from gateway.sim import Fault
from tests.integration.gateway.messages_house import HI, House
from tests.integration.gateway.messages_house import house as house
from tests.integration.gateway.messages_house import mended as mended

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def told(client: AsyncAnthropic, *, stream: bool) -> None:
    """Hear an answer of Anthropic's to its end."""
    asked: Any = {"model": "claude", "max_tokens": 30, "messages": HI}
    if not stream:
        await client.messages.create(**asked)
        return
    async with client.messages.stream(**asked) as events:
        await events.get_final_message()


ERRORS: Any = [
    (400, "invalid_request_error", anthropic.BadRequestError, 400, "invalid_request_error"),
    (401, "authentication_error", anthropic.InternalServerError, 502, "api_error"),
    (413, "request_too_large", anthropic.APIStatusError, 413, "request_too_large"),
    (429, "rate_limit_error", anthropic.InternalServerError, 529, "overloaded_error"),
    (500, "api_error", anthropic.InternalServerError, 502, "api_error"),
    (529, "overloaded_error", anthropic.InternalServerError, 529, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind", "error", "shown", "shown_kind"), ERRORS)
async def test_errors_of_the_api(house: House, status: int, kind: str, error: Any, shown: int, shown_kind: str) -> None:
    """What the API refuses is passed on with its meaning; its own troubles are the gateway's, in Anthropic's shape."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "words of the API"}})
    house.claude.faults.arm(Fault(kind="error_status", status=status, body=body, count=1))
    with pytest.raises(error) as caught:
        await house.client.messages.create(model="claude", max_tokens=9, messages=HI)
    assert caught.value.status_code == shown
    said = caught.value.body
    assert said["type"] == "error"
    assert said["error"]["type"] == shown_kind
    assert said["request_id"] == caught.value.request_id
    if status in {400, 413}:
        assert said["error"]["message"] == "words of the API"


@pytest.mark.parametrize("path", ["messages", "chat"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_inside_a_200_is_an_error(house: House, path: str, stream: bool) -> None:
    """An error event, or an error body with status 200, never ends as an answer."""
    words = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    house.claude.faults.arm(Fault(kind="error_in_200", body=words, after_chunks=5, count=1))
    if path == "chat":
        answer = await house.stage.chat(model="claude", stream=stream)
        assert "error" in answer.text
        assert "[DONE]" not in answer.text
    else:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await told(house.client, stream=stream)
        body: Any = caught.value.body
        assert body["error"]["type"] in {"api_error", "overloaded_error"}


@pytest.mark.parametrize("kind", ["cut_mid_stream", "reset_mid_stream"])
@pytest.mark.parametrize("model", ["vllm", "claude"])
async def test_a_cut_stream_ends_in_an_error(house: House, kind: Any, model: str) -> None:
    """A stream that breaks ends in an error event, not in a message that looks whole."""
    sim = house.claude if model == "claude" else house.vllm
    sim.faults.arm(Fault(kind=kind, after_chunks=5))
    answer = await house.post(model=model, max_tokens=30, messages=HI, stream=True)
    events = [json.loads(part.split("data: ", 1)[1]) for part in answer.text.split("\n\n") if part]
    assert events[-1]["type"] == "error"
    assert "message_stop" not in answer.text
    assert "message_delta" not in answer.text


async def test_a_stream_that_breaks_goes_on_elsewhere(house: House) -> None:
    """Where an engine can go on, the caller of messages sees one unbroken message, and is told what it took."""
    asked: Any = {"model": "pair", "max_tokens": 30, "messages": HI, "extra_body": {"provider": {"order": ["vllm"]}}}
    good: Any = await house.client.messages.create(**asked)
    house.vllm.faults.arm(Fault(kind="cut_mid_stream", after_chunks=5))
    async with house.client.messages.stream(**asked) as stream:
        message: Any = await stream.get_final_message()
    assert [block.text for block in message.content] == [block.text for block in good.content]
    assert message.usage.output_tokens == good.usage.output_tokens


@pytest.mark.parametrize("model", ["vllm", "claude"])
@pytest.mark.parametrize("fault", ["malformed_sse", "cut_before_done", "bad_json_event", "big_event"])
async def test_odd_streams(house: House, model: str, fault: Any) -> None:
    """What is odd is mended, what is broken is an error; never half an answer that looks whole."""
    asked: Any = {"model": model, "max_tokens": 30, "messages": HI}
    good: Any = await house.client.messages.create(**asked)
    sim = house.claude if model == "claude" else house.vllm
    sim.faults.arm(Fault(kind=fault, count=1, size=70_000))
    if fault == "bad_json_event":
        if model == "claude":
            with pytest.raises(anthropic.APIStatusError):
                await told(house.client, stream=True)
        return
    async with house.client.messages.stream(**asked) as stream:
        message: Any = await stream.get_final_message()
    text, whole = message.content[-1].text, good.content[-1].text
    if fault == "big_event":
        assert sum(len(block.to_json()) for block in message.content) > 70_000
    else:
        assert text == whole
    assert message.usage.output_tokens == good.usage.output_tokens


async def test_another_backend_takes_over_whatever_it_speaks(house: House) -> None:
    """Before an answer begins a backend of another dialect takes over unnoticed, in both directions."""
    for down in (house.vllm, house.claude):
        down.faults.arm(Fault(kind="error_status", status=500))
        answer: Any = await house.client.messages.create(model="either", max_tokens=30, messages=HI)
        assert answer.content[-1].type == "text"
        chat = await house.stage.chat(model="either")
        assert chat.json()["choices"][0]["message"]["content"]
        down.faults.clear()
        for replica in house.stage.gateway.registry.fleet.replicas.values():
            replica.load.ejected_until = replica.load.cooling_until = 0.0
