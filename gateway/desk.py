"""The desk: what requests are worked with, and the two questions that come before an answer.

*May it run?* asks the purse (``admitted``), and near the limit of a budget the engines as well. *Which replicas may
answer?* is what routing is asked (``route_request``), less the models that the key may not use (``permitted``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic

from msgspec import structs

from gateway.access.own_keys import OwnKeys
from gateway.access.principal import Principal
from gateway.access.purse import Leave, Purse
from gateway.metering.journal import Journal
from gateway.routing.admission.gate import Gate
from gateway.routing.decisions.recorder import Recorder
from gateway.routing.interface import Plan, RouteRequest
from gateway.routing.router import Router
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.traces import Tracer
from gateway.types.call import Call
from gateway.types.errors import BudgetNear, Forbidden, PaymentRequired
from gateway.types.reply import Reply
from gateway.upstream.backends import Upstream
from gateway.upstream.count import most


@dataclass(frozen=True, slots=True)
class Desk:
    """What requests are worked with: one per process, made by the composition root."""

    loop: asyncio.AbstractEventLoop
    router: Router
    upstream: Upstream
    journal: Journal
    purse: Purse
    gate: Gate
    tracer: Tracer
    metrics: GatewayMetrics
    recorder: Recorder
    own_keys: OwnKeys = field(default_factory=OwnKeys)


def route_request(call: Call, team: str, expected: int, arrived: float) -> RouteRequest:
    """Return what routing is asked; ``expected`` are the tokens that all answers will probably have."""
    now = monotonic()
    if call.max_tokens is not None and call.max_tokens * call.choices < expected:
        expected = call.max_tokens * call.choices  # a budget cut it short
    return RouteRequest(
        model_id=call.model,
        needs=call.needs,
        prompt_tokens=call.prompt_estimate,
        prompt_tokens_exact=False,
        max_tokens=call.max_tokens,
        choices=call.choices,
        expected_tokens=expected,
        stream=call.stream,
        team=team,
        preset=call.preset,
        now=now,
        prompt=call.body,
        session=call.session,
        preferences=call.preferences,
        slo_ttft=call.slo_ttft,
        slo_itl=call.slo_itl,
        priority=call.priority,
        waited=now - arrived,
        service_tier=call.service_tier,
    )


def permitted(plan: Plan, call: Call, principal: Principal, router: Router) -> Plan:
    """Return ``plan`` with the steps that lead to models the key may use. Raises ``Forbidden`` when none does."""
    if principal.models is None:
        return plan
    allowed = router.permitted(call, principal.models)
    steps = tuple(step for step in plan.steps if step.endpoint.model_id in allowed)
    if not steps:
        raise Forbidden(f"this key may not use the model {call.model[:128]!r}", param="model")
    return plan if len(steps) == len(plan.steps) else structs.replace(plan, steps=steps)


async def admitted(call: Call, principal: Principal, reply: Reply, desk: Desk, tokens: int) -> Leave:
    """Return leave to run ``call``; near the limit of a budget its engines are asked how long its prompt is."""
    try:
        return await _leave(call, principal, reply, desk, tokens)
    except BudgetNear:
        wanted = route_request(call, principal.team, 1, reply.arrived)
        plan = desk.router.plan(wanted, rule=principal.rule, may_use=principal.may_use)
        steps = permitted(plan, call, principal, desk.router).steps
        if {(step.endpoint.model_id, step.endpoint.slug) for step in steps} < desk.purse.reach(call):
            raise  # an endpoint that nobody can ask now may still answer
        call.counted = await most(desk.upstream, steps, call)
        if call.counted is None:
            raise
    return await _leave(call, principal, reply, desk, tokens)


async def _leave(call: Call, principal: Principal, reply: Reply, desk: Desk, tokens: int) -> Leave:
    """Return leave to run ``call``; with what the budget has left of a fee alone, for the team's own keys alone."""
    own = desk.own_keys
    if not own.providers(principal):
        return await desk.purse.admit(call, principal, reply.request_id, tokens)
    try:
        return await desk.purse.admit(
            call, principal, reply.request_id, tokens, lambda models: own.priced(models, principal, alone=False)
        )
    except PaymentRequired as error:
        try:
            leave = await desk.purse.admit(
                call, principal, reply.request_id, tokens, lambda models: own.priced(models, principal, alone=True)
            )
        except PaymentRequired:
            raise error from None
        return structs.replace(leave, alone=True)
