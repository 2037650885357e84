"""A request gives way to those that came with it, and to nobody when it is alone."""

from __future__ import annotations

import pytest

from gateway.step import STEP, TOGETHER_S


@pytest.mark.parametrize(("gap", "turns"), [(0.0, 1), (TOGETHER_S / 2, 1), (2 * TOGETHER_S, 0), (5.0, 0)])
def test_only_who_came_together_gives_way(gap: float, turns: int) -> None:
    """What counts is when the last two came."""
    STEP.came(1.0)
    STEP.came(1.0 + gap)
    assert len(list(STEP.__await__())) == turns
