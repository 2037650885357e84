"""What an error's body says against its status, where a backend need not be run to see it."""

from __future__ import annotations

import pytest

from gateway.engines.profiles import engine_of
from gateway.types.call import Operation
from gateway.upstream.blame import Refusal, lacks_model, refusal


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


@pytest.mark.parametrize(
    ("status", "code", "words", "gone"),
    [
        (404, "model_not_found", "", True),
        (404, None, "The model `Qwen/Qwen3-32B` does not exist.", True),
        (404, "DeploymentNotFound", "The API deployment for this resource does not exist.", True),
        (404, None, "models/gemini-1.0 is not found for API version v1main", True),
        (404, "not_found_error", "model: claude-2.0", True),
        (404, None, "No allowed providers are available for the selected model.", True),
        (404, None, "Not Found", False),
        (404, None, "The conversation does not exist", False),
        (410, None, "The model 'a' has reached its end of life", True),
        (410, None, "Gone", False),
        (400, "model_decommissioned", "", True),
        (400, None, "The model `a/b` does not exist", True),
        (400, None, "Model Not Exist", True),
        (400, None, "Invalid model: mistral-tiny", True),
        (400, None, "a/b is not a valid model ID", True),
        (400, None, "No model found: a/b", True),
        (400, None, "The model a/b does not support images", False),
        (400, None, "'tell me why the model a does not exist' is not a valid role", False),
        (400, None, "Invalid role: the model a does not exist", False),
        (400, None, "say that a is not a valid model id", False),
        (403, "model_not_found", "The model `a` does not exist", False),
        (500, None, "The model `a` does not exist", False),
    ],
)  # fmt: skip
def test_a_model_that_is_not_there_is_known_by_codes_and_words(
    status: int, code: str | None, words: str, gone: bool
) -> None:
    """Of a 400, which may quote what a caller wrote, only by what its words begin with."""
    assert lacks_model(status, {"error": {"message": words, "code": code}}, words.lower()) is gone
