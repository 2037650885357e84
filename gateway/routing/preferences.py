"""What a caller's names mean here: models with suffixes, fallback models, providers, quantizations.

A name that means nothing is refused with the field that holds it and the names that were perhaps meant: a mistyped
``provider.ignore`` must never send a prompt where it was not to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

import msgspec

from gateway.fleet.snapshot import Candidate, Fleet, Model
from gateway.routing.candidates import MayUse, resolve
from gateway.routing.interface import RouteRequest
from gateway.routing.refusal import near_names, unknown_model
from gateway.types.errors import BadRequest, Forbidden, NotFound
from gateway.types.guardrails import Rule
from gateway.types.preferences import UNKNOWN_QUANTIZATION, Preferences, Sort

SUFFIXES: Final = {"nitro": Sort.THROUGHPUT, "floor": Sort.PRICE, "exacto": Sort.EXACTO}
"""Routing suffixes of a model's name: any model may have them, and several; the last one decides."""
QUANTIZATIONS: Final = frozenset(
    {"int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32", UNKNOWN_QUANTIZATION}
)
"""Quantizations that may be asked for even where no endpoint has them."""
_NONE: Final = Preferences()
_REFUSED: Final = {
    "online": "there is no web search here; leave the suffix out",
}


def gather(fleet: Fleet, request: RouteRequest, rng: Random, may_use: MayUse | None = None) -> Sequence[Candidate]:
    """Return every candidate of every model that may answer, in the order of the models.

    ``request.model_id`` becomes the id of the first model, and what suffixes ask for is added to
    ``request.preferences``.

    Raises:
        NotFound: there is no such model.
        BadRequest: a provider or a quantization that is nowhere, or a suffix for something that does not exist here.
    """
    wishes = request.preferences
    model, sort = named(fleet, request.model_id, rng, may_use=may_use)
    request.model_id = model.id
    if wishes is None:
        if sort is not None:
            request.preferences = Preferences(sorts={model.id: sort})
        return model.candidates
    models = {model.id: model}
    sorts = {} if sort is None else {model.id: sort}
    for place, name in enumerate(wishes.models):
        found, sort = named(fleet, name, rng, f"models[{place}]", may_use)
        models.setdefault(found.id, found)
        if sort is not None:
            sorts.setdefault(found.id, sort)
    # What the body says of sorting is said on purpose; a suffix may be part of a name somebody else has chosen.
    if sorts and wishes.sort is None:
        request.preferences = msgspec.structs.replace(wishes, sorts=sorts)
    candidates = [candidate for each in models.values() for candidate in each.candidates]
    _check_slugs(fleet, candidates, wishes)
    _check_quantizations(candidates, wishes)
    return candidates


def named(
    fleet: Fleet, name: str, rng: Random, param: str = "model", may_use: MayUse | None = None
) -> tuple[Model, Sort | None]:
    """Return the model that ``name`` means and how its routing suffixes sort its endpoints.

    A name that a model or an alias has is meant as it stands, whatever it ends with. An alias draws.

    Raises:
        NotFound: there is no such model.
        BadRequest: a suffix stands for something that does not exist here.
    """
    if name in fleet.models or name in fleet.aliases:
        return resolve(fleet, name, rng, may_use), None
    stem = stem_of(fleet, name)
    if stem is None:
        raise _unknown(fleet, name, param, may_use)
    suffixes = name[len(stem) + 1 :].split(":")
    for suffix in suffixes:
        if suffix in _REFUSED:
            raise BadRequest(f"the model suffix :{suffix} is not served: {_REFUSED[suffix]}", param=param)
    return resolve(fleet, stem, rng, may_use), SUFFIXES[suffixes[-1]]


def stem_of(fleet: Fleet, name: str) -> str | None:
    """Return the model or alias that ``name`` is with as few routing suffixes taken off as can be, or None."""
    while name not in fleet.models and name not in fleet.aliases:
        name, colon, suffix = name.rpartition(":")
        if not colon or not (suffix in SUFFIXES or suffix in _REFUSED):
            return None
    return name


