"""The decision itself: filters, then weighted scorers, then the picker.

Filters that cannot drop anything for a request are skipped. When nothing is left the request is refused with the error
of the filter that dropped the last candidate; what a filter dropped is never routed to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, Filter, Picker, Plan, RouteRequest, Scorer
from gateway.routing.refusal import refused


@dataclass(frozen=True, slots=True)
class Policy:
    """A preset made ready.

    Attributes:
        name: name of the preset.
        description: what it is for, in a sentence.
        filters: in the order they run.
        scorers: each with its share of the total; shares add up to 1.
        picker: orders what was scored.
    """

    name: str
    description: str
    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    picker: Picker


def decide(
    request: RouteRequest,
    candidates: Sequence[Candidate],
    policy: Policy,
    rng: Random,
    *,
    explain: bool = False,
) -> Plan:
    """Return the plan of ``policy`` for ``request``.

    Args:
        request: what is asked for.
        candidates: everything that serves the model.
        policy: how to decide.
        rng: randomness of the picker.
        explain: keep each scorer's scores in ``Plan.terms``.

    Raises:
        WeirError: no candidate is left; see ``gateway.routing.refusal``.
        ValueError: a scorer is defective.
    """
    drops: list[Drop] = []
    kept = candidates
    for filter_ in policy.filters:
        if filter_.applies(request):
            kept = filter_.keep(request, kept, drops)
            if not kept:
                raise refused(request, filter_, drops)
    totals: list[float] = []
    terms: list[tuple[str, float, tuple[float, ...]]] = []
    for scorer, share in policy.scorers:
        scores = scorer.score(request, kept)
        if len(scores) != len(kept):
            raise ValueError(f"the scorer {scorer.name} gave {len(scores)} scores for {len(kept)} candidates")
        total = sum(scores)
        if min(scores) < 0.0 or max(scores) > 1.0 or total != total:  # noqa: PLR0124 - only NaN differs from itself
            scores = [clamped(score) for score in scores]
        if totals:
            totals = [total + share * score for total, score in zip(totals, scores, strict=False)]
        else:
            totals = [share * score for score in scores]
        if explain:
            terms.append((scorer.name, share, tuple(clamped(score) for score in scores)))
    order = policy.picker.order(request, kept, totals, rng)
    return Plan(
        steps=tuple(map(kept.__getitem__, order)),
        policy=policy.name,
        considered=len(candidates),
        drops=tuple(drops),
        scored=tuple(kept),
        scores=tuple(totals),
        terms=tuple(terms),
    )


def clamped(score: float) -> float:
    """Return ``score`` within 0 and 1; what is not a number is the worst."""
    return min(1.0, score) if score > 0.0 else 0.0
