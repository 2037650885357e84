"""Questions to the rollups as values, and how the keeper is asked them. Nothing here raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.types.method import Method, method

DIMENSIONS: Final = ("model", "endpoint", "team", "key_id", "app", "tier", "status")
"""What cells may be grouped and filtered by: labels of the rollups."""
SUMS: Final = (
    *("requests", "tokens_prompt", "tokens_completion", "tokens_reasoning", "tokens_cache_read", "charge_nano"),
    *("byok_requests", "byok_list_nano", "byok_charge_nano", "cache_hits"),
)
"""What is summed up: columns of the rollups, and answers from the response cache, which are in no rollup."""
MOST_CELLS: Final = 50_000


class Condition(msgspec.Struct, array_like=True, frozen=True):
    """That a label is one of ``values``, or none of them when ``excluded``."""

    dimension: str
    values: tuple[str, ...]
    excluded: bool = False


class Question(msgspec.Struct, array_like=True, frozen=True):
    """What is asked.

    Attributes:
        hourly: whether ``first`` and ``last`` are hours, else days, both counted from 1970 and included.
        timed: whether cells are apart by hour or day, else by ``group_by`` alone.
        group_by: some of ``DIMENSIONS``.
        speeds: whether latencies and throughputs are wanted.
    """

    hourly: bool
    first: int
    last: int
    timed: bool
    group_by: tuple[str, ...]
    where: tuple[Condition, ...] = ()
    speeds: bool = False


class Cell(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What came of one group.

    Attributes:
        time: the hour or day, 0 when they are not apart.
        labels: in the order of ``group_by``.
        sums: in the order of ``SUMS``; ``requests`` counts answered ones, amounts are those that teams pay.
        ttft, throughput: ``Histogram.dump`` in seconds and tokens per second, empty unless asked for.
    """

    time: int
    labels: tuple[str, ...]
    sums: tuple[int, ...]
    ttft: bytes = b""
    throughput: bytes = b""


ANALYTICS: Final[Method[Sequence[Cell]]] = method("analytics.cells", tuple[Question], tuple[Cell, ...], seconds=60.0)
