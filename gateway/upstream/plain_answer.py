"""Whole chat answers that need no mending but the loss of their nulls: nearly all that engines give.

Such an answer is decoded, checked and freed of nulls by declared types, with no look at each member. ``plain_answer``
returns None for every other one, which ``gateway.upstream.openai.mend_answer`` then brings into the same form; a member
that is not declared here, or has another type, makes it another one. Nothing here raises.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType, to_builtins

from gateway.upstream.openai import FINISH_REASONS, UNREADABLE


class _Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What the engine said; ``refusal`` may be null, and no tool is called."""

    role: str
    content: str | None
    refusal: str | UnsetType | None = UNSET
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    function_call: None = None
    tool_calls: tuple[()] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One choice, without probabilities."""

    index: int
    message: _Message
    logprobs: None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    matched_stop: str | int | None = None
    token_ids: None = None


class _Answer(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A whole answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[_Choice]
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: dict[str, Any] | None = None
    error: None = None
    prompt_logprobs: None = None
    prompt_token_ids: None = None
    kv_transfer_params: None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def plain_answer(payload: bytes) -> dict[str, Any] | None:
    """Return the canonical form of the answer in ``payload``, or None when it is not a plain one."""
    try:
        read = _decode(payload)
        for choice in read.choices:
            choice.message.tool_calls = None  # an empty list
        answer: dict[str, Any] = to_builtins(read)
    except UNREADABLE:
        return None
    choices = answer["choices"]
    if not choices:
        return None
    answer.setdefault("system_fingerprint", None)
    for choice in choices:
        choice["logprobs"] = None
        reason = choice.setdefault("finish_reason", None)
        if reason is not None:
            choice["finish_reason"] = FINISH_REASONS.get(reason, reason)
            choice["native_finish_reason"] = reason
    return answer
