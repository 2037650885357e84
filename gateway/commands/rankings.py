"""``weir rankings`` and ``weir apps``: the boards, and who may be named on them. They show what the owner may see."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import Json, print_json, say, table
from gateway.commands.environment import with_keeper

if TYPE_CHECKING:
    from gateway.leaderboard.question import AppRecord, AppStatus, Board, Question
    from gateway.leaderboard.window import Window

apps = typer.Typer(help="Apps that callers say they are.", no_args_is_help=True)
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 24


class By(StrEnum):
    """What is ranked."""

    model = "model"
    author = "author"
    team = "team"
    app = "app"
    endpoint = "endpoint"


class Measure(StrEnum):
    """What it is ranked by."""

    tokens = "tokens"
    requests = "requests"
    spend = "spend"
    tokens_per_dollar = "tokens_per_dollar"


class Grain(StrEnum):
    """The width of a point of the series."""

    day = "day"
    hour = "hour"


class Dollar(StrEnum):
    """What a dollar is in tokens per dollar."""

    charge = "charge"
    cost = "cost"


def rankings(
    by: Annotated[By, typer.Option(help="What is ranked.")] = By.model,
    measure: Annotated[Measure, typer.Option(help="What it is ranked by.")] = Measure.tokens,
    start: Annotated[str | None, typer.Option("--from", help="First UTC day (or hour, YYYY-MM-DDTHH).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last UTC day or hour, inclusive; default now.")] = None,
    granularity: Annotated[Grain, typer.Option(help="Points of the series.")] = Grain.day,
    team: Annotated[str, typer.Option(help="Only this team's usage.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most rows.")] = 20,
    dollar: Annotated[Dollar, typer.Option(help="In tokens per dollar: charged, or paid by you.")] = Dollar.charge,
    records: Annotated[bool, typer.Option("--records", help="Biggest days, longest lead, first over a line.")] = False,
    milestones: Annotated[bool, typer.Option("--milestones", help="When models first passed a line.")] = False,
    as_json: Json = False,
) -> None:
    """Rank models, authors, teams, apps or endpoints by what was used."""
    import time

    from gateway.leaderboard.question import Question
    from gateway.leaderboard.window import board_window, record_window

    now_us = time.time_ns() // 1000
    if milestones:
        _show_milestones(as_json)
    elif records:
        _show_records(by, measure, team, record_window(start, end, now_us), now_us, as_json)
    else:
        window = board_window(start, end, granularity.value, now_us)
        asked = Question(
            by.value, measure.value, window.first, window.last, granularity.value, team, limit, dollar.value
        )
        _show_board(asked, window, as_json)


def _show_board(question: Question, window: Window, as_json: bool) -> None:
    from gateway.leaderboard.document import NOTE, board_object, shown
    from gateway.leaderboard.question import BOARD

    board: Board = with_keeper(lambda keeper: keeper.ask(BOARD, (question,)), fresh=True)
    if as_json:
        print_json(board_object(board, question, window, owner=True))
        return
    rows = [
        (
            str(row.rank),
            row.title or row.name,
            _grouped(shown(question.measure, row.value)),
            "" if row.share is None else f"{row.share:.1%}",
            "" if row.change is None else f"{row.change:+z.1%}",
            _moved(row.rank, row.previous_rank),
            _sparkline(row.series),
        )
        for row in board.rows
    ]
    unit = {"spend": "USD", "tokens_per_dollar": "tokens per dollar"}.get(question.measure, question.measure)
    table(("#", question.by, unit, "share", "change", "moved", f"{window.grain}s"), rows)
    say(
        f"{window.text(window.first)} to {window.text(window.last)} (UTC), against the {window.length} "
        f"{window.grain}s before; {board.names} in all, {board.totals.tokens:,} tokens"
    )
    if board.made_up:
        say(NOTE)


def _show_records(by: By, measure: Measure, team: str, window: Window, now_us: int, as_json: bool) -> None:
    from gateway.leaderboard.document import records_object
    from gateway.leaderboard.question import RECORDS, RecordsQuestion

    asked = RecordsQuestion(by.value, measure.value, window.first, window.last, team)
    found = with_keeper(lambda keeper: keeper.ask(RECORDS, (asked,)), fresh=True)
    document = records_object(found, measure.value, window, now_us)
    if as_json:
        print_json(document)
        return
    data: dict[str, Any] = document["data"]
    table(
        ("biggest days", "", measure.value),
        [(each["date"], each["name"], _grouped(each["value"])) for each in data["biggest_days"]],
    )
    for title in ("longest_lead", "current_lead"):
        lead = data[title]
        if lead is not None:
            words = title.replace("_", " ")
            say(f"{words}: {lead['name']}, {lead['days']} days, {lead['from']} to {lead['to']}")
    for first in data["first_over"]:
        say(f"first over {int(first['tokens']):,} tokens in a day: {first['name']}, {first['date']}")


def _show_milestones(as_json: bool) -> None:
    from gateway.leaderboard.document import milestone_object
    from gateway.leaderboard.question import MILESTONES

    found = [milestone_object(each) for each in with_keeper(lambda keeper: keeper.ask(MILESTONES), fresh=True)]
    if as_json:
        print_json({"data": found})
        return
    rows = [
        (
            each["crossed_at"],
            each["model"],
            f"{int(each['tokens_in_a_day']):,}",
            "first of all" if each["first"] else "",
        )
        for each in found
    ]
    table(("crossed at", "model", "tokens in a day", ""), rows)


@apps.command("list")
def apps_list(
    status: Annotated[str | None, typer.Option(help="Only pending, approved or hidden ones.")] = None,
    as_json: Json = False,
) -> None:
    """List apps with their tokens of the last 30 days, the busiest first."""
    from gateway.leaderboard.datasets import chosen
    from gateway.leaderboard.document import app_object
    from gateway.leaderboard.question import APPS

    if status is not None:
        chosen(status, "", ("pending", "approved", "hidden"), "--status")
    found: list[AppRecord] = with_keeper(lambda keeper: keeper.ask(APPS, (status,)))
    if as_json:
        print_json([app_object(each) for each in found])
        return
    rows = [
        # Other scripts are spelt out, because what looks like one app may be another.
        (each.app, ascii(each.title)[1:-1], ", ".join(each.categories), each.status, each.first_key, f"{each.tokens:,}")
        for each in found
    ]
    table(("app", "title", "categories", "status", "first key", "tokens, 30 days"), rows)


@apps.command("approve")
def apps_approve(
    app: Annotated[str, typer.Argument(help="Its host.")],
    title: Annotated[str | None, typer.Option(help="What to call it; default what it said.")] = None,
) -> None:
    """Name an app on public boards."""
    from gateway.leaderboard.attribution import title_of
    from gateway.types.errors import BadRequest

    if title is not None and not title_of(title.encode()):
        raise BadRequest("--title is no name: one line of up to 64 letters of one script, no markup")
    _decide(app, "approved", title)


@apps.command("hide")
def apps_hide(app: Annotated[str, typer.Argument(help="Its host.")]) -> None:
    """Never name an app on public boards."""
    _decide(app, "hidden", None)


def _decide(app: str, status: AppStatus, title: str | None) -> None:
    from gateway.leaderboard.question import DECIDE

    found: AppRecord = with_keeper(lambda keeper: keeper.ask(DECIDE, (app, status, title)))
    say(f"{found.app} is {found.status}" + (f" as {found.title}" if found.title and status == "approved" else ""))


def _grouped(value: str) -> str:
    whole, point, rest = value.partition(".")
    return f"{int(whole):,}{point}{rest}"


def _moved(rank: int, before: int | None) -> str:
    if before is None:
        return "new"
    return "" if before == rank else f"{before - rank:+d}"


def _sparkline(series: list[int]) -> str:
    """Return a series as a line of blocks, at most ``_WIDTH`` of them."""
    width = min(_WIDTH, len(series))
    parts = [series[index * len(series) // width : (index + 1) * len(series) // width] for index in range(width)]
    means = [sum(part) / len(part) for part in parts]
    top = max(means, default=0)
    return "".join(_BLOCKS[int(mean / top * (len(_BLOCKS) - 1))] if top > 0 else _BLOCKS[0] for mean in means)
