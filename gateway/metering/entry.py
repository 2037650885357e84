"""A row on its way from the journal into the books, in the form that ledger and rollups take it.

Most rows of a host share few sets of labels, so the labels are decoded once per set and not once per row; that and
plain built-in types (the SQLite driver looks up an adapter for every other one) make up much of the shipper's speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from gateway.metering.record import Close, Dimensions, End, RowKind, end_of
from gateway.types.charge import Charge
from gateway.types.ids import day
from gateway.types.tokens import Usage

RowKey = tuple[int, bytes, int, str]
"""Day, request id, attempt, kind."""

COLUMNS: Final = (
    *("day", "request_id", "attempt", "kind"),
    *("team", "key_id", "model", "endpoint", "backend", "provider", "app", "tier", "operation"),
    *("requested_model", "upstream_model", "end_user", "streamed", "price_id", "cost_id"),
    *("opened_us", "status", "finish_reason", "http_status"),
    *(f"tokens_{name}" for name in Usage.__struct_fields__),
    *("source", "charge_nano", *(f"charge_{name}" for name in Charge.__struct_fields__)),
    *("cost_nano", *(f"cost_{name}" for name in Charge.__struct_fields__)),
    *("ttft_us", "duration_us", "generation_us", "upstream_id", "error"),
)
"""Columns of the ledger."""
_OPTIONAL: Final = frozenset(
    {
        *("tokens_cache_write", "tokens_audio_prompt", "tokens_audio_completion"),
        *("tokens_image_prompt", "tokens_image_completion"),
        *("charge_cache_write", "charge_audio", "charge_image", "charge_request"),
        *("cost_nano", *(f"cost_{name}" for name in Charge.__struct_fields__)),
    }
)
CORE_COLUMNS: Final = tuple(name for name in COLUMNS if name not in _OPTIONAL)
"""Columns of a row without the classes that are seldom used; the others default to zero."""

TOKEN_BITS: Final = 40
"""One row is believed up to 2**40 tokens of a class; more is a defect of the engine that reported them."""
MONEY_BITS: Final = 50
"""One row is believed up to 2**50 nano-USD, about a million USD."""

_TOKEN_CLASSES: Final = len(Usage.__struct_fields__)
_MONEY_CLASSES: Final = len(Charge.__struct_fields__)
_MS_PER_HOUR: Final = 3_600_000
_MOST_LABELS: Final = 4_096
_SLICE: Final = 100

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Labels:
    """What rows are counted by.

    Attributes:
        key_id: public id of the inference key.
        columns: all dimensions, in the order of the ledger.
        rollup: team, key, model, endpoint, app, tier.
    """

    key_id: str
    columns: tuple[str | int, ...]
    rollup: tuple[str, str, str, str, str, str]


class Entry:
    """One row for the ledger.

    Attributes:
        end: the row as it was read.
        labels: what it is counted by.
        core: whether only ``CORE_COLUMNS`` are not zero.
        columns: its values, in the order of ``CORE_COLUMNS`` or of ``COLUMNS``.
        hour: UTC hour of its request, counted from 1970.
        charge_nano: what the team pays, nano-USD.
        cost_nano: what the owner pays, nano-USD.
    """

    __slots__ = ("charge_nano", "columns", "core", "cost_nano", "end", "hour", "labels")

    def __init__(self, end: End) -> None:
        charge, cost, usage = sum(end.charge), sum(end.cost), end.usage
        if (
            len(usage) != _TOKEN_CLASSES
            or len(end.charge) != _MONEY_CLASSES
            or len(end.cost) != _MONEY_CLASSES
            or max(usage) >> TOKEN_BITS
            or (usage[0] | usage[1]) < 0
            or charge >> MONEY_BITS
            or cost >> MONEY_BITS
        ):
            end = _mended(end)
            charge, cost = sum(end.charge), sum(end.cost)
        self.end = end
        self.labels = _labels(bytes(end.dims))
        self.hour = int.from_bytes(end.request_id[:6], "big") // _MS_PER_HOUR  # `ids.hour`, without the calls
        self.charge_nano = charge
        self.cost_nano = cost
        usage, charged = end.usage, end.charge
        self.core = not (
            cost
            or usage[3]
            or charged[3]
            or charged[5]
            or charged[6]
            or charged[7]
            or usage[5]
            or usage[6]
            or usage[7]
            or usage[8]
        )
        day, labels = self.hour // 24, self.labels.columns
        self.columns = (
            _core_columns(end, labels, day, charge) if self.core else _columns(end, labels, day, charge, cost)
        )

    @classmethod
    def of(cls, close: Close) -> Entry:
        """Return the entry of a record that is not read from a journal."""
        return cls(end_of(close))

    @property
    def key(self) -> RowKey:
        """What the ledger knows the row by."""
        end = self.end
        return (self.hour // 24, end.request_id, end.attempt, end.kind)


def end_key(end: End) -> RowKey:
    """Return what the ledger knows the row of ``end`` by."""
    return (day(end.request_id), end.request_id, end.attempt, end.kind)


async def entries(ends: Sequence[End]) -> list[Entry]:
    """Return ``ends`` as entries, giving way to the event loop between slices."""
    made: list[Entry] = []
    for start in range(0, len(ends), _SLICE):
        made += map(Entry, ends[start : start + _SLICE])
        await asyncio.sleep(0)
    return made


_known_labels: Final[dict[bytes, Labels]] = {}


def _labels(raw: bytes) -> Labels:
    """Return the labels encoded in ``raw``, from memory when they were seen before."""
    labels = _known_labels.get(raw)
    if labels is None:
        dims = msgspec.msgpack.decode(raw, type=Dimensions)
        labels = Labels(
            dims.key_id,
            (
                dims.team,
                dims.key_id,
                dims.model,
                dims.endpoint,
                dims.backend,
                dims.provider,
                dims.app,
                dims.tier,
                dims.operation,
                dims.requested_model,
                dims.upstream_model,
                dims.user,
                int(dims.streamed),
                dims.price_id,
                dims.cost_id,
            ),
            (dims.team, dims.key_id, dims.model, dims.endpoint, dims.app, dims.tier),
        )
        if len(_known_labels) >= _MOST_LABELS:
            _known_labels.clear()
        _known_labels[raw] = labels
    return labels


def _core_columns(end: End, labels: tuple[str | int, ...], day: int, charge_nano: int) -> tuple[Any, ...]:
    """Return the values of ``end`` in the order of ``CORE_COLUMNS``."""
    usage, charge = end.usage, end.charge
    return (
        day,
        end.request_id,
        end.attempt,
        end.kind,
        *labels,
        end.opened_us,
        end.status,
        end.finish_reason,
        end.http_status,
        usage[0],
        usage[1],
        usage[2],
        usage[4],
        end.source,
        charge_nano,
        charge[0],
        charge[1],
        charge[2],
        charge[4],
        end.ttft_us,
        end.duration_us,
        end.generation_us,
        end.upstream_id,
        end.error,
    )


def _columns(end: End, labels: tuple[str | int, ...], day: int, charge_nano: int, cost_nano: int) -> tuple[Any, ...]:
    """Return the values of ``end`` in the order of ``COLUMNS``."""
    return (
        day,
        end.request_id,
        end.attempt,
        end.kind,
        *labels,
        end.opened_us,
        end.status,
        end.finish_reason,
        end.http_status,
        *end.usage,
        end.source,
        charge_nano,
        *end.charge,
        cost_nano,
        *end.cost,
        end.ttft_us,
        end.duration_us,
        end.generation_us,
        end.upstream_id,
        end.error,
    )


def _mended(end: End) -> End:
    """Return ``end`` with a count for every class, and none that sums could not hold.

    Classes that an older version did not know are zero. Counts that no answer can have are cut and logged, so that
    an engine that reports absurd usage cannot stop the shipper. Corrections are ours and may be negative.
    """
    most_tokens, most_nano = 1 << TOKEN_BITS, 1 << (MONEY_BITS - 4)
    least = 0
    if end.kind != RowKind.USAGE:
        least, most_tokens, most_nano = -(2**62), 2**62, 2**62
    mended: End = msgspec.structs.replace(
        end,
        usage=_classes(end.usage, _TOKEN_CLASSES, least, most_tokens),
        charge=_classes(end.charge, _MONEY_CLASSES, least, most_nano),
        cost=_classes(end.cost, _MONEY_CLASSES, least, most_nano),
    )
    if any(
        before[: len(after)] != after[: len(before)]
        for before, after in ((end.usage, mended.usage), (end.charge, mended.charge), (end.cost, mended.cost))
    ):
        log.error("ledger_row_implausible", request_id=end.request_id.hex())
    return mended


def _classes(counts: tuple[int, ...], classes: int, least: int, most: int) -> tuple[int, ...]:
    """Return ``classes`` numbers: ``counts``, each cut to ``least`` to ``most``, then zeros."""
    return tuple(min(max(count, least), most) for count in counts[:classes]) + (0,) * (classes - len(counts))
