"""Making a board of what the store reads: names folded, ranked, with series, titles and the rest summed up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from gateway.leaderboard.past import Stretch
from gateway.leaderboard.question import (
    MADE_UP,
    AppStanding,
    AppWindow,
    Basis,
    Board,
    By,
    Days,
    DayTokens,
    Measure,
    Question,
    Records,
    RecordsQuestion,
    Totals,
)
from gateway.leaderboard.ranking import NOTHING, Feats, author_of, feats, folded, records, standings, summed
from gateway.leaderboard.store import BoardStore, Extent
from gateway.metering.record import OWNER
from gateway.types.money import NANO_PER_USD


class Boards:
    """Answers questions about boards.

    Args:
        store: where the totals are.
        home: the state folder.
    """

    def __init__(self, store: BoardStore, home: Path) -> None:
        self._store = store
        self._made_up = home / MADE_UP

    async def board(self, question: Question) -> Board:
        """Return a board. Raises ``Unavailable``."""
        extent = Extent(question.by, question.team, question.grain, question.first, question.last)
        stored, stored_before = await self._store.windows(extent, extent.before)
        now, before = _named(question.by, stored), _named(question.by, stored_before)
        whole, earlier = summed(now.values()), summed(before.values())
        unattributed = now.pop("", NOTHING)
        before.pop("", None)
        if question.by == "team":
            # Invoices that differed: part of what everything cost, and nobody's rank.
            for window in (now, before):
                window.pop(OWNER, None)
        names = len(now)
        titles: Mapping[str, str] = {}
        if question.by == "app":
            titles = {app: title for app, (title, _) in (await self._store.apps()).items()}
            if question.approved:
                now = {name: each for name, each in now.items() if name in titles}
                before = {name: each for name, each in before.items() if name in titles}
        rows = standings(now, before, whole, question.measure, question.limit, question.basis)
        series = await self._series(question, extent, stored, [row.name for row in rows])
        shown = summed(row.totals for row in rows)
        return Board(
            rows=[structs.replace(row, title=titles.get(row.name, ""), series=series[row.name]) for row in rows],
            names=names,
            other=_minus(_minus(whole, shown), unattributed),
            unattributed=unattributed,
            totals=whole,
            previous=earlier,
            as_of_us=time.time_ns() // 1000,
            made_up=self._made_up.exists(),
        )

    async def _series(
        self, question: Question, extent: Extent, stored: Mapping[str, Totals], names: list[str]
    ) -> dict[str, list[int]]:
        """Return the values of each point, by the names of the board."""
        wanted = set(names)
        of_author = question.by == "author"
        asked = [name for name in stored if (author_of(name) if of_author else name) in wanted]
        # Whom nobody asks for is left out by the database where that is many.
        only = asked if len(stored) > 1.5 * len(asked) else None
        columns = columns_of(question.measure, question.basis)
        parts = await self._store.stretches(extent, columns, only) if names else []
        found: dict[str, list[int]] = {name: [] for name in names}
        for part in parts:
            lines, nothing = _worth(part, question.by, question.measure), (0,) * part.length
            for name, line in found.items():
                line.extend(lines.get(name, nothing))
        return found

    async def days(self, window: Days) -> list[DayTokens]:
        """Return tokens per model of each day. Raises ``Unavailable``."""
        extent = Extent("model", window.team, "day", window.first, window.last)
        found: list[DayTokens] = []
        for part in await self._store.stretches(extent, ("tokens",)):
            [lines] = part.columns
            for day, tokens in enumerate(zip(*lines.values(), strict=True), part.first):
                if any(tokens):
                    found.append(DayTokens(day, list(lines), list(tokens)))
        return found

    async def app_window(self, window: AppWindow) -> list[AppStanding]:
        """Return approved apps, of the categories asked for if any. Raises ``Unavailable``."""
        extent = Extent("app", window.team, "day", window.first, window.last)
        length = window.last - window.first + 1
        three = replace(extent, first=window.first - 3 * length, last=window.first - 1)
        now, before = await self._store.windows(extent, three)
        wanted = set(window.categories)
        return [
            AppStanding(
                app,
                title,
                now.get(app, NOTHING).tokens,
                now.get(app, NOTHING).requests,
                before.get(app, NOTHING).tokens,
            )
            for app, (title, categories) in sorted((await self._store.apps()).items())
            if not wanted or wanted & set(categories)
        ]

    async def strangers(self, keys: tuple[str, ...]) -> list[str]:
        """Return a few keys with usage that are not among ``keys``; none when the ledger is of these alone."""
        return await self._store.strangers(keys)

    async def records(self, question: RecordsQuestion, lines: list[int]) -> Records:
        """Return the records of a board. Raises ``Unavailable``."""
        extent = Extent(question.by, question.team, "day", question.first, question.last)
        shown = frozenset(await self._store.apps()) if question.by == "app" and question.approved else None
        columns = columns_of(question.measure, "charge")
        parts = await self._store.stretches(extent, columns)
        return records(
            (_feats(part, question.by, question.measure, shown) for part in parts),
            lines if question.measure == "tokens" else [],
        )

    async def remember(self, question: RecordsQuestion, pause_s: float) -> None:
        """Read what boards and records of a window are made of, a few days at a time with a pause after each.

        Nothing is returned: it is remembered, as far as there is room. Raises ``Unavailable``.
        """
        extent = Extent(question.by, question.team, "day", question.first, question.last)
        for block in reversed(await self._store.blocks(extent)):
            for part in await self._store.stretches(block, columns_of(question.measure, "charge")):
                _feats(part, question.by, question.measure, None)
            await asyncio.sleep(pause_s)


def columns_of(measure: Measure, basis: Basis) -> tuple[str, ...]:
    """Return the columns of totals that a measure is made of."""
    paid = "charge_nano" if basis == "charge" else "cost_nano"
    return {
        "tokens": ("tokens",),
        "requests": ("requests",),
        "spend": ("charge_nano",),
        "tokens_per_dollar": ("tokens", paid),
    }[measure]


def _worth(part: Stretch, by: By, measure: Measure) -> Mapping[str, Sequence[int]]:
    """Return the value of each name of a board at each point; worked out once for what is remembered."""
    if by != "author" and measure != "tokens_per_dollar":
        return part.columns[0]
    asked = ("worth", by == "author", measure)
    known: Mapping[str, Sequence[int]] | None = part.worked.get(asked)
    if known is None:
        columns: list[Mapping[str, Sequence[int]]] = list(part.columns)
        if by == "author":
            columns = [_by_author(each) for each in columns]
        # A ratio cannot be added up: its parts are, and divided at the end.
        known = part.worked[asked] = _ratios(*columns) if measure == "tokens_per_dollar" else columns[0]
    return known


def _by_author(lines: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    named: dict[str, list[Sequence[int]]] = {}
    for name, line in lines.items():
        named.setdefault(author_of(name), []).append(line)
    return {name: list(map(sum, zip(*some, strict=True))) for name, some in named.items()}


def _ratios(tokens: Mapping[str, Sequence[int]], paid: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Return tokens per dollar, rounded down, 0 where nothing was paid."""
    return {
        name: [one * NANO_PER_USD // nano if nano > 0 else 0 for one, nano in zip(line, paid[name], strict=True)]
        for name, line in tokens.items()
    }


def _feats(part: Stretch, by: By, measure: Measure, shown: frozenset[str] | None) -> Feats:
    """Return what a stretch of days adds to the records of those ``shown``; None shows all that have a name."""
    asked = ("feats", by == "author", measure, shown)
    known: Feats | None = part.worked.get(asked)
    if known is None:
        lines = {
            name: line for name, line in _worth(part, by, measure).items() if name and (shown is None or name in shown)
        }
        days = enumerate(zip(*lines.values(), strict=True), part.first)
        known = feats({day: dict(zip(lines, values, strict=True)) for day, values in days if any(values)})
        part.worked[asked] = known
    return known


def _named(by: str, stored: Mapping[str, Totals]) -> dict[str, Totals]:
    return folded(stored, author_of) if by == "author" else dict(stored)


def _minus(one: Totals, other: Totals) -> Totals:
    return Totals(
        one.tokens - other.tokens,
        one.requests - other.requests,
        one.charge_nano - other.charge_nano,
        one.cost_nano - other.cost_nano,
    )
