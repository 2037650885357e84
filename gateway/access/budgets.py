"""Budgets in the database: setting, listing and deleting them, and what was spent of them.

Every change is one transaction. A bad value is ``BadRequest``, an unknown id ``NotFound``, a database that is away
``Unavailable``. What was spent is the sum of the daily rollups, which are written in one transaction with the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import structs
from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access.spending import charged
from gateway.db.engine import Database
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.tables.budget import BudgetAlertRow, BudgetLeaseRow, BudgetRow
from gateway.db.tables.ledger import UsageDay
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.budgets import GUARDRAIL, MEMBER, Budget, Lease, NewBudget, Scope, Window
from gateway.types.errors import BadRequest, Conflict, NotFound
from gateway.types.money import MAX_AMOUNT

LARGEST: Final = MAX_AMOUNT // 4
"""Nano-USD; sums of limits and leases stay within 64 bits."""
MOST_ALERTS: Final = 10
MOST_PERCENT: Final = 1_000
LIVING_S: Final = 30
"""Seconds for which a host that has written its leases counts as living."""
_LONGEST_MODEL: Final = 200


def wall_clock_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1_000


class BudgetStore:
    """The repository of budgets.

    Args:
        database: where they are kept; migrated already.
        now_us: wall clock, microseconds since 1970.
    """

    __slots__ = ("_database", "_now_us")

    def __init__(self, database: Database, *, now_us: Callable[[], int] = wall_clock_us) -> None:
        self._database = database
        self._now_us = now_us

    async def all(self) -> Sequence[Budget]:
        """Return every budget."""
        async with reading(self._database) as session:
            joined = select(BudgetRow, KeyRow.revoked_at).outerjoin(KeyRow, col(KeyRow.key_id) == BudgetRow.key_id)
            found = (await session.execute(joined)).all()
            rows = [row for row, _ in found]
            keys: dict[tuple[str, str], tuple[str, ...]] = {}
            if any(row.key_id.startswith(MEMBER) for row in rows):
                query = select(KeyRow.key_id, KeyRow.team, KeyRow.creator).where(col(KeyRow.creator) != "")
                for key_id, team, creator in await session.execute(query.order_by(col(KeyRow.key_id))):
                    keys[team, MEMBER + creator] = (*keys.get((team, MEMBER + creator), ()), key_id)
            return tuple(
                budget_of(row, keys.get((row.team, row.key_id), ()), ended=revoked is not None)
                for row, revoked in found
            )

    async def set(self, new: NewBudget) -> Budget:
        """Set a budget; the one with its scope and window is replaced. Raises ``BadRequest``."""
        checked(new)
        async with writing(self._database) as session:
            await _must_exist(session, new.scope)
            return budget_of(await self._put(session, new))

    async def delete(self, budget_id: str) -> None:
        """Delete a budget with its alerts. Raises ``NotFound``.

        Leases stay until their hosts have given them back: one made anew at once must not lend the same twice.
        """
        async with writing(self._database) as session:
            row = await session.get(BudgetRow, budget_id)
            if row is None:
                raise NotFound("there is no such budget", param="id")
            if row.source.startswith(GUARDRAIL):
                raise BadRequest("this budget is made by a guardrail: change the limit there", param="id")
            await _remove(session, [row])

    async def follow_file(self, said: Sequence[NewBudget]) -> None:
        """Make the budgets that the configuration file ``said``, and remove those it said before and says no more.

        One that was changed through the API since belongs to the API from then on.
        """
        for new in said:
            checked(new)
        wanted = {new.budget_id: new for new in said}
        async with writing(self._database) as session:
            rows = {row.budget_id: row for row in await session.scalars(select(BudgetRow))}
            gone = [row for key, row in rows.items() if row.source == "file" and key not in wanted]
            for key, new in wanted.items():
                row = rows.get(key)
                if row is None or (row.source == "file" and not _says(row, new)):
                    await self._put(session, new)
            if gone:
                await _remove(session, gone)

    async def leases(self) -> Sequence[Lease]:
        """Return what hosts hold, by host."""
        query = select(BudgetLeaseRow).order_by(
            col(BudgetLeaseRow.host), col(BudgetLeaseRow.budget_id), col(BudgetLeaseRow.window_day)
        )
        async with reading(self._database) as session:
            return tuple(
                Lease(row.budget_id, row.window_day, row.host, row.amount, row.updated_at)
                for row in await session.scalars(query)
            )

    async def release(self, host: str) -> int:
        """Remove all leases of ``host``, which is gone for good, and return how much they came to, in nano-USD.

        Raises:
            NotFound: it holds none.
            Conflict: it was there a moment ago, and would spend what is lent to others then.
        """
        async with writing(self._database) as session:
            rows = (await session.scalars(select(BudgetLeaseRow).where(col(BudgetLeaseRow.host) == host))).all()
            if not rows:
                raise NotFound("no host of this id holds a lease", param="host")
            away_s = (self._now_us() - max(row.updated_at for row in rows)) / 1e6
            if abs(away_s) < LIVING_S:
                raise Conflict(
                    f"the host {host} wrote its leases {max(0, round(away_s))} seconds ago, so it may still spend them:"
                    f" stop it for good, and ask again {LIVING_S} seconds later",
                    retry_after=LIVING_S,
                )
            for row in rows:
                await session.delete(row)
            return sum(row.amount for row in rows)

    async def spent(self, budgets: Iterable[tuple[Budget, int]]) -> Sequence[int]:
        """Return what was charged, as the ledger has it, within the window of each budget that begins on its day."""
        wanted = list(budgets)
        async with reading(self._database) as session:
            known = await charged(session, wanted)
            return [known[each] if each in known else await spent(session, *each) for each in wanted]

    async def _put(self, session: AsyncSession, new: NewBudget) -> BudgetRow:
        now = self._now_us()
        row = await session.get(BudgetRow, new.budget_id)
        before = None if row is None else budget_of(row)
        if row is None:
            row = BudgetRow(
                budget_id=new.budget_id,
                key_id=new.scope.key_id,
                team=new.scope.team,
                model=new.scope.model,
                period=new.window.value,
                limit_nano=0,
                hard=True,
                alerts=[],
                source="",
                created_at=now,
                updated_at=now,
            )
            session.add(row)
        elif new.source == "key":
            new = structs.replace(new, alerts=tuple(row.alerts))  # a key's fields say nothing of them
        elif new.hard and row.source == "key":
            new = structs.replace(new, source="key")  # it is the limit of the key, whoever changes it
        row.limit_nano, row.hard, row.alerts = new.limit_nano, new.hard, list(new.alerts)
        row.source, row.updated_at = new.source, now
        await _note(session, before, budget_of(row))
        return row


def checked(new: NewBudget) -> NewBudget:
    """Return ``new`` if it can be a budget. Raises ``BadRequest`` naming the field and the mend."""
    scope = new.scope
    if scope == Scope():
        raise BadRequest("a budget is for a key, a team or a model, or for several of these: name one", param="team")
    if len(scope.model) > _LONGEST_MODEL or not all(part.isprintable() for part in scope_parts(scope)):
        raise BadRequest("a model id has up to 200 printable characters", param="model")
    if not 0 <= new.limit_nano <= LARGEST:
        raise BadRequest("a limit is from 0 to 2 billion USD", param="limit")
    alerts = new.alerts
    if len(alerts) > MOST_ALERTS or len(set(alerts)) != len(alerts):
        raise BadRequest(f"alerts are up to {MOST_ALERTS} different percentages", param="alerts")
    if any(not 1 <= percent <= MOST_PERCENT for percent in alerts):
        raise BadRequest(f"an alert is a whole percentage from 1 to {MOST_PERCENT}", param="alerts")
    if new.source not in ("api", "key", "file") and not new.of_guardrail:
        raise BadRequest("a budget comes from the API, from a key, from a guardrail or from the file", param="source")
    return new


def scope_parts(scope: Scope) -> tuple[str, str, str]:
    """Return the parts of a scope."""
    return scope.key_id, scope.team, scope.model


async def spent(session: AsyncSession, budget: Budget, window_day: int) -> int:
    """Return what was charged within the window of ``budget`` that begins on ``window_day``, in nano-USD."""
    query = select(func.sum(col(UsageDay.charge_nano)))
    key_id = budget.scope.key_id
    if key_id.startswith(MEMBER):
        mine = (col(KeyRow.team) == budget.scope.team, col(KeyRow.creator) == key_id.removeprefix(MEMBER))
        query, key_id = query.where(col(UsageDay.key_id).in_(select(KeyRow.key_id).where(*mine))), ""
    columns: tuple[tuple[Any, str], ...] = (
        (col(UsageDay.key_id), key_id),
        (col(UsageDay.team), budget.scope.team),
        (col(UsageDay.model), budget.scope.model),
    )
    for column, value in columns:
        if value:
            query = query.where(column == value)
    end = budget.window.end(window_day)
    if end is not None:
        query = query.where(col(UsageDay.day) >= window_day, col(UsageDay.day) < end)
    return int(await session.scalar(query) or 0)


def budget_of(row: BudgetRow, keys: tuple[str, ...] = (), *, ended: bool = False) -> Budget:
    """Return ``row`` as the value the rest of the gateway sees; ``keys`` are those of the member that it is for."""
    return Budget(
        row.budget_id,
        Scope(row.key_id, row.team, row.model),
        Window(row.period),
        row.limit_nano,
        row.hard,
        tuple(row.alerts),
        row.source,
        row.created_at,
        row.updated_at,
        keys,
        ended,
    )


def _says(row: BudgetRow, new: NewBudget) -> bool:
    return (row.limit_nano, row.hard, tuple(row.alerts)) == (new.limit_nano, new.hard, new.alerts)


async def _must_exist(session: AsyncSession, scope: Scope) -> None:
    """Refuse a budget for a key or a team that there is not; models may come later."""
    if scope.team and await session.get(TeamRow, scope.team) is None:
        raise BadRequest(f"there is no team {scope.team!r}: make it first", param="team")
    if scope.key_id:
        key = await session.get(KeyRow, scope.key_id)
        if key is None or key.revoked_at is not None:
            raise BadRequest("there is no such key", param="key")
        if scope.team not in ("", key.team):
            raise BadRequest(f"the key belongs to the team {key.team!r}", param="team")


async def _note(session: AsyncSession, before: Budget | None, after: Budget | None) -> None:
    known = after or before
    assert known is not None, "a change is of something"
    team = known.scope.team
    if not team and known.scope.key_id:
        key = await session.get(KeyRow, known.scope.key_id)
        team = key.team if key is not None else ""
    await note(session, "budget", known.budget_id, before, after, team=team)


async def _remove(session: AsyncSession, rows: Sequence[BudgetRow]) -> None:
    budget_ids = [row.budget_id for row in rows]
    for row in rows:
        await _note(session, budget_of(row), None)
    tables: tuple[type[Any], ...] = (BudgetRow, BudgetAlertRow)
    for table in tables:
        await session.execute(delete(table).where(col(table.budget_id).in_(budget_ids)))
