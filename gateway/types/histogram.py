"""A mergeable histogram with relative accuracy, after DDSketch (Masson et al., VLDB 2019).

Bucket ``i`` holds values in ``(GAMMA**(i-1), GAMMA**i]``; any quantile is off by at most ``ACCURACY``. Two histograms
of the same kind merge by adding counts, so hours add up to days and workers to hosts without losing accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import compress
from typing import Final

import msgspec

ACCURACY: Final = 0.02
GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
LOG2_GAMMA: Final = math.log2(GAMMA)
"""To base 2, because that logarithm takes half the time of the natural one."""
SMALLEST: Final = 1e-6
"""Values at or below this fall into one bucket; with seconds this is a microsecond."""
_DENSE: Final = 1_024
"""Buckets up to which those between are written too: with seconds, 1 µs to 30,000 years."""
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[int])
_NOTHING: Final = _encoder.encode([])
LOWEST: Final = math.ceil(math.log2(SMALLEST) / LOG2_GAMMA)
"""Their bucket: the first."""


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
        index = math.ceil(math.log2(value) / LOG2_GAMMA) if value > SMALLEST else LOWEST
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
        """Return the histogram as MessagePack, in one of two forms; equal histograms give equal bytes.

        *Dense*, as a rule: the lowest bucket, then a count for it and for each bucket up to the highest, and a zero if
        that makes the number of all odd. *Sparse*, over very many buckets: pairs of bucket and count, in order.
        """
        counts = self.counts
        if not counts:
            return _NOTHING
        first = min(counts)
        span = max(counts) - first + 1
        if span > _DENSE:
            return _encoder.encode([number for bucket in sorted(counts.items()) for number in bucket])
        flat = [0] * (1 + span + span % 2)
        for index, count in counts.items():
            flat[1 + index - first] = count
        flat[0] = first
        return _encoder.encode(flat)

    @classmethod
    def load(cls, data: bytes) -> Histogram:
        """Return the histogram that ``dump`` wrote. Raises ``msgspec.DecodeError`` on anything else."""
        flat = _decoder.decode(data)
        found = cls()
        if len(flat) % 2:
            if len(flat) == 1:
                raise msgspec.ValidationError("a histogram has a count for each bucket")
            first = flat[0] - 1
            found.counts = {first + place: count for place, count in enumerate(flat) if place and count}
        else:
            parts = iter(flat)
            found.counts = dict(zip(parts, parts, strict=True))
        return found

    def added_to(self, stored: bytes) -> bytes:
        """Return what ``dump`` gives for the histogram ``stored`` and this one together."""
        counts = self.counts
        if not counts:
            return stored
        flat = _decoder.decode(stored)
        if len(flat) > 1 and len(flat) % 2:
            first, last = min(counts), max(counts)
            before = min(flat[0], first) - 1
            if max(last, flat[0] + len(flat)) - before <= _DENSE:
                # As a rule, and the larger part of what the shipper does for a rollup.
                _widen(flat, first, last)
                for index, count in counts.items():
                    flat[index - before] += count
                return _encoder.encode(flat)
        joined = Histogram.load(stored)
        joined.merge(self)
        return joined.dump()

    @classmethod
    def merged(cls, dumps: Iterable[bytes]) -> Histogram:
        """Return the sum of what ``dump`` wrote, for very many of them: only buckets that hold something are met."""
        found = cls()
        counts, known = found.counts, found.counts.get
        for data in dumps:
            flat = _decoder.decode(data)
            if len(flat) > 1 and len(flat) % 2:
                first, flat[0] = flat[0] - 1, 0
                for place in compress(range(len(flat)), flat):
                    counts[first + place] = known(first + place, 0) + flat[place]
            elif flat:
                found.merge(cls.load(data))
        return found

    @classmethod
    def of(cls, values: Iterable[float]) -> Histogram:
        """Return a histogram of ``values``."""
        histogram = cls()
        for value in values:
            histogram.add(value)
        return histogram


def _widen(flat: list[int], first: int, last: int) -> None:
    """Make room for the buckets from ``first`` to ``last`` in a dense histogram."""
    if first >= flat[0] and last < flat[0] + len(flat) - 1:
        return
    if first < flat[0]:
        flat[1:1] = [0] * (flat[0] - first)
        flat[0] = first
    if not flat[-1]:
        del flat[-1]
    flat += [0] * (last - flat[0] + 2 - len(flat))
    if len(flat) % 2 == 0:
        flat.append(0)
