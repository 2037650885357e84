"""Why an attempt failed: the one form every foreign error takes when it enters from a backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """What went wrong, in the order a request meets it."""

    CONNECT = "connect"
    """No connection: refused, unreachable, name unknown, TLS failed, or no answer within the connect limit."""
    EGRESS = "egress"
    """The backend's address is one the egress rules forbid."""
    RESET = "reset"
    """The connection broke before the head of the answer."""
    FIRST_BYTE = "first_byte"
    """No head or no first event within the first-byte limit."""
    IDLE = "idle"
    """The answer stopped for longer than the idle limit."""
    CUT = "cut"
    """The answer ended before the engine said it was finished."""
    MALFORMED = "malformed"
    """The answer is not what the API says: bad HTTP, bad JSON, wrong shape, or too large."""
    OVERLOADED = "overloaded"
    """The engine said it is full."""
    REFUSED = "refused"
    """The engine refused the request itself; another replica of its provider would refuse it too."""
    ERROR = "error"
    """The engine failed: a 5xx status, an error body in a 200, an error event, an error finish."""
    ABORTED = "aborted"
    """The gateway gave the attempt up because its caller left."""
    HEDGED = "hedged"
    """The gateway gave the attempt up because another one of the same request began first."""


_QUOTING = frozenset({Cause.ERROR, Cause.REFUSED, Cause.OVERLOADED})
_HARMLESS = frozenset({Cause.OVERLOADED, Cause.REFUSED, Cause.ABORTED, Cause.HEDGED})


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt.

    Attributes:
        cause: what went wrong.
        message: a sentence without prompt, key or address.
        status: HTTP status of the backend, 0 when there was none.
        retry_after: seconds the backend asked to wait, or None.
        sent: whether any byte of the request may have reached the engine.
        elsewhere: what refused the request is the provider's own (its moderation, its limits): another may take it.
        lacks: the backend has no such model or no such path, which says nothing of what else it serves.
        detail: facts the engine gave that are worth passing on (error type, token numbers).
    """

    cause: Cause
    message: str
    status: int = 0
    retry_after: float | None = None
    sent: bool = True
    elsewhere: bool = False
    lacks: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def retryable(self) -> bool:
        """Whether another replica may do better."""
        return self.elsewhere or self.cause not in {Cause.REFUSED, Cause.ABORTED}

    @property
    def unhealthy(self) -> bool:
        """Whether the failure speaks against the replica's health."""
        return self.cause not in _HARMLESS and not self.lacks

    @property
    def loggable(self) -> str:
        """What a log may say of it: not the words of an engine, which may repeat the prompt."""
        if self.cause not in _QUOTING:
            return f"{self.cause}: {self.message}"
        return f"{self.cause}: status {self.status}" if self.status else self.cause
