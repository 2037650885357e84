"""What keys were charged, read from the tallies. A database that is away is ``Unavailable``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from gateway.db.bulk import bulk_on
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading
from gateway.types.generation import KeyUsage

_EPOCH: Final = date(1970, 1, 1)
_MOST_IDS: Final = 500
"""Ids asked for in one statement; databases limit its parameters."""


def _number(day: date) -> int:
    """Return ``day`` as the tallies count days."""
    return (day - _EPOCH).days


async def key_usage(database: Database, key_ids: Sequence[str], now: datetime) -> Mapping[str, KeyUsage]:
    """Return what each of ``key_ids`` was charged ever and in the UTC day, week (from Monday) and month of ``now``."""
    today = now.astimezone(UTC).date()
    starts = [_number(start) for start in (today, today - timedelta(days=today.weekday()), today.replace(day=1))]
    found = {key_id: [0] * 8 for key_id in key_ids}
    amounts = ("charge_nano", "byok_nano")
    since = ", ".join(f"SUM(CASE WHEN day >= {start} THEN {name} ELSE 0 END)" for name in amounts for start in starts)
    ever = ", ".join(f"SUM({name})" for name in amounts)
    wanted = sorted(found)
    async with reading(database) as session:
        connection = await bulk_on(await session.connection())
        for first in range(0, len(wanted), _MOST_IDS):
            some = wanted[first : first + _MOST_IDS]
            keys = f"team = '' AND kind = 'key_id' AND name IN ({', '.join('?' * len(some))})"
            lately = f"SELECT name, {since} FROM tally_day WHERE {keys} AND day >= {min(starts)} GROUP BY name"  # noqa: S608 - ours
            for key_id, *sums in await connection.read(lately, some):
                found[key_id][1:4], found[key_id][5:] = map(int, sums[:3]), map(int, sums[3:])
            whole = f"SELECT name, {ever} FROM tally_block WHERE {keys} GROUP BY name"  # noqa: S608 - ours
            for key_id, *sums in await connection.read(whole, some):
                found[key_id][0], found[key_id][4] = map(int, sums)
    return {key_id: KeyUsage(*each) for key_id, each in found.items()}
