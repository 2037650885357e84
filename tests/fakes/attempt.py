"""An attempt that waits for its answer, over a transport that a test plays."""

from __future__ import annotations

import asyncio

from gateway.engines.catalogue import ENGINES
from gateway.types.call import Operation
from gateway.upstream.attempt import Attempt
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.wire import Connection, Pool
from tests.fakes.transport import FakeTransport


def asked(first_byte: float, idle: float) -> tuple[Attempt, Connection, FakeTransport, Pool]:
    """Return an attempt at a chat with vLLM that was sent, and what carries it."""
    loop = asyncio.get_running_loop()
    pool = Pool("http://x", loop=loop, deadlines=Deadlines(loop), resolve=None)  # type: ignore[arg-type] # not asked
    connection = Connection(pool)
    transport = FakeTransport(loop, connection)
    connection.connection_made(transport)
    attempt = Attempt(loop, ENGINES["vllm"], Operation.CHAT, first_byte=first_byte, idle=idle)
    attempt.start(connection, b"request")
    return attempt, connection, transport, pool
