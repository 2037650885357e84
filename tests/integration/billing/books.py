"""Ledger rows for tests of billing, posted the way the shipper does, and an office over them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from gateway.billing.office import BillingOffice
from gateway.config.snapshot import BillingSpec
from gateway.db.bulk import bulk
from gateway.db.engine import Database
from gateway.db.office import Premises
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.unit_of_work import writing
from gateway.metering import ledger, rollups
from gateway.metering.entry import Entries
from gateway.metering.record import Close, Dimensions, Price, RowKind, Status, end_of
from gateway.pricing.charge import payable, rates_id
from gateway.types.charge import NO_CHARGE, Charge
from gateway.types.money import Rates
from gateway.types.tokens import Usage, UsageSource

DAY_US = 86_400_000_000
PLAIN = Rates(100_000, 300_000, cache_read=20_000)
CHEAPER = Rates(100_000, 300_000, cache_read=20_000, discount=1_500)
DEARER = Rates(100_003, 300_007, request=12_345, markup=333)
FREE = Rates(0, 0)
PRICES = {rates_id(rates): rates for rates in (PLAIN, CHEAPER, DEARER, FREE)}
TEAMS = ("search", "ads")
USAGE = Usage(1_000, 100)


def day(text: str) -> int:
    """Return a day, counted from 1970."""
    import datetime as dt

    return dt.date.fromisoformat(text).toordinal() - dt.date(1970, 1, 1).toordinal()


def request_id(moment_us: int, chance: random.Random) -> bytes:
    """Return a request id of that moment."""
    tail = bytearray(chance.randbytes(10))
    tail[0], tail[2] = 0x70 | tail[0] & 0x0F, 0x80 | tail[2] & 0x3F
    return (moment_us // 1000).to_bytes(6, "big") + bytes(tail)


def close_of(
    when: int,
    chance: random.Random,
    *,
    team: str = "search",
    key: str = "abcd1234",
    model: str = "qwen/qwen3-32b",
    rates: Rates = PLAIN,
    usage: Usage = USAGE,
    status: Status = Status.OK,
    pays: bool = True,
) -> Close:
    """Return a request of ``when`` (microseconds since 1970), charged as it should be."""
    labels = Dimensions(
        *(team, key, model, "own/fp8@eu", "gpu-a", "own", "app", "default", "chat", model, "Q", ""),
        streamed=False,
        price_id=rates_id(rates),
        cost_id=0,
    )
    paid, discount = payable(usage, rates) if pays else (NO_CHARGE, NO_CHARGE)
    return Close(
        request_id(when, chance),
        1,
        RowKind.USAGE,
        labels,
        when,
        status,
        "stop",
        200,
        usage,
        UsageSource.UPSTREAM,
        paid,
        Charge(prompt=usage.prompt * 7),
        20_000,
        1_020_000,
        1_000_000,
        discount=discount if discount != NO_CHARGE else None,
    )


def correction_of(close: Close, charge: Charge, usage: Usage | None = None) -> Close:
    """Return a correction of a request."""
    made: Close = msgspec.structs.replace(
        close, kind=RowKind.CORRECTION, charge=charge, usage=usage or Usage(), cost=NO_CHARGE, discount=None
    )
    return made


def some(count: int, first: int, last: int, seed: int) -> Iterator[Close]:
    """Yield random requests of some days, with whatever an engine may report, and corrections."""
    chance = random.Random(seed)
    for _ in range(count):
        when = chance.randrange(first * DAY_US, (last + 1) * DAY_US)
        prompt, completion = chance.randrange(5_000), chance.randrange(900)
        usage = Usage(
            prompt,
            completion,
            chance.choice([0, 0, prompt // 3, prompt + 5]),
            chance.choice([0, 0, prompt // 5]),
            chance.choice([0, completion // 2, completion + 1]),
            *(chance.choice([0, 0, 0, 7]) for _ in range(4)),
        )
        status = chance.choice([*Status, Status.OK, Status.OK, Status.OK])
        pays = status in {Status.OK, Status.CLIENT_CANCEL, Status.CONTINUED, Status.ORPHANED} and chance.random() < 0.9
        close = close_of(
            when,
            chance,
            team=chance.choice(TEAMS),
            key=chance.choice(["abcd1234", "bcde2345"]),
            model=chance.choice(["qwen/qwen3-32b", "qwen/qwen3-8b", "=cmd|x"]),
            rates=chance.choice(list(PRICES.values())),
            usage=usage,
            status=status,
            pays=pays,
        )
        yield close
        if chance.random() < 0.1:
            yield correction_of(close, Charge(prompt=-chance.randrange(50), completion=chance.randrange(9)))


async def post(database: Database, closes: Iterable[Close]) -> None:
    """Put rows into the ledger and the rollups, in one transaction, as the shipper does."""
    entries = Entries.of([end_of(close) for close in closes])
    labels = {each.label_id: each for some_of_them in entries for each in some_of_them.labels}
    async with bulk(database) as connection:
        await ledger.insert_labels(connection, labels.values())
        await ledger.insert_prices(connection, [Price(name, rates) for name, rates in PRICES.items()])
        fresh = await ledger.insert(connection, entries)
        await rollups.post(connection, await rollups.tally(fresh))


async def people(database: Database) -> None:
    """Make the teams and keys."""
    async with writing(database) as session:
        for slug in TEAMS:
            session.add(TeamRow(slug=slug, name=f"Team {slug} <&>", created_at=0))
    async with writing(database) as session:
        for key, team in (("abcd1234", "search"), ("bcde2345", "ads")):
            session.add(KeyRow(key_id=key, name=key, digest=b"", team=team, created_at=0))


@dataclass(frozen=True, slots=True)
class Config:
    """As much of a configuration as billing sees."""

    billing: BillingSpec


@dataclass(slots=True)
class House:
    """A database with teams, and its office of billing.

    Attributes:
        now_us: what the office takes for the time.
    """

    database: Database
    office: BillingOffice
    spec: BillingSpec
    now_us: int
    home: Path

    async def ask(self, method: Any, arguments: Any = ()) -> Any:
        """Ask the office, through the wire form of arguments and result."""
        packed = msgspec.msgpack.Encoder().encode(tuple(arguments))
        decoded = method.arguments.decode(packed)
        answer = await self.office.office().handlers[method](*decoded)
        return method.result.decode(msgspec.msgpack.encode(answer))

    def configure(self, **changes: Any) -> None:
        """Change the configuration."""
        self.spec = replace(self.spec, **changes)


@asynccontextmanager
async def house(url: str, home: Path, now: str = "2026-11-03") -> Any:
    """Open an office over the database at ``url``."""
    database = Database(url)
    await people(database)
    made: House
    premises = Premises(database, home, b"pepper", lambda: Config(made.spec))  # type: ignore[arg-type, return-value]
    made = House(database, None, BillingSpec(issuer="Example Ltd"), day(now) * DAY_US, home)  # type: ignore[arg-type]
    made.office = BillingOffice(premises, lambda: made.now_us)
    try:
        yield made
    finally:
        await database.close()
