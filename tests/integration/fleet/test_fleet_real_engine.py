"""Probes against a real llama.cpp server."""

from __future__ import annotations

from random import Random

import pytest

from gateway.fleet.egress import EgressGuard
from gateway.fleet.probe import Probe
from tests.engine.llama_server import LlamaServer
from tests.fakes.fleet import LOOPBACK, backend, fleet

pytestmark = [pytest.mark.real_engine, pytest.mark.xdist_group("engine")]


async def test_a_real_engine_is_ready_and_reports_its_load(chain_server: LlamaServer) -> None:
    """Readiness and gauges of the real server are read under the names that are written down."""
    found = fleet(backend("llama", kind="llamacpp", url=chain_server.url)).replicas["llama"]
    probe = Probe(found, ["tiny-qwen3"], EgressGuard(LOOPBACK), rng=Random(1))
    try:
        await probe.once()
    finally:
        await probe.close()
    load = found.load
    assert (load.ready, load.running, load.waiting) == (True, 0, 0)
    assert load.scraped_at is not None
