"""THE story of a request: admit, queue, plan, attempt, stream, settle.

``relay`` is told top to bottom and does nothing itself: every stop is one call into the part that owns it, or one
method of ``gateway.inflight``, which holds what the stops hand on. Whatever happens, the way out closes the upstream,
writes the end of every opened attempt to the journal, and frees what the request held. A caller sees the end of an
answer only after its CLOSE record is durable.
"""

from __future__ import annotations

import asyncio

from gateway.access.principal import Principal
from gateway.desk import Desk
from gateway.inflight import InFlight
from gateway.routing.admission.gate import CallerLeft
from gateway.routing.admission.ticket import State
from gateway.step import STEP
from gateway.telemetry.traces import Stop
from gateway.types.call import Call
from gateway.types.errors import Unavailable, UpstreamFailed, WeirError
from gateway.types.failure import Cause, Failure
from gateway.types.reply import Reply
from gateway.upstream.tries import refused
from gateway.upstream.wire import AttemptFailed


async def relay(call: Call, principal: Principal, reply: Reply, desk: Desk) -> None:
    """Answer one request, in step with those that came with it.

    Raises:
        WeirError: the caller is to be told; ``reply`` has not been failed yet.
    """
    await STEP
    request = InFlight(call, principal, reply, desk)
    trace = request.trace
    try:
        # Admit: leave under limits and budgets, or an answer that says when.
        trace.stop(Stop.ADMIT)
        if desk.purse.applies(principal):
            await request.admit()

        # Queue: go on at once while there is room; else wait for a fair turn, or be told when to come back.
        await STEP
        ticket = request.ticket = (
            None if request.unqueued() else desk.gate.enter(call, principal.team, request.expected)
        )
        if ticket is not None and ticket.state is State.QUEUED:
            trace.stop(Stop.QUEUE)
            await desk.gate.turn(ticket, reply)

        # Plan: which replicas may answer, in which order, and why.
        trace.stop(Stop.ROUTE)
        steps = request.route()

        # Attempt: down the plan until one begins to answer; from here on the caller's connection steers.
        trace.stop(Stop.ATTEMPT)
        attempt = await request.set_out(steps).begin()

        # Stream: chunks go through the meter to the caller in the loop step in which they arrive.
        trace.stop(Stop.STREAM)
        await STEP
        attempt, failure = await request.stream(attempt)

        # Settle: price it, write CLOSE, and wait for the disk before the caller sees the end.
        trace.stop(Stop.SETTLE)
        await STEP
        receipt = request.settle(attempt, failure)
        if reply.gone:
            return
        await desk.journal.commit()

        # Done: the last bytes, or an honest error.
        await STEP
        if failure is not None:
            raise _error(failure)
        request.finish(attempt, receipt)
    except WeirError as error:
        request.told(error)
        raise
    except (AttemptFailed, CallerLeft):
        return  # the caller left before an answer began; the walk, if there was one, has told the meter
    except asyncio.CancelledError:
        request.refused, request.cut = Unavailable.error_type, "shutdown"
        raise
    finally:
        request.leave()


def _error(failure: Failure) -> UpstreamFailed:
    """Return the error for an answer that began and did not end well."""
    if failure.cause is Cause.REFUSED:
        return refused(failure, {})
    if failure.cause is Cause.IDLE:
        return UpstreamFailed(failure.message, code=504, kind="timeout")
    return UpstreamFailed(failure.message, quoted=failure.cause in {Cause.ERROR, Cause.OVERLOADED})
