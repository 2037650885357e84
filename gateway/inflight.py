"""A request in flight: what each stop of ``gateway.relay`` does, what the stops hand on, and what is given back.

Every method is one stop. None of them decides by itself: each calls the parts that own the stop, in order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

from gateway.access.principal import Principal
from gateway.access.purse import Leave
from gateway.desk import Desk, admitted, permitted, route_request
from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.metering.ceiling import Ceiling
from gateway.metering.meter import Meter
from gateway.metering.receipt import Receipt
from gateway.metering.record import Status
from gateway.metering.tap import Tap
from gateway.routing.admission.ticket import Ticket
from gateway.routing.decisions.recorder import Note
from gateway.routing.explain import header
from gateway.routing.interface import Plan, RouteRequest
from gateway.routing.metadata import router_metadata
from gateway.step import STEP
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.traces import RequestTrace
from gateway.types.call import Call
from gateway.types.chunk import ListSink
from gateway.types.errors import WeirError
from gateway.types.failure import Cause, Failure
from gateway.types.reply import Bill, Reply
from gateway.upstream.attempt import Attempt
from gateway.upstream.attempts import Walk
from gateway.upstream.continuation import Continuation
from gateway.upstream.fold import Folder, unfold

CUT: Final = Failure(Cause.CUT, "the backend ended its answer before it was finished", 200)
FAILED: Final = Failure(Cause.ERROR, "the engine ended its answer with an error", 200)
_LATE: Final = frozenset({Cause.CUT, Cause.IDLE})
"""What does no harm once every choice is finished: nothing but the end of the stream was still to come."""


class InFlight:
    """A request between its arrival and its end: what its stops hand on to each other, and what it holds.

    Attributes:
        trace: told of each stop.
        expected: tokens that all its answers will probably have.
        ticket: its place at the gate, or None.
        refused: what the caller was told instead of an answer, ``""`` while it was told nothing.
        cut: why the gateway ended an answer that had begun.
    """

    __slots__ = (
        "_call",
        "_continuation",
        "_desk",
        "_folder",
        "_leave",
        "_meter",
        "_note",
        "_plan",
        "_principal",
        "_receipt",
        "_reply",
        "_walk",
        "_wanted",
        "cut",
        "expected",
        "refused",
        "ticket",
        "trace",
    )

    def __init__(self, call: Call, principal: Principal, reply: Reply, desk: Desk) -> None:
        self._call, self._principal, self._reply, self._desk = call, principal, reply, desk
        self.trace = desk.tracer.start(call.traceparent, call.operation, call.model, call.tracestate)
        self._meter = Meter(desk.journal, reply.request_id, call, principal.team, principal.key_id, reply.arrived)
        self.expected = desk.router.expectations.tokens(call.model, principal.team, call.max_tokens) * call.choices
        self.ticket: Ticket | None = None
        self.refused, self.cut = "", "server"
        self._leave: Leave | None = None
        self._wanted: RouteRequest | None = None
        self._plan: Plan | None = None
        self._note: Note | None = None
        self._walk: Walk | None = None
        self._receipt: Receipt | None = None
        self._continuation: Continuation
        self._folder: Folder | None

    async def admit(self) -> None:
        """Get leave under the limits and budgets of its key, team and model. Raises ``WeirError``."""
        call = self._call
        tokens = call.prompt_estimate + self.expected
        leave = self._leave = await admitted(call, self._principal, self._reply, self._desk, tokens)
        if leave.reserved is not None:
            self._meter.ceiling = Ceiling(leave.reserved)

    def unqueued(self) -> bool:
        """Whether it goes with a key of its team's first, so that how full the owner's is does not matter."""
        desk = self._desk
        if not desk.own_keys.active:
            return False
        own = desk.own_keys.providers(self._principal)
        models = desk.router.reachable(self._call) if own else ()
        return any(endpoint.provider in own for model in models for endpoint in model.endpoints)

    def route(self) -> Sequence[Candidate]:
        """Decide which replicas may answer, and in which order. Raises ``WeirError`` when none may."""
        call, principal, desk, leave = self._call, self._principal, self._desk, self._leave
        started = time.perf_counter()
        wanted = self._wanted = route_request(call, principal.team, self.expected, self._reply.arrived)
        if desk.own_keys.active:
            wanted.own = desk.own_keys.providers(principal)
        plan = self._plan = desk.router.plan(wanted, rule=principal.rule, may_use=principal.may_use)
        desk.metrics.route_seconds.observe((), time.perf_counter() - started)
        for drop in plan.drops:
            desk.metrics.route_drops.add((drop.filter,))
        if principal.models is not None:
            plan = self._plan = permitted(plan, call, principal, desk.router)
        note = self._note = desk.recorder.note(wanted, plan)
        self._reply.route(route := header(plan))
        self.trace.routed(route, kept=note is not None)
        if wanted.own:
            return desk.own_keys.arranged(plan.steps, principal, alone=leave is not None and leave.alone)
        return plan.steps

    def set_out(self, steps: Sequence[Candidate]) -> Walk:
        """Return the walk down ``steps``, which the caller's connection steers from now on."""
        call, desk, reply, meter = self._call, self._desk, self._reply, self._meter
        assert self._wanted is not None
        walk = Walk(desk.upstream, call, steps, meter, self.trace, reply.request_id, self._wanted.work())
        self._walk = walk
        reply.steer(walk)
        self._continuation = Continuation(walk, call, meter, reply, desk.metrics)
        return walk

    async def stream(self, attempt: Attempt) -> tuple[Attempt, Failure | None]:
        """Pass the answer on while it comes; return the attempt that ended it, and what was wrong with it.

        When one breaks, another replica may begin anew if the caller has seen nothing, or go on from what it has.
        """
        call, reply, meter, walk, continuation = self._call, self._reply, self._meter, self._walk, self._continuation
        assert walk is not None
        assert self._plan is not None
        while True:
            endpoint = walk.candidate.endpoint
            if walk.candidate is not self._plan.steps[0]:
                reply.route(header(self._plan, walk.candidate))
            self._folder = None
            if attempt.answer is not None:
                meter.answered(attempt.answer)
            elif call.stream:
                if not continuation.attached:
                    reply.begin(endpoint.model_id, endpoint.provider)
                continuation.attach(attempt, meter.to(continuation.to))
            else:
                folder = self._folder = Folder(call.operation)
                attempt.attach(meter.to(ListSink(folder.feed)))
            failure = _verdict(await walk.finish(attempt), meter.tap)
            await STEP
            walk.judge(failure)
            if failure is None:
                return attempt, None
            if continuation.count or not meter.tap.silent:
                failure = _broken(failure)
            following = await continuation.follow(attempt, failure)
            if following is None:
                return attempt, _verdict(failure, meter.tap)
            attempt = following

    def settle(self, attempt: Attempt, failure: Failure | None) -> Receipt:
        """Write down what the answer took and came to, and learn from it; not durable yet."""
        call, reply, meter, walk, desk = self._call, self._reply, self._meter, self._walk, self._desk
        assert walk is not None
        gone = reply.gone
        failed = failure is not None and failure.cause is not Cause.ABORTED
        error = failure.cause.value if failure is not None else ""
        receipt = self._receipt = meter.settle(
            gone, failed, attempt.status, attempt.upstream_id, error, self._continuation.again
        )
        endpoint, usage = walk.candidate.endpoint, receipt.usage
        _count(desk.metrics, call, endpoint, receipt)
        walk.settled(usage)
        if failure is None and not gone:
            desk.router.expectations.answered(call.model, self._principal.team, usage.completion // call.choices)
            sent, ended = walk.sent_at, attempt.ended_at
            tokens = 0 if receipt.replayed else usage.completion
            endpoint.track.answered(attempt.began_at - sent, ended - sent, tokens, ended)
        if meter.tap.disagrees:
            desk.metrics.usage_disagreements.add((walk.candidate.replica.name,))
        return receipt

    def finish(self, attempt: Attempt, receipt: Receipt) -> None:
        """Let the caller see the end of an answer that ended well."""
        call, reply, meter, walk, folder = self._call, self._reply, self._meter, self._walk, self._folder
        assert walk is not None
        endpoint = walk.candidate.endpoint
        bill = _bill(receipt, self._continuation.count, byok=walk.candidate.key is not None)
        if call.explains:
            reply.explain(router_metadata(call, self._plan, walk.failures, walk.candidate))
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
        self._desk.metrics.overhead.observe((), walk.sent_at - reply.arrived + monotonic() - attempt.ended_at)

    def told(self, error: WeirError) -> None:
        """Take note that the caller gets ``error`` instead of an answer."""
        self.refused = self.cut = error.kind
        if self._call.explains:
            tries = self._walk.tries if self._walk is not None else ()
            self._reply.explain(router_metadata(self._call, self._plan, tries, None))

    def leave(self) -> None:
        """End whatever is still open, and give back what the request held."""
        desk, reply, walk, meter, leave = self._desk, self._reply, self._walk, self._meter, self._leave
        if walk is not None:
            walk.close()
        receipt = _abandon(meter, walk, desk.metrics, "" if reply.gone else self.cut) or self._receipt
        if self._note is not None or (walk is not None and walk.tried):
            self._keep(receipt)
        desk.gate.leave(self.ticket, receipt.usage if receipt is not None else None)
        if leave is not None:
            desk.purse.settle(leave, receipt.usage.total if receipt is not None else 0, meter.paid, meter.excess)
        otherwise = self.refused or ("client_cancel" if reply.gone else "server")
        _trace_end(self.trace, otherwise, reply, walk, meter, receipt)

    def _keep(self, receipt: Receipt | None) -> None:
        """Keep the decision with what came of it, as far as it came."""
        wanted, plan, walk = self._wanted, self._plan, self._walk
        if wanted is None or plan is None:
            return
        tried = walk.tried if walk is not None else ()
        served = walk.candidate if walk is not None and receipt is not None else None
        recorder, request_id = self._desk.recorder, self._reply.request_id
        recorder.keep(self._note, request_id, self._call.model, wanted, plan, tried, served, receipt)


def _verdict(failure: Failure | None, tap: Tap) -> Failure | None:
    """Return what was wrong with an answer that began: an engine may end it too soon, or leave out only its end."""
    if tap.failed:
        return failure or FAILED
    if tap.finished:
        return None if failure is not None and failure.cause in _LATE else failure
    return failure or CUT


def _broken(failure: Failure) -> Failure:
    """Return the failure of an answer of which something has come: by then nobody refuses the request.

    Older vLLM says 400 of whatever breaks a stream, its own death included. What moderation flags is the answer.
    """
    if failure.cause is Cause.REFUSED and not failure.elsewhere:
        return replace(failure, cause=Cause.ERROR)
    return failure


def _bill(receipt: Receipt, continuations: int, *, byok: bool) -> Bill:
    charge = receipt.charge
    total, completion = charge.total, charge.completion + charge.reasoning
    listed = total + receipt.discount if byok else 0
    return Bill(receipt.usage, total, total - completion, completion, continuations, receipt.replayed, byok, listed)


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
