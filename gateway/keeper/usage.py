"""What keys were charged, read from the daily rollups. A database that is away is ``Unavailable``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import case, func
from sqlmodel import col, select

from gateway.db.engine import Database
from gateway.db.tables.ledger import UsageDay
from gateway.db.unit_of_work import reading
from gateway.types.generation import KeyUsage

_EPOCH: Final = date(1970, 1, 1)
_MOST_IDS: Final = 500
"""Ids asked for in one statement; databases limit its parameters."""


def _number(day: date) -> int:
    """Return ``day`` as the rollups count days."""
    return (day - _EPOCH).days


async def key_usage(database: Database, key_ids: Sequence[str], now: datetime) -> Mapping[str, KeyUsage]:
    """Return what each of ``key_ids`` was charged ever and in the UTC day, week (from Monday) and month of ``now``."""
    today = now.astimezone(UTC).date()
    week = today - timedelta(days=today.weekday())
    used = dict.fromkeys(key_ids, KeyUsage())
    wanted = sorted(used)
    charge = col(UsageDay.charge_nano)
    day = col(UsageDay.day)

    sums = [func.sum(case((day >= _number(start), charge), else_=0)) for start in (today, week, today.replace(day=1))]
    async with reading(database) as session:
        for first in range(0, len(wanted), _MOST_IDS):
            query = (
                select(UsageDay.key_id, func.sum(charge), *sums)
                .where(col(UsageDay.key_id).in_(wanted[first : first + _MOST_IDS]))
                .group_by(col(UsageDay.key_id))
            )
            for key_id, *amounts in await session.execute(query):
                total, daily, weekly, monthly = map(int, amounts)
                used[key_id] = KeyUsage(total=total, day=daily, week=weekly, month=monthly)
    return used
