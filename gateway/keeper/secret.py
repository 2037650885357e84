"""Noticing that a gateway works under another secret than the last one over the same database.

Keys are stored as HMACs under ``WEIR_SECRET``, so those of one secret are unknown under another: a second host that was
not given the first one's makes its own and answers 401 to half of the callers. What the database holds is a mark, made
of the secret, from which it cannot be told. Nothing is refused, because a secret may be changed on purpose.
"""

from __future__ import annotations

import hmac
from typing import Final

from gateway.db.engine import Database
from gateway.db.tables.secret import SecretMark
from gateway.db.unit_of_work import reading, writing
from gateway.telemetry import logs

_SUBJECT: Final = "gateway"
_DOMAIN: Final = b"weir secret mark v1"
_log: Final = logs.logger(__name__)


async def compare(database: Database, pepper: bytes) -> bool:
    """Return whether ``pepper`` is the secret under which a gateway over ``database`` began last; log when it is not.

    Where none has begun yet it is. From now on it is this one. Raises ``Unavailable``.
    """
    last, mark = await _last(database), _mark(pepper)
    if last is not None and last.mark == mark:
        return True
    async with writing(database) as session:
        await session.merge(SecretMark(subject=_SUBJECT, mark=mark))
    if last is None:
        return True
    _log.error(
        "secret_differs",
        reason="the last gateway over this database had another WEIR_SECRET: keys made there do not work here",
        mend="unless it was changed on purpose, give all hosts over one database the same WEIR_SECRET",
    )
    return False


async def differs(database_url: str, pepper: bytes) -> bool:
    """Return whether the last gateway over the database began under another secret. Raises ``Unavailable``."""
    database = Database(database_url)
    try:
        last = await _last(database)
    finally:
        await database.close()
    return last is not None and last.mark != _mark(pepper)


async def _last(database: Database) -> SecretMark | None:
    async with reading(database) as session:
        return await session.get(SecretMark, _SUBJECT)


def _mark(pepper: bytes) -> bytes:
    return hmac.digest(pepper, _DOMAIN, "sha256")
