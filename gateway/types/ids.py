"""Request ids: ordered UUIDv7 (RFC 9562 §5.7) made by this gateway.

The UTC time inside an id decides the ledger day, the hour and the budget window of a request, never a later
clock reading. Ids from one process never run backwards, even when the wall clock does.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Final, NewType

RequestId = NewType("RequestId", bytes)
"""16 bytes, big-endian, as in RFC 9562."""

PREFIX: Final = "gen-"
_ENTROPY_BLOCK: Final = 8 * 512


class RequestIds:
    """A source of ordered request ids for one process.

    The 12 bits after the version hold the fraction of the millisecond (RFC 9562 §6.2 method 3), so ids made in
    one millisecond still sort by time; 62 random bits follow. Not safe for several threads at once.
    """

    __slots__ = ("_entropy", "_last", "_offset")

    def __init__(self) -> None:
        self._entropy = b""
        self._offset = 0
        self._last = 0

    def new(self) -> RequestId:
        """Return the next id; strictly greater than every id this source returned before."""
        now = time.time_ns()
        stamp = ((now // 1_000_000) << 12) | ((now % 1_000_000) * 4096 // 1_000_000)
        if stamp <= self._last:
            stamp = self._last + 1
        self._last = stamp
        if self._offset >= len(self._entropy):
            self._entropy = os.urandom(_ENTROPY_BLOCK)
            self._offset = 0
        tail = int.from_bytes(self._entropy[self._offset : self._offset + 8], "big") >> 2
        self._offset += 8
        value = ((stamp >> 12) << 80) | (0x7 << 76) | ((stamp & 0xFFF) << 64) | (0b10 << 62) | tail
        return RequestId(value.to_bytes(16, "big"))


def text(request_id: bytes) -> str:
    """Return the public form: ``gen-`` and 32 hexadecimal digits."""
    return PREFIX + request_id.hex()


def parse(value: str) -> RequestId | None:
    """Return the id in ``value`` (the public form), or None when it is not one."""
    if not value.startswith(PREFIX) or len(value) != len(PREFIX) + 32:
        return None
    try:
        raw = bytes.fromhex(value[len(PREFIX) :])
    except ValueError:
        return None
    return RequestId(raw) if len(raw) == 16 and raw[6] >> 4 == 7 else None


def unix_ms(request_id: bytes) -> int:
    """Return the UTC time inside the id, in milliseconds since 1970."""
    return int.from_bytes(request_id[:6], "big")


def hour(request_id: bytes) -> int:
    """Return the UTC hour of the id, counted from 1970-01-01T00."""
    return unix_ms(request_id) // 3_600_000


def day(request_id: bytes) -> int:
    """Return the UTC day of the id, counted from 1970-01-01."""
    return unix_ms(request_id) // 86_400_000


def moment(request_id: bytes) -> datetime:
    """Return the UTC time inside the id."""
    return datetime.fromtimestamp(unix_ms(request_id) / 1000, tz=UTC)
