"""What the shipper takes: records a second, CPU a record, memory, into SQLite and into PostgreSQL.

``python -m bench.shipper --database sqlite|postgres [--records N] [--json]`` makes a journal of N answered requests (an
OPEN and a CLOSE each, a PROGRESS for every tenth), ships it into a fresh ledger in rounds, audits that, and exits 1
when a bar is missed. CPU is all of the shipping process (event loop and database thread); the PostgreSQL server is
another process, durable as installed, on the same machine. Bars are judged by the best round, so that other load on
the machine counts as little as possible; the median is told beside it. ``--round 2000`` ships as often as in service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, time_ns
from typing import Final

from gateway.db.engine import Database
from gateway.db.migrations import migrate
from gateway.metering.audit import audit
from gateway.metering.journal import Journal
from gateway.metering.record import Close, Dimensions, Open, Progress, RowKind, Status
from gateway.metering.shipper import Shipper
from gateway.pricing.charge import charge, rates_id
from gateway.types import garbage
from gateway.types.ids import RequestIds
from gateway.types.money import Rates
from gateway.types.tokens import Usage, UsageSource

RATE_BAR: Final = 50_000.0
CPU_BAR_US: Final = 15.0
GROWTH_BAR_MB: Final = 25.0
DURABLE: Final = {"shared_buffers": "256MB", "max_wal_size": "2GB", "log_min_messages": "fatal"}
PRICE: Final = Rates(100_000, 300_000, cache_read=20_000)
COST: Final = Rates(60_000, 250_000)
_LABEL_SETS: Final = 200
_PAGE_MB: Final = resource.getpagesize() / 1e6


@dataclass(frozen=True, slots=True)
class Result:
    """What one run took.

    Attributes:
        round: records in a round.
        records_per_s: ends of attempts moved, per second of wall time, in the best round.
        cpu_us: CPU of the shipping process per record, microseconds, in the best round.
        median_records_per_s: the same in the median round.
        median_cpu_us: the same in the median round.
        server_cpu_us: CPU of the PostgreSQL server per record; 0 for SQLite.
        rss_mb: memory after a fifth of the records.
        growth_mb: how much more it was at its highest after that.
        ok: whether ledger and rollups agree afterwards and hold every record.
    """

    database: str
    records: int
    round: int
    records_per_s: float
    cpu_us: float
    median_records_per_s: float
    median_cpu_us: float
    server_cpu_us: float
    rss_mb: float
    growth_mb: float
    ok: bool

    @property
    def missed(self) -> list[str]:
        """Bars that were missed."""
        bars = {
            f"{self.records_per_s:,.0f} records/s, wanted {RATE_BAR:,.0f}": self.records_per_s >= RATE_BAR,
            f"{self.cpu_us:.1f} µs a record, allowed {CPU_BAR_US}": self.cpu_us <= CPU_BAR_US,
            f"memory grew by {self.growth_mb:.0f} MB, allowed {GROWTH_BAR_MB:.0f}": self.growth_mb <= GROWTH_BAR_MB,
            "the books do not agree": self.ok,
        }
        return [what for what, met in bars.items() if not met]


def label_sets(chance: random.Random) -> list[Dimensions]:
    """Return what the records are counted by: 20 teams with 10 keys, two models on 8 replicas."""
    made = []
    for number in range(_LABEL_SETS):
        model = chance.choice(["qwen/qwen3-32b", "qwen/qwen3-8b"])
        made.append(
            Dimensions(
                team=f"team-{number % 20}",
                key_id=f"key{number:05d}",
                model=model,
                endpoint="own/fp8/eu",
                backend=f"gpu-{chance.randrange(8)}",
                provider="own",
                app=chance.choice(["", "https://app.example"]),
                tier="default",
                operation="chat",
                requested_model=model,
                upstream_model=model,
                user="",
                streamed=chance.random() < 0.7,
                price_id=rates_id(PRICE),
                cost_id=rates_id(COST),
            )
        )
    return made


def write_records(
    journal: Journal, labels: list[Dimensions], chance: random.Random, ids: RequestIds, count: int
) -> None:
    """Journal ``count`` answered requests."""
    for number in range(count):
        start = Open(ids.new(), 1, chance.choice(labels), time_ns() // 1000, 200)
        usage = Usage(chance.randrange(50, 8_000), chance.randrange(1, 1_500), chance.choice([0, 0, 512]))
        journal.append(start)
        if number % 10 == 0:
            journal.append(Progress(start.request_id, 1, Usage(usage.prompt, 1), UsageSource.UPSTREAM))
        duration = usage.completion * chance.randrange(8_000, 30_000)
        journal.append(
            Close(
                start.request_id,
                1,
                RowKind.USAGE,
                start.dims,
                start.opened_us,
                Status.OK,
                "stop",
                200,
                usage,
                UsageSource.UPSTREAM,
                charge(usage, PRICE),
                charge(usage, COST),
                chance.randrange(20_000, 900_000),
                duration + 900_000,
                duration,
                f"chatcmpl-{number:x}",
            )
        )


@contextmanager
def database_at(kind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Give the block the URL of a fresh ledger, and the process id of its server or 0."""
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / 'weir.db'}", 0
        return
    # Only this run needs a server, and where it comes from the tests know.
    from tests.fakes.postgres import PostgresServer, programs  # noqa: PLC0415 - see above

    server = PostgresServer(programs(), DURABLE)
    try:
        yield server.create_empty(), server.process.pid if server.process else 0
    finally:
        server.close()


