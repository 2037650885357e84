"""The console's office at the keeper: who may sign in, who did, and what was changed."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Final

from gateway.config.snapshot import ConsoleSpec
from gateway.console import question as asked
from gateway.console.attempts import Attempts
from gateway.console.beginning import BEGIN_S, read_ahead
from gateway.console.passwords import Passwords
from gateway.console.roles import Grant, Role
from gateway.console.sessions import Sessions, digest_of
from gateway.console.trail import Trail
from gateway.console.usage import Usage
from gateway.console.usage import handlers as handlers_of
from gateway.console.users import Users
from gateway.db.office import Duty, Office, Premises
from gateway.types.actor import ACTING, Actor
from gateway.types.errors import BadRequest, Unauthorized
from gateway.types.method import Handler, Method

SWEEP_S: Final = 600.0


def open_office(premises: Premises) -> Office:
    """Return the office of the console."""
    desk, usage = Desk(premises), Usage(premises.database)
    handlers: dict[Method[Any], Handler] = dict(handlers_of(usage))
    own: dict[Method[Any], Handler] = {
        asked.SIGN_IN: desk.sign_in,
        asked.FIRST_OWNER: desk.first_owner,
        asked.SIGN_IN_IDENTITY: desk.sign_in_identity,
        asked.SESSION: desk.sessions.find,
        asked.SIGN_OUT: desk.sessions.end,
        asked.SIGN_OUT_EVERYWHERE: desk.sessions.end_all,
        asked.SESSIONS: desk.sessions.of_user,
        asked.END_SESSION: desk.sessions.end_one,
        asked.VIRGIN: desk.users.none_yet,
        asked.USERS: desk.users.all,
        asked.USER: desk.users.one,
        asked.CREATE_USER: desk.users.create,
        asked.UPDATE_USER: desk.users.update,
        asked.SET_PASSWORD: desk.set_password,
        asked.CHANGE_PASSWORD: desk.change_password,
        asked.AUDIT_LOG: Trail(premises.database).page,
    }
    duties = (
        Duty("console sessions", SWEEP_S, desk.sessions.sweep),
        Duty("the first pages of the console", BEGIN_S, partial(read_ahead, usage), once=True),
    )
    return Office(handlers | own, duties)


class Desk:
    """What the console asks that is more than one repository's."""

    def __init__(self, premises: Premises) -> None:
        def spec() -> ConsoleSpec:
            config = premises.config()
            return ConsoleSpec() if config is None else config.console

        self._attempts = Attempts()
        self._turn = asyncio.Lock()
        self.users = Users(premises.database, Passwords())
        self.sessions = Sessions(premises.database, spec)

    async def sign_in(self, who: asked.SignIn) -> asked.SignedIn:
        """Sign in with a password. Raises ``Unauthorized`` and ``RateLimited``."""
        login = who.login.strip().lower()
        async with self._turn:  # of many who knock together all would be let in before the first has failed
            now = time.monotonic()
            self._attempts.admit(login, who.address, now)
            try:
                user = await self.users.by_password(login, who.password)
            except Unauthorized:
                self._attempts.failed(login, who.address, now)
                raise
            self._attempts.succeeded(login, who.address)
        return await self.sessions.begin(user, who.address, who.agent)

    async def first_owner(self, who: asked.SignIn) -> asked.SignedIn:
        """Make the first owner and sign them in. Raises ``Forbidden`` when there is a user already."""
        ACTING.set(Actor(who.login, "console", who.address))
        new = asked.NewUser(who.login, who.login, (Grant(Role.OWNER),), who.password, must_change=False)
        user = await self.users.create(new, first=True)
        return await self.sessions.begin(user, who.address, who.agent)

    async def sign_in_identity(self, identity: asked.Identity) -> asked.SignedIn:
        """Sign in somebody whom the identity provider vouches for. Raises ``Forbidden``."""
        ACTING.set(Actor(identity.login, "console", identity.address))
        user = await self.users.by_identity(identity)
        return await self.sessions.begin(user, identity.address, identity.agent)

    async def set_password(self, user_id: str, password: str, must_change: bool) -> asked.User:
        """See ``SET_PASSWORD``."""
        return await self.users.set_password(user_id, password, must_change=must_change)

    async def change_password(self, user_id: str, present: str, password: str, token: str) -> asked.User:
        """See ``CHANGE_PASSWORD``. A session that was stolen guesses no more often than who has none."""
        async with self._turn:
            now = time.monotonic()
            self._attempts.admit(user_id, user_id, now)
            try:
                user = await self.users.change_password(user_id, present, password, digest_of(token))
            except BadRequest as error:
                if error.param == "present":
                    self._attempts.failed(user_id, user_id, now)
                raise
            self._attempts.succeeded(user_id, user_id)
        return user
