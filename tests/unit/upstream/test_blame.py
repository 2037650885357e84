"""What an error's body says against its status, where a backend need not be run to see it."""

from __future__ import annotations

import pytest

from gateway.engines.profiles import engine_of
from gateway.types.call import Operation
from gateway.upstream.blame import Refusal, refusal


def judged(status: int, code: str) -> Refusal | None:
    """Return what an error of ``status`` with ``code`` refuses of a chat."""
    document = {"error": {"code": code, "message": "it says so"}}
    return refusal(engine_of("openai", ""), Operation.CHAT, status, document, "it says so")


@pytest.mark.parametrize(("status", "told"), [(200, 403), (302, 403), (400, 400), (451, 451), (500, 403), (503, 403)])
def test_callers_are_told_a_status_of_theirs(status: int, told: int) -> None:
    """What moderation refused is 4xx, whatever status the verdict came under."""
    found = judged(status, "content_filter")
    assert found is not None
    assert (found.status, found.kind) == (told, "content_policy_violation")


@pytest.mark.parametrize("code", ["content_filter_timeout", "ContentFilterUnavailable", "moderation_blocked_failure"])
def test_moderation_that_did_not_judge_is_the_providers_fault(code: str) -> None:
    """The request may be in order: another replica is asked, and the failure counts."""
    assert judged(503, code) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("This request requires fewer max_tokens. You requested up to 9000 tokens, but can only afford 1000.", 413),
        ("Prompt tokens limit exceeded: 230799 > 91442. To increase, visit https://openrouter.ai/settings/keys", 413),
        ("You requested up to 32000 tokens, but can only afford 12.", None),
        ("You requested up to 32000 tokens, but can only afford 0.", None),
        ("Insufficient credits. Add more using https://openrouter.ai/settings/credits", None),
    ],
)  # fmt: skip
def test_a_request_that_costs_more_than_is_left_leaves_the_key_to_smaller_ones(words: str, told: int | None) -> None:
    """Unless hardly anything is left, which is the owner's matter."""
    found = refusal(engine_of("openai", ""), Operation.CHAT, 402, {"error": {"message": words, "code": 402}}, words)
    assert (found.status if found else None) == told
    assert found is None or "openrouter" not in found.message
