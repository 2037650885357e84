"""The rankings: who used how much, by day, with records; for strangers too where the owner shows boards without a key.

Every view is a URL: the page, its picture for other sites, and its numbers as CSV and JSON take the same query. A query
that makes no sense is 400 and says why; a stranger who may not see a board is asked to sign in, or refused where a
machine asks.
"""

from __future__ import annotations

import gzip
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from typing import Any, Final

import msgspec
from starlette.responses import Response

from dashboards import door, render, standings
from dashboards.charts.lines import Lines, lines
from dashboards.charts.spark import sparkline
from dashboards.charts.strata import MOST, Strata, strata
from dashboards.sheets import csv_of
from dashboards.standings import Choice
from dashboards.visit import SIGN_IN, Page, Visit
from gateway.leaderboard import document
from gateway.leaderboard.question import Board, Measure, MilestoneRecord, Records, Standing
from gateway.leaderboard.ranking import value_of
from gateway.leaderboard.view import View
from gateway.leaderboard.window import Window, day_text, today
from gateway.types.errors import NotFound, Unauthorized
from gateway.types.money import usd_json

PATH: Final = "/rankings"
SHOWN: Final = 50
_PACK: Final = 1_400
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the leaderboard as it is shown.

    Attributes:
        colour: number of the chart's colour, ``""`` for who has none.
        moved: ranks gained; None for who was not there before.
        href: where there is more about it, ``""`` where nowhere.
    """

    rank: int
    title: str
    name: str
    colour: str
    value: str
    exact: str
    share: float | None
    change: float | None
    moved: int | None
    was: str
    spark: str
    href: str


async def shown(visit: Visit) -> Response:
    """Show the page."""
    choice = standings.choice_of(visit)
    boards = standings.offered(visit, choice.team)
    try:
        view = standings.look(visit, choice.by, choice.team)
    except Unauthorized:
        if boards and not visit.asked("by"):
            return visit.go(PATH, by=boards[0][0])
        return visit.go(SIGN_IN, next=f"{PATH}?{visit.request.url.query}")
    most = standings.ROWS if visit.asked("rows") == "all" else SHOWN
    board, rest = await standings.board_of(visit, choice, view, most)
    now = await standings.today_of(visit, view, choice)
    records = await standings.records_of(visit, choice, view)
    milestones = await standings.milestones_of(visit, choice, view)
    page = visit.render(
        "rankings.html",
        choice=choice,
        boards=boards,
        measures=standings.MEASURED,
        spans=standings.SPANS,
        board=board,
        view=view,
        now=now,
        chart=drawn(board, rest, choice),
        rows=rows_of(board, choice, most),
        most=standings.ROWS,
        say=partial(standings.short, choice.measure),
        exact=standings.exact(choice.measure),
        whole=_whole(board, choice.measure),
        growth=_growth(board, choice.measure),
        fresh=await standings.is_new(visit, choice, view),
        records=records,
        milestones=milestones,
        titles={row.name: row.title for row in board.rows if row.title},
        day=day_text,
        tick=partial(standings.tick, "tokens"),
        today=today(visit.now_us),
        site=standings.root(visit),
        earlier=_moved(choice, -choice.days, visit),
        later=_moved(choice, choice.days, visit) if not choice.runs else "",
    )
    return packed(visit, page)


def _moved(choice: Choice, days: int, visit: Visit) -> str:
    """Return the query of the same view so many days later; it ends today at the latest."""
    last = choice.window.last + days
    return choice.query(to="" if last >= today(visit.now_us) else day_text(last))


def _whole(board: Board, measure: Measure) -> int:
    return value_of(measure, board.totals)


def _growth(board: Board, measure: Measure) -> float | None:
    before = value_of(measure, board.previous)
    return (_whole(board, measure) - before) / before if before else None


def drawn(board: Board, rest: Sequence[int], choice: Choice, most: int = MOST) -> Strata | Lines:
    """Return the chart of a board: columns, or lines where values cannot be added up."""
    say = partial(standings.tick, choice.measure)
    series = [(row.title or row.name, row.series) for row in board.rows]
    if choice.measure == "tokens_per_dollar":
        known = [(name, [value or None for value in values]) for name, values in series]
        return lines(choice.labels, known, say, choice.marks, most=most)
    return strata(choice.labels, series, rest, say, choice.marks, most=most)


def rows_of(board: Board, choice: Choice, most: int) -> list[Row]:
    """Return the first lines of the leaderboard."""
    drawn_alone = [row.name for row in board.rows if any(row.series)][:MOST]
    colours = {name: str(number) for number, name in enumerate(drawn_alone)}
    return [_row(row, choice, colours.get(row.name, "")) for row in board.rows[:most]]


def _row(row: Standing, choice: Choice, colour: str) -> Row:
    # The day that runs is not whole: a line that ends with it would fall every morning.
    whole_days = row.series[:-1] if choice.runs else row.series
    # Boards round shares to a millionth: what is less than half of one is still not nothing.
    share = 5e-7 if row.share == 0 and row.value else row.share
    return Row(
        rank=row.rank,
        title=row.title or row.name,
        name=row.name,
        colour=colour,
        value=standings.short(choice.measure, row.value),
        exact=standings.exact(choice.measure)(row.value),
        share=share,
        change=row.change,
        moved=None if row.previous_rank is None else row.previous_rank - row.rank,
        was=standings.short(choice.measure, row.previous_value),
        spark=sparkline(_thinned(whole_days)),
        href=_href(row.name, choice),
    )


def _thinned(values: Sequence[int], most: int = 61) -> list[float]:
    """Return means of neighbouring values: a small drawing shows no more points than it has room for."""
    width = max(1, -(-len(values) // most))
    parts = (values[at : at + width] for at in range(0, len(values), width))
    return [sum(part) / len(part) for part in parts]


def _href(name: str, choice: Choice) -> str:
    if choice.by in ("model", "endpoint"):
        model = name.partition(" ")[0]
        return f"/models/{model}" if "/" in model else ""
    return f"{PATH}?{choice.query(by='model', team=name)}" if choice.by == "team" else ""


async def live(visit: Visit) -> Response:
    """Tell what today has come to, for the counter that moves."""
    choice = standings.choice_of(visit)
    now = await standings.today_of(visit, standings.look(visit, choice.by, choice.team))
    return json_of({"tokens": str(now.tokens), "requests": str(now.requests)})


async def data(visit: Visit) -> Response:
    """Give the numbers of a view: the board, its days or its records, as CSV or JSON."""
    make = _TABLES.get((visit.named("table"), visit.named("form")))
    if make is None:
        raise NotFound("there are board.csv, board.json, days.csv, days.json and records.json")
    choice = standings.choice_of(visit)
    view = standings.look(visit, choice.by, choice.team)
    if visit.named("table") == "records":
        found = await standings.records_of(visit, choice, view)
        passed = await standings.milestones_of(visit, choice, view)
        return json_of(_records(found, passed, choice, visit.now_us))
    board, rest = await standings.board_of(visit, choice, view)
    return packed(visit, make(board, rest, choice, view))


def _board_json(board: Board, _rest: Sequence[int], choice: Choice, view: View) -> Response:
    return json_of(document.board_object(board, standings.question_of(choice, view), choice.window, owner=view.owner))


def _board_csv(board: Board, _rest: Sequence[int], choice: Choice, view: View) -> Response:
    """Return a line for each row, then what is beyond them, so that the column adds up."""
    rows: list[dict[str, Any]] = []
    for row in board.rows:
        told = document.row_object(row, choice.by, choice.measure, owner=view.owner)
        before = told.pop("previous") or {"rank": None, "value": None}
        told |= {"previous_rank": before["rank"], "previous_value": before["value"]}
        del told["series"]
        rows.append(told)
    for name in ("other", "unattributed"):
        totals = document.totals_object(getattr(board, name), owner=view.owner)
        if getattr(board, name).requests or getattr(board, name).tokens:
            rows.append({"name": name, "title": name} | totals)
    return csv_of(rows, f"rankings-{choice.by}-{choice.measure}")


def _days(board: Board, rest: Sequence[int], choice: Choice) -> Iterable[tuple[str, str, int]]:
    for point, day in enumerate(choice.labels):
        for row in board.rows:
            if row.series[point]:
                yield day, row.name, row.series[point]
        if rest[point]:
            yield day, "other", rest[point]


def _value(choice: Choice, value: int) -> str:
    return usd_json(value).decode() if choice.measure == "spend" else str(value)


def _days_csv(board: Board, rest: Sequence[int], choice: Choice, _view: View) -> Response:
    rows = [
        {"date": day, "name": name, choice.measure: _value(choice, value)}
        for day, name, value in _days(board, rest, choice)
    ]
    return csv_of(rows, f"rankings-{choice.by}-{choice.measure}-days", ("date", "name", choice.measure))


def _days_json(board: Board, rest: Sequence[int], choice: Choice, _view: View) -> Response:
    rows = [
        {"date": day, "name": name, "value": _value(choice, value)} for day, name, value in _days(board, rest, choice)
    ]
    meta = {"by": choice.by, "measure": choice.measure, "from": choice.labels[0], "to": choice.labels[-1]}
    return json_of({"data": rows, "meta": meta | ({"note": document.NOTE} if board.made_up else {})})


def _records(found: Records, passed: Sequence[MilestoneRecord], choice: Choice, now_us: int) -> dict[str, Any]:
    last = today(now_us)
    window = Window("day", last - standings.RECORD_DAYS + 1, last)
    told = document.records_object(found, choice.measure, window, now_us)
    return told | {"milestones": [document.milestone_object(each) for each in passed]}


_Make = Callable[[Board, Sequence[int], Choice, View], Response]
_TABLES: Final[dict[tuple[str, str], _Make]] = {
    ("board", "json"): _board_json,
    ("board", "csv"): _board_csv,
    ("days", "json"): _days_json,
    ("days", "csv"): _days_csv,
    ("records", "json"): _board_json,
}


def json_of(found: Any) -> Response:
    """Return an answer for machines."""
    return Response(_encode(found), media_type="application/json")


def packed(visit: Visit, response: Response) -> Response:
    """Return an answer compressed, where the browser reads that. Only for answers that hold nothing secret.

    A stranger's browser keeps it for some seconds, and is told 304 as long as nothing has changed.
    """
    response.headers["vary"] = "accept-encoding, cookie"
    if visit.session is None and response.status_code == 200:
        tag = f'W/"{sha256(response.body).hexdigest()[:24]}"'
        response.headers["etag"] = tag
        response.headers.setdefault("cache-control", "private, max-age=5")
        if visit.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag, "vary": response.headers["vary"]})
    if "gzip" in visit.request.headers.get("accept-encoding", "") and len(response.body) > _PACK:
        response.body = gzip.compress(bytes(response.body), 2, mtime=0)
        response.headers["content-encoding"] = "gzip"
        response.headers["content-length"] = str(len(response.body))
    return response


@cache
def _picture_headers() -> dict[str, str]:
    """Return the headers of a picture that other sites may show: it runs and loads nothing, and has one known style."""
    style = render.page("rankings_style.svg", {}).strip()
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return {
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors *; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "access-control-allow-origin": "*",
        "cache-control": "public, max-age=300",
    }


async def picture(visit: Visit) -> Response:
    """Draw a view as a picture for other sites. What only some may see is never kept by caches on the way."""
    choice = standings.choice_of(visit)
    view = standings.look(visit, choice.by, choice.team)
    board, rest = await standings.board_of(visit, choice, view, SHOWN)
    look = visit.request.query_params.get("theme", "")
    drawing = render.page(
        "rankings_chart.svg",
        {
            "chart": drawn(board, rest, choice, 7),
            "choice": choice,
            "board": board,
            "rows": rows_of(board, choice, 8),
            "title": f"{dict(standings.MEASURED)[choice.measure]} by {choice.by}",
            "whole": standings.short(choice.measure, _whole(board, choice.measure)),
            "style": render.page("rankings_style.svg", {}).strip(),
            "theme": look if look in door.THEMES else "auto",
            "as_of": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(board.as_of_us / 1e6)),
        },
    )
    headers = dict(_picture_headers())
    if visit.session is not None:
        headers |= {"cache-control": "private, no-store", "access-control-allow-origin": "null"}
    return packed(visit, Response(drawing, media_type="image/svg+xml", headers=headers))


PAGES: Final[tuple[Page, ...]] = (
    Page(PATH, shown, None),
    Page(f"{PATH}/today.json", live, None),
    Page(f"{PATH}/chart.svg", picture, None),
    Page(f"{PATH}/{{table}}.{{form}}", data, None),
)
