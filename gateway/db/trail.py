"""The audit log's writing side: a change and the note of it are one transaction.

Repositories call ``note`` inside the unit of work that makes a change; who acts is in ``gateway.types.actor``. What was
before and after is kept as JSON. Nothing secret is: digests and hashes are kept as a short fingerprint, which tells
that one changed and not what it is. A change that changes nothing is not noted. Errors are those of the unit of work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.tables.console import AuditEntry
from gateway.types.actor import ACTING

SECRET: Final = frozenset({"password", "secret", "token", "api_key", "access_key", "secret_key", "client_secret"})
"""Members of which only a fingerprint is kept, whatever they hold; all bytes are treated likewise."""
Told = Mapping[str, Any] | msgspec.Struct | None
"""What something was or is; None when it did not exist, or does no more."""


async def note(session: AsyncSession, noun: str, subject: str, before: Told, after: Told, *, team: str = "") -> None:
    """Note a change in the unit of work that makes it.

    Args:
        session: of the writing unit.
        noun: what was changed, such as ``key``.
        subject: which one.
        before: what it was.
        after: what it is.
        team: the team that may read of it, ``""`` when only those who see everything may.
    """
    was, now = _plain(before), _plain(after)
    if was == now:
        return
    actor = ACTING.get()
    session.add(
        AuditEntry(
            at_us=time.time_ns() // 1_000,
            actor=actor.name,
            via=actor.via,
            address=actor.address,
            verb="create" if was is None else "delete" if now is None else "change",
            noun=noun,
            subject=subject,
            team=team,
            before=None if was is None else msgspec.json.encode(was).decode(),
            after=None if now is None else msgspec.json.encode(now).decode(),
        )
    )


def fingerprint(value: object) -> str:
    """Return what tells two secrets apart and is of no other use."""
    data = value if isinstance(value, bytes) else repr(value).encode()
    return f"sha256:{sha256(data).hexdigest()[:8]}…"


def _plain(told: Told) -> dict[str, Any] | None:
    """Return ``told`` as JSON-able members, without secrets."""
    if told is None:
        return None
    members: Any = told if isinstance(told, Mapping) else msgspec.structs.asdict(told)
    return {str(name): _safe(str(name), value) for name, value in members.items()}


def _safe(name: str, value: Any) -> Any:
    if value is None or value == "":
        return value
    if isinstance(value, bytes) or name in SECRET:
        return fingerprint(value)
    if isinstance(value, msgspec.Struct):
        return {member: _safe(member, inner) for member, inner in msgspec.structs.asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(member): _safe(str(member), inner) for member, inner in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        return [_safe(name, inner) for inner in value]
    return value if isinstance(value, str | int | float | bool) else str(value)
