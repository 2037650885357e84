"""What answers of management have in common: exact JSON, times, pages. Errors are ``BadRequest``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from fastapi import Query, Response
from pydantic import Field

from gateway.types.money import usd_json

LONGEST_PAGE: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Changed = Callable[[], Awaitable[None]]
"""Called after a change, so that this process goes by it at once."""
Usd = Annotated[Decimal, Field(ge=0, le=2_000_000_000, decimal_places=9)]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000, description="How many to skip.")]
Limit = Annotated[int, Query(ge=1, le=LONGEST_PAGE, description="How many to show.")]
REFUSED: Final[dict[int | str, dict[str, Any]]] = {"4XX": {"description": "Refused; `error.message` says why."}}


def answered(content: dict[str, Any], status: int = 200) -> Response:
    """Return ``content`` as JSON that is not to be cached.

    Not FastAPI's encoder: amounts are numbers made from integers, which a float would not keep.
    """
    return Response(
        msgspec.json.encode(content), status, media_type="application/json", headers={"cache-control": "no-store"}
    )


def usd(nano: int) -> msgspec.Raw:
    """Return nano-USD as an exact JSON number of USD."""
    return msgspec.Raw(usd_json(nano))


def nano(amount: Decimal) -> int:
    """Return USD with at most nine decimals in nano-USD."""
    return int(amount.scaleb(9))


def iso(moment_us: int | None) -> str | None:
    """Return microseconds since 1970 as ISO 8601 in UTC."""
    if moment_us is None:
        return None
    moment = _EPOCH + timedelta(microseconds=moment_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}Z"
