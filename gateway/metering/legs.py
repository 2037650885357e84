"""Legs: the attempts that together give one answer, because one broke and another went on.

The team pays each token once: the prompt with the first leg, and the output of every leg. What a later leg reads of
prompt and answer so far, and what it makes once more at the seam, is *replayed*: the owner's cost, counted apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from time import monotonic
from typing import Final

import msgspec

from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.metering.record import Close, Dimensions, RowKind, Status
from gateway.metering.tap import Basis, Tap
from gateway.pricing.charge import charge
from gateway.types.call import WHOLE, Call, Need
from gateway.types.charge import NO_CHARGE, Charge
from gateway.types.ids import RequestId
from gateway.types.money import DEFAULT_TIER, Rates
from gateway.types.tokens import NO_USAGE, Usage, UsageSource

_TEMPLATE_TOKENS: Final = 1_024
"""More than what an engine adds to each text to embed or rank: marks, an instruction, the text around a pair."""
_IMAGE_TOKENS: Final = 16_384
"""More than what it makes of an image, which may be there by its address alone."""


class Leg(msgspec.Struct, gc=False):
    """An attempt as far as it got.

    Attributes:
        number: 1-based number of the attempt.
        rates: what the team pays for it, as they were when it was opened.
        opened_us: wall clock then, microseconds since 1970.
        first: monotonic seconds of its first output, 0 when there was none.
        last: monotonic seconds of its last output.
        http_status: what its backend answered, 0 while it has not.
        upstream_id: the engine's own id of the answer.
        error: why it broke, ``""`` when it did not.
        again: tokens of its output that were made once more and are no part of the answer.
    """

    number: int
    candidate: Candidate
    dims: Dimensions
    rates: Rates
    opened_us: int
    tap: Tap
    first: float = 0.0
    last: float = 0.0
    http_status: int = 0
    upstream_id: str = ""
    error: str = ""
    again: int = 0

    def ended(self, http_status: int, upstream_id: str, error: str, again: int = 0) -> Leg:
        """Take note of how the attempt ended; return it."""
        self.http_status, self.upstream_id, self.error, self.again = http_status, upstream_id, error, again
        return self


def opening(number: int, candidate: Candidate, call: Call, team: str, key_id: str, produced: int) -> Leg:
    """Return an attempt at ``candidate`` as it begins, now.

    Args:
        number: 1-based number of the attempt.
        candidate: who is asked.
        call: what for.
        team: who pays, at its own rates where it has some.
        key_id: of the key it was asked with.
        produced: completion tokens given by attempts before, which are part of its prompt.
    """
    endpoint, engine = candidate.endpoint, candidate.replica.engine
    rates, price_id = endpoint.price, endpoint.price_id
    if endpoint.team_prices:
        rates, price_id = endpoint.sold_to(team)
    dims = Dimensions(
        team,
        key_id,
        endpoint.model_id,
        endpoint.slug,
        candidate.replica.name,
        endpoint.provider,
        call.app,
        call.service_tier if call.service_tier and endpoint.sells(call.service_tier) else DEFAULT_TIER,
        call.operation,
        call.model,
        candidate.upstream_model,
        call.user,
        call.stream,
        price_id,
        candidate.cost_id,
    )
    basis = Basis(
        call.operation,
        call.choices,
        call.prompt_estimate + produced,
        engine.delta_is_token,
        engine.counts_all_choices,
        call.prompts,
        endpoint.context_length,
        call.max_tokens,
        _longest_prompt(call, endpoint) if call.operation in WHOLE else 0,
    )
    return Leg(number, candidate, dims, rates, time.time_ns() // 1000, Tap(basis))


def closing(
    leg: Leg,
    request_id: RequestId,
    arrived: float,
    status: Status,
    usage: Usage,
    source: UsageSource,
    paid: Charge,
    spent: Charge,
    discount: Charge = NO_CHARGE,
    *,
    replayed: int = 0,
    later: bool = False,
) -> Close:
    """Return the end of ``leg`` for the journal.

    Args:
        leg: an attempt that has ended, now.
        request_id: of the request.
        arrived: monotonic seconds at which that came.
        status: how the attempt ended.
        usage: what the team has to pay for.
        source: where the counts are from.
        paid: what the team pays.
        spent: what the owner pays.
        discount: what the team pays less than the list price.
        replayed: tokens read or made once more.
        later: whether another one went before it, whose first output was that of the answer.
    """
    first, last = leg.first, leg.last
    return Close(
        request_id,
        leg.number,
        RowKind.USAGE,
        leg.dims,
        leg.opened_us,
        status,
        leg.tap.finish_reason[:64],
        leg.http_status,
        usage,
        source,
        paid,
        spent,
        int((first - arrived) * 1e6) if first and not later else 0,
        int((monotonic() - arrived) * 1e6),
        int((last - first) * 1e6),
        leg.upstream_id[:128],
        leg.error,
        replayed,
        None if discount is NO_CHARGE else discount,
    )


def _longest_prompt(call: Call, endpoint: Endpoint) -> int:
    """Return more tokens than any engine makes of all texts of ``call``, whatever its tokenizer and templates.

    A token is at least a byte of text, or one that the caller gives as a number, which the estimate counts.
    """
    each = _IMAGE_TOKENS if endpoint.capabilities.vision or call.needs & Need.IMAGES else _TEMPLATE_TOKENS
    return call.input_bytes + call.prompt_estimate + each * call.prompts


def share(usage: Usage, again: int) -> tuple[Usage, int]:
    """Return the team's share of what a later leg took, and the tokens that were replayed.

    Args:
        usage: what the engine counts.
        again: tokens it made once more.
    """
    own = Usage(
        completion=max(0, usage.completion - again),
        reasoning=usage.reasoning,
        audio_completion=usage.audio_completion,
        image_completion=usage.image_completion,
    )
    return own, usage.prompt + min(again, usage.completion)


def shares(legs: Sequence[Leg]) -> list[tuple[Usage, UsageSource, int]]:
    """Return for each of ``legs``, first to last, the team's share, where the counts are from, and what was replayed.

    An engine that broke may not have said how long the prompt was. One that went on says it: it read the prompt and
    what there was of the answer.
    """
    counts = [leg.tap.count() for leg in legs]
    found: list[tuple[Usage, UsageSource, int]] = []
    for leg, (usage, source) in zip(legs, counts, strict=True):
        if found and leg.tap.silent and source is not UsageSource.UPSTREAM:
            found.append((NO_USAGE, UsageSource.NONE, 0))  # stopped before its first token: what it read is not known
            continue
        own, replayed = share(usage, leg.again) if found else (usage, 0)
        found.append((own, source, replayed))
    first, source, _ = found[0]
    if source is not UsageSource.UPSTREAM:
        made = first.completion
        for (own, _, _), (usage, said) in zip(found[1:], counts[1:], strict=True):
            if said is UsageSource.UPSTREAM and usage.prompt > made:
                found[0] = (Usage(usage.prompt - made, first.completion), UsageSource.COUNTED, 0)
                break
            made += own.completion
    return found


def at_served_tier(leg: Leg, usage: Usage, context: int | None = None) -> Leg:
    """Return ``leg`` as it is charged: at the service tier that its engine says it served, or at the one asked for.

    The former where the endpoint sells it and it comes to no more; a caller who asked for less never pays for more.

    Args:
        leg: labelled with the tier that was asked for.
        usage: what the team may have to pay for.
        context: input tokens of the whole request, when ``usage`` is only a part of it.
    """
    served, asked = leg.tap.tier, leg.dims.tier
    if served in ("", asked) or not (served == DEFAULT_TIER or leg.candidate.endpoint.sells(served)):
        return leg
    totals = [charge(usage, leg.rates, tier, context=context).total for tier in (served, asked)]
    if totals[0] > totals[1]:
        return leg
    return msgspec.structs.replace(leg, dims=msgspec.structs.replace(leg.dims, tier=served))


def cost(candidate: Candidate, usage: Usage, tier: str) -> Charge:
    """Return what ``usage``, all that the engine counts, costs the owner when served at service tier ``tier``."""
    return charge(usage, candidate.cost, tier) if candidate.cost is not None and usage.total else NO_CHARGE
