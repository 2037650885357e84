"""What the console asks of the keeper, and the answers: plain values, and the methods that carry them.

Times are microseconds since 1970. Imported by whoever asks, so it knows no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.console.measure import FIRST_DAY, KEY_NAMES, PACES, REQUESTS, SPEED, USAGE, YIELDS
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
    """A change of a user; None stays as it is.

    ``grants`` are all of theirs; with ``within`` all that they have in this team, or everywhere where it is ``""``, and
    their other roles stay what they are by then.
    """

    name: str | None = None
    grants: tuple[Grant, ...] | None = None
    within: str | None = None
    disabled: bool | None = None


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request that was measured.

    Attributes:
        tokens: of the prompt, none of them cached.
        batch, context: requests that ran beside it, and the tokens they held.
        ttft: seconds to the first token.
        itl: mean seconds between two tokens, None when there were too few.
    """

    tokens: int
    batch: float
    context: float
    ttft: float
    itl: float | None


class Measured(msgspec.Struct, frozen=True):
    """What a calibration found.

    Attributes:
        model: that was asked, by its name on the backend.
        samples: what was measured.
        before, after: how far predictions were off, as a share of the true value in the median, before and after the
            samples were learned from.
        base: seconds to the first token of an empty prompt.
        rate: prompt tokens read per second.
        step: seconds between two tokens of one request alone.
    """

    model: str
    samples: tuple[Sample, ...]
    before: float
    after: float
    base: float
    rate: float
    step: float


class Calibration(msgspec.Struct, frozen=True):
    """The last calibration of a backend; it runs while ``ended_us`` is None."""

    backend: str
    run_id: str
    who: str
    began_us: int
    ended_us: int | None
    problem: str
    measured: Measured | None

    def runs(self, now_us: int) -> bool:
        """Return whether it runs; one whose process died does not for ever."""
        return self.ended_us is None and now_us - self.began_us < LONGEST_CALIBRATION_US


class Setting(msgspec.Struct, frozen=True):
    """What operators changed of a section of the configuration; see ``gateway.config.overlay``."""

    name: str
    content: dict[str, Any]
    version: int
    who: str
    changed_us: int


class ManagementKey(msgspec.Struct, frozen=True):
    """A management key with a role; ``digest`` is its HMAC under the gateway's secret."""

    key_id: str
    name: str
    role: str
    digest: bytes
    who: str
    created_us: int


class IssuedManagementKey(msgspec.Struct, frozen=True):
    """A new one: the only moment its text is known."""

    record: ManagementKey
    key: str


LONGEST_CALIBRATION_US: Final = 180_000_000


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

BEGIN_CALIBRATION: Final[Method[str]] = method("console.begin_calibration", tuple[str], str, repeatable=False)
"""Begin to calibrate a backend and return the id of the run. ``Conflict`` while another one runs."""
END_CALIBRATION: Final[Method[None]] = method("console.end_calibration", tuple[str, str, str, Measured | None], None)
"""End the run of a backend: its id, the problem that ended it or ``""``, and what was measured."""
CALIBRATIONS: Final[Method[Sequence[Calibration]]] = method("console.calibrations", tuple[()], tuple[Calibration, ...])
"""The last calibration of each backend."""

SETTINGS: Final[Method[Sequence[Setting]]] = method("console.settings", tuple[()], tuple[Setting, ...])
CHANGE_SETTINGS: Final[Method[Setting]] = method(
    "console.change_settings", tuple[str, dict[str, Any], int], Setting, repeatable=False
)
"""Change a section: all that goes before the file, and the version that this replaces, 0 for none."""

MANAGEMENT_KEYS: Final[Method[Sequence[ManagementKey]]] = method(
    "console.management_keys", tuple[()], tuple[ManagementKey, ...]
)
"""Those that are not revoked."""
CREATE_MANAGEMENT_KEY: Final[Method[IssuedManagementKey]] = method(
    "console.create_management_key", tuple[str, str], IssuedManagementKey, repeatable=False
)
REVOKE_MANAGEMENT_KEY: Final[Method[None]] = method("console.revoke_management_key", tuple[str], None)

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
    FIRST_DAY,
    REQUESTS,
    YIELDS,
    KEY_NAMES,
)
"""What ``gateway.console.office`` answers."""
