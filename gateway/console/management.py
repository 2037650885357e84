"""Management keys with a role in the database. The key itself is known once, to who makes it; its digest stays.

Errors are those of the unit of work; a bad name or role is ``BadRequest``, an unknown id ``NotFound``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from secrets import token_hex
from typing import Final

from sqlmodel import col, select

from gateway.access.keys import digest
from gateway.access.rules import checked_name
from gateway.console.question import (
    CREATE_MANAGEMENT_KEY,
    MANAGEMENT_KEYS,
    REVOKE_MANAGEMENT_KEY,
    IssuedManagementKey,
    ManagementKey,
)
from gateway.console.roles import GLOBAL_ROLES
from gateway.db.engine import Database
from gateway.db.office import LastAnswer, Office, Premises
from gateway.db.tables.operator import ManagementKeyRow
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.actor import ACTING
from gateway.types.errors import BadRequest, NotFound

FRESH_S: Final = 1.5
"""Seconds for which a list of a shared database holds."""


def open_office(premises: Premises) -> Office:
    """Return the office of management keys."""
    book = ManagementKeyBook(premises.database, premises.pepper)
    known = LastAnswer(MANAGEMENT_KEYS, book.all)
    return Office(
        {MANAGEMENT_KEYS: known, CREATE_MANAGEMENT_KEY: book.create, REVOKE_MANAGEMENT_KEY: book.revoke},
        lasting=(known.lasting(),),
    )


class ManagementKeyBook:
    """The repository of management keys."""

    def __init__(self, database: Database, pepper: bytes) -> None:
        self._database = database
        self._pepper = pepper
        self._known: tuple[float, tuple[ManagementKey, ...]] | None = None

    async def all(self) -> Sequence[ManagementKey]:
        """See ``MANAGEMENT_KEYS``."""
        known = self._known
        # Every worker asks every few seconds; only a server's database has other hosts that change it.
        if known is None or (self._database.partitioned and time.monotonic() - known[0] > FRESH_S):
            query = select(ManagementKeyRow).where(col(ManagementKeyRow.revoked_us).is_(None))
            async with reading(self._database) as session:
                rows = await session.scalars(query.order_by(col(ManagementKeyRow.created_us)))
                found = tuple(_told(row) for row in rows)
            self._known = known = (time.monotonic(), found)
        return known[1]

    async def create(self, name: str, role: str) -> IssuedManagementKey:
        """See ``CREATE_MANAGEMENT_KEY``."""
        if role not in {each.value for each in GLOBAL_ROLES}:
            raise BadRequest("choose a role", param="role")
        name = checked_name(name)
        key_id, secret = token_hex(4), token_hex(32)
        key = f"weir-mgmt-{key_id}-{secret}"
        async with writing(self._database) as session:
            row = ManagementKeyRow(
                key_id=key_id,
                name=name,
                role=role,
                digest=digest(self._pepper, key.encode("ascii")),
                who=ACTING.get().name,
                created_us=time.time_ns() // 1_000,
            )
            session.add(row)
            made = _told(row)
            await note(session, "management key", key_id, None, {"name": name, "role": role, "digest": row.digest})
        self._known = None
        return IssuedManagementKey(made, key)

    async def revoke(self, key_id: str) -> None:
        """See ``REVOKE_MANAGEMENT_KEY``."""
        async with writing(self._database) as session:
            row = await session.get(ManagementKeyRow, key_id)
            if row is None or row.revoked_us is not None:
                raise NotFound("there is no such management key")
            row.revoked_us = time.time_ns() // 1_000
            await note(session, "management key", key_id, {"name": row.name, "role": row.role}, None)
        self._known = None


def _told(row: ManagementKeyRow) -> ManagementKey:
    return ManagementKey(row.key_id, row.name, row.role, row.digest, row.who, row.created_us)
