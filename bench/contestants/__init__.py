"""The gateways of the comparison, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench.contestants.base import Contestant
from bench.contestants.envoy import Envoy
from bench.contestants.ferrogw import Ferrogw
from bench.contestants.litellm import LiteLLM
from bench.contestants.sglang_router import SglangRouter
from bench.contestants.weir import Weir

CONTESTANTS: Final[Mapping[str, type[Contestant]]] = {
    kind.name: kind for kind in (Weir, SglangRouter, Envoy, Ferrogw, LiteLLM)
}
"""In the order of the report."""
