"""A gateway over simulated engines that cost their owner money, and its ledger as tests of metering look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.sim import BookEntry, SimConfig, SimFleet
from gateway.types.generation import AttemptRecord
from tests.harness import Backend, Stage, configuration, staged

PROMPT, COMPLETION = 100, 300
"""Nano-USD that a team pays for a token."""
COST_PROMPT, COST_COMPLETION = 50, 200
"""Nano-USD that the owner pays for a token."""
COST = 'cost: {prompt: "0.05", completion: "0.20"}'


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway over simulated engines that cost their owner money."""

    stage: Stage
    fleet: SimFleet

    def entries(self) -> list[BookEntry]:
        """Return every request that any engine saw, in the order in which they came."""
        return sorted((entry for sim in self.fleet for entry in sim.books), key=lambda entry: entry.received_at)

    async def attempts(self, identity: str = "") -> tuple[AttemptRecord, ...]:
        """Return the tries of the newest request, or of ``identity``, once its end is in the ledger."""
        async with asyncio.timeout(10):
            while True:
                (record,) = await self.stage.settled()
                if identity in {"", "gen-" + record.request_id.hex()}:
                    return record.attempts
                await asyncio.sleep(0.05)

    async def audited(self) -> None:
        """Check that journal, ledger and rollups agree, and that the metrics of the tokens say the same."""
        report = await self.stage.keeper.audit()
        assert report.ok, report.mismatches
        rows = [attempt for record in await self.stage.keeper.recent(1000) for attempt in record.attempts]
        prompt, completion = (sum(getattr(row.usage, name) for row in rows) for name in ("prompt", "completion"))
        assert report.ledger["tokens_prompt"] == report.rollups["day_tokens_prompt"] == prompt
        assert report.ledger["tokens_completion"] == report.rollups["hour_tokens_completion"] == completion
        assert report.ledger["charge_nano"] == sum(row.charge_nano for row in rows)
        counted = await self.metric("weir_tokens_total")
        assert counted.get('class="prompt"', 0) == prompt
        assert counted.get('class="completion"', 0) == completion

    async def metric(self, name: str) -> dict[str, float]:
        """Return a counter's values by each of its labels."""
        page = (await self.stage.http.get(f"{self.stage.url}/metrics", headers=self.stage.admin)).text
        found: dict[str, float] = {}
        for line in page.splitlines():
            if line.startswith(name + "{"):
                labels, _, value = line.removeprefix(name + "{").partition("} ")
                for label in labels.split(","):
                    found[label] = found.get(label, 0) + float(value)
        return found


@asynccontextmanager
async def scene_of(home: Path, *configs: SimConfig) -> AsyncIterator[Scene]:
    """Run a gateway over engines so configured."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(SimFleet(configs))
        backends = [
            Backend(sim.config.name, sim.url, sim.config.kind, sim.config.models[0], endpoint=COST) for sim in fleet
        ]
        yield Scene(await stack.enter_async_context(staged(home, configuration(backends))), fleet)


def price(row: AttemptRecord) -> int:
    """Return what a team pays for the tokens of ``row``, none of them cached, in nano-USD."""
    return row.usage.prompt * PROMPT + row.usage.completion * COMPLETION


def cost(row: AttemptRecord) -> int:
    """Return what the tokens of ``row`` cost the owner, in nano-USD."""
    return row.usage.prompt * COST_PROMPT + row.usage.completion * COST_COMPLETION
