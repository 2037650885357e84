"""The ASGI application of a gateway: health, readiness and metrics here, all other paths by FastAPI.

FastAPI and what is built with it take a third of a second and 10 MB, more than all of the request path. A worker that
serves inference, health checks and scrapes never needs them, so they are made part by part (``gateway.edge.parts``)
when a path of the part is first asked for, in a thread, while everything else goes on; that one caller waits for it.
Every path authenticates, by an inference key or by the management key. The exceptions are ``OPEN_PATHS``, and public
boards when the owner says so (``boards.keyless``, see ``gateway.leaderboard.view``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from gateway.app import Gateway, now_us
from gateway.edge.asgi import App, InferenceApp, Message, Receive, Scope, Send
from gateway.edge.cors import CorsApp
from gateway.edge.head import check_repeats
from gateway.edge.native import Road
from gateway.edge.parts import part_of
from gateway.refusal import Answer, defect, rendered
from gateway.types.actor import ACTING, Actor
from gateway.types.errors import MethodNotAllowed, WeirError

OPEN_PATHS: Final = ("/health", "/ready")
"""Paths that need no key: they tell a load balancer nothing but up or down."""


def build_api(gateway: Gateway, road: Road, *, lifespan: bool = True) -> App:
    """Return the ASGI application of a gateway; with ``lifespan`` it starts and stops the gateway itself."""
    served = Api(gateway, road if lifespan else None, InferenceApp(road, Resources(gateway)))
    return CorsApp(gateway.cors, served)


class Api:
    """The paths that every worker is asked for; any other goes on to ``other``.

    Args:
        gateway: what is told of.
        road: started and stopped with the gateway by the server's lifespan, or None when somebody else does that.
        other: the application of all other paths.
    """

    def __init__(self, gateway: Gateway, road: Road | None, other: App) -> None:
        self._gateway = gateway
        self._road = road
        self._other = other
        self._paths: dict[str, Callable[[Scope], Awaitable[Answer]]] = {
            "/health": self._health,
            "/ready": self._ready,
            "/metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        answer = self._paths.get(scope["path"])
        if answer is None:
            await self._elsewhere(scope, receive, send)
            return
        try:
            if scope["method"] not in {"GET", "HEAD"}:
                raise MethodNotAllowed("this path does not take this method")
            found = await answer(scope)
        except WeirError as error:
            found = rendered(error)
        except Exception as error:  # noqa: BLE001 - a defect is an answer too, in the callers' shape
            found = defect(error, scope["path"])
        await _answer(send, *found)

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._other(scope, receive, send)
        except WeirError as error:  # only what was raised before an answer began; FastAPI renders its own
            await _answer(send, *rendered(error))

    async def _health(self, _scope: Scope) -> Answer:
        """Whether the process lives."""
        return _json(200, {"status": "ok"})

    async def _ready(self, _scope: Scope) -> Answer:
        """Whether requests should be sent here."""
        reasons = self._gateway.unready()
        return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    async def _metrics(self, scope: Scope) -> Answer:
        """Prometheus metrics."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        self._gateway.management.authenticate(
            headers.get(b"authorization"), now_us(), x_api_key=headers.get(b"x-api-key"), allows=_sees_fleet
        )
        body, kind = await self._gateway.host_metrics.scrape(headers.get(b"accept", b"").decode("latin-1"))
        return 200, [("content-type", kind)], body

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start the gateway with the server and stop it with it."""
        await receive()
        if self._road is not None:
            try:
                await self._gateway.start()
            except (WeirError, OSError) as error:
                await send({"type": "lifespan.startup.failed", "message": f"cannot start: {error}"})
                return
            self._road.inference = self._gateway.inference
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._road is not None:
            await self._gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})


class Resources:
    """The FastAPI applications, each made when a path of its part is first asked for."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._making: dict[str, asyncio.Task[App]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        check_repeats(scope["headers"])  # or the log may name another key than the one that was let in
        part = part_of(scope["path"])
        making = self._making.get(part)
        if making is None:
            making = asyncio.get_running_loop().create_task(asyncio.to_thread(self._made, part))
            self._making[part] = making
        try:
            # The others who wait must not lose it when one caller leaves.
            app = await asyncio.shield(making)
        except Exception as error:  # noqa: BLE001 - a defect is an answer too, and may be gone at the next request
            if self._making.get(part) is making:
                del self._making[part]
            await _answer(send, *defect(error, scope["path"]))
            return
        client = scope.get("client")
        # Only a management key changes anything here; the console says who it is itself.
        headers: dict[bytes, bytes] = dict(scope["headers"])
        name = self._gateway.management.called(headers.get(b"authorization"), headers.get(b"x-api-key"))
        ACTING.set(Actor(name, "api", client[0] if client else ""))
        bodiless = scope["method"] == "HEAD"
        told = _Telling(send, bodiless=bodiless)
        try:
            # Whoever takes GET takes HEAD; the server goes by the scope of its own.
            await app({**scope, "method": "GET"} if bodiless else scope, receive, told)
        except Exception:
            # Starlette raises again what it has answered and logged. The server would close the connection for it,
            # without a word in the answer; behind a whole answer there is no need to.
            if not told.whole:
                raise

    def _made(self, part: str) -> App:
        from gateway.resources import build_part  # noqa: PLC0415 - see above

        app: Any = build_part(self._gateway, part)
        return app  # type: ignore[no-any-return] # Starlette's callable has other names for the same types


class _Telling:
    """The way of one answer to the server. A ``bodiless`` one ends behind its head, so that no stream runs for nobody.

    Attributes:
        whole: whether all of it has been sent.
    """

    __slots__ = ("_bodiless", "_send", "whole")

    def __init__(self, send: Send, *, bodiless: bool) -> None:
        self._send = send
        self._bodiless = bodiless
        self.whole = False

    async def __call__(self, message: Message) -> None:
        """Send a message of the answer."""
        if self.whole and self._bodiless:
            return
        await self._send(message)
        if self._bodiless and message["type"] == "http.response.start":
            await self._send({"type": "http.response.body", "body": b""})
            self.whole = True
        elif message["type"] == "http.response.body":
            self.whole = not message.get("more_body", False)


def _sees_fleet(role: str) -> bool:
    """Return whether a management key of ``role`` may read the metrics."""
    from gateway.admin.rights import allows  # noqa: PLC0415 - only keys with a role need the table

    return allows("GET", "/metrics")(role)


def _json(status: int, document: object) -> Answer:
    return status, [("content-type", "application/json")], msgspec.json.encode(document)


async def _answer(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    lines = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    lines.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
