"""The order of a plan: tiers first, then the picker among equals, then what the caller does not want as a fallback.

With no tier that applies the picker's order is the plan's. A picker sees one tier at a time and so cannot lift a
candidate over another tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Picker, RouteRequest, Tier

Ranks = tuple[tuple[str, tuple[float, ...]], ...]
"""Name of each tier that applied and what it gave each candidate."""


def ranked(request: RouteRequest, candidates: Sequence[Candidate], tiers: Sequence[Tier]) -> Ranks:
    """Return what every tier that applies says. Raises ``ValueError`` for one that is defective."""
    found = []
    for tier in tiers:
        if tier.applies(request):
            ranks = tuple(tier.ranks(request, candidates))
            if len(ranks) != len(candidates):
                raise ValueError(f"the tier {tier.name} gave {len(ranks)} ranks for {len(candidates)} candidates")
            found.append((tier.name, ranks))
    return tuple(found)


def ordered(
    request: RouteRequest,
    candidates: Sequence[Candidate],
    totals: Sequence[float],
    ranks: Ranks,
    picker: Picker,
    rng: Random,
) -> Sequence[int]:
    """Return indexes into ``candidates`` in the order in which they are to be tried."""
    # What all candidates have in common orders nothing; most tiers find nothing most of the time.
    telling = [each for _, each in ranks if each.count(each[0]) != len(each)]
    if not telling:
        order = picker.order(request, candidates, totals, rng)
    else:
        keys: Iterable[Any] = telling[0] if len(telling) == 1 else zip(*telling, strict=True)
        groups: dict[Any, list[int]] = {}
        for index, key in enumerate(keys):
            groups.setdefault(key, []).append(index)
        order = []
        for key in sorted(groups):
            group = groups[key]
            if len(group) == 1:
                order += group
                continue
            picked = picker.order(request, [candidates[each] for each in group], [totals[each] for each in group], rng)
            order += [group[each] for each in picked]
    wishes = request.preferences
    # With an order of the caller's own a filter has already left only what is in it.
    if wishes is None or wishes.allow_fallbacks or wishes.order:
        return order
    return _without_fallbacks(candidates, order)


def _without_fallbacks(candidates: Sequence[Candidate], order: Sequence[int]) -> Sequence[int]:
    """Keep, of each model, the replicas of the endpoint that comes first."""
    first: dict[str, str] = {}
    kept = []
    for each in order:
        endpoint = candidates[each].endpoint
        if first.setdefault(endpoint.model_id, endpoint.slug) == endpoint.slug:
            kept.append(each)
    return kept
