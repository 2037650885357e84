"""``truncation: auto`` over an engine that counts: what does not fit loses its oldest turns, and only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.sim import SimConfig, SimServer
from tests.harness import Backend, configuration, staged

MODELS = """\
  - id: small
    context_length: 400
    price: {prompt: "1", completion: "1"}
    endpoints: [{backend: gpu-a, model: up}]
"""


async def test_the_oldest_turns_are_left_out(tmp_path: Path) -> None:
    """The engine gets what fits, the newest turn whole; what is kept is the whole; ``disabled`` refuses."""
    config = SimConfig("vllm", ("up",), "gpu-a", context_length=400, answer_tokens=8)
    async with (
        SimServer(config) as sim,
        staged(tmp_path, configuration([Backend("gpu-a", sim.url)], models=MODELS)) as stage,
    ):
        client = stage.openai()
        turns: Any = [{"role": "developer", "content": "Be brief."}]
        for number in range(30):
            turns += [
                {"role": "user", "content": f"question {number} " + "word " * 20},
                {"role": "assistant", "content": f"answer {number}"},
            ]
        turns.append({"role": "user", "content": "the last question"})
        asked: Any = {"model": "small", "input": turns, "max_output_tokens": 8}
        response = await client.responses.create(**asked, truncation="auto")
        assert response.truncation == "auto"
        sent: Any = sim.books[-1].body
        assert isinstance(sent, dict)
        assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
        assert sent["messages"][-1]["content"] == "the last question"
        assert 3 < len(sent["messages"]) < len(turns)
        assert sim.books[-1].prompt_tokens <= 392
        assert sim.books[-1].prompt_tokens > 250, "no more than needed is left out"
        kept = await client.responses.input_items.list(response.id, limit=100)
        assert len(kept.data) == len(turns)
        after = await client.responses.create(
            model="small", input="more", previous_response_id=response.id, max_output_tokens=8, truncation="auto"
        )
        assert after.usage is not None
        assert after.usage.input_tokens <= 392
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**asked)
        assert caught.value.response.json()["error_type"] == "context_length_exceeded"
        short = await client.responses.create(model="small", input="Hi", truncation="auto", max_output_tokens=8)
        assert short.status in {"completed", "incomplete"}
