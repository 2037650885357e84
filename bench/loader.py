"""A house full of books: ``python -m bench.loader --home DIR --rows 10000000``.

Makes teams, keys, budgets and apps through the keeper, and writes that many ledger rows over ``--days`` days that end
now, with the shipper's own functions: rows, rollups, totals and milestones of a day in one transaction. So the books
agree (``--audit`` asks ``weir meter audit``'s code), and whatever the shipper learns to write is written here too.

All of it is made up, and ``DIR`` says so as the demo's does. Speeds of pages are measured on it by
``python -m tests.ui.screenshots --home DIR``. A ``DIR`` that holds a ledger already is left alone (exit status 1).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from gateway.db.bulk import bulk
from gateway.db.engine import Database
from gateway.keeper.process import serving
from gateway.keeper.service import Keeper
from gateway.leaderboard.question import MADE_UP
from gateway.metering import ledger, rollups
from gateway.metering.audit import audit
from gateway.metering.entry import KEY, Entries, Row
from gateway.metering.labels import LabelBook, Labels
from gateway.metering.record import Dimensions, Price, Status
from gateway.pricing.charge import charge, rates_id
from gateway.sim.history.fill import Mark
from gateway.types.budgets import SET_BUDGET, NewBudget, Scope, Window
from gateway.types.charge import NO_CHARGE
from gateway.types.keys import NewKey
from gateway.types.money import Rates
from gateway.types.tokens import Usage

TEAMS: Final = ("demo-search", "demo-coding", *(f"team-{number:02d}" for number in range(1, 19)))
"""The first two are those that the tests of pages know."""
APPS: Final = 40
SERVED: Final = ("qwen/qwen3-32b", "qwen/qwen3-8b")
"""Models that the demo's fleet serves by itself."""
ACTIVE: Final = 150
"""Label sets that are used in one hour: keys work in shifts."""
SHAPES: Final = 48
"""Requests that a model's rows are picked from."""
_HEAD: Final = (*KEY, "label_id", "opened_us")
_SHAPE: Final = (
    *("tokens_prompt", "tokens_completion", "tokens_cache_read"),
    *("charge_nano", "charge_prompt", "charge_completion", "charge_cache_read"),
    *("cost_nano", "cost_prompt", "cost_completion", "cost_cache_read"),
    *("ttft_us", "duration_us", "generation_us"),
)
"""Columns that a row has from its shape."""
_WRITTEN: Final = (*_HEAD, *_SHAPE)
_HOUR_MS: Final = 3_600_000
_FREE: Final = 0x0FFF_3FFF_FFFF_FFFF_FFFF
"""Bits of a UUIDv7 behind its time that are neither version nor variant."""
_ENDPOINTS: Final = (("own/fp8/eu", "gpu-a", "own"), ("own/bf16/eu", "gpu-b", "own"), ("cloud", "cloud", "cloud"))
_ENDS: Final = (
    (Status.OK, "stop", 200, "", 0.93),
    (Status.CLIENT_CANCEL, "", 200, "", 0.03),
    (Status.UPSTREAM_ERROR, "", 502, "provider_error", 0.02),
    (Status.FAILED, "", 503, "provider_unavailable", 0.02),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """Rows of one label set: its labels, how often they come, and the requests they are picked from."""

    labels: Labels
    weight: float
    shapes: Sequence[Row]


def models(count: int) -> list[str]:
    """Return the ids of ``count`` models, the most used first."""
    makers = 12
    known = [*SERVED, "openai/gpt-oss-120b"]
    return (known + [f"maker-{number % makers:02d}/model-{number:03d}" for number in range(count)])[:count]


def price_of(number: int) -> Rates:
    """Return what the callers of a model pay."""
    return Rates(100_000 + 37_000 * (number % 23), 300_000 + 110_000 * (number % 19), 20_000 + 5_000 * (number % 7))


COST: Final = Rates(90_000, 250_000)


def kinds(key_teams: Sequence[tuple[str, str]], count: int, random: Random) -> list[Kind]:
    """Return the label sets: a few models for each key, some endpoints for each model, every end that there is."""
    names, book, encode = models(count), LabelBook(), msgspec.msgpack.encode
    popular = list(accumulate(1 / (number + 1) ** 0.9 for number in range(count)))
    found: list[Kind] = []
    shapes: dict[tuple[int, str, str], Sequence[Row]] = {}
    for place, (key_id, team) in enumerate(key_teams):
        app = f"app-{random.randrange(APPS):02d}.example" if random.random() < 0.7 else ""
        for number in set(random.choices(range(count), cum_weights=popular, k=random.randint(1, 4))):
            for endpoint, backend, provider in random.sample(_ENDPOINTS, k=random.randint(1, 2)):
                for status, finish, http, error, share in _ENDS:
                    made = (number, provider, status.value)
                    if made not in shapes:
                        shapes[made] = _shapes(price_of(number), status, Random(f"{made}"), paid=provider == "cloud")
                    said = Dimensions(
                        team=team,
                        key_id=key_id,
                        model=names[number],
                        endpoint=endpoint,
                        backend=backend,
                        provider=provider,
                        app=app,
                        tier="default",
                        operation="chat",
                        requested_model=names[number],
                        upstream_model=names[number].partition("/")[2],
                        user="made-up",
                        streamed=True,
                        price_id=rates_id(price_of(number)),
                        cost_id=rates_id(COST) if provider == "cloud" else 0,
                    )
                    labels, _, _ = book.find([(encode(said), status.value, finish, http, "upstream", error)])[0]
                    found.append(Kind(labels, share / (place + 3) ** 0.7, shapes[made]))
    return found


def _shapes(price: Rates, status: Status, random: Random, *, paid: bool) -> Sequence[Row]:
    """Return what rows of a model hold beyond their key, their labels and their time."""
    found: list[Row] = []
    for _ in range(SHAPES):
        usage = Usage()
        answered = status in (Status.OK, Status.CLIENT_CANCEL)
        if answered:
            prompt = int(random.lognormvariate(7.3, 1.1)) + 20
            cached = int(prompt * random.choice([0.0, 0.0, 0.4, 0.8]))
            usage = Usage(prompt, int(random.lognormvariate(5.6, 0.8)) + 1, cache_read=cached)
        charged = charge(usage, price) if answered else NO_CHARGE
        spent = charge(usage, COST) if answered and paid else NO_CHARGE
        wait, pace = random.lognormvariate(-0.8, 0.6), random.uniform(30, 120)
        making = usage.completion / pace
        values = {
            "tokens_prompt": usage.prompt,
            "tokens_completion": usage.completion,
            "tokens_cache_read": usage.cache_read,
            "charge_nano": charged.total,
            "charge_prompt": charged.prompt,
            "charge_completion": charged.completion,
            "charge_cache_read": charged.cache_read,
            "cost_nano": spent.total,
            "cost_prompt": spent.prompt,
            "cost_completion": spent.completion,
            "cost_cache_read": spent.cache_read,
            "ttft_us": round(wait * 1e6) if answered else 0,
            "duration_us": round((wait + making) * 1e6),
            "generation_us": round(making * 1e6),
        }
        found.append(tuple(values[name] for name in _SHAPE))
    return found


def hours(known: Sequence[Kind], rows: int, first: int, last: int, random: Random) -> Iterator[Entries]:
    """Yield the rows of every hour from ``first`` to ``last``, counted from 1970; together ``rows``, or a few less."""
    weights = [each.weight for each in known]
    busy = [1 + 0.6 * ((hour % 24) in range(7, 19)) - 0.4 * ((hour // 24 + 3) % 7 >= 5) for hour in range(168)]
    whole = sum(busy[hour % 168] for hour in range(first, last + 1))
    for hour in range(first, last + 1):
        count = int(rows * busy[hour % 168] / whole)
        awake = random.choices(known, weights, k=ACTIVE)
        taken = random.choices(awake, k=count)
        begin = hour * _HOUR_MS
        moments = sorted(random.choices(range(_HOUR_MS), k=count))
        made: list[Row] = []
        for moment, kind in zip(moments, taken, strict=True):
            tail = random.getrandbits(80)
            number = (begin + moment) << 80 | 0x7000 << 64 | tail & _FREE | 0b10 << 62
            head = (hour // 24, number.to_bytes(16, "big"), 1, "usage", kind.labels.label_id, (begin + moment) * 1_000)
            made.append(head + kind.shapes[tail % SHAPES])
        if made:
            yield Entries(hour, _WRITTEN, made, [kind.labels for kind in taken])


async def furnish(keeper: Keeper, keys: int, count: int) -> list[tuple[str, str]]:
    """Make teams, keys and budgets; return the ids of the keys with their teams. Nobody knows the keys' secrets."""
    for slug in TEAMS:
        await keeper.ensure_team(slug, slug.replace("-", " ").title())
    found: list[tuple[str, str]] = []
    for number in range(keys):
        team = TEAMS[number % len(TEAMS)]
        issued = await keeper.create_key(NewKey(f"service {number:03d}", team))
        found.append((issued.record.key_id, team))
    for number, team in enumerate(TEAMS):
        limit = (number + 1) * 400 * 10**9
        await keeper.ask(SET_BUDGET, (NewBudget(Scope(team=team), Window.MONTHLY, limit, False, (50, 80, 100)),))
        model = models(count)[number % count]
        await keeper.ask(SET_BUDGET, (NewBudget(Scope(team=team, model=model), Window.DAILY, limit // 20, False, ()),))
    return found


async def write(database: Database, known: Sequence[Kind], options: argparse.Namespace, random: Random) -> int:
    """Write the rows, a transaction for each day; return how many."""
    now = int(time.time()) // 3_600
    first = now - 24 * options.days + 1
    prices = [Price(rates_id(each), each) for each in (COST, *map(price_of, range(options.models)))]
    done, day = 0, []
    async with bulk(database) as connection:
        await ledger.insert_prices(connection, prices)
        await ledger.insert_labels(connection, [each.labels for each in known])
        seen = [(f"app-{app:02d}.example", f"App {app}", "cli-agent", "approved", "made-up", 0) for app in range(APPS)]
        columns = ("app", "title", "categories", "status", "first_key", "first_seen_us")
        await connection.insert("app", columns, sorted(seen))
    for some in hours(known, options.rows, first, now, random):
        day.append(some)
        if some.hour % 24 == 23 or some.hour == now:
            async with bulk(database) as connection:
                inserted = await ledger.insert(connection, day)
                await rollups.post(connection, await rollups.tally(inserted))
            done, day = done + sum(len(each.rows) for each in day), []
            if some.hour // 24 % 10 == 0 or some.hour == now:
                sys.stderr.write(f"{done:>12,} rows\n")
    return done


async def load(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Do it; return what was done."""
    url = options.database or f"sqlite+aiosqlite:///{home / 'weir.db'}"
    random = Random(options.seed)
    began = time.perf_counter()
    async with serving(home, url, b"nobody knows the keys of this house") as keeper:
        key_teams = await furnish(keeper, options.keys, options.models)
    known = kinds(key_teams, options.models, random)
    database = Database(url)
    try:
        rows = await write(database, known, options, random)
        today = int(time.time()) // 86_400
        mark = Mark(options.seed, today, today - options.days + 1, today)
        (home / MADE_UP).write_bytes(msgspec.json.encode(mark))
        found: dict[str, Any] = {
            "rows": rows,
            "keys": options.keys,
            "models": options.models,
            "teams": len(TEAMS),
            "label_sets": len(known),
            "days": options.days,
            "seconds": round(time.perf_counter() - began, 1),
        }
        if options.audit:
            report = await audit(home / "journal", database)
            found |= {"audit_ok": report.ok, "mismatches": report.mismatches}
        return found
    finally:
        await database.close()


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="", help="URL of another database than SQLite in DIR")
    parser.add_argument("--audit", action="store_true", help="compare the books afterwards, which reads all of them")
    options = parser.parse_args()
    home: Path = options.home
    if (home / "weir.db").exists() or (home / MADE_UP).exists():
        sys.stderr.write(f"{home} has a ledger already; name another folder\n")
        return 1
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = asyncio.run(load(home, options))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0 if found.get("audit_ok", True) else 1


if __name__ == "__main__":
    sys.exit(main())
