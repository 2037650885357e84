"""Load that an engine reports beside an answer, in the response header ``endpoint-load-metrics``.

The header is Open Request Cost Aggregation's (``xds/data/orca`` in github.com/cncf/xds); vLLM sends it when it is asked
to. Both of its textual forms are read, for two numbers only. Whatever the header holds, reading it never raises.
"""

from __future__ import annotations

import re
from typing import Final

HEADER: Final = b"endpoint-load-metrics"
_LONGEST: Final = 4096
"""Bytes of the header that are looked at."""
_NUMBER: Final = rb"""["']?[ \t]*[:=][ \t]*([0-9]{1,9}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?)"""
_WAITING: Final = re.compile(rb"num_requests_waiting" + _NUMBER)
_KV_USAGE: Final = re.compile(rb"kv_cache_usage_perc" + _NUMBER)


def read(value: bytes) -> tuple[int | None, float | None]:
    """Return the requests that wait on the engine and the share of its KV cache in use; None where it does not say."""
    value = value[:_LONGEST]
    waiting, usage = _WAITING.search(value), _KV_USAGE.search(value)
    return (
        round(float(waiting[1])) if waiting is not None else None,
        min(1.0, float(usage[1])) if usage is not None else None,
    )
