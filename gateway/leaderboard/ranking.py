"""The arithmetic of ranking: order, shares, change, the rest, records. Pure and exact; it cannot fail.

Values are integers. Whoever has the greater value is first, and of equal values the name that sorts first, so that a
board is the same however often it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest, nsmallest
from itertools import chain
from operator import itemgetter
from typing import Final, NamedTuple

from gateway.leaderboard.question import Basis, FirstOver, Lead, Measure, Peak, Records, Standing, Totals
from gateway.types.money import NANO_PER_USD

_value: Final = itemgetter(1)

PEAKS: Final = 10
NOTHING: Final = Totals()


def value_of(measure: Measure, totals: Totals, basis: Basis = "charge") -> int:
    """Return what ``totals`` are worth on a board of ``measure``.

    Tokens and requests as they are, spend in nano-USD, tokens per dollar in whole tokens (rounded down), 0 where
    nothing was paid.
    """
    if measure == "tokens":
        return totals.tokens
    if measure == "requests":
        return totals.requests
    if measure == "spend":
        return totals.charge_nano
    paid = totals.charge_nano if basis == "charge" else totals.cost_nano
    return totals.tokens * NANO_PER_USD // paid if paid > 0 else 0


def folded(totals: Mapping[str, Totals], name_of: Callable[[str], str]) -> dict[str, Totals]:
    """Return ``totals`` under the names that ``name_of`` gives, those of one name summed up."""
    found: dict[str, Totals] = {}
    for name, each in totals.items():
        called = name_of(name)
        found[called] = found[called] + each if called in found else each
    return found


def author_of(model: str) -> str:
    """Return who made a model: what stands before the slash; ``-`` for an id without one."""
    author, slash, _ = model.partition("/")
    return author if slash else "-"


def ordered(totals: Mapping[str, Totals], measure: Measure, basis: Basis = "charge") -> list[tuple[str, int]]:
    """Return names and values, best first; what is worth nothing is left out."""
    values = [(name, value_of(measure, each, basis)) for name, each in totals.items()]
    return sorted((each for each in values if each[1]), key=lambda each: (-each[1], each[0]))


def summed(totals: Iterable[Totals]) -> Totals:
    """Return the sum of ``totals``."""
    result = NOTHING
    for each in totals:
        result = result + each
    return result


def standings(
    now: Mapping[str, Totals],
    before: Mapping[str, Totals],
    whole: Totals,
    measure: Measure,
    limit: int,
    basis: Basis = "charge",
) -> list[Standing]:
    """Return the first ``limit`` rows of a board, without titles and series.

    Args:
        now: totals of the window by name.
        before: totals of the window before.
        whole: of everybody, with what has no name; shares are shares of it.
        measure: what to rank by.
        limit: most rows.
        basis: what a dollar is.
    """
    earlier = {name: (rank, value) for rank, (name, value) in enumerate(ordered(before, measure, basis), 1)}
    sum_of_all = value_of(measure, whole) if measure != "tokens_per_dollar" else 0
    rows: list[Standing] = []
    for rank, (name, value) in enumerate(ordered(now, measure, basis)[:limit], 1):
        previous_rank, previous_value = earlier.get(name, (None, None))
        rows.append(
            Standing(
                rank=rank,
                name=name,
                title="",
                value=value,
                share=round(value / sum_of_all, 6) if sum_of_all else None,
                totals=now[name],
                previous=before.get(name) if previous_rank is not None else None,
                previous_value=previous_value,
                previous_rank=previous_rank,
                change=round((value - previous_value) / previous_value, 4) if previous_value else None,
                series=[],
            )
        )
    return rows


class Feats(NamedTuple):
    """What some days add to the records.

    Attributes:
        best: the greatest value of each day, and whose it is; 0 and ``""`` where nobody has any.
        peaks: the greatest values of all: negated, with day and name, in order.
    """

    best: Mapping[int, tuple[int, str]]
    peaks: Sequence[tuple[int, int, str]]


def feats(days: Mapping[int, Mapping[str, int]]) -> Feats:
    """Return what ``days`` add to the records: the value of each name on each of them, in their order."""
    best = {day: _best(names) for day, names in days.items()}
    # The greatest of ten days are ten peaks already, so none of the ten peaks is below the least of them.
    floor = min(nlargest(PEAKS, (value for value, _ in best.values())), default=0) if len(best) >= PEAKS else 0
    values = (
        (-value, day, name)
        for day, (most, _) in best.items()
        if most >= floor
        for name, value in days[day].items()
        if value > 0 and value >= floor
    )
    return Feats(best, nsmallest(PEAKS, values))


def records(parts: Iterable[Feats], lines: Sequence[int]) -> Records:
    """Return the records of a board.

    Args:
        parts: of its days in their order; a day without usage may be missing.
        lines: values whose first passing is a record.
    """
    parts = list(parts)
    best = {day: each for part in parts for day, each in part.best.items()}
    peaks = [Peak(name, day, -value) for value, day, name in nsmallest(PEAKS, chain(*(part.peaks for part in parts)))]
    leads = _leads(best)
    longest = min(leads, key=lambda lead: (lead.first - lead.last, lead.first), default=None)
    current = leads[-1] if leads and leads[-1].last == max(best) else None
    return Records(peaks, longest, current, _first_over(best, lines))


def _best(names: Mapping[str, int]) -> tuple[int, str]:
    """Return the greatest value and whose it is; 0 and ``""`` where nobody has any."""
    most = max(names.values(), default=0)
    return (most, min(name for name, value in names.items() if value == most)) if most > 0 else (0, "")


def _first_over(best: Mapping[int, tuple[int, str]], lines: Sequence[int]) -> list[FirstOver]:
    """Return for each line the first day on which a name reached it, and of several the greatest."""
    found: list[FirstOver] = []
    missing = sorted(lines)
    for day, (value, name) in best.items():
        while missing and missing[0] <= value:
            found.append(FirstOver(missing.pop(0), name, day))
    return found


def _leads(best: Mapping[int, tuple[int, str]]) -> list[Lead]:
    """Return who was first on days in a row, in the order of time. A day without usage ends a lead."""
    leads: list[Lead] = []
    for day, (value, name) in best.items():
        if not value:
            continue
        if leads and leads[-1].name == name and leads[-1].last == day - 1:
            leads[-1] = Lead(name, leads[-1].first, day)
        else:
            leads.append(Lead(name, day, day))
    return leads


def top_and_rest(values: Mapping[str, int], limit: int) -> tuple[list[tuple[str, int]], int | None]:
    """Return the ``limit`` greatest values with their names, best first, and the sum of the others.

    Names of nothing are left out; the sum is None when there are no others.
    """
    found = sorted(values.items())
    found.sort(key=_value, reverse=True)  # what is equal stays in the order of names
    if not all(values.values()):
        found = [pair for pair in found if pair[1]]
    rest = found[limit:]
    return found[:limit], sum(map(_value, rest)) if rest else None
