"""Passwords: argon2id with OWASP's smallest recommended cost, hashed in a thread, one at a time.

One at a time, because each takes 19 MiB while it runs and whoever may knock could ask for many. A login that does not
exist takes as long as one that does. The library is imported when the first password comes: most keepers never see one.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Final

from gateway.types.errors import BadRequest

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST: Final = 12
LONGEST: Final = 256
_NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$yZ/iBWmKUhk+ZzFLs9zX3Q1XPGEv4s0PXfNTLPb1Ga0"
"""A hash that no password has: what the wait for an unknown login is made of."""


class Passwords:
    """Hashes and checks passwords."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def hashed(self, password: str) -> str:
        """Return the hash of a new password. Raises ``BadRequest`` when it is too short or too long."""
        if len(password) < SHORTEST:
            raise BadRequest(f"a password has at least {SHORTEST} characters", param="password")
        if len(password) > LONGEST:
            raise BadRequest(f"a password has at most {LONGEST} characters", param="password")
        async with self._turn:
            return await asyncio.to_thread(_hash, password)

    async def fits(self, password: str, known: str) -> bool:
        """Return whether ``password`` is the one of the hash ``known``; ``""`` is the hash of nobody."""
        if len(password) > LONGEST:
            return False
        async with self._turn:
            return await asyncio.to_thread(_verify, known or _NOBODY, password) and bool(known)


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher  # noqa: PLC0415 - most keepers never see a password

    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def _hash(password: str) -> str:
    return _hasher().hash(password)


def _verify(known: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415 - as above

    try:
        return _hasher().verify(known, password)
    except (VerificationError, InvalidHashError):
        return False
