"""Answers that are kept to be given again: for an ``Idempotency-Key``, and for callers who want a response cache.

What workers ask the keeper of them. A *claim* is the right to answer the one request of an idempotency key; it belongs
to the request id that took it, so that whoever lost it to another one can neither keep an answer nor release it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from gateway.types.method import method


class Standing(IntEnum):
    """What became of a claim."""

    TAKEN = 0
    """It is the asker's: answer the request."""
    RUNNING = 1
    """Another request with this key is being answered."""
    OTHER = 2
    """The key belongs to a request with another path or body."""
    ANSWERED = 3
    """The request was answered; here is the answer."""
    UNKEPT = 4
    """The request was answered, and its answer was too large to be kept."""
    FULL = 5
    """So much is kept for the inference key that no answer more can be promised."""


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of a claim.

    Attributes:
        request_id: the request that was answered or is being answered.
        content: the kept answer, see ``Kept``.
        wait_s: seconds after which asking again may help; of ``FULL``.
    """

    standing: Standing
    request_id: bytes = b""
    content: bytes = b""
    wait_s: float = 0.0


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A response as its caller got it.

    Attributes:
        status: HTTP status.
        headers: lines ended by CRLF, without length and connection.
        body: the whole of it.
        streamed: whether it was a stream.
    """

    status: int
    headers: bytes
    body: bytes
    streamed: bool


class CachedAnswer(msgspec.Struct, frozen=True, array_like=True):
    """An answer in the response cache.

    Attributes:
        source: the request that it was made for.
        age_s: seconds since then.
        ttl_s: seconds that it is kept in all.
        content: see ``gateway.edge.witness.Seen``.
    """

    source: bytes
    age_s: float
    ttl_s: int
    content: bytes


class CacheHit(msgspec.Struct, frozen=True, array_like=True):
    """A request that was answered from the response cache.

    Attributes:
        request_id: of the hit.
        source: the request whose answer it got.
        key_id, team: who asked.
        model, provider: who gave the answer; ``""`` in one that is read again.
    """

    request_id: bytes
    source: bytes
    key_id: str
    team: str
    model: str = ""
    provider: str = ""


CLAIM: Final = method("repetition.claim", tuple[str, bytes, bytes, bytes, str], Claim)
"""Take the claim of inference key, digest of the idempotency key and fingerprint, for a request of a journal writer."""
KEEP: Final = method("repetition.keep", tuple[str, bytes, bytes, bytes | None], bool)
"""Keep the answer to a claim, None for one that is too large; whether the claim was still the request's."""
RELEASE: Final = method("repetition.release", tuple[str, bytes, bytes], bool)
"""Let a claim go, so that the next request may take it; whether it was still the request's."""
CACHED: Final = method("repetition.cached", tuple[str, bytes], CachedAnswer | None)
"""The cached answer of an inference key and a digest, or None."""
CACHE: Final = method("repetition.cache", tuple[str, bytes, bytes, int, bytes], bool)
"""Cache an answer for inference key, digest, request and seconds; False when it is too large."""
CLEAR: Final = method("repetition.clear", tuple[str, bytes], bool)
"""Forget the cached answer of an inference key and a digest."""
HITS: Final = method("repetition.hits", tuple[list[CacheHit]], int)
"""Write down hits."""
HIT: Final = method("repetition.hit", tuple[bytes], CacheHit | None)
"""The hit of a request id, or None."""
