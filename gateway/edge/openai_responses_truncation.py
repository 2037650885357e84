"""``truncation: auto``: the oldest of a conversation is left out when it is known not to fit.

What fits is for the engine's own tokenizer to say (``gateway.upstream.count``): where nobody counts exactly, nothing is
left out, and the engine refuses what is too long. Instructions, system and developer messages and everything from the
last user message on stay, a call stays or goes with its output, and what is kept of the conversation stays whole. A
backend that speaks Responses itself leaves out what it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gateway.access.principal import Principal
from gateway.desk import Desk, permitted, route_request
from gateway.edge.openai_responses import ResponsesCall
from gateway.types.dialect import Dialect
from gateway.types.errors import WeirError
from gateway.upstream.count import count

ROUNDS: Final = 4
"""Counts at most; each but the first after something more was left out."""
USUAL_ROOM: Final = 1024
"""Tokens of an answer whose length nobody said, at most an eighth of the context."""
_OVERHEAD: Final = 4
"""Tokens of a chat template around an item, at most about."""
_CALLS: Final = ("function_call", "function_call_output")
_encode: Final = msgspec.json.Encoder().encode
Build = Callable[[list[dict[str, Any]]], ResponsesCall]


async def fitted(
    call: ResponsesCall, items: list[dict[str, Any]], build: Build, principal: Principal, desk: Desk
) -> ResponsesCall:
    """Return ``call``, or one of fewer ``items`` that fits.

    Args:
        call: what is asked, with ``truncation: auto``.
        items: all of its input, the past first.
        build: makes the call of fewer items.
        principal: who asks.
        desk: of this process.
    """
    try:
        plan = desk.router.plan(
            route_request(call, principal.team, 1, 0.0), rule=principal.rule, may_use=principal.may_use
        )
        steps = permitted(plan, call, principal, desk.router).steps
    except WeirError:
        return call  # whoever answers it says so
    step = steps[0]
    if call.unsaid or Dialect.RESPONSES in step.replica.backend.dialects:
        return call
    context = min(each.endpoint.context_length for each in steps)
    room = context - (call.max_tokens or min(USUAL_ROOM, context // 8))
    if call.input_bytes + _OVERHEAD * len(items) <= room:
        return call
    kept, found = items, call
    for _ in range(ROUNDS):
        counted = await count(desk.upstream, step, found)
        if counted is None or not counted.exact or counted.tokens <= room:
            break
        fewer = without_oldest(kept, (counted.tokens - room) / counted.tokens)
        if len(fewer) == len(kept):
            break
        kept, found = fewer, build(fewer)
    found.items = call.items
    return found


def without_oldest(items: Sequence[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """Return ``items`` without the oldest that may go, about ``share`` of their bytes, and at least one if any may."""
    last = max((place for place, item in enumerate(items) if item.get("role") == "user"), default=len(items) - 1)
    needed = {item.get("call_id") for item in items[last:] if item.get("type") in _CALLS}
    excess = share * sum(len(_encode(item)) for item in items)
    gone: set[int] = set()
    calls: set[Any] = set()
    for place, item in enumerate(items[:last]):
        if excess <= 0:
            break
        identity = item.get("call_id") if item.get("type") in _CALLS else None
        if item.get("role") in ("system", "developer") or (identity is not None and identity in needed):
            continue
        gone.add(place)
        calls.add(identity)
        excess -= len(_encode(item))
    calls.discard(None)
    return [
        item
        for place, item in enumerate(items)
        if place not in gone and not (item.get("type") in _CALLS and item.get("call_id") in calls)
    ]
