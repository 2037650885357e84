"""The ledger: writing rows exactly once, and reading them.

A row is known by (day, request id, attempt, kind). Writing one that is there already changes nothing and is reported,
so that whatever is derived from the ledger counts each row once, however often a batch is delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col, select

from gateway.db.bulk import Bulk, Row
from gateway.db.engine import Database
from gateway.db.tables.ledger import LabelSet, LedgerRow, PriceRow
from gateway.db.unit_of_work import reading
from gateway.metering.entry import KEY, Entries, RowKey
from gateway.metering.labels import COLUMNS as LABEL_COLUMNS
from gateway.metering.labels import Labels
from gateway.metering.record import Price, RowKind
from gateway.metering.retention import Expired, ask_first_day
from gateway.pricing.charge import charge
from gateway.types.generation import AttemptRecord, GenerationRecord
from gateway.types.ids import day, unix_ms
from gateway.types.money import LongContext, Rates, ServiceTier
from gateway.types.tokens import Usage
from gateway.types.upstream_keys import OWN_KEY

Pair = tuple[LedgerRow, LabelSet]
"""A row and its labels."""

TABLE: Final = "ledger"
_PRICE: Final = tuple(column.name for column in SQLModel.metadata.tables[PriceRow.__tablename__].columns)
_ROWS: Final = select(LedgerRow, LabelSet).join(LabelSet, col(LabelSet.label_id) == col(LedgerRow.label_id))
_ATTEMPT_LABELS: Final = tuple(name for name in LABEL_COLUMNS if name in AttemptRecord.__struct_fields__)


async def insert(connection: Bulk, new: Sequence[Entries]) -> Sequence[Entries]:
    """Insert those rows of ``new`` that the ledger does not hold yet, and return exactly these.

    Args:
        connection: in a transaction that no other writer can overtake.
        new: may hold the same row twice; the first one counts.

    Raises:
        Expired: some are of days that the ledger no longer has; the transaction must not be committed.
    """
    if not new:
        return new
    kept = ask_first_day(connection)
    first = min(some.hour for some in new) // 24
    if connection.FOR_SHARE:
        # From here on no day goes: where others write, its piece could be dropped between the look for it and the rows.
        _still_there(first, await kept)
    await connection.make_room(TABLE, {some.hour // 24 for some in new})
    by_columns: dict[tuple[str, ...], list[Row]] = {}
    for some in new:
        by_columns.setdefault(some.columns, []).extend(some.rows)
    made = await connection.insert_new(TABLE, KEY, list(by_columns.items()))
    if not connection.FOR_SHARE:
        _still_there(first, await kept)
    if made is None:
        return new
    fresh: list[Entries] = []
    # In the order in which the rows were sent, because of rows with one key the first one counts.
    for columns in by_columns:
        for some in (each for each in new if each.columns == columns):
            wanted = []
            for key in some.keys:
                wanted.append(key in made)
                made.discard(key)
            fresh.append(some.only(wanted))
    return fresh


def _still_there(day: int, kept: list[Row]) -> None:
    """Raise ``Expired`` when the ledger no longer has ``day``."""
    for (first,) in kept:
        if day < first:
            raise Expired(first)


async def insert_labels(connection: Bulk, labels: Iterable[Labels]) -> None:
    """Remember label sets by their ids; ids that are known stay as they are."""
    rows = sorted((each.columns for each in labels), key=itemgetter(0))
    await connection.post("label_set", LABEL_COLUMNS, rows, "ON CONFLICT DO NOTHING")


async def present(connection: Bulk, keys: Sequence[RowKey]) -> set[Row]:
    """Return those of ``keys`` that the ledger holds."""
    return set(await connection.matching(TABLE, KEY, (), sorted(set(keys))))


async def insert_prices(connection: Bulk, prices: Iterable[Price]) -> None:
    """Remember rates by their ids; ids that are known stay as they are."""
    rates = {price.price_id: price.rates for price in prices}
    rows = [(each, *(_stored(getattr(rates[each], name)) for name in _PRICE[1:])) for each in sorted(rates)]
    await connection.post("price", _PRICE, rows, "ON CONFLICT DO NOTHING")


def _stored(value: Any) -> Any:
    """Return a field of ``Rates`` as its column holds it: tiers as JSON text."""
    if isinstance(value, tuple):
        return msgspec.json.encode(value).decode() if value else ""
    return value


class Ledger:
    """Reads the ledger in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def generation(self, request_id: bytes) -> GenerationRecord | None:
        """Return a request with all its attempts, or None when the ledger does not hold it.

        Raises:
            Unavailable: the database cannot be used now.
        """
        query = _ROWS.where(col(LedgerRow.day) == day(request_id), col(LedgerRow.request_id) == request_id)
        async with reading(self._database) as session:
            rows = (await session.execute(query)).all()
            saved = await _saved(session, rows)
        records = _generations(rows)
        if not records:
            return None
        attempts = [msgspec.structs.replace(each, cache_nano=saved.get(each.attempt)) for each in records[0].attempts]
        return msgspec.structs.replace(records[0], attempts=tuple(attempts))

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
        query = _ROWS.join(
            newest,
            (col(LedgerRow.day) == newest.c.day) & (col(LedgerRow.request_id) == newest.c.request_id),
        )
        async with reading(self._database) as session:
            rows = (await session.execute(query)).all()
        return _generations(rows)


