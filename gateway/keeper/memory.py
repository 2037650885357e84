"""What a keeper knew last, kept on disk for a start without the database.

One file in the state folder, mode 0600, written anew a moment after anything in it changed: all keys (their HMACs,
never their texts), all budgets, and what offices declare as ``Lasting`` (prices). Its first bytes are a keyed digest,
so that a file that is damaged, or of another ``WEIR_SECRET``, is not believed. A file that cannot be written is
logged; nothing else depends on it while the database is there. Only a database on a server can be away at the start of
a gateway that could serve without it; for an SQLite file none of this is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gateway.telemetry import logs
from gateway.types.budgets import Budget
from gateway.types.keys import KeyRecord

FILE: Final = "last-known"
LOOK_S: Final = 0.2
"""Seconds between two looks whether there is something new to keep."""
_DIGEST: Final = 32
_REST: Final = 10.0
"""Pause after writing, in times of what that took: with very many keys it is much."""
_log: Final = logs.logger(__name__)


class Known(msgspec.Struct, frozen=True):
    """What is kept.

    Attributes:
        at_us: when it was written, microseconds since 1970.
        keys: all keys, revoked ones too.
        budgets: all budgets.
        offices: what offices keep, by the name they give it.
    """

    at_us: int
    keys: tuple[KeyRecord, ...]
    budgets: tuple[Budget, ...]
    offices: dict[str, bytes]


_decoder: Final = msgspec.msgpack.Decoder(Known)


class Memory:
    """The file in the state folder ``home``; ``pepper`` is the gateway's secret."""

    def __init__(self, home: Path, pepper: bytes) -> None:
        self._path = home / FILE
        self._pepper = pepper

    def read(self) -> Known | None:
        """Return what is kept, or None when there is nothing that can be believed."""
        try:
            found = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.error("what was last known cannot be read", path=str(self._path), reason=str(error))
            return None
        digest, content = found[:_DIGEST], found[_DIGEST:]
        try:
            if not hmac.compare_digest(digest, self._digest(content)):
                raise msgspec.DecodeError("it is damaged, or of another WEIR_SECRET")
            return _decoder.decode(content)
        except msgspec.DecodeError as error:
            _log.error("what was last known is of no use", path=str(self._path), reason=str(error))
            return None

    def write(self, known: Known) -> None:
        """Keep ``known`` in place of what is kept. Raises ``OSError``; the old file is then as it was."""
        content = msgspec.msgpack.encode(known)
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._digest(content) + content)
                file.flush()
                os.fsync(descriptor)
            draft.replace(self._path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise

    def _digest(self, content: bytes) -> bytes:
        key = hashlib.sha256(self._pepper).digest()
        return hashlib.blake2b(content, digest_size=_DIGEST, key=key, person=b"weir last known").digest()


class Remembering:
    """Keeps a memory up to date.

    Args:
        memory: the file.
        version: returns something that differs whenever ``content`` does; cheap.
        content: returns what is known now: keys, budgets, and what offices have to say.
    """

    def __init__(
        self,
        memory: Memory,
        version: Callable[[], object],
        content: Callable[[], tuple[tuple[KeyRecord, ...], tuple[Budget, ...], dict[str, bytes]]],
    ) -> None:
        self._memory = memory
        self._version = version
        self._content = content
        self._kept: object = None
        self._offices: dict[str, bytes] | None = None
        self._complained = False

    async def run(self, stops_within: Callable[[float], Awaitable[bool]]) -> None:
        """Write whenever there is something new, until ``stops_within`` some seconds says so; then a last time."""
        pause = LOOK_S
        while not await stops_within(pause):
            pause = max(LOOK_S, _REST * await self.keep())
        await self.keep()

    async def keep(self) -> float:
        """Write if there is something new; return the seconds that took."""
        version = self._version()
        if version == self._kept:
            return 0.0
        began = time.monotonic()
        keys, budgets, offices = self._content()
        try:
            if self._offices is None:
                before = await asyncio.to_thread(self._memory.read)
                self._offices = dict(before.offices) if before is not None else {}
            # What an office has not been asked for since the start is as it was.
            self._offices |= offices
            known = Known(time.time_ns() // 1_000, keys, budgets, dict(self._offices))
            await asyncio.to_thread(self._memory.write, known)
        except OSError as error:
            if not self._complained:
                _log.error("what is known cannot be kept for a start without the database", reason=str(error))
            self._complained = True
        else:
            self._kept, self._complained = version, False
        return time.monotonic() - began
