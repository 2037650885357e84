"""Several simulated backends in one process, for tests and for ``weir sim`` and ``weir demo``.

If one of them cannot start (its port is taken), those already started are stopped and the OSError goes on.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from gateway.sim.config import SimConfig
from gateway.sim.server import SimServer


class SimFleet:
    """Backends by name, an asynchronous context manager; two of one name raise ValueError."""

    def __init__(self, configs: Sequence[SimConfig]) -> None:
        self._servers = {config.name: SimServer(config) for config in configs}
        if len(self._servers) != len(configs):
            raise ValueError("every simulated backend needs a name of its own")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for server in self._servers.values():
                await stack.enter_async_context(server)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __getitem__(self, name: str) -> SimServer:
        return self._servers[name]

    def __iter__(self) -> Iterator[SimServer]:
        return iter(self._servers.values())

    def __len__(self) -> int:
        return len(self._servers)

    @property
    def urls(self) -> dict[str, str]:
        """Base URL of each backend by name."""
        return {name: server.url for name, server in self._servers.items()}


async def run(configs: Sequence[SimConfig]) -> None:
    """Serve ``configs`` until SIGTERM or SIGINT; one line ``READY <name> <url>`` on stdout for each."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        async with SimFleet(configs) as fleet:
            for name, url in fleet.urls.items():
                sys.stdout.write(f"READY {name} {url}\n")
            sys.stdout.flush()
            await stop.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
