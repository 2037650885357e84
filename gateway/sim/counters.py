"""Numbers a simulated engine counts, and their Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0)
"""Upper bounds of the latency histograms, in seconds."""


class Histogram:
    """Counts by upper bound, with sum and count."""

    __slots__ = ("_counts", "bounds", "count", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BUCKETS) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value``, ``times`` times."""
        self._counts[bisect_left(self.bounds, value)] += times
        self.count += times
        self.total += value * times

    def cumulative(self) -> list[tuple[str, int]]:
        """Return (upper bound, values up to it), ending with ``+Inf``."""
        seen = 0
        rows: list[tuple[str, int]] = []
        for bound, number in zip((*self.bounds, float("inf")), self._counts, strict=True):
            seen += number
            rows.append(("+Inf" if bound == float("inf") else repr(bound), seen))
        return rows


class Counters:
    """What one engine counts over its life."""

    __slots__ = (
        "cache_hits",
        "cache_queries",
        "e2e",
        "finished",
        "generation_tokens",
        "itl",
        "preemptions",
        "prompt_tokens",
        "queue_time",
        "refused",
        "requests",
        "ttft",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.cache_queries = 0
        self.cache_hits = 0
        self.preemptions = 0
        self.finished: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.ttft = Histogram()
        self.itl = Histogram()
        self.e2e = Histogram()
        self.queue_time = Histogram()


class Exposition:
    """Collects metrics and renders them; ``labels`` stand on every sample."""

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        self._labels = dict(labels or {})
        self._lines: list[str] = []
        self._named: set[str] = set()

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Add a gauge."""
        self._sample(name, "gauge", value, labels)

    def counter(self, name: str, value: float, **labels: str) -> None:
        """Add a counter; ``name`` is the full sample name."""
        self._sample(name, "counter", value, labels)

    def histogram(self, name: str, histogram: Histogram) -> None:
        """Add a histogram with its buckets, sum and count."""
        self._lines.append(f"# TYPE {name} histogram")
        for bound, number in histogram.cumulative():
            self._lines.append(f"{name}_bucket{self._braces({'le': bound})} {float(number)}")
        self._lines.append(f"{name}_sum{self._braces({})} {histogram.total!r}")
        self._lines.append(f"{name}_count{self._braces({})} {float(histogram.count)}")

    def text(self) -> bytes:
        """Return everything added so far as Prometheus text."""
        return ("\n".join(self._lines) + "\n").encode()

    def _sample(self, name: str, kind: str, value: float, labels: Mapping[str, str]) -> None:
        if name not in self._named:
            self._named.add(name)
            self._lines.append(f"# TYPE {name} {kind}")
        self._lines.append(f"{name}{self._braces(labels)} {float(value)!r}")

    def _braces(self, more: Mapping[str, str]) -> str:
        labels = {**self._labels, **more}
        if not labels:
            return ""
        inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
        return "{" + inside + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
