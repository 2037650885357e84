"""The page of a model: who serves it at what price and how well, how much it is used, how to call it.

A stranger sees it where the ranking of models is shown without a key, and so does somebody who has signed in and has no
role; others see it where their role sees the models. A model that is not served any more keeps its page as long as the
books know of its usage; any other id is 404. Usage is that of the ranking of models: where a visitor may not see that,
the page does without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.responses import Response

from dashboards import figures, standings
from dashboards.charts.lines import Lines, lines
from dashboards.charts.strata import Strata, strata
from dashboards.sheets import csv_of
from dashboards.standings import Choice
from dashboards.views.models import per_million
from dashboards.views.rankings import json_of, packed
from dashboards.visit import SIGN_IN, Page, Visit
from gateway.console.measure import PACES, USAGE, Pick, Speed, UsageQuestion
from gateway.console.roles import Permission
from gateway.edge.endpoints import endpoint_object
from gateway.edge.models import model_object
from gateway.fleet.snapshot import Endpoint, Model
from gateway.leaderboard.question import BOARD, MilestoneRecord, Question, Standing
from gateway.leaderboard.ranking import value_of
from gateway.leaderboard.window import Window, today
from gateway.types.errors import Forbidden, NotFound, Unauthorized

ROWS: Final = 500
HOURS: Final = 48
"""Of speeds that are drawn."""
PACES_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Offer:
    """An endpoint as callers choose it: prices in words, what it met lately."""

    tag: str
    provider: str
    quantization: str
    region: str
    context: int
    most: int | None
    price: Mapping[str, str]
    up: bool
    uptime_5m: float | None
    uptime_30m: float | None
    latency: Mapping[str, float]
    throughput: Mapping[str, float]


async def shown(visit: Visit) -> Response:
    """Show the page."""
    model_id = f"{visit.named('author')}/{visit.named('slug')}"
    try:
        _admit(visit)
    except Unauthorized:
        return visit.go(SIGN_IN, next=visit.request.url.path)
    model = visit.site.registry.fleet.models.get(model_id)
    choice = _choice(visit)
    standing, names = await _standing(visit, choice, model_id)
    if model is None and standing is None:
        raise NotFound(f"there is no model {model_id[:120]}")
    passed = await _passed(visit, choice, model_id) if standing is not None else []
    first_token, throughput = await _speeds(visit, model_id) if standing is not None else (None, None)
    answered = await _answered(visit, choice, model_id) if standing is not None else None
    page = visit.render(
        "model.html",
        id=model_id,
        name=model.name if model is not None else model_id.partition("/")[2],
        about=model_object(model) if model is not None else None,
        offers=_offers(model),
        choice=choice,
        spans=standings.SPANS,
        standing=standing,
        fresh=standing is not None and await standings.is_new(visit, choice, standings.look(visit, "model")),
        names=names,
        usage=_usage(standing, choice),
        first_token=first_token,
        throughput=throughput,
        answered=answered,
        percent=_percent,
        per_dollar=_per_dollar(standing),
        seconds=figures.seconds,
        tick=partial(standings.tick, "tokens"),
        rate=_rate,
        exact=standings.exact("tokens"),
        passed=passed,
        site=standings.root(visit),
    )
    return packed(visit, page)


def _admit(visit: Visit) -> None:
    """Let a visitor in. Raises ``Unauthorized`` for strangers and ``Forbidden`` for others who see no models."""
    if visit.roleless:
        standings.look(visit, "model")
    elif not visit.may(Permission.MODELS_SEE):
        raise Forbidden("your role does not reach the models: an admin can give you another one")


def _choice(visit: Visit) -> Choice:
    days = standings.days_of(visit, "90")
    last = today(visit.now_us)
    return Choice("model", "tokens", days, "", "", Window("day", last - days + 1, last))


async def _standing(visit: Visit, choice: Choice, model_id: str) -> tuple[Standing | None, int]:
    """Return where the model stands among how many; None when it was not used or the visitor may not see that."""
    try:
        view = standings.look(visit, "model")
    except (Forbidden, Unauthorized):
        return None, 0
    window = choice.window
    asked = Question("model", "tokens", window.first, window.last, "day", view.team, ROWS, "charge", view.approved)
    board = await standings.kept(visit, BOARD, (asked,), standings.FRESH_S)
    return next((row for row in board.rows if row.name == model_id), None), board.names


async def _passed(visit: Visit, choice: Choice, model_id: str) -> list[MilestoneRecord]:
    view = standings.look(visit, "model")
    return [each for each in await standings.milestones_of(visit, choice, view) if each.model == model_id]


def _usage(standing: Standing | None, choice: Choice) -> Strata:
    """Return the chart of tokens a day."""
    series: Sequence[tuple[str, Sequence[int]]] = [("Tokens", standing.series)] if standing is not None else []
    return strata(choice.labels, series, [0] * choice.days, partial(standings.tick, "tokens"), choice.marks)


async def _paces(visit: Visit, model_id: str) -> dict[str, Speed]:
    """Return the percentiles of the last hours by hour, in order; an hour in which nothing was measured has none."""
    last = visit.now_us // 3_600_000_000
    team = standings.look(visit, "model").team
    pick = Pick((team,) if team else None, model=model_id)
    paces = await standings.kept(visit, PACES, (last - HOURS + 1, last, pick), PACES_S)
    known = {pace.hour: pace.speed for pace in paces}
    hours = range(last - HOURS + 1, last + 1)
    return {Window("hour", hour, hour).text(hour): known.get(hour, Speed(None, None, None)) for hour in hours}


async def _speeds(visit: Visit, model_id: str) -> tuple[Lines, Lines]:
    """Return the charts of the time to the first token and of the tokens per second, by hour."""
    told = await _paces(visit, model_id)
    labels, found = list(told), list(told.values())
    marks = [label[11:16] for label in labels]
    waits = [
        ("half wait less", [each.ttft_p50 for each in found]),
        ("95 % wait less", [each.ttft_p95 for each in found]),
    ]
    rates = [("half are faster", [each.rate_p50 for each in found])]
    return lines(labels, waits, figures.seconds, marks), lines(labels, rates, _rate, marks)


async def _shares(visit: Visit, choice: Choice, model_id: str) -> list[float | None]:
    """Return the share of attempts that engines answered, by day."""
    window, team = choice.window, standings.look(visit, "model").team
    asked = UsageQuestion("day", window.first, window.last, pick=Pick((team,) if team else None, model=model_id))
    days = {row.point: row for row in await standings.kept(visit, USAGE, (asked,), PACES_S)}
    shares: list[float | None] = []
    for day in range(window.first, window.last + 1):
        row = days.get(day)
        tried = row.requests + row.retries if row is not None else 0
        shares.append((row.requests - row.errors) / tried if row is not None and tried else None)
    return shares


async def _answered(visit: Visit, choice: Choice, model_id: str) -> Lines:
    """Return the chart of the share of attempts that engines answered, by day."""
    shares = await _shares(visit, choice, model_id)
    return lines(choice.labels, [("answered", shares)], figures.percent, choice.marks)


async def data(visit: Visit) -> Response:
    """Give the numbers of the charts: tokens and uptime by day, or speeds by hour, as CSV or JSON."""
    model_id = f"{visit.named('author')}/{visit.named('slug')}"
    _admit(visit)
    choice = _choice(visit)
    standing, _ = await _standing(visit, choice, model_id)
    if standing is None or visit.named("form") not in ("csv", "json"):
        raise NotFound("there are no such numbers")
    if visit.page.path.endswith("/days.{form}"):
        shares = await _shares(visit, choice, model_id)
        rows: list[dict[str, Any]] = [
            {"date": day, "tokens": str(tokens), "answered": share}
            for day, tokens, share in zip(choice.labels, standing.series, shares, strict=True)
        ]
    else:
        speeds = await _paces(visit, model_id)
        rows = [
            {"hour": hour, "ttft_p50_s": each.ttft_p50, "ttft_p95_s": each.ttft_p95, "tokens_per_s_p50": each.rate_p50}
            for hour, each in speeds.items()
        ]
    name = f"{model_id.replace('/', '-')}-{'days' if 'date' in rows[0] else 'speeds'}"
    made = csv_of(rows, name) if visit.named("form") == "csv" else json_of({"data": rows, "meta": {"model": model_id}})
    return packed(visit, made)


def _percent(value: float | None) -> str:
    return figures.NONE if value is None else f"{value * 100:.2f} %"


def _per_dollar(standing: Standing | None) -> str:
    """Return how many tokens a dollar charged bought, in words; ``""`` where nothing was charged."""
    value = value_of("tokens_per_dollar", standing.totals) if standing is not None else 0
    return standings.short("tokens_per_dollar", value) if value else ""


def _rate(value: float | None) -> str:
    return figures.NONE if value is None else f"{value:.0f}/s"


def _offers(model: Model | None) -> list[Offer]:
    return [_offer(model, endpoint) for endpoint in model.endpoints] if model is not None else []


def _offer(model: Model, endpoint: Endpoint) -> Offer:
    told = endpoint_object(model, endpoint)
    return Offer(
        tag=told["tag"],
        provider=told["provider_name"],
        quantization=told["quantization"] or "unknown",
        region=told["region"] or figures.NONE,
        context=told["context_length"],
        most=told["max_completion_tokens"],
        price=per_million(endpoint.price),
        up=told["status"] == 0,
        uptime_5m=told["uptime_last_5m"],
        uptime_30m=told["uptime_last_30m"],
        latency=told["latency_last_30m"] or {},
        throughput=told["throughput_last_30m"] or {},
    )


PAGES: Final = (
    Page("/models/{author}/{slug:path}/days.{form}", data, None),
    Page("/models/{author}/{slug:path}/speeds.{form}", data, None),
    Page("/models/{author}/{slug:path}", shown, None),
)
