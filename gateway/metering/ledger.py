"""The ledger: writing rows exactly once, and reading them.

A row is known by (day, request id, attempt, kind). Writing one that is there already changes nothing and is reported,
so that whatever is derived from the ledger counts each row once, however often a batch is delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select

from gateway.db.engine import Database
from gateway.db.tables.ledger import LedgerRow
from gateway.db.unit_of_work import reading
from gateway.metering.entry import COLUMNS, CORE_COLUMNS, Entry, RowKey
from gateway.metering.record import Price, RowKind
from gateway.metering.statement import Row, execute_rows, fetch_matching
from gateway.types.generation import AttemptRecord, GenerationRecord
from gateway.types.ids import day, unix_ms
from gateway.types.tokens import Usage

_INSERT: Final = f"INSERT INTO ledger ({', '.join(COLUMNS)})"
_INSERT_CORE: Final = f"INSERT INTO ledger ({', '.join(CORE_COLUMNS)})"
_KEY: Final = ("day", "request_id", "attempt", "kind")


async def insert(connection: AsyncConnection, new: Sequence[Entry]) -> Sequence[Entry]:
    """Insert those of ``new`` that the ledger does not hold yet, and return exactly these.

    Args:
        connection: in a transaction that no other writer can overtake.
        new: may hold the same row twice; the first one counts.
    """
    savepoint = await connection.begin_nested()
    if await _insert(connection, new, "ON CONFLICT DO NOTHING") == len(new):
        await savepoint.commit()
        return new
    # Some were there before. The driver cannot say which, so look and insert the others alone.
    await savepoint.rollback()
    seen = await present(connection, [entry.key for entry in new])
    fresh: list[Entry] = []
    for entry in new:
        if entry.key not in seen:
            seen.add(entry.key)
            fresh.append(entry)
    await _insert(connection, fresh, "")
    return fresh


async def _insert(connection: AsyncConnection, new: Sequence[Entry], after: str) -> int:
    """Insert rows, those that need few columns with few; return how many were inserted."""
    core = [entry.columns for entry in new if entry.core]
    full = [entry.columns for entry in new if not entry.core]
    inserted = await execute_rows(connection, _INSERT_CORE, after, core)
    return inserted + await execute_rows(connection, _INSERT, after, full)


async def present(connection: AsyncConnection, keys: Sequence[RowKey]) -> set[Row]:
    """Return those of ``keys`` that the ledger holds."""
    return set(await fetch_matching(connection, "ledger", _KEY, (), sorted(set(keys))))


async def insert_prices(connection: AsyncConnection, prices: Iterable[Price]) -> None:
    """Remember rates by their ids; ids that are known stay as they are."""
    await execute_rows(
        connection,
        "INSERT INTO price (price_id, prompt, completion, cache_read, cache_write, reasoning, audio_prompt, "
        "audio_completion, image_prompt, image_completion, request)",
        "ON CONFLICT DO NOTHING",
        [(price.price_id, *_values(price.rates)) for price in prices],
    )


class Ledger:
    """Reads the ledger in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def generation(self, request_id: bytes) -> GenerationRecord | None:
        """Return a request with all its attempts, or None when the ledger does not hold it.

        Raises:
            Unavailable: the database cannot be used now.
        """
        query = select(LedgerRow).where(col(LedgerRow.day) == day(request_id), col(LedgerRow.request_id) == request_id)
        async with reading(self._database) as session:
            rows = (await session.scalars(query)).all()
        records = _generations(rows)
        return records[0] if records else None

    async def recent(self, limit: int) -> Sequence[GenerationRecord]:
        """Return the newest ``limit`` requests, newest first.

        Raises:
            Unavailable: the database cannot be used now.
        """
        newest = (
            select(LedgerRow.day, LedgerRow.request_id)
            .distinct()
            .order_by(col(LedgerRow.day).desc(), col(LedgerRow.request_id).desc())
            .limit(limit)
            .subquery()
        )
        query = select(LedgerRow).join(
            newest,
            (col(LedgerRow.day) == newest.c.day) & (col(LedgerRow.request_id) == newest.c.request_id),
        )
        async with reading(self._database) as session:
            rows = (await session.scalars(query)).all()
        return _generations(rows)


def _generations(rows: Iterable[LedgerRow]) -> list[GenerationRecord]:
    """Return ledger rows as requests, newest first; a correction is added to the attempt it corrects."""
    requests: dict[bytes, dict[int, list[LedgerRow]]] = {}
    for row in sorted(rows, key=lambda row: (row.attempt, row.kind != RowKind.USAGE)):
        requests.setdefault(row.request_id, {}).setdefault(row.attempt, []).append(row)
    return [
        GenerationRecord(
            request_id,
            unix_ms(request_id) * 1000,
            tuple(_attempt(rows) for _, rows in sorted(attempts.items())),
        )
        for request_id, attempts in sorted(requests.items(), reverse=True)
    ]


def _attempt(rows: Sequence[LedgerRow]) -> AttemptRecord:
    """Return an attempt from its usage row and its corrections."""
    row = rows[0]
    return AttemptRecord(
        attempt=row.attempt,
        status=row.status,
        team=row.team,
        key_id=row.key_id,
        model=row.model,
        endpoint=row.endpoint,
        backend=row.backend,
        provider=row.provider,
        app=row.app,
        tier=row.tier,
        operation=row.operation,
        requested_model=row.requested_model,
        upstream_model=row.upstream_model,
        user=row.end_user,
        streamed=row.streamed,
        finish_reason=row.finish_reason,
        http_status=row.http_status,
        usage=Usage(*(sum(getattr(each, f"tokens_{name}") for each in rows) for name in Usage.__struct_fields__)),
        source=row.source,
        charge_nano=sum(each.charge_nano for each in rows),
        cost_nano=sum(each.cost_nano for each in rows),
        ttft_us=row.ttft_us,
        duration_us=row.duration_us,
        generation_us=row.generation_us,
        upstream_id=row.upstream_id,
        error=row.error,
    )


def _values(record: Any) -> list[Any]:
    """Return the fields of a struct in order."""
    return [getattr(record, name) for name in record.__struct_fields__]
