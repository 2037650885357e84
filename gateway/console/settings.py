"""Settings in the database: what operators changed, each section with a version, every change with its note.

Errors are those of the unit of work; a value that cannot be is ``BadRequest``, a version that is not the newest any
more ``Conflict``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlmodel import select

from gateway.config.overlay import Overlay, Unfit, checked
from gateway.console.question import CHANGE_SETTINGS, SETTINGS, Setting
from gateway.db.engine import Database
from gateway.db.office import Duty, Office
from gateway.db.tables.operator import SettingRow
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.actor import ACTING
from gateway.types.errors import BadRequest, Conflict

EVERY_S: Final = 2.0


def open_office(database: Database, overlay: Overlay) -> Office:
    """Return the office of settings; the keeper goes by ``overlay``."""
    settings = Settings(database, overlay)
    return Office(
        {SETTINGS: settings.all, CHANGE_SETTINGS: settings.change}, (Duty("settings", EVERY_S, settings.look),)
    )


class Settings:
    """The repository of settings."""

    def __init__(self, database: Database, overlay: Overlay) -> None:
        self._database = database
        self._overlay = overlay
        self._known: tuple[Setting, ...] | None = None

    async def all(self) -> Sequence[Setting]:
        """See ``SETTINGS``."""
        if self._known is None:
            async with reading(self._database) as session:
                rows = (await session.scalars(select(SettingRow).order_by(SettingRow.name))).all()
            self._known = tuple(
                Setting(row.name, msgspec.json.decode(row.content), row.version, row.who, row.changed_us)
                for row in rows
            )
            self._overlay.take({each.name: each.content for each in self._known})
        return self._known

    async def look(self) -> None:
        """Learn what there is; other hosts change a database that is shared. Raises ``Unavailable``."""
        if self._database.partitioned:
            self._known = None
        await self.all()

    async def change(self, name: str, content: dict[str, Any], version: int) -> Setting:
        """See ``CHANGE_SETTINGS``."""
        try:
            values = checked(name, content)
        except Unfit as error:
            raise BadRequest(error.message, param=error.member or None) from None
        now = time.time_ns() // 1_000
        async with writing(self._database) as session:
            row = await session.get(SettingRow, name)
            if version != (row.version if row is not None else 0):
                raise Conflict("somebody else changed this meanwhile")
            before: dict[str, Any] | None = None
            if row is None:
                row = SettingRow(name=name, content="", version=0, who="", changed_us=now)
                session.add(row)
            else:
                before = msgspec.json.decode(row.content)
            row.content, row.version = msgspec.json.encode(values).decode(), version + 1
            row.who, row.changed_us = ACTING.get().name, now
            await note(session, "setting", name, before or {}, values)
        self._known = None
        await self.all()
        return Setting(name, msgspec.to_builtins(values), version + 1, ACTING.get().name, now)
