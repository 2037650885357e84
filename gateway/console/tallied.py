"""Answers out of the tallies: few rows for a question of days about one label, whatever the rollups hold besides.

``plan`` says where a question can be read, or None where only the rollups tell: two labels beside the team, or hours.
Every query is a range of a primary key. Errors are those of the unit of work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final

from gateway.console.measure import REST, Pick, Ranked, Sum, UsageQuestion
from gateway.db.bulk import Bulk
from gateway.metering.tallies import KINDS
from gateway.metering.totals import BLOCK_DAYS

_SUMS: Final = ("requests", "errors", "retries", "prompt", "completion", "cached", "charge_nano", "cost_nano")
_SUMMED: Final = ", ".join(f"SUM({name})" for name in _SUMS)
_SMALL: Final = "status"
"""The kind with the fewest names: all of them together are everything."""
_VALUES: Final = {
    "tokens": attrgetter("tokens"),
    "charge": attrgetter("charge_nano"),
    "requests": attrgetter("requests"),
    "errors": attrgetter("errors"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a question is.

    Attributes:
        teams: whose; ``("",)`` is all of them together.
        name: the one that is wanted; ``""`` for all.
        column: that groups are named by; ``""`` for one sum.
    """

    kind: str
    teams: tuple[str, ...]
    name: str = ""
    column: str = "name"


def plan(question: UsageQuestion) -> Place | None:
    """Return where the tallies have the answer, or None."""
    if question.grain != "day":
        return None
    teams = teams_of(question.pick)
    said = [kind for kind in KINDS if kind != "team" and getattr(question.pick, kind)]
    if len(said) > 1 or (said and question.group not in ("", "team", said[0])):
        return None
    column = "name" if question.group else ""
    if said:
        column = "team" if question.group == "team" else column
        return Place(said[0], teams, getattr(question.pick, said[0]), column)
    return Place(question.group or _SMALL, teams, column=column)


def teams_of(pick: Pick) -> tuple[str, ...]:
    """Return the teams whose usage counts, ``("",)`` for all of them; none where the two parts exclude each other."""
    if not pick.team:
        return ("",) if pick.teams is None else pick.teams
    return (pick.team,) if pick.teams is None or pick.team in pick.teams else ()


async def sums(read: Bulk, place: Place, question: UsageQuestion) -> list[Sum]:
    """Return the answer to a question."""
    if place.column == "team" and place.teams == ("",):
        everybody = await _window(read, Place("team", ("",)), question)
        place = replace(place, teams=tuple(row.name for row in everybody))
    if not place.teams:
        return []
    if not question.series:
        return await _window(read, place, question)
    if not question.most or place.column != "name" or place.name:
        return folded(await _points(read, place, question), question.most, question.by)
    names = ranked(await _window(read, place, question), question.by)
    if len(names) <= question.most:
        return await _points(read, place, question)
    shown = await _points(read, place, question, names[: question.most])
    everything = await _points(read, Place(_SMALL, place.teams, column=""), question)
    return shown + rest(everything, shown)


def ranked(rows: Iterable[Sum], by: Ranked) -> list[str]:
    """Return the names, the greatest first."""
    value, found = _VALUES[by], dict[str, int]()
    for row in rows:
        found[row.name] = found.get(row.name, 0) + value(row)
    return sorted(found, key=lambda name: (-found[name], name))


def folded(rows: Sequence[Sum], most: int, by: Ranked) -> list[Sum]:
    """Return ``rows`` with those of all names but the ``most`` greatest summed up under ``REST``."""
    names = ranked(rows, by)
    if not most or len(names) <= most:
        return list(rows)
    kept = set(names[:most])
    shown = [row for row in rows if row.name in kept]
    return shown + rest(rows, shown)


def rest(whole: Iterable[Sum], shown: Iterable[Sum]) -> list[Sum]:
    """Return what ``whole`` has beyond ``shown``, by point of time."""
    points: dict[int, list[int]] = {}
    for sign, rows in ((1, whole), (-1, shown)):
        for row in rows:
            left = points.setdefault(row.point, [0] * len(_SUMS))
            for index, name in enumerate(_SUMS):
                left[index] += sign * getattr(row, name)
    return [Sum(point, REST, *left) for point, left in sorted(points.items()) if any(left)]


async def _points(read: Bulk, place: Place, question: UsageQuestion, names: Sequence[str] = ()) -> list[Sum]:
    """Return sums by day, of ``names`` or of all that there are."""
    name = place.column or "''"
    clause, values = _where(place, "day", question.first, question.last, names)
    by = f"day, {name}" if place.column else "day"
    query = f"SELECT day, {name}, {_SUMMED} FROM tally_day WHERE {clause} GROUP BY {by}"  # noqa: S608 - columns of ours
    rows = await read.read(query, values)
    return _sorted(rows)


async def _window(read: Bulk, place: Place, question: UsageQuestion) -> list[Sum]:
    """Return sums of the whole window: out of whole blocks and the days before and behind them."""
    first, last = -(-question.first // BLOCK_DAYS), (question.last + 1) // BLOCK_DAYS - 1
    parts = [("tally_day", "day", question.first, question.last)]
    if first <= last:
        parts = [
            ("tally_block", "block", first, last),
            ("tally_day", "day", question.first, first * BLOCK_DAYS - 1),
            ("tally_day", "day", (last + 1) * BLOCK_DAYS, question.last),
        ]
    queries, values = [], list[Any]()
    for table, time, begin, end in parts:
        if begin <= end:
            clause, given = _where(place, time, begin, end)
            queries.append(f"SELECT team, name, {', '.join(_SUMS)} FROM {table} WHERE {clause}")  # noqa: S608 - our names
            values += given
    name, by = (place.column, f" GROUP BY {place.column}") if place.column else ("''", "")
    union = " UNION ALL ".join(queries)
    query = f"SELECT {question.first}, {name}, {_SUMMED} FROM ({union}) AS parts{by}"  # noqa: S608 - names of ours, a day
    rows = await read.read(query, values)
    return _sorted(row for row in rows if row[2] is not None)


def _where(place: Place, time: str, first: int, last: int, names: Sequence[str] = ()) -> tuple[str, list[Any]]:
    wanted = [place.name] if place.name else list(names)
    clause = f"team IN ({', '.join('?' * len(place.teams))}) AND kind = ? AND {time} BETWEEN ? AND ?"
    if wanted:
        clause += f" AND name IN ({', '.join('?' * len(wanted))})"
    return clause, [*place.teams, place.kind, first, last, *wanted]


def _sorted(rows: Iterable[Sequence[Any]]) -> list[Sum]:
    found = [Sum(int(row[0]), row[1], *map(int, row[2:])) for row in rows]
    return sorted(found, key=attrgetter("point", "name"))
