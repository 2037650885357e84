"""The main path: a real client is routed, answered by a simulated engine, and metered."""

from __future__ import annotations

from pathlib import Path

from gateway.sim import SimConfig, SimFleet
from tests.harness import configuration, over, staged


async def test_a_chat_answer_is_metered_as_the_engine_counts_it(tmp_path: Path) -> None:
    """The official client gets an answer; ledger, usage and engine agree on its tokens and its cost."""
    async with SimFleet([SimConfig(name="gpu-a"), SimConfig(name="gpu-b")]) as fleet:
        async with staged(tmp_path, configuration(over(*fleet))) as stage:
            answer = await stage.openai().chat.completions.create(
                model="qwen/qwen3-32b", messages=[{"role": "user", "content": "Tell me about weirs."}]
            )
            assert answer.usage is not None
            found = await stage.generation(answer.id)
            entries = [entry for sim in fleet for entry in sim.books.entries]
            assert len(entries) == 1
            assert found["tokens_prompt"] == answer.usage.prompt_tokens == entries[0].prompt_tokens
            assert found["tokens_completion"] == answer.usage.completion_tokens == entries[0].completion_tokens
            cost = (entries[0].prompt_tokens * 100 + entries[0].completion_tokens * 300) / 1e9
            assert answer.usage.model_dump()["cost"] == found["total_cost"] == cost