def stored_rates(row: PriceRow) -> Rates:
    """Return rates as they were remembered."""
    names = [name for name in Rates.__struct_fields__ if name not in {"tiers", "service_tiers"}]
    tiers = msgspec.json.decode(row.tiers, type=tuple[LongContext, ...]) if row.tiers else ()
    service = msgspec.json.decode(row.service_tiers, type=tuple[ServiceTier, ...]) if row.service_tiers else ()
    return Rates(**{name: getattr(row, name) for name in names}, tiers=tiers, service_tiers=service)


async def _saved(session: AsyncSession, rows: Iterable[Any]) -> dict[int, int]:
    """Return by attempt what its charge for cached tokens is below that for as many plain ones."""
    cached = [
        (row, labels)
        for row, labels in rows
        if row.kind == RowKind.USAGE and row.charge_nano and (row.tokens_cache_read or row.tokens_cache_write)
    ]
    found: dict[int, int] = {}
    for row, labels in cached:
        price = await session.get(PriceRow, labels.price_id)
        if price is not None:
            parts = _usage(row).split()
            plain = Usage(parts.cache_read + parts.cache_write + parts.cache_write_1h)
            full = charge(plain, stored_rates(price), labels.tier, context=row.tokens_prompt)
            found[row.attempt] = full.prompt - row.charge_cache_read - row.charge_cache_write
    return found


def _usage(row: LedgerRow) -> Usage:
    return Usage(*(getattr(row, f"tokens_{name}") for name in Usage.__struct_fields__))


def _generations(rows: Iterable[Any]) -> list[GenerationRecord]:
    """Return ledger rows and their labels as requests, newest first; a correction is added to what it corrects."""
    requests: dict[bytes, dict[int, list[Pair]]] = {}
    for row, labels in sorted(rows, key=lambda pair: (pair[0].attempt, pair[0].kind != RowKind.USAGE)):
        requests.setdefault(row.request_id, {}).setdefault(row.attempt, []).append((row, labels))
    return [
        GenerationRecord(
            request_id,
            unix_ms(request_id) * 1000,
            tuple(_attempt(pairs) for _, pairs in sorted(attempts.items())),
        )
        for request_id, attempts in sorted(requests.items(), reverse=True)
    ]


def _attempt(pairs: Sequence[Pair]) -> AttemptRecord:
    """Return an attempt from its usage row and its corrections."""
    row, labels = pairs[0]
    rows = [each for each, _ in pairs]
    return AttemptRecord(
        **{name: getattr(labels, name) for name in _ATTEMPT_LABELS},
        attempt=row.attempt,
        user=row.end_user,
        usage=Usage(*(sum(getattr(each, f"tokens_{name}") for each in rows) for name in Usage.__struct_fields__)),
        charge_nano=sum(each.charge_nano for each in rows),
        cost_nano=sum(each.cost_nano for each in rows),
        ttft_us=row.ttft_us,
        duration_us=row.duration_us,
        generation_us=row.generation_us,
        upstream_id=row.upstream_id,
        replayed=row.replayed,
        byok=labels.cost_id == OWN_KEY,
        discount_nano=sum(each.discount_nano or 0 for each in rows),
    )
