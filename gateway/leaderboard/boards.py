"""Making a board of what the store reads: names folded, ranked, with series, titles and the rest summed up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from operator import add
from pathlib import Path

from msgspec import structs

from gateway.leaderboard.question import (
    MADE_UP,
    AppStanding,
    AppWindow,
    Basis,
    Board,
    Days,
    DayTokens,
    Measure,
    Question,
    Records,
    RecordsQuestion,
    Totals,
)
from gateway.leaderboard.ranking import NOTHING, author_of, folded, records, standings, summed
from gateway.leaderboard.store import BoardStore, Extent, Used
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
        columns = columns_of(question.measure, question.basis)
        stored, stored_before = await self._store.windows(extent, columns)
        now = _named(question.by, {name: used.totals for name, used in stored.items()})
        before = _named(question.by, stored_before)
        whole, earlier = summed(now.values()), summed(before.values())
        unattributed = now.pop("", NOTHING)
        before.pop("", None)
        names = len(now)
        titles: Mapping[str, str] = {}
        if question.by == "app":
            titles = await self._store.titles()
            if question.approved:
                now = {name: each for name, each in now.items() if name in titles}
                before = {name: each for name, each in before.items() if name in titles}
        rows = standings(now, before, whole, question.measure, question.limit, question.basis)
        series = _series(question, stored, [row.name for row in rows])
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

    async def days(self, window: Days) -> list[DayTokens]:
        """Return tokens per model of each day. Raises ``Unavailable``."""
        extent = Extent("model", window.team, "day", window.first, window.last)
        return [
            DayTokens(day, models, tokens) for day, models, (tokens,) in await self._store.days(extent, ("tokens",))
        ]

    async def app_window(self, window: AppWindow) -> list[AppStanding]:
        """Return approved apps. Raises ``Unavailable``."""
        return await self._store.app_window(window.team, window.first, window.last, window.categories)

    async def strangers(self, keys: tuple[str, ...]) -> list[str]:
        """Return a few keys with usage that are not among ``keys``; none when the ledger is of these alone."""
        return await self._store.strangers(keys)

    async def records(self, question: RecordsQuestion, lines: list[int]) -> Records:
        """Return the records of a board. Raises ``Unavailable``."""
        extent = Extent(question.by, question.team, "day", question.first, question.last)
        shown = set(await self._store.titles()) if question.by == "app" and question.approved else None
        columns = columns_of(question.measure, "charge")
        days: dict[int, dict[str, int]] = {}
        for day, stored, values in await self._store.days(extent, columns):
            names = list(map(author_of, stored)) if question.by == "author" else stored
            summed_up = [_by_name(names, column) for column in values]
            worth = _values(question.measure, [list(each.values()) for each in summed_up])
            days[day] = {
                name: value
                for name, value in zip(summed_up[0], worth, strict=True)
                if name and (shown is None or name in shown)
            }
        return records(days, lines if question.measure == "tokens" else [])


def columns_of(measure: Measure, basis: Basis) -> tuple[str, ...]:
    """Return the columns of totals that a measure is made of."""
    paid = "charge_nano" if basis == "charge" else "cost_nano"
    return {
        "tokens": ("tokens",),
        "requests": ("requests",),
        "spend": ("charge_nano",),
        "tokens_per_dollar": ("tokens", paid),
    }[measure]


def _series(question: Question, stored: Mapping[str, Used], names: list[str]) -> dict[str, list[int]]:
    """Return the values of each point, by the names of the board."""
    wanted = set(names)
    of_author = question.by == "author"
    parts = [name for name in stored if author_of(name) in wanted] if of_author else names
    series: dict[str, list[list[int]]] = {}
    for part in parts:
        name = author_of(part) if of_author else part
        course = stored[part].course(question.first, question.last)
        # A ratio cannot be added up, so its parts are, and divided at the end.
        series[name] = (
            [list(map(add, *pair)) for pair in zip(series[name], course, strict=True)] if name in series else course
        )
    return {name: _values(question.measure, columns) for name, columns in series.items()}


def _values(measure: Measure, columns: list[list[int]]) -> list[int]:
    """Return the values of points, from the columns that the measure is made of."""
    if measure != "tokens_per_dollar":
        return columns[0]
    return [tokens * NANO_PER_USD // paid if paid > 0 else 0 for tokens, paid in zip(*columns, strict=True)]


def _by_name(names: list[str], values: list[int]) -> dict[str, int]:
    found = dict.fromkeys(names, 0)
    for name, value in zip(names, values, strict=True):
        found[name] += value
    return found


def _named(by: str, stored: Mapping[str, Totals]) -> dict[str, Totals]:
    return folded(stored, author_of) if by == "author" else dict(stored)


def _minus(one: Totals, other: Totals) -> Totals:
    return Totals(
        one.tokens - other.tokens,
        one.requests - other.requests,
        one.charge_nano - other.charge_nano,
        one.cost_nano - other.cost_nano,
    )
