"""The audit: do journal, ledger and rollups agree?

Reads only, and may run beside a working gateway: ledger, rollups and checkpoints are read as of one moment, and the
journal only as far as the checkpoints of that moment, so a row that arrives meanwhile is no mismatch. A mismatch is
reported, never raised; ``Unavailable`` and ``OSError`` say that the books could not be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.bulk import bulk_on
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading
from gateway.metering import checkpoints, ledger, tallies
from gateway.metering import totals as boards
from gateway.metering.entry import SUMS as ROW_SUMS
from gateway.metering.entry import RowKey, end_key
from gateway.metering.labels import COLUMNS as LABEL_COLUMNS
from gateway.metering.labels import id_of
from gateway.metering.record import ANSWERED, End
from gateway.metering.retention import HOURS, LEDGER, lifetimes
from gateway.metering.rollups import SUMS
from gateway.metering.segments import CHUNK, QUARANTINE, SUFFIX, SegmentFile, SegmentParser, list_segments
from gateway.types.charge import Charge
from gateway.types.generation import MeterReport
from gateway.types.upstream_keys import OWN_KEY

Sums = dict[tuple[int, str, str], tuple[int, ...]]
"""Day, model and team to the sums of ``SUMS``."""

K = TypeVar("K", bound=tuple[object, ...])
V = TypeVar("V")

_MOST_NAMED: Final = 5
_KEYS_AT_ONCE: Final = 1_000
_TOTALS: Final = ", ".join(f"SUM({name})" for name in SUMS)
_TOTALS_BUT_REQUESTS: Final = ", ".join(f"COALESCE(SUM({name}), 0)" for name in ROW_SUMS)
_OWN: Final = ", ".join(
    f"SUM(CASE WHEN cost_id = {OWN_KEY} THEN {value} ELSE 0 END)"
    for value in (
        "(CASE WHEN kind = 'usage' THEN 1 ELSE 0 END)",
        "charge_nano + COALESCE(discount_nano, 0)",
        "charge_nano",
    )
)
"""What ``gateway.metering.rollups.OWN`` are, from the ledger."""
_LEDGER_SUMS: Final = (
    f"SELECT day, model, team, SUM(CASE WHEN kind = 'usage' THEN 1 ELSE 0 END), {_TOTALS_BUT_REQUESTS}, {_OWN} "  # noqa: S608
    "FROM ledger JOIN label_set USING (label_id) GROUP BY day, model, team"  # S608: only names of ours
)
_HOUR_SUMS: Final = f"SELECT hour / 24, model, team, {_TOTALS} FROM usage_hour GROUP BY 1, 2, 3"  # noqa: S608 - ours
_DAY_SUMS: Final = f"SELECT day, model, team, {_TOTALS} FROM usage_day GROUP BY 1, 2, 3"  # noqa: S608 - our names
_LEDGER_TOTALS: Final = (
    "SELECT day, model, SUM(tokens_prompt + tokens_completion), "
    "SUM(CASE WHEN kind = 'usage' AND status IN :answered THEN 1 ELSE 0 END) "
    "FROM ledger JOIN label_set USING (label_id) GROUP BY day, model"
)
_MODEL_TOTALS: Final = "SELECT day, model, tokens, requests FROM model_day_total"
_DUPLICATES: Final = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM ledger GROUP BY day, request_id, attempt, kind HAVING COUNT(*) > 1) AS d"
)
_UNPRICED: Final = (
    "SELECT COUNT(*) FROM ledger JOIN label_set USING (label_id) "
    "WHERE (price_id <> 0 AND price_id NOT IN (SELECT price_id FROM price)) "
    "OR (cost_id <> 0 AND cost_id NOT IN (SELECT price_id FROM price))"
)
_UNLABELLED: Final = "SELECT COUNT(*) FROM ledger WHERE label_id NOT IN (SELECT label_id FROM label_set)"
_STATUSES: Final = "SELECT status, COUNT(*) FROM ledger JOIN label_set USING (label_id) GROUP BY status"
_LABELS: Final = f"SELECT {', '.join(LABEL_COLUMNS)} FROM label_set"  # noqa: S608 - only names of ours


def _not_summing(column: str) -> str:
    """Return the query for how many rows have an amount that is not the sum of its classes."""
    classes = " + ".join(f"COALESCE({column}_{name}, 0)" for name in Charge.__struct_fields__)
    return f"SELECT COUNT(*) FROM ledger WHERE {column}_nano <> {classes}"  # noqa: S608 - only names of ours


async def audit(directory: Path, database: Database) -> MeterReport:
    """Compare the journal in ``directory`` with the ledger and the rollups in ``database``.

    Raises:
        Unavailable: the database cannot be used now.
        OSError: the journal cannot be read.
    """
    wrong: list[str] = []
    async with reading(database) as session:
        # Books are compared for the days that both still have.
        firsts = await lifetimes(session)
        first, first_hour = firsts.get(LEDGER, 0), firsts.get(HOURS, 0)
        ledger_sums = _since(await _sums(session, _LEDGER_SUMS), first)
        hour_sums = await _sums(session, _HOUR_SUMS)
        day_sums = await _sums(session, _DAY_SUMS)
        both = max(first, first_hour)
        wrong += _differences("usage_hour", _since(hour_sums, both), "the ledger", _since(ledger_sums, both))
        wrong += _differences("usage_day", _since(day_sums, first_hour), "usage_hour", _since(hour_sums, first_hour))
        if first < first_hour:
            wrong += _differences("usage_day", _since(day_sums, first), "the ledger", ledger_sums)
        totals = await _pairs(session, _MODEL_TOTALS)
        ledger_totals = _since(await _ledger_totals(session), first)
        wrong += _differences("model_day_total", _since(totals, first), "the ledger", ledger_totals)
        held, due = await boards.compare(session)
        wrong += _differences("board_day_total", held, "usage_day", due)
        held, due = await tallies.compare(session)
        wrong += _differences("tally_day", held, "usage_day", due)
        wrong += await _broken_rows(session)
        journal = await _journal(directory, session, wrong, first)
        statuses = (await session.execute(text(_STATUSES))).all()
    return MeterReport(
        ok=not wrong,
        journal=journal,
        ledger=_named(ledger_sums) | {f"rows_{status}": count for status, count in sorted(statuses)},
        rollups={f"hour_{name}": value for name, value in _named(hour_sums).items()}
        | {f"day_{name}": value for name, value in _named(day_sums).items()}
        | {"model_day_tokens": sum(each[0] for each in totals.values())},
        mismatches=tuple(wrong),
    )


async def _sums(session: AsyncSession, query: str) -> Sums:
    return {
        (int(row[0]), row[1], row[2]): tuple(int(value) for value in row[3:])
        for row in await session.execute(text(query))
    }


async def _pairs(session: AsyncSession, query: str) -> dict[tuple[int, str], tuple[int, ...]]:
    return {(row[0], row[1]): (int(row[2]), int(row[3])) for row in await session.execute(text(query))}


async def _ledger_totals(session: AsyncSession) -> dict[tuple[int, str], tuple[int, ...]]:
    """Return tokens and answered requests per day and model, from the ledger."""
    query = text(_LEDGER_TOTALS).bindparams(bindparam("answered", sorted(ANSWERED), expanding=True))
    return {(row[0], row[1]): (int(row[2]), int(row[3])) for row in await session.execute(query)}


async def _broken_rows(session: AsyncSession) -> list[str]:
    """Return a sentence for each kind of ledger row that contradicts itself."""
    checks = {
        _DUPLICATES: "keys are in the ledger twice",
        _UNPRICED: "ledger rows name rates that are not in the price table",
        _UNLABELLED: "ledger rows name labels that are not in the label table",
        _not_summing("charge"): "ledger rows have a charge that is not the sum of its classes",
        _not_summing("cost"): "ledger rows have a cost that is not the sum of its classes",
        _not_summing("discount"): "ledger rows have a discount that is not the sum of its classes",
    }
    found = {meaning: int(await session.scalar(text(query)) or 0) for query, meaning in checks.items()}
    labels = await session.execute(text(_LABELS))
    found["label sets are not those that their ids were made of"] = sum(
        # Flags are part of what the id is made of as 0 or 1, whatever type a database has for them.
        row[0] != id_of(tuple(int(value) if isinstance(value, bool) else value for value in row[1:]))
        for row in labels
    )
    return [f"{count} {meaning}." for meaning, count in found.items() if count]


async def _journal(directory: Path, session: AsyncSession, wrong: list[str], first: int) -> dict[str, int]:
    """Count what is on disk, and add to ``wrong`` what is shipped, of day ``first`` or later, and not in the ledger."""
    saved = await checkpoints.load(session)
    counts = dict.fromkeys(("segments", "bytes", "unshipped_bytes", "damaged_bytes", "shipped_records"), 0)
    missing = 0
    connection = await bulk_on(await session.connection())
    for file in list_segments(directory):
        try:
            size = file.size()
            checkpoint = saved.get(file.name)
            position = checkpoint.position if checkpoint else 0
            counts["segments"] += 1
            counts["bytes"] += size
            counts["damaged_bytes"] += checkpoint.damaged if checkpoint else 0
            counts["unshipped_bytes"] += 0 if checkpoint and checkpoint.finished else _unshipped(file, position, size)
            for found in _shipped_keys(file, position):
                keys = {key for key in found if key[0] >= first}
                counts["shipped_records"] += len(keys)
                missing += len(keys) - len(await ledger.present(connection, list(keys)))
        except FileNotFoundError:
            continue  # shipped and deleted meanwhile
    if missing:
        wrong.append(f"{missing} records of the journal count as shipped and are not in the ledger.")
    counts["quarantined_segments"] = aside = len(list((directory / QUARANTINE).glob(f"*{SUFFIX}")))
    if aside:
        wrong.append(f"{aside} segments lie in {QUARANTINE}: what is damaged or too old in them is not in the ledger.")
    return counts


def _shipped_keys(file: SegmentFile, position: int) -> Iterator[set[RowKey]]:
    """Yield the ledger keys of the ends in the first ``position`` bytes of a segment, some at a time."""
    parser = SegmentParser()
    keys: set[RowKey] = set()
    while parser.position < position:
        begin = parser.position
        data = file.read(begin, min(CHUNK, position - begin))
        more = begin + len(data) < position
        for record in parser.settled(data, more=more, final=True):
            if isinstance(record, End):
                keys.add(end_key(record))
            if len(keys) >= _KEYS_AT_ONCE:
                yield keys
                keys = set()
        if parser.position == begin:
            break
    if keys:
        yield keys


def _unshipped(file: SegmentFile, position: int, size: int) -> int:
    """Return how many bytes behind ``position`` are still to be shipped: those up to the last end of an attempt."""
    parser, last = SegmentParser(position), position
    while parser.position < size:
        begin = parser.position
        data = file.read(begin, min(CHUNK, size - begin))
        for record in parser.settled(data, more=begin + len(data) < size, final=False):
            if isinstance(record, End):
                last = parser.position
        if parser.position == begin:
            break
    return last - position


def _differences(
    name: str,
    these: Mapping[K, tuple[int, ...]],
    other: str,
    those: Mapping[K, tuple[int, ...]],
) -> list[str]:
    """Return sentences on where two books differ; the first few by name, the others counted."""
    differing = [key for key in sorted({*these, *those}, key=str) if these.get(key) != those.get(key)]
    sentences = [
        f"{name} and {other} differ for {', '.join(map(str, key))}: {these.get(key)} and {those.get(key)}."
        for key in differing[:_MOST_NAMED]
    ]
    if len(differing) > _MOST_NAMED:
        sentences.append(f"{name} and {other} differ in {len(differing) - _MOST_NAMED} more places.")
    return sentences


def _since(book: Mapping[K, V], first: int) -> dict[K, V]:
    """Return what a book says of the days from ``first`` on; its keys begin with the day."""
    return {key: value for key, value in book.items() if int(str(key[0])) >= first}


def _named(sums: Sums) -> dict[str, int]:
    """Return the sums over all days, models and teams, by the name of their column."""
    return dict(zip(SUMS, map(sum, zip(*sums.values(), strict=True)), strict=True)) if sums else dict.fromkeys(SUMS, 0)
