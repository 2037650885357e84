"""Users and their roles in the database. Every change is one transaction with its note in the audit log.

A bad value is ``BadRequest``, an unknown id ``NotFound``, a database that is away ``Unavailable``. The last owner
cannot be switched off or made less.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from secrets import token_hex
from typing import Any, Final

from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access.rules import checked_name
from gateway.console.passwords import Passwords
from gateway.console.question import Identity, NewUser, User, UserPatch
from gateway.console.roles import Grant, Role, fits
from gateway.db.engine import Database
from gateway.db.tables.access import TeamRow
from gateway.db.tables.console import ConsoleGrant, ConsoleSession, ConsoleUser
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.errors import BadRequest, Forbidden, NotFound, Unauthorized

_LOGIN: Final = re.compile(r"[a-z0-9][a-z0-9._+@-]{0,127}")


class Users:
    """The repository of users."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    async def none_yet(self) -> bool:
        """Return whether there is no user."""
        async with reading(self._database) as session:
            return await session.scalar(select(ConsoleUser.user_id).limit(1)) is None

    async def all(self) -> Sequence[User]:
        """Return all users by login."""
        async with reading(self._database) as session:
            rows = (await session.scalars(select(ConsoleUser).order_by(col(ConsoleUser.login)))).all()
            grants: dict[str, list[Grant]] = {}
            for row in await session.scalars(select(ConsoleGrant)):
                grants.setdefault(row.user_id, []).append(Grant(Role(row.role), row.team))
            return tuple(user_of(row, grants.get(row.user_id, ())) for row in rows)

    async def one(self, user_id: str) -> User:
        """Return a user. Raises ``NotFound``."""
        async with reading(self._database) as session:
            return await _known(session, await _row(session, user_id))

    async def by_password(self, login: str, password: str) -> User:
        """Return the user of a login and its password. Raises ``Unauthorized``, which does not say what is wrong."""
        async with reading(self._database) as session:
            query = select(ConsoleUser).where(col(ConsoleUser.login) == login.strip().lower())
            row = (await session.scalars(query)).first()
            user = None if row is None else await _known(session, row)
        right = await self._passwords.fits(password, "" if row is None else row.password)
        if not right or user is None or user.disabled:
            raise Unauthorized("login or password is wrong")
        return user

    async def by_identity(self, identity: Identity) -> User:
        """Return the user whom an identity provider vouches for, made if that is allowed. Raises ``Forbidden``."""
        async with writing(self._database) as session:
            query = select(ConsoleUser).where(col(ConsoleUser.subject) == identity.subject)
            row = (await session.scalars(query)).first()
            if row is None:
                row = await self._linked(session, identity)
            user = await _known(session, row)
        if user.disabled:
            raise Forbidden("this user is switched off")
        return user

    async def _linked(self, session: AsyncSession, identity: Identity) -> ConsoleUser:
        """Return the user of a login that signs in through the provider for the first time, or a new one."""
        query = select(ConsoleUser).where(col(ConsoleUser.login) == identity.login.lower())
        row = (await session.scalars(query)).first()
        if row is not None:
            if row.subject is not None or row.password:
                # A password here may be of somebody else than the provider's user of the same name.
                raise Forbidden("this login has a password here: sign in with it, or ask an admin to remove it")
            before = await _known(session, row)
            row.subject, row.updated_at = identity.subject, _now_us()
            await note(session, "user", row.login, before, await _known(session, row))
            return row
        if not identity.create:
            raise Forbidden("nobody has given you access yet: ask an admin to add your login")
        row = _new_row(checked_login(identity.login), checked_name(identity.name or identity.login))
        row.subject = identity.subject
        session.add(row)
        await session.flush()
        await _grant(session, row.user_id, identity.grants)
        await note(session, "user", row.login, None, await _known(session, row))
        return row

    async def create(self, new: NewUser, *, first: bool = False) -> User:
        """Make a user; the ``first`` only when there is none yet."""
        login, name = checked_login(new.login), checked_name(new.name or new.login)
        password = "" if new.password is None else await self._passwords.hashed(new.password)
        async with writing(self._database) as session:
            if first and await session.scalar(select(ConsoleUser.user_id).limit(1)) is not None:
                raise Forbidden("there is an owner already: sign in with a login and a password")
            query = select(ConsoleUser.user_id).where(col(ConsoleUser.login) == login)
            if await session.scalar(query) is not None:
                raise BadRequest("there is a user with this login already", param="login")
            row = _new_row(login, name)
            row.password, row.must_change = password, new.must_change and bool(password)
            session.add(row)
            await session.flush()
            await _grant(session, row.user_id, new.grants)
            user = await _known(session, row)
            await note(session, "user", login, None, user)
        return user

    async def update(self, user_id: str, patch: UserPatch) -> User:
        """Change a user; who is switched off is signed out everywhere."""
        async with writing(self._database) as session:
            row = await _row(session, user_id)
            before = await _known(session, row)
            if patch.name is not None:
                row.name = checked_name(patch.name)
            if patch.disabled is not None:
                row.disabled = patch.disabled
            if patch.grants is not None:
                await _grant(session, user_id, patch.grants, patch.within)
            row.updated_at = _now_us()
            await session.flush()
            await _keep_an_owner(session)
            if row.disabled:
                await session.execute(delete(ConsoleSession).where(col(ConsoleSession.user_id) == user_id))
            after = await _known(session, row)
            await note(session, "user", row.login, before, after)
        return after

    async def set_password(self, user_id: str, password: str, *, must_change: bool, keep: bytes = b"") -> User:
        """Give a user a password and end their sessions, all but ``keep``."""
        hashed = await self._passwords.hashed(password)
        async with writing(self._database) as session:
            row = await _row(session, user_id)
            before = {"password": row.password, "must_change": row.must_change}
            row.password, row.must_change, row.updated_at = hashed, must_change, _now_us()
            gone = delete(ConsoleSession).where(col(ConsoleSession.user_id) == user_id)
            await session.execute(gone.where(col(ConsoleSession.session_id) != keep))
            await note(session, "password", row.login, before, {"password": hashed, "must_change": must_change})
            return await _known(session, row)

    async def change_password(self, user_id: str, present: str, password: str, keep: bytes) -> User:
        """Let a user change their own password. Raises ``BadRequest`` when the present one is wrong."""
        async with reading(self._database) as session:
            row = await _row(session, user_id)
        if not await self._passwords.fits(present, row.password):
            raise BadRequest("this is not your present password", param="present")
        if present == password:
            raise BadRequest("the new password is the present one", param="password")
        return await self.set_password(user_id, password, must_change=False, keep=keep)


