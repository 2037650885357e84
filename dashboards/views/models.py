"""Models and prices: what callers can name, who serves it at which price, and every price version there ever was."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from dashboards import forms
from dashboards.visit import Page, Visit
from gateway.console.roles import Permission
from gateway.fleet.snapshot import Model
from gateway.tariff.form import Wanted, content_form, proposal_of
from gateway.tariff.version import ACCEPT, VERSIONS, Kind, Version, VersionQuery
from gateway.types.errors import BadRequest, NotFound
from gateway.types.money import Rates, usd_per_million_text

PATH: Final = "/console/models"
PAGE: Final = 25
SHOWN: Final = 25
"""Models of a page."""
_OWN: Final = (Kind.COST, Kind.HOUR)
"""Kinds of versions that say what the owner pays."""


def per_million(rates: Rates) -> dict[str, str]:
    """Return the rates people ask for first, in USD per million tokens."""
    full = rates.resolved()
    return {name: _cents(getattr(full, name)) for name in ("prompt", "completion", "cache_read")}


def _cents(rate: int) -> str:
    """Return a rate with two decimals at least, so that prices stand under one another."""
    whole, _, decimals = usd_per_million_text(rate).partition(".")
    return f"${whole}.{decimals.ljust(2, '0')}"


def said(version: Version) -> str:
    """Return what a version says, in a line."""

    def words(name: str, value: Any) -> str:
        if isinstance(value, dict):
            return "; ".join(f"{key.replace('_', ' ')} {each}" for key, each in value.items() if isinstance(each, str))
        return f"{name.replace('_', ' ')} {value}"

    return "; ".join(words(name, value) for name, value in content_form(version).items() if value is not None)


def _agrees(model: Model, wanted: str) -> bool:
    """Return whether a model, one of its endpoints or of its backends is called like ``wanted``."""
    places = (f"{each.endpoint.slug} {each.replica.name}" for each in model.candidates)
    return not wanted or wanted in " ".join((model.id, model.name, *places)).lower()


async def listed(visit: Visit) -> Response:
    """List the models, and a page of price versions."""
    return await _listed(visit, {})


async def _listed(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    sees_cost = visit.may(Permission.COST_SEE)
    changes = visit.may(Permission.PRICES_CHANGE)
    model = visit.asked("model")
    fleet = visit.site.registry.fleet
    query = VersionQuery(
        kind=None if sees_cost else Kind.SELL.value,
        model=model or None,
        place=None,
        before=forms.cursor(visit.asked("before")),
        limit=PAGE,
    )
    versions = await visit.site.books.ask(VERSIONS, (query,))
    wanted, page = visit.asked("q").lower(), visit.page_number
    found = [each for each in sorted(fleet.models.values(), key=lambda each: each.id) if _agrees(each, wanted)]
    return visit.render(
        "models.html",
        status=status,
        models=found[SHOWN * (page - 1) : SHOWN * page],
        ids=sorted(fleet.models),
        wanted=wanted,
        count=len(found),
        page=page,
        pages=-(-len(found) // SHOWN),
        aliases=sorted(fleet.aliases.items()),
        per_million=per_million,
        versions=versions,
        said=said,
        more=versions[-1].version_id if len(versions) == PAGE else 0,
        model=model,
        places=sorted({endpoint.slug for each in fleet.models.values() for endpoint in each.endpoints}),
        sees_cost=sees_cost,
        changes=changes,
        errors=errors,
        form=visit.form,
        done=visit.asked("done"),
    )


async def set_price(visit: Visit) -> Response:
    """Make a version of a model's price; requests that run keep the one they began with."""
    form = visit.form
    model = form.get("model", "")
    if model not in visit.site.registry.fleet.models:
        raise NotFound("there is no such model")
    price = {name: form.get(name, "").strip() for name in ("prompt", "completion", "cache_read")}
    for name in ("prompt", "completion"):
        if not price[name]:
            return await _listed(visit, {name: "USD per million tokens, such as 0.10"}, 400)
    if not form.get("why", "").strip():
        return await _listed(visit, {"why": "say why, for whoever asks in a year"}, 400)
    try:
        wanted = Wanted(
            kind=Kind.SELL,
            model=model,
            place=form.get("place", "").strip(),
            price={name: value for name, value in price.items() if value},
            valid_from=form.get("valid_from", "").strip() or None,
            why=form["why"].strip(),
        )
        await visit.site.books.ask(ACCEPT, ((proposal_of(wanted, who=visit.login, source="console"),),))
    except BadRequest as error:
        field = "valid_from" if "valid_from" in error.message else "prompt"
        return await _listed(visit, forms.problem(error, field), 400)
    return visit.go(PATH, done="priced", model=model)


PAGES: Final = (
    Page(PATH, listed, Permission.MODELS_SEE),
    Page(PATH, set_price, Permission.PRICES_CHANGE, ("POST",)),
)
