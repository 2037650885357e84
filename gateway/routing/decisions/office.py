"""The keeper's part of kept decisions: it stores them, finds them, and throws old ones away.

Everything here can be done again after a failure; what is stored is never changed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import delete, func, select

from gateway.config.snapshot import DecisionsSpec
from gateway.db.office import Duty, Office, Premises
from gateway.db.tables.decision import DecisionRow
from gateway.db.unit_of_work import reading, writing
from gateway.routing.decisions.record import FIND, KEEP, RECENT, Decision

_DAY_US: Final = 86_400_000_000
_EVERY_S: Final = 600.0
_MOST_SHOWN: Final = 1_000
_FIELDS: Final = Decision.__struct_fields__
_columns: Final[Any] = DecisionRow.__table__.c  # type: ignore[attr-defined]  # SQLModel does not declare it


def open_office(premises: Premises) -> Office:
    """Return the office of kept decisions."""
    store = Store(premises)
    return Office(
        {KEEP: store.keep, FIND: store.find, RECENT: store.recent},
        (Duty("old decisions are forgotten", _EVERY_S, store.forget),),
    )


class Store:
    """Decisions in the database."""

    def __init__(self, premises: Premises) -> None:
        self._premises = premises

    async def keep(self, decisions: Sequence[Decision]) -> int:
        """See ``KEEP``."""
        rows = {each.request_id: {name: getattr(each, name) for name in _FIELDS} for each in decisions}
        if not rows:
            return 0
        async with writing(self._premises.database) as session:
            known = await session.scalars(select(_columns.request_id).where(_columns.request_id.in_(list(rows))))
            for request_id in known:
                del rows[request_id]
            session.add_all([DecisionRow(**row) for row in rows.values()])
        return len(rows)

    async def find(self, request_id: bytes) -> Decision | None:
        """See ``FIND``."""
        async with reading(self._premises.database) as session:
            row = await session.get(DecisionRow, request_id)
            return Decision(*(getattr(row, name) for name in _FIELDS)) if row is not None else None

    async def recent(self, limit: int, failed_over: bool) -> list[Decision]:
        """See ``RECENT``."""
        wanted = select(*(_columns[name] for name in _FIELDS if name != "content"))
        if failed_over:
            wanted = wanted.where(_columns.tries > 0)
        wanted = wanted.order_by(_columns.at_us.desc(), _columns.request_id.desc())
        async with reading(self._premises.database) as session:
            rows = await session.execute(wanted.limit(max(0, min(limit, _MOST_SHOWN))))
            return [Decision(**row, content=b"") for row in rows.mappings()]

    async def forget(self) -> None:
        """Throw away what is too old or too much."""
        config = self._premises.config()
        spec = config.routing.decisions if config is not None else DecisionsSpec()
        oldest = time.time_ns() // 1_000 - int(spec.days * _DAY_US)
        async with reading(self._premises.database) as session:
            count = await session.scalar(select(func.count()).select_from(DecisionRow)) or 0
            if count > spec.most:
                newest = select(_columns.at_us).order_by(_columns.at_us.desc())
                last = await session.scalar(newest.offset(spec.most).limit(1))
                oldest = max(oldest, (last or 0) + 1)
        async with writing(self._premises.database) as session:
            await session.execute(delete(DecisionRow).where(_columns.at_us < oldest))
