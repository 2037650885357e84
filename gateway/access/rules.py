"""What teams and keys may look like. A value against the rules is ``BadRequest`` naming the field and the mend."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from gateway.access.keys import LONGEST_KEY, SHORTEST_CHOSEN
from gateway.types.errors import BadRequest
from gateway.types.keys import KeyLimits

LONGEST_NAME: Final = 200
LONGEST_SLUG: Final = 64
MOST_MODELS: Final = 1_000
LARGEST_LIMIT: Final = 10**12
LAST_MOMENT_US: Final = 253_402_300_799_000_000
"""The end of the year 9999, the last moment that ISO 8601 with four digits can say."""
LONGEST_OVERLAP_S: Final = 90 * 86_400.0

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]*")


def checked_slug(slug: str) -> str:
    """Return ``slug`` if a team may have it."""
    if len(slug) > LONGEST_SLUG or _SLUG.fullmatch(slug) is None:
        raise BadRequest(
            f"a team's slug has 1 to {LONGEST_SLUG} characters of a-z, 0-9 and -, and does not start with -",
            param="slug",
        )
    return slug


def checked_name(name: str) -> str:
    """Return ``name`` without outer space if a team or key may have it."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise BadRequest(f"a name has 1 to {LONGEST_NAME} printable characters", param="name")
    return name


def checked_models(models: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return ``models``, each once, if a key may be restricted to them."""
    if models is None:
        return None
    if not models:
        raise BadRequest("an empty list of models allows nothing: use null for all models", param="models")
    if len(models) > MOST_MODELS:
        raise BadRequest(f"a key can be restricted to at most {MOST_MODELS} models", param="models")
    for model in models:
        if not model or len(model) > LONGEST_NAME or not model.isprintable() or model != model.strip():
            raise BadRequest("a model id has 1 to 200 printable characters without outer space", param="models")
    return tuple(dict.fromkeys(models))


def checked_limits(limits: KeyLimits) -> KeyLimits:
    """Return ``limits`` if each is at least 1."""
    for name in ("rpm", "tpm", "concurrent"):
        value = getattr(limits, name)
        if value is not None and not 1 <= value <= LARGEST_LIMIT:
            raise BadRequest(
                f"a limit is a whole number from 1 to {LARGEST_LIMIT}, or null for none; to stop a key, disable it",
                param=f"limits.{name}",
            )
    return limits


def checked_expiry(expires_at: int | None, now_us: int) -> int | None:
    """Return ``expires_at`` (microseconds since 1970) if it is to come."""
    if expires_at is not None and not now_us < expires_at <= LAST_MOMENT_US:
        raise BadRequest(
            "expires_at must be a time to come, up to the year 9999; to stop a key now, disable or revoke it",
            param="expires_at",
        )
    return expires_at


def checked_overlap(overlap_s: float) -> float:
    """Return ``overlap_s`` (seconds) if the previous secret may work that long."""
    if not math.isfinite(overlap_s) or not 0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise BadRequest(f"overlap_seconds is from 0 to {LONGEST_OVERLAP_S:.0f}", param="overlap_seconds")
    return overlap_s


def checked_secret(secret: str) -> str:
    """Return the key text ``secret`` if an operator may choose it; no message repeats it."""
    fits = len(secret) >= SHORTEST_CHOSEN and len(secret.encode("utf-8", "replace")) <= LONGEST_KEY
    if not fits or not secret.isprintable() or secret != secret.strip():
        raise BadRequest(
            f"a chosen key has {SHORTEST_CHOSEN} to {LONGEST_KEY} printable characters without outer space",
            param="secret",
        )
    return secret
