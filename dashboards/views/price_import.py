"""Prices from elsewhere: looking them up, what they would change, and accepting line by line.

Nothing a source says is applied by itself. What was found travels with the form, so nothing is kept between the steps;
what is accepted is judged anew, and refused when anybody made a version since the difference was shown.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from starlette.responses import Response

from dashboards import forms
from dashboards.visit import Page, Visit
from gateway.console.roles import Permission
from gateway.tariff.apart import looked_up
from gateway.tariff.form import moment_of
from gateway.tariff.offers import (
    Found,
    Offer,
    change_form,
    changes,
    offers_form,
    offers_of,
    proposals,
    rates_now,
    targets,
)
from gateway.tariff.sources import GENAI, LITELLM, from_litellm
from gateway.tariff.version import ACCEPT_AT, LEAD_US, TARIFF, Kind, Known, valid
from gateway.types.errors import BadRequest, Conflict

MODELS: Final = "/console/models"
PATH: Final = "/console/models/import"
LARGEST: Final = 16 * 1024 * 1024
SOURCES: Final = ((GENAI, "genai-prices, the data of the installed package"), (LITELLM, "LiteLLM's price map, a file"))
KINDS: Final = ((Kind.COST.value, "what external APIs cost the owner"), (Kind.SELL.value, "what teams are charged"))


@dataclass(frozen=True, slots=True)
class Line:
    """An offer with what it would change; ``number`` is its place in the document that travels with the form."""

    number: int
    offer: Offer
    changes: list[dict[str, Any]]


async def shown(visit: Visit) -> Response:
    """Ask for a source."""
    return _asking(visit, {})


def _asking(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    return visit.render(
        "price_import.html", status=status, sources=SOURCES, kinds=KINDS, errors=errors, form=visit.form
    )


async def look_up(visit: Visit) -> Response:
    """Look prices up and show what they would change."""
    try:
        found = await _found(visit)
    except (forms.Wrong, BadRequest) as error:
        return _asking(visit, forms.problem(error, "file"), 400)
    return await _difference(visit, found)


async def _found(visit: Visit) -> Found:
    """Return what the source says. Raises ``Wrong`` and ``BadRequest``."""
    form, source, kind = visit.form, visit.form.get("source", ""), visit.form.get("kind", "")
    if kind not in dict(KINDS):
        raise forms.Wrong("kind", "choose what is looked up")
    names = _names(form.get("map", ""))
    provider = form.get("provider", "").strip() or None
    wanted = targets(visit.site.config(), Kind(kind))
    if source == GENAI:
        return await looked_up(wanted, names, provider)
    if source != LITELLM:
        raise forms.Wrong("source", "choose a source")
    if "file" not in visit.files:
        raise forms.Wrong("file", "choose the file, model_prices_and_context_window.json")
    return await asyncio.to_thread(from_litellm, visit.files["file"], wanted, names, provider)


def _names(text: str) -> dict[str, str]:
    """Return what a source calls models of ours: lines ``OURS=THEIRS``."""
    pairs = [line.partition("=") for line in text.splitlines() if line.strip()]
    if any(not ours.strip() or not theirs.strip() for ours, _, theirs in pairs):
        raise forms.Wrong("map", "one OURS=THEIRS a line")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


async def _difference(visit: Visit, found: Found, errors: dict[str, str] | None = None, status: int = 200) -> Response:
    """Show what accepting each offer would change now."""
    known = await visit.site.books.ask(TARIFF, (0,)) or Known(0, ())
    now = valid(known.versions, time.time_ns() // 1_000 + 2 * LEAD_US)
    differing = [
        (offer, [change_form(change) for change in changed])
        for offer in found.offers
        if (changed := changes(rates_now(now, offer.target), offer.rates))
    ]
    kept = replace(found, offers=tuple(offer for offer, _ in differing), missing=(), unclear=())
    return visit.render(
        "price_diff.html",
        status=status,
        found=found,
        lines=[Line(number, offer, changed) for number, (offer, changed) in enumerate(differing)],
        same=len(found.offers) - len(differing),
        document=msgspec.json.encode(offers_form(kept)).decode(),
        revision=known.revision,
        taken=_taken(visit, found),
        errors=errors or {},
        form=visit.form,
    )


def _taken(visit: Visit, found: Found) -> set[tuple[str, str]]:
    """Return model and place of the lines that are ticked."""
    every = visit.form.get("all") == "yes"
    numbers = {forms.whole(each) for each in visit.many.get("take", ())}
    return {
        (offer.target.model, offer.target.place)
        for number, offer in enumerate(found.offers)
        if every or number in numbers
    }


async def accept(visit: Visit) -> Response:
    """Make versions of the ticked lines, or of all."""
    form = visit.form
    try:
        found = offers_of(msgspec.json.decode(form.get("offers", "")))
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest("the form is not whole: look the prices up again") from None
    taken = _taken(visit, found)
    chosen = tuple(each for each in found.offers if (each.target.model, each.target.place) in taken)
    if not chosen:
        return await _difference(visit, found, {"take": "tick what is to be accepted"}, 400)
    why, revision = form.get("why", "").strip(), form.get("revision", "")
    if not why:
        return await _difference(visit, found, {"why": "say why, for whoever asks in a year"}, 400)
    try:
        moment = moment_of(form["valid_from"].strip(), "valid from") if form.get("valid_from", "").strip() else 0
    except BadRequest as error:
        return await _difference(visit, found, {"valid_from": error.message}, 400)
    wanted = proposals(replace(found, offers=chosen), who=visit.login, why=why, valid_from_us=moment)
    try:
        at = int(revision) if revision.isascii() and revision.isdigit() and len(revision) < 19 else -1
        made = await visit.site.books.ask(ACCEPT_AT, (tuple(wanted), at))
    except Conflict:
        return await _difference(visit, found, {"version": forms.STALE}, 409)
    except BadRequest as error:
        field = "valid_from" if "valid_from" in error.message else "take"
        return await _difference(visit, found, {field: error.message}, 400)
    return visit.go(MODELS, done="accepted", count=str(len(made)))


PAGES: Final = (
    Page(PATH, shown, Permission.PRICES_CHANGE),
    Page(PATH, look_up, Permission.PRICES_CHANGE, ("POST",), upload=LARGEST),
    Page(f"{PATH}/accept", accept, Permission.PRICES_CHANGE, ("POST",)),
)
