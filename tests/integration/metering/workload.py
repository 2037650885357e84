"""Processes to be killed: a worker that meters, and a shipper. Run as a module; they end only by a signal.

``python -m tests.integration.metering.workload worker FOLDER SEED`` journals attempts and prints a line for each thing
that it has done: ``open ID ATTEMPT``, ``progress ID ATTEMPT TOKENS``, and, only once the end is durable,
``ack ID ATTEMPT PROMPT COMPLETION``: that is when a caller would have seen the end of the answer.

``python -m tests.integration.metering.workload shipper FOLDER URL`` ships, and prints ``shipped N`` for each batch.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from gateway.db.engine import Database
from gateway.metering.journal import Journal
from gateway.metering.outcome import Shipped
from gateway.metering.record import Progress
from gateway.metering.shipper import Shipper
from gateway.types.tokens import Usage, UsageSource
from tests.integration.metering.samples import COST, COST_ID, PRICE, PRICE_ID, closed, dims, opened

CONCURRENT = 16


def say(*words: object) -> None:
    """Print a line at once and whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def worker(folder: Path, seed: int) -> None:
    """Meter attempts until killed."""
    chance = random.Random(seed)
    journal = Journal.create(folder, segment_bytes=chance.choice([4_000, 20_000, 10**7]), segment_seconds=0.2)
    journal.declare(PRICE_ID, PRICE)
    journal.declare(COST_ID, COST)

    async def attempts() -> None:
        while True:
            start = opened(dims(team=chance.choice(["a", "b"])), attempt=chance.choice([1, 1, 2]))
            name = (start.request_id.hex(), start.attempt)
            journal.append(start)
            say("open", *name)
            tokens = 0
            await asyncio.sleep(chance.random() / 30)
            for _ in range(chance.choice([0, 0, 1, 3])):
                await asyncio.sleep(chance.random() / 200)
                tokens += chance.randrange(1, 100)
                journal.append(Progress(start.request_id, start.attempt, Usage(500, tokens), UsageSource.COUNTED))
                say("progress", *name, tokens)
            usage = Usage(500, tokens + 1)
            journal.append(closed(start, usage))
            await journal.commit()
            say("ack", *name, usage.prompt, usage.completion)

    await asyncio.gather(*[attempts() for _ in range(CONCURRENT)])


async def shipper(folder: Path, url: str) -> None:
    """Ship until killed."""

    def told(shipped: Shipped) -> None:
        say("shipped", shipped.inserted)

    await Shipper(folder, Database(url), batch_records=100, interval_s=0.001, on_shipped=told).run()


if __name__ == "__main__":
    role, where, what = sys.argv[1:]
    asyncio.run(worker(Path(where), int(what)) if role == "worker" else shipper(Path(where), what))
