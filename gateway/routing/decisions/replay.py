"""A kept decision made again, by the very code that makes all decisions, from what it was made from.

Pure: no clock and no randomness but those in the record. A record that cannot be used raises ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from gateway.routing.chance import Chance
from gateway.routing.decisions.image import ImageError, rebuilt
from gateway.routing.decisions.record import Details
from gateway.routing.interface import Plan
from gateway.routing.pipeline import Policy, decide
from gateway.types.errors import WeirError

_CLOSE = 1e-9


class Replayed(msgspec.Struct, frozen=True):
    """What deciding again brought.

    Attributes:
        same: the same candidate is picked.
        pick: who is picked now, ``""`` when the request is refused.
        was: who was picked.
        whole: the record held every input; if not, see ``Details.whole``.
        differences: what differs, a sentence each, also where the pick is the same.
    """

    same: bool
    pick: str
    was: str
    whole: bool
    differences: list[str]


def replay(details: Details, policies: Mapping[str, Policy]) -> Replayed:
    """Return what ``policies`` decide about the request of ``details`` now.

    Raises:
        ValueError: the preset does not exist any more, or the record is one of a version that kept other books.
    """
    was = details.explanation
    policy = policies.get(was["policy"])
    if policy is None:
        raise ValueError(f"the preset {was['policy']!r} that decided does not exist any more")
    try:
        request, candidates = rebuilt(details.image)
    except ImageError as error:
        raise ValueError(str(error)) from error
    if not details.whole:
        # Whom filters let through was recorded; what they looked at was not.
        policy = replace(policy, filters=())
    try:
        plan = decide(request, candidates, policy, Chance(request.chance), explain=True)
    except WeirError as error:
        return Replayed(False, "", was["pick"], details.whole, [f"the request is refused: {error.message}"])
    pick = plan.steps[0].slug
    return Replayed(pick == was["pick"], pick, was["pick"], details.whole, _differences(was, plan, whole=details.whole))


def _differences(was: Mapping[str, Any], plan: Plan, *, whole: bool) -> list[str]:
    """Return how ``plan`` differs from the explanation of the one that was carried out."""
    found: list[str] = []
    before = {each["candidate"]: each for each in was["candidates"]}
    pick = plan.steps[0].slug
    if pick != was["pick"]:
        found.append(f"picked {pick} instead of {was['pick']}")
    order = [each for each, row in before.items() if row["place"] is not None]
    now = [step.slug for step in plan.steps]
    if order != now and pick == was["pick"]:
        found.append(f"then {', '.join(now[1:])} instead of {', '.join(order[1:])}")
    for candidate, score in zip(plan.scored, plan.scores, strict=True):
        row = before.get(candidate.slug)
        if row is None:
            found.append(f"{candidate.slug} is scored, and was not")
        elif abs(round(score, 4) - row["score"]) > _CLOSE:
            found.append(f"{candidate.slug} scores {score:.4f} instead of {row['score']:.4f}")
    scored = {candidate.slug for candidate in plan.scored}
    found += [f"{name} is not scored, and was" for name in before if name not in scored]
    if whole:
        drops = {(drop.candidate.slug, drop.filter) for drop in plan.drops}
        dropped = {(drop["candidate"], drop["filter"]) for drop in was["drops"]}
        found += [f"{name} is dropped by {by}, and was not" for name, by in sorted(drops - dropped)]
        found += [f"{name} is not dropped by {by}, and was" for name, by in sorted(dropped - drops)]
    return found
