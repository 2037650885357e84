"""Noise of step times that can be summed over many steps at once, so that a long decode costs a simulation nothing.

A table of factors, drawn once from a seed, repeats every ``STEPS`` steps; with prefix sums over it the time of any run
of steps, each with its own factor, is exact and takes constant time. Nothing here raises.
"""

from __future__ import annotations

import math
import random
from typing import Final

STEPS: Final = 4_096
"""Steps after which the noise repeats."""
_MEMORY: Final = 0.999
"""How much of the drift is left from one step to the next: it wanders over about a thousand steps."""


class Noise:
    """Factors on step times with mean 1: quick jitter, slow drift, rare stalls.

    Args:
        seed: equal seeds give equal noise.
        jitter: standard deviation of the logarithm, step by step.
        drift: standard deviation of the logarithm of the slow part.
        stall_share: share of steps that stall.
        stall_factor: factor of a stalled step.
    """

    __slots__ = ("_factors", "_sums", "_weighted")

    def __init__(self, seed: int, jitter: float, drift: float, stall_share: float, stall_factor: float) -> None:
        draw = random.Random(seed)  # noqa: S311 - repeatable noise, not a secret
        slow, spread = drift * draw.gauss(0.0, 1.0), drift * math.sqrt(1.0 - _MEMORY * _MEMORY)
        raw = []
        for _ in range(STEPS):
            slow = _MEMORY * slow + spread * draw.gauss(0.0, 1.0)
            stalled = stall_factor if draw.random() < stall_share else 1.0
            raw.append(math.exp(slow + jitter * draw.gauss(0.0, 1.0)) * stalled)
        mean = math.fsum(raw) / STEPS
        self._factors = [factor / mean for factor in raw]
        self._sums, self._weighted = [0.0], [0.0]
        for step, factor in enumerate(self._factors):
            self._sums.append(self._sums[-1] + factor)
            self._weighted.append(self._weighted[-1] + step * factor)

    def factor(self, step: int) -> float:
        """Return the factor of step number ``step``."""
        return self._factors[step % STEPS]

    def room(self, step: int) -> int:
        """Return how many steps from ``step`` on can be summed at once."""
        return STEPS - step % STEPS

    def total(self, step: int, count: int, first: float, growth: float) -> float:
        """Return the time of ``count`` steps from ``step`` on, at most ``room(step)``.

        Without noise the first takes ``first`` seconds and each next one ``growth`` seconds more.
        """
        start = step % STEPS
        factors = self._sums[start + count] - self._sums[start]
        return first * factors + growth * (self._weighted[start + count] - self._weighted[start] - start * factors)

    def passed(self, step: int, count: int, first: float, growth: float, seconds: float) -> int:
        """Return how many of the ``count`` steps from ``step`` on are over after ``seconds``."""
        low, high = 0, count
        while low < high:
            middle = (low + high + 1) // 2
            if self.total(step, middle, first, growth) <= seconds:
                low = middle
            else:
                high = middle - 1
        return low
