"""How long answers usually are, by model and client: callers rarely say, and budgets of time and room depend on it.

A moving average per (model, client), and one per model for clients nothing is known of. Bounded; nothing here raises.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

ASSUMED_TOKENS: Final = 256
"""Tokens of an answer of a model nothing is known of."""
WEIGHT: Final = 0.1
"""Weight of a new answer in the average."""
REMEMBERED: Final = 10_000
"""Pairs that are remembered, least recently learned of forgotten first."""


class Expectations:
    """Average lengths of answers, in tokens of one choice."""

    __slots__ = ("_means",)

    def __init__(self) -> None:
        self._means: OrderedDict[tuple[str, str], float] = OrderedDict()

    def tokens(self, model: str, client: str, most: int | None) -> int:
        """Return the tokens to expect of an answer of ``model`` to ``client`` that may have ``most`` at most."""
        mean = self._means.get((model, client)) or self._means.get((model, "")) or ASSUMED_TOKENS
        expected = max(1, round(mean))
        return expected if most is None or expected < most else most

    def answered(self, model: str, client: str, tokens: int) -> None:
        """Learn that an answer of ``model`` to ``client`` had ``tokens`` tokens."""
        means = self._means
        for key in {(model, client), (model, "")}:
            mean = means.get(key)
            means[key] = tokens if mean is None else mean + WEIGHT * (tokens - mean)
            means.move_to_end(key)
        while len(means) > REMEMBERED:
            means.popitem(last=False)
