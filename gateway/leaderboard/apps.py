"""Apps that callers say they are: known once seen, capped per key and day, public only once the owner approves.

What arrives here has been validated at the edge; it is still only what a caller said. Raises ``Unavailable`` when the
database cannot be used, ``NotFound`` for an app that nobody named.
"""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.engine import Database
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.leaderboard.question import AppRecord, AppStatus, Sighting
from gateway.leaderboard.store import APPROVED
from gateway.types.errors import NotFound

USAGE_DAYS: Final = 30
"""Days of usage that a list of apps shows."""
KEPT_DAYS: Final = 3
"""Days for which it is remembered which key named which app."""
DAY_US: Final = 86_400_000_000
_APP: Final = "SELECT app, title, categories, status, first_key, first_seen_us, decided_us FROM app"
_USED: Final = (
    "SELECT name, SUM(tokens) FROM board_day_total "
    "WHERE team = '' AND board = 'app' AND day BETWEEN :first AND :last GROUP BY name"
)
_COUNTED: Final = (
    "SELECT COUNT(*) FROM app_use JOIN app ON app.app = app_use.app "
    "WHERE day = :day AND key_id = :key_id AND app.status <> :approved"
)


class Apps:
    """The register of apps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sight(self, sighting: Sighting) -> bool:
        """Return whether a key may be counted under an app today; remember it if so.

        An app that the owner approved is always good. Of all others a key may name ``sighting.cap`` different ones a
        day: what it calls itself becomes a row of every rollup, so it must not be able to make many.
        """
        keys = {"day": sighting.day, "key_id": sighting.key_id, "app": sighting.app}
        async with writing(self._database) as session:
            known = (await session.execute(text(f"{_APP} WHERE app = :app"), {"app": sighting.app})).first()
            if known is None or known.status != APPROVED:
                used = text("SELECT 1 FROM app_use WHERE day = :day AND key_id = :key_id AND app = :app")
                if (await session.execute(used, keys)).first() is None:
                    place = {"day": sighting.day, "key_id": sighting.key_id, "approved": APPROVED}
                    if int(await session.scalar(text(_COUNTED), place) or 0) >= sighting.cap:
                        return False
                    into = "INSERT INTO app_use (day, key_id, app) VALUES (:day, :key_id, :app) ON CONFLICT DO NOTHING"
                    await session.execute(text(into), keys)
            await _remember(session, sighting, known)
        return True

    async def listed(self, status: AppStatus | None) -> list[AppRecord]:
        """Return apps, or those of one status, with their tokens of the last 30 days; the busiest first."""
        today = time.time_ns() // 1000 // DAY_US
        where, place = (" WHERE status = :status", {"status": status}) if status is not None else ("", {})
        async with reading(self._database) as session:
            rows = (await session.execute(text(_APP + where), place)).all()
            window = {"first": today - USAGE_DAYS + 1, "last": today}
            used = {name: int(tokens) for name, tokens in await session.execute(text(_USED), window)}
        return sorted((_record(row, used.get(row.app, 0)) for row in rows), key=lambda each: (-each.tokens, each.app))

    async def decide(self, app: str, status: AppStatus, title: str | None) -> AppRecord:
        """Approve, hide or put back an app, and call it ``title`` unless that is None."""
        values: dict[str, Any] = {"app": app, "status": status, "now": time.time_ns() // 1000}
        change = "UPDATE app SET status = :status, decided_us = :now"
        if title is not None:
            change, values = change + ", title = :title", values | {"title": title}
        async with writing(self._database) as session:
            before = (await session.execute(text(f"{_APP} WHERE app = :app"), {"app": app})).first()
            await session.execute(text(f"{change} WHERE app = :app"), values)
            row = (await session.execute(text(f"{_APP} WHERE app = :app"), {"app": app})).first()
            if before is not None and row is not None:
                await note(session, "app", app, _record(before, 0), _record(row, 0))
        if row is None:
            raise NotFound(f"no app {app[:128]!r} was seen here", param="app")
        return _record(row, 0)

    async def forget_uses(self) -> None:
        """Forget which key named which app some days ago."""
        oldest = time.time_ns() // 1000 // DAY_US - KEPT_DAYS
        async with writing(self._database) as session:
            await session.execute(text("DELETE FROM app_use WHERE day < :day"), {"day": oldest})


async def _remember(session: AsyncSession, sighting: Sighting, known: Any) -> None:
    """Keep what came with the first sighting; title and categories of a later one fill what is empty until then."""
    values = {"app": sighting.app, "title": sighting.title, "categories": ",".join(sighting.categories)}
    if known is None:
        insert = (
            "INSERT INTO app (app, title, categories, status, first_key, first_seen_us) "
            "VALUES (:app, :title, :categories, 'pending', :key_id, :now) ON CONFLICT DO NOTHING"
        )
        await session.execute(text(insert), values | {"key_id": sighting.key_id, "now": time.time_ns() // 1000})
    elif known.status == "pending":
        for name in ("title", "categories"):
            if values[name] and not getattr(known, name):
                await session.execute(text(f"UPDATE app SET {name} = :{name} WHERE app = :app"), values)  # noqa: S608


def _record(row: Any, tokens: int) -> AppRecord:
    categories = tuple(row.categories.split(",")) if row.categories else ()
    return AppRecord(
        row.app, row.title, categories, row.status, row.first_key, int(row.first_seen_us), row.decided_us, tokens
    )
