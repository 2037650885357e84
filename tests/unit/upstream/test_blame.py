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
