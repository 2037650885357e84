"""A mergeable histogram with relative accuracy, after DDSketch (Masson et al., VLDB 2019).

Bucket ``i`` holds values in ``(GAMMA**(i-1), GAMMA**i]``; any quantile is off by at most ``ACCURACY``. Two histograms
of the same kind merge by adding counts, so hours add up to days and workers to hosts without losing accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final

import msgspec

ACCURACY: Final = 0.02
GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA: Final = math.log(GAMMA)
SMALLEST: Final = 1e-6
"""Values at or below this fall into one bucket; with seconds this is a microsecond."""
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[int])
_LOWEST: Final = math.ceil(math.log(SMALLEST) / _LOG_GAMMA)


class Histogram:
    """Counts of positive values by logarithmic bucket.

    Attributes:
        counts: bucket index to count.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts) if counts else {}

    def add(self, value: float, count: int = 1) -> None:
        """Count ``value`` (any unit, at least 0) ``count`` times."""
        index = math.ceil(math.log(value) / _LOG_GAMMA) if value > SMALLEST else _LOWEST
        self.counts[index] = self.counts.get(index, 0) + count

    def merge(self, other: Histogram) -> None:
        """Add the counts of ``other`` to this one."""
        counts = self.counts
        known = counts.get
        for index, count in other.counts.items():
            counts[index] = known(index, 0) + count

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts.values())

    def quantile(self, q: float) -> float | None:
        """Return the value at quantile ``q`` in [0, 1], or None when nothing was counted."""
        total = self.total
        if total == 0:
            return None
        rank = q * (total - 1)
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen > rank:
                return 2 * GAMMA**index / (GAMMA + 1)
        return None  # pragma: no cover - the counts add up to total

    def dump(self) -> bytes:
        """Return the histogram as MessagePack, buckets in order: equal histograms give equal bytes."""
        return _encoder.encode([*chain.from_iterable(sorted(self.counts.items()))])

    @classmethod
    def load(cls, data: bytes) -> Histogram:
        """Return the histogram that ``dump`` wrote. Raises ``msgspec.DecodeError`` on anything else."""
        flat = _decoder.decode(data)
        if len(flat) % 2:
            raise msgspec.ValidationError("a histogram has a count for each bucket")
        found = cls()
        parts = iter(flat)
        found.counts = dict(zip(parts, parts, strict=True))
        return found

    @classmethod
    def of(cls, values: Iterable[float]) -> Histogram:
        """Return a histogram of ``values``."""
        histogram = cls()
        for value in values:
            histogram.add(value)
        return histogram
