"""Versions in the database. Rows are only ever added; the database itself refuses to change or delete one.

A database that is away is ``Unavailable``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import func, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.config.problem import choice
from gateway.db.engine import Database
from gateway.db.tables.access import TeamRow
from gateway.db.tables.tariff import PriceVersion
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.pricing.charge import rates_id
from gateway.tariff.version import (
    FILE,
    Content,
    Hourly,
    Kind,
    Known,
    Proposal,
    Stated,
    Subject,
    Terms,
    Version,
    VersionQuery,
    standing,
)
from gateway.types.errors import BadRequest, Conflict
from gateway.types.money import Rates

_FORMS: Final[Mapping[Kind, type[Content]]] = {
    Kind.SELL: Rates,
    Kind.COST: Rates,
    Kind.HOUR: Hourly,
    Kind.TERMS: Terms,
}
_FIELDS: Final = {Rates: "rates", Hourly: "hourly", Terms: "terms"}
MOST: Final = 5_000
"""Versions on a page at most."""


class TariffStore:
    """The versions in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revision(self) -> int:
        """Return the id of the newest version, 0 when there is none."""
        async with reading(self._database) as session:
            return await _newest(session)

    async def known(self, now_us: int) -> Known:
        """Return the versions that are valid at ``now_us`` or will be."""
        async with reading(self._database) as session:
            return Known(await _newest(session), standing(await _standing(session, now_us), now_us))

    async def history(self, kind: Kind) -> tuple[Version, ...]:
        """Return every version of ``kind``, oldest moment first."""
        query = select(PriceVersion).where(col(PriceVersion.kind) == kind.value)
        query = query.order_by(col(PriceVersion.valid_from_us), col(PriceVersion.version_id))
        async with reading(self._database) as session:
            return tuple(_version(row) for row in (await session.execute(query)).scalars())

    async def page(self, query: VersionQuery) -> tuple[Version, ...]:
        """Return a page of all versions, newest first."""
        found = select(PriceVersion).order_by(col(PriceVersion.version_id).desc())
        for column, wanted in (
            (PriceVersion.kind, query.kind),
            (PriceVersion.model, query.model),
            (PriceVersion.place, query.place),
        ):
            if wanted is not None:
                found = found.where(col(column) == wanted)
        if query.before:
            found = found.where(col(PriceVersion.version_id) < query.before)
        async with reading(self._database) as session:
            rows = (await session.execute(found.limit(min(query.limit, MOST)))).scalars()
            return tuple(_version(row) for row in rows)

    async def state(self, said: Sequence[Stated], digest: str, now_us: int, since_us: int) -> tuple[str, ...]:
        """Make a version of everything that the file says otherwise than the last time.

        Returns:
            The machines whose cost by the hour was withdrawn.

        A machine that it no longer has costs nothing by the hour from then on. Prices and costs by token of what it no
        longer has stay: nothing is charged by them, and they hold when it comes back.

        Args:
            said: what the file says.
            digest: of the file's content.
            now_us: when they are made, microseconds since 1970.
            since_us: the moment they are valid from; what it says for the first time is valid at once.
        """
        async with writing(self._database) as session:
            before = await _last_of_file(session)
            gone = _gone(before, said)
            said = [*said, *gone]
            changed = [each for each in said if before.get(each.subject, None) != (each.rates or each.hourly)]
            proposals = [
                Proposal(
                    kind=each.kind,
                    model=each.model,
                    place=each.place,
                    valid_from_us=since_us if each.subject in before else now_us,
                    rates=each.rates,
                    hourly=each.hourly,
                    who=FILE,
                    why="the configuration file changed" if each.subject in before else "the configuration file",
                    source=FILE,
                    source_version=digest[:16],
                )
                for each in changed
            ]
            await _add(session, proposals, now_us, now_us)
            return tuple(each.place for each in gone if each in changed)

    async def accept(
        self, proposals: Sequence[Proposal], now_us: int, since_us: int, revision: int | None = None
    ) -> tuple[Version, ...]:
        """Make versions, all or none; none is valid before ``since_us``.

        Raises ``Conflict`` when a ``revision`` is given and it is not the newest one any more, ``BadRequest`` for terms
        of a team that there is not.
        """
        async with writing(self._database) as session:
            await _teams_there(session, proposals)
            if revision is not None and revision != await _newest(session):
                raise Conflict("somebody else made a version meanwhile")
            return await _add(session, proposals, now_us, since_us)


