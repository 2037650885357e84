"""Calibrating a backend whose model thinks, and whose stream ends its lines in its own way."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.console.calibrating import FEWEST, measure
from gateway.fleet.egress import EgressGuard
from tests.fakes.backend import LAST, SSE_HEAD, Visit, hand_backend
from tests.harness import Backend, configuration, staged


async def test_thoughts_are_tokens_however_lines_end(tmp_path: Path) -> None:
    """A model that does nothing but think in the few tokens it is given is measured by its thoughts."""

    async def script(visit: Visit) -> None:
        deltas = [{"reasoning_content": f"t{number}"} for number in range(4)]
        events: list[dict[str, object]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        events.append({"choices": [], "usage": {"prompt_tokens": 77, "completion_tokens": 4}})
        data = b"".join(b"data:" + json.dumps(each).encode() + b"\r\n\r\n" for each in events) + b"data: [DONE]\r"
        await visit.send(SSE_HEAD)
        for at in range(0, len(data), 50):
            await visit.events(data[at : at + 50])
        await visit.send(LAST)

    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "vllm")])) as stage,
    ):
        (candidate,) = stage.gateway.registry.fleet.models["qwen/qwen3-32b"].candidates
        measured = await measure(candidate, EgressGuard(stage.gateway.snapshot.egress))
    assert len(measured.samples) >= FEWEST
    assert {sample.tokens for sample in measured.samples} == {77}
