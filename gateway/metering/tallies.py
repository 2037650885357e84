"""Tallies: sums per UTC day and one label, for all teams and for each: what the pages of the console read.

The daily rollup has a row for every team, key, model, endpoint, app, tier and status that met on a day, each with three
histograms; a page that shows a month by model would read tens of thousands of them to show a hundred names. A tally has
what it shows. Written in the transaction that writes the rollups, from the same buckets, and compared with them by the
audit. Errors are those of the transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.bulk import Bulk
from gateway.metering.labels import ROLLUP
from gateway.metering.places import BLOCK_DAYS, Place, add_to, by_block, with_all_teams
from gateway.metering.places import post as post_places
from gateway.metering.record import Status

KINDS: Final = ("model", "team", "key_id", "endpoint", "app", "status")
"""Labels that there are tallies by."""
COLUMNS: Final = (
    *("requests", "errors", "retries", "prompt", "completion", "cached"),
    *("charge_nano", "cost_nano", "discount_nano", "byok_nano"),
)
"""What is summed up; the first three tell a bucket's requests apart by how they ended."""
ERRORS: Final = (Status.UPSTREAM_ERROR, Status.REFUSED)
"""Requests of callers that were refused or broken off."""
TRIES: Final = (Status.FAILED, Status.CONTINUED)
"""Attempts that another one followed: no request of a caller by itself."""

Key = tuple[int | str, ...]
"""Day, then the labels of ``ROLLUP``."""
_TABLES: Final = (("tally_day", "day"), ("tally_block", "block"))
_AT: Final = {name: 1 + ROLLUP.index(name) for name in KINDS}
_SUMMED: Final = (
    *("tokens_prompt", "tokens_completion", "tokens_cache_read"),
    *("charge_nano", "cost_nano", "discount_nano", "byok_list_nano"),
)
"""Sums of the rollups, in the order of ``COLUMNS``."""
_SLICE: Final = 100
"""Buckets added up before others get their turn on the event loop."""
_LABELS: Final = ", ".join(KINDS)
_DUE: Final = (
    f"SELECT day, {_LABELS}, SUM(requests), {', '.join(f'SUM({name})' for name in _SUMMED)} "  # noqa: S608 - our names
    f"FROM usage_day GROUP BY day, {_LABELS}"
)
Book = dict[tuple[int, str, str], tuple[int, ...]]
"""First day, ``day`` or ``block``, and team, kind and name, to the values of ``COLUMNS``."""


class Sums(Protocol):
    """What a rollup bucket tells here: ``gateway.metering.rollups.Bucket``."""

    @property
    def sums(self) -> Sequence[int]:
        """In the order of ``names``."""


async def post(connection: Bulk, days: Mapping[Key, Any], names: Sequence[str]) -> None:
    """Add what a batch adds, in the transaction that inserted its ledger rows.

    Args:
        connection: in that transaction.
        days: ``Sums`` by day and labels.
        names: of these sums, ``requests`` first.
    """
    places = [names.index(name) for name in _SUMMED]
    by_team: dict[Place, tuple[int, ...]] = {}
    for count, (key, bucket) in enumerate(days.items(), 1):
        if count % _SLICE == 0:
            await asyncio.sleep(0)
        sums = bucket.sums
        labels = [str(key[place]) for place in _AT.values()]
        _add_up(by_team, int(key[0]), labels, sums[0], [sums[at] for at in places])
    await post_places(connection, _TABLES, "kind", COLUMNS, with_all_teams(by_team))


async def compare(session: AsyncSession) -> tuple[Book, Book]:
    """Return the tallies as they stand, and as the daily rollup says they should."""
    held: Book = {}
    for time, days in (("day", 1), ("block", BLOCK_DAYS)):
        columns = f"team, kind, {time}, name, {', '.join(COLUMNS)}"
        for team, kind, number, name, *sums in await session.execute(text(f"SELECT {columns} FROM tally_{time}")):  # noqa: S608 - ours
            held[number * days, time, f"{team} {kind} {name}"] = tuple(map(int, sums))
    by_team: dict[Place, tuple[int, ...]] = {}
    for day, *row in await session.execute(text(_DUE)):
        labels, (requests, *sums) = row[: len(KINDS)], map(int, row[len(KINDS) :])
        _add_up(by_team, day, labels, requests, sums)
    due = with_all_teams(by_team)
    wanted: Book = {}
    for time, days, book in (("day", 1, due), ("block", BLOCK_DAYS, by_block(due))):
        for (team, kind, number, name), total in book.items():
            wanted[number * days, time, f"{team} {kind} {name}"] = total
    return held, wanted


def _add_up(
    found: dict[Place, tuple[int, ...]], day: int, labels: Sequence[str], requests: int, sums: Sequence[int]
) -> None:
    """Add a bucket to every tally of its team that it belongs to; ``labels`` in the order of ``KINDS``."""
    team, status = labels[1], labels[-1]
    tried = status in TRIES
    added = (0 if tried else requests, requests if status in ERRORS else 0, requests if tried else 0, *sums)
    for kind, name in zip(KINDS, labels, strict=True):
        add_to(found, (team, kind, day, name), added)
