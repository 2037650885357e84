"""The way to a backend of which an old and a new configuration are in use at once."""

from __future__ import annotations

import asyncio
from typing import cast

from gateway.config.snapshot import BackendSpec, LitellmSpec, Secret
from gateway.fleet.health import Health
from gateway.telemetry.metrics import GatewayMetrics
from gateway.upstream.backends import Upstream
from gateway.upstream.litellm import LitellmPool
from tests.fakes.fleet import backend, candidates


async def nowhere(_host: str, _port: int) -> tuple[tuple[str, int], ...]:
    """Resolve nothing."""
    return ()


async def test_a_library_is_asked_with_the_account_of_the_configuration_that_a_request_goes_by() -> None:
    """Also where a walk that began before a reload asks the same backend in between."""

    def spec(secret: str) -> BackendSpec:
        credentials = {"aws_secret_access_key": Secret(secret)}
        return backend("aws", kind="litellm", litellm=LitellmSpec("bedrock", False, credentials))

    (old,), (new,) = candidates(spec("old")), candidates(spec("new"))
    upstream = Upstream(asyncio.get_running_loop(), Health(), nowhere, GatewayMetrics("test"))
    upstream.reconfigured()
    for candidate, secret in ((old, "old"), (new, "new"), (old, "old"), (new, "new")):
        pool = cast("LitellmPool", upstream.pool(candidate))
        assert pool.account.arguments(None, "m")["aws_secret_access_key"] == secret
    upstream.close()
