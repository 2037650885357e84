"""Exports: a dataset, read page by page from the keeper and written piece by piece, in constant memory.

``pieces`` yields the bytes; ``export_to`` writes them to a temporary name and renames it, so nobody ever sees half a
file. An export of what is closed is the same bytes every time. Errors are those of the keeper; a name that is wrong is
``BadRequest`` before the first byte.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import msgspec

from gateway.billing import focus, methods, paper
from gateway.billing.line import LineKey
from gateway.billing.methods import ALWAYS, LABELS, SUMS, Plan, Selection
from gateway.billing.period import checked_period, day_in, day_text, days_of
from gateway.billing.statement import Statement, StatementLine
from gateway.billing.table import FORMATS, MEDIA, Cell, Column, Form, Kind, Tally, form_of
from gateway.types.errors import BadRequest
from gateway.types.method import Asking
from gateway.types.money import nano_from_usd

DATASETS: Final = ("focus", "usage", "statement")
_SLICE: Final = 50
"""Lines that are made into rows in one step of the event loop: some milliseconds."""

_USAGE_COLUMNS: Final = (
    Column("day"),
    *(Column(name) for name in LABELS),
    *(Column(name, Kind.COUNT, summed=True) for name in SUMS[:10]),
    Column("list_usd", Kind.DECIMAL, 9, summed=True),
    Column("discount_usd", Kind.DECIMAL, 9, summed=True),
    Column("effective_usd", Kind.DECIMAL, 9, summed=True),
)
_STATEMENT_COLUMNS: Final = (
    *(Column(name) for name in ("period", "state", "team", "day", "model", "reason")),
    *(Column(name, Kind.COUNT, summed=True) for name in ("requests", "prompt_tokens", "cached_tokens")),
    Column("completion_tokens", Kind.COUNT, summed=True),
    *(Column(name, Kind.DECIMAL, 9, summed=True) for name in ("list_usd", "discount_usd", "effective_usd")),
)
Rows = AsyncIterator[Sequence[Sequence[Cell]]]


@dataclass(slots=True)
class Progress:
    """How far an export is.

    Attributes:
        done, parts: parts read, and how many there are; a part is a billed period or a day.
        rows: rows written.
    """

    done: int = 0
    parts: int = 0
    rows: int = 0


@dataclass(slots=True)
class Export:
    """An export that can be made.

    Attributes:
        dataset: one of ``DATASETS``.
        form: one of ``FORMATS``, or of ``paper.FORMS`` for a statement.
        wanted: which team and time.
        facts: what the manifest says besides rows and sums.
        tally: rows, sums and digest, once it is made.
        progress: how far it is.
    """

    dataset: str
    form: str
    wanted: Selection
    facts: dict[str, Any] = field(default_factory=dict)
    tally: Tally | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def media(self) -> str:
        """Its media type."""
        return MEDIA.get(self.form) or paper.MEDIA[self.form]

    @property
    def name(self) -> str:
        """A name for its file."""
        wanted = self.wanted
        time = wanted.period or f"{day_text(wanted.first)}_{day_text(wanted.last)}"
        return "-".join(filter(None, (self.dataset, wanted.team, time))) + f".{self.form}"

    @property
    def manifest(self) -> dict[str, Any]:
        """What describes the file once it is made."""
        assert self.tally is not None
        return self.tally.manifest(self.facts)


def selection(team: str | None, period: str | None, first: str | None, last: str | None) -> Selection:
    """Return what is wanted: a period, or days.

    Raises:
        BadRequest: neither or both, or a day that is none.
    """
    if period and not (first or last):
        return Selection(team, checked_period(period))
    if period or not (first and last):
        raise BadRequest(
            "name a period, or the first and the last day (from, to)", param="period" if period else "from"
        )
    begin, end = day_in(first, "from"), day_in(last, "to")
    if end < begin:
        raise BadRequest("the last day is before the first", param="to")
    return Selection(team, "", begin, end)


def export_of(dataset: str, form: str, wanted: Selection) -> Export:
    """Return an export.

    Raises:
        BadRequest: there is no such dataset or format, or a statement of no team or not of a month.
    """
    if dataset not in DATASETS:
        raise BadRequest(f"the export is one of {', '.join(DATASETS)}", param="dataset")
    if dataset == "statement":
        if wanted.team is None:
            raise BadRequest("a statement is of one team: name it", param="team")
        if not wanted.period:
            wanted = Selection(wanted.team, _month(wanted))
        if form in paper.FORMS or form in FORMATS:
            return Export(dataset, form, wanted)
    if form not in FORMATS:
        raise BadRequest(f"the format is one of {', '.join(FORMATS)}", param="format")
    return Export(dataset, form, wanted)


def _month(wanted: Selection) -> str:
    period = day_text(wanted.first)[:7]
    if days_of(period) != (wanted.first, wanted.last):
        raise BadRequest("a statement is of a whole month: name its first and last day, or the period", param="from")
    return period


async def pieces(books: Asking, export: Export) -> AsyncIterator[bytes]:
    """Yield the bytes of an export."""
    if export.dataset == "statement" and export.form in paper.FORMS:
        async for data in _paper(books, export):
            yield data
        return
    if export.dataset == "statement":
        columns, rows = _STATEMENT_COLUMNS, _statement_rows(books, export)
    elif export.dataset == "usage":
        columns, rows = _USAGE_COLUMNS, _usage_rows(books, export)
    else:
        columns, rows = focus.COLUMNS, _focus_rows(books, export)
    form = form_of(export.form, columns)
    tally = export.tally = Tally(columns)
    async for data in _written(form, tally, rows, export.progress):
        yield data


async def _written(form: Form, tally: Tally, rows: Rows, progress: Progress) -> AsyncIterator[bytes]:
    async for some in rows:
        data = form.rows(some)
        tally.add(some, data)
        progress.rows = tally.rows
        if data:
            yield data
        await asyncio.sleep(0)
    data = form.end()
    tally.add((), data)
    yield data


async def _paper(books: Asking, export: Export) -> AsyncIterator[bytes]:
    wanted = export.wanted
    found = await books.ask(methods.STATEMENT, (wanted.period, wanted.team, export.form))
    export.tally = Tally(())
    export.tally.add((), found.content)
    export.facts |= {"dataset": "statement", "period": wanted.period, "team": wanted.team, "closed": found.closed}
    yield found.content


async def _focus_rows(books: Asking, export: Export) -> Rows:
    wanted = export.wanted
    plan: Plan = await books.ask(methods.PLAN, (wanted,))
    names: dict[str, dict[str, str]] = {}
    _describe(export, plan.closed)
    export.progress.parts = len(plan.sheets)
    for sheet in plan.sheets:
        period = sheet.period if sheet.kind == "billed" else ""
        if period not in names:
            names[period] = {team.slug: team.name for team in await books.ask(methods.TEAMS, (period,))}
        maker = focus.FocusRows(plan.issuers, names[period])
        cursor: LineKey | None = None
        while True:
            page = await books.ask(methods.LINES, (sheet, wanted.team, cursor))
            for start in range(0, len(page.lines), _SLICE):
                some = page.lines[start : start + _SLICE]
                yield [row for line in some for row in maker.of(line, page.rates)]
            cursor = page.cursor
            if cursor is None:
                break
        export.progress.done += 1


async def _usage_rows(books: Asking, export: Export) -> Rows:
    wanted = export.wanted
    first, last = days_of(wanted.period) if wanted.period else (wanted.first, wanted.last)
    _describe(export, closed=False)
    export.progress.parts = last - first + 1
    cursor: tuple[Any, ...] | None = None
    while True:
        found = await books.ask(methods.USAGE_ROWS, (wanted.team, first, last, cursor))
        if not found:
            break
        for start in range(0, len(found), 4 * _SLICE):
            yield [_usage_row(row) for row in found[start : start + 4 * _SLICE]]
        cursor = (found[-1].day, *found[-1].labels)
        export.progress.done = found[-1].day - first
    export.progress.done = export.progress.parts


def _usage_row(row: Any) -> tuple[Cell, ...]:
    charge, discount = row.sums[10], row.sums[11]
    return (day_text(row.day), *row.labels, *row.sums[:10], charge + discount, discount, charge)


async def _statement_rows(books: Asking, export: Export) -> Rows:
    wanted = export.wanted
    found = await books.ask(methods.STATEMENT, (wanted.period, wanted.team, "json"))
    statement = msgspec.json.decode(found.content, type=Statement)
    _describe(export, found.closed)
    yield [_statement_row(statement, line) for line in (*statement.lines, *statement.corrections)]


def _statement_row(statement: Statement, line: StatementLine) -> tuple[Cell, ...]:
    amount = line.amount
    return (
        *(statement.period, statement.state, statement.team, line.day, line.model, line.reason),
        *(line.requests, line.prompt_tokens, line.cached_tokens, line.completion_tokens),
        *(_nano(text) for text in (amount.list, amount.discount, amount.effective)),
    )


def _nano(text: str) -> int:
    return -nano_from_usd(text[1:]) if text.startswith("-") else nano_from_usd(text)


def _describe(export: Export, closed: bool) -> None:
    wanted = export.wanted
    export.facts |= {
        "dataset": export.dataset,
        "format": export.form,
        "team": wanted.team,
        "period": wanted.period or None,
        "from": None if wanted.period else day_text(wanted.first),
        "to": None if wanted.period else day_text(min(wanted.last, ALWAYS)),
        "closed": closed,
    }


async def export_to(
    books: Asking, export: Export, path: Path, heard: Callable[[Progress], None] = lambda _progress: None
) -> None:
    """Make an export and put it at ``path``, whole or not at all; beside a Parquet file goes its manifest.

    Args:
        books: whom to ask.
        export: what to make.
        path: where it goes; what is there is replaced.
        heard: is told how far it is.

    Raises:
        OSError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        with draft.open("xb") as file:
            async for data in pieces(books, export):
                file.write(data)
                heard(export.progress)
            file.flush()
            os.fsync(file.fileno())
        if export.form == "parquet":
            manifest = msgspec.json.format(msgspec.json.encode(export.manifest | {"file": path.name}), indent=2)
            beside = path.with_name(f"{path.name}.manifest.json")
            beside.write_bytes(manifest + b"\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
