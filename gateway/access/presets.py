"""Presets of teams in the database. Errors as of ``gateway.access.workspaces``.

The content of a preset is the team's own words: it goes into no log, not even the audit log, which knows versions only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import and_, delete, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access.budgets import wall_clock_us
from gateway.access.workspaces import TOPIC, team_row
from gateway.db import changes
from gateway.db.engine import Database
from gateway.db.tables.workspace import PresetRow, PresetVersionRow
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.errors import BadRequest, NotFound
from gateway.types.presets import Preset, PresetVersion

MOST: Final = 500
"""Presets of one team."""
MOST_VERSIONS: Final = 1_000
LONGEST: Final = 128 * 1024
"""Bytes of a version's config and system prompt together."""
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class PresetStore:
    """The repository of presets."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, team: str | None, offset: int, limit: int) -> tuple[Sequence[Preset], int]:
        """Return presets of a team, or of all, by team and slug, and how many there are. Raises ``NotFound``."""
        async with reading(self._database) as session:
            query = (
                select(PresetRow, PresetVersionRow)
                .join(
                    PresetVersionRow,
                    and_(
                        col(PresetVersionRow.team) == col(PresetRow.team),
                        col(PresetVersionRow.slug) == col(PresetRow.slug),
                        col(PresetVersionRow.version) == col(PresetRow.version),
                    ),
                )
                .order_by(col(PresetRow.team), col(PresetRow.slug))
            )
            count = select(func.count()).select_from(PresetRow)
            if team is not None:
                await team_row(session, team)
                query, count = query.where(col(PresetRow.team) == team), count.where(col(PresetRow.team) == team)
            rows = await session.execute(query.offset(offset).limit(limit))
            found = tuple(_preset(row, version) for row, version in rows)
            return found, int(await session.scalar(count) or 0)

    async def get(self, team: str, slug: str) -> Preset:
        """Return one preset. Raises ``NotFound``."""
        async with reading(self._database) as session:
            row = await _row(session, team, slug)
            version = await session.get(PresetVersionRow, (team, slug, row.version))
            if version is None:
                raise NotFound("there is no such preset", param="slug")
            return _preset(row, version)

    async def put(self, team: str, slug: str, config: dict[str, Any], system_prompt: str, creator: str) -> Preset:
        """Make a new version, which is used from now on, and the preset with its first one.

        Raises:
            NotFound: there is no such team.
            BadRequest: the slug cannot be, or there are too many, or it is too long.
        """
        if _SLUG.fullmatch(slug) is None:
            raise BadRequest("a preset's slug has 1 to 64 characters of a-z, 0-9, - and _", param="slug")
        text = msgspec.json.encode(config).decode()
        if len(text.encode()) + len(system_prompt.encode("utf-8", "replace")) > LONGEST:
            raise BadRequest(f"a preset has at most {LONGEST} bytes", param="slug")
        if "\0" in system_prompt:
            raise BadRequest("a system prompt cannot hold the character zero", param="messages")
        now = wall_clock_us()
        async with writing(self._database) as session:
            await team_row(session, team)
            row = await session.get(PresetRow, (team, slug))
            before = None if row is None else {"version": row.version}
            if row is None:
                await _room(session, team)
                row = PresetRow(team=team, slug=slug, version=0, created_at=now, updated_at=now)
                session.add(row)
            if row.version >= MOST_VERSIONS:
                raise BadRequest(f"a preset has at most {MOST_VERSIONS} versions: make another one", param="slug")
            row.version, row.updated_at = row.version + 1, now
            await session.flush()
            version = PresetVersionRow(
                team=team,
                slug=slug,
                version=row.version,
                config=text,
                system_prompt=system_prompt,
                creator=creator,
                created_at=now,
            )
            session.add(version)
            await changes.announce(session, TOPIC)
            await note(session, "preset", slug, before, {"version": row.version}, team=team)
        return _preset(row, version)

    async def versions(self, team: str, slug: str, offset: int, limit: int) -> tuple[Sequence[PresetVersion], int]:
        """Return versions, newest first, and how many there are. Raises ``NotFound``."""
        async with reading(self._database) as session:
            row = await _row(session, team, slug)
            query = (
                select(PresetVersionRow)
                .where(col(PresetVersionRow.team) == team, col(PresetVersionRow.slug) == slug)
                .order_by(col(PresetVersionRow.version).desc())
            )
            rows = await session.scalars(query.offset(offset).limit(limit))
            return tuple(_version(each) for each in rows), row.version

    async def version(self, team: str, slug: str, version: int) -> PresetVersion:
        """Return one version. Raises ``NotFound``."""
        async with reading(self._database) as session:
            await _row(session, team, slug)
            row = await session.get(PresetVersionRow, (team, slug, version))
            if row is None:
                raise NotFound("there is no such version", param="version")
            return _version(row)

    async def delete(self, team: str, slug: str) -> None:
        """Delete a preset with its versions. Raises ``NotFound``."""
        async with writing(self._database) as session:
            row = await _row(session, team, slug)
            its = and_(col(PresetVersionRow.team) == team, col(PresetVersionRow.slug) == slug)
            await session.execute(delete(PresetVersionRow).where(its))
            await session.delete(row)
            await changes.announce(session, TOPIC)
            await note(session, "preset", slug, {"version": row.version}, None, team=team)


async def _row(session: AsyncSession, team: str, slug: str) -> PresetRow:
    row = await session.get(PresetRow, (team, slug)) if (team + slug).isprintable() else None
    if row is None:
        raise NotFound("there is no such preset", param="slug")
    return row


async def _room(session: AsyncSession, team: str) -> None:
    count = select(func.count()).select_from(PresetRow).where(col(PresetRow.team) == team)
    if int(await session.scalar(count) or 0) >= MOST:
        raise BadRequest(f"a workspace has at most {MOST} presets", param="slug")


def _version(row: PresetVersionRow) -> PresetVersion:
    return PresetVersion(
        row.version,
        msgspec.json.decode(row.config, type=dict[str, Any]),
        row.system_prompt,
        row.creator,
        row.created_at,
    )


def _preset(row: PresetRow, version: PresetVersionRow) -> Preset:
    return Preset(row.team, row.slug, row.created_at, row.updated_at, _version(version))