def server_seconds(pid: int) -> float:
    """Return the CPU seconds of a server's processes that live."""
    if not pid:
        return 0.0
    found = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid or path.parent.name == str(pid):
            found += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


async def measure(kind: str, records: int, size: int) -> Result:
    """Ship ``records`` records in rounds of ``size`` and measure."""
    chance, ids = random.Random(4), RequestIds()
    labels = label_sets(chance)
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as name, database_at(kind, Path(name)) as (url, server):
        folder = Path(name) / "journal"
        await migrate(url)
        journal = Journal.create(folder, durability="process")
        journal.declare(rates_id(PRICE), PRICE)
        journal.declare(rates_id(COST), COST)
        database = Database(url)
        shipper = Shipper(folder, database)
        memory: list[tuple[int, float]] = []

        async def watch() -> None:
            while True:
                resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_MB
                memory.append((shipper.records, resident))
                await asyncio.sleep(0.02)

        # What every process pays once: connections, statements, the first partition.
        write_records(journal, labels, chance, ids, 2_000)
        await shipper.ship()
        garbage.settle()  # as keeper and gateway do once they have started
        rounds: list[tuple[float, float]] = []
        before = server_seconds(server)
        done = 0
        while done < records:
            count = min(size, records - done)
            write_records(journal, labels, chance, ids, count)
            await journal.commit()
            watching = asyncio.create_task(watch())
            since, used = perf_counter(), process_time()
            await shipper.ship()
            rounds.append(((perf_counter() - since) / count, (process_time() - used) / count))
            watching.cancel()
            done += count
        served = server_seconds(server) - before
        await journal.close()
        await shipper.ship()
        report = await audit(folder, database)
        ok = report.ok and report.ledger["requests"] == records + 2_000 == shipper.records
        shipper.close()
        await database.close()
    settled = next(resident for shipped, resident in memory if shipped >= (records + 2_000) // 5)
    highest = max(resident for shipped, resident in memory if shipped >= (records + 2_000) // 5)
    walls, cpus = zip(*rounds, strict=True)
    return Result(
        kind,
        records,
        size,
        round(1 / min(walls), 1),
        round(min(cpus) * 1e6, 2),
        round(1 / median(walls), 1),
        round(median(cpus) * 1e6, 2),
        round(served / records * 1e6, 2),
        round(settled, 1),
        round(highest - settled, 1),
        ok,
    )


def main() -> int:
    """Run and print; return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench.shipper", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], required=True)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--round", type=int, default=40_000, help="records per round")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    result = asyncio.run(measure(chosen.database, chosen.records, chosen.round))
    if chosen.json:
        print(json.dumps(asdict(result) | {"missed": result.missed}))
    else:
        print(*(f"{name:>16}  {value}" for name, value in asdict(result).items()), sep="\n")
        print(*(f"missed: {what}" for what in result.missed), sep="\n")
    return 1 if result.missed else 0


if __name__ == "__main__":
    sys.exit(main())
