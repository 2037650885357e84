"""What applications behind the native road are told of a connection: both of its ends, and how it is spoken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.edge.native import Road

REQUEST = b"GET /anything HTTP/1.1\r\nHost: x\r\n\r\n"


async def both_ends() -> list[dict[str, Any]]:
    """Ask twice over one connection; return the scopes that an application was given, and what was to be in them."""
    found: list[dict[str, Any]] = []

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        found.append({name: scope[name] for name in ("client", "server", "scheme")})
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    loop = asyncio.get_running_loop()
    config = Config(application, interface="asgi3", lifespan="off", ws="none", log_config=None)
    config.load()
    road, state = Road(), ServerState()
    server = await loop.create_server(lambda: road.protocol(config, state, {}, _loop=loop), "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(2):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        client, own = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        writer.close()
    return [*found, {"client": client, "server": own, "scheme": "http"}]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_application_is_told_who_is_at_both_ends(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """With the first request of a connection and with each one after it: sign-ins are limited by address."""
    with asyncio.Runner(loop_factory=loop) as runner:
        first, second, true = runner.run(both_ends())
    assert first == second == true
