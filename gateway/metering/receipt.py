"""The receipt of an answer: what it took and what it comes to. Values only."""

from __future__ import annotations

from operator import add
from typing import TypeVar

import msgspec
from msgspec.structs import astuple

from gateway.metering.record import Status
from gateway.types.charge import Charge
from gateway.types.tokens import Usage, UsageSource

Counted = TypeVar("Counted", Usage, Charge)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What one answer comes to, all attempts that gave it together.

    Attributes:
        status: how it ended.
        usage: tokens by class.
        source: where the counts came from.
        charge: what the team pays.
        cost: what the owner pays.
        ttft: seconds from the arrival of the request to its first output, or None.
        generation: seconds from the first output to the last.
        duration: seconds from the arrival of the request to its end.
        replayed: tokens that engines read or made once more to go on with the answer; in no other count.
        discount: nano-USD that the charge is below the list price.
    """

    status: Status
    usage: Usage
    source: UsageSource
    charge: Charge
    cost: Charge
    ttft: float | None
    generation: float
    duration: float
    replayed: int = 0
    discount: int = 0


def summed(one: Counted, other: Counted) -> Counted:
    """Return the sums of all classes."""
    return type(one)(*map(add, astuple(one), astuple(other)))
