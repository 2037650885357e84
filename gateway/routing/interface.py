"""What a policy is: filters, scorers and pickers over whole lists of candidates.

Policies are pure and synchronous: no I/O, no clock and no randomness of their own, so the gateway, ``weir route
explain``, the tests and the lab run the very same code. Lists go in and out because a call per candidate costs more
than the work inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random as Random
from typing import Any, Final, Protocol, TypeVar

import msgspec

from gateway.fleet.booking import Work
from gateway.fleet.prefix import BLOCK_TOKENS
from gateway.fleet.snapshot import Candidate
from gateway.routing.outlook import Outlook, Prediction
from gateway.types.call import Need, Operation
from gateway.types.preferences import Preferences
from gateway.types.priority import Priority

_OPERATIONS: Final = (
    (Need.EMBEDDINGS, Operation.EMBEDDINGS),
    (Need.COMPLETIONS, Operation.COMPLETIONS),
    (Need.RERANK, Operation.RERANK),
)
PartT_co = TypeVar("PartT_co", covariant=True)


class RouteRequest(msgspec.Struct, eq=False, gc=False):
    """What routing knows of a request.

    Attributes:
        model_id: the model wanted: an id of ours or an alias, which the router replaces by the id it chose.
        needs: features the answer depends on.
        prompt_tokens: estimate of the prompt's tokens.
        prompt_tokens_exact: whether ``prompt_tokens`` is a count, not an estimate.
        max_tokens: length limit of the answer, or None.
        choices: how many answers are asked for.
        expected_tokens: expected completion tokens of all choices together, for cost and time estimates.
        stream: whether the caller wants a stream.
        team: slug of the team that asks.
        preset: name of the preset to route with, or None for the default.
        now: monotonic seconds of the decision.
        client: who the expected length of answers is learned for, such as a team or one of its applications.
        blocks: chain hashes of the prompt's blocks, the first block first; empty when nobody made them. See
            ``gateway.fleet.prefix``.
        block_tokens: tokens that each of ``blocks`` stands for.
        prompt: the request's body, which ``blocks`` are made of when a policy wants them, or None.
        session: what the caller calls this conversation, or ``""``.
        preferences: the caller's controls, or None when there are none.
        slo_ttft: seconds within which the caller wants the first token, or None.
        slo_itl: seconds between two tokens that the caller wants at most, or None.
        priority: the request's band.
        upstream_excluded: names of replicas that must not be used, such as those that this very answer broke on.
        outlook: what the request would meet at the candidates, once a policy asked; see ``gateway.routing.outlook``.
        considered: the candidates that were decided between, once they were.
        chance: the state of the randomness before that.
        waited: seconds since the request arrived.
        own: providers for which the team has a key of its own, so that limits of the owner's do not count there.
        service_tier: the service tier that the caller asks for, ``""`` for the default one.
    """

    model_id: str
    needs: Need
    prompt_tokens: int
    prompt_tokens_exact: bool
    max_tokens: int | None
    choices: int
    expected_tokens: int
    stream: bool
    team: str
    preset: str | None
    now: float
    client: str = ""
    blocks: tuple[int, ...] = ()
    block_tokens: float = BLOCK_TOKENS
    prompt: Mapping[str, Any] | None = None
    session: str = ""
    preferences: Preferences | None = None
    slo_ttft: float | None = None
    slo_itl: float | None = None
    priority: Priority = Priority.STANDARD
    upstream_excluded: frozenset[str] = frozenset()
    outlook: Outlook | None = None
    considered: Sequence[Candidate] = ()
    chance: int = 0
    waited: float = 0.0
    own: frozenset[str] = frozenset()
    service_tier: str = ""

    @property
    def operation(self) -> Operation:
        """What kind of answer is asked for."""
        return next((operation for need, operation in _OPERATIONS if need in self.needs), Operation.CHAT)

    def work(self) -> Work:
        """Return what this asks of a replica, for its books."""
        return Work(self.prompt_tokens, self.expected_tokens, self.blocks, self.block_tokens, self.session)


@dataclass(frozen=True, slots=True)
class Drop:
    """A candidate that a filter removed, and why. Drops are values: every one can be shown."""

    candidate: Candidate
    filter: str
    reason: str


class Refusal(Enum):
    """What a request is told when nothing is left after a filter.

    Members are in the order in which a policy runs its filters: what can never be served is known before what cannot
    be served now.
    """

    UNSUPPORTED = 404
    """No candidate can do what the request asks for."""
    TOO_LONG = 400
    """No candidate has the room."""
    UNAVAILABLE = 503
    """Those that could serve it cannot now; a retry may succeed."""


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a filter, scorer or picker that has none."""


