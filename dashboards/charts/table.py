"""The table behind a chart: the exact numbers in words. Nothing here raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from dashboards.charts.axes import Axes

HEAD: Final = "\r"
CELL: Final = "\t"
ROW: Final = "\n"


def text(chart: Axes[Any], exact: Callable[[Any], str], totals: Sequence[int] = ()) -> str:
    """Return a row for each point of time: its label, its total where there are ``totals``, the values of every layer.

    ``HEAD`` stands behind a label, ``CELL`` between values, ``ROW`` between rows. It is one text, in which the template
    puts its own marks, because some thousand cells put into it one by one take most of the time of a page.
    """
    columns = [layer.values for layer in chart.layers]
    told = [list(map(exact, values)) for values in ([totals, *columns] if totals else columns)]
    rows = map(CELL.join, zip(*told, strict=True))
    return ROW.join(f"{label}{HEAD}{row}" for label, row in zip(chart.labels, rows, strict=True))
