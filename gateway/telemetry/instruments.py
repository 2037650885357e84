"""Counters, gauges and histograms as plain Python state, read by prometheus_client only when somebody scrapes.

Counting is a look-up and an addition (and a bisection in a histogram); names and text forms are made at scrape.
Counters and histograms are written by one thread, the event loop's, and may be read by any; values that live in
another thread or object are *bound*: a callable that is called at scrape. A callable that fails costs its own
family, never the scrape.

Several processes can answer as one: each gives its ``Registry.dump``, and any of them renders all dumps together.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from operator import add
from typing import ClassVar, Final

import msgspec

from gateway.telemetry.logs import logger

Labels = tuple[str, ...]
Source = Callable[[], float | Mapping[Labels, float | None] | None]
"""Gives the value of a family without labels, or a value for each tuple of label values; None when unknown."""
Samples = dict[Labels, list[float]]
"""What a family holds by label values: one value, or a histogram's sum and then its bucket counts."""

OTHER: Final = "other"
"""Label value that stands for all label values beyond a family's cap."""
DEFAULT_CAP: Final = 2_000
HISTOGRAM_CAP: Final = 500

_log: Final = logger("gateway.telemetry.metrics")


class Fold(StrEnum):
    """How one value is made of the values several processes have for it."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


_FOLDS: Final[Mapping[Fold, Callable[[float, float], float]]] = {Fold.SUM: add, Fold.MAX: max, Fold.MIN: min}


class Family:
    """A metric with its label names.

    Attributes:
        name: full name as scraped, without the suffixes of a histogram's series.
        meaning: one sentence, the metric's HELP.
        labels: label names.
        fold: how values of several processes become one.
        bounds: upper bounds of a histogram's buckets; empty otherwise.
    """

    kind: ClassVar[str]
    bounds: Sequence[float] = ()
    fold: Fold = Fold.SUM

    def __init__(self, name: str, meaning: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = tuple(labels)

    def samples(self) -> Samples:
        """Return a copy of the current values, safe to keep."""
        raise NotImplementedError

    def _read(self, source: Source) -> Samples:
        """Call ``source`` and return its values. Raises ValueError when it gives the wrong number of labels."""
        values = source()
        if values is None:
            return {}
        if not isinstance(values, Mapping):
            values = {(): values}
        for labels in values:
            self._check(labels)
        return {labels: [float(value)] for labels, value in values.items() if value is not None}

    def _check(self, values: Labels) -> None:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has {len(self.labels)} labels, not {len(values)}")


class Counter(Family):
    """A sum that only grows. ``add`` is for one thread only; a bound counter is read from its source instead."""

    kind = "counter"

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str] = (),
        cap: int = DEFAULT_CAP,
    ) -> None:
        super().__init__(name, meaning, labels)
        self._cap = cap
        self._cells: dict[Labels, list[float]] = {} if labels else {(): [0]}
        self._source: Source | None = None

    def add(self, values: Labels, amount: float = 1) -> None:
        """Add ``amount`` (at least 0) to the series of the label values ``values``."""
        try:
            self._cells[values][0] += amount
        except KeyError:
            self._begin(values)[0] += amount

    def _begin(self, values: Labels) -> list[float]:
        """Start a series, or return the one of all others when there are too many."""
        self._check(values)
        if len(self._cells) >= self._cap:
            values = (OTHER,) * len(self.labels)
        return self._cells.setdefault(values, [0])

    def bind(self, source: Source) -> None:
        """From now on take the values from ``source``."""
        self._source = source

    def samples(self) -> Samples:
        """Return a copy of the current values."""
        if self._source is not None:
            return self._read(self._source)
        return {labels: list(cell) for labels, cell in dict(self._cells).items()}


class Gauge(Family):
    """A value that goes up and down, read from its source at scrape; without a source it has no values."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str] = (),
        fold: Fold = Fold.SUM,
    ) -> None:
        super().__init__(name, meaning, labels)
        self.fold = fold
        self._source: Source | None = None

    def bind(self, source: Source) -> None:
        """From now on take the values from ``source``."""
        self._source = source

    def samples(self) -> Samples:
        """Return the current values."""
        return {} if self._source is None else self._read(self._source)


