"""Numbers of changes, by which hosts that share a database notice what another one changed.

A writing unit that changes something others hold copies of takes the next number of its topic and writes it to the rows
it changed. Writing units run one after the other, so whoever has seen a number has seen all that is below it, and needs
only the rows above. Those who look share one reading of all numbers (``gateway.db.bulletin``). Errors are those of the
unit of work.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.bulletin import ANNOUNCED
from gateway.db.engine import Database
from gateway.db.unit_of_work import translated

_NEXT = text(
    "INSERT INTO change_number (topic, number) VALUES (:topic, 1) "
    "ON CONFLICT (topic) DO UPDATE SET number = change_number.number + 1 RETURNING number"
)


async def announce(session: AsyncSession, topic: str) -> int:
    """Return the next number of ``topic``; others see it when the writing unit of ``session`` is done."""
    session.info[ANNOUNCED] = True
    return int((await session.execute(_NEXT, {"topic": topic})).scalar_one())


async def latest(database: Database, topic: str) -> int:
    """Return the number of the last change of ``topic``, 0 when there was none; see ``Bulletin``."""
    with translated():
        return await database.bulletin.latest(topic)
