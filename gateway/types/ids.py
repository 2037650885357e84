"""Request ids: ordered UUIDv7 (RFC 9562 §5.7) made by this gateway.

The UTC time inside an id decides the ledger day, the hour and the budget window of a request, never a later
clock reading. Ids from one process never run backwards, even when the wall clock does.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NewType

RequestId = NewType("RequestId", bytes)
"""16 bytes, big-endian, as in RFC 9562."""

PREFIX: Final = "gen-"
_ENTROPY: Final = struct.Struct(">512Q")
_HALVES: Final = struct.Struct(">QQ")


class RequestIds:
    """A source of ordered request ids for one process.

    The 12 bits after the version hold the fraction of the millisecond (RFC 9562 §6.2 method 3), so ids made in
    one millisecond still sort by time; 62 random bits follow. Not safe for several threads at once.
    """

    __slots__ = ("_last", "_tails")

    def __init__(self) -> None:
        self._tails: Iterator[int] = iter(())
        self._last = 0

    def new(self) -> RequestId:
        """Return the next id; strictly greater than every id this source returned before."""
        now = time.time_ns()
        stamp = ((now // 1_000_000) << 12) | ((now % 1_000_000) * 4096 // 1_000_000)
        if stamp <= self._last:
            stamp = self._last + 1
        self._last = stamp
        tail = next(self._tails, None)
        if tail is None:
            self._tails = iter(_ENTROPY.unpack(os.urandom(_ENTROPY.size)))
            tail = next(self._tails)
        return RequestId(_HALVES.pack(stamp >> 12 << 16 | 0x7000 | stamp & 0xFFF, 0b10 << 62 | tail >> 2))


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
