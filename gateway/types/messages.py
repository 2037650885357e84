"""Words of Anthropic's messages that both translators need: callers who speak it, and APIs that do.

Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.types.nesting import MAX_DEPTH, too_deep

FINISH_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Why an answer ended, from Anthropic's words to those of the chat form."""
STOP_REASONS: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""The same the other way round."""
REASONING_FORMAT: Final = "anthropic-claude-v1"
"""``format`` of reasoning details that hold Anthropic's signatures and encrypted thoughts."""
INVALID_JSON: Final = "INVALID_JSON"
"""Member that holds the arguments of a tool call that are no JSON object: a tool's ``input`` must be one."""
EFFORTS: Final[Mapping[str, float]] = {
    "max": 0.95,
    "xhigh": 0.95,
    "high": 0.8,
    "medium": 0.5,
    "low": 0.2,
    "minimal": 0.1,
}
"""Share of an answer's length that may be spent on thinking, by effort, as OpenRouter has it."""
LEAST_BUDGET: Final = 1024
"""Tokens of the smallest thinking budget there is."""
_decode: Final = msgspec.json.Decoder().decode


def input_of(arguments: str) -> dict[str, Any]:
    """Return a tool call's arguments as the object they are.

    What is none, or is nested too deeply to be written again, is kept under ``INVALID_JSON``.
    """
    if not arguments.strip():
        return {}
    try:
        value = _decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        value = None
    deep = arguments.count("{") + arguments.count("[") > MAX_DEPTH
    good = isinstance(value, dict) and not (deep and too_deep(value))
    return value if good else {INVALID_JSON: arguments}
