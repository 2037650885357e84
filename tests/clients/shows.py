"""What each test shows: an endpoint, a feature of it, and the client. The compatibility page is made of it."""

from __future__ import annotations

from typing import Final

import pytest

OPENAI: Final = "openai (Python)"
ANTHROPIC: Final = "anthropic (Python)"
OPENROUTER: Final = "openrouter (Python)"
OPENAI_JS: Final = "openai (Node)"
OPENROUTER_JS: Final = "@openrouter/sdk (Node)"
AI_SDK: Final = "@openrouter/ai-sdk-provider (Node)"
CLIENTS: Final = (OPENAI, ANTHROPIC, OPENROUTER, OPENAI_JS, OPENROUTER_JS, AI_SDK)

SHOWN: Final = pytest.StashKey[dict[tuple[str, str, str], str]]()
"""What the tests that were collected show: client, endpoint, feature."""
WHOLE: Final = pytest.StashKey[bool]()
"""Whether all tests of this folder were collected."""

CHAT: Final = "POST /chat/completions"
COMPLETIONS: Final = "POST /completions"
EMBEDDINGS: Final = "POST /embeddings"
RERANK: Final = "POST /rerank"
RESPONSES: Final = "POST /responses"
MESSAGES: Final = "POST /messages"
COUNT_TOKENS: Final = "POST /messages/count_tokens"


def shows(client: str, endpoint: str, what: str) -> pytest.MarkDecorator:
    """Mark a test as the one that shows that ``client`` gets ``what`` from ``endpoint``; the first line says it all."""
    return pytest.mark.shows(client, endpoint, what)
