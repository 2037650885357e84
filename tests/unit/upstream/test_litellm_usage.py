"""What the library litellm says of tokens reaches the meter."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.metering.tap import usage_of
from gateway.types.tokens import Usage
from gateway.upstream.litellm import _plain

DETAILS = {"cached_tokens": 11, "cache_creation_tokens": 7}
KEPT = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}


class Answer:
    """An answer of the library, as far as it is looked at."""

    def __init__(self, **usage: Any) -> None:
        self._usage = {"prompt_tokens": 23, "completion_tokens": 13, **usage}

    def model_dump(self, *, exclude_none: bool) -> dict[str, Any]:
        """Return it as a document."""
        assert exclude_none
        return {"choices": [], "usage": self._usage}


@pytest.mark.parametrize(
    ("usage", "written"),
    [
        ({"prompt_tokens_details": DETAILS}, {"cache_write": 7}),
        (
            {"prompt_tokens_details": DETAILS | {"cache_creation_token_details": KEPT}},
            {"cache_write": 7, "cache_write_1h": 4},
        ),
        (
            {"prompt_tokens_details": {"cached_tokens": 11}, "cache_creation_input_tokens": 6},
            {"cache_write": 6},
        ),
        ({"prompt_tokens_details": {"cached_tokens": 11}}, {}),
    ],
    ids=["together", "by-time", "at-top", "none"],
)
def test_tokens_written_to_a_cache_are_counted(usage: dict[str, Any], written: dict[str, int]) -> None:
    """As the library names them for Anthropic's models, there and on Bedrock: all of them, and those for an hour."""
    assert usage_of(_plain(Answer(**usage))["usage"]) == Usage(23, 13, cache_read=11, **written)
