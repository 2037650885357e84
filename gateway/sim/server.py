"""A simulated backend on its sockets.

``async with SimServer(SimConfig(kind="vllm")) as sim`` listens before the block starts and leaves no connection behind
when it ends. The ``refuse`` fault closes or bars the main port (every connection is reset, as if the process had died;
the port itself stays this server's); the control port, when there is one, stays open. A port that is taken raises
OSError.
"""

from __future__ import annotations

import asyncio
import socket
import time
from types import TracebackType
from typing import Self

from gateway.sim.backend import Backend
from gateway.sim.books import Books
from gateway.sim.config import SimConfig
from gateway.sim.connection import Connection
from gateway.sim.engine import Engine
from gateway.sim.faults import Fault, Faults
from gateway.sim.place import BACKLOG, Place
from gateway.sim.wire import Request

_GONE_AFTER = 5.0


class _Port:
    """One listening port and the connections it accepted."""

    def __init__(self, server: SimServer, *, control: bool) -> None:
        config = server.config
        self.loop = server.loop
        self.server_name = server.backend.face.server
        self.keep_alive = config.keep_alive
        self.max_body_bytes = config.max_body_bytes
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self._server = server
        self._control = control

    def opened(self, connection: Connection) -> bool:
        """Note a new connection; False resets it at once."""
        self.connections.add(connection)
        self.empty.clear()
        return self._control or not self._server.refuses(connection)

    def closed(self, connection: Connection) -> None:
        """Note that a connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer a request, now or later."""
        if self._control:
            self._server.backend.control(connection, request)
        else:
            self._server.backend.serve(connection, request)

    def reset_all(self) -> None:
        """Reset every connection."""
        for connection in list(self.connections):
            connection.reset()


class SimServer:
    """One simulated backend, an asynchronous context manager.

    ``books``, ``faults`` and ``engine`` may be read and changed from the same event loop while it runs.
    """

    def __init__(self, config: SimConfig) -> None:
        self.config = config
        self._backend: Backend | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: _Port | None = None
        self._side: _Port | None = None
        self._listener: asyncio.Server | None = None
        self._side_listener: asyncio.Server | None = None
        self._place: Place | None = None
        self._port = config.port
        self._control_port = config.control_port
        self._settling: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def backend(self) -> Backend:
        """The backend behind the sockets; raises RuntimeError before ``start``."""
        if self._backend is None:
            raise RuntimeError("the simulated backend has not been started")
        return self._backend

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on; raises RuntimeError before ``start``."""
        if self._loop is None:
            raise RuntimeError("the simulated backend has not been started")
        return self._loop

    @property
    def books(self) -> Books:
        """What it saw and produced."""
        return self.backend.books

    @property
    def faults(self) -> Faults:
        """What is broken."""
        return self.backend.faults

    @property
    def engine(self) -> Engine:
        """Slots and queue."""
        return self.backend.engine

    @property
    def port(self) -> int:
        """The port it listens on, or would if nothing refused connections."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL, without ``/v1`` and without a slash at the end."""
        return f"http://{_bracketed(self.config.host)}:{self._port}"

    @property
    def control_url(self) -> str | None:
        """The base URL of the control port, or None when there is none."""
        if self._control_port is None:
            return None
        return f"http://{_bracketed(self.config.host)}:{self._control_port}"

    async def start(self) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        self._backend = Backend(self.config, self._loop)
        self._main = _Port(self, control=False)
        self._place = Place(self.config.host, self._port)
        sock = self._place.listen()
        self._port = self._place.port
        if self.config.control_port is not None:
            self._side = _Port(self, control=True)
            beside = Place(self.config.host, self.config.control_port)
            self._side_listener = await self._listen(beside.listen(), self._side)
            self._control_port = beside.port
            beside.release()
        if self._closed_by_fault() is None:
            self._listener = await self._listen(sock, self._main)
        else:
            sock.close()
        self.faults.on_change = self._changed
        self._changed()

    async def stop(self) -> None:
        """Stop listening, reset all connections, and wait until they are gone."""
        if self._backend is None:
            return
        self.faults.on_change = None
        if self._alarm is not None:
            self._alarm.cancel()
        if self._settling is not None:
            await self._settling
        for listener in (self._listener, self._side_listener):
            if listener is not None:
                listener.close()
        for port in (self._main, self._side):
            if port is not None:
                port.reset_all()
                async with asyncio.timeout(_GONE_AFTER):
                    await port.empty.wait()
        for listener in (self._listener, self._side_listener):
            if listener is not None:
                await listener.wait_closed()
        self._listener = self._side_listener = None
        if self._place is not None:
            self._place.release()

    async def settled(self) -> None:
        """Wait until the listener is as the faults want it."""
        while self._settling is not None:
            await asyncio.shield(self._settling)

    def refuses(self, connection: Connection) -> bool:
        """Return whether ``connection``, just accepted on the main port, is to be reset."""
        del connection
        return self.faults.take("refuse") is not None

    def _closed_by_fault(self) -> Fault | None:
        fault = self.faults.active("refuse")
        return fault if fault is not None and fault.how == "closed" else None

    def _changed(self) -> None:
        """Bring the listener and the frozen metrics in line with the faults, now and when the next one ends."""
        self.backend.freeze()
        fault = self.faults.active("refuse")
        if fault is not None and self._main is not None and (fault.how == "closed" or fault.count is None):
            self._main.reset_all()
        if self._settling is None and (self._closed_by_fault() is None) != (self._listener is not None):
            self._settling = self.loop.create_task(self._settle())
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        ends = self.faults.earliest_end()
        if ends is not None:
            self._alarm = self.loop.call_later(max(0.0, ends - time.monotonic()) + 0.001, self._expire)

    def _expire(self) -> None:
        """Drop the faults whose time is over."""
        self._alarm = None
        self.faults.listing()
        self._changed()

    async def _settle(self) -> None:
        try:
            while (self._closed_by_fault() is None) != (self._listener is not None):
                if self._listener is not None:
                    self._listener.close()
                    self._listener = None
                elif self._main is not None and self._place is not None:
                    self._listener = await self._listen(self._place.listen(), self._main)
        finally:
            self._settling = None

    async def _listen(self, sock: socket.socket, port: _Port) -> asyncio.Server:
        return await self.loop.create_server(lambda: Connection(port), sock=sock, backlog=BACKLOG)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
