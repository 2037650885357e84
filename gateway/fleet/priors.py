"""What is believed of a replica before anything was seen of it: its owner's word, else what its kind usually is.

Pure; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from gateway.config.snapshot import BackendSpec
from gateway.fleet.estimate import Prior

_API: Final = Prior(
    base=0.5, rate=30_000.0, attention=1e-10, step=0.018, per_prompt=1e-7, per_request=1e-7, per_token=1e-10
)
"""The coefficients of an external API are those of one request: its load is not ours to see."""
PRIORS: Final[Mapping[str, Prior]] = MappingProxyType(
    {
        "vllm": Prior(),
        "sglang": Prior(),
        "tgi": Prior(),
        "llamacpp": Prior(base=0.05, rate=500.0, attention=1e-8, step=0.03, per_request=0.005, per_token=1e-7),
        "openai": _API,
        "litellm": _API,
        "anthropic": _API,
    }
)
"""By engine kind."""
MOST_RUNNING: Final[Mapping[str, int]] = MappingProxyType(
    {"vllm": 256, "sglang": 256, "tgi": 128, "llamacpp": 4, "openai": 0, "anthropic": 0, "litellm": 0}
)
"""Requests that an engine of a kind runs side by side unless told otherwise; 0 is no limit that we know of."""


def prior(spec: BackendSpec) -> Prior:
    """Return what is believed of the engine behind ``spec``."""
    usual = PRIORS[spec.kind]
    rate = spec.capacity.prefill_tokens_per_s
    return usual if rate is None else replace(usual, rate=rate, stated=True)


def most_running(spec: BackendSpec) -> int:
    """Return how many requests ``spec`` runs side by side, or 0 when there is no limit."""
    return spec.capacity.max_running or MOST_RUNNING[spec.kind]
