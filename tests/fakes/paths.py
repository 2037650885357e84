"""A request for every inference path, whole and streamed, and a gateway over an engine that answers them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.edge.inference import PATHS
from gateway.sim import SimConfig, SimServer
from tests.harness import Stage, chat_body, configuration, over, staged

CHAT: Final = "/v1/chat/completions"
MODELS: Final = """\
  - id: qwen/qwen3-32b
    context_length: 40960
    price: {prompt: "0.10", completion: "0.30"}
    endpoints: [{backend: only, model: Qwen/Qwen3-32B}]
  - id: house/vectors
    context_length: 512
    price: {prompt: "0.10", completion: "0"}
    capabilities: {embeddings: true}
    endpoints: [{backend: only, model: Qwen/Qwen3-32B}]
"""
_QUESTION: Final = "Tell me about weirs."
_ALL: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}),
    ("/api/v1/chat/completions", {"stream": True}),
    ("/v1/completions", {"prompt": _QUESTION, "messages": None}),
    ("/v1/embeddings", {"input": _QUESTION, "messages": None, "model": "house/vectors"}),
    ("/v1/responses", {"input": _QUESTION, "messages": None}),
    ("/api/v1/responses", {"input": _QUESTION, "messages": None, "stream": True}),
    ("/v1/messages", {"max_tokens": 40}),
    ("/v1/messages", {"max_tokens": 40, "stream": True}),
)
ASKED: Final = tuple(each for each in _ALL if each[0].encode() in PATHS)
"""Paths, and what the body of a chat request becomes there; None takes a member away."""


async def ask(
    stage: Stage,
    headers: dict[str, str],
    path: str = CHAT,
    *,
    key: str = "",
    http: httpx.AsyncClient | None = None,
    **more: Any,
) -> httpx.Response:
    """Send a request with further headers and members, and wait for what is kept of it."""
    body = {name: value for name, value in (chat_body() | more).items() if value is not None}
    authorized = {"authorization": f"Bearer {key}"} if key else stage.headers
    response = await (http or stage.http).post(stage.url + path, json=body, headers=authorized | headers)
    await stage.gateway.inference.repetitions.clerk.flush()
    return response


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway and the one engine behind it."""

    stage: Stage
    engine: SimServer

    @property
    def asked(self) -> int:
        """How many requests the engine saw."""
        return len(self.engine.books)

    async def ask(self, headers: dict[str, str], path: str = CHAT, **more: Any) -> httpx.Response:
        """As the function of that name."""
        return await ask(self.stage, headers, path, **more)

    async def keys(self, team: str) -> list[str]:
        """Return the usual key, another one of its team, and one of a new ``team``."""
        await self.stage.keeper.create_team(team, team)
        return [self.stage.key, (await self.stage.new_key()).key, (await self.stage.new_key(team)).key]


@asynccontextmanager
async def scene(home: Path, more: str = "", **sim: Any) -> AsyncIterator[Scene]:
    """Run a gateway over one simulated engine inside the block."""
    async with (
        SimServer(SimConfig("vllm", name="only", **sim)) as engine,
        staged(home, configuration(over(engine), models=MODELS, more=more)) as stage,
    ):
        yield Scene(stage, engine)
