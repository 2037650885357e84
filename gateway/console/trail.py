"""Reading the audit log, by pages of its key. Errors are those of the unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlmodel import col, select

from gateway.console.question import AuditQuestion, Entry
from gateway.db.engine import Database
from gateway.db.tables.console import AuditEntry
from gateway.db.unit_of_work import reading

MOST: Final = 500


class Trail:
    """The audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, asked: AuditQuestion) -> Sequence[Entry]:
        """Return a page, newest first."""
        query = select(AuditEntry).order_by(col(AuditEntry.entry_id).desc())
        if asked.before:
            query = query.where(col(AuditEntry.entry_id) < asked.before)
        if asked.teams is not None:
            query = query.where(col(AuditEntry.team).in_([team for team in asked.teams if team]))
        for column, wanted in (
            (AuditEntry.noun, asked.noun),
            (AuditEntry.actor, asked.actor),
            (AuditEntry.subject, asked.subject),
        ):
            if wanted:
                query = query.where(col(column) == wanted)
        async with reading(self._database) as session:
            rows = await session.scalars(query.limit(max(1, min(asked.limit, MOST))))
            return tuple(Entry(**{name: getattr(row, name) for name in Entry.__struct_fields__}) for row in rows)
