"""A gateway over an engine that chats and Anthropic's API, both simulated, and the official client of messages."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic

from gateway.sim import SimConfig, SimServer
from tests.fakes.backend import Visit, hand_backend
from tests.harness import Stage, staged

KEY = "sk-ant-of-the-tests"
HI: Any = [{"role": "user", "content": "Tell me about weirs."}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Basel"]}},
        "required": ["city"],
    },
}
LOOK: Any = {"type": "text", "text": "Look"}
PRICE = 'price: {prompt: "1", completion: "3", cache_read: "0.1", cache_write: "1.25"}'


@dataclass(frozen=True, slots=True)
class House:
    """A gateway over all of them; model names are those of the backends."""

    stage: Stage
    vllm: SimServer
    claude: SimServer
    client: AsyncAnthropic

    async def post(self, path: str = "/v1/messages", **body: Any) -> Any:
        """Post a body as it is; return the response."""
        headers = {"x-api-key": self.stage.key, "anthropic-version": "2023-06-01"}
        return await self.stage.http.post(self.stage.url + path, json=body, headers=headers)


async def _idle(visit: Visit) -> None:
    await visit.answer({"type": "error", "error": {"type": "api_error", "message": "no script"}}, "500 Broken")


def _configuration(**urls: str) -> str:
    kinds = {"claude": "anthropic", "hand": "anthropic"}
    lines = ["backends:"]
    for name, url in urls.items():
        key = ', api_key: "${MESSAGES_KEY}"' if name in kinds else ""
        lines.append(f'  - {{name: {name}, kind: {kinds.get(name, "vllm")}, url: "{url}"{key}}}')
    lines.append("models:")
    lines += [
        f"  - {{id: {name}, context_length: 40960, {PRICE}, capabilities: {{vision: true}}, "
        f"endpoints: [{{backend: {name}, model: up-{name}}}]}}"
        for name in urls
    ]
    pair = "[{backend: vllm, model: up-vllm}, {backend: twin, model: up-vllm}]"
    lines.append(f"  - {{id: pair, context_length: 40960, {PRICE}, endpoints: {pair}}}")
    lines.append(
        f"  - {{id: either, context_length: 40960, {PRICE}, capabilities: {{vision: true}}, "
        "endpoints: [{backend: vllm, model: up-vllm}, {backend: claude, model: up-claude}]}"
    )
    return "\n".join(lines) + '\negress: {allow: ["127.0.0.0/8"]}\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One gateway for the module."""
    os.environ["MESSAGES_KEY"] = KEY
    chatting = SimConfig("vllm", ("up-vllm", "up-thinker"), "vllm", answer_tokens=12)
    claude = SimConfig("anthropic", ("up-claude",), "claude", answer_tokens=12, reasoning_tokens=3, api_key=KEY)
    twin = SimConfig("vllm", ("up-vllm",), "twin", answer_tokens=12)
    thinker = SimConfig("vllm", ("up-thinker",), "thinker", answer_tokens=6, reasoning_tokens=3)
    async with (
        SimServer(chatting) as vllm,
        SimServer(claude) as anthropic_sim,
        SimServer(thinker) as thinking,
        SimServer(twin) as second,
        hand_backend(_idle) as hand,
    ):
        urls = {"vllm": vllm.url, "twin": second.url, "claude": anthropic_sim.url, "thinker": thinking.url}
        text = _configuration(**urls, hand=hand.url)
        async with (
            staged(tmp_path_factory.mktemp("messages"), text) as stage,
            AsyncAnthropic(api_key=stage.key, base_url=stage.url, max_retries=0) as client,
        ):
            yield House(stage, vllm, anthropic_sim, client)
    del os.environ["MESSAGES_KEY"]


@pytest.fixture(autouse=True)
def mended(house: House) -> None:
    """Nothing is broken when a test begins."""
    for sim in (house.vllm, house.claude):
        sim.faults.clear()
        for replica in house.stage.gateway.registry.fleet.replicas.values():
            replica.load.ejected_until = replica.load.cooling_until = 0.0


def call(identity: str, arguments: str) -> dict[str, Any]:
    """Return a call of the weather tool in the chat form."""
    return {"id": identity, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def received(sim: SimServer) -> dict[str, Any]:
    """Return the last body that an engine got."""
    body = sim.books[-1].body
    assert isinstance(body, dict)
    return body
