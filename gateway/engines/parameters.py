"""Request parameters by their names in the catalogue: which ones an engine takes, which ones a request uses.

The names are OpenRouter's ``supported_parameters``. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.engines.kind import Engine
from gateway.types.call import Operation

_ALIASES: Final[Mapping[str, str]] = {
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "functions": "tools",
    "function_call": "tool_choice",
}
TOOLS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
STRUCTURED: Final = frozenset({"response_format", "structured_outputs"})
LOGPROBS: Final = frozenset({"logprobs", "top_logprobs"})
PARAMETERS: Final = (
    frozenset(
        {
            "frequency_penalty",
            "include_reasoning",
            "logit_bias",
            "max_tokens",
            "min_p",
            "prediction",
            "presence_penalty",
            "reasoning",
            "reasoning_effort",
            "repetition_penalty",
            "seed",
            "stop",
            "temperature",
            "top_a",
            "top_k",
            "top_p",
            "verbosity",
            "web_search_options",
        }
    )
    | TOOLS
    | STRUCTURED
    | LOGPROBS
)
"""Every name there is."""
SOFT: Final = frozenset({"response_format", "tools", "verbosity"})
"""What is preferred even when it is not required: endpoints that support it, as long as there is one."""


def supported(engine: Engine, *, tools: bool, json_schema: bool, logprobs: bool) -> frozenset[str]:
    """Return the parameters that ``engine`` takes for a model with these capabilities."""
    fields = engine.fields.get(Operation.CHAT, frozenset())
    found = PARAMETERS & fields
    if "response_format" in fields and json_schema:
        found |= {"structured_outputs"}
    if not tools:
        found -= TOOLS
    if not json_schema:
        found -= STRUCTURED
    return found if logprobs else found - LOGPROBS


def used(body: Mapping[str, Any]) -> frozenset[str]:
    """Return the parameters that the request ``body`` gives a value."""
    names = {_ALIASES.get(name, name) for name, value in body.items() if value is not None and value != []}
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        names.add("structured_outputs")
    return PARAMETERS & names
