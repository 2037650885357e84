"""Keeps a share of all decisions, and those of requests that failed over.

A request that is not drawn pays for one comparison. What is drawn is written down at once, because a moment later the
books of the replicas say something else; the keeper gets it in batches. Failure behaviour: a decision that cannot be
written down or handed over is dropped and counted; no request ever notices.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Final, Protocol

import msgspec

from gateway import __version__
from gateway.beat import paused
from gateway.config.snapshot import DecisionsSpec
from gateway.fleet.snapshot import Candidate
from gateway.pricing.charge import charge
from gateway.routing.chance import Chance
from gateway.routing.decisions.image import ImageError, taken
from gateway.routing.decisions.record import KEEP, Amounts, Decision, Details, Image, Try, packed
from gateway.routing.explain import explanation
from gateway.routing.interface import Plan, RouteRequest
from gateway.routing.outlook import predictions
from gateway.telemetry import logs
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.charge import Charge
from gateway.types.errors import Unavailable, WeirError
from gateway.types.failure import Failure
from gateway.types.method import Asking
from gateway.types.tokens import Usage

MOST_WAITING: Final = 200
"""Decisions that wait for the keeper at most."""
BATCH: Final = 50
_FLUSH_S: Final = 1.0
_NEVER: Final = 1 << 62

_log: Final = logs.logger(__name__)


class Tried(Protocol):
    """A try that failed."""

    @property
    def candidate(self) -> Candidate:
        """Where it went."""

    @property
    def failure(self) -> Failure:
        """Why it failed."""


class Outcome(Protocol):
    """What one answer came to."""

    @property
    def usage(self) -> Usage:
        """Tokens by class."""

    @property
    def ttft(self) -> float | None:
        """Seconds from the arrival of the request to its first output."""

    @property
    def charge(self) -> Charge:
        """What the team pays."""

    @property
    def cost(self) -> Charge:
        """What the owner pays."""


@dataclass(frozen=True, slots=True)
class Note:
    """A decision written down when it was made."""

    plan: Plan
    image: Image


class Recorder:
    """One process's notes of decisions.

    Args:
        books: the keeper.
        metrics: of the process.
        spec: how many are kept.
        chance: which.
    """

    def __init__(self, books: Asking, metrics: GatewayMetrics, spec: DecisionsSpec, chance: Chance) -> None:
        self._books = books
        self._metrics = metrics
        self._chance = chance
        self._waiting: deque[Decision] = deque()
        self._allowance, self._allowed_at = spec.per_second, time.monotonic()
        self._handing = asyncio.Lock()
        self.configure(spec)

    def configure(self, spec: DecisionsSpec) -> None:
        """Keep as many as ``spec`` says from now on."""
        self._spec = spec
        self._until = self._gap()

    def note(self, request: RouteRequest, plan: Plan) -> Note | None:
        """Write the decision down if it is drawn; call it before anything of the plan is carried out."""
        self._until -= 1
        if self._until > 0:
            return None
        self._until = self._gap()
        image = self._image(request, request.considered, whole=True)
        if image is None:
            return None
        explained = msgspec.structs.replace(plan, predictions=predictions(request, plan.scored))
        return Note(explained, image)

    def keep(
        self,
        note: Note | None,
        request_id: bytes,
        requested: str,
        request: RouteRequest,
        plan: Plan,
        tried: Sequence[Tried],
        served: Candidate | None,
        outcome: Outcome | None,
    ) -> None:
        """Keep a decision with what came of it.

        Args:
            note: what was written down when it was made, or None; then it is kept for the tries that failed.
            request_id: of the request.
            requested: the model as the caller named it.
            request: what routing was asked.
            plan: what it decided.
            tried: the tries that failed.
            served: who answered, or None.
            outcome: what the answer came to, or None when there was none.
        """
        if note is None:
            if not self._spec.share:
                return
            image = self._image(request, plan.scored, whole=False)
            if image is None:
                return
            note = Note(msgspec.structs.replace(plan, predictions=predictions(request, plan.scored)), image)
            whole = False
        else:
            whole = True
        details = Details(
            version=__version__,
            requested=requested,
            whole=whole,
            image=note.image,
            explanation=explanation(note.plan),
            tries=[Try(each.candidate.slug, each.failure.cause.value, each.failure.status) for each in tried],
            predicted=_predicted(request, note.plan, served or plan.steps[0]),
            real=_real(outcome),
        )
        decision = Decision(
            request_id=bytes(request_id),
            at_us=time.time_ns() // 1_000,
            model=request.model_id,
            policy=plan.policy,
            pick=plan.steps[0].slug,
            served=served.slug if served is not None else "",
            tries=len(tried),
            content=packed(details),
        )
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._metrics.route_decisions.add(("dropped",))
        self._waiting.append(decision)

    async def run(self) -> None:
        """Hand decisions over to the keeper. Runs until cancelled."""
        while True:
            await asyncio.sleep(paused(_FLUSH_S))
            await self.flush()

    async def flush(self) -> None:
        """Hand over what waits, as far as the keeper is there."""
        async with self._handing:
            await self._hand_over()

    async def _hand_over(self) -> None:
        waiting = self._waiting
        while waiting:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            try:
                await self._books.ask(KEEP, (batch,))
            except Unavailable:
                waiting.extendleft(reversed(batch[: MOST_WAITING - len(waiting)]))
                return
            except WeirError as error:
                self._metrics.route_decisions.add(("dropped",), len(batch))
                _log.warning("decisions were not kept", count=len(batch), reason=error.message)
            else:
                self._metrics.route_decisions.add(("kept",), len(batch))

    def _gap(self) -> int:
        """Return which of the decisions to come is the next one to keep."""
        share = self._spec.share
        if share >= 1.0:
            return 1
        if share <= 0.0:
            return _NEVER
        return 1 + int(log(1.0 - self._chance.random()) / log(1.0 - share))

    def _image(self, request: RouteRequest, candidates: Sequence[Candidate], *, whole: bool) -> Image | None:
        """Return the image of a decision, or None when there were too many of late or it has none."""
        now = time.monotonic()
        most = self._spec.per_second
        self._allowance = min(most, self._allowance + (now - self._allowed_at) * most)
        self._allowed_at = now
        if self._allowance < 1.0:
            self._metrics.route_decisions.add(("dropped",))
            return None
        self._allowance -= 1.0
        try:
            return taken(request, candidates, whole=whole)
        except ImageError as error:
            self._metrics.route_decisions.add(("dropped",))
            _log.warning("a decision was not kept", reason=str(error))
            return None


def _predicted(request: RouteRequest, plan: Plan, served: Candidate) -> Amounts:
    """Return what was to be expected of ``served``."""
    place = next((index for index, each in enumerate(plan.scored) if each is served), None)
    if place is None:
        return Amounts(prompt=request.prompt_tokens, completion=request.expected_tokens)
    found = plan.predictions[place]
    usage = Usage(prompt=request.prompt_tokens, completion=request.expected_tokens, cache_read=found.cached)
    return Amounts(
        prompt=request.prompt_tokens,
        completion=request.expected_tokens,
        cached=found.cached,
        ttft=found.ttft,
        charge=charge(usage, served.endpoint.sold_to(request.team)[0]).total,
        cost=found.cost,
    )


def _real(outcome: Outcome | None) -> Amounts:
    if outcome is None:
        return Amounts()
    usage = outcome.usage
    return Amounts(
        usage.prompt,
        usage.completion,
        usage.cache_read,
        outcome.ttft,
        outcome.charge.total,
        outcome.cost.total,
    )