class Histogram(Family):
    """Counts of values by bucket, and their sum. ``observe`` is for one thread only.

    Args:
        name: as in ``Family``.
        meaning: as in ``Family``.
        labels: as in ``Family``.
        buckets: upper bounds, ascending; a value equal to a bound is in its bucket.
        cap: how many series there may be before further ones count as ``other``.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        buckets: Sequence[float],
        cap: int = HISTOGRAM_CAP,
    ) -> None:
        super().__init__(name, meaning, labels)
        self.bounds = tuple(buckets)
        self._edges = [-math.inf, *buckets]  # one more, because the first place of a series is its sum
        self._cap = cap
        self._series: dict[Labels, list[float]] = {} if labels else {(): self._empty()}

    def observe(self, values: Labels, value: float) -> None:
        """Count ``value`` in the series of the label values ``values``."""
        try:
            series = self._series[values]
        except KeyError:
            series = self._begin(values)
        series[bisect_left(self._edges, value)] += 1
        series[0] += value

    def _begin(self, values: Labels) -> list[float]:
        """Start a series, or return the one of all others when there are too many."""
        self._check(values)
        if len(self._series) >= self._cap:
            values = (OTHER,) * len(self.labels)
        return self._series.setdefault(values, self._empty())

    def _empty(self) -> list[float]:
        return [0] * (len(self.bounds) + 2)  # the sum, a count per bound, one for +Inf

    def samples(self) -> Samples:
        """Return a copy of the current values."""
        return {labels: list(series) for labels, series in dict(self._series).items()}


Dump = dict[str, list[tuple[Labels, list[float]]]]
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Dump)


class Registry:
    """All metrics of a process, by name.

    Attributes:
        families: every metric that was declared, in that order.
    """

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self._bindable: dict[str, Counter | Gauge] = {}
        self._failing: set[str] = set()

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """Declare a counter. Raises ValueError, as all declarations do, when the name is taken."""
        counter = self._bindable[name] = Counter(name, meaning, labels)
        self._declare(counter)
        return counter

    def gauge(self, name: str, meaning: str, *labels: str, fold: Fold = Fold.SUM) -> Gauge:
        """Declare a gauge."""
        gauge = self._bindable[name] = Gauge(name, meaning, labels, fold)
        self._declare(gauge)
        return gauge

    def histogram(self, name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """Declare a histogram."""
        histogram = Histogram(name, meaning, labels, buckets)
        self._declare(histogram)
        return histogram

    def _declare(self, family: Family) -> None:
        if family.name in self.families:
            raise ValueError(f"there are two metrics {family.name}")
        self.families[family.name] = family

    def bind(self, name: str, source: Source) -> None:
        """Take the values of the counter or gauge ``name`` from ``source``; a later binding replaces an earlier one.

        Raises:
            ValueError: there is no counter or gauge of that name.
        """
        family = self._bindable.get(name)
        if family is None:
            raise ValueError(f"there is no counter or gauge {name}")
        family.bind(source)

    def state(self) -> dict[str, Samples]:
        """Return the current values of every family; a family whose source fails is left out, and logged once."""
        state: dict[str, Samples] = {}
        for name, family in self.families.items():
            try:
                samples = family.samples()
            except Exception as error:  # noqa: BLE001 - one broken source must not blind the operator to the rest
                if name not in self._failing:
                    self._failing.add(name)
                    _log.error("a metric cannot be read", metric=name, exc_info=error)
                continue
            self._failing.discard(name)
            state[name] = {tuple(map(_printable, labels)): value for labels, value in samples.items()}
        return state

    def dump(self) -> bytes:
        """Return the current values for ``render`` of another process of the same version."""
        return _encoder.encode({name: list(samples.items()) for name, samples in self.state().items()})

    def lasting(self, dumps: Iterable[bytes]) -> bytes:
        """Return one dump with all that ``dumps`` counted, and without gauges, which end with their process.

        Raises:
            msgspec.DecodeError, ValueError: a dump is not one of this version's.
        """
        state: dict[str, Samples] = {}
        for dump in dumps:
            for name, pairs in _decoder.decode(dump).items():
                family = self.families.get(name)
                if family is None or family.kind != "gauge":
                    self._fold(name, state.setdefault(name, {}), pairs)
        return _encoder.encode({name: list(samples.items()) for name, samples in state.items()})

    def render(self, accept: str = "", peers: Iterable[bytes] | None = ()) -> tuple[bytes, str]:
        """Return what a scrape gets, and its content type.

        Takes about 10 us a line; a thread of its own keeps that off the event loop, if the sources may be called there.

        Args:
            accept: the scraper's ``Accept`` header: OpenMetrics when it asks for it, else Prometheus' text form.
            peers: dumps of the other processes that count for this one; to keep counters from falling, the last
                dump of a process that ended stays among them. None when they cannot be had: without sums, then.

        Raises:
            msgspec.DecodeError, ValueError: a dump is not one of this version's.
        """
        # prometheus_client takes 2 MB, with an HTTP server of its own: only where somebody scrapes.
        from gateway.telemetry.exposition import expose  # noqa: PLC0415 # as said

        state = self.state()
        if peers is None:
            state = {name: samples for name, samples in state.items() if self.families[name].fold is not Fold.SUM}
        for peer in peers or ():
            for name, pairs in _decoder.decode(peer).items():
                self._fold(name, state.setdefault(name, {}), pairs)
        return expose(self.families, state, accept)

    def folded(self, names: Collection[str], peers: Iterable[bytes]) -> dict[str, Samples]:
        """Return the values of a few families over this process and its ``peers``, whose dumps these are.

        Raises:
            msgspec.DecodeError, ValueError: a dump is not one of this version's.
        """
        found = {name: self.families[name].samples() for name in names}
        for peer in peers:
            for name, pairs in _decoder.decode(peer).items():
                if name in found:
                    self._fold(name, found[name], pairs)
        return found

    def _fold(self, name: str, samples: Samples, pairs: Iterable[tuple[Labels, list[float]]]) -> None:
        """Bring what another process has for the family ``name`` into ``samples``."""
        family = self.families.get(name)
        if family is None:
            raise ValueError(f"another process has a metric {name} that is not known here")
        fold = _FOLDS[family.fold]
        for labels, values in pairs:
            known = samples.get(labels)
            samples[labels] = values if known is None else list(map(fold, known, values))


def _printable(value: str) -> str:
    """Return a label value that UTF-8 can carry, whatever a caller's JSON held."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
