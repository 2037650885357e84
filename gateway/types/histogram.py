"""A mergeable histogram with relative accuracy, after DDSketch (Masson et al., VLDB 2019).

Bucket ``i`` holds values in ``(GAMMA**(i-1), GAMMA**i]``; any quantile is off by at most ``ACCURACY``. Two histograms
of the same kind merge by adding counts, so hours add up to days and workers to hosts without losing accuracy.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

ACCURACY: Final = 0.02
GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA: Final = math.log(GAMMA)
SMALLEST: Final = 1e-6
"""Values at or below this fall into one bucket; with seconds this is a microsecond."""
_FEW: Final = 5
"""How many numbers are decoded and encoded again in the time in which one bucket is looked for."""
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
        indices = sorted(self.counts)
        flat = [0] * (2 * len(indices))
        flat[::2] = indices
        flat[1::2] = [self.counts[index] for index in indices]
        return _encoder.encode(flat)

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

    def added_to(self, stored: bytes) -> bytes:
        """Return what ``dump`` gives for the histogram ``stored`` and this one together."""
        if not self.counts:
            return stored
        flat = _decoder.decode(stored)
        if len(self.counts) * _FEW > len(flat):
            joined = Histogram.load(stored)
            joined.merge(self)
            return joined.dump()
        # A few into many: look for their places, in place of taking all apart and sorting them anew.
        indices = flat[::2]
        for index, count in self.counts.items():
            place = bisect_left(indices, index)
            if place < len(indices) and indices[place] == index:
                flat[2 * place + 1] += count
            else:
                indices.insert(place, index)
                flat[2 * place : 2 * place] = (index, count)
        return _encoder.encode(flat)

    @classmethod
    def of(cls, values: Iterable[float]) -> Histogram:
        """Return a histogram of ``values``."""
        histogram = cls()
        for value in values:
            histogram.add(value)
        return histogram
