"""The tries of a walk that failed, and what their caller is told when there is no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.fleet.snapshot import Candidate
from gateway.types.errors import Unavailable, UpstreamFailed, WeirError
from gateway.types.failure import Cause, Failure


@dataclass(frozen=True, slots=True)
class Tried:
    """One failed try of a walk."""

    candidate: Candidate
    failure: Failure


def no_answer(tries: Sequence[Tried]) -> WeirError:
    """Return the error for a walk on which no answer began; ``tries`` holds at least one."""
    last = tries[-1]
    failure = last.failure
    metadata = {
        "provider_name": last.candidate.endpoint.provider,
        "attempts": [
            {
                "provider": tried.candidate.endpoint.provider,
                "cause": tried.failure.cause,
                "status": tried.failure.status,
            }
            for tried in tries
        ],
    }
    causes = {tried.failure.cause for tried in tries}
    if failure.cause is Cause.REFUSED and (not failure.elsewhere or causes == {Cause.REFUSED}):
        return refused(failure, metadata)
    if Cause.OVERLOADED in causes:
        waits = [tried.failure.retry_after for tried in tries if tried.failure.retry_after]
        return Unavailable(
            "every backend of this model is full", metadata=metadata, retry_after=min(waits, default=1.0)
        )
    if causes <= {Cause.CONNECT, Cause.EGRESS}:
        return Unavailable("no backend of this model can be reached", metadata=metadata, retry_after=1.0)
    if failure.cause is Cause.FIRST_BYTE:
        return UpstreamFailed(failure.message, code=504, kind="timeout", metadata=metadata)
    return UpstreamFailed(failure.message, metadata=metadata, quoted=failure.cause in {Cause.ERROR, Cause.REFUSED})


def refused(failure: Failure, metadata: Mapping[str, Any]) -> UpstreamFailed:
    """Return the error for a request that a backend refused, with its reasons."""
    facts, detail = {**metadata}, {**failure.detail}
    kind = detail.pop("error_type", "invalid_request")
    param = detail.pop("param", None)
    if "reasons" in detail:
        facts["reasons"] = detail.pop("reasons")  # where OpenRouter has them
    return UpstreamFailed(
        failure.message,
        code=failure.status,
        kind=kind,
        metadata={**facts, "raw": detail},
        param=param if isinstance(param, str) else None,
    )
