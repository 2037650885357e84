"""The port of a simulated backend is its own as long as it runs, also while it refuses connections."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from gateway.sim import Fault


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be held that nobody listens on")
@pytest.mark.parametrize("armed", [(), (Fault(kind="refuse"),)], ids=["refuses later", "refuses from the start"])
@pytest.mark.parametrize("reuse", [0, 1])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_nobody_takes_the_port_of_one_that_refuses(
    start: Any, connect: Any, client: Any, armed: Any, reuse: int, host: str
) -> None:
    """Connections are refused as by a process that died, and the port is still there when it comes back."""
    sim = await start(faults=armed)
    for _ in range(2):
        sim.faults.arm(Fault(kind="refuse"))
        await sim.settled()
        with pytest.raises(ConnectionRefusedError):
            await connect(sim.url)
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            with pytest.raises(OSError, match="in use"):
                thief.bind((host, sim.port))
        sim.faults.clear()
        await sim.settled()
        assert (await client.get(f"{sim.url}/health")).status_code == 200
    port = sim.port
    sim.faults.arm(Fault(kind="refuse"))
    await sim.settled()
    await sim.stop()
    with socket.socket() as heir:
        heir.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heir.bind((host, port))
        heir.listen()
