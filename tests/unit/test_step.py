"""A request gives way to those that came with it, and to nobody when it is alone."""

from __future__ import annotations

import pytest

from gateway.step import STEP, TOGETHER_S


@pytest.mark.parametrize(
    ("gap", "others", "turns"),
    [(0.0, True, 1), (TOGETHER_S / 2, True, 1), (2 * TOGETHER_S, True, 0), (5.0, True, 0), (TOGETHER_S / 2, False, 0)],
)
def test_only_who_came_together_gives_way(gap: float, others: bool, turns: int) -> None:
    """What counts is when the last two came, and that any is there beside the last: its caller may just be quick."""
    STEP.came(1.0, others=False)
    STEP.came(1.0 + gap, others=others)
    assert len(list(STEP.__await__())) == turns
