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
        keeps_sessions: whether a part of it keeps conversations where they were.
        plain_filters: the filters that can drop something of a request without preferences.
        usual_filters: those of them that can drop something when no replica is hindered.
        plain_tiers: the tiers that can tell candidates apart for such a request.
    """

    name: str
    description: str
    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    picker: Picker
    tiers: tuple[Tier, ...] = ()

    reads_prompts: bool = field(init=False)
    keeps_sessions: bool = field(init=False)
    plain_filters: tuple[Filter, ...] = field(init=False)
    usual_filters: tuple[Filter, ...] = field(init=False)
    plain_tiers: tuple[Tier, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Look what the parts say of themselves."""
        parts: list[object] = [*(scorer for scorer, _ in self.scorers), *self.tiers, self.picker]
        object.__setattr__(self, "reads_prompts", any(getattr(part, "reads_prompts", False) for part in parts))
        object.__setattr__(self, "keeps_sessions", any(getattr(part, "keeps_sessions", False) for part in parts))
        plain = tuple(one for one in self.filters if not _obeys(one))
        usual = tuple(one for one in plain if not getattr(one, "only_hindered", False))
        object.__setattr__(self, "plain_filters", plain)
        object.__setattr__(self, "usual_filters", usual)
        object.__setattr__(self, "plain_tiers", tuple(one for one in self.tiers if not _obeys(one)))


def _obeys(part: Filter | Tier) -> bool:
    """Whether ``part`` does nothing but obey a caller's preferences."""
    return getattr(part, "obeys_preferences", False)


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
    plain = request.preferences is None
    drops: list[Drop] = []
    kept = candidates
    for filter_ in _filters(request, candidates, policy):
        if filter_.applies(request):
            kept = filter_.keep(request, kept, drops)
            if not kept:
                raise refused(request, filter_, drops)
    if len(kept) > LONGEST and policy.reads_prompts and plain:
        kept = shortlist(request, kept)
    terms: list[tuple[str, float, tuple[float, ...]]] | None = [] if explain else None
    totals = _totals(request, kept, policy, terms)
    tiers = policy.plain_tiers if plain else policy.tiers
    ranks = ranked(request, kept, tiers) if tiers else ()
    order = ordered(request, kept, totals, ranks, policy.picker, rng)
    steps = tuple([kept[index] for index in order])
    if terms is None:
        return Plan(steps, policy.name, len(candidates), tuple(drops), tuple(kept), tuple(totals), (), ranks)
    return Plan(
        steps=steps,
        policy=policy.name,
        considered=len(candidates),
        drops=tuple(drops),
        scored=tuple(kept),
        scores=tuple(totals),
        terms=tuple(terms),
        ranks=ranks,
        predictions=predictions(request, kept),
    )


def _filters(request: RouteRequest, candidates: Sequence[Candidate], policy: Policy) -> Sequence[Filter]:
    """Return the filters that may drop something; one look spares asking each of them."""
    if request.preferences is not None:
        return policy.filters
    now = request.now
    for candidate in candidates:
        load = candidate.load
        if load.hindered_until > now or load.quota.limited:
            return policy.plain_filters
    return policy.usual_filters


def _totals(
    request: RouteRequest,
    candidates: Sequence[Candidate],
    policy: Policy,
    terms: list[tuple[str, float, tuple[float, ...]]] | None,
) -> list[float]:
    """Return the weighted mean of all scores for each candidate, and put each scorer's own into ``terms``."""
    told: list[tuple[float, Sequence[float]]] = []
    alike, count = 0.0, len(candidates)
    for scorer, share in policy.scorers:
        scores = scorer.score(request, candidates)
        if not scores:
            alike += share
        elif len(scores) != count:
            raise ValueError(f"the scorer {scorer.name} gave {len(scores)} scores for {count} candidates")
        else:
            for score in scores:
                if not 0.0 <= score <= 1.0:  # nor is NaN
                    scores = [clamped(each) for each in scores]
                    break
            told.append((share, scores))
        if terms is not None:
            terms.append((scorer.name, share, tuple(scores or [1.0] * count)))
    if not told:
        return [alike] * count
    share, scores = told[0]
    if len(told) == 1:  # one walk where one scorer tells candidates apart
        return [share * score + alike for score in scores]
    totals = [share * score for score in scores]
    for share, scores in told[1:]:
        totals = [total + share * score for total, score in zip(totals, scores, strict=True)]
    return [total + alike for total in totals] if alike else totals


def clamped(score: float) -> float:
    """Return ``score`` within 0 and 1; what is not a number is the worst."""
    return min(1.0, score) if score > 0.0 else 0.0
