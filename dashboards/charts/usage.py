"""Usage by name over a window, as stacked columns. Nothing here raises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dashboards.charts.strata import Strata, strata
from dashboards.span import Span
from gateway.console.measure import REST, Sum


def drawn(
    rows: Iterable[Sum],
    span: Span,
    value: Callable[[Sum], int],
    words: Callable[[float], str],
    titles: Mapping[str, str] | None = None,
) -> Strata:
    """Return the columns of ``rows``, the greatest name undermost.

    Args:
        rows: sums by name and point; those of ``REST`` belong to no name.
        span: the window.
        value: what is measured of a sum.
        words: says a value at the axis.
        titles: what names are called, where that is something else.
    """
    named: dict[str, list[int]] = {REST: [0] * span.length}
    for row in rows:
        name = row.name if row.name == REST else (titles or {}).get(row.name, row.name) or "none"
        named.setdefault(name, [0] * span.length)[row.point - span.first] += value(row)
    rest = named.pop(REST)
    ranked = sorted(named.items(), key=lambda each: (-sum(each[1]), each[0]))
    return strata([span.words(point) for point in span.points], ranked, rest, words)
