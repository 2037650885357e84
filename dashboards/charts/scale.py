"""Round numbers for axes. Nothing here raises."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Final

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
SIZE: Final = 1000.0
"""Width and height of a drawing."""


def ticks(largest: float, most: int = 4) -> tuple[float, ...]:
    """Return round numbers from 0 to one that is not below ``largest``, at most ``most`` besides 0."""
    if largest <= 0:
        return (0.0, 1.0)
    rough = largest / most
    power = 10.0 ** floor(log10(rough))
    step = next(power * each for each in _STEPS if power * each >= rough * (1 - 1e-9))
    count = max(1, ceil(largest / step - 1e-9))
    return tuple(step * number for number in range(count + 1))
