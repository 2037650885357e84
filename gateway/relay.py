"""THE story of a request: admit, queue, plan, attempt, stream, settle.

``relay`` is told top to bottom and does nothing itself: every stop is one call into the part that owns it. Whatever
happens, the way out closes the upstream, writes the end of every opened attempt to the journal, and frees what the
request held. A caller sees the end of an answer only after its CLOSE record is durable.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from msgspec import structs

from gateway.access.own_keys import OwnKeys
from gateway.access.principal import Principal
from gateway.access.purse import Leave, Purse
from gateway.fleet.snapshot import Endpoint
from gateway.metering.journal import Journal
from gateway.metering.meter import Meter
from gateway.metering.receipt import Receipt
from gateway.metering.record import Status
from gateway.metering.tap import Tap
from gateway.routing.admission.gate import CallerLeft, Gate
from gateway.routing.admission.ticket import State, Ticket
from gateway.routing.decisions.recorder import Note, Recorder
from gateway.routing.explain import header
from gateway.routing.interface import Plan, RouteRequest
from gateway.routing.metadata import router_metadata
from gateway.routing.router import Router
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.traces import RequestTrace, Stop, Tracer
from gateway.types.call import Call
from gateway.types.errors import BudgetNear, Forbidden, PaymentRequired, Unavailable, UpstreamFailed, WeirError
from gateway.types.failure import Cause, Failure
from gateway.types.reply import Bill, Reply
from gateway.upstream.attempts import Walk
from gateway.upstream.backends import Upstream
from gateway.upstream.continuation import Continuation
from gateway.upstream.count import most
from gateway.upstream.fold import Folder, unfold
from gateway.upstream.wire import AttemptFailed

CUT: Final = Failure(Cause.CUT, "the backend ended its answer before it was finished", 200)
FAILED: Final = Failure(Cause.ERROR, "the engine ended its answer with an error", 200)
_LATE: Final = frozenset({Cause.CUT, Cause.IDLE})
"""What does no harm once every choice is finished: nothing but the end of the stream was still to come."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the relay works with: one per process, made by the composition root."""

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


