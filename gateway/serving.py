"""Running a gateway on a socket: uvicorn with the native road, one process.

Shutdown: SIGTERM or SIGINT turns ``/ready`` into 503, takes no new requests, lets running answers finish for the grace
period, ends the rest with an error, closes every attempt in the journal, then stops the parts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

import uvicorn

from gateway.api import build_api
from gateway.app import Gateway
from gateway.beat import paused
from gateway.edge.native import Road
from gateway.types import garbage

KEEP_ALIVE: Final = 75
"""Seconds an idle caller's connection is kept."""
TICK: Final = 1.0
"""Seconds between writings of the date that answers carry."""


class Server(uvicorn.Server):
    """uvicorn's server, with a shutdown that knows native requests."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, started: Callable[[], None], *, alone: bool) -> None:
        super().__init__(config)
        self._alone = alone
        self._gateway = gateway
        self._announce = started
        self._told = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """Tell it to stop."""
        self.should_exit = True
        self._told.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal to stop, which comes between any two steps of the loop."""
        super().handle_exit(sig, frame)
        self.force_exit = False  # a second SIGINT sets it: the parts would then not be stopped after the answers
        self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        """Serve until told to stop; uvicorn would look ten times a second whether it was."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(paused(TICK)):
                    await self._told.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as the wish to stop.

        uvicorn would send them again at the end, which kills the process before the keeper is closed.
        """
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so.

        uvicorn ends the process when the start failed; from within a task that breaks off the event loop with all that
        still runs on it. Here the server only ends.
        """
        try:
            await super().startup(sockets)
        except SystemExit:
            self.should_exit = True
        if self.started:
            garbage.settle()
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain native requests before uvicorn closes the connections.

        Alone, this process goes on listening meanwhile, so that whoever asks is told 503. One of several does not: it
        would take connections from workers that serve.
        """
        if not self._alone:
            for server in self.servers:
                server.close()
        await self._gateway.drain(self._gateway.settings.grace)
        await super().shutdown(sockets)


async def serve(
    gateway: Gateway,
    listener: socket.socket,
    *,
    started: Callable[[], None],
    alone: bool = True,
    stop: asyncio.Event | None = None,
) -> bool:
    """Serve until told to stop; return whether the gateway had started.

    Args:
        gateway: what to serve; started and stopped here.
        listener: a listening socket.
        started: called once requests are taken.
        alone: whether no other process takes connections from ``listener``.
        stop: another way to tell it to stop.
    """
    settings = gateway.settings
    road = Road(
        header_timeout=settings.header_timeout,
        body_timeout=settings.body_timeout,
        write_timeout=settings.write_timeout,
        cors=gateway.cors,
    )
    config = uvicorn.Config(
        build_api(gateway, road),
        http=road.protocol,  # type: ignore[arg-type] # uvicorn only calls it, as it would the class
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
        backlog=2048,
    )
    server = Server(config, gateway, started, alone=alone)
    gateway.metrics.bind("weir_open_connections", lambda: len(server.server_state.connections))
    watch = asyncio.get_running_loop().create_task(_stop_on(stop, server)) if stop is not None else None
    await server.serve(sockets=[listener])
    if watch is not None:
        watch.cancel()
    return server.started


async def _stop_on(stop: asyncio.Event, server: Server) -> None:
    await stop.wait()
    server.end()