def allowed(rule: Rule, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return the candidates that guardrails allow. Raises ``Forbidden`` when there is none, with the reasons."""
    kept, reasons = [], []
    for candidate in candidates:
        backend = candidate.replica.backend
        reason = rule.objection(
            candidate.endpoint.model_id, candidate.names, zdr=backend.zdr, collects=backend.collects
        )
        if reason:
            reasons.append(reason)
        else:
            kept.append(candidate)
    if kept or not reasons:
        return kept
    said = list(dict.fromkeys(reasons))
    raise Forbidden(
        f"not allowed here: {'; '.join(said)}",
        metadata={"availability": {"code": "privacy_restricted", "retryable": False}, "reasons": said},
    )


def targets(fleet: Fleet, name: str, allowed: frozenset[str]) -> Iterable[str]:
    """Return the ids of models that ``name``, suffixes aside, stands for if it is an alias among ``allowed``."""
    stem = stem_of(fleet, name)
    return [model_id for model_id, _ in fleet.aliases.get(stem, ())] if stem is not None and stem in allowed else ()


def _unknown(fleet: Fleet, name: str, param: str, may_use: MayUse | None) -> NotFound:
    """Return the error for a model that there is not; one that a backend serves unpriced is told apart."""
    known = [*fleet.models, *fleet.aliases]
    if may_use is not None:
        known = [each for each in known if any(may_use(id_, each) for id_, _ in fleet.aliases.get(each, ((each, 1),)))]
    offers = sorted(replica.name for replica in fleet.replicas.values() if name in replica.load.offers)
    if offers:
        return NotFound(
            f"the model {name[:100]!r} is offered by {', '.join(offers)}, but it has no price here and is not served; "
            "the operator can adopt it: add it to models with a price",
            param=param,
            metadata={"offered_by": offers, "near": near_names(name, known)},
        )
    error = unknown_model(name, known)
    error.param = param
    return error


def _check_slugs(fleet: Fleet, candidates: Sequence[Candidate], wishes: Preferences) -> None:
    """Refuse a slug that means no endpoint of any model."""
    asked = (("order", wishes.order), ("only", wishes.only), ("ignore", wishes.ignore))
    if not any(slugs for _, slugs in asked):
        return
    own = {name for candidate in candidates for name in candidate.names}
    every: set[str] = set()
    for field, slugs in asked:
        for place, slug in enumerate(slugs):
            if slug in own:
                continue
            every = every or {
                name for model in fleet.models.values() for candidate in model.candidates for name in candidate.names
            }
            if slug not in every:
                raise _nowhere(f"provider.{field}[{place}]", "provider", slug, own, _endpoints(candidates))


def _check_quantizations(candidates: Sequence[Candidate], wishes: Preferences) -> None:
    """Refuse a quantization that is neither a word for one nor configured."""
    if not wishes.quantizations:
        return
    configured = {(candidate.endpoint.quantization or UNKNOWN_QUANTIZATION).casefold() for candidate in candidates}
    for place, word in enumerate(wishes.quantizations):
        if word not in QUANTIZATIONS and word not in configured:
            known = QUANTIZATIONS | configured
            raise _nowhere(f"provider.quantizations[{place}]", "quantization", word, known, sorted(known))


def _endpoints(candidates: Iterable[Candidate]) -> list[str]:
    return list(dict.fromkeys(candidate.endpoint.slug for candidate in candidates))


def _nowhere(param: str, noun: str, name: str, known: Iterable[str], choices: Sequence[str]) -> BadRequest:
    """Return the error for a name that means nothing, with what would."""
    near = near_names(name, sorted(known))
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(choices)}"
    return BadRequest(
        f"{param}: there is no {noun} {name[:100]!r}; {hint}",
        param=param,
        metadata={"near": near, "available": list(choices)},
    )