class Filter(Protocol):
    """Removes candidates that must not or cannot serve a request."""

    @property
    def name(self) -> str:
        """Name in presets, metrics and explanations."""

    @property
    def refusal(self) -> Refusal:
        """What a request is told when this filter leaves nothing."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether this filter can drop anything for ``request``; if not, it is skipped."""

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Return the candidates that stay, in their order, and append a ``Drop`` for each that goes.

        Returns ``candidates`` itself when all stay.
        """


class Scorer(Protocol):
    """Rates candidates on one aspect."""

    @property
    def name(self) -> str:
        """Name in presets, metrics and explanations."""

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return one score per candidate, 0 (worst) to 1 (best), or nothing when all are alike and so 1.

        Scores outside are clamped by the pipeline.
        """


class Picker(Protocol):
    """Orders scored candidates: the first is tried first, the rest are fallbacks."""

    @property
    def name(self) -> str:
        """Name in presets, metrics and explanations."""

    def order(
        self, request: RouteRequest, candidates: Sequence[Candidate], scores: Sequence[float], rng: Random
    ) -> Sequence[int]:
        """Return indexes into ``candidates``, best first; each at most once, at least one."""


class Tier(Protocol):
    """Puts candidates in tiers: all of a lower one are tried before any of a higher one, whatever their scores.

    Several tiers nest: the first decides, the next one only between its equals. Scores and picker order what is equal
    in all of them.
    """

    @property
    def name(self) -> str:
        """Name in presets and explanations."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether this can tell candidates apart for ``request``; if not, it is skipped."""

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return the tier of each candidate; never NaN."""


class PartClass(Protocol[PartT_co]):
    """A class of filters, scorers, tiers or pickers: its name, the model of its parameters, its constructor."""

    @property
    def name(self) -> str:
        """What presets call it."""

    @property
    def parameters(self) -> type[msgspec.Struct]:
        """The model of its parameters."""

    def __call__(self, params: Any) -> PartT_co:
        """Make one with ``params``, an instance of ``parameters``."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything presets may be made of, and what every preset obeys.

    Attributes:
        filters, scorers, pickers, tiers: what presets may name.
        binding_filters, binding_tiers: what is in force whatever a preset says, before its own: the caller's controls.
    """

    filters: tuple[PartClass[Filter], ...]
    scorers: tuple[PartClass[Scorer], ...]
    pickers: tuple[PartClass[Picker], ...]
    tiers: tuple[PartClass[Tier], ...] = ()
    binding_filters: tuple[PartClass[Filter], ...] = ()
    binding_tiers: tuple[PartClass[Tier], ...] = ()


class Plan(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The outcome of a decision.

    Attributes:
        steps: candidates in the order they are to be tried.
        policy: name of the preset that decided.
        considered: all candidates there were.
        drops: what filters removed, with reasons.
        scored: candidates that were scored.
        scores: total score of each of ``scored``.
        terms: for each scorer its name, weight and scores; empty unless the decision was asked to explain itself.
        ranks: for each tier that applied its name and the tier of each of ``scored``.
        predictions: what each of ``scored`` would mean; empty unless the decision was asked to explain itself.
    """

    steps: tuple[Candidate, ...]
    policy: str
    considered: int
    drops: tuple[Drop, ...]
    scored: tuple[Candidate, ...]
    scores: tuple[float, ...]
    terms: tuple[tuple[str, float, tuple[float, ...]], ...]
    ranks: tuple[tuple[str, tuple[float, ...]], ...] = ()
    predictions: tuple[Prediction, ...] = ()
