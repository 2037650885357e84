"""The keeper's end of the socket: answers calls, pushes key changes, releases what a lost client held.

Each connection is one owner of holds. Limit calls are answered at once on the event loop; everything else runs as a
task. A connection that sends what is no message, or does not read what it is told, is closed. Errors of a call go
to the caller; errors that are no ``WeirError`` are logged here with their trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from inspect import isawaitable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from gateway.keeper import address
from gateway.keeper.protocol import (
    METHODS,
    NO_REPLY,
    VERSION,
    Failure,
    FrameReader,
    KeyChange,
    OpenHold,
    ProtocolError,
    Reply,
    Request,
    ScopeChange,
    error_form,
    frame,
    raw,
)
from gateway.keeper.service import Keeper
from gateway.telemetry import logs
from gateway.types.actor import ACTING
from gateway.types.budgets import Paid, Scope, Spend
from gateway.types.errors import BadRequest, WeirError
from gateway.types.keys import Grant, KeyLimits, KeyRecord
from gateway.types.method import Method

MAX_UNREAD: Final = 128 * 1024 * 1024
"""Bytes a client may leave unread before it is cut off; it comes back and is told everything anew."""
STOP_SECONDS: Final = 5.0

_log: Final = logs.logger(__name__)


class KeeperServer:
    """Serves a keeper on its socket.

    Args:
        keeper: started already, so that its lock is held.
        home: the state folder.
    """

    __slots__ = ("_connections", "_home", "_keeper", "_path", "_server")

    def __init__(self, keeper: Keeper, home: Path) -> None:
        self._keeper = keeper
        self._home = home
        self._path: Path | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def path(self) -> Path:
        """Where clients connect, once started."""
        if self._path is None:
            raise RuntimeError("the server was not started")
        return self._path

    async def start(self) -> None:
        """Listen.

        Raises:
            KeeperError: the socket cannot be made.
        """
        listener, self._path = address.listen(self._home)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self._keeper, self._connections), sock=listener
        )

    async def stop(self) -> None:
        """Take no more calls, let running ones end for a few seconds, then close every connection."""
        if self._server is None or self._path is None:
            return
        self._server.close()
        running = [task for connection in self._connections for task in connection.tasks]
        if running:
            _, late = await asyncio.wait(running, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
        connections = tuple(self._connections)
        for connection in connections:
            connection.close()
        if connections:
            await asyncio.wait([connection.closed for connection in connections], timeout=STOP_SECONDS)
        for connection in tuple(self._connections):
            connection.abort()
        await self._server.wait_closed()
        address.stop_listening(self._home, self._path)
        self._server = None


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, keeper: Keeper, connections: set[_Connection]) -> None:
        self._keeper = keeper
        self._connections = connections
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because the transports of uvloop do not derive from those of asyncio.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        self.closed.set_result(None)
        self._keeper.unwatch(self._push)
        self._keeper.unfollow_scopes(self._push_scopes)
        self._keeper.figures.retire(self)
        released = self._keeper.turnstile.leave(self)
        if released:
            _log.warning("a client went away with requests running", released=released)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                if not isinstance(message, Request):
                    raise ProtocolError("a client only sends requests")
                self._handle(message)
        except ProtocolError as error:
            _log.warning("a client was cut off: it does not speak the protocol", reason=str(error))
            self.close()

    def close(self) -> None:
        """Cut the connection after what was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection now, whatever the client has not read yet."""
        if self._transport is not None:
            self._transport.abort()

    def _handle(self, request: Request) -> None:
        method = METHODS.get(request.method) or self._keeper.offices.methods.get(request.method)
        try:
            if method is None:
                raise BadRequest(f"the keeper has no method {request.method!r}")
            try:
                arguments = method.arguments.decode(request.arguments)
            except msgspec.DecodeError as error:
                raise BadRequest(f"the arguments of {method.name} are wrong: {error}") from error
            at_once = _AT_ONCE.get(method.name)
            if at_once is not None:
                answer = at_once(self, *arguments)
                if not isawaitable(answer):
                    self._reply(request.call, answer)
                    return
        except WeirError as error:
            self._fail(request.call, error)
            return
        if at_once is None:
            own = method.name in METHODS
            answer = getattr(self._keeper, method.name)(*arguments) if own else self._keeper.ask(method, arguments)
        context = copy_context()
        if request.actor is not None:
            context.run(ACTING.set, request.actor)
        task = asyncio.get_running_loop().create_task(self._run(request.call, method, answer), context=context)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, call: int, method: Method[Any], answer: Awaitable[Any]) -> None:
        try:
            self._reply(call, await answer)
        except WeirError as error:
            self._fail(call, error)
        except Exception as error:  # noqa: BLE001 - one failed call must not take the keeper of the whole host down
            _log.exception("a call failed: defect", method=method.name)
            self._fail(call, error)

    def _reply(self, call: int, result: Any) -> None:
        if call != NO_REPLY:
            self._send(frame(Reply(call, raw(result))))

    def _fail(self, call: int, error: Exception) -> None:
        if call != NO_REPLY:
            self._send(frame(Failure(call, error_form(error))))

    def _push(self, changed: Sequence[KeyRecord]) -> None:
        self._send(frame(KeyChange(tuple(changed))))

    def _push_scopes(self, scopes: Sequence[Scope]) -> None:
        self._send(frame(ScopeChange(tuple(scopes))))

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_UNREAD:
            _log.warning("a client was cut off: it does not read")
            self.abort()
            return
        transport.write(data)

    def share_metrics(self, dump: bytes) -> Sequence[bytes]:
        return self._keeper.figures.share(self, dump)

    def hello(self, version: int) -> int:
        if version != VERSION:
            raise BadRequest(f"the keeper speaks version {VERSION}, not {version}: restart all processes of the host")
        return VERSION

    def subscribe(self) -> Sequence[KeyRecord]:
        return self._keeper.watch(self._push)

    def follow_scopes(self) -> Sequence[Scope]:
        return self._keeper.watch_scopes(self._push_scopes)

    def present(self, writer: str, holds: Sequence[int]) -> None:
        self._keeper.treasury.present(self, writer, holds)
        self._keeper.figures.expect(self)

    def admit(self, key_id: str, limits: KeyLimits, tokens: int) -> Grant | Awaitable[Grant]:
        grant = self._keeper.turnstile.take(self, key_id, limits, tokens)
        return grant if isinstance(grant, Grant) else self._granted(grant)

    def reserve(self, key_id: str, limits: KeyLimits, tokens: int, spend: Spend) -> Grant | Awaitable[Grant]:
        grant = self._keeper.turnstile.take(self, key_id, limits, tokens, spend)
        return grant if isinstance(grant, Grant) else self._granted(grant)

    async def _granted(self, asked: Awaitable[Grant]) -> Grant:
        """Return a grant that took its time, and take it back at once if its client is gone by then."""
        grant = await asked
        if self._transport is None and grant.hold:
            self._keeper.turnstile.settle(grant.hold, 0)
        return grant

    def settle(self, hold: int, tokens: int, paid: Paid) -> None:
        self._keeper.turnstile.settle(hold, tokens, paid, owner=self)

    def resume(self, holds: Sequence[OpenHold]) -> None:
        self._keeper.turnstile.adopt(self, ((hold.hold, hold.key_id, hold.tokens, hold.age_ns) for hold in holds))


_AT_ONCE: Final[dict[str, Callable[..., Any]]] = {
    "hello": _Connection.hello,
    "subscribe": _Connection.subscribe,
    "follow_scopes": _Connection.follow_scopes,
    "present": _Connection.present,
    "admit": _Connection.admit,
    "reserve": _Connection.reserve,
    "settle": _Connection.settle,
    "resume": _Connection.resume,
    "share_metrics": _Connection.share_metrics,
}
