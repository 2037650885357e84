"""What analytics takes and gives, in OpenRouter's shape: the words for metrics, dimensions and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AwareDatetime, BaseModel, Field

from gateway.admin.answer import usd
from gateway.admin.body import Body
from gateway.types.analytics import SUMS, Cell
from gateway.types.histogram import Histogram

Grain = Literal["hour", "day", "week", "month"]
Operation = Literal["eq", "neq", "in", "not_in"]
DIMENSIONS: Final[Mapping[str, tuple[str, str]]] = {
    "model": ("model", "Model"),
    "api_key_id": ("key_id", "API key, by its `hash`"),
    "workspace": ("team", "Workspace"),
    "app": ("app", "App"),
    "provider": ("endpoint", "Provider"),
    "service_tier": ("tier", "Service tier"),
    "status": ("status", "How the attempt ended"),
}
"""Dimensions by name: the label of the rollups that they are made of, and what people call them."""


class FilterBody(Body):
    """That a dimension has, or has not, one of some values."""

    field: str = Field(description="A dimension.")
    operator: Operation = Field(description="`in` and `not_in` take a list.")
    value: str | Annotated[list[str], Field(min_length=1, max_length=100)] = Field(description="Values wanted.")


class OrderBody(Body):
    """The order of rows."""

    field: str = Field(description="A metric, a dimension, or the time.")
    direction: Literal["asc", "desc"] = Field("desc", description="Which way.")


class RangeBody(Body):
    """The time asked for; both ends are rounded down to hours or days, the last one included."""

    start: AwareDatetime = Field(description="ISO 8601 with an offset.")
    end: AwareDatetime = Field(description="ISO 8601 with an offset.")


class QueryBody(Body):
    """A question."""

    metrics: Annotated[list[str], Field(min_length=1, max_length=30, description="Metrics wanted.")]
    dimensions: Annotated[list[str], Field(max_length=2, description="What rows are apart by.")] = Field([])
    filters: Annotated[list[FilterBody], Field(max_length=20, description="What counts; all have to hold.")] = Field([])
    granularity: Grain | None = Field(None, description="Rows apart by time, too; null for one sum over all of it.")
    time_range: RangeBody | None = Field(None, description="The last 30 days unless said.")
    order_by: OrderBody | None = Field(None, description="By time, then the first metric downwards, unless said.")
    limit: Annotated[int, Field(ge=1, le=10_000)] = Field(1_000, description="Rows at most.")
    group_limit: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        None, description="Only so many groups: those with most of the first metric over the whole time."
    )


class MetricData(BaseModel):
    """A metric."""

    name: str
    display_label: str
    display_format: str
    is_rate: bool


class NamedData(BaseModel):
    """A dimension or a granularity."""

    name: str
    display_label: str


class OperatorData(BaseModel):
    """An operator of filters."""

    name: str
    value_type: str


class MetaData(BaseModel):
    """All words that a question may use."""

    metrics: list[MetricData]
    dimensions: list[NamedData]
    granularities: list[NamedData]
    operators: list[OperatorData]


class MetaAnswer(BaseModel):
    """All words that a question may use."""

    data: MetaData


class QueryMetadata(BaseModel):
    """What is to be known of an answer."""

    query_time_ms: float
    row_count: int
    truncated: bool


class QueryData(BaseModel):
    """Rows: the time, dimensions, and metrics by their names."""

    data: list[dict[str, Any]]
    metadata: QueryMetadata


class QueryAnswer(BaseModel):
    """The answer to a question."""

    data: QueryData


class Totals:
    """The sums of cells, from which metrics are made."""

    __slots__ = ("_sums", "throughput", "ttft")

    def __init__(self) -> None:
        self._sums = dict.fromkeys(SUMS, 0)
        self.ttft = Histogram()
        self.throughput = Histogram()

    def add(self, cell: Cell) -> None:
        """Add a cell."""
        for name, value in zip(SUMS, cell.sums, strict=True):
            self._sums[name] += value
        for histogram, data in ((self.ttft, cell.ttft), (self.throughput, cell.throughput)):
            if data:
                histogram.merge(Histogram.load(data))

    def __getitem__(self, name: str) -> int:
        return self._sums[name]


class Metric(msgspec.Struct, frozen=True):
    """A metric.

    Attributes:
        label: what people call it.
        form: ``number``, ``currency``, ``percent``, ``latency`` (milliseconds) or ``throughput`` (tokens per second).
        value: makes the comparable value of sums; None when there is nothing to make it of.
        speeds: whether it is made of latencies or throughputs.
    """

    label: str
    form: str
    value: Callable[[Totals], float | None]
    speeds: bool = False

    def shown(self, totals: Totals) -> Any:
        """Return its value as JSON; money exactly."""
        value = self.value(totals)
        return usd(int(value)) if self.form == "currency" and value is not None else value


def _sum(name: str) -> Callable[[Totals], float]:
    return lambda totals: totals[name]


def _quantile(name: str, q: float, scale: float) -> Callable[[Totals], float | None]:
    def value(totals: Totals) -> float | None:
        found: float | None = getattr(totals, name).quantile(q)
        return None if found is None else round(found * scale, 3)

    return value


def _mean(name: str, scale: float) -> Callable[[Totals], float | None]:
    """Return what takes the mean of a histogram, each value as the middle of its bucket."""

    def value(totals: Totals) -> float | None:
        return mean(getattr(totals, name), scale)

    return value


def mean(histogram: Histogram, scale: float) -> float | None:
    """Return the mean of a histogram times ``scale``, with its accuracy, or None when it is empty."""
    total = histogram.total
    if not total:
        return None
    parts = [(count, Histogram({index: 1}).quantile(0.5) or 0.0) for index, count in histogram.counts.items()]
    return round(scale * sum(count * middle for count, middle in parts) / total, 3)


def _answers(totals: Totals) -> int:
    """Return how many requests were answered, by an engine or from the response cache."""
    return totals["requests"] + totals["cache_hits"]


def _share(part: str, whole: str) -> Callable[[Totals], float | None]:
    return lambda totals: round(totals[part] / totals[whole], 6) if totals[whole] else None


METRICS: Final[Mapping[str, Metric]] = {
    "request_count": Metric("Requests", "number", _answers),
    "response_cached_count": Metric("Answers from the response cache", "number", _sum("cache_hits")),
    "response_cached_rate": Metric(
        "Share of the response cache",
        "percent",
        lambda totals: round(totals["cache_hits"] / _answers(totals), 6) if _answers(totals) else None,
    ),
    "byok_request_count": Metric("Requests with own keys", "number", _sum("byok_requests")),
    "byok_usage": Metric("List price of requests with own keys", "currency", _sum("byok_list_nano")),
    "byok_fees": Metric("Charged for requests with own keys", "currency", _sum("byok_charge_nano")),
    "tokens_total": Metric("Tokens", "number", lambda totals: totals["tokens_prompt"] + totals["tokens_completion"]),
    "tokens_prompt": Metric("Prompt tokens", "number", _sum("tokens_prompt")),
    "tokens_completion": Metric("Completion tokens", "number", _sum("tokens_completion")),
    "reasoning_tokens": Metric("Reasoning tokens", "number", _sum("tokens_reasoning")),
    "cached_tokens": Metric("Cached tokens", "number", _sum("tokens_cache_read")),
    "cache_hit_rate": Metric("Cache hit rate", "percent", _share("tokens_cache_read", "tokens_prompt")),
    "total_usage": Metric("Charged", "currency", _sum("charge_nano")),
    "credits_usage": Metric("Charged", "currency", _sum("charge_nano")),
    **{
        f"{name}_latency": Metric(f"{name} time to first token", "latency", value, speeds=True)
        for name, value in (
            ("avg", _mean("ttft", 1_000.0)),
            *((f"p{percent}", _quantile("ttft", percent / 100, 1_000.0)) for percent in (50, 90, 99)),
        )
    },
    **{
        f"{name}_throughput": Metric(f"{name} throughput", "throughput", value, speeds=True)
        for name, value in (
            ("avg", _mean("throughput", 1.0)),
            # As OpenRouter has it: 90 % of requests do better than the p90 of throughput.
            *((f"p{percent}", _quantile("throughput", 1 - percent / 100, 1.0)) for percent in (50, 90, 99)),
        )
    },
}
"""Metrics by name."""
META: Final[dict[str, Any]] = {
    "metrics": [
        {"name": name, "display_label": each.label, "display_format": each.form, "is_rate": each.form == "percent"}
        for name, each in METRICS.items()
    ],
    "dimensions": [{"name": name, "display_label": label} for name, (_, label) in DIMENSIONS.items()],
    "granularities": [{"name": name, "display_label": name.capitalize()} for name in ("hour", "day", "week", "month")],
    "operators": [
        {"name": name, "value_type": "array" if name.endswith("in") else "scalar"}
        for name in ("eq", "neq", "in", "not_in")
    ],
}
