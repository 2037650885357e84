"""Exports in constant memory: a month of FOCUS rows, a small and a large one, and the memory of who writes them.

``python -m bench.export [--rows 1000000] [--quick] [--out docs/bench/export.json]`` fills a ledger (SQLite) with a
month in which every (key, model) pair used three token classes each day, and exports the month, while it is open and
after it was closed, as CSV and as Parquet, each in a process of its own that is keeper and command in one, as
``weir export`` is when no gateway runs. It prints rows per second and the peak of resident memory. Exit status 1 when
the large export takes more than ``MOST_GROWTH_MB`` more than one of a tenth of its rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway.billing import methods
from gateway.billing.export import export_of, export_to, selection
from gateway.db.migrations import migrate
from gateway.keeper.service import Keeper
from gateway.pricing.charge import rates_id
from gateway.types.money import Rates

DAYS = 30
CLASSES = 3
PERIOD = "2026-09"
FIRST_DAY = 20_697
PRICE = Rates(100_000, 300_000, cache_read=20_000)
MOST_GROWTH_MB = 40.0
PEPPER = b"pepper of the benchmark"


def fill(path: Path, rows: int) -> None:
    """Write the ledger and the daily rollup of a month whose export has about ``rows`` rows."""
    pairs = max(1, rows // (DAYS * CLASSES))
    price_id = rates_id(PRICE)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        labels = [
            (n + 1, f"team-{n % 50:02}", f"key{n // 4:06}", f"author/model-{n % 4}", "own/fp8@eu", price_id)
            for n in range(pairs)
        ]
        connection.executemany(
            "INSERT INTO label_set (label_id, team, key_id, model, endpoint, backend, provider, app, tier, operation, "
            "requested_model, upstream_model, streamed, price_id, cost_id, status, finish_reason, http_status, source, "
            "error) VALUES (?, ?, ?, ?, ?, 'gpu', 'own', '', 'default', 'chat', 'm', 'm', 1, ?, 0, 'ok', 'stop', 200, "
            "'upstream', '')",
            labels,
        )
        connection.executemany(
            "INSERT INTO team (slug, name, created_at) VALUES (?, ?, 0)",
            [(f"team-{n:02}", f"Team {n}") for n in range(50)],
        )
        connection.execute(
            "INSERT INTO price (price_id, prompt, completion, cache_read, request) VALUES (?, ?, ?, ?, 0)",
            (price_id, PRICE.prompt, PRICE.completion, PRICE.cache_read),
        )
        for day in range(FIRST_DAY, FIRST_DAY + DAYS):
            connection.executemany(
                "INSERT INTO ledger (day, request_id, attempt, kind, label_id, opened_us, tokens_prompt, "
                "tokens_completion, tokens_cache_read, charge_nano, charge_prompt, charge_completion, "
                "charge_cache_read) VALUES (?, ?, 1, 'usage', ?, 0, 5000, 400, 1000, 540000, 400000, 120000, 20000)",
                ((day, day.to_bytes(8, "big") + n.to_bytes(8, "big"), n + 1) for n in range(pairs)),
            )
        connection.execute(
            "INSERT INTO usage_day (day, team, key_id, model, endpoint, app, tier, status, requests, tokens_prompt, "
            "tokens_completion, tokens_cache_read, charge_nano, cost_nano, ttft, duration, throughput) "
            "SELECT day, team, key_id, model, endpoint, app, tier, status, COUNT(*), SUM(tokens_prompt), "
            "SUM(tokens_completion), SUM(tokens_cache_read), SUM(charge_nano), SUM(cost_nano), x'', x'', x'' "
            "FROM ledger JOIN label_set USING (label_id) GROUP BY day, team, key_id, model, endpoint, app, tier, status"
        )
        # By these the book sees which days have usage.
        connection.execute(
            "INSERT INTO tally_day (team, kind, day, name, requests, errors, retries, prompt, completion, cached, "
            "charge_nano, cost_nano, discount_nano, byok_nano) SELECT '', 'status', day, status, SUM(requests), 0, 0, "
            "SUM(tokens_prompt), SUM(tokens_completion), SUM(tokens_cache_read), SUM(charge_nano), SUM(cost_nano), "
            "SUM(discount_nano), 0 FROM usage_day GROUP BY day, status"
        )
        connection.commit()


async def work(home: Path, task: str, form: str) -> dict[str, Any]:
    """Export the month, or close it, and return what that took."""
    keeper = Keeper(home, url_of(home), PEPPER)
    await keeper.start()
    began, cpu = time.perf_counter(), time.process_time()
    rows = 0
    if task == "close":
        rows = (await keeper.ask(methods.CLOSE, (PERIOD,))).lines
    else:
        export = export_of("focus", form, selection(None, PERIOD, None, None))
        await export_to(keeper, export, home / f"out.{form}")
        rows = export.progress.rows
    took = time.perf_counter() - began
    spent = time.process_time() - cpu
    await keeper.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rows": rows,
        "seconds": round(took, 2),
        "rows_per_s": round(rows / took),
        "cpu_us_per_row": round(spent / max(rows, 1) * 1e6, 1),
        "peak_mb": round(peak, 1),
    }


def url_of(home: Path) -> str:
    """Return the URL of the database in ``home``."""
    return f"sqlite+aiosqlite:///{home / 'weir.db'}"


def apart(home: Path, task: str, form: str) -> dict[str, Any]:
    """Do ``work`` in a process of its own."""
    command = [sys.executable, "-m", "bench.export", "--work", str(home), task, form]
    environment = os.environ | {"WEIR_LOG_LEVEL": "error"}
    # What goes wrong there is to be seen here.
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(rows: int, *, quick: bool) -> dict[str, Any]:
    """Return what the exports of a month of ``rows`` rows take; a ``quick`` run exports the open month as CSV alone."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        asyncio.run(migrate(url_of(home)))
        fill(home / "weir.db", rows)
        found = {"open, csv": apart(home, "export", "csv")}
        if quick:
            return found
        found["close"] = apart(home, "close", "-")
        found |= {f"closed, {form}": apart(home, "export", form) for form in ("csv", "parquet")}
        return found


def wrong(small: dict[str, Any], large: dict[str, Any], rows: int) -> list[str]:
    """Return what is not as it should be: memory that grew, or exports that have not the rows of the month."""
    due = max(1, rows // (DAYS * CLASSES)) * DAYS * CLASSES
    return [
        *(
            f"{name}: memory grew by {large[name]['peak_mb'] - small[name]['peak_mb']:.1f} MB, allowed {MOST_GROWTH_MB}"
            for name in large
            if name != "close" and large[name]["peak_mb"] - small[name]["peak_mb"] > MOST_GROWTH_MB
        ),
        *(
            f"{name}: {large[name]['rows']} rows, due {due}"
            for name in large
            if name != "close" and large[name]["rows"] != due
        ),
    ]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="only the open month, as CSV")
    parser.add_argument("--work", nargs=3)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(asyncio.run(work(Path(given.work[0]), *given.work[1:]))))
        return 0
    small, large = (measure(rows, quick=given.quick) for rows in (given.rows // 10, given.rows))
    growth = {name: round(large[name]["peak_mb"] - small[name]["peak_mb"], 1) for name in large if name != "close"}
    missed = wrong(small, large, given.rows)
    report = {"a tenth": small, "all": large, "growth_mb": growth, "bar_mb": MOST_GROWTH_MB, "missed": missed}
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
