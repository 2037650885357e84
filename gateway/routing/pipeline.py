"""The decision itself: filters, then weighted scorers, then tiers and the picker.

Filters that cannot drop anything for a request are skipped. When nothing is left the request is refused with the error
of the filter that dropped the last candidate; what a filter dropped is never routed to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, Filter, Picker, Plan, RouteRequest, Scorer, Tier
from gateway.routing.outlook import predictions
from gateway.routing.refusal import refused
from gateway.routing.shortlist import LONGEST, shortlist
from gateway.routing.tiers import ordered, ranked


@dataclass(frozen=True, slots=True)
class Policy:
    """A preset made ready.

    Attributes:
        name: name of the preset.
        description: what it is for, in a sentence.
        filters: in the order they run.
        scorers: each with its share of the total; shares add up to 1.
        picker: orders what was scored.
        tiers: what is tried before what, whatever the scores.
        reads_prompts: whether a part of it compares prompts with what replicas have cached.
    """

    name: str
    description: str
    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    picker: Picker
    tiers: tuple[Tier, ...] = ()

    reads_prompts: bool = field(init=False)

    def __post_init__(self) -> None:
        """Look whether a part compares prompts with what replicas have cached."""
        parts: list[object] = [*(scorer for scorer, _ in self.scorers), *self.tiers, self.picker]
        object.__setattr__(self, "reads_prompts", any(getattr(part, "reads_prompts", False) for part in parts))


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
    if len(kept) > LONGEST and policy.reads_prompts and request.preferences is None:
        kept = shortlist(request, kept)
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
    if not totals:
        totals = [0.0] * len(kept)
    ranks = ranked(request, kept, policy.tiers) if policy.tiers else ()
    order = ordered(request, kept, totals, ranks, policy.picker, rng)
    return Plan(
        steps=tuple(map(kept.__getitem__, order)),
        policy=policy.name,
        considered=len(candidates),
        drops=tuple(drops),
        scored=tuple(kept),
        scores=tuple(totals),
        terms=tuple(terms),
        ranks=ranks,
        predictions=predictions(request, kept) if explain else (),
    )


def clamped(score: float) -> float:
    """Return ``score`` within 0 and 1; what is not a number is the worst."""
    return min(1.0, score) if score > 0.0 else 0.0