def checked_login(login: str) -> str:
    """Return ``login`` in lower case if it can be one. Raises ``BadRequest``."""
    wanted = login.strip().lower()
    if _LOGIN.fullmatch(wanted) is None:
        raise BadRequest("a login is a name or an e-mail address: letters, digits and . _ + @ -", param="login")
    return wanted


async def known_grants(session: AsyncSession, user_id: str) -> tuple[Grant, ...]:
    """Return the roles of a user."""
    rows = await session.scalars(select(ConsoleGrant).where(col(ConsoleGrant.user_id) == user_id))
    return grants_of(rows)


def grants_of(rows: Iterable[ConsoleGrant]) -> tuple[Grant, ...]:
    """Return rows as the roles that they are."""
    return tuple(Grant(Role(row.role), row.team) for row in rows)


def user_of(row: ConsoleUser, grants: Iterable[Grant]) -> User:
    """Return ``row`` as the value that others see: no hash is in it."""
    return User(
        user_id=row.user_id,
        login=row.login,
        name=row.name,
        grants=tuple(sorted(grants, key=lambda grant: (grant.team, grant.role))),
        disabled=row.disabled,
        must_change=row.must_change,
        local=bool(row.password),
        linked=row.subject is not None,
        created_at=row.created_at,
        seen_at=row.seen_at,
    )


def _new_row(login: str, name: str) -> ConsoleUser:
    now = _now_us()
    return ConsoleUser(user_id=f"usr-{token_hex(8)}", login=login, name=name, created_at=now, updated_at=now)


async def _known(session: AsyncSession, row: ConsoleUser) -> User:
    return user_of(row, await known_grants(session, row.user_id))


async def _row(session: AsyncSession, user_id: str) -> ConsoleUser:
    row = await session.get(ConsoleUser, user_id)
    if row is None:
        raise NotFound("there is no such user", param="user")
    return row


async def _grant(session: AsyncSession, user_id: str, grants: Sequence[Grant], within: str | None = None) -> None:
    """Make ``grants`` all the roles of a user, or all ``within`` a team. Raises ``BadRequest``."""
    teams = [grant.team for grant in grants]
    if within is not None and set(teams) - {within}:
        raise BadRequest("this role is of another team than the one that is changed", param="team")
    if len(set(teams)) != len(teams):
        raise BadRequest("a user has one role in a team, and one everywhere", param="role")
    for grant in grants:
        if not fits(grant):
            where = f"in a team ({grant.team})" if grant.team else "everywhere"
            raise BadRequest(f"the role {grant.role.value} cannot be given {where}", param="role")
        if grant.team and await session.get(TeamRow, grant.team) is None:
            raise BadRequest(f"there is no team {grant.team!r}", param="team")
    gone = delete(ConsoleGrant).where(col(ConsoleGrant.user_id) == user_id)
    await session.execute(gone if within is None else gone.where(col(ConsoleGrant.team) == within))
    session.add_all([ConsoleGrant(user_id=user_id, team=grant.team, role=grant.role.value) for grant in grants])
    await session.flush()


async def _keep_an_owner(session: AsyncSession) -> None:
    owners: Any = (
        select(func.count())
        .select_from(ConsoleGrant)
        .join(ConsoleUser, col(ConsoleUser.user_id) == col(ConsoleGrant.user_id))
        .where(col(ConsoleGrant.role) == Role.OWNER.value, col(ConsoleUser.disabled).is_(False))
    )
    if not await session.scalar(owners):
        raise BadRequest("this is the last owner: make another one first", param="role")


def _now_us() -> int:
    return time.time_ns() // 1_000
