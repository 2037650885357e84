"""The forms of a statement: JSON, CSV, and a page to print. Equal statements give equal bytes."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import msgspec

from gateway.billing.cell import csv_text, safe
from gateway.billing.statement import Money, Statement, StatementLine
from gateway.types.errors import BadRequest

FORMS: Final = ("json", "csv", "html")
MEDIA: Final = {"json": "application/json", "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"}

_COLUMNS: Final = (
    *("row", "period", "state", "team", "day", "model", "requests", "prompt_tokens", "cached_tokens"),
    *("completion_tokens", "list_usd", "discount_usd", "effective_usd", "reason"),
)
_HEADS: Final = ("Day", "Model", "Requests", "Input", "of it cached", "Output", "List", "Discount", "To pay")
_STYLE: Final = (
    "body{font:14px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#111}"
    "table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{padding:.25rem .5rem;text-align:right;"
    "border-bottom:1px solid #ccc;font-variant-numeric:tabular-nums}th:nth-child(-n+2),td:nth-child(-n+2)"
    "{text-align:left}tfoot td{font-weight:bold;border-top:2px solid #111}thead{display:table-header-group}"
    "tr{break-inside:avoid}@media print{body{margin:0;max-width:none}}"
)


def render(statement: Statement, form: str) -> bytes:
    """Return a statement in one of ``FORMS``.

    Raises:
        BadRequest: there is no such form.
    """
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(statement), indent=2) + b"\n"
    if form == "csv":
        return _csv(statement).encode()
    if form == "html":
        return _html(statement).encode()
    raise BadRequest(f"a statement comes as {', '.join(FORMS)}", param="format")


def _csv(statement: Statement) -> str:
    rows: list[list[Any]] = [list(_COLUMNS)]
    rows += [_row(statement, "usage", line) for line in statement.lines]
    rows += [_row(statement, "correction", line) for line in statement.corrections]
    totals = statement.totals
    total = StatementLine(
        "", "", totals.requests, totals.prompt_tokens, totals.cached_tokens, totals.completion_tokens, totals.amount
    )
    rows.append(_row(statement, "total", total))
    return csv_text(rows)


def _row(statement: Statement, kind: str, line: StatementLine) -> list[Any]:
    return [
        kind,
        statement.period,
        statement.state,
        safe(statement.team),
        line.day,
        safe(line.model),
        line.requests,
        line.prompt_tokens,
        line.cached_tokens,
        line.completion_tokens,
        line.amount.list,
        line.amount.discount,
        line.amount.effective,
        line.reason,
    ]


def _html(statement: Statement) -> str:
    title = escape(f"Statement {statement.period}: {statement.name}")
    state = "closed" if statement.closed_at is None else f"closed {statement.closed_at}"
    if statement.state != "closed":
        state = "open: figures may still change"
    body = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        (
            f"<p>From {escape(statement.issuer)} to {escape(statement.name)} ({escape(statement.team)}). "
            f"Usage from {statement.first_day} to {statement.last_day}, UTC. {escape(state.capitalize())}. "
            f"Amounts in {statement.currency}.</p>"
        ),
        _table(statement.lines, statement),
    ]
    if statement.corrections:
        body += ["<h2>Corrections</h2>", _table(statement.corrections, None)]
        body.append(f"<p>Corrections together: {_dollars(statement.totals.corrections)}.</p>")
    body.append(f"<p><strong>To pay: {statement.totals.amount.effective} {statement.currency}</strong></p>")
    return "\n".join([*body, "</body></html>", ""])


def _table(lines: tuple[StatementLine, ...], statement: Statement | None) -> str:
    head = "".join(f"<th>{name}</th>" for name in _HEADS)
    rows = [_cells([line.day, line.model, *_figures(line)], line.reason) for line in lines]
    foot = ""
    if statement is not None:
        totals = statement.totals
        amount = totals.amount
        counts = (totals.requests, totals.prompt_tokens, totals.cached_tokens, totals.completion_tokens)
        cells = ["Total", "with corrections" if statement.corrections else "", *(f"{count:,}" for count in counts)]
        foot = f"<tfoot>{_cells([*cells, amount.list, amount.discount, amount.effective])}</tfoot>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>{foot}</table>"


def _figures(line: StatementLine) -> list[str]:
    counts = (line.requests, line.prompt_tokens, line.cached_tokens, line.completion_tokens)
    return [*(f"{count:,}" for count in counts), line.amount.list, line.amount.discount, line.amount.effective]


def _cells(values: list[str], reason: str = "") -> str:
    title = f' title="{escape(reason)}"' if reason else ""
    return f"<tr{title}>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"


def _dollars(money: Money) -> str:
    return f"list {money.list}, discount {money.discount}, to pay {money.effective}"
