"""The judge of ``make screenshots``: each bar can be missed, and only what is named is tolerated."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ui.screenshots import BARS, missed

GOOD: dict[str, Any] = {
    "url": "/console",
    "role": "owner",
    "status": 200,
    "queries": 12,
    "p95_ms": 100.0,
    "bytes": 300_000,
}


@pytest.mark.parametrize(
    ("bar", "value"),
    [
        ("status", 500),
        ("axe", ["label (1)"]),
        ("console", ["TypeError"]),
        ("csp", ["refused"]),
        ("wide", 1),
        ("queries", 13),
        ("p95_ms", 100.1),
        ("bytes", 300_001),
    ],
)
def test_every_bar_can_be_missed(bar: str, value: Any) -> None:
    """What is just good enough misses nothing; what is not names the bar."""
    assert missed(GOOD) == []
    assert missed(GOOD | {bar: value}) == [bar]
    assert bar in BARS
