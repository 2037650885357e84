"""Sparklines: the shape of a series, without axes. Nothing here raises."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache


def sparkline(values: Sequence[float], *, height: int = 100, width: int = 300) -> str:
    """Return the points of a polyline through ``values``, for a box of ``width`` by ``height``; ``""`` without two."""
    if len(values) < 2:
        return ""
    floor, scale = height - 4, (height - 8) / (max(values) or 1.0)
    return " ".join(
        [f"{x},{floor - scale * value:.0f}" for x, value in zip(_across(len(values), width), values, strict=True)]
    )


@lru_cache(maxsize=64)
def _across(count: int, width: int) -> tuple[int, ...]:
    """Return where ``count`` points stand from left to right."""
    return tuple(round(index * width / (count - 1)) for index in range(count))
