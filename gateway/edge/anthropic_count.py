"""``POST /v1/messages/count_tokens``: how many tokens a prompt has, as the backend counts it that would answer.

Authenticated and limited like any request, and no answer: nothing is journalled or charged. Where no backend says, an
estimate is given, and the header ``x-weir-token-count`` says ``estimated`` in place of ``exact``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.access.principal import Principal
from gateway.desk import Desk, permitted, route_request
from gateway.edge.anthropic_form import JSON, head_lines
from gateway.edge.anthropic_reply import MessagesReply
from gateway.upstream.count import Count, count

_TRIED: Final = 2
"""Backends that are asked before an estimate is given."""
_encode: Final = msgspec.json.Encoder().encode


class CountReply(MessagesReply):
    """The answer to a question of this kind; errors are those of messages."""

    __slots__ = ()

    def count(self, tokens: int, *, exact: bool) -> None:
        """Say how many there are."""
        self.tell({"input_tokens": tokens}, b"x-weir-token-count: %s\r\n" % (b"exact" if exact else b"estimated"))

    def tell(self, document: dict[str, Any], headers: bytes) -> None:
        """Send a whole answer."""
        self._exchange.respond(200, JSON + headers + head_lines(self._generation), _encode(document))


async def answer_count(call: Any, principal: Principal, reply: CountReply, desk: Desk) -> None:
    """Count the tokens of ``call``, in place of answering it.

    Raises:
        WeirError: the caller may not ask, or nobody could answer the request.
    """
    leave = None
    if desk.purse.applies(principal):
        leave = await desk.purse.admit(call, principal, reply.request_id, call.prompt_estimate)
    try:
        wanted = route_request(call, principal.team, 1, reply.arrived)
        plan = permitted(
            desk.router.plan(wanted, rule=principal.rule, may_use=principal.may_use), call, principal, desk.router
        )
        best = Count(call.prompt_estimate, exact=False)
        for step in plan.steps[:_TRIED]:
            found = await count(desk.upstream, step, call)
            if found is not None:
                best = found
            if best.exact:
                break
        reply.count(best.tokens, exact=best.exact)
    finally:
        if leave is not None:
            desk.purse.settle(leave, 0, (), 0)
