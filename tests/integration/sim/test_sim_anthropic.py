"""The simulated Anthropic, asked by the official client, answers and refuses as the real one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic

from gateway.sim import Fault, SimConfig, SimServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

HI: Any = [{"role": "user", "content": "Tell me about weirs."}]
TOOL: Any = {
    "name": "f",
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[SimServer]:
    """A simulated Anthropic that thinks first."""
    config = SimConfig("anthropic", ("claude",), answer_tokens=6, reasoning_tokens=2, api_key="k", context_length=4000)
    async with SimServer(config) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(sim: SimServer) -> AsyncIterator[AsyncAnthropic]:
    """The official client."""
    async with AsyncAnthropic(api_key="k", base_url=sim.url, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("more", [{}, {"tools": [TOOL], "tool_choice": {"type": "any"}}])
async def test_an_answer_and_its_stream_say_the_same(sim: SimServer, client: AsyncAnthropic, more: Any) -> None:
    """Blocks, reasons and usage are the same whole and streamed, and those of the simulator's own books."""
    whole: Any = await client.messages.create(model="claude", max_tokens=50, messages=HI, **more)
    async with client.messages.stream(model="claude", max_tokens=50, messages=HI, **more) as stream:
        streamed: Any = await stream.get_final_message()
    kinds = [block.type for block in whole.content]
    assert kinds == (["tool_use"] if more else ["thinking", "text"])
    for one, other in zip(whole.content, streamed.content, strict=True):
        assert one.to_dict().items() <= other.to_dict().items()
    entry = sim.books[-1]
    assert entry.completion_tokens == whole.usage.output_tokens == streamed.usage.output_tokens
    assert entry.prompt_tokens == streamed.usage.input_tokens + streamed.usage.cache_read_input_tokens
    counted = await client.messages.count_tokens(model="claude", messages=HI, tools=more.get("tools", []))
    assert counted.input_tokens == entry.prompt_tokens


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"model": "other"}, anthropic.NotFoundError),
        ({"max_tokens": 0}, anthropic.BadRequestError),
        ({"max_tokens": 5000}, anthropic.BadRequestError),
        ({"messages": [*HI, *HI]}, anthropic.BadRequestError),
        ({"messages": [{"role": "system", "content": "x"}]}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": " "}]}, anthropic.BadRequestError),
        ({"messages": [*HI, {"role": "assistant", "content": "so "}]}, anthropic.BadRequestError),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, anthropic.BadRequestError),
        ({"extra_body": {"frequency_penalty": 1}}, anthropic.BadRequestError),
        ({"extra_headers": {"authorization": "Bearer no"}}, anthropic.AuthenticationError),
    ],
)
async def test_what_is_refused(client: AsyncAnthropic, wrong: Any, error: Any) -> None:
    """What Anthropic refuses is refused here, in its shape."""
    asked: Any = {"model": "claude", "max_tokens": 50, "messages": HI} | wrong
    with pytest.raises(error) as caught:
        await client.messages.create(**asked)
    assert caught.value.body["type"] == "error"


async def test_an_error_inside_a_stream(sim: SimServer, client: AsyncAnthropic) -> None:
    """The fault ends a stream in an error event, as the client reads it."""
    sim.faults.arm(Fault(kind="error_in_200", after_chunks=3, count=1))

    async def heard() -> None:
        async with client.messages.stream(model="claude", max_tokens=50, messages=HI) as stream:
            await stream.get_final_message()

    with pytest.raises(anthropic.APIStatusError, match="api_error"):
        await heard()
