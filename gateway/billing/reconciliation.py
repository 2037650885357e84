"""Reconciliation: what a provider invoices beside the cost that the ledger recorded; the difference is a correction.

For each day and model of an invoice the recorded cost, earlier corrections included, is brought to what the invoice
says, by one ledger row of kind ``correction``: no tokens, nothing charged to anybody, the difference as cost (class
``request``, because it belongs to no kind of token). So the same file a second time changes nothing, and a mended
invoice changes what it mends. The row's id is made of provider, day, model and how many corrections there were before:
of two reconciliations at once one does it and the other sees it done. Rows and rollups are written in one transaction.

A model that the provider never served here is reported and not corrected, and so is recorded usage that the invoice
does not have. Usage that reaches the ledger after its day was reconciled counts on top: reconcile again.
A database that is away is ``Unavailable``.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from gateway.billing.invoice import InvoiceLine
from gateway.billing.methods import RECONCILE, Reconciled
from gateway.db.bulk import bulk
from gateway.db.engine import Database
from gateway.db.office import Office, Premises
from gateway.db.tables.ledger import LabelSet, LedgerRow, UsageDay
from gateway.db.unit_of_work import reading
from gateway.metering import ledger, rollups
from gateway.metering.entry import Entries
from gateway.metering.record import OWNER, Close, Dimensions, RowKind, Status, end_of
from gateway.types.charge import Charge
from gateway.types.errors import BadRequest

DAY_US: Final = 86_400_000_000
MOST_DAYS: Final = 366
_PROVIDER_ENDS: Final = re.compile(r"[/@]")


_Key = tuple[int, str]
"""Day and model."""


def open_office(premises: Premises) -> Office:
    """Return the office that reconciles invoices."""
    return Office(handlers={RECONCILE: Reconciler(premises.database).reconcile})


class Reconciler:
    """Compares invoices with the ledger in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reconcile(
        self, provider: str, lines: Sequence[InvoiceLine], digest: str, dry: bool
    ) -> tuple[Reconciled, ...]:
        """Return what an invoice of ``provider`` comes to; correct the ledger unless ``dry``."""
        if not lines:
            raise BadRequest("the invoice has no lines")
        first, last = min(line.day for line in lines), max(line.day for line in lines)
        if last - first >= MOST_DAYS or first < 0:
            raise BadRequest(f"the invoice spans over {MOST_DAYS} days, or days before 1970")
        async with reading(self._database) as session:
            named = await _names(session, provider)
            if not named:
                raise BadRequest(f"the ledger has nothing of a provider {provider[:64]!r}")
            recorded = await _recorded(session, provider, first, last)
            endpoints = await _endpoints(session, provider, first, last)
            counts = await _corrections(session, provider, first, last)
        invoiced = _invoiced(lines, named)
        found: list[Reconciled] = []
        corrections: list[tuple[int, Close]] = []
        for key in sorted(invoiced):
            line, (cost, tokens) = invoiced[key], recorded.get(key, (0, 0))
            outcome = "equal"
            if line.model not in named.values():
                outcome = "unknown"
            elif line.cost != cost:
                outcome = "differs"
                endpoint = endpoints.get(key, provider)
                row = _correction(provider, key, endpoint, line.cost - cost, counts.get(key, 0), digest)
                corrections.append((len(found), row))
            found.append(_reconciled(line, cost, tokens, outcome))
        if corrections and not dry:
            made = await self._write([row for _, row in corrections])
            for place, row in corrections:
                outcome = "corrected" if row.request_id in made else "overtaken"
                found[place] = msgspec.structs.replace(found[place], outcome=outcome)
        days = {line.day for line in lines}
        for key in sorted(recorded.keys() - invoiced.keys()):
            cost, tokens = recorded[key]
            if key[0] in days and (cost or tokens):
                found.append(_reconciled(InvoiceLine(*key, 0), cost, tokens, "not invoiced"))
        return tuple(found)

    async def _write(self, rows: Sequence[Close]) -> set[bytes]:
        """Write corrections to the ledger and the rollups; return the ids of those that were not there."""
        entries = Entries.of([end_of(row) for row in rows])
        labels = {each.label_id: each for some in entries for each in some.labels}
        async with bulk(self._database) as connection:
            await ledger.insert_labels(connection, labels.values())
            fresh = await ledger.insert(connection, entries)
            await rollups.post(connection, await rollups.tally(fresh))
        return {key[1] for some in fresh for key in some.keys}


def _invoiced(lines: Sequence[InvoiceLine], named: Mapping[str, str]) -> dict[_Key, InvoiceLine]:
    """Return the lines by day and our model; two names of one model are added."""
    found: dict[_Key, InvoiceLine] = {}
    for line in lines:
        model = named.get(line.model, line.model)
        before = found.get((line.day, model), InvoiceLine(line.day, model, 0, 0))
        counted = line.tokens is not None and before.tokens is not None
        tokens = (line.tokens or 0) + (before.tokens or 0) if counted else None
        found[line.day, model] = InvoiceLine(line.day, model, before.cost + line.cost, tokens)
    return found


