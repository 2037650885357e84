"""The purse of a worker: what a request asks of limits and budgets, and what it gives back.

A request whose key has no limits, and whose key, team and models no hard budget names, passes without a question. All
others ask the keeper once, for both together. What is asked of budgets is the most that the request can cost; a
request that set no length and does not fit whole gets as much as is left, its length cut to that, and is told so.

Refusals are ``RateLimited`` (429) and ``PaymentRequired`` (402); a keeper that is away is ``Unavailable`` (503).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from gateway.access.bound import affordable, answer_tokens, most
from gateway.access.limits import refusal
from gateway.access.principal import Principal
from gateway.fleet.snapshot import Model
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.budgets import Paid, Scope, Scopes, Shortfall, Spend, iso_day
from gateway.types.call import Call, Need, Operation
from gateway.types.errors import BudgetNear, PaymentRequired, Unavailable
from gateway.types.ids import unix_ms
from gateway.types.keys import LimitBook
from gateway.types.money import usd_json

SHORTEST: Final = 1_024
"""Tokens of an answer that are worth giving a request that set no length and cannot have all."""
BUSY_RETRY_S: Final = 1.0
"""Nobody knows when a running request ends or a host gives back; a second is a polite guess."""
AGAIN_S: Final = 1.0
"""Seconds between two looks whether a failing journal has taken the end of a request."""
_UNCOUNTED: Final = Need.IMAGES | Need.AUDIO


class Ends(Protocol):
    """What is needed of the journal."""

    def committed(self, callback: Callable[[Unavailable | None], None]) -> None:
        """Call ``callback`` once everything appended so far is durable, or with an error when it is not yet."""


class Leave(msgspec.Struct, frozen=True, gc=False):
    """Leave to run one request.

    Attributes:
        hold: id to settle with, 0 when nothing is to be settled.
        reserved: the most that may be charged, nano-USD, or None when no budget bounds it.
        alone: only the team's own keys for providers may be used: the budget has no more than their fee.
    """

    hold: int
    reserved: int | None = None
    alone: bool = False


class Purse:
    """See the module.

    Args:
        loop: of the worker.
        books: the keeper.
        journal: where the ends of requests are written.
        models: returns every model that may answer a call; empty when there is none.
        metrics: of the worker.
    """

    __slots__ = ("_books", "_journal", "_loop", "_metrics", "_models", "_scopes")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        books: LimitBook,
        journal: Ends,
        models: Callable[[Call], Sequence[Model]],
        metrics: GatewayMetrics,
    ) -> None:
        self._loop = loop
        self._books = books
        self._journal = journal
        self._models = models
        self._metrics = metrics
        self._scopes = Scopes()

    def learn(self, scopes: Sequence[Scope]) -> None:
        """Take note of the scopes of all hard budgets."""
        self._scopes = Scopes(scopes)

    def reach(self, call: Call) -> set[tuple[str, str]]:
        """Return model and slug of every endpoint that may answer ``call``."""
        return {(model.id, endpoint.slug) for model in self._models(call) for endpoint in model.endpoints}

    def applies(self, principal: Principal) -> bool:
        """Whether a request of ``principal`` has to ask at all, as far as can be told without looking at it."""
        return not (self._scopes.empty and principal.limits.unlimited)

    async def admit(
        self,
        call: Call,
        principal: Principal,
        request_id: bytes,
        tokens: int,
        priced: Callable[[Sequence[Model]], Sequence[Model]] | None = None,
    ) -> Leave:
        """Ask to run ``call``.

        Args:
            call: what is asked; its length may be cut.
            principal: who asks.
            request_id: whose time decides the windows.
            tokens: expected tokens, for the token limit.
            priced: returns models as they are charged to this team, when that is not by their own prices.

        Raises:
            RateLimited: a limit of the key is reached.
            PaymentRequired: a hard budget has not enough left; ``BudgetNear`` when it might have if ``call.counted``
                were known.
            Unavailable: the keeper cannot be asked, or a budget's lease cannot be had.
        """
        models = self._budgeted(call, principal)
        if models and priced is not None:
            models = priced(models)
            if not models:
                raise PaymentRequired("the budget has not enough left, and no key of your own is for this request")
        spend = None
        if models:
            cost = most(call, models, principal.team)
            least = cost.whole
            if call.max_tokens is None and cost.length > SHORTEST:
                least = max(cost.fixed, _shortest(call, models, principal.team))
            spend = Spend(
                unix_ms(request_id),
                principal.team,
                tuple(model.id for model in models),
                cost.whole,
                min(least, cost.whole),
            )
        elif principal.limits.unlimited:
            return _FREE
        grant = await self._books.admit(principal.key_id, principal.limits, tokens, spend)
        if grant.refused is not None:
            self._metrics.limit_refusals.add((grant.refused,))
            if grant.shortfall is None or spend is None:
                raise refusal(grant, principal.limits, time.time() * 1000)
            kind = BudgetNear if _near(call, models, principal.team, grant.shortfall.free) else PaymentRequired
            raise self._too_dear(kind, call, principal, models, grant.shortfall, spend)
        if spend is not None and grant.reserved is not None and grant.reserved < spend.amount:
            longest = max(answer_tokens(call, endpoint) for model in models for endpoint in model.endpoints)
            call.max_tokens = call.shortened = max(1, affordable(call, models, principal.team, grant.reserved, longest))
            self._metrics.budget_shortened.add(())
        return Leave(grant.hold, grant.reserved)

    def settle(self, leave: Leave, tokens: int, paid: Paid, excess: int) -> None:
        """End a request, which took ``tokens`` tokens and was charged ``paid``.

        Args:
            leave: as given.
            tokens: prompt and completion.
            paid: what the team was charged, by model.
            excess: nano-USD that it cost beyond what was reserved.
        """
        if not leave.hold:
            return
        if leave.reserved is None:
            self._books.settle(leave.hold, tokens)
            return
        if excess:
            self._metrics.budget_excess.add((), excess / 1e9)
        self._settle_durably(leave.hold, tokens, paid)

    def _settle_durably(self, hold: int, tokens: int, paid: Paid) -> None:
        """Settle once the end of the request is in the journal: what is reserved again must not be charged twice."""

        def written(error: Unavailable | None) -> None:
            if error is None:
                self._books.settle(hold, tokens, paid)
            else:
                self._loop.call_later(AGAIN_S, self._settle_durably, hold, tokens, paid)

        self._journal.committed(written)

    def _budgeted(self, call: Call, principal: Principal) -> Sequence[Model]:
        """Return every model that may answer when a hard budget concerns any of them, else none."""
        if self._scopes.empty:
            return ()
        named = self._scopes.models(principal.key_id, principal.team)
        if not named:
            return ()
        models = self._models(call)
        return models if "" in named or any(model.id in named for model in models) else ()

    @staticmethod
    def _too_dear(
        kind: type[PaymentRequired],
        call: Call,
        principal: Principal,
        models: Sequence[Model],
        short: Shortfall,
        spend: Spend,
    ) -> PaymentRequired:
        """Return the error for a request that a budget has not enough for."""
        waits = short.waits(spend.least)
        longest = max((answer_tokens(call, endpoint) for model in models for endpoint in model.endpoints), default=0)
        fits = affordable(call, models, principal.team, short.free, longest)
        resets = iso_day(short.window.end(short.window_day))
        name = f"the {short.window.value} budget of {short.scope}"
        said = f"{name} has {_usd(short.free)} of {_usd(short.limit_nano)} USD left"
        if waits:
            said += "; requests under way hold more of it"
        mend = f"ask for at most {fits} tokens" if fits else "shorten the prompt" if short.free else ""
        mend = " or ".join(filter(None, (mend, f"wait until {resets}" if resets else "")))
        return kind(
            f"this request may cost {_usd(short.wanted)} USD and {said}" + (f": {mend}" if mend else ""),
            metadata={
                "limit_source": "budget",
                "budget": short.budget_id,
                "reason": "in_flight" if waits else "limit",
                "scope": {
                    "key": short.scope.key_id or None,
                    "team": short.scope.team or None,
                    "model": short.scope.model or None,
                },
                "window": short.window.value,
                "limit_usd": msgspec.Raw(usd_json(short.limit_nano)),
                "remaining_usd": msgspec.Raw(usd_json(short.left)),
                "available_usd": msgspec.Raw(usd_json(short.free)),
                "needed_usd": msgspec.Raw(usd_json(short.wanted)),
                "affordable_tokens": fits,
                "resets_at": resets,
            },
            retry_after=BUSY_RETRY_S if waits else None,
        )


_FREE: Final = Leave(0)


def _shortest(call: Call, models: Sequence[Model], team: str) -> int:
    """Return what ``call`` costs at most with the shortest answer that is worth giving."""
    return most(msgspec.structs.replace(call, max_tokens=SHORTEST), models, team).whole


def _usd(nano: int) -> str:
    return usd_json(nano).decode("ascii")


def _near(call: Call, models: Sequence[Model], team: str, free: int) -> bool:
    """Return whether ``free`` nano-USD would do for ``call`` if its prompt had as few tokens as texts may have.

    Images and audio are not counted like text, and documents are not counted by every engine.
    """
    plain = call.operation is Operation.CHAT and not call.needs & _UNCOUNTED and "documents" not in call.body
    if call.counted is not None or not plain:
        return False
    wanted = SHORTEST if call.max_tokens is None else call.max_tokens
    hopeful = msgspec.structs.replace(call, counted=max(1, call.prompt_estimate // 2))
    return affordable(hopeful, models, team, free, wanted) >= wanted