async def relay(call: Call, principal: Principal, reply: Reply, desk: Desk) -> None:
    """Answer one request.

    Raises:
        WeirError: the caller is to be told; ``reply`` has not been failed yet.
    """
    loop = desk.loop
    trace = desk.tracer.start(call.traceparent, call.operation, call.model, call.tracestate)
    meter = Meter(
        desk.journal,
        loop,
        reply.request_id,
        call,
        team=principal.team,
        key_id=principal.key_id,
        arrived=reply.arrived,
    )
    expected = desk.router.expectations.tokens(call.model, principal.team, call.max_tokens) * call.choices
    plan: Plan | None = None
    wanted: RouteRequest | None = None
    note: Note | None = None
    walk: Walk | None = None
    receipt: Receipt | None = None
    ticket: Ticket | None = None
    refused, cut = "", "server"
    leave: Leave | None = None
    try:
        # Admit: leave under limits and budgets, or an answer that says when.
        trace.stop(Stop.ADMIT)
        if desk.purse.applies(principal):
            leave = await _admit(call, principal, reply, desk, call.prompt_estimate + expected)
            meter.reserved = leave.reserved

        # Queue: go on at once while there is room; else wait for a fair turn, or be told when to come back.
        ticket = desk.gate.enter(call, principal.team, expected)
        if ticket is not None and ticket.state is State.QUEUED:
            trace.stop(Stop.QUEUE)
            await desk.gate.turn(ticket, reply)

        # Plan: which replicas may answer, in which order, and why.
        trace.stop(Stop.ROUTE)
        started = time.perf_counter()
        wanted = route_request(call, principal.team, expected, reply.arrived)
        if desk.own_keys.active:
            wanted.own = desk.own_keys.providers(principal)
        plan = desk.router.plan(wanted, rule=principal.rule)
        desk.metrics.route_seconds.observe((), time.perf_counter() - started)
        for drop in plan.drops:
            desk.metrics.route_drops.add((drop.filter,))
        plan = permitted(plan, call, principal, desk.router)
        steps = plan.steps
        if wanted.own:
            steps = desk.own_keys.arranged(steps, principal, alone=leave is not None and leave.alone)
        note = desk.recorder.note(wanted, plan)
        reply.route(route := header(plan))
        trace.routed(route, kept=note is not None)

        # Attempt: down the plan until one begins to answer; from here on the caller's connection steers.
        trace.stop(Stop.ATTEMPT)
        walk = Walk(desk.upstream, call, steps, meter, trace, reply.request_id, wanted.work())
        reply.steer(walk)
        continuation = Continuation(walk, call, meter, reply.send, desk.metrics)
        attempt = await walk.begin()

        # Stream: chunks go through the meter to the caller in the loop step in which they arrive.
        trace.stop(Stop.STREAM)
        while True:
            endpoint = walk.candidate.endpoint
            if walk.candidate is not plan.steps[0]:
                reply.route(header(plan, walk.candidate))
            folder: Folder | None = None
            if attempt.answer is not None:
                meter.answered(attempt.answer)
            elif call.stream:
                if not continuation.attached:
                    reply.begin(endpoint.model_id, endpoint.provider)
                continuation.attach(attempt, meter.to(continuation.send))
            else:
                folder = Folder(call.operation)
                attempt.attach(meter.to(folder.feed))
            failure = _verdict(await walk.finish(attempt), meter.tap)
            walk.judge(failure)
            # When it broke: another replica may begin anew if the caller has seen nothing, or go on from what it has.
            if (following := await continuation.follow(attempt, failure)) is None:
                failure = _verdict(failure, meter.tap)
                break
            attempt = following

        # Settle: price it, write CLOSE, and wait for the disk before the caller sees the end.
        trace.stop(Stop.SETTLE)
        receipt = meter.settle(
            gone=reply.gone,
            failed=failure is not None and failure.cause is not Cause.ABORTED,
            http_status=attempt.status,
            upstream_id=attempt.upstream_id,
            error=failure.cause.value if failure is not None else "",
            again=continuation.again,
        )
        _count(desk.metrics, call, endpoint, receipt)
        walk.settled(receipt.usage)
        if failure is None and not reply.gone:
            desk.router.expectations.answered(call.model, principal.team, receipt.usage.completion // call.choices)
            took = attempt.began_at - walk.sent_at, attempt.ended_at - walk.sent_at
            endpoint.track.answered(*took, 0 if receipt.replayed else receipt.usage.completion, attempt.ended_at)
        if meter.tap.disagrees:
            desk.metrics.usage_disagreements.add((walk.candidate.replica.name,))
        if reply.gone:
            return
        await desk.journal.commit()

        # Done: the last bytes, or an honest error.
        if failure is not None:
            raise _error(failure)
        bill = _bill(receipt, continuation.count, byok=walk.candidate.key is not None)
        if call.explains:
            reply.explain(router_metadata(call, plan, walk.failures, walk.candidate))
        if attempt.answer is not None and not call.stream:
            reply.answer(attempt.answer, endpoint.model_id, endpoint.provider, bill)
        elif folder is not None:
            folder.feed(meter.held)
            reply.answer(folder.answer(), endpoint.model_id, endpoint.provider, bill)
        elif attempt.answer is not None:
            reply.begin(endpoint.model_id, endpoint.provider)
            reply.finish(unfold(attempt.answer, call.operation), bill)
        else:
            reply.finish(meter.held, bill)
        endpoint.track.called(reply.calls_sound, attempt.ended_at)
        desk.metrics.overhead.observe((), walk.sent_at - reply.arrived + monotonic() - attempt.ended_at)
    except WeirError as error:
        refused = cut = error.kind
        if call.explains:
            reply.explain(router_metadata(call, plan, walk.failures if walk is not None else (), None))
        raise
    except (AttemptFailed, CallerLeft):
        return  # the caller left before an answer began; the walk, if there was one, has told the meter
    except asyncio.CancelledError:
        refused, cut = Unavailable.error_type, "shutdown"
        raise
    finally:
        if walk is not None:
            walk.close()
        receipt = _abandon(meter, walk, desk.metrics, "" if reply.gone else cut) or receipt
        if note is not None or (walk is not None and walk.tried):
            _keep(desk.recorder, note, call, reply, wanted, plan, walk, receipt)
        desk.gate.leave(ticket, receipt.usage if receipt is not None else None)
        if leave is not None:
            desk.purse.settle(leave, receipt.usage.total if receipt is not None else 0, meter.paid, meter.excess)
        _trace_end(trace, refused or ("client_cancel" if reply.gone else "server"), reply, walk, meter, receipt)


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


def _keep(
    recorder: Recorder,
    note: Note | None,
    call: Call,
    reply: Reply,
    wanted: RouteRequest | None,
    plan: Plan | None,
    walk: Walk | None,
    receipt: Receipt | None,
) -> None:
    """Keep the decision with what came of it, as far as it came."""
    if wanted is None or plan is None:
        return
    tried = walk.tried if walk is not None else ()
    served = walk.candidate if walk is not None and receipt is not None else None
    recorder.keep(note, reply.request_id, call.model, wanted, plan, tried, served, receipt)


def _verdict(failure: Failure | None, tap: Tap) -> Failure | None:
    """Return what was wrong with an answer that began: an engine may end it too soon, or leave out only its end."""
    if tap.failed:
        return failure or FAILED
    if tap.finished:
        return None if failure is not None and failure.cause in _LATE else failure
    return failure or CUT


def _error(failure: Failure) -> UpstreamFailed:
    """Return the error for an answer that began and did not end well."""
    if failure.cause is Cause.IDLE:
        return UpstreamFailed(failure.message, code=504, kind="timeout")
    return UpstreamFailed(failure.message, quoted=failure.cause in {Cause.ERROR, Cause.REFUSED, Cause.OVERLOADED})


async def _admit(call: Call, principal: Principal, reply: Reply, desk: Desk, tokens: int) -> Leave:
    """Return leave to run ``call``; near the limit of a budget its engines are asked how long its prompt is."""
    try:
        return await _leave(call, principal, reply, desk, tokens)
    except BudgetNear:
        wanted = route_request(call, principal.team, 1, reply.arrived)
        steps = permitted(desk.router.plan(wanted, rule=principal.rule), call, principal, desk.router).steps
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


def _bill(receipt: Receipt, continuations: int, *, byok: bool) -> Bill:
    charge = receipt.charge
    completion = charge.completion + charge.reasoning
    prompt = charge.total - completion
    listed = charge.total + receipt.discount if byok else 0
    return Bill(receipt.usage, charge.total, prompt, completion, continuations, receipt.replayed, byok, listed)


def _abandon(meter: Meter, walk: Walk | None, metrics: GatewayMetrics, cut: str) -> Receipt | None:
    """End what was left open, and count what the caller had read of it; ``cut`` is as of ``Meter.abandon``."""
    receipt = meter.abandon(cut)
    if receipt is not None and walk is not None:
        endpoint = walk.candidate.endpoint
        metrics.answer(endpoint.model_id, endpoint.slug, receipt.usage, receipt.ttft, receipt.generation)
    return receipt


def _count(metrics: GatewayMetrics, call: Call, endpoint: Endpoint, receipt: Receipt) -> None:
    """Count a settled answer; one that failed is counted where its error is rendered."""
    if receipt.status is not Status.UPSTREAM_ERROR:
        metrics.request(call.operation, endpoint.model_id, receipt.status, receipt.duration)
    metrics.answer(endpoint.model_id, endpoint.slug, receipt.usage, receipt.ttft, receipt.generation)
    if receipt.replayed:
        metrics.replayed_tokens.add((endpoint.model_id,), receipt.replayed)


def _trace_end(
    trace: RequestTrace, otherwise: str, reply: Reply, walk: Walk | None, meter: Meter, receipt: Receipt | None
) -> None:
    """End the trace with what is known by now; ``otherwise`` is the status of a request without a receipt."""
    if walk is None or receipt is None:
        trace.end(otherwise, request_id=reply.request_id)
        return
    endpoint = walk.candidate.endpoint
    trace.end(
        receipt.status,
        request_id=reply.request_id,
        model=endpoint.model_id,
        provider=endpoint.provider,
        finish_reason=meter.tap.finish_reason,
        usage=receipt.usage,
        ttft=receipt.ttft,
    )
