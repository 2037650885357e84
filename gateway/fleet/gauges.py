"""The few gauges wanted out of an engine's Prometheus page.

A page has a thousand lines and more, of which at most five matter, so it is searched for their names instead of being
parsed. Whatever the page holds, reading it gives numbers or None and never raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.engines.kind import MetricNames

_MOST: Final = 1e15
"""Larger counts are garbage: no engine runs 10^15 requests or holds 10^15 tokens."""
_MOST_SAMPLES: Final = 256
"""Label sets read of one name: more than the largest data-parallel engine has, few enough to take no time."""
_LONGEST_INFO: Final = 4096
"""Bytes of an info sample, whose labels are its content, that are looked at."""
_BLOCK_SIZE: Final = re.compile(rb'[{,]block_size="([0-9]{1,9})"')
_BLOCKS: Final = re.compile(rb'[{,]num_gpu_blocks="([0-9]{1,12})"')
_LONGEST_SAMPLE: Final = 1024
"""Bytes of labels and value that are looked at; a sample that is longer is skipped."""
_SAMPLE: Final = re.compile(rb'(?:\{(?:[^"}\n]++|"(?:[^"\\\n]++|\\.)*+")*+\})?+[ \t]++([^\s#]++)')
"""What follows a metric's name in the text format: labels in braces with quoted values, blanks, the value."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """What one page says; None where it does not say.

    Attributes:
        running: requests that run on the engine.
        waiting: requests that wait there.
        kv_usage: share of the KV cache in use, 0 to 1.
        kv_tokens: tokens that fit the KV cache.
        preemptions: requests thrown out for want of room since the engine started.
    """

    running: int | None
    waiting: int | None
    kv_usage: float | None
    kv_tokens: int | None = None
    preemptions: int | None = None

    @property
    def empty(self) -> bool:
        """Whether the page says nothing at all."""
        return self.running is None and self.waiting is None and self.kv_usage is None


def read(page: bytes, names: MetricNames) -> Gauges:
    """Return the gauges called ``names`` in ``page``, Prometheus text format 0.0.4 or OpenMetrics."""
    page = b"\n" + page
    running = _first(page, names.running)
    waiting = _first(page, names.waiting)
    usage = _first(page, names.kv_usage)
    ratio = max(usage) if usage else None
    total = _first(page, names.kv_total_tokens)
    if ratio is None:
        used = _first(page, names.kv_used_tokens)
        if used and total and sum(total) > 0:
            ratio = sum(used) / sum(total)
    preempted = _first(page, names.preemptions)
    return Gauges(
        running=round(sum(running)) if running else None,
        waiting=round(sum(waiting)) if waiting else None,
        kv_usage=None if ratio is None else min(ratio, 1.0),
        kv_tokens=round(sum(total)) if total else _cache_tokens(page, names.cache_config),
        preemptions=round(sum(preempted)) if preempted else None,
    )


def _cache_tokens(page: bytes, names: tuple[str, ...]) -> int | None:
    """Return the tokens that fit the caches which the labels of an info metric describe, over all of its samples."""
    tokens = 0
    for name in names:
        at = page.find(b"\n" + name.encode("ascii") + b"{")
        for _ in range(_MOST_SAMPLES):
            if at < 0:
                break
            line = page[at : at + _LONGEST_INFO].split(b"\n", 2)[1]
            size, count = _BLOCK_SIZE.search(line), _BLOCKS.search(line)
            if size is not None and count is not None:
                tokens += int(size[1]) * int(count[1])
            at = page.find(b"\n" + name.encode("ascii") + b"{", at + 1)
    return tokens if 0 < tokens <= _MOST else None


def _first(page: bytes, names: tuple[str, ...]) -> list[float]:
    """Return the values of the first of ``names`` that has any."""
    for name in names:
        values = _values(page, name)
        if values:
            return values
    return []


def _values(page: bytes, name: str) -> list[float]:
    """Return every usable value of the metric ``name``, one per label set.

    The format wants all samples of a metric in one group, so the rest of the page is not looked at.
    """
    wanted = b"\n" + name.encode("ascii")
    values = []
    found = False
    at = page.find(wanted)
    for _ in range(_MOST_SAMPLES):
        if at < 0:
            break
        end = at + len(wanted)
        sample = _SAMPLE.match(page, end, end + _LONGEST_SAMPLE)
        if sample is not None:
            found = True
            value = _number(sample[1])
            if value is not None:
                values.append(value)
        following = page.find(b"\n", end)
        if page.startswith(wanted, following):
            at = following
        elif found:
            break
        else:
            at = page.find(wanted, end)  # what was found is a neighbour with a longer name
    return values


def _number(text: bytes) -> float | None:
    """Return a count or share, or None for NaN, infinity, negative numbers and anything that is no number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value <= _MOST else None
