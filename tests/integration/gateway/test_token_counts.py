"""How many tokens a prompt has, over every kind of engine: its own count where it has one, else a marked estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.sim import SimConfig, SimFleet
from tests.harness import Stage, staged

KINDS = ("vllm", "sglang", "tgi", "openai")
TURNS: Any = [
    {"role": "user", "content": "Tell me about weirs."},
    {"role": "assistant", "content": "A weir is a low dam."},
    {"role": "user", "content": [{"type": "text", "text": "And what is it for?"}]},
]


async def counted(stage: Stage, kind: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    """Return the count and how good it is said to be."""
    answer = await stage.http.post(stage.url + path, json={"model": kind, **body}, headers=stage.headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["input_tokens"]), answer.headers["x-weir-token-count"]


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens"])
async def test_every_kind_counts_as_well_as_it_can(tmp_path: Path, path: str) -> None:
    """TGI and vLLM count the chat as they will read it, SGLang its texts; what is estimated in part is marked so."""
    sims = tuple(SimConfig(kind, ("up",), kind, prompt_cache=False) for kind in KINDS)  # type: ignore[arg-type]
    async with SimFleet(sims) as fleet:
        lines = ["backends:", *(f'  - {{name: {kind}, kind: {kind}, url: "{fleet[kind].url}"}}' for kind in KINDS)]
        endpoints = "context_length: 40960, endpoints: [{{backend: {kind}, model: up}}]"
        price = 'price: {prompt: "1", completion: "1"}'
        lines += ["models:", *(f"  - {{id: {kind}, {price}, {endpoints.format(kind=kind)}}}" for kind in KINDS)]
        text = "\n".join(lines) + '\negress: {allow: ["127.0.0.0/8"]}\n'
        async with staged(tmp_path, text) as stage:
            body = {"messages": TURNS} if "messages" in path else {"input": TURNS}
            said = {kind: await counted(stage, kind, path, body) for kind in KINDS}
            for kind in KINDS:
                answer = await stage.chat(model=kind, messages=TURNS)
                true = answer.json()["usage"]["prompt_tokens"]
                tokens, how = said[kind]
                if kind in ("vllm", "tgi"):
                    assert (tokens, how) == (true, "exact")
                else:
                    assert how == "estimated"
                    assert abs(tokens - true) <= 6 * len(TURNS)
