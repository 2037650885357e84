"""The service tier that an engine says it served: what it means for the charge, the cost and the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import DONE, SSE_HEAD, Visit, chunk, event, hand_backend, usage_chunk, whole
from tests.harness import Backend, configuration, staged
from tests.integration.tariff.test_requests import query

MODELS = """
  - id: qwen/qwen3-32b
    context_length: 40960
    price:
      prompt: "1"
      completion: "2"
      service_tiers: {flex: {prompt: "0.5", completion: "1"}, priority: {prompt: "10", completion: "20"}}
    endpoints:
      - backend: acme
        model: big-1
        cost: {prompt: "1", completion: "1", service_tiers: {priority: {prompt: "3", completion: "3"}}}
"""
PROMPT, COMPLETION = 7, 10
PAID = {"flex": 13_500, "default": 27_000, "priority": 270_000}
"""Nano-USD for 7 and 10 tokens at each tier."""


async def said(visit: Visit) -> None:
    """Answer at the tier that the message names; streamed it comes with each chunk, as OpenAI's does."""
    document = visit.document
    content = document["messages"][0]["content"]
    tier: Any = content if isinstance(content, str) else content[0]["text"]
    if tier.startswith("usage:"):
        answer = whole(completion=COMPLETION)
        await visit.answer({**answer, "usage": answer["usage"] | {"service_tier": tier.removeprefix("usage:")}})
    elif document.get("stream"):
        await visit.send(SSE_HEAD)
        chunks = [chunk("hello"), chunk(finish="stop"), usage_chunk(COMPLETION)]
        await visit.events(*(event(each | {"service_tier": tier}) for each in chunks), DONE, last=True)
    else:
        await visit.answer(whole(completion=COMPLETION) | {"service_tier": tier})


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tier_served_is_charged_unless_it_is_dearer(tmp_path: Path, stream: bool) -> None:
    """A tier that was worse than asked for is charged as what it was; one that was better costs the caller no more."""
    cases = [
        # asked for, served, charged, owner's cost per token in nano-USD
        ("priority", "priority", "priority", 3_000),
        ("priority", "default", "default", 1_000),
        ("priority", "standard", "default", 1_000),
        ("priority", "flex", "flex", 1_000),
        ("flex", "default", "flex", 1_000),
        (None, "priority", "default", 3_000),
        (None, "flex", "flex", 1_000),
        ("priority", "scale", "priority", 3_000),
        ("auto", "default", "default", 1_000),
    ]
    if not stream:
        cases.append(("priority", "usage:standard", "default", 1_000))
    async with hand_backend(said) as backend:
        config = configuration([Backend("acme", backend.url, "openai", "big-1")], models=MODELS)
        async with staged(tmp_path, config) as stage:
            for asked, served, charged, _ in cases:
                body: dict[str, Any] = {"messages": [{"role": "user", "content": served}]}
                if asked is not None:
                    body["service_tier"] = asked
                if stream:
                    body |= {"stream": True, "stream_options": {"include_usage": True}}
                answer = await stage.chat(**body)
                assert f'"cost":{PAID[charged] / 1e9:f}'.rstrip("0") in answer.text, (asked, served)
            await stage.settled(len(cases))
            rows = query(
                stage.home,
                "SELECT tier, charge_nano, cost_nano FROM ledger JOIN label_set USING (label_id) ORDER BY request_id",
            )
            wanted = [(charged, PAID[charged], (PROMPT + COMPLETION) * cost) for _, _, charged, cost in cases]
            assert rows == wanted
            assert (await stage.keeper.audit()).ok
