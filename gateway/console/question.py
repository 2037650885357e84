"""What the console asks of the keeper, and the answers: plain values, and the methods that carry them.

Times are microseconds since 1970. Imported by whoever asks, so it knows no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.console.measure import PACES, REQUESTS, SPEED, USAGE
from gateway.console.roles import Grant
from gateway.types.method import Method, method


class User(msgspec.Struct, frozen=True):
    """A person who may sign in; see ``gateway.db.tables.console.ConsoleUser``.

    Attributes:
        local: whether there is a password here.
        linked: whether the person has signed in through the identity provider.
    """

    user_id: str
    login: str
    name: str
    grants: tuple[Grant, ...]
    disabled: bool
    must_change: bool
    local: bool
    linked: bool
    created_at: int
    seen_at: int | None


class Session(msgspec.Struct, frozen=True):
    """A browser that is signed in, and as whom."""

    session_id: bytes
    user: User
    created_at: int
    expires_at: int


class SessionInfo(msgspec.Struct, frozen=True):
    """A session as its owner sees it in a list; ``handle`` names it and is not its token."""

    handle: str
    created_at: int
    seen_at: int
    address: str
    agent: str


class SignIn(msgspec.Struct, frozen=True):
    """Somebody at the door: from where, and with which browser."""

    login: str
    password: str
    address: str
    agent: str


class Identity(msgspec.Struct, frozen=True):
    """Whom an identity provider vouches for.

    Attributes:
        subject: issuer and its id of the person.
        login: the address or name it gives.
        grants: roles that follow from its claims, for a new user.
        create: whether somebody unknown becomes a user.
    """

    subject: str
    login: str
    name: str
    grants: tuple[Grant, ...]
    create: bool
    address: str
    agent: str


class SignedIn(msgspec.Struct, frozen=True):
    """A new session: the only moment its token is known."""

    token: str
    session: Session


class NewUser(msgspec.Struct, frozen=True):
    """A user to be made; without a password they sign in elsewhere."""

    login: str
    name: str
    grants: tuple[Grant, ...]
    password: str | None = None
    must_change: bool = True


class UserPatch(msgspec.Struct, frozen=True):
    """A change of a user; None stays as it is. ``grants`` are all of theirs."""

    name: str | None = None
    grants: tuple[Grant, ...] | None = None
    disabled: bool | None = None


class AuditQuestion(msgspec.Struct, frozen=True):
    """A page of the audit log, newest first.

    Attributes:
        before: only entries with a smaller id; 0 for the newest.
        teams: only entries that these teams may read; None for all.
        noun, actor, subject: only entries of these; ``""`` for any.
    """

    before: int = 0
    limit: int = 50
    teams: tuple[str, ...] | None = None
    noun: str = ""
    actor: str = ""
    subject: str = ""


class Entry(msgspec.Struct, frozen=True):
    """An entry of the audit log; ``before`` and ``after`` are JSON."""

    entry_id: int
    at_us: int
    actor: str
    via: str
    address: str
    verb: str
    noun: str
    subject: str
    team: str
    before: str | None
    after: str | None


SIGN_IN: Final[Method[SignedIn]] = method("console.sign_in", tuple[SignIn], SignedIn, repeatable=False)
FIRST_OWNER: Final[Method[SignedIn]] = method("console.first_owner", tuple[SignIn], SignedIn, repeatable=False)
"""Make the first owner and sign them in; refused once there is a user."""
SIGN_IN_IDENTITY: Final[Method[SignedIn]] = method("console.sign_in_identity", tuple[Identity], SignedIn)
SESSION: Final[Method[Session | None]] = method("console.session", tuple[str], Session | None)
"""Who holds a token; None when it is unknown, over, idle for too long, or its user is switched off."""
SIGN_OUT: Final[Method[None]] = method("console.sign_out", tuple[str], None)
SIGN_OUT_EVERYWHERE: Final[Method[int]] = method("console.sign_out_everywhere", tuple[str], int)
SESSIONS: Final[Method[Sequence[SessionInfo]]] = method("console.sessions", tuple[str], tuple[SessionInfo, ...])
END_SESSION: Final[Method[None]] = method("console.end_session", tuple[str, str], None)
"""End the session with a handle of a user."""
VIRGIN: Final[Method[bool]] = method("console.virgin", tuple[()], bool)
"""Whether there is no user yet."""
USERS: Final[Method[Sequence[User]]] = method("console.users", tuple[()], tuple[User, ...])
USER: Final[Method[User]] = method("console.user", tuple[str], User)
CREATE_USER: Final[Method[User]] = method("console.create_user", tuple[NewUser], User, repeatable=False)
UPDATE_USER: Final[Method[User]] = method("console.update_user", tuple[str, UserPatch], User)
SET_PASSWORD: Final[Method[User]] = method("console.set_password", tuple[str, str, bool], User)
"""Give a user a password; the last argument says whether they must change it. Ends all their sessions."""
CHANGE_PASSWORD: Final[Method[User]] = method("console.change_password", tuple[str, str, str, str], User)
"""User, present password, new password, and the token of the session that stays."""
AUDIT_LOG: Final[Method[Sequence[Entry]]] = method("console.audit", tuple[AuditQuestion], tuple[Entry, ...])
DRAINED: Final[Method[Sequence[str]]] = method("console.drained", tuple[()], tuple[str, ...])
"""Names of the backends that are to get no new requests."""
DRAIN: Final[Method[None]] = method("console.drain", tuple[str, bool], None)
"""Drain a backend, or let it take new requests again."""

OFFICE: Final = (
    SIGN_IN,
    FIRST_OWNER,
    SIGN_IN_IDENTITY,
    SESSION,
    SIGN_OUT,
    SIGN_OUT_EVERYWHERE,
    SESSIONS,
    END_SESSION,
    VIRGIN,
    USERS,
    USER,
    CREATE_USER,
    UPDATE_USER,
    SET_PASSWORD,
    CHANGE_PASSWORD,
    AUDIT_LOG,
    USAGE,
    SPEED,
    PACES,
    REQUESTS,
)
"""What ``gateway.console.office`` answers."""
