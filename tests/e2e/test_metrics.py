"""What a scraper sees of several workers while their keeper dies."""

from __future__ import annotations

import os
import re
import signal

import httpx

from tests.e2e.callers import ask
from tests.e2e.conftest import Serve
from tests.e2e.processes import MANAGING, eventually
from tests.e2e.test_workers import clients, running, until


async def counted(http: httpx.AsyncClient) -> float | None:
    """Return how many requests the page of metrics counts; None when it does not say."""
    found = re.findall(r"^weir_requests_total\{.*\} (\S+)$", await scraped(http), re.MULTILINE)
    return sum(map(float, found)) if found else None


async def scraped(http: httpx.AsyncClient) -> str:
    """Return the page of metrics."""
    answer = await http.get("/metrics", headers=MANAGING)
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_no_counter_falls_because_the_keeper_is_away(serve: Serve) -> None:
    """To a scraper that would be a restart, after which everything counts again; what needs no sum is told."""
    cluster = running(serve(workers=2))
    async with clients(cluster) as both:
        for http in both:
            assert (await ask(http, max_tokens=2)).done

        async def all_told() -> bool:
            return await counted(both[0]) == 2

        await until(all_told)
        old = cluster.keeper
        cluster.signal(signal.SIGSTOP)  # else the supervisor has a new one before anybody can look
        try:
            os.kill(old, signal.SIGKILL)
            for http in both:
                assert await counted(http) is None
                assert re.search(r"^weir_unshipped_bytes ", await scraped(http), re.MULTILINE) is None
                assert 'weir_backend_up{backend="gpu-a"} 1.0' in await scraped(http)
        finally:
            cluster.signal(signal.SIGCONT)
        eventually(lambda: cluster.keeper != old)

        async def all_told_again() -> bool:
            seen = {await counted(http) for http in both}
            assert seen <= {None, 2.0}
            return seen == {2.0}

        await until(all_told_again)
        assert re.search(r"^weir_unshipped_bytes ", await scraped(both[0]), re.MULTILINE)
