"""The servers beside the database that a keeper may use; a value that costs nothing to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Extras:
    """What the environment names.

    Attributes:
        redis_url: where hosts share their limits, or None when each counts alone.
        alert_url: where budget alerts go, or None when they are only logged.
        alert_secret: key of the alerts' signatures.
    """

    redis_url: str | None = None
    alert_url: str | None = None
    alert_secret: bytes = b""


NO_EXTRAS: Final = Extras()
