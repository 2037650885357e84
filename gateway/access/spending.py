"""What was charged in the windows of many budgets, in few queries: the tallies have it under the budget's one label.

Tallies are written in one transaction with the ledger, so they say what the daily rollups say. A budget of two labels
at once, or of all keys of a member, is not in them. Errors are those of the unit of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.bulk import bulk_on
from gateway.types.budgets import MEMBER, Budget, Scope

Wanted = tuple[Budget, int]
"""A budget, and the day on which its window begins."""
_AT_ONCE: Final = 50


def place(scope: Scope) -> tuple[str, str, str] | None:
    """Return team, kind and name of the tally that a scope's usage is in, or None when it is in none."""
    if scope.key_id:
        alone = not scope.model and not scope.key_id.startswith(MEMBER)
        return (scope.team, "key_id", scope.key_id) if alone else None
    return (scope.team, "model", scope.model) if scope.model else (scope.team, "team", scope.team)


async def charged(session: AsyncSession, budgets: Sequence[Wanted]) -> dict[Wanted, int]:
    """Return nano-USD for those of ``budgets`` that the tallies know."""
    known = [(wanted, at) for wanted in budgets if (at := place(wanted[0].scope)) is not None]
    found: dict[Wanted, int] = {}
    connection = await bulk_on(await session.connection()) if known else None
    for first in range(0, len(known), _AT_ONCE):
        some = known[first : first + _AT_ONCE]
        queries, values = [], list[Any]()
        for number, ((budget, day), at) in enumerate(some):
            end = budget.window.end(day)
            # Days one by one, so that each is a look at the primary key whatever other names a day has.
            days = f" AND day IN ({', '.join(map(str, range(day, end)))})" if end is not None else ""
            table = "tally_block" if end is None else "tally_day"
            queries.append(
                f"SELECT {number}, SUM(charge_nano) FROM {table} "  # noqa: S608 - a table of ours and numbers
                f"WHERE team = ? AND kind = ? AND name = ?{days}"
            )
            values += at
        assert connection is not None
        for number, total in await connection.read(" UNION ALL ".join(queries), values):
            found[some[number][0]] = int(total or 0)
    return found
