"""Sparklines: the shape of a series, without axes. Nothing here raises."""

from __future__ import annotations

from collections.abc import Sequence


def sparkline(values: Sequence[float], *, height: float = 100.0, width: float = 300.0) -> str:
    """Return the points of a polyline through ``values``, for a box of ``width`` by ``height``; ``""`` without two."""
    if len(values) < 2:
        return ""
    top = max(values) or 1.0
    step = width / (len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 4 - (height - 8) * value / top:.1f}" for index, value in enumerate(values)
    )
