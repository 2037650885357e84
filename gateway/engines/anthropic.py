"""Anthropic's API: messages in, messages out; nothing is known of its load, and every request is billed.

Full is 429, with ``Retry-After`` as a rule, or 529 (``overloaded_error``). The key goes in a header of its own. Fields
are named as callers in the chat form name them; ``gateway.upstream.anthropic`` says what becomes of each.
"""

from __future__ import annotations

from typing import Final

from gateway.engines.fields import SET_FIELDS
from gateway.engines.kind import Engine, MetricNames
from gateway.types.call import Operation
from gateway.types.dialect import Dialect

_CHAT_FIELDS: Final = SET_FIELDS | {
    "cache_control",
    "include_reasoning",
    "messages",
    "metadata",
    "parallel_tool_calls",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "service_tier",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "user",
    "verbosity",
}

ANTHROPIC: Final = Engine(
    kind="anthropic",
    ready_path=None,
    models_path="/v1/models?limit=1000",
    metrics_path=None,
    metrics=MetricNames(),
    paths={Operation.CHAT: "/v1/messages"},
    overload_statuses=frozenset({429, 529}),
    asks_usage=False,
    continuous_usage=False,
    always_stream=False,
    delta_is_token=False,
    counts_all_choices=True,
    length_field="max_tokens",
    fields={Operation.CHAT: _CHAT_FIELDS},
    passes_unknown=False,
    context_error=("prompt is too long", "context window", "exceed context limit"),
    external=True,
    speaks=Dialect.MESSAGES,
    key_line="x-api-key: %s\r\n",
    fixed_lines="anthropic-version: 2023-06-01\r\n",
    counter="messages",
)