async def _teams_there(session: AsyncSession, proposals: Iterable[Proposal]) -> None:
    """Refuse terms that would hold for nobody; those of a team that is gone can still be withdrawn."""
    for team in sorted({each.place for each in proposals if each.terms is not None}):
        if await session.get(TeamRow, team) is None:
            teams = list(await session.scalars(select(TeamRow.slug).order_by(col(TeamRow.slug))))
            mend = choice(team, teams, none="make it first")
            raise BadRequest(f"terms {team}: there is no team {team[:64]!r}: {mend}", param="place")


async def _newest(session: AsyncSession) -> int:
    return int(await session.scalar(select(func.max(PriceVersion.version_id))) or 0)


async def _standing(session: AsyncSession, now_us: int) -> list[Version]:
    """Return, of each subject, the versions from the latest moment before ``now_us`` on."""
    latest = (
        select(
            col(PriceVersion.kind),
            col(PriceVersion.model),
            col(PriceVersion.place),
            func.max(PriceVersion.valid_from_us).label("since"),
        )
        .where(col(PriceVersion.valid_from_us) <= now_us)
        .group_by(col(PriceVersion.kind), col(PriceVersion.model), col(PriceVersion.place))
        .subquery()
    )
    query = select(PriceVersion).outerjoin(
        latest,
        (col(PriceVersion.kind) == latest.c.kind)
        & (col(PriceVersion.model) == latest.c.model)
        & (col(PriceVersion.place) == latest.c.place),
    )
    query = query.where(latest.c.since.is_(None) | (col(PriceVersion.valid_from_us) >= latest.c.since))
    return [_version(row) for row in (await session.execute(query)).scalars()]


async def _last_of_file(session: AsyncSession) -> dict[Subject, Content | None]:
    """Return what the file said the last time, by subject."""
    latest = (
        select(func.max(PriceVersion.version_id))
        .where(col(PriceVersion.source) == FILE)
        .group_by(col(PriceVersion.kind), col(PriceVersion.model), col(PriceVersion.place))
    )
    query = select(PriceVersion).where(col(PriceVersion.version_id).in_(latest))
    versions = (_version(row) for row in (await session.execute(query)).scalars())
    return {each.subject: each.content for each in versions}


def _gone(before: Mapping[Subject, Content | None], said: Iterable[Stated]) -> list[Stated]:
    """Return, saying nothing, the machines whose cost the file gave ``before`` and that it does not have any more."""
    named = {each.subject for each in said}
    return [
        Stated(Kind.HOUR, model, place)
        for kind, model, place in sorted(before)
        if kind == Kind.HOUR and (kind, model, place) not in named
    ]


async def _add(session: AsyncSession, proposals: Iterable[Proposal], now_us: int, since_us: int) -> tuple[Version, ...]:
    """Add a version for each proposal, in a transaction that no other writer can overtake."""
    newest = await _newest(session)
    versions = [
        Version(
            version_id=newest + number,
            kind=each.kind,
            model=each.model,
            place=each.place,
            valid_from_us=max(each.valid_from_us, since_us),
            rates=each.rates,
            hourly=each.hourly,
            terms=each.terms,
            who=each.who,
            why=each.why,
            source=each.source,
            source_version=each.source_version,
            made_us=now_us,
        )
        for number, each in enumerate(proposals, 1)
    ]
    if versions:
        stood = {each.subject: each for each in await _standing(session, now_us) if each.valid_from_us <= now_us}
        await session.execute(insert(PriceVersion), [_row(version) for version in versions])
        for version in versions:
            subject = " ".join(part for part in (version.kind.value, version.model, version.place) if part)
            await note(session, "price", subject, stood.get(version.subject), version)
    return tuple(versions)


def _row(version: Version) -> dict[str, Any]:
    content = version.content
    return {
        "version_id": version.version_id,
        "kind": version.kind.value,
        "model": version.model,
        "place": version.place,
        "valid_from_us": version.valid_from_us,
        "content": msgspec.json.encode(content).decode() if content is not None else "",
        "content_id": rates_id(content) if isinstance(content, Rates) else 0,
        "who": version.who,
        "why": version.why,
        "source": version.source,
        "source_version": version.source_version,
        "made_us": version.made_us,
    }


def _version(row: PriceVersion) -> Version:
    kind = Kind(row.kind)
    form = _FORMS[kind]
    said: dict[str, Any] = {_FIELDS[form]: msgspec.json.decode(row.content, type=form)} if row.content else {}
    return Version(
        version_id=row.version_id,
        kind=kind,
        model=row.model,
        place=row.place,
        valid_from_us=row.valid_from_us,
        who=row.who,
        why=row.why,
        source=row.source,
        source_version=row.source_version,
        made_us=row.made_us,
        **said,
    )