def _reconciled(line: InvoiceLine, cost: int, tokens: int, outcome: str) -> Reconciled:
    return Reconciled(
        day=line.day,
        model=line.model,
        invoiced=None if outcome == "not invoiced" else line.cost,
        recorded=cost,
        invoiced_tokens=line.tokens,
        recorded_tokens=tokens,
        outcome=outcome,
    )


async def _names(session: AsyncSession, provider: str) -> dict[str, str]:
    """Return our model by each name that the provider may have for it; a name of two models is ours only."""
    query = select(col(LabelSet.model), col(LabelSet.upstream_model)).where(col(LabelSet.provider) == provider)
    named: dict[str, str] = {}
    own: set[str] = set()
    for model, upstream in (await session.execute(query.distinct())).all():
        own.add(model)
        if upstream and named.setdefault(upstream, model) != model:
            named[upstream] = ""
    return {name: model for name, model in named.items() if model} | {model: model for model in own}


async def _recorded(session: AsyncSession, provider: str, first: int, last: int) -> dict[_Key, tuple[int, int]]:
    """Return cost and tokens of the provider by day and model."""
    found: dict[_Key, tuple[int, int]] = {}
    for day, model, _, cost, tokens in await _by_endpoint(session, provider, first, last):
        before = found.get((day, model), (0, 0))
        found[day, model] = (before[0] + cost, before[1] + tokens)
    return found


async def _endpoints(session: AsyncSession, provider: str, first: int, last: int) -> dict[_Key, str]:
    """Return the endpoint with the largest cost by day and model."""
    costs: dict[_Key, dict[str, int]] = defaultdict(dict)
    for day, model, endpoint, cost, _ in await _by_endpoint(session, provider, first, last):
        costs[day, model][endpoint] = cost
    return {key: max(of, key=lambda endpoint: (of[endpoint], endpoint)) for key, of in costs.items()}


async def _by_endpoint(
    session: AsyncSession, provider: str, first: int, last: int
) -> list[tuple[int, str, str, int, int]]:
    """Return day, model, endpoint, cost and tokens of the provider's endpoints; their slugs begin with its own."""
    keys = (col(UsageDay.day), col(UsageDay.model), col(UsageDay.endpoint))
    cost = func.sum(UsageDay.cost_nano)
    tokens = func.sum(UsageDay.tokens_prompt + UsageDay.tokens_completion)
    query = select(*keys, cost, tokens).where(col(UsageDay.day).between(first, last)).group_by(*keys)
    return [
        (day, model, endpoint, int(paid), int(counted))
        for day, model, endpoint, paid, counted in await session.execute(query)
        if _PROVIDER_ENDS.split(endpoint, maxsplit=1)[0] == provider
    ]


async def _corrections(session: AsyncSession, provider: str, first: int, last: int) -> dict[_Key, int]:
    """Return how many corrections the provider's days and models have."""
    keys = (col(LedgerRow.day), col(LabelSet.model))
    query = (
        select(*keys, func.count())
        .join(LabelSet, col(LabelSet.label_id) == col(LedgerRow.label_id))
        .where(col(LedgerRow.day).between(first, last), col(LedgerRow.kind) == RowKind.CORRECTION.value)
        .where(col(LabelSet.provider) == provider, col(LabelSet.team) == OWNER)
        .group_by(*keys)
    )
    return {(day, model): int(count) for day, model, count in await session.execute(query)}


def _correction(provider: str, key: _Key, endpoint: str, difference: int, before: int, digest: str) -> Close:
    """Return the ledger row that adds ``difference`` to the cost of a day and model."""
    day, model = key
    made_of = msgspec.msgpack.encode((provider, day, model, before))
    tail = bytearray(hashlib.blake2b(made_of, digest_size=10, person=b"weir invoice 1").digest())
    tail[0] = 0x70 | tail[0] & 0x0F
    tail[2] = 0x80 | tail[2] & 0x3F
    dims = Dimensions(
        team=OWNER,
        key_id="",
        model=model,
        endpoint=endpoint,
        backend="",
        provider=provider,
        app="",
        tier="default",
        operation="reconciliation",
        requested_model="",
        upstream_model="",
        user="",
        streamed=False,
        price_id=0,
        cost_id=0,
    )
    return Close(
        (day * 86_400_000).to_bytes(6, "big") + bytes(tail),
        1,
        RowKind.CORRECTION,
        dims,
        day * DAY_US,
        Status.OK,
        cost=Charge(request=difference),
        upstream_id=digest[:64],
    )
