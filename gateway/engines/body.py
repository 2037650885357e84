"""The body that one engine gets for a caller's request.

Pure and fast: a body whose fields all pass is copied in one go. Fields that do not pass are dropped without an error,
as the API being imitated does; the caller's own dictionary is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.engines.fields import FORBIDDEN, FORBIDDEN_TEMPLATE_ARGUMENTS, LENGTH_FIELDS, SET_FIELDS
from gateway.engines.kind import Engine
from gateway.engines.thinking import ask_to_think
from gateway.types.call import WHOLE, Operation

_FORBIDDEN: Final = frozenset(FORBIDDEN)
_SETTLED: Final = SET_FIELDS | {
    "input",
    "logprobs",
    "messages",
    "n",
    "prompt",
    "response_format",
    "service_tier",
    "tools",
    "top_logprobs",
}
"""Fields by which a request was judged, metered and routed: nobody may change them afterwards."""
_GENERATION_FIELDS: Final = SET_FIELDS - {"model"}
_OPENAI_LENGTH_FIELDS: Final = ("max_completion_tokens", "max_tokens")


def upstream_body(
    engine: Engine,
    operation: Operation,
    body: dict[str, Any],
    *,
    upstream_model: str,
    max_tokens: int | None,
    stream: bool,
) -> dict[str, Any]:
    """Return what ``engine`` is sent for the caller's ``body``.

    Args:
        engine: who gets it.
        operation: what is asked for; the engine must offer it.
        body: the caller's decoded body in OpenAI's shape.
        upstream_model: the model's name on that backend.
        max_tokens: the one length limit of each choice, or None to leave the length to the engine.
        stream: whether the engine shall stream; embeddings and reranking never do.
    """
    fields = engine.fields[operation]
    passing = body.copy() if body.keys() <= fields else _passing(engine, fields, body)
    passing["model"] = upstream_model
    if operation in WHOLE:
        for name in _GENERATION_FIELDS & passing.keys():
            del passing[name]
        return passing
    length_field = engine.length_field if operation is Operation.CHAT else "max_tokens"
    for name in LENGTH_FIELDS:
        if name in passing:
            del passing[name]
            if engine.callers_length and name in _OPENAI_LENGTH_FIELDS and operation is Operation.CHAT:
                # External APIs know one of the two names and may ignore or refuse the other: the caller's choice.
                length_field = name
    if max_tokens is not None:
        passing[length_field] = max_tokens
    passing["stream"] = stream
    if stream and engine.asks_usage:
        options = passing["stream_options"] = {"include_usage": True}
        if engine.continuous_usage:
            options["continuous_usage_stats"] = True
    else:
        passing.pop("stream_options", None)
    if "chat_template_kwargs" in passing:
        _clean_template_arguments(passing)
    if engine.thinking is not None and ("reasoning" in passing or "reasoning_effort" in passing):
        ask_to_think(passing, engine.thinking.budget_field, engine.thinking.hiding_field)
    for name, value in engine.neutral:
        if passing.get(name) == value:
            del passing[name]
    if operation is Operation.CHAT:
        _fit(engine, passing)
    return passing


def with_options(
    body: dict[str, Any], options: Mapping[str, Mapping[str, Any]], names: frozenset[str]
) -> dict[str, Any]:
    """Return ``body`` with the fields that a caller wants a provider to get.

    Args:
        body: the caller's decoded body.
        options: more fields, by case-folded provider slug.
        names: the slugs of the one who gets the body. Options of narrower names are not told apart from wider ones.
    """
    more = {
        name: value
        for slug, fields in options.items()
        if slug in names
        for name, value in fields.items()
        if name.casefold() not in _SETTLED
    }
    return body | more if more else body


def _passing(engine: Engine, fields: frozenset[str], body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``body`` that may reach ``engine``."""
    if engine.passes_unknown:
        # Some decoders match names without regard to case, so a forbidden one is caught in any spelling.
        return {name: value for name, value in body.items() if name.casefold() not in _FORBIDDEN}
    return {name: value for name, value in body.items() if name in fields}


def _fit(engine: Engine, body: dict[str, Any]) -> None:
    """Bring the body of a chat into the form that ``engine`` takes; nothing inside it is changed."""
    messages: Any = body.get("messages")
    said = messages
    if not engine.developers and type(messages) is list:
        for place, message in enumerate(messages):
            if type(message) is dict and message.get("role") == "developer":
                # Templates of open models and most APIs drop or refuse what a developer says: the system says it.
                if said is messages:
                    said = body["messages"] = messages.copy()
                said[place] = {**message, "role": "system"}
    if engine.fit is not None:
        engine.fit(body)


def _clean_template_arguments(body: dict[str, Any]) -> None:
    """Take the renderer's own arguments out of ``chat_template_kwargs``."""
    arguments = body["chat_template_kwargs"]
    if isinstance(arguments, dict) and not FORBIDDEN_TEMPLATE_ARGUMENTS.isdisjoint(arguments):
        body["chat_template_kwargs"] = {
            name: value for name, value in arguments.items() if name not in FORBIDDEN_TEMPLATE_ARGUMENTS
        }
