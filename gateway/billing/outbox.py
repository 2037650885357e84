"""The outbox: what sinks are to be told, written in the transaction that made it true.

An item is delivered at least once: it is tried until the sink took it, with growing pauses, and a sink that sees one
twice knows it by its id. A keeper that is at an item has leased it for a while, so that another one waits; when it
dies, the lease ends. A closed period is written without an address, because whoever closes may not know the sinks; the
first keeper that does addresses it, in one transaction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from gateway.billing.methods import OutboxItem
from gateway.db.engine import Database
from gateway.db.tables.billing import OutboxRow
from gateway.db.unit_of_work import reading, writing
from gateway.types.errors import NotFound

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
FAILED: Final = "failed"
LEASE_US: Final = 900 * 1_000_000
"""How long a keeper may be at an item."""
FIRST_PAUSE_S: Final = 15.0
LONGEST_PAUSE_S: Final = 3_600.0
_LONGEST_ERROR: Final = 500


def announce(session: AsyncSession, period: str, document: dict[str, Any], now_us: int) -> None:
    """Write that a period was closed, in the transaction that closes it."""
    _put(session, f"close-{period}", "", document, now_us)


def order(session: AsyncSession, item: str, sink: str, document: dict[str, Any], now_us: int) -> None:
    """Write that ``document`` is to go to ``sink``, in the transaction that orders it."""
    _put(session, item, sink, document, now_us)


def _put(session: AsyncSession, item: str, sink: str, document: dict[str, Any], now_us: int) -> None:
    payload = msgspec.json.encode(document, order="deterministic").decode()
    row = OutboxRow(item=item, sink=sink, payload=payload, state=PENDING, created_us=now_us, next_us=now_us)
    session.add(row)


class Outbox:
    """The outbox in a database. Errors are those of a unit of work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def address(
        self, orders: Callable[[dict[str, Any]], Iterable[tuple[str, str, dict[str, Any]]]], now_us: int
    ) -> None:
        """Turn what has no address yet into items.

        Args:
            orders: yields sink, name and document of each item that is made of a document.
            now_us: wall clock, microseconds since 1970.
        """
        query = select(OutboxRow).where(col(OutboxRow.sink) == "", col(OutboxRow.state) == PENDING)
        async with reading(self._database) as session:
            if (await session.scalars(query.limit(1))).first() is None:
                return
        async with writing(self._database) as session:
            for row in list(await session.scalars(query)):
                for sink, name, document in orders(msgspec.json.decode(row.payload)):
                    order(session, f"{row.item}-{sink}-{name}", sink, document, now_us)
                row.state, row.done_us = DELIVERED, now_us

    async def lease(self, sinks: Sequence[str], now_us: int) -> OutboxItem | None:
        """Return an item that is due for one of ``sinks``, leased, or None."""
        due = (
            select(OutboxRow)
            .where(col(OutboxRow.state) == PENDING, col(OutboxRow.sink).in_(sinks), col(OutboxRow.next_us) <= now_us)
            .order_by(col(OutboxRow.next_us), col(OutboxRow.item))
            .limit(1)
        )
        async with reading(self._database) as session:
            if (await session.scalars(due)).first() is None:
                return None
        async with writing(self._database) as session:
            row = (await session.scalars(due)).first()
            if row is None:
                return None
            row.attempts += 1
            row.next_us = now_us + LEASE_US
            return _item(row)

    async def delivered(self, item: str, now_us: int) -> None:
        """Say that a sink took an item."""
        await self._set(item, state=DELIVERED, done_us=now_us, error="")

    async def postpone(self, item: OutboxItem, error: str, now_us: int) -> None:
        """Say that a sink did not take an item now; it is tried again after a growing pause."""
        pause = min(FIRST_PAUSE_S * 2 ** min(item.attempts - 1, 20), LONGEST_PAUSE_S)
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
        await self._set(item.item, next_us=now_us + int(pause * 1e6), error=error[:_LONGEST_ERROR])

    async def fail(self, item: str, error: str, now_us: int) -> None:
        """Say that a sink will never take an item as it is."""
        await self._set(item, state=FAILED, done_us=now_us, error=error[:_LONGEST_ERROR])

    async def retry(self, item: str, now_us: int) -> OutboxItem:
        """Have an item tried again at once, whatever became of it.

        Raises:
            NotFound: there is no such item.
        """
        async with writing(self._database) as session:
            row = await session.get(OutboxRow, item)
            if row is None or not row.sink:
                raise NotFound(f"the outbox has no item {item[:100]!r}")
            row.state, row.next_us, row.done_us = PENDING, now_us, None
            return _item(row)

    async def items(self, limit: int = 1_000) -> tuple[OutboxItem, ...]:
        """Return the newest items, newest first, without their payloads."""
        query = select(OutboxRow).order_by(col(OutboxRow.created_us).desc(), col(OutboxRow.item)).limit(limit)
        async with reading(self._database) as session:
            found = [_item(row) for row in await session.scalars(query)]
        return tuple(msgspec.structs.replace(each, payload="") for each in found)

    async def counts(self) -> dict[tuple[str, ...], float]:
        """Return how many items wait and how many were given up, by state."""
        query = select(col(OutboxRow.state), func.count()).where(col(OutboxRow.state) != DELIVERED)
        async with reading(self._database) as session:
            rows = await session.execute(query.group_by(col(OutboxRow.state)))
            found = {str(state): float(count) for state, count in rows}
        return {(state,): found.get(state, 0.0) for state in (PENDING, FAILED)}

    async def _set(self, item: str, **values: Any) -> None:
        async with writing(self._database) as session:
            await session.execute(update(OutboxRow).where(col(OutboxRow.item) == item).values(**values))


def _item(row: OutboxRow) -> OutboxItem:
    return OutboxItem(
        row.item, row.sink, row.state, row.attempts, row.created_us, row.next_us, row.done_us, row.error, row.payload
    )
