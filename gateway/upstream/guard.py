"""The egress guard as the upstream client asks it."""

from __future__ import annotations

from gateway.fleet.egress import EgressError, EgressGuard
from gateway.types.failure import Cause, Failure
from gateway.upstream.wire import AttemptFailed, Resolve


def guarded(guard: EgressGuard) -> Resolve:
    """Return how addresses are resolved under ``guard``; what it refuses is a failed attempt that sent nothing."""

    async def resolve(host: str, port: int) -> tuple[tuple[str, int], ...]:
        try:
            return await guard.resolve(host, port)
        except EgressError as error:
            raise AttemptFailed(Failure(Cause.EGRESS, str(error), sent=False)) from None

    return resolve
