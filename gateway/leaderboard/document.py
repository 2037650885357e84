"""Boards as the API and the command line show them: JSON-able, totals as decimal strings, money as exact USD."""

from __future__ import annotations

from typing import Any, Final

from gateway.leaderboard.question import (
    AppRecord,
    Board,
    By,
    Lead,
    Measure,
    MilestoneRecord,
    Question,
    Records,
    Standing,
    Totals,
)
from gateway.leaderboard.ranking import value_of
from gateway.leaderboard.window import Window, day_text, moment_text
from gateway.types.money import usd_json, usd_text

NOTE: Final = "Part of this usage is made up: `weir demo` filled the past of this ledger. It is no real traffic."


def shown(measure: Measure, value: int) -> str:
    """Return a value of a board as text: USD for spend, else a whole number."""
    return usd_text(value) if measure == "spend" else str(value)


def _spent(nano: int) -> str:
    return usd_json(nano).decode()


def totals_object(totals: Totals, *, owner: bool) -> dict[str, Any]:
    """Return totals; the owner is told what was paid as well."""
    found: dict[str, Any] = {
        "tokens": str(totals.tokens),
        "requests": totals.requests,
        "spend": usd_text(totals.charge_nano),
        "tokens_per_dollar": str(value_of("tokens_per_dollar", totals)) if totals.charge_nano > 0 else None,
    }
    if owner:
        found["cost"] = usd_text(totals.cost_nano)
        per_cost = value_of("tokens_per_dollar", totals, "cost")
        found["tokens_per_dollar_of_cost"] = str(per_cost) if totals.cost_nano > 0 else None
    return found


def row_object(row: Standing, by: By, measure: Measure, *, owner: bool) -> dict[str, Any]:
    """Return one row of a board."""
    before = row.previous_value
    named: dict[str, Any] = {"rank": row.rank, "name": row.name, "title": row.title or row.name}
    if by == "endpoint":
        model, _, endpoint = row.name.partition(" ")
        named |= {"model": model, "endpoint": endpoint}
    return (
        named
        | {"value": shown(measure, row.value), "share": row.share}
        | totals_object(row.totals, owner=owner)
        | {
            "previous": None if before is None else {"value": shown(measure, before), "rank": row.previous_rank},
            "change": row.change,
            "rank_change": None if row.previous_rank is None else row.previous_rank - row.rank,
            "series": list(map(_spent if measure == "spend" else str, row.series)),
        }
    )


def board_object(board: Board, question: Question, window: Window, *, owner: bool) -> dict[str, Any]:
    """Return a board and what it says of itself; the window stands beside the numbers."""
    before = Window(window.grain, window.first - window.length, window.first - 1)
    meta: dict[str, Any] = {
        "as_of": moment_text(board.as_of_us),
        "version": "v1",
        "by": question.by,
        "measure": question.measure,
        "granularity": question.grain,
        "from": window.text(window.first),
        "to": window.text(window.last),
        "points": window.length,
        "previous_from": window.text(before.first),
        "previous_to": window.text(before.last),
        "team": question.team or None,
        "names": board.names,
    }
    if question.measure == "tokens_per_dollar":
        meta["dollar"] = "charged" if question.basis == "charge" else "paid by the owner"
    if board.made_up:
        meta["note"] = NOTE
    return {
        "data": [row_object(row, question.by, question.measure, owner=owner) for row in board.rows],
        "other": totals_object(board.other, owner=owner),
        "unattributed": totals_object(board.unattributed, owner=owner),
        "totals": totals_object(board.totals, owner=owner),
        "previous_totals": totals_object(board.previous, owner=owner),
        "meta": meta,
    }


def records_object(records: Records, measure: Measure, window: Window, as_of_us: int) -> dict[str, Any]:
    """Return the records of a board."""
    return {
        "data": {
            "biggest_days": [
                {"name": peak.name, "date": day_text(peak.day), "value": shown(measure, peak.value)}
                for peak in records.peaks
            ],
            "longest_lead": _lead(records.longest),
            "current_lead": _lead(records.current),
            "first_over": [
                {"tokens": str(first.line), "name": first.name, "date": day_text(first.day)}
                for first in records.first_over
            ],
        },
        "meta": {
            "as_of": moment_text(as_of_us),
            "version": "v1",
            "measure": measure,
            "from": window.text(window.first),
            "to": window.text(window.last),
        },
    }


def _lead(lead: Lead | None) -> dict[str, Any] | None:
    if lead is None:
        return None
    days = lead.last - lead.first + 1
    return {"name": lead.name, "from": day_text(lead.first), "to": day_text(lead.last), "days": days}


def milestone_object(milestone: MilestoneRecord) -> dict[str, Any]:
    """Return a milestone; ``restated`` says that corrections have brought the day below the line again."""
    return {
        "model": milestone.model,
        "tokens_in_a_day": str(milestone.line),
        "date": day_text(milestone.day),
        "crossed_at": moment_text(milestone.crossed_us),
        "total_tokens": str(milestone.total),
        "first": milestone.first,
        "restated": milestone.total < milestone.line,
    }


def app_object(app: AppRecord) -> dict[str, Any]:
    """Return an app as its owner sees it."""
    return {
        "app": app.app,
        "title": app.title or None,
        "categories": list(app.categories),
        "status": app.status,
        "first_key": app.first_key,
        "first_seen_at": moment_text(app.first_seen_us),
        "decided_at": None if app.decided_us is None else moment_text(app.decided_us),
        "tokens_30_days": str(app.tokens),
    }
