"""The tariff over a configuration: prices, costs and terms as they are valid, in place of those of the file. Pure.

What no version speaks of stays as the file has it, so a new model is priced from its first request on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import msgspec

from gateway.config.snapshot import BackendSpec, ConfigSnapshot, EndpointSpec, ModelSpec
from gateway.tariff.version import Hourly, Kind, Stated, Terms, Valid
from gateway.types.money import Rates


def cost_place(spec: EndpointSpec, model: ModelSpec) -> str:
    """Return the place of a cost: the backend, with the model's name there where it serves the model twice."""
    twice = sum(each.backend == spec.backend for each in model.endpoints) > 1
    return f"{spec.backend}/{spec.upstream_model}" if twice else spec.backend


def stated(snapshot: ConfigSnapshot) -> tuple[Stated, ...]:
    """Return what the file of ``snapshot`` says of every subject in it."""
    found: dict[tuple[str, str, str], Stated] = {}
    for model in snapshot.models.values():
        said = [Stated(Kind.SELL, model.id, "", model.price if model.own_price else None)]
        for spec in model.endpoints:
            said.append(Stated(Kind.SELL, model.id, spec.group.slug, spec.price if spec.own_price else None))
            said.append(Stated(Kind.COST, model.id, cost_place(spec, model), spec.cost))
        for each in said:
            # Replicas of an endpoint have one price, but it need not be written at each of them.
            if each.subject not in found or each.rates is not None:
                found[each.subject] = each
    for backend in snapshot.backends.values():
        hourly = None
        if backend.usd_per_hour is not None:
            hourly = Hourly(backend.usd_per_hour, backend.capacity.max_running)
        found[Kind.HOUR, "", backend.name] = Stated(Kind.HOUR, "", backend.name, None, hourly)
    return tuple(found.values())


def priced(snapshot: ConfigSnapshot, valid: Valid) -> ConfigSnapshot:
    """Return ``snapshot`` with what is ``valid`` in place of what its file says of money."""
    teams = sorted({team for team, _ in valid.terms})
    made: dict[tuple[Rates, Terms], Rates] = {}
    return replace(
        snapshot,
        backends=MappingProxyType({name: _backend(spec, valid) for name, spec in snapshot.backends.items()}),
        models=MappingProxyType({id_: _model(spec, valid, teams, made) for id_, spec in snapshot.models.items()}),
    )


def _backend(spec: BackendSpec, valid: Valid) -> BackendSpec:
    if spec.name not in valid.hour:
        return spec
    hourly = valid.hour[spec.name]
    nano = hourly.nano if hourly is not None else None
    return spec if nano == spec.usd_per_hour else replace(spec, usd_per_hour=nano)


def _model(model: ModelSpec, valid: Valid, teams: Sequence[str], made: dict[tuple[Rates, Terms], Rates]) -> ModelSpec:
    own = valid.sell.get((model.id, ""), model.price if model.own_price else None)
    endpoints = []
    for spec in model.endpoints:
        of_endpoint = valid.sell.get((model.id, spec.group.slug), spec.price if spec.own_price else None)
        price = of_endpoint or own or spec.price
        terms = {team: found for team in teams if (found := _terms(valid, team, model.id)) is not None}
        endpoints.append(
            replace(
                spec,
                price=price,
                cost=valid.cost.get((model.id, cost_place(spec, model)), spec.cost),
                team_prices={team: _at(price, each, made) for team, each in terms.items()},
            )
        )
    cheapest = min((spec.price for spec in endpoints), key=lambda rates: rates.prompt + rates.completion)
    return replace(model, price=own or cheapest, endpoints=tuple(endpoints))


def _terms(valid: Valid, team: str, model: str) -> Terms | None:
    """Return the terms of ``team`` for ``model``, those for this model before those for all, or None."""
    found = valid.terms.get((team, model)) or valid.terms.get((team, ""))
    return found if found is not None and (found.discount or found.markup) else None


def _at(rates: Rates, terms: Terms, made: dict[tuple[Rates, Terms], Rates]) -> Rates:
    """Return ``rates`` at ``terms``, one object for all who have both in common."""
    found = made.get((rates, terms))
    if found is None:
        found = msgspec.structs.replace(rates, discount=terms.discount, markup=terms.markup)
        made[rates, terms] = found
    return found
