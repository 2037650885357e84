"""Leases: what this host may spend of each budget, written to the ledger database in one transaction.

A host is lent no more than the limit less what the ledger says was spent and less the leases of all hosts, its own
included; units of work that write run one after the other on all hosts (``gateway.db.engine``), so two hosts cannot be
lent the same amount. A *slice* is an eighth of what there is, so the nearer the limit, the smaller: what one host holds
and does not use keeps others from little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access.budgets import budget_of, spent, wall_clock_us
from gateway.access.escrow import Pool, PoolKey
from gateway.db.engine import Database
from gateway.db.tables.budget import BudgetLeaseRow, BudgetRow
from gateway.db.tables.lifetime import CLOCK, Lifetime
from gateway.db.unit_of_work import reading, writing
from gateway.telemetry import logs

SLICE: Final = 8
"""A slice is this part of what there is."""
OLD_DAYS: Final = 40
"""A window that began this long ago is over, whichever it is; only those without end are not."""

AFFIRM_S: Final = 10.0
"""Seconds between two looks of a host at what is written of its leases, by which others see that it lives."""
UNKNOWN: Final = -1
"""Amount of a lease of which nobody knows whether it was written."""

_log: Final = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pool needs.

    Attributes:
        lease: what the host knows it must have leased.
        need: what is to be lent on top, at least; 0 for nothing.
        least: what will do if ``need`` is not there; 0 when what is leased will do.
    """

    lease: int
    need: int = 0
    least: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pool stands after a transaction; amounts in nano-USD.

    Attributes:
        limit: of the budget.
        spent: as the ledger has it.
        others: leased to other hosts.
        lent: lent to this host just now.
        left: what could still be lent.
    """

    limit: int
    spent: int
    others: int
    lent: int
    left: int


class Leases:
    """The leases of one host.

    Args:
        database: of the ledger.
        host: id of this host's state folder.
        now_us: wall clock, microseconds since 1970.
    """

    __slots__ = ("_database", "_host", "_links", "_look_at", "_now_us")

    def __init__(self, database: Database, host: str, *, now_us: Callable[[], int] = wall_clock_us) -> None:
        self._database = database
        self._host = host
        self._now_us = now_us
        self._links = 0
        self._look_at = 0.0

    async def look(self, written: Mapping[PoolKey, int], now: float) -> Mapping[PoolKey, int] | None:
        """Say that this host lives and return what it has leased as the database has it; None when it is not time.

        It is time every ``AFFIRM_S`` seconds, and when the server may have forgotten what it was told
        (``Database.links``). A database that only this host writes is not looked at.

        Args:
            written: what the host knows to be written, or ``UNKNOWN``.
            now: monotonic seconds.

        Raises:
            Unavailable: the database cannot be used now.
        """
        links = self._database.links
        known = {key: amount for key, amount in written.items() if amount}
        if not self._database.partitioned or (links == self._links and (not known or now < self._look_at)):
            return None
        row = BudgetLeaseRow
        async with writing(self._database) as session:
            mine = update(row).where(col(row.host) == self._host).values(updated_at=self._now_us())
            found = {
                (budget_id, day): amount
                for budget_id, day, amount in await session.execute(
                    mine.returning(col(row.budget_id), col(row.window_day), col(row.amount))
                )
            }
        same = links == self._links == self._database.links
        strange = {key for key in known.keys() | found.keys() if known.get(key) not in (UNKNOWN, found.get(key))}
        if strange and same:
            _log.error("leases_changed_by_another", host=self._host, budgets=sorted(budget for budget, _ in strange))
        self._links, self._look_at = links, now + AFFIRM_S
        return found

    async def mine(self) -> Mapping[PoolKey, int]:
        """Return what this host has leased. Raises ``Unavailable``."""
        query = select(BudgetLeaseRow).where(col(BudgetLeaseRow.host) == self._host)
        async with reading(self._database) as session:
            return {(row.budget_id, row.window_day): row.amount for row in await session.scalars(query)}

    async def others(self) -> Mapping[PoolKey, int]:
        """Return what other hosts have leased. Raises ``Unavailable``."""
        row = BudgetLeaseRow
        query = (
            select(row.budget_id, row.window_day, func.sum(col(row.amount)))
            .where(col(row.host) != self._host)
            .group_by(col(row.budget_id), col(row.window_day))
        )
        async with reading(self._database) as session:
            return {(budget, day): int(amount) for budget, day, amount in await session.execute(query)}

    async def adjust(self, wishes: Mapping[PoolKey, Wish]) -> Mapping[PoolKey, Standing]:
        """Write what this host has leased and lend it more where it wishes so, in one transaction.

        Either every wish is granted at least its ``least``, or nothing is lent at all: a request needs all of them.

        Returns:
            Where each pool stands; none for a budget that is gone, of which nothing is lent.

        Raises:
            Unavailable: the database cannot be used now; whether anything was written is unknown.
        """
        async with writing(self._database) as session:
            found = {key: await self._standing(session, key, wish) for key, wish in sorted(wishes.items())}
            before = {key: standing for key, standing in found.items() if standing is not None}
            lent = slices_of({key: standing.left for key, standing in before.items()}, wishes)
            for key, wish in wishes.items():
                await self._write(session, key, wish.lease + lent.get(key, 0))
            return {
                key: replace(standing, lent=lent[key], left=standing.left - lent[key])
                for key, standing in before.items()
            }

    async def forget(self, keys: Sequence[PoolKey], day: int) -> None:
        """Remove these leases of ours, and those of any host on windows that are long over.

        What other hosts hold does not go by this host's clock alone, which may be wrong: windows count as over by the
        earlier of its day and the last one that was believed over this database (``gateway.metering.retention``).

        Args:
            keys: pools of ours that are over.
            day: the UTC day of now, counted from 1970.

        Raises:
            Unavailable: the database cannot be used now.
        """
        row = BudgetLeaseRow
        async with writing(self._database) as session:
            for key in keys:
                await self._write(session, key, 0)
            believed = await session.scalar(select(Lifetime.first_day).where(col(Lifetime.subject) == CLOCK))
            before = min(day, believed or 0) - OLD_DAYS
            # The day 0 is that of windows without end.
            await session.execute(delete(row).where(col(row.window_day) < before, col(row.window_day) > 0))

    async def _standing(self, session: AsyncSession, key: PoolKey, wish: Wish) -> Standing | None:
        """Return where a pool stands before anything is lent, or None when its budget is gone."""
        row = await session.get(BudgetRow, key[0])
        if row is None:
            return None
        used = await spent(session, budget_of(row), key[1])
        lease = BudgetLeaseRow
        query = select(func.sum(col(lease.amount))).where(
            col(lease.budget_id) == key[0], col(lease.window_day) == key[1], col(lease.host) != self._host
        )
        others = int(await session.scalar(query) or 0)
        return Standing(row.limit_nano, used, others, 0, row.limit_nano - used - others - wish.lease)

    async def _write(self, session: AsyncSession, key: PoolKey, amount: int) -> None:
        row = await session.get(BudgetLeaseRow, (*key, self._host))
        if amount <= 0:
            if row is not None:
                await session.delete(row)
        elif row is None:
            now = self._now_us()
            session.add(
                BudgetLeaseRow(budget_id=key[0], window_day=key[1], host=self._host, amount=amount, updated_at=now)
            )
        elif row.amount != amount:
            row.amount, row.updated_at = amount, self._now_us()


def wish_of(pool: Pool, amount: int, least: int) -> Wish:
    """Return what ``pool`` wishes for a request that may cost ``amount`` and would do with ``least``."""
    need = max(0, amount - pool.free)
    return Wish(pool.lease, need, min(need, max(0, least - pool.free)))


def slices_of(left: Mapping[PoolKey, int], wishes: Mapping[PoolKey, Wish]) -> Mapping[PoolKey, int]:
    """Return what is lent of each that is ``left``: to every wish what will do, or nothing to any."""
    lent = {key: slice_of(each, wishes[key]) for key, each in left.items()}
    # A wish for more than there is keeps the others from nothing, as long as what is leased will do.
    if all(lent[key] >= wishes[key].least for key in lent):
        return lent
    return dict.fromkeys(lent, 0)


def slice_of(left: int, wish: Wish) -> int:
    """Return how much of ``left`` is lent for ``wish``: what it needs, or more while there is plenty."""
    if wish.need <= 0 or left < wish.least or left <= 0:
        return 0
    return min(left, max(wish.need, left // SLICE))
