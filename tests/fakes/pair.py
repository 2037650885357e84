"""Two backends of which one is always tried first, and what came of a request to them."""

from __future__ import annotations

from typing import Final

import httpx

from tests.fakes.raw_client import events, text_of
from tests.harness import Backend, Stage, configuration

CHEAP: Final = 'price: {prompt: "0.01", completion: "0.01"}, cost: {prompt: "0.001", completion: "0.001"}'
"""What callers pay little for and costs the owner next to nothing."""
DEAR: Final = 'cost: {prompt: "0.05", completion: "0.20"}'
LIMITS: Final = "timeouts: {connect: 5, first_byte: 1.5, idle: 1.5}"


def pair(first: str, second: str, *, kind: str = "vllm", more: str = LIMITS) -> str:
    """Return a configuration in which ``first`` is always tried first: it is much cheaper."""
    model = "Qwen/Qwen3-32B"
    return configuration(
        [
            Backend("first", first, kind, model, "first", more, CHEAP),
            Backend("second", second, "vllm", model, "second", endpoint=DEAR),
        ],
        more="routing: {default: cheapest}",
    )


def said(answer: httpx.Response, *, stream: bool) -> str:
    """Return the text of a complete answer, after checking that it is one."""
    assert answer.status_code == 200, answer.text
    if not stream:
        choice = answer.json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        return str(choice["message"]["content"])
    found = events(answer.content)
    assert found.count("[DONE]") == 1
    assert found[-1] == "[DONE]"
    assert not any("error" in each for each in found[:-1])
    assert [choice["finish_reason"] for each in found[:-1] for choice in each["choices"]].count("stop") == 1
    return text_of(found)


async def attempts(stage: Stage, answer: httpx.Response) -> list[tuple[str, str, str | None]]:
    """Return provider, outcome and error of each attempt of an answer, from the ledger."""
    found = await stage.generation(answer.headers["x-generation-id"])
    return [(each["provider_name"], each["outcome"], each["error"]) for each in found["provider_responses"]]
