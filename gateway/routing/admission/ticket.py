"""A request as admission sees it. Plain values; nothing here can fail."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.types.priority import Priority

if TYPE_CHECKING:
    from gateway.routing.admission.fairness import Share
    from gateway.routing.admission.pool import Pool

PROMPT_COST: Final = 1
"""What a prompt token counts in fair sharing."""
COMPLETION_COST: Final = 2
"""What a completion token counts: each takes a step of the engine of its own (VTC, arXiv 2401.00588)."""


class State(StrEnum):
    """Where a ticket is."""

    NEW = "new"
    QUEUED = "queued"
    ADMITTED = "admitted"
    REFUSED = "refused"
    OVER = "over"


class Reason(StrEnum):
    """Why a ticket was refused."""

    FULL = "queue_full"
    """The queue of its model is full, and nobody in it has a weaker claim."""
    DEADLINE = "deadline"
    """Its time in the queue ran out."""
    SHED = "shed"
    """It was drawn for shedding: its band is the first to go, and the pool is beyond the band's ceiling."""
    UNAVAILABLE = "unavailable"
    """Nothing serves its model now; waiting for a turn would be in vain."""


class Denial(msgspec.Struct, frozen=True, gc=False):
    """Why a ticket was refused, and when a retry may succeed.

    Attributes:
        retry_after: seconds in which those before it will have gone, at the pace at which requests end now.
    """

    reason: Reason
    retry_after: float


class Ticket(msgspec.Struct, eq=False):
    """One request.

    Attributes:
        pool: the model whose replicas it wants.
        team: who shares with whom.
        band: its urgency.
        prompt: estimated prompt tokens.
        expected: expected completion tokens.
        size: bytes it keeps in memory while it waits.
        deadline: monotonic seconds after which the caller has no use for an answer.
        goal: seconds to the first token that the caller asked for, or None.
        state: where it is.
        denial: why it was refused, once it was.
        offered_at: monotonic seconds at which it came.
        admitted_at: monotonic seconds at which it was admitted.
        sort_key: its place among its team's waiting tickets.
        until: monotonic seconds at which its time in the queue is over.
        charged: what its team was charged for it, before the truth was known.
        scale: what each unit of that cost added to the team's account.
        travels: admitted from the queue, but not yet in the books of a replica.
        share: its team's account.
        home: the pool it was offered to.
    """

    pool: str
    team: str
    band: Priority
    prompt: int
    expected: int
    size: int = 0
    deadline: float = float("inf")
    goal: float | None = None
    state: State = State.NEW
    denial: Denial | None = None
    offered_at: float = 0.0
    admitted_at: float = 0.0
    sort_key: tuple[float, int] = (0.0, 0)
    until: float = 0.0
    charged: float = 0.0
    scale: float = 0.0
    travels: bool = False
    share: Share | None = None
    home: Pool | None = None
